//! The process from its start to its end: settings, addresses, readiness, signals, reloads.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::servers::{self, Make, Server, free_port};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Reply, ServerError, Wire};

const SOON: Duration = Duration::from_secs(10);

/// Runs the program to its end with these settings, on free ports where they say nothing.
fn run(settings: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidepool"))
        .env("SIDEPOOL_BACKEND__ADDRESSES", "127.0.0.1:1")
        .env("SIDEPOOL_LISTENER__0__ADDRESS", "127.0.0.1:0")
        .env("SIDEPOOL_ADMIN__ADDRESS", "127.0.0.1:0")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The one line that a program says which cannot start.
fn only_line(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

/// Whether somebody accepts connections on that port.
fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

async fn try_client(sidepool: &Sidepool, password: &str) -> Result<Wire, ServerError> {
    let address = sidepool.address();
    Wire::connect(&Login {
        password,
        ..Login::to(&address)
    })
    .await
}

async fn client(sidepool: &Sidepool) -> Wire {
    try_client(sidepool, servers::PASSWORD).await.unwrap()
}

/// Received = succeeded + failed + handshakes now, and succeeded = closed + connections now.
fn books_balance(sidepool: &Sidepool) -> bool {
    let of = |name: &str| sidepool.metric(&format!("sidepool_client_{name}"), "");
    let succeeded = of("connections_setup_succeeded_total");
    let failed = of("connections_setup_failed_total");
    of("connections_received_total") == succeeded + failed + of("handshakes")
        && succeeded == of("connections_closed_total") + of("connections")
}

#[test]
fn a_busy_address_is_one_line_that_names_the_key() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let line = only_line(&run(&[("SIDEPOOL_LISTENER__0__ADDRESS", &address)]), 1);
    let expected =
        format!("sidepool: listener[0].address: cannot listen on {address}: it is already in use");
    assert!(line.starts_with(&expected), "{line}");
    let line = only_line(&run(&[("SIDEPOOL_ADMIN__ADDRESS", &address)]), 1);
    let expected = format!("sidepool: admin.address: cannot listen on {address}: ");
    assert!(line.starts_with(&expected), "{line}");
    let line = only_line(&run(&[("SIDEPOOL_ADMIN__METRICS_ADDRESS", &address)]), 1);
    assert!(line.contains("admin.metrics_address"), "{line}");
}

#[test]
fn wrong_settings_end_with_64() {
    let line = only_line(&run(&[("SIDEPOOL_POOL__MIN_IDEL", "1")]), 64);
    assert!(line.contains("SIDEPOOL_POOL__MIN_IDEL"), "{line}");
    assert!(line.contains("pool.min_idle"), "{line}");

    let dir = tempfile::tempdir().unwrap();
    let pem = dir.path().join("not.pem");
    std::fs::write(&pem, "nothing").unwrap();
    let pem = pem.to_str().unwrap();
    let tls = [
        ("SIDEPOOL_LISTENER__0__TLS__CERTIFICATE", pem),
        ("SIDEPOOL_LISTENER__0__TLS__PRIVATE_KEY", pem),
    ];
    let line = only_line(&run(&tls), 64);
    assert!(
        line.contains("listener[0].tls: ") && line.contains(pem),
        "{line}"
    );
    let ca = [
        ("SIDEPOOL_BACKEND__TLS__MODE", "verify_ca"),
        ("SIDEPOOL_BACKEND__TLS__CA", pem),
    ];
    let line = only_line(&run(&ca), 64);
    assert!(line.contains("backend.tls") && line.contains(pem), "{line}");
    let token = [("SIDEPOOL_ADMIN__TOKEN_FILE", "/nonexistent/token")];
    let line = only_line(&run(&token), 64);
    assert!(line.contains("admin.token_file"), "{line}");
}

#[tokio::test]
async fn the_log_is_json_where_it_is_asked_for_and_never_has_colours() {
    for format in ["json", "text"] {
        let settings = [("SIDEPOOL_LOG__FORMAT", format)];
        let mut sidepool = Sidepool::launch("127.0.0.1:1", &settings);
        sidepool.wait("listening", |s| listens(s.admin_port));
        sidepool.signal("TERM");
        assert_eq!(sidepool.wait_exit(SOON), Some(0));
        sidepool.wait("logged to the end", |s| s.log().contains("ended"));
        let log = sidepool.log();
        assert!(!log.contains('\u{1b}'), "{log}");
        assert!(
            log.lines().next().unwrap().contains("sidepool starts"),
            "{log}"
        );
        for line in log.lines().filter(|_| format == "json") {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["message"].is_string(), "{line}");
        }
    }
}

#[tokio::test]
async fn a_database_that_is_down_is_said_to_everybody_and_found_when_it_comes() {
    let server = Server::start(Make::MariaDb, &[]);
    server.stop();
    let sidepool = Sidepool::launch(&server.address(), &[]);
    sidepool.wait("live", |s| {
        s.get("/live").is_some_and(|(status, _)| status == 200)
    });
    let (status, why) = sidepool.get("/ready").unwrap();
    assert_eq!(status, 503);
    assert!(why.contains(&server.address()), "{why}");
    sidepool.wait("listening", |s| listens(s.port));
    let error = try_client(&sidepool, servers::PASSWORD)
        .await
        .err()
        .unwrap();
    assert_eq!(error.code, 2003);
    let text = format!(
        "Sidepool: the database at {} has not been reached yet",
        server.address()
    );
    assert_eq!(error.message, text);
    let name = "sidepool_client_connections_setup_failed_total";
    sidepool.wait("counted", |s| s.metric(name, "backend_unavailable") >= 1.0);
    assert_eq!(sidepool.metric("sidepool_backend_up", ""), 0.0);

    server.restart(&[]);
    sidepool.wait_ready();
    assert_eq!(client(&sidepool).await.query("SELECT 1").await.text(), "1");
    assert_eq!(sidepool.metric("sidepool_backend_up", ""), 1.0);

    // Down again: whoever is known may still come in, and is told when he asks for something.
    server.stop();
    let error = match try_client(&sidepool, "unknown").await {
        Err(error) => error,
        Ok(_) => panic!("nobody could have proved that password"),
    };
    assert_eq!(error.code, 2003, "{error:?}");
    assert!(error.message.contains(&server.address()), "{error:?}");
    sidepool.wait("noticed", |s| s.metric("sidepool_backend_up", "") == 0.0);
    assert!(books_balance(&sidepool));
}

#[tokio::test]
async fn a_wrong_password_is_denied_counted_and_logged_and_does_no_harm() {
    let sidepool = Sidepool::start(servers::shared(Make::MariaDb), &[]);
    for password in ["wrong", ""] {
        let error = try_client(&sidepool, password).await.err().unwrap();
        assert_eq!(error.code, 1045);
        assert!(error.message.contains("'app'@'localhost'"), "{error:?}");
    }
    drop(client(&sidepool).await);
    let denied = |s: &Sidepool| {
        s.metric(
            "sidepool_client_connections_setup_failed_total",
            "access_denied",
        )
    };
    assert_eq!(denied(&sidepool), 2.0);
    let logins = |path: &str| sidepool.metric("sidepool_client_logins_total", path);
    assert_eq!((logins("backend"), logins("cached")), (1.0, 0.0));
    drop(client(&sidepool).await);
    assert_eq!((logins("backend"), logins("cached")), (1.0, 1.0));
    sidepool.wait("balanced", books_balance);
    let log = sidepool.log();
    let line = log
        .lines()
        .find(|line| line.contains("client rejected"))
        .unwrap();
    assert!(
        line.contains("user=\"app\"") && line.contains("127.0.0.1"),
        "{line}"
    );
}

#[tokio::test]
async fn who_says_nothing_useful_is_counted_too() {
    let sidepool = Sidepool::start(servers::shared(Make::MariaDb), &[]);
    let failed = |reason: &str| {
        let name = "sidepool_client_connections_setup_failed_total";
        sidepool.metric(name, &format!("\"{reason}\""))
    };
    drop(TcpStream::connect(("127.0.0.1", sidepool.port)).unwrap());
    sidepool.wait("counted as gone", |_| failed("client_gone") == 1.0);
    let mut talker = TcpStream::connect(("127.0.0.1", sidepool.port)).unwrap();
    std::io::Write::write_all(&mut talker, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    sidepool.wait("counted as wrong", |_| failed("protocol_error") == 1.0);
    assert!(books_balance(&sidepool));
    assert!(!sidepool.log().contains("panicked"), "{}", sidepool.log());
}

#[tokio::test]
async fn a_drain_turns_ready_red_closes_listeners_and_lets_transactions_end() {
    let server = servers::shared(Make::MariaDb);
    server.database("t_drain");
    server.root("CREATE TABLE t_drain.t (a INT)");
    let mut sidepool = Sidepool::start(server, &[]);
    let mut idle = client(&sidepool).await;
    let mut busy = client(&sidepool).await;
    busy.query("BEGIN").await.ok();
    busy.query("INSERT INTO t_drain.t VALUES (1)").await.ok();

    sidepool.signal("TERM");
    sidepool.wait("red", |s| {
        s.get("/ready").is_some_and(|(status, _)| status == 503)
    });
    let (_, why) = sidepool.get("/ready").unwrap();
    assert!(why.contains("draining"), "{why}");
    sidepool.wait("closed", |s| !listens(s.port));
    // Alive is what it still is.
    assert_eq!(sidepool.get("/live").unwrap().0, 200);
    // The idle client is told, then its connection ends.
    while idle.read_packet().await.is_ok() {}
    busy.query("INSERT INTO t_drain.t VALUES (2)").await.ok();
    busy.query("COMMIT").await.ok();
    assert_eq!(sidepool.wait_exit(SOON), Some(0));
    assert_eq!(server.root("SELECT COUNT(*) FROM t_drain.t"), "2");
    sidepool.wait("logged to the end", |s| s.log().contains("ended"));
    let log = sidepool.log();
    assert!(log.contains("all clients have left"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_transaction_that_does_not_end_is_cut_when_the_time_is_over() {
    let server = servers::shared(Make::MariaDb);
    server.database("t_cut");
    server.root("CREATE TABLE t_cut.t (a INT)");
    let settings = [("SIDEPOOL_SERVER__DRAIN_TIMEOUT", "300ms")];
    let mut sidepool = Sidepool::start(server, &settings);
    let mut busy = client(&sidepool).await;
    busy.query("BEGIN").await.ok();
    busy.query("INSERT INTO t_cut.t VALUES (1)").await.ok();
    let began = Instant::now();
    sidepool.signal("INT");
    assert_eq!(sidepool.wait_exit(SOON), Some(0));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(server.root("SELECT COUNT(*) FROM t_cut.t"), "0");
    sidepool.wait("logged", |s| {
        s.log().contains("server.drain_timeout is over")
    });
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut sidepool = Sidepool::start(servers::shared(Make::MariaDb), &[]);
    let mut busy = client(&sidepool).await;
    busy.query("BEGIN").await.ok();
    busy.query("SELECT 1").await.rows();
    sidepool.signal("TERM");
    sidepool.wait("red", |s| {
        s.get("/ready").is_some_and(|(status, _)| status == 503)
    });
    sidepool.signal("TERM");
    assert_eq!(sidepool.wait_exit(SOON), Some(128 + 15));
}

fn write_settings(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
}

/// The settings in force, as JSON.
fn settings_of(sidepool: &Sidepool) -> String {
    sidepool.get("/api/v1/settings").unwrap().1
}

#[tokio::test]
async fn a_reload_changes_what_is_live_says_what_is_not_and_refuses_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidepool.toml");
    write_settings(&file, "[client]\nidle_timeout = \"20m\"\n");
    let server = servers::shared(Make::MariaDb);
    let arguments = ["--config", file.to_str().unwrap()];
    let sidepool = Sidepool::launch_with(&arguments, &server.address(), &[]);
    sidepool.wait_ready();
    assert!(settings_of(&sidepool).contains("\"idle_timeout\":\"20m\""));

    // A client that waits learns of its new limit.
    let mut waiting = client(&sidepool).await;
    let text = "[client]\nidle_timeout = \"200ms\"\n[server]\ndrain_timeout = \"7s\"\n";
    write_settings(&file, text);
    sidepool.signal("HUP");
    sidepool.wait("reloaded", |s| s.log().contains("settings reloaded"));
    let log = sidepool.log();
    let line = |word: &str| {
        log.lines()
            .find(|line| line.contains(word))
            .unwrap()
            .to_owned()
    };
    assert!(
        line("setting changed ").contains("client.idle_timeout"),
        "{log}"
    );
    assert!(
        line("only at a restart").contains("server.drain_timeout"),
        "{log}"
    );
    while waiting.read_packet().await.is_ok() {}
    sidepool.wait("closed for idleness", |s| {
        s.metric(
            "sidepool_client_connections_closed_total",
            "\"idle_timeout\"",
        ) == 1.0
    });
}

#[tokio::test]
async fn a_reload_that_is_wrong_changes_nothing_and_says_every_problem() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidepool.toml");
    write_settings(&file, "[client]\nidle_timeout = \"20m\"\n");
    let server = servers::shared(Make::MariaDb);
    let arguments = ["--config", file.to_str().unwrap()];
    let sidepool = Sidepool::launch_with(&arguments, &server.address(), &[]);
    sidepool.wait_ready();
    let failures = |s: &Sidepool| s.metric("sidepool_config_reload_failures_total", "");
    assert_eq!(failures(&sidepool), 0.0);
    write_settings(
        &file,
        "[client]\nidle_tiemout = \"1s\"\n[log]\nlevel = \"loud\"\n",
    );
    sidepool.signal("HUP");
    sidepool.wait("refused", |s| failures(s) == 1.0);
    sidepool.wait("said", |s| s.log().contains("the old ones stay in force"));
    let log = sidepool.log();
    let refused: Vec<_> = log
        .lines()
        .filter(|line| line.contains("settings refused"))
        .collect();
    assert_eq!(refused.len(), 2, "{log}");
    assert!(
        refused
            .iter()
            .any(|line| line.contains("client.idle_timeout")),
        "{refused:?}"
    );
    assert!(settings_of(&sidepool).contains("\"idle_timeout\":\"20m\""));
    assert!(matches!(
        client(&sidepool).await.query("SELECT 1").await,
        Reply::Rows { .. }
    ));
}

#[tokio::test]
async fn the_log_level_changes_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("sidepool.toml"), dir.path().join("log"));
    let port = free_port();
    let address = servers::shared(Make::MariaDb).address();
    let settings = |level: &str| {
        write_settings(
            &file,
            &format!(
                "[[listener]]\naddress = \"127.0.0.1:{port}\"\n[backend]\naddresses = [\"{address}\"]\n\
                 [admin]\naddress = \"\"\n[log]\nlevel = \"{level}\"\n"
            ),
        );
    };
    let logged = |what: &str| {
        let deadline = Instant::now() + SOON;
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text.contains(what) {
                return text;
            }
            assert!(Instant::now() < deadline, "never logged {what}:\n{text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    settings("info");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidepool"))
        .args(["--config", file.to_str().unwrap()])
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let signal = |name: &str| {
        let pid = child.id().to_string();
        assert!(
            Command::new("sh")
                .args(["-c", r#"kill "$0" "$1""#, name, &pid])
                .status()
                .unwrap()
                .success()
        );
    };
    logged("ready");
    let to = format!("127.0.0.1:{port}");
    drop(Wire::connect(&Login::to(&to)).await.unwrap());
    settings("debug");
    signal("-HUP");
    assert!(!logged("settings reloaded").contains("client logged in"));
    drop(Wire::connect(&Login::to(&to)).await.unwrap());
    logged("client logged in");
    signal("-TERM");
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_password_that_is_changed_ends_those_who_came_with_the_old_one() {
    let server = servers::shared(Make::MariaDb);
    server.root("CREATE OR REPLACE USER 't_rotated'@'%' IDENTIFIED BY 'old'");
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_AUTH__RECHECK", "0s")]);
    let address = sidepool.address();
    let login = |password: &'static str| Login {
        user: "t_rotated",
        password,
        ..Login::to(&address)
    };
    let mut old = Wire::connect(&login("old")).await.unwrap();
    server.root("ALTER USER 't_rotated'@'%' IDENTIFIED BY 'new'");
    let mut new = Wire::connect(&login("new")).await.unwrap();
    assert_eq!(old.query("SELECT 1").await.text(), "1");
    // Only now is it found out that the old one is no longer good.
    assert_eq!(Wire::connect(&login("old")).await.err().unwrap().code, 1045);
    while old.read_packet().await.is_ok() {}
    let closed = "sidepool_client_connections_closed_total";
    sidepool.wait("closed", |s| s.metric(closed, "auth_revoked") == 1.0);
    assert_eq!(new.query("SELECT 2").await.text(), "2");
    drop(new);
    sidepool.wait("balanced", books_balance);
}
