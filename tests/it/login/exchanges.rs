//! How clients prove their password to Sidepool: each plugin over each kind of connection.

use super::*;

on_every_server! {
    the_fast_path_and_the_full_exchange_in_clear => in_clear;
    the_full_exchange_over_tls_and_over_a_unix_socket => secure_channels;
    a_native_client_is_switched_once_and_then_taken_at_its_word => native;
    a_clear_password_is_taken_under_tls_only => clear;
    a_preloaded_account_needs_no_full_exchange => preloaded;
    an_empty_password_is_no_joker => empty;
}

/// The first bytes of each packet behind the greeting that the client was sent in its last login.
fn shape(tap: &Tap) -> Vec<String> {
    let packets = tap.last_down();
    let word = |packet: &Vec<u8>| match packet[..] {
        [0, ..] => "ok".to_owned(),
        [0xff, low, high, ..] => format!("error {}", u16::from_le_bytes([low, high])),
        [1, 3] => "fast".to_owned(),
        [1, 4] => "full".to_owned(),
        [1, b'-', ..] => "key".to_owned(),
        [0xfe, ..] => {
            let name = packet[1..].split(|&byte| byte == 0).next().unwrap();
            format!("switch {}", String::from_utf8_lossy(name))
        }
        _ => format!("{packet:x?}"),
    };
    packets[1..].iter().map(word).collect()
}

async fn in_clear(server: &Server) {
    create(server, "l_clear", &identified_by("right"));
    let sidepool = Sidepool::start(server, &[NEVER_RECHECKED]);
    let tap = Tap::to(sidepool.address(), Vec::new());
    let address = tap.address();
    let login = |password: &'static str| Login {
        user: "l_clear",
        password,
        plugin: Some(CACHING_SHA2),
        ..Login::to(&address)
    };
    let mut first = Wire::connect(&login("right")).await.unwrap();
    assert_eq!(shape(&tap), ["full", "key", "ok"]);
    assert_eq!(value(&mut first, "SELECT 1").await, "1");
    Wire::connect(&login("right")).await.unwrap();
    assert_eq!(shape(&tap), ["fast", "ok"]);
    // A wrong one is asked for in full, as if nothing were known.
    let refused = Wire::connect(&login("wrong")).await.err().unwrap();
    assert_eq!((refused.code, &refused.state[..]), (1045, "28000"));
    assert_eq!(shape(&tap), ["full", "key", "error 1045"]);
    let sent = tap.passed().into_iter().flat_map(|one| one.up);
    let sent: Vec<u8> = sent.collect();
    for password in [&b"right"[..], b"wrong"] {
        assert!(memchr::memmem::find(&sent, password).is_none());
    }
    logged_in(&sidepool, 1, 1);
}

async fn secure_channels(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let socket = socket.to_str().unwrap();
    let listener = format!("unix:{socket}");
    let sidepool = Sidepool::start(
        server,
        &[
            NEVER_RECHECKED,
            ("SIDEPOOL_LISTENER__1__ADDRESS", &listener),
        ],
    );
    let tcp = sidepool.address();
    let ways = [("l_tls", &tcp[..], true), ("l_unix", socket, false)];
    for (at, (user, address, tls)) in (1..).zip(ways) {
        create(server, user, &identified_by("right"));
        let login = |password: &'static str| Login {
            user,
            password,
            tls,
            plugin: Some(CACHING_SHA2),
            ..Login::to(address)
        };
        let refused = Wire::connect(&login("wrong")).await.err().unwrap();
        assert_eq!(refused.code, 1045, "{user}");
        let mut first = Wire::connect(&login("right")).await.unwrap();
        assert_eq!(value(&mut first, "SELECT 1").await, "1", "{user}");
        Wire::connect(&login("right")).await.unwrap();
        logged_in(&sidepool, at, at);
    }
}

async fn native(server: &Server) {
    create(server, "l_native", &identified_by("right"));
    let sidepool = Sidepool::start(server, &[NEVER_RECHECKED]);
    let tap = Tap::to(sidepool.address(), Vec::new());
    let address = tap.address();
    let login = |password: &'static str| Login {
        user: "l_native",
        password,
        plugin: Some(NATIVE),
        ..Login::to(&address)
    };
    let switch = format!("switch {CACHING_SHA2}");
    Wire::connect(&login("right")).await.unwrap();
    assert_eq!(shape(&tap), [&switch[..], "full", "key", "ok"]);
    Wire::connect(&login("right")).await.unwrap();
    assert_eq!(shape(&tap), ["ok"]);
    Wire::connect(&login("wrong")).await.err().unwrap();
    assert_eq!(shape(&tap), [&switch[..], "full", "key", "error 1045"]);
}

async fn clear(server: &Server) {
    create(server, "l_cleartext", &identified_by("right"));
    let sidepool = Sidepool::start(server, &[NEVER_RECHECKED]);
    let direct = sidepool.address();
    let login = |password: &'static str| Login {
        user: "l_cleartext",
        password,
        plugin: Some("mysql_clear_password"),
        tls: true,
        ..Login::to(&direct)
    };
    let refused = Wire::connect(&login("wrong")).await.err().unwrap();
    assert_eq!(refused.code, 1045);
    Wire::connect(&login("right")).await.unwrap();
    logged_in(&sidepool, 1, 0);
    Wire::connect(&login("right")).await.unwrap();
    sidepool.wait("known already", |s| logins(s, "full") == 1.0);
    // In clear it is not even looked at: the client has to come by another plugin, with the right password.
    let tap = Tap::to(sidepool.address(), Vec::new());
    let address = tap.address();
    let in_clear = Login {
        tls: false,
        address: &address,
        ..login("right")
    };
    Wire::connect(&in_clear).await.unwrap();
    assert_eq!(
        shape(&tap),
        [&format!("switch {CACHING_SHA2}")[..], "fast", "ok"]
    );
}

async fn preloaded(server: &Server) {
    create(server, "l_preloaded", &identified_by("right"));
    let sidepool = Sidepool::start(
        server,
        &[
            NEVER_RECHECKED,
            ("SIDEPOOL_AUTH__USER__0__NAME", "l_preloaded"),
            ("SIDEPOOL_AUTH__USER__0__PASSWORD_ENV", "PRELOADED"),
            ("PRELOADED", "right"),
        ],
    );
    let tap = Tap::to(sidepool.address(), Vec::new());
    let address = tap.address();
    // A driver that knows one plugin and no switch.
    let login = |password: &'static str| Login {
        user: "l_preloaded",
        password,
        plugin: Some(NATIVE),
        without: wire::PLUGIN_AUTH | wire::CONNECT_ATTRS,
        ..Login::to(&address)
    };
    Wire::connect(&login("right")).await.unwrap();
    assert_eq!(shape(&tap), ["ok"]);
    logged_in(&sidepool, 1, 0);
    let refused = Wire::connect(&login("wrong")).await.err().unwrap();
    assert_eq!(refused.code, 1251);
    // Not proved yet, a preloaded password admits nobody: the database decides.
    server.root("ALTER USER 'l_preloaded'@'%' IDENTIFIED BY 'other'");
    let other = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_AUTH__USER__0__NAME", "l_preloaded"),
            ("SIDEPOOL_AUTH__USER__0__PASSWORD_ENV", "PRELOADED"),
            ("PRELOADED", "right"),
        ],
    );
    assert_eq!(refusal(&other, "l_preloaded", "right").await.code, 1045);
}

async fn empty(server: &Server) {
    create(server, "l_empty", "");
    create(server, "l_full", &identified_by("right"));
    let sidepool = Sidepool::start(server, &[NEVER_RECHECKED]);
    for plugin in [NATIVE, CACHING_SHA2] {
        let address = sidepool.address();
        let login = |user, password| Login {
            user,
            password,
            plugin: Some(plugin),
            ..Login::to(&address)
        };
        Wire::connect(&login("l_empty", "")).await.unwrap();
        Wire::connect(&login("l_full", "right")).await.unwrap();
        for (user, password, used) in [("l_empty", "x", "YES"), ("l_full", "", "NO")] {
            let refused = Wire::connect(&login(user, password)).await.err().unwrap();
            let said =
                format!("Access denied for user '{user}'@'localhost' (using password: {used})");
            assert_eq!((refused.code, refused.message), (1045, said));
        }
    }
}
