//! Logins and databases that are refused: in the server's own words.

use super::*;
use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::{PASSWORD, Server};
use crate::support::wire::{Login, ServerError, Wire, parse_err};

on_every_server! {
    a_refused_login_has_the_servers_words => login_refused;
    a_refused_database_has_the_servers_words => database_refused;
    too_many_clients_is_1040 => too_many_clients;
    a_users_own_limit_is_waited_for => user_limit;
    tls_required_is_3159 => tls_required;
}

async fn error_of(login: &Login<'_>) -> ServerError {
    Wire::connect(login).await.err().expect("it is refused")
}

async fn login_refused(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    server.database("t_bad_known");
    let (direct, through) = (server.address(), sidepool.address());
    for (user, password, database) in [
        ("app", "wrong", None),
        ("app", "", None),
        ("app", "wrong", Some("t_bad_known")),
        ("nobody_at_all", PASSWORD, None),
        ("nobody_at_all", "", None),
        ("app", PASSWORD, Some("t_bad_unknown")),
        ("app", PASSWORD, Some("mysql")),
        ("o'brien", PASSWORD, None),
    ] {
        let login = Login {
            user,
            password,
            database,
            ..Login::to(&direct)
        };
        let expected = match user {
            "app" => error_of(&login).await,
            // MySQL asks who is nobody by any plugin, also such as the test client does not know.
            _ => ServerError {
                code: 1045,
                state: "28000".to_owned(),
                message: format!(
                    "Access denied for user '{user}'@'localhost' (using password: {})",
                    if password.is_empty() { "NO" } else { "YES" }
                ),
            },
        };
        let got = error_of(&Login {
            address: &through,
            ..login
        })
        .await;
        assert_eq!(got, expected, "{user} {password:?} {database:?}");
    }
    assert_serves(&sidepool).await;
}

async fn database_refused(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    server.database("t_bad_here");
    let (direct, through) = (server.address(), sidepool.address());
    let login = |address| Login {
        database: Some("t_bad_here"),
        ..Login::to(address)
    };
    let mut expected = Wire::connect(&login(&direct)).await.unwrap();
    let mut got = Wire::connect(&login(&through)).await.unwrap();
    for name in ["t_bad_unknown", "mysql", "", "`", "\u{e9}", "a/b"] {
        for wire in [&mut expected, &mut got] {
            wire.command(2, name.as_bytes()).await;
        }
        let reply = got.read_reply().await.err();
        assert_eq!(reply, expected.read_reply().await.err(), "{name}");
        let sql = format!("USE `{}`", name.replace('`', "``"));
        let reply = got.query(&sql).await.err();
        assert_eq!(reply, expected.query(&sql).await.err(), "{sql}");
        assert_eq!(value(&mut got, "SELECT DATABASE()").await, "t_bad_here");
    }
    assert_serves(&sidepool).await;
}

async fn too_many_clients(server: &Server) {
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_LISTENER__0__MAX_CLIENTS", "1")]);
    let first = client(&sidepool).await;
    let mut stream = TcpStream::connect(sidepool.address()).await.unwrap();
    let packets = packets_to_the_end(&mut stream).await;
    let [(0, error)] = &packets[..] else {
        panic!("one error in the greeting's place: {packets:?}");
    };
    let error = parse_err(error);
    assert_eq!(error.code, 1040);
    assert!(error.message.ends_with("Too many connections"), "{error:?}");
    let counted = async || sidepool.metric(REJECTED, "\"too_many_clients\"") == 1.0;
    eventually("counted", counted).await;
    first.quit().await;
    let address = sidepool.address();
    let comes_in = async || match Wire::connect(&Login::to(&address)).await {
        Ok(wire) => {
            wire.quit().await;
            true
        }
        Err(_) => false,
    };
    eventually("its place is free", comes_in).await;
    let nobody = async || sidepool.metric("sidepool_client_connections", "") == 0.0;
    eventually("nobody is left", nobody).await;
    let log = sidepool.log();
    assert!(!log.contains("panicked"), "{log}");
}

async fn user_limit(server: &Server) {
    let user = "b_limited";
    account(server, user);
    server.root(&format!(
        "ALTER USER '{user}'@'%' WITH MAX_USER_CONNECTIONS 2"
    ));
    let sidepool = Sidepool::start(server, &[]);
    let mut inside = client_as(&sidepool, user).await;
    let mut waits = client_as(&sidepool, user).await;
    inside.run("BEGIN").await;
    let mut looking = root(server).await;
    // Others of the account take what the server still allows it.
    let address = server.address();
    let own = Login {
        user,
        ..Login::to(&address)
    };
    let mut others = Vec::new();
    let refused = loop {
        match Wire::connect(&own).await {
            Ok(wire) => others.push(wire),
            Err(error) => break error.code,
        }
        let idle = connections(&mut looking, user).await;
        assert!(idle <= 2, "{idle} connections");
    };
    assert!([1203, 1226].contains(&refused), "{refused}");
    waits.command(3, b"SELECT 7").await;
    let early = timeout(Duration::from_millis(500), waits.read_reply()).await;
    if let Ok(early) = early {
        // An idle connection was left to it.
        assert_eq!(early.text(), "7");
    } else {
        inside.run("COMMIT").await;
        let answer = timeout(Duration::from_secs(8), waits.read_reply()).await;
        assert_eq!(answer.expect("its turn comes").text(), "7");
    }
    drop(others);
    assert_eq!(sidepool.metric(CLOSED, ""), 0.0);
    assert_serves(&sidepool).await;
}

async fn tls_required(server: &Server) {
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_LISTENER__0__TLS__MODE", "required")]);
    let address = sidepool.address();
    let error = error_of(&Login::to(&address)).await;
    assert_eq!((error.code, &error.state[..]), (3159, "HY000"));
    let text = "Connections using insecure transport are prohibited while \
                --require_secure_transport=ON.";
    assert_eq!(error.message, text);
    let counted = async || sidepool.metric(REJECTED, "\"tls_required\"") == 1.0;
    eventually("counted", counted).await;
    let login = Login {
        tls: true,
        ..Login::to(&address)
    };
    let mut wire = Wire::connect(&login).await.unwrap();
    assert_eq!(wire.query("SELECT 7").await.text(), "7");
}
