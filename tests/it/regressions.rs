//! What real drivers stumbled over, and what their programs rely on.

use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::{PASSWORD, Server, USER};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{DEPRECATE_EOF, Login, MULTI_STATEMENTS, Reply, Wire};

on_every_server! {
    row_count_is_what_a_dedicated_connection_says => row_count;
    counts_in_one_text_with_their_statement => counts_in_one_text;
    a_variable_set_without_a_scope_stays_with_its_session => set_without_scope;
    a_reset_leaves_the_charset_of_the_database => charset_of_the_database;
    a_function_reads_its_own_sessions_insert_id => insert_id_in_a_function;
    row_count_behind_an_answer_of_sidepools => row_count_behind_own_answer;
    privileges_granted_through_sidepool_count_at_once => privileges;
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

/// MariaDB's trackers are silent about `SET @@name = …`.
async fn set_without_scope(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    for (set, read) in [
        ("@@time_zone = '+01:00'", "@@time_zone"),
        ("@@sql_mode = ''", "@@sql_mode"),
        ("@@sort_buffer_size = 65536", "@@sort_buffer_size"),
        (
            "@@div_precision_increment := 7",
            "@@div_precision_increment",
        ),
        ("@@autocommit = 0", "@@autocommit"),
        ("@@`lc_time_names` = 'de_DE'", "@@lc_time_names"),
    ] {
        let read = format!("SELECT {read}");
        let usual = value(&mut b, &read).await;
        a.run(&format!("SET {set}")).await;
        let own = value(&mut a, &read).await;
        assert_ne!(own, usual, "{set}");
        if set.contains("autocommit") {
            a.run("COMMIT").await;
        }
        assert_eq!(value(&mut b, &read).await, usual, "{set}");
        assert_eq!(value(&mut a, &read).await, own, "{set}");
    }
    assert_eq!(sidepool.metric("sidepool_session_pins_total", ""), 0.0);
    a.run("SET @@timestamp = 1000").await;
    assert_eq!(
        sidepool.metric("sidepool_session_pins_total", "session_variable"),
        1.0
    );
}

async fn charset_of_the_database(server: &Server) {
    server.database("t_reg_cs");
    server.root("ALTER DATABASE t_reg_cs CHARACTER SET koi8r");
    let sidepool = Sidepool::sharing(server, 1);
    const CHARSET: &str = "SELECT @@character_set_database";
    let mut a = client_in(&sidepool, USER, "t_reg_cs").await;
    a.command(31, b"").await;
    a.read_reply().await.ok();
    // A session that ends in a transaction has its connection reset.
    let mut b = client_in(&sidepool, USER, "t_reg_cs").await;
    assert_eq!(value(&mut b, CHARSET).await, "koi8r");
    b.run("BEGIN").await;
    drop(b);
    let mut c = client_in(&sidepool, USER, "t_reg_cs").await;
    assert_eq!(value(&mut c, CHARSET).await, "koi8r");
}

async fn insert_id_in_a_function(server: &Server) {
    server.database("t_reg_fn");
    server.root("CREATE TABLE t_reg_fn.t (a INT AUTO_INCREMENT PRIMARY KEY)");
    server
        .routine("CREATE FUNCTION t_reg_fn.f() RETURNS INT READS SQL DATA RETURN LAST_INSERT_ID()");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = client_in(&sidepool, USER, "t_reg_fn").await;
    let mut b = client_in(&sidepool, USER, "t_reg_fn").await;
    a.run("INSERT INTO t VALUES (NULL)").await;
    assert_eq!(value(&mut b, "SELECT f()").await, "0");
    assert_eq!(value(&mut a, "SELECT f()").await, "1");
}

async fn row_count_behind_own_answer(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = client(&sidepool).await;
    a.query("SELECT nonsense").await.err();
    a.run("BEGIN").await;
    a.run("SHOW WARNINGS").await;
    assert_eq!(value(&mut a, "SELECT ROW_COUNT()").await, "-1");
}

/// Servers look some privileges up at login, so connections of before must not be lent any more.
async fn privileges(server: &Server) {
    account(server, "reg_granted");
    server.database("t_reg_pr");
    server.root(&format!(
        "DROP USER IF EXISTS reg_granter@'%'; \
         CREATE USER reg_granter@'%' IDENTIFIED BY '{PASSWORD}'; \
         GRANT ALL ON *.* TO reg_granter@'%' WITH GRANT OPTION"
    ));
    let sidepool = Sidepool::sharing(server, 4);
    let mut granter = client_as(&sidepool, "reg_granter").await;
    const READ: &str = "SELECT COUNT(*) > 0 FROM mysql.user";
    for (change, allowed) in [
        ("GRANT SELECT ON *.* TO reg_granted@'%'", true),
        ("REVOKE SELECT ON *.* FROM reg_granted@'%'", false),
        ("GRANT SELECT ON `mysql`.* TO reg_granted@'%'", true),
        ("REVOKE SELECT ON mysql.* FROM reg_granted@'%'", false),
    ] {
        let mut before = client_as(&sidepool, "reg_granted").await;
        assert_eq!(matches!(before.query(READ).await, Reply::Err(_)), allowed);
        granter.run(change).await;
        let mut after = client_as(&sidepool, "reg_granted").await;
        let reply = after.query(READ).await;
        assert_eq!(!matches!(reply, Reply::Err(_)), allowed, "{change}");
    }
    let closed = sidepool.metric("sidepool_pool_retired_total", "privileges_changed");
    assert!(closed >= 4.0, "{closed}");
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
    // A name that is not carried.
    wire.run("SET @mine = 1, @`a\"b` = 1").await;
    eventually("the user variable pins", async || {
        sidepool.metric("sidepool_sessions_pinned", "") == 1.0
    })
    .await;
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
