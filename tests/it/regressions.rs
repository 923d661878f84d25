//! What real drivers stumbled over, and what their programs rely on.

use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{DEPRECATE_EOF, Login, MULTI_STATEMENTS, Reply, Wire};

on_every_server! {
    row_count_is_what_a_dedicated_connection_says => row_count;
    counts_in_one_text_with_their_statement => counts_in_one_text;
    a_reset_ends_the_pin_of_a_user_variable => reset_unpins;
    a_change_of_user_ends_the_pin_of_a_user_variable => change_user_unpins;
}

/// After each of these, with others busy on the same connections. An `INSERT` first of all: what
/// Sidepool asks behind it makes the connection forget the number.
const COUNTED: &[&str] = &[
    "INSERT INTO t (a) VALUES (1), (2), (3)",
    "INSERT INTO t (a) VALUES (1)",
    "INSERT IGNORE INTO t (a) VALUES (1), (9)",
    "INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE b = 'x'",
    "REPLACE INTO t (a) VALUES (1)",
    "UPDATE t SET b = 'abcdef'",
    "SET sql_mode = ''",
    "UPDATE t SET b = 'abcdef'",
    "UPDATE t SET b = 'abcdef'",
    "SELECT * FROM t",
    "DELETE FROM t WHERE a = 2",
    "SHOW WARNINGS",
    "SELECT nonsense",
    "CREATE TABLE u (a INT)",
    "INSERT INTO u SELECT a FROM t",
    "BEGIN",
    "COMMIT",
    "DROP TABLE u",
    "USE t_reg_rc",
];

async fn row_count(server: &Server) {
    server.database("t_reg_rc");
    let sidepool = Sidepool::sharing(server, 2);
    for without in [0, DEPRECATE_EOF] {
        let mut seen = Vec::new();
        for address in [server.address(), sidepool.address()] {
            server.root(
                "DROP TABLE IF EXISTS t_reg_rc.t; CREATE TABLE t_reg_rc.t \
                 (id INT AUTO_INCREMENT PRIMARY KEY, a INT UNIQUE, b VARCHAR(3))",
            );
            seen.push(counts(&address, without).await);
        }
        for (i, (direct, through)) in seen[0].iter().zip(&seen[1]).enumerate() {
            assert_eq!(through, direct, "reply {i}");
        }
        assert_eq!(seen[1].len(), seen[0].len());
    }
    assert_eq!(sidepool.metric("sidepool_session_pins_total", ""), 0.0);
}

/// The answers to `ROW_COUNT()` at the beginning, after each statement, after commands that are none,
/// and twice.
async fn counts(address: &str, without: u32) -> Vec<Reply> {
    let login = Login {
        database: Some("t_reg_rc"),
        without,
        ..Login::to(address)
    };
    let mut wire = Wire::connect(&login).await.unwrap();
    let mut other = Wire::connect(&login).await.unwrap();
    let mut replies = vec![wire.query("SELECT ROW_COUNT()").await];
    for sql in COUNTED {
        wire.query(sql).await;
        other.run("SELECT * FROM t LIMIT 1").await;
        replies.push(wire.query("select  row_count( ) ;").await);
    }
    wire.run("DELETE FROM t").await;
    for (command, argument) in [(14, &b""[..]), (2, b"t_reg_rc"), (31, b"")] {
        wire.run("INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE b = 'x'")
            .await;
        wire.command(command, argument).await;
        wire.read_reply().await.ok();
        replies.push(wire.query("SELECT ROW_COUNT()").await);
        replies.push(wire.query("SELECT ROW_COUNT()").await);
    }
    wire.run("SET sql_select_limit = 0").await;
    replies.push(wire.query("SELECT ROW_COUNT()").await);
    replies
}

/// As EF Core and pages of lists send them: a statement and one that looks back at it in one text.
async fn counts_in_one_text(server: &Server) {
    server.database("t_reg_text");
    server.root("CREATE TABLE t_reg_text.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)");
    let sidepool = Sidepool::sharing(server, 1);
    let address = sidepool.address();
    let login = Login {
        database: Some("t_reg_text"),
        with: MULTI_STATEMENTS,
        ..Login::to(&address)
    };
    let mut a = Wire::connect(&login).await.unwrap();
    let mut b = Wire::connect(&login).await.unwrap();
    for id in ["1", "2", "3"] {
        let replies = a
            .query_all(
                "INSERT INTO t (a) VALUES (5); \
                 SELECT id FROM t WHERE ROW_COUNT() = 1 AND id = LAST_INSERT_ID()",
            )
            .await;
        assert_eq!(replies[1].clone().text(), id);
        b.run("SELECT * FROM t").await;
    }
    assert_eq!(sidepool.metric("sidepool_session_pins_total", ""), 0.0);
    let replies = b
        .query_all("SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1; SELECT FOUND_ROWS()")
        .await;
    assert_eq!(replies[1].clone().text(), "3");
}

async fn reset_unpins(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    let mut clients = three_clients(&sidepool).await;
    for wire in &mut clients {
        pin(&sidepool, wire).await;
        wire.command(31, b"").await;
        wire.read_reply().await.ok();
        unpinned(&sidepool).await;
    }
    others_go_on(clients).await;
}

async fn change_user_unpins(server: &Server) {
    account(server, "reg_changed");
    let sidepool = Sidepool::sharing(server, 1);
    let mut clients = three_clients(&sidepool).await;
    for wire in &mut clients {
        pin(&sidepool, wire).await;
        wire.change_user("reg_changed", crate::support::servers::PASSWORD)
            .await
            .unwrap();
        unpinned(&sidepool).await;
    }
    others_go_on(clients).await;
}

async fn three_clients(sidepool: &Sidepool) -> Vec<Wire> {
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(client(sidepool).await);
    }
    clients
}

async fn pin(sidepool: &Sidepool, wire: &mut Wire) {
    wire.run("SET @mine = 1").await;
    let pinned = sidepool.metric("sidepool_sessions_pinned", "");
    assert_eq!(pinned, 1.0, "the user variable pins");
}

async fn unpinned(sidepool: &Sidepool) {
    eventually("nobody is pinned", async || {
        sidepool.metric("sidepool_sessions_pinned", "") == 0.0
    })
    .await;
}

/// All have the one backend connection in turn, and none has a user variable.
async fn others_go_on(mut clients: Vec<Wire>) {
    for wire in &mut clients {
        assert_eq!(value(wire, "SELECT 7").await, "7");
    }
    for wire in clients {
        let mut wire = wire;
        assert_eq!(value(&mut wire, "SELECT @mine").await, "NULL");
        wire.quit().await;
    }
}
