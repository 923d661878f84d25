//! The monitor's account and connection.

use super::*;
use crate::support::servers::makes;

on_every_make! {
    the_probes_connection_counts_and_may_be_killed => counted;
    a_wrong_password_is_said_by_the_name_of_its_key => wrong_password;
}

/// A server and Sidepool in front of it alone, with probes.
fn alone(pair: &Pair, settings: &[(&str, &str)]) -> Front {
    let address = pair.first.address();
    let mut all = vec![("SIDEPOOL_BACKEND__ADDRESSES", &*address)];
    all.extend_from_slice(settings);
    pair.front_not_ready(MONITOR_PASSWORD, &all)
}

async fn counted(make: Make) {
    let pair = Pair::start(make, &[]);
    let server = &pair.first;
    let broken = broken_handshakes(&mut root(server).await).await;
    let front = alone(
        &pair,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS_PERCENT", "10"),
            ("SIDEPOOL_POOL__BORROW_TIMEOUT", "500ms"),
        ],
    );
    let sidepool = &front.sidepool;
    sidepool.wait_ready();
    front.wait_state(server, "writer").await;
    let limit = |expected: f64| {
        sidepool.wait("the limit follows the server's", |s| {
            s.metric("sidepool_pool_connections_max", "") == expected
        });
    };
    limit(15.0);
    // A probe picks a new limit up: 10 % of 25 are 2, of which one is the probe's.
    server.root("SET GLOBAL max_connections = 25");
    limit(2.0);
    assert_eq!(front.backend(server)["max_connections"], 25);
    let mut holder = client(sidepool).await;
    holder.run("BEGIN").await;
    let mut other = client(sidepool).await;
    assert_eq!(other.query("SELECT 1").await.err().code, 9501);
    let mut root = root(server).await;
    assert_eq!(connections(&mut root, MONITOR).await, 1);
    assert_eq!(connections(&mut root, USER).await, 1);
    holder.run("COMMIT").await;
    assert_eq!(value(&mut other, "SELECT 1").await, "1");

    // Killed, it is opened again, and the server is not taken to be down for that.
    let find =
        format!("SELECT MAX(id) FROM information_schema.processlist WHERE user = '{MONITOR}'");
    let old = value(&mut root, &find).await;
    root.run(&format!("KILL {old}")).await;
    eventually("another connection", async || {
        let now = value(&mut root, &find).await;
        now != old && now != "NULL"
    })
    .await;
    assert!(!sidepool.log().contains("now=down"), "{}", sidepool.log());
    assert_eq!(
        sidepool.metric("sidepool_backend_probe_failures_total", ""),
        0.0
    );

    // It says goodbye, and no handshake of Sidepool's was broken off.
    sidepool.signal("TERM");
    eventually("its connections are gone", async || {
        connections(&mut root, MONITOR).await == 0
    })
    .await;
    assert_eq!(broken_handshakes(&mut root).await, broken);
}

/// Handshakes that broke off so far; only MariaDB counts them apart from refused ones.
async fn broken_handshakes(root: &mut Wire) -> Option<Vec<u8>> {
    let sql = "SHOW GLOBAL STATUS LIKE 'Aborted_connects_preauth'";
    let rows = root.query(sql).await.rows();
    rows.first().and_then(|row| row[1].clone())
}

/// A server that stands still: the probe says so in time, is not repeated beside itself, and is forgotten when the
/// server goes on.
#[tokio::test]
async fn a_frozen_server_is_down_and_one_login_waits() {
    let pair = Pair::start(Make::MariaDb, &[]);
    let (first, second) = (&pair.first, &pair.second);
    let broken = broken_handshakes(&mut root(first).await).await;
    let front = pair.front(&[("SIDEPOOL_BACKEND__CONNECT_TIMEOUT", "300ms")]);
    let sidepool = &front.sidepool;
    let mut wire = client(sidepool).await;
    signal(first, "STOP");
    front.wait_state(first, "down").await;
    let error = front.backend(first)["last_error"].clone();
    assert!(
        error.as_str().unwrap().contains("no answer within 300ms"),
        "{error}"
    );
    read_only(second, false);
    assert_eq!(whose(&mut wire).await, "2");
    sidepool.wait("asked again", |s| {
        s.metric("sidepool_backend_probe_failures_total", "") >= 3.0
    });
    signal(first, "CONT");
    front.wait_state(first, "writer").await;
    assert_eq!(whose(&mut wire).await, "2");
    let mut root = root(first).await;
    assert_eq!(connections(&mut root, MONITOR).await, 1);
    assert_eq!(broken_handshakes(&mut root).await, broken);
}

fn signal(server: &Server, name: &str) {
    let pid = std::fs::read_to_string(server.dir.join("pid")).unwrap();
    // A shell's own: not every machine has the program.
    let kill = std::process::Command::new("sh")
        .args(["-c", r#"kill "$0" "$1""#, &format!("-{name}"), pid.trim()])
        .status();
    assert!(kill.unwrap().success());
}

async fn wrong_password(make: Make) {
    let pair = Pair::start(make, &[]);
    let front = pair.front_not_ready("wrong", &[]);
    let sidepool = &front.sidepool;
    sidepool.wait("said", |s| s.log().contains("backend.monitor_user"));
    let log = sidepool.log();
    let lines = log.lines().filter(|line| line.contains("probe failed"));
    for line in lines {
        assert!(line.contains("WARN") && line.contains("1045"), "{line}");
        assert!(line.contains("backend.monitor_password_file"), "{line}");
        assert!(!line.contains("wrong"), "{line}");
    }
    assert_eq!(sidepool.get("/ready").unwrap().0, 503);
    front.wait_state(&pair.first, "unknown").await;

    // The file is read again at a reload.
    std::fs::write(pair.directory.path().join("monitor"), MONITOR_PASSWORD).unwrap();
    sidepool.signal("HUP");
    sidepool.wait_ready();
    assert_eq!(whose(&mut client(sidepool).await).await, "1");
}

/// A probe's connection has the TLS that sessions' have, also where the driver's own would not do: MySQL's
/// certificate names nobody, and a password is not sent under a key that came in clear.
#[tokio::test]
async fn the_probes_password_is_sent_as_the_settings_allow() {
    if !makes().contains(&Make::MySql) {
        return;
    }
    let pair = Pair::start(Make::MySql, &[]);
    let server = &pair.first;
    let ca = server.dir.join("data/ca.pem");
    let ca = ca.to_str().unwrap();
    let with = |mode, more: &[(&'static str, &str)]| {
        // The server forgets who has shown the password before.
        server.root("FLUSH PRIVILEGES");
        let settings = [&[("SIDEPOOL_BACKEND__TLS__MODE", mode)], more].concat();
        alone(&pair, &settings)
    };
    let clear = with("off", &[]);
    clear.sidepool.wait("refused", |s| {
        s.log().contains("backend.allow_public_key_retrieval")
    });
    assert_eq!(clear.backend(server)["state"], "unknown");
    let allowed = ("SIDEPOOL_BACKEND__ALLOW_PUBLIC_KEY_RETRIEVAL", "true");
    for (mode, more) in [
        ("off", &[allowed][..]),
        ("required", &[]),
        ("verify_ca", &[("SIDEPOOL_BACKEND__TLS__CA", ca)]),
    ] {
        let front = with(mode, more);
        front.wait_state(server, "writer").await;
        let tls = "SELECT COUNT(*) FROM performance_schema.threads \
                   WHERE processlist_user = 'probe' AND connection_type = 'SSL/TLS'";
        let encrypted = server.root(tls);
        assert_eq!(encrypted, if mode == "off" { "0" } else { "1" }, "{mode}");
    }
    let named = with("verify_identity", &[("SIDEPOOL_BACKEND__TLS__CA", ca)]);
    named.wait_state(server, "unknown").await;
    let error = named.backend(server)["last_error"].to_string();
    assert!(error.contains("certificate"), "{error}");
}

/// MariaDB's own instructions make certificates of X.509 version 1, which the driver refuses.
#[tokio::test]
async fn a_certificate_that_the_driver_refuses_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let script = "openssl req -newkey rsa:2048 -nodes -subj /CN=db -keyout key.pem -out db.csr && \
                  openssl x509 -req -in db.csr -signkey key.pem -days 30 -out cert.pem && \
                  openssl x509 -in cert.pem -noout -text | grep -q 'Version: 1 ' && chmod a+rx . && chmod a+r *";
    let made = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let option = |name: &str, file: &str| format!("--ssl-{name}={}", dir.join(file).display());
    let (cert, key) = (option("cert", "cert.pem"), option("key", "key.pem"));
    let pair = Pair::start(Make::MariaDb, &[&cert, &key]);
    let front = pair.front(&[]);
    front.wait_state(&pair.first, "writer").await;
    assert_eq!(whose(&mut front.reader().await).await, "2");
}

/// With one address a monitor that is refused keeps nobody out.
#[tokio::test]
async fn one_server_serves_whatever_its_probes_say() {
    let pair = Pair::start(Make::MariaDb, &[]);
    let address = pair.second.address();
    let settings = [("SIDEPOOL_BACKEND__ADDRESSES", &*address)];
    let front = pair.front(&settings);
    front.wait_state(&pair.second, "replica").await;
    let mut wire = client_in(&front.sidepool, USER, "t_b").await;
    assert_eq!(whose(&mut wire).await, "2");
    // Its own word on writes.
    assert_eq!(
        wire.query("INSERT INTO t VALUES ('x')").await.err().code,
        1290
    );

    let front = pair.front_not_ready("wrong", &settings);
    front.sidepool.wait_ready();
    assert_eq!(whose(&mut client(&front.sidepool).await).await, "2");
    assert_eq!(front.sidepool.metric("sidepool_backend_up", ""), 1.0);
}

#[test]
fn several_addresses_need_a_monitor() {
    for arguments in [&["check"][..], &[]] {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_sidepool"))
            .args(arguments)
            .env("SIDEPOOL_BACKEND__ADDRESSES", "127.0.0.1:1,127.0.0.1:2")
            .env("SIDEPOOL_LISTENER__0__ADDRESS", "127.0.0.1:0")
            .env("SIDEPOOL_ADMIN__ADDRESS", "127.0.0.1:0")
            .output()
            .unwrap();
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(64), "{stderr}");
        assert!(
            stderr.contains("backend.monitor_user: several addresses"),
            "{stderr}"
        );
    }
}
