//! Tests over the whole registry; the expositions are read back as a scraper would.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::reason::{CloseReason, PinReason, RetireReason};

#[test]
fn handles_and_text_agree() {
    let metrics = Metrics::new();
    let pool = metrics.pool("db:3306");
    metrics.clients.closed.inc(CloseReason::IdleTimeout);
    metrics.sessions.pins.inc(PinReason::Lock);
    metrics.queries.commands.inc(CommandName::of(0x03));
    metrics.queries.commands.inc(CommandName::of(0x7b));
    metrics.queries.bytes.get(Direction::ToClient).add(4096);
    metrics.queries.response.observe(Duration::from_micros(70));
    pool.dialed(Outcome::Failed, Tls::On);
    pool.retired.inc(RetireReason::ServerClosed);
    pool.max.set(90);
    metrics
        .process
        .config_loaded("c0ffee", UNIX_EPOCH + Duration::from_secs(5));
    metrics
        .process
        .config_loaded("decade", UNIX_EPOCH + Duration::from_secs(7));

    let text = text(&metrics);
    for line in [
        r#"sidepool_client_connections_closed_total{reason="idle_timeout"} 1"#,
        r#"sidepool_client_connections_closed_total{reason="quit"} 0"#,
        r#"sidepool_session_pins_total{reason="lock"} 1"#,
        r#"sidepool_commands_total{command="query"} 1"#,
        r#"sidepool_commands_total{command="other"} 1"#,
        r#"sidepool_query_bytes_total{direction="database_to_client"} 4096"#,
        r#"sidepool_query_response_seconds_bucket{le="0.00005"} 0"#,
        r#"sidepool_query_response_seconds_bucket{le="0.0001"} 1"#,
        r#"sidepool_pool_dials_total{backend="db:3306",result="failed",tls="true"} 1"#,
        r#"sidepool_pool_retired_total{backend="db:3306",reason="server_closed"} 1"#,
        r#"sidepool_pool_connections_max{backend="db:3306"} 90"#,
        r#"sidepool_config_info{checksum="decade"} 1"#,
        "sidepool_config_reload_success_timestamp_seconds 7",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in:\n{text}");
    }
    assert!(
        !text.contains("c0ffee"),
        "only the settings in use are shown"
    );
}

#[test]
fn guards_hold_a_gauge_up_until_they_are_dropped() {
    let metrics = Metrics::new();
    let pool = metrics.pool("db:3306");
    let idle = pool.connections.guard(ConnectionState::Idle);
    let other = metrics
        .pool("db:3306")
        .connections
        .guard(ConnectionState::Idle);
    assert_eq!(pool.connections.get(ConnectionState::Idle).get(), 2);

    // Another thread may end it, also by unwinding.
    let worker = std::thread::spawn(move || {
        let _held = other;
        panic!("a session's task ended unexpectedly");
    });
    assert!(worker.join().is_err());
    assert_eq!(pool.connections.get(ConnectionState::Idle).get(), 1);
    drop(idle);
    assert_eq!(pool.connections.get(ConnectionState::Idle).get(), 0);
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.encode().unwrap()).unwrap()
}
