//! Statements of Sidepool's own, and what it puts in front of the client's: nothing of them may show,
//! and nothing may be hidden from Sidepool by them.

use super::*;

on_every_server! {
    a_list_of_variables_shows_the_own_insert_id => listed_insert_id;
    a_transaction_begun_elsewhere_has_the_own_insert_id => insert_id_in_transaction;
    timeouts_set_twice_are_the_last_ones => timeouts_twice;
    what_is_set_beside_a_timeout_stays_with_its_session => beside_a_timeout;
    what_is_set_behind_a_list_of_variables_stays_with_its_session => behind_a_list;
    a_next_transaction_is_not_used_up => next_transaction;
    no_transaction_begins_without_autocommit => no_autocommit;
    own_statements_work_whatever_is_limited => limited;
}

async fn two(server: &Server, connections: usize) -> (Sidepool, Wire, Wire) {
    let sidepool = Sidepool::sharing(server, connections);
    let (a, b) = (client(&sidepool).await, client(&sidepool).await);
    (sidepool, a, b)
}

async fn listed_insert_id(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, 1).await;
    a.run("SET last_insert_id = 77").await;
    let listed = "SHOW SESSION VARIABLES LIKE 'last_insert_id'";
    for (wire, expected) in [(&mut b, "0"), (&mut a, "77")] {
        let rows = wire.run(listed).await.rows();
        assert_eq!(rows[0][1].as_deref(), Some(expected.as_bytes()));
    }
}

async fn insert_id_in_transaction(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, 1).await;
    a.run("SELECT LAST_INSERT_ID(5)").await;
    b.run("SELECT LAST_INSERT_ID(6)").await;
    a.run("BEGIN").await;
    assert_eq!(value(&mut a, "SELECT LAST_INSERT_ID()").await, "5");
    assert_eq!(value(&mut a, "SELECT LAST_INSERT_ID(8)").await, "8");
    assert_eq!(value(&mut a, "SELECT LAST_INSERT_ID()").await, "8");
    a.run("COMMIT").await;
    b.run("BEGIN").await;
    assert_eq!(value(&mut b, "SELECT LAST_INSERT_ID()").await, "6");
    b.run("COMMIT").await;
    assert_eq!(value(&mut a, "SELECT LAST_INSERT_ID()").await, "8");
}

async fn timeouts_twice(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, 1).await;
    let both = "SELECT CONCAT_WS(',', @@wait_timeout, @@interactive_timeout)";
    let before = value(&mut b, both).await;
    a.run("SET wait_timeout = 98, interactive_timeout = 99")
        .await;
    a.run("SET wait_timeout = 1000").await;
    for _ in 0..2 {
        assert_eq!(value(&mut b, both).await, before);
        assert_eq!(value(&mut a, both).await, "1000,99");
        let rows = a.run("SHOW VARIABLES LIKE 'wait_timeout'").await.rows();
        assert_eq!(rows[0][1].as_deref(), Some(&b"1000"[..]));
    }
}

async fn beside_a_timeout(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, 2).await;
    a.run("SET wait_timeout = 50").await;
    a.run("SET wait_timeout = 60, timestamp = 1000, group_concat_max_len = 44")
        .await;
    for _ in 0..2 {
        assert_ne!(value(&mut b, "SELECT UNIX_TIMESTAMP()").await, "1000");
        assert_ne!(value(&mut b, "SELECT @@group_concat_max_len").await, "44");
        assert_eq!(value(&mut a, "SELECT UNIX_TIMESTAMP()").await, "1000");
        assert_eq!(value(&mut a, "SELECT @@group_concat_max_len").await, "44");
    }
}

async fn behind_a_list(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, 2).await;
    a.query_all("SHOW VARIABLES LIKE 'version'; SET timestamp = 1000")
        .await;
    assert_ne!(value(&mut b, "SELECT UNIX_TIMESTAMP()").await, "1000");
    assert_eq!(value(&mut a, "SELECT UNIX_TIMESTAMP()").await, "1000");
}

/// `SET TRANSACTION` holds for the next transaction; own statements in between are none.
async fn next_transaction(server: &Server) {
    server.database("t_sfo");
    server.root("CREATE TABLE t_sfo.t (a INT) ENGINE = InnoDB");
    let (_sidepool, mut a, mut b) = two(server, 2).await;
    let mut direct = Wire::connect(&Login::to(&server.address())).await.unwrap();
    for between in [
        "SHOW VARIABLES LIKE 'sql_mode'",
        "SHOW WARNINGS",
        "SET time_zone = '+01:00'",
        "SET sql_mode = ''",
        "SET NAMES utf8mb4",
        "SELECT nonsense",
        "SELECT LAST_INSERT_ID(3)",
        "SELECT @@wait_timeout",
        "SET wait_timeout = 77",
    ] {
        let mut seen = Vec::new();
        for wire in [&mut a, &mut direct] {
            wire.run("SET TRANSACTION READ ONLY").await;
            wire.query(between).await;
            b.run("SELECT 1").await;
            let reply = wire.query("INSERT INTO t_sfo.t VALUES (1)").await;
            seen.push(match reply {
                Reply::Err(error) => error.code,
                _ => 0,
            });
            wire.run("ROLLBACK").await;
        }
        assert_eq!(seen[0], seen[1], "behind {between}");
        b.run("INSERT INTO t_sfo.t VALUES (2)").await;
    }
}

async fn no_autocommit(server: &Server) {
    server.database("t_sfa");
    server.root("CREATE TABLE t_sfa.t (a INT) ENGINE = InnoDB; INSERT INTO t_sfa.t VALUES (1)");
    let (sidepool, mut a, mut b) = two(server, 1).await;
    a.run("SET autocommit = 0").await;
    for sql in [
        "SET time_zone = '+01:00'",
        "SET sql_mode = CONCAT(@@sql_mode, ',ANSI')",
        "SHOW VARIABLES LIKE 'sql_mode'",
        "SELECT nonsense",
        "SHOW WARNINGS",
        "SELECT LAST_INSERT_ID(4)",
    ] {
        a.query(sql).await;
        // The only connection is free again: a transaction would hold it.
        b.run("SELECT 1").await;
        assert_eq!(
            sidepool.metric("sidepool_sessions_in_transaction", ""),
            0.0,
            "behind {sql}"
        );
    }
    // A snapshot begins with the client's own first read.
    server.root("UPDATE t_sfa.t SET a = 2");
    assert_eq!(value(&mut a, "SELECT a FROM t_sfa.t").await, "2");
    a.run("COMMIT").await;
}

/// Settings that could stop Sidepool's own statements.
async fn limited(server: &Server) {
    let tiny = if is_mariadb(server) {
        "SET max_statement_time = 0.000001"
    } else {
        "SET max_execution_time = 1"
    };
    let (_sidepool, mut a, mut b) = two(server, 1).await;
    for limit in [
        tiny,
        "SET sql_select_limit = 0",
        "SET sql_big_selects = 0, max_join_size = 1",
        "SET sql_safe_updates = 1",
        "SET sql_mode = 'ANSI,HIGH_NOT_PRECEDENCE,NO_BACKSLASH_ESCAPES,TRADITIONAL'",
        "SET character_set_results = NULL",
        "SET character_set_results = binary",
        "SET character_set_client = gbk",
        "SET character_set_client = sjis",
        "SET character_set_client = big5",
        "SET character_set_connection = ucs2",
        "SET max_error_count = 0",
        "SET optimizer_switch = 'derived_merge=off'",
        "SET sql_buffer_result = 1, big_tables = 1",
        "SET tmp_table_size = 1024, max_heap_table_size = 16384",
        "SET max_sort_length = 4",
        "SET group_concat_max_len = 4",
        "SET lc_time_names = 'ja_JP', lc_messages = 'ja_JP'",
    ] {
        // Some need a privilege.
        a.query(limit).await;
        for _ in 0..2 {
            a.query("SET lock_wait_timeout = 7").await;
            b.run("SET time_zone = '+02:00'").await;
            a.query("SELECT nonsense").await;
            b.run("SET lock_wait_timeout = 8").await;
            a.query("SELECT LAST_INSERT_ID(9)").await;
            assert_eq!(
                value(&mut b, "SELECT @@lock_wait_timeout").await,
                "8",
                "{limit}"
            );
            a.query("SET lock_wait_timeout = 9").await;
        }
        assert_eq!(
            value(&mut b, "SELECT @@time_zone").await,
            "+02:00",
            "{limit}"
        );
        a = client(&_sidepool).await;
    }
}
