//! What a client is greeted with and what its login's particulars become: version, capabilities, database,
//! character set, attributes, `CLIENT_INTERACTIVE`.

use bytes::BytesMut;
use sidepool::protocol::capability::{Capabilities, NEVER_OFFERED, POOL_KEY};
use sidepool::protocol::handshake::Greeting;
use sidepool::protocol::packet::take_packet;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::*;
use crate::support::clients::client_in;

on_every_server! {
    the_greeting_mirrors_the_server => mirrors;
    a_login_names_its_database => database;
    a_login_names_its_character_set => charset;
    the_database_is_told_who_serves_and_not_who_asks => attributes;
}

const INTERACTIVE: u32 = 1 << 10;

/// What that address greets with.
pub async fn greeting(address: &str) -> Greeting {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut input = BytesMut::new();
    loop {
        if let Some(packet) = take_packet(&mut input, 1 << 16).unwrap() {
            return Greeting::parse(&packet.payload).unwrap();
        }
        assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0);
    }
}

async fn mirrors(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    let direct = greeting(&server.address()).await;
    // Only a login that is brought to its end does not count as a broken one.
    let ours = greeting(&sidepool.address()).await;
    assert_eq!(ours.server_version, direct.server_version);
    assert_eq!(ours.collation, direct.collation);
    assert_eq!(ours.status, direct.status);
    assert_ne!(ours.nonce, direct.nonce);
    assert!(ours.connection_id >= 1 << 31);
    let plugin = if is_mariadb(server) {
        NATIVE
    } else {
        CACHING_SHA2
    };
    assert_eq!(ours.auth_plugin, plugin);
    let (ours, direct) = (ours.capabilities, direct.capabilities);
    assert_eq!(ours.is_mariadb(), direct.is_mariadb());
    assert_eq!(ours & NEVER_OFFERED, Capabilities::EMPTY);
    let mirrored = POOL_KEY | Capabilities::SESSION_TRACK | Capabilities::DEPRECATE_EOF;
    assert_eq!(ours & mirrored, direct & mirrored);
    // What Sidepool does by itself and the test relies on being more than nothing.
    assert!(direct.contains(Capabilities::COMPRESS | Capabilities::SESSION_TRACK));
    let again = greeting(&sidepool.address()).await;
    assert_ne!(again.nonce, greeting(&sidepool.address()).await.nonce);
}

async fn database(server: &Server) {
    server.database("t_login");
    server.root("CREATE DATABASE IF NOT EXISTS l_private");
    let sidepool = Sidepool::start(server, &[]);
    let mut client = client_in(&sidepool, servers::USER, "t_login").await;
    assert_eq!(value(&mut client, "SELECT DATABASE()").await, "t_login");
    let mut bare = connect(&sidepool, servers::USER, servers::PASSWORD)
        .await
        .unwrap();
    assert_eq!(value(&mut bare, "SELECT DATABASE()").await, "NULL");
    let (direct, ours) = (server.address(), sidepool.address());
    for name in ["t_is_not_there", "l_private"] {
        let login = |address| Login {
            database: Some(name),
            ..Login::to(address)
        };
        let expected = Wire::connect(&login(&direct)).await.err().unwrap();
        let refused = Wire::connect(&login(&ours)).await.err().unwrap();
        assert_eq!(
            (refused.code, &refused.state),
            (expected.code, &expected.state)
        );
        // Where it names a host, it is Sidepool's.
        let head = |message: &str| message.split('@').next().unwrap().to_owned();
        assert_eq!(head(&refused.message), head(&expected.message));
    }
}

async fn charset(server: &Server) {
    const ASKED: &str = "SELECT CONCAT_WS(' ', @@character_set_client, @@character_set_connection, \
                         @@character_set_results, @@collation_connection)";
    let sidepool = Sidepool::start(server, &[]);
    let (direct, ours) = (server.address(), sidepool.address());
    let mut seen = Vec::new();
    // latin1_swedish_ci, utf8mb4_general_ci, utf8mb4_bin, two that no server has, and none.
    for charset in [8, 45, 46, 17, 255, 0] {
        let login = |address| Login {
            charset,
            ..Login::to(address)
        };
        let expected = Wire::connect(&login(&direct)).await;
        let through = Wire::connect(&login(&ours)).await;
        match (expected, through) {
            (Ok(mut expected), Ok(mut through)) => {
                let expected = value(&mut expected, ASKED).await;
                assert_eq!(value(&mut through, ASKED).await, expected, "{charset}");
                seen.push(expected);
            }
            (Err(expected), Err(refused)) => assert_eq!(refused.code, expected.code),
            (expected, through) => {
                panic!("{charset}: {:?} {:?}", expected.err(), through.err())
            }
        }
    }
    assert_eq!(seen[0], "latin1 latin1 latin1 latin1_swedish_ci");
    assert_eq!(seen[1], "utf8mb4 utf8mb4 utf8mb4 utf8mb4_general_ci");
}

async fn attributes(server: &Server) {
    create(server, "l_attrs", &identified_by("right"));
    let sidepool = Sidepool::start(server, &[]);
    let address = sidepool.address();
    let login = Login {
        user: "l_attrs",
        password: "right",
        program: "billing",
        ..Login::to(&address)
    };
    let mut client = Wire::connect(&login).await.unwrap();
    // Sidepool knows; it is in the list of clients.
    let (_, clients) = sidepool.get("/api/v1/clients").unwrap();
    assert!(clients.contains("\"billing\""), "{clients}");
    if is_mariadb(server) {
        // Its performance schema is off, so nobody could see them.
        return;
    }
    let mut root = root(server).await;
    let sql = "SELECT attr_value FROM performance_schema.session_account_connect_attrs \
               WHERE attr_name = 'program_name' AND processlist_id = CONNECTION_ID()";
    assert_eq!(value(&mut client, sql).await, "sidepool");
    let sql = "SELECT COUNT(*) FROM performance_schema.session_connect_attrs \
               WHERE attr_value = 'billing'";
    assert_eq!(value(&mut root, sql).await, "0");
}

/// A private server whose two limits differ, so that it shows which of them a client has.
async fn interactive(make: Make) {
    const BOTH: &str = "SELECT CONCAT_WS(' ', @@wait_timeout, @@interactive_timeout)";
    if !servers::makes().contains(&make) {
        return;
    }
    let server = Server::start(make, &["--wait-timeout=1000", "--interactive-timeout=2000"]);
    let sidepool = Sidepool::sharing(&server, 1);
    let (direct, ours) = (server.address(), sidepool.address());
    let mut answers = Vec::new();
    for address in [&direct, &ours] {
        let login = Login::to(address);
        let mut plain = Wire::connect(&login).await.unwrap();
        let mut shell = Wire::connect(&Login {
            with: INTERACTIVE,
            ..login
        })
        .await
        .unwrap();
        let mut shown = Vec::new();
        for _ in 0..2 {
            shown.push(value(&mut shell, BOTH).await);
            shown.push(value(&mut plain, BOTH).await);
        }
        // A reset begins anew with what the login asked for.
        shell.command(0x1f, b"").await;
        shell.read_reply().await.ok();
        shown.push(value(&mut shell, BOTH).await);
        shown.push(value(&mut plain, BOTH).await);
        shell
            .change_user(servers::USER, servers::PASSWORD)
            .await
            .unwrap();
        shown.push(value(&mut shell, BOTH).await);
        answers.push(shown);
    }
    assert_eq!(answers[0], answers[1], "direct and through Sidepool");
    assert_eq!(answers[1][..2], ["2000 2000", "1000 2000"]);
}

#[tokio::test]
async fn an_interactive_client_of_mariadb_has_the_other_timeout() {
    interactive(Make::MariaDb).await;
}

#[tokio::test]
async fn an_interactive_client_of_mysql_has_the_other_timeout() {
    interactive(Make::MySql).await;
}

/// The lower one of the two closes it.
#[tokio::test]
async fn an_interactive_client_is_closed_by_the_server_s_interactive_timeout() {
    let server = Server::start(Make::MariaDb, &["--interactive-timeout=1"]);
    let sidepool = Sidepool::start(&server, &[]);
    let address = sidepool.address();
    let mut plain = Wire::connect(&Login::to(&address)).await.unwrap();
    let mut shell = Wire::connect(&Login {
        with: INTERACTIVE,
        ..Login::to(&address)
    })
    .await
    .unwrap();
    let soon = std::time::Duration::from_secs(10);
    let notice = tokio::time::timeout(soon, shell.read_packet()).await;
    let (seq, notice) = notice.expect("closed in time").unwrap();
    assert_eq!((seq, notice[0]), (0, 0xff));
    sidepool.wait("counted", |s| {
        s.metric("sidepool_client_connections_closed_total", "idle_timeout") == 1.0
    });
    assert_eq!(value(&mut plain, "SELECT 1").await, "1");
}
