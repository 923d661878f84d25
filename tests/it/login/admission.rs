//! Who may come from where: `[[auth.allow]]`, and the PROXY header that says where somebody comes from.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

on_every_server! {
    rules_say_who_may_come_from_where_and_how => rules;
    a_proxy_header_is_required_and_believed_from_listed_addresses => proxy_protocol;
}

async fn rules(server: &Server) {
    for user in ["l_report_1", "l_app", "l_far"] {
        create(server, user, &identified_by("right"));
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let socket = socket.to_str().unwrap();
    let tap = Tap::to(server.address(), Vec::new());
    let sidepool = with_rules(&tap, socket);
    let tcp = sidepool.address();
    let before = tap.total();
    let app = Login {
        user: "l_app",
        password: "right",
        ..Login::to(&tcp)
    };
    for user in ["l_far", "l_app", "l_reader"] {
        let login = Login {
            user,
            ..app.clone()
        };
        let refused = Wire::connect(&login).await.err().unwrap();
        let said = format!("Access denied for user '{user}'@'localhost' (using password: YES)");
        assert_eq!((refused.code, refused.message), (1045, said));
    }
    sidepool.wait("counted", |s| rejected(s, "not_allowed") == 3.0);
    assert_eq!(tap.total(), before, "the database was not asked");
    let over_tls = Login {
        tls: true,
        ..app.clone()
    };
    Wire::connect(&over_tls).await.unwrap();
    // A Unix socket counts as secure and as this machine.
    for user in ["l_app", "l_report_1"] {
        let local = Login {
            user,
            address: socket,
            ..app.clone()
        };
        Wire::connect(&local).await.unwrap();
    }
    connect(&sidepool, "l_report_1", "right").await.unwrap();
}

fn with_rules(database: &Tap, socket: &str) -> Sidepool {
    let listener = format!("unix:{socket}");
    let sidepool = Sidepool::launch(
        &database.address(),
        &[
            ("SIDEPOOL_LISTENER__1__ADDRESS", &listener),
            ("SIDEPOOL_AUTH__ALLOW__0__USER", "l\\_report%"),
            ("SIDEPOOL_AUTH__ALLOW__0__SOURCE", "127.0.0.0/8"),
            ("SIDEPOOL_AUTH__ALLOW__1__USER", "l\\_app"),
            ("SIDEPOOL_AUTH__ALLOW__1__REQUIRE_TLS", "true"),
            ("SIDEPOOL_AUTH__ALLOW__2__USER", "l\\_far"),
            ("SIDEPOOL_AUTH__ALLOW__2__SOURCE", "10.0.0.0/8"),
        ],
    );
    sidepool.wait_ready();
    sidepool
}

/// A version 2 header: from 203.0.113.7, port 4000.
fn version_2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend_from_slice(&[203, 0, 113, 7, 127, 0, 0, 1, 15, 160, 12, 234]);
    header
}

async fn proxy_protocol(server: &Server) {
    create(server, "l_proxied", &identified_by("right"));
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_LISTENER__0__PROXY_PROTOCOL_FROM", "127.0.0.1/32"),
            ("SIDEPOOL_AUTH__ALLOW__0__SOURCE", "203.0.113.0/24"),
        ],
    );
    let version_1 = b"PROXY TCP4 203.0.113.7 127.0.0.1 4000 3306\r\n".to_vec();
    for header in [version_1, version_2()] {
        let balancer = Tap::to(sidepool.address(), header);
        let address = balancer.address();
        let login = |password: &'static str| Login {
            user: "l_proxied",
            password,
            ..Login::to(&address)
        };
        let refused = Wire::connect(&login("wrong")).await.err().unwrap();
        assert!(
            refused.message.contains("'l_proxied'@'203.0.113.7'"),
            "{refused:?}"
        );
        let mut client = Wire::connect(&login("right")).await.unwrap();
        assert_eq!(value(&mut client, "SELECT 1").await, "1");
        // TLS begins behind the header.
        let over_tls = Login {
            tls: true,
            ..login("right")
        };
        Wire::connect(&over_tls).await.unwrap();
    }
    let elsewhere = b"PROXY TCP4 198.51.100.1 127.0.0.1 4000 3306\r\n".to_vec();
    let balancer = Tap::to(sidepool.address(), elsewhere);
    let address = balancer.address();
    let login = Login {
        user: "l_proxied",
        password: "right",
        ..Login::to(&address)
    };
    assert_eq!(Wire::connect(&login).await.err().unwrap().code, 1045);
    sidepool.wait("counted", |s| rejected(s, "not_allowed") == 1.0);
    // Without a header there is not even a greeting.
    let mut bare = TcpStream::connect(sidepool.address()).await.unwrap();
    bare.write_all(b"\x20\0\0\x01 this is no header, as one sees")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // An end or a reset.
    let end = bare.read_to_end(&mut answer);
    let end = tokio::time::timeout(std::time::Duration::from_secs(10), end).await;
    assert!(end.is_ok(), "not closed");
    assert!(answer.is_empty(), "{answer:x?}");
    sidepool.wait("counted", |s| rejected(s, "proxy_protocol") == 1.0);
}
