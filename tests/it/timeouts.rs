//! Every timeout toward clients: what closes, what is said, what is counted, and what is left alone.

use std::io::Write;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Wire, parse_err};

on_every_server! {
    an_idle_client_is_told_why => idle;
    the_notice_is_the_operators_choice => notices;
    a_stale_use_is_counted => stale_use;
    a_clean_end_is_no_stale_use => clean_end;
    a_client_that_works_is_not_idle => busy;
    an_idle_transaction_is_rolled_back => idle_transaction;
    a_pinned_idle_client_frees_its_connection => pinned;
    a_lifetime_ends_between_transactions => lifetime;
    observe_mode_closes_nothing => observe;
    a_rule_overrides => rule;
    the_clients_own_wait_timeout_holds => own_wait_timeout;
    a_longer_wait_timeout_of_the_clients_is_capped => longer_wait_timeout;
    a_slow_login_is_ended => handshake;
    a_reload_reaches_idle_clients => reload;
    a_ping_is_activity_if_wanted => ping;
}

const IDLE: (&str, &str) = ("SIDEPOOL_CLIENT__IDLE_TIMEOUT", "300ms");
const CLOSED: &str = "sidepool_client_connections_closed_total";

/// Waits for the end of a connection; the notice that came before it.
async fn notice(wire: &mut Wire) -> Option<(u8, u16)> {
    let first = timeout(Duration::from_secs(8), wire.read_packet())
        .await
        .expect("never closed");
    let Ok((seq, packet)) = first else {
        return None;
    };
    let code = parse_err(&packet).code;
    let end = timeout(Duration::from_secs(8), wire.read_packet())
        .await
        .expect("no end");
    assert!(end.is_err(), "something behind the notice");
    Some((seq, code))
}

/// Fails if a connection ends, or anything comes, within this time.
async fn silent(wire: &mut Wire, time: Duration) {
    let came = timeout(time, wire.read_packet()).await;
    assert!(came.is_err(), "closed or spoken to: {came:?}");
}

fn own_notice(server: &Server) -> u16 {
    if is_mariadb(server) { 1927 } else { 4031 }
}

async fn idle(server: &Server) {
    let sidepool = Sidepool::start(server, &[IDLE]);
    let mut wire = client(&sidepool).await;
    wire.run("SELECT 1").await;
    let began = Instant::now();
    assert_eq!(notice(&mut wire).await, Some((0, own_notice(server))));
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(250) && took < Duration::from_secs(3),
        "{took:?}"
    );
    eventually("it is counted", async || {
        sidepool.metric(CLOSED, "\"idle_timeout\"") == 1.0
    })
    .await;
    let lines = || {
        let log = sidepool.log();
        let of_it = log.lines().filter(|line| line.contains("client closed"));
        of_it.map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("it is logged", async || !lines().is_empty()).await;
    assert!(lines()[0].contains("user="), "{:?}", lines());
    assert_eq!(lines().len(), 1, "{:?}", lines());
    assert_eq!(sidepool.metric("sidepool_client_connections", ""), 0.0);
    assert_eq!(sidepool.metric("sidepool_stale_uses_total", ""), 0.0);
    assert_eq!(
        sidepool.metric("sidepool_stale_watch_sockets", ""),
        1.0,
        "a half-close only"
    );
}

async fn notices(server: &Server) {
    for (word, code) in [
        ("4031", Some((0, 4031))),
        ("1927", Some((0, 1927))),
        ("none", None),
    ] {
        let sidepool = Sidepool::start(server, &[IDLE, ("SIDEPOOL_CLIENT__CLOSE_NOTICE", word)]);
        let mut wire = client(&sidepool).await;
        assert_eq!(notice(&mut wire).await, code, "close_notice = {word}");
    }
}

async fn stale_use(server: &Server) {
    let sidepool = Sidepool::start(server, &[IDLE]);
    let mut wire = client(&sidepool).await;
    notice(&mut wire).await;
    wire.send_raw(b"\x09\0\0\0\x03SELECT 1").await.unwrap();
    eventually("it is counted", async || {
        sidepool.metric("sidepool_stale_uses_total", "") == 1.0
    })
    .await;
    assert_eq!(
        sidepool.metric("sidepool_stale_watch_endings_total", "stale_use"),
        1.0
    );
    eventually("it is logged, with who it was", async || {
        let log = sidepool.log();
        let mut lines = log.lines();
        lines.any(|line| {
            line.contains("stale use") && line.contains("user=") && line.contains("program=")
        })
    })
    .await;
    eventually("the watch is over", async || {
        sidepool.metric("sidepool_stale_watch_sockets", "") == 0.0
    })
    .await;
}

async fn clean_end(server: &Server) {
    let sidepool = Sidepool::start(server, &[IDLE]);
    let (mut polite, mut plain) = (client(&sidepool).await, client(&sidepool).await);
    notice(&mut polite).await;
    notice(&mut plain).await;
    // A driver that finds the notice says COM_QUIT, or just closes.
    polite.send_raw(b"\x01\0\0\0\x01").await.unwrap();
    drop((polite, plain));
    eventually("both are clean", async || {
        sidepool.metric("sidepool_stale_watch_endings_total", "clean") == 2.0
    })
    .await;
    assert_eq!(sidepool.metric("sidepool_stale_uses_total", ""), 0.0);
}

async fn busy(server: &Server) {
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_CLIENT__IDLE_TIMEOUT", "500ms")]);
    let mut wire = client(&sidepool).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        wire.run("SELECT SLEEP(0.1)").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A statement longer than the limit is not idleness either.
    assert_eq!(value(&mut wire, "SELECT SLEEP(1.2)").await, "0");
    assert_eq!(sidepool.metric(CLOSED, ""), 0.0);
}

async fn idle_transaction(server: &Server) {
    server.database("t_time_trx");
    server.root("CREATE TABLE t_time_trx.t (a INT PRIMARY KEY) ENGINE=InnoDB");
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_CLIENT__IDLE_TRANSACTION_TIMEOUT", "300ms"),
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "1"),
        ],
    );
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    a.run("BEGIN").await;
    a.run("INSERT INTO t_time_trx.t VALUES (1)").await;
    // Waits for the connection that the transaction holds, and then for nothing: its lock is gone.
    b.run("INSERT INTO t_time_trx.t VALUES (1)").await;
    assert_eq!(notice(&mut a).await, Some((0, own_notice(server))));
    assert_eq!(server.root("SELECT COUNT(*) FROM t_time_trx.t"), "1");
    assert_eq!(sidepool.metric(CLOSED, "\"idle_transaction_timeout\""), 1.0);
    assert_eq!(sidepool.metric("sidepool_sessions_in_transaction", ""), 0.0);
}

async fn pinned(server: &Server) {
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_CLIENT__PINNED_IDLE_TIMEOUT", "300ms"),
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "1"),
        ],
    );
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    a.run("DO GET_LOCK('t_time_pinned', 0)").await;
    assert_eq!(sidepool.metric("sidepool_sessions_pinned", ""), 1.0);
    assert_eq!(
        value(&mut b, "SELECT IS_FREE_LOCK('t_time_pinned')").await,
        "1"
    );
    assert_eq!(notice(&mut a).await, Some((0, own_notice(server))));
    assert_eq!(sidepool.metric(CLOSED, "\"pinned_idle_timeout\""), 1.0);
    assert_eq!(sidepool.metric("sidepool_sessions_pinned", ""), 0.0);
    silent(&mut b, Duration::from_millis(500)).await;
}

async fn lifetime(server: &Server) {
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_CLIENT__MAX_LIFETIME", "500ms")]);
    let (mut free, mut inside) = (client(&sidepool).await, client(&sidepool).await);
    inside.run("BEGIN").await;
    assert_eq!(notice(&mut free).await, Some((0, own_notice(server))));
    silent(&mut inside, Duration::from_millis(500)).await;
    inside.run("SELECT 1").await;
    inside.run("COMMIT").await;
    assert_eq!(notice(&mut inside).await, Some((0, own_notice(server))));
    assert_eq!(sidepool.metric(CLOSED, "\"max_lifetime\""), 2.0);
}

async fn observe(server: &Server) {
    let sidepool = Sidepool::start(
        server,
        &[
            IDLE,
            ("SIDEPOOL_CLIENT__IDLE_TRANSACTION_TIMEOUT", "300ms"),
            ("SIDEPOOL_CLIENT__PINNED_IDLE_TIMEOUT", "200ms"),
            ("SIDEPOOL_CLIENT__IDLE_MODE", "observe"),
        ],
    );
    let mut free = client(&sidepool).await;
    let mut inside = client(&sidepool).await;
    let mut pinned = client(&sidepool).await;
    inside.run("BEGIN").await;
    pinned.run("DO GET_LOCK('t_time_observe', 0)").await;
    let would = |rule: &str| {
        sidepool.metric(
            "sidepool_clients_would_have_closed_total",
            &format!("\"{rule}\""),
        )
    };
    eventually("all are counted", async || {
        would("idle") >= 1.0 && would("idle_transaction") >= 1.0 && would("pinned_idle") >= 1.0
    })
    .await;
    let counted = would("idle_transaction");
    silent(&mut free, Duration::from_millis(700)).await;
    assert_eq!(would("idle_transaction"), counted, "counted once per wait");
    for wire in [&mut free, &mut inside, &mut pinned] {
        wire.run("SELECT 1").await;
    }
    assert_eq!(sidepool.metric(CLOSED, ""), 0.0);
}

async fn rule(server: &Server) {
    account(server, "r_report");
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_CLIENT__IDLE_TIMEOUT", "1h"),
            ("SIDEPOOL_CLIENT__RULE__0__USER", "r\\_rep%"),
            ("SIDEPOOL_CLIENT__RULE__0__PROGRAM_NAME", "batch"),
            ("SIDEPOOL_CLIENT__RULE__0__IDLE_TIMEOUT", "300ms"),
            ("SIDEPOOL_CLIENT__RULE__0__CLOSE_NOTICE", "4031"),
        ],
    );
    let address = sidepool.address();
    let batch = Login {
        user: "r_report",
        program: "batch",
        ..Login::to(&address)
    };
    let mut matching = Wire::connect(&batch).await.unwrap();
    let mut other_user = Wire::connect(&Login {
        user: "app",
        ..batch.clone()
    })
    .await
    .unwrap();
    let mut other_program = Wire::connect(&Login {
        program: "web",
        ..batch.clone()
    })
    .await
    .unwrap();
    assert_eq!(notice(&mut matching).await, Some((0, 4031)));
    silent(&mut other_user, Duration::from_millis(300)).await;
    silent(&mut other_program, Duration::from_millis(300)).await;
}

async fn own_wait_timeout(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    let usual = value(&mut b, "SELECT @@wait_timeout").await;
    a.run("SET SESSION wait_timeout = 1").await;
    assert_eq!(value(&mut a, "SELECT @@wait_timeout").await, "1");
    assert_eq!(value(&mut b, "SELECT @@wait_timeout").await, usual);
    let began = Instant::now();
    a.run("DO 0").await;
    assert_eq!(notice(&mut a).await, Some((0, own_notice(server))));
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(4),
        "{took:?}"
    );
    // The shared connection has not got it.
    b.run("SELECT 1").await;
    assert_eq!(
        sidepool.metric("sidepool_pool_retired_total", "server_closed"),
        0.0
    );
}

/// As Rails sets on every connection.
async fn longer_wait_timeout(server: &Server) {
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_CLIENT__IDLE_TIMEOUT", "1s")]);
    let mut rails = client(&sidepool).await;
    rails.run("SET @@SESSION.wait_timeout = 2147483").await;
    assert_eq!(value(&mut rails, "SELECT @@wait_timeout").await, "2147483");
    assert_eq!(notice(&mut rails).await, Some((0, own_notice(server))));
}

async fn handshake(server: &Server) {
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_CLIENT__HANDSHAKE_TIMEOUT", "500ms")]);
    let mut silent = TcpStream::connect(sidepool.address()).await.unwrap();
    let mut trickle = TcpStream::connect(sidepool.address()).await.unwrap();
    let began = Instant::now();
    let mut greeting = [0; 4];
    trickle.read_exact(&mut greeting).await.unwrap();
    // A login of 200 bytes, one of them now and then.
    let mut ended = trickle.write_all(&[200, 0, 0, 1]).await;
    while ended.is_ok() && began.elapsed() < Duration::from_secs(8) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ended = trickle.write_all(&[0]).await;
    }
    assert!(ended.is_err(), "a trickle of bytes keeps a login open");
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(5), silent.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "a silent client is kept");
    let failed = "sidepool_client_connections_setup_failed_total";
    eventually("both are counted", async || {
        sidepool.metric(failed, "handshake_timeout") == 2.0
    })
    .await;
    client(&sidepool).await.run("SELECT 1").await;
}

async fn reload(server: &Server) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[client]\nidle_timeout = \"1h\"\n")
        .unwrap();
    let sidepool = Sidepool::with_file(server, file.path(), &[]);
    let mut wire = client(&sidepool).await;
    wire.run("SELECT 1").await;
    silent(&mut wire, Duration::from_millis(300)).await;
    // A bad file changes nothing and says so.
    std::fs::write(file.path(), "[client]\nidle_tiemout = \"300ms\"\n").unwrap();
    sidepool.signal("HUP");
    eventually("the refusal is counted", async || {
        sidepool.metric("sidepool_config_reload_failures_total", "") == 1.0
    })
    .await;
    eventually("the nearest key is named", async || {
        sidepool.log().contains("client.idle_timeout")
    })
    .await;
    silent(&mut wire, Duration::from_millis(500)).await;
    std::fs::write(file.path(), "[client]\nidle_timeout = \"300ms\"\n").unwrap();
    sidepool.signal("HUP");
    assert_eq!(notice(&mut wire).await, Some((0, own_notice(server))));
}

async fn ping(server: &Server) {
    for (word, closed) in [("true", false), ("false", true)] {
        let sidepool = Sidepool::start(
            server,
            &[
                ("SIDEPOOL_CLIENT__IDLE_TIMEOUT", "600ms"),
                ("SIDEPOOL_CLIENT__PING_IS_ACTIVITY", word),
            ],
        );
        let mut wire = client(&sidepool).await;
        let began = Instant::now();
        let mut seen = None;
        while seen.is_none() && began.elapsed() < Duration::from_millis(1800) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            wire.command(14, b"").await;
            let (seq, packet) = wire.read_packet().await.unwrap();
            seen = (packet[0] == 0xff).then_some(seq);
        }
        assert_eq!(seen.is_some(), closed, "ping_is_activity = {word}");
    }
}
