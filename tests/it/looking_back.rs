//! What a session may still ask about its last statements, and what is no such question: row counts, the
//! diagnostics area, savepoints.

use crate::support::clients::*;
use crate::support::servers::{Server, USER};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Reply, Wire};

on_every_server! {
    a_savepoint_without_autocommit_holds_and_pins_nothing => savepoint;
    a_column_named_like_a_function_is_none => names;
    an_error_of_get_diagnostics_is_shown => error_of_get_diagnostics;
    nobody_sees_anothers_error_behind_a_statement_without_tables => anothers_error;
    a_function_may_have_emptied_the_diagnostics => unknown_function;
    databases_come_and_go_and_the_error_stays => databases;
    found_rows_is_of_the_sessions_own_select => found_rows;
    a_ping_is_no_statement_to_count => behind_a_ping;
    counts_and_diagnostics_are_asked_for_together => together;
}

const PINS: &str = "sidepool_session_pins_total";

/// Two clients in a database of their own with a table `t` and rows in it, one connection for both.
async fn two(server: &Server, database: &str) -> (Sidepool, Wire, Wire) {
    server.database(database);
    server.root(&format!(
        "CREATE TABLE {database}.t (a INT PRIMARY KEY, row_count INT, error_count INT); \
         INSERT INTO {database}.t VALUES (1, 7, 8), (2, 7, 8), (3, 7, 8)"
    ));
    let sidepool = Sidepool::sharing(server, 1);
    let a = client_in(&sidepool, USER, database).await;
    let b = client_in(&sidepool, USER, database).await;
    (sidepool, a, b)
}

/// The value, or `None` if Sidepool says that it cannot be told.
async fn asked(wire: &mut Wire, sql: &str) -> Option<String> {
    match wire.query(sql).await {
        Reply::Err(error) if error.code == 1235 => None,
        reply => Some(reply.text()),
    }
}

async fn savepoint(server: &Server) {
    server.database("t_lb_sp");
    server.root("CREATE TABLE t_lb_sp.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "1"),
            ("SIDEPOOL_POOL__BORROW_TIMEOUT", "300ms"),
        ],
    );
    let mut a = client_in(&sidepool, USER, "t_lb_sp").await;
    let mut b = client_in(&sidepool, USER, "t_lb_sp").await;
    a.run("SET autocommit = 0").await;
    for end in ["COMMIT", "ROLLBACK"] {
        a.run("SAVEPOINT s").await;
        assert_eq!(b.query("SELECT 1").await.err().code, 9501, "not held");
        a.run("SAVEPOINT s").await;
        a.run("INSERT INTO t VALUES (1)").await;
        a.run("ROLLBACK TO SAVEPOINT s").await;
        a.run("ROLLBACK TO SAVEPOINT s").await;
        a.run("RELEASE SAVEPOINT s").await;
        a.run(end).await;
        assert_eq!(value(&mut b, "SELECT COUNT(*) FROM t").await, "0");
    }
    a.run("SAVEPOINT s").await;
    a.run("SET autocommit = 1").await;
    assert_eq!(value(&mut b, "SELECT 2").await, "2");
    // Nothing is to be kept where every statement is a transaction.
    a.run("SAVEPOINT s").await;
    assert_eq!(value(&mut b, "SELECT 3").await, "3");
    assert_eq!(sidepool.metric(PINS, ""), 0.0);
}

async fn names(server: &Server) {
    let (sidepool, mut a, mut b) = two(server, "t_lb_names").await;
    for sql in [
        "SELECT row_count FROM t LIMIT 1",
        "SELECT 7 AS found_rows",
        "SELECT t.row_count AS connection_id FROM t LIMIT 1",
        "SELECT 7 previous",
        "SELECT error_count - 1 FROM t LIMIT 1",
    ] {
        a.query("SELECT nonsense").await.err();
        b.run("INSERT INTO t VALUES (9, 1, 1)").await;
        assert_eq!(value(&mut a, sql).await, "7", "{sql}");
        b.run("DELETE FROM t WHERE a = 9").await;
    }
    a.run("CREATE TABLE u (row_count INT, found_rows INT)")
        .await;
    assert_eq!(sidepool.metric(PINS, ""), 0.0);
}

async fn error_of_get_diagnostics(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, "t_lb_get").await;
    a.run("SELECT COUNT(*) FROM t").await;
    b.query("SELECT nonsense").await.err();
    // An error that does not fail the statement: its OK counts one warning.
    a.query("GET DIAGNOSTICS CONDITION 1 @m = MESSAGE_TEXT")
        .await
        .ok();
    assert_eq!(value(&mut a, "SHOW COUNT(*) WARNINGS").await, "1");
}

async fn anothers_error(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, "t_lb_other").await;
    a.query("SELECT nonsense").await.err();
    b.query("USE t_lb_none").await.err();
    a.run("SELECT @@wait_timeout, @@lock_wait_timeout").await;
    // Direct: MySQL has emptied the area, MariaDB shows the first error still.
    let shown = asked(&mut a, "SELECT @@error_count + 0").await;
    let expected = if is_mariadb(server) { None } else { Some("0") };
    assert_eq!(shown.as_deref(), expected);
    let reply = a.query("SHOW ERRORS LIMIT 0, 1").await;
    assert!(!format!("{reply:?}").contains("t_lb_none"), "{reply:?}");
}

async fn unknown_function(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, "t_lb_fun").await;
    server.routine(
        "CREATE FUNCTION t_lb_fun.f() RETURNS INT DETERMINISTIC MODIFIES SQL DATA \
         BEGIN INSERT INTO t_lb_fun.t VALUES (10, 0, 0); RETURN 1; END",
    );
    a.query("SELECT nonsense").await.err();
    b.run("SELECT 1").await;
    a.run("SELECT t_lb_fun.f()").await;
    let shown = asked(&mut a, "SHOW COUNT(*) WARNINGS").await;
    let expected = if is_mariadb(server) { None } else { Some("0") };
    assert_eq!(shown.as_deref(), expected);
    // From now on it is kept.
    a.run("DELETE FROM t WHERE a = 10").await;
    a.query("SELECT nonsense").await.err();
    a.run("SELECT t_lb_fun.f()").await;
    assert_eq!(value(&mut a, "SHOW COUNT(*) WARNINGS").await, "0");
}

async fn databases(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, "t_lb_db").await;
    server.root("DROP DATABASE IF EXISTS t_lb_db2");
    let kept = if is_mariadb(server) { "1" } else { "0" };
    a.query("SELECT nonsense").await.err();
    for sql in ["CREATE DATABASE t_lb_db2", "DROP DATABASE t_lb_db2"] {
        b.query("USE t_lb_none").await.err();
        a.query(sql).await.ok();
        if sql.starts_with("CREATE") {
            assert_eq!(value(&mut a, "SHOW COUNT(*) WARNINGS").await, kept, "{sql}");
        }
    }
    assert_eq!(value(&mut a, "SHOW COUNT(*) WARNINGS").await, kept);
}

async fn found_rows(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, "t_lb_found").await;
    a.run("SELECT a FROM t").await;
    b.run("SELECT 1").await;
    a.run("SET @@sql_mode = ''").await;
    a.run("DO 1 + 1").await;
    for sql in ["SELECT FOUND_ROWS() + 0", "SELECT FOUND_ROWS() + 0"] {
        assert_eq!(asked(&mut a, sql).await, None);
    }
    a.run("SELECT a FROM t").await;
    assert_eq!(value(&mut a, "SELECT FOUND_ROWS() + 0").await, "3");
}

/// A ping that Sidepool answers itself makes `ROW_COUNT()` another; the connection has the one before.
async fn behind_a_ping(server: &Server) {
    let (_sidepool, mut a, _b) = two(server, "t_lb_ping").await;
    a.run("UPDATE t SET row_count = 5").await;
    assert_eq!(value(&mut a, "SELECT ROW_COUNT() + 0").await, "3");
    a.run("UPDATE t SET row_count = 6").await;
    a.command(14, b"").await;
    a.read_reply().await.ok();
    let shown = asked(&mut a, "SELECT ROW_COUNT() + 0").await;
    assert!(
        shown.is_none() || shown.as_deref() == Some("0"),
        "{shown:?}"
    );
}

async fn together(server: &Server) {
    let (_sidepool, mut a, mut b) = two(server, "t_lb_both").await;
    const ASK: &str = "GET DIAGNOSTICS @n = NUMBER, @r = ROW_COUNT";
    b.query("SELECT nonsense").await.err();
    a.run("SELECT 1").await;
    // On MariaDB the other's error is still on the connection.
    let told = !matches!(a.query(ASK).await, Reply::Err(error) if error.code == 1235);
    assert_eq!(told, !is_mariadb(server));
    // Reading the variables back may come in between, and is said once.
    a.run("UPDATE t SET row_count = 9").await;
    if matches!(a.query(ASK).await, Reply::Err(error) if error.code == 1235) {
        a.run("UPDATE t SET row_count = 10").await;
        a.query(ASK).await.ok();
    }
    assert_eq!(value(&mut a, "SELECT CONCAT(@n, ',', @r)").await, "0,3");
}
