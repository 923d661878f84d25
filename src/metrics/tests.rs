//! Tests over the whole registry; the expositions are read back as a scraper would.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
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

#[test]
fn names_follow_the_conventions() {
    for (name, family) in families() {
        let Family {
            kind, help, labels, ..
        } = &family;
        assert!(
            name.starts_with("sidepool_") || name.starts_with("process_"),
            "{name}"
        );
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{name}"
        );
        assert_eq!(
            kind == "counter",
            name.ends_with("_total"),
            "{name} is a {kind}"
        );
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name}");
        for wrong in [
            "_ms", "_millis", "_micros", "_kb", "_kib", "_minutes", "_percent", "_count", "_sum",
            "_bucket",
        ] {
            assert!(!name.contains(wrong), "{name} has {wrong}");
        }
        let words = help.split_whitespace().count();
        assert!(
            words >= 5 && help.ends_with('.'),
            "HELP of {name} is no phrase: {help}"
        );
        for label in labels.keys() {
            assert!(
                !["le", "job", "instance", "user", "database"].contains(&label.as_str()),
                "{name}"
            );
        }
    }
}

#[test]
fn the_page_lists_what_is_exported_and_nothing_else() {
    let rows = documented();
    let exported = families();
    assert_eq!(
        rows.keys().collect::<Vec<_>>(),
        exported.keys().collect::<Vec<_>>()
    );
    for (name, family) in &exported {
        let [kind, labels, meaning] = &rows[name];
        assert_eq!(kind, &family.kind, "{name}");
        let named: BTreeSet<_> = quoted(labels).collect();
        let actual: BTreeSet<_> = family.labels.keys().map(String::as_str).collect();
        assert_eq!(named, actual, "{name}");
        for (label, values) in &family.labels {
            // These are said once for all metrics, or are too many to list.
            if ["backend", "tls", "result", "command", "version", "checksum"]
                .contains(&label.as_str())
            {
                continue;
            }
            for value in values {
                assert!(
                    quoted(meaning).any(|word| word == value),
                    "{name}: {value} is not explained"
                );
            }
        }
    }
}

/// Section A.6 of the notes on RDS Proxy: the CloudWatch metrics in the namespace AWS/RDS, group `proxy`.
const CLOUDWATCH: [&str; 24] = [
    "AvailabilityPercentage",
    "ClientConnections",
    "ClientConnectionsClosed",
    "ClientConnectionsNoTLS",
    "ClientConnectionsReceived",
    "ClientConnectionsSetupFailedAuth",
    "ClientConnectionsSetupSucceeded",
    "ClientConnectionsTLS",
    "DatabaseConnectionRequests",
    "DatabaseConnectionRequestsWithTLS",
    "DatabaseConnections",
    "DatabaseConnectionsBorrowLatency",
    "DatabaseConnectionsCurrentlyBorrowed",
    "DatabaseConnectionsCurrentlyInTransaction",
    "DatabaseConnectionsCurrentlySessionPinned",
    "DatabaseConnectionsSetupFailed",
    "DatabaseConnectionsSetupSucceeded",
    "DatabaseConnectionsWithTLS",
    "MaxDatabaseConnectionsAllowed",
    "QueryDatabaseResponseLatency",
    "QueryRequests",
    "QueryRequestsNoTLS",
    "QueryRequestsTLS",
    "QueryResponseLatency",
];

#[test]
fn every_cloudwatch_metric_has_a_counterpart() {
    let page = file("docs/METRICS.md");
    let section = page
        .split("## For those who come from RDS Proxy")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .unwrap();
    for name in CLOUDWATCH {
        let row = section
            .lines()
            .find_map(|line| line.strip_prefix(&format!("| {name} | ")))
            .unwrap_or_else(|| panic!("{name} is not mapped"));
        assert!(row.contains("sidepool_"), "{name}: {row}");
    }
}

#[test]
fn what_names_metrics_names_real_ones() {
    let exported = families();
    for path in [
        "docs/METRICS.md",
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts.test.yml",
        "deploy/grafana/sidepool.json",
    ] {
        let text = file(path);
        let mut found = 0;
        for name in text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("sidepool_") && *word != "sidepool_")
        {
            found += 1;
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            assert!(exported.contains_key(base), "{path}: {name} does not exist");
        }
        assert!(found > 10, "{path} names {found} metrics");
    }
}

#[test]
fn figures_of_the_process_are_read_when_asked_for() {
    let metrics = Metrics::new();
    let text = text(&metrics);
    let value = |name: &str| -> f64 {
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("{name} ")))
            .unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_start_time_seconds") > 1.6e9);
    assert!(value("process_cpu_seconds_total") >= 0.0);
}

/// One metric as the exposition tells of it.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    /// Label names with the values that occurred.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Reads the whole exposition of a registry in which every family has a series.
fn families() -> BTreeMap<String, Family> {
    let metrics = Metrics::new();
    let (_pool, _backend) = (metrics.pool("db:3306"), metrics.backend("db:3306"));
    metrics.process.config_loaded("c0ffee", UNIX_EPOCH);
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text(&metrics).lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            families.entry(current.clone()).or_default().help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            families.get_mut(&current).unwrap().kind = kind.to_owned();
        } else {
            assert!(line.starts_with(&current), "{line} stands under {current}");
            let labels = line
                .split_once('{')
                .map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
            for (name, value) in labels.split(',').filter_map(|pair| pair.split_once('=')) {
                if name != "le" {
                    let family = families.get_mut(&current).unwrap();
                    let values = family.labels.entry(name.to_owned()).or_default();
                    values.insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    families
}

/// The rows of the page's tables of metrics: name to type, labels and meaning.
fn documented() -> BTreeMap<String, [String; 3]> {
    let page = file("docs/METRICS.md");
    page.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, kind, labels, meaning] = cells[..] else {
                panic!("not four cells: {line}");
            };
            (
                name.trim_matches('`').to_owned(),
                [kind, labels, meaning].map(str::to_owned),
            )
        })
        .collect()
}

/// The words that stand between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.encode().unwrap()).unwrap()
}
