//! Hazards 3, 4 and 5: writes that would happen in the wrong place, twice, or with a wrong parent;
//! and what a session is told of its own statements.

use super::*;
use crate::support::eventually;
use crate::support::wire::Reply;

on_every_server! {
    h03_a_dropped_database_is_not_replaced_by_the_previous_clients => dropped_database;
    h04_a_statement_that_may_have_run_is_not_run_again => not_twice;
    h04_a_connection_that_died_idle_is_not_the_clients_problem => died_idle;
    h04_a_lost_transaction_is_said_to_be_lost => lost_transaction;
    h05_the_insert_id_is_what_the_function_says => insert_id;
    warnings_are_the_sessions_own => warnings;
    row_counts_are_never_somebody_elses => row_count;
}

async fn dropped_database(server: &Server) {
    for name in ["t_h3gone", "t_h3keep"] {
        server.database(name);
        server.root(&format!(
            "CREATE TABLE {name}.vic (a INT); INSERT INTO {name}.vic VALUES (1),(2),(3)"
        ));
    }
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = client_in(&sidepool, "t_h3gone").await;
    a.run("SELECT * FROM vic").await;
    let mut b = client_in(&sidepool, "t_h3keep").await;
    b.run("SELECT * FROM vic").await;
    server.root("DROP DATABASE t_h3gone");
    let code = a.query("DELETE FROM vic").await.err().code;
    assert!([1046, 1049].contains(&code), "got {code}");
    assert_eq!(server.root("SELECT COUNT(*) FROM t_h3keep.vic"), "3");
    assert_eq!(value(&mut b, "SELECT COUNT(*) FROM vic").await, "3");
}

/// Kills every connection of the account at the server.
fn kill_all(server: &Server) {
    let ids = server.root("SELECT id FROM information_schema.processlist WHERE user = 'app'");
    for id in ids.lines() {
        server.root(&format!("KILL {id}"));
    }
}

async fn not_twice(shared: &Server) {
    let server = Server::start(shared.make, &[]);
    server.database("t_h4");
    server.root("CREATE TABLE t_h4.pay (a INT)");
    server.routine(
        "CREATE FUNCTION t_h4.pay() RETURNS INT DETERMINISTIC BEGIN DO SLEEP(30); RETURN 1; END",
    );
    server.root("CREATE PROCEDURE t_h4.p_pay() INSERT INTO t_h4.pay VALUES (1)");
    let sidepool = Sidepool::sharing(&server, 2);
    let mut a = client(&sidepool).await;
    a.command(3, b"INSERT INTO t_h4.pay VALUES (1); SELECT t_h4.pay()")
        .await;
    a.read_reply().await.ok();
    let row = "SELECT COUNT(*) FROM t_h4.pay";
    eventually("the row is there", async || server.root(row) == "1").await;
    kill_all(&server);
    assert_eq!(a.read_reply().await.err().code, 2013);
    let mut b = client(&sidepool).await;
    b.run("CALL t_h4.p_pay()").await;
    b.command(3, b"SELECT SLEEP(30) FROM t_h4.pay").await;
    let busy =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
    eventually("the statement runs", async || server.root(busy) == "1").await;
    kill_all(&server);
    assert_eq!(b.read_reply().await.err().code, 2013);
    assert_eq!(server.root(busy), "0", "it was run again");
    assert_eq!(server.root(row), "2");
    server.stop();
}

async fn died_idle(shared: &Server) {
    let server = Server::start(shared.make, &[]);
    server.database("t_h4i");
    server.root("CREATE TABLE t_h4i.t (a INT)");
    let sidepool = Sidepool::sharing(&server, 2);
    let mut a = client_in(&sidepool, "t_h4i").await;
    a.run("SET time_zone = '+04:00'").await;
    for n in 1..=3 {
        kill_all(&server);
        a.run("INSERT INTO t VALUES (1)").await;
        assert_eq!(server.root("SELECT COUNT(*) FROM t_h4i.t"), n.to_string());
        assert_eq!(value(&mut a, "SELECT @@time_zone").await, "+04:00");
    }
    server.stop();
    server.restart(&[]);
    a.run("INSERT INTO t VALUES (1)").await;
    assert_eq!(server.root("SELECT COUNT(*) FROM t_h4i.t"), "4");
    server.stop();
}

async fn lost_transaction(shared: &Server) {
    let server = Server::start(shared.make, &[]);
    server.database("t_h4t");
    server.root("CREATE TABLE t_h4t.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(&server, 2);
    let mut a = client_in(&sidepool, "t_h4t").await;
    a.run("BEGIN").await;
    a.run("INSERT INTO t VALUES (1)").await;
    kill_all(&server);
    let reply = a.query("INSERT INTO t VALUES (2)").await;
    assert!(
        matches!(reply, Reply::Err(_)),
        "the second half of a lost transaction was taken"
    );
    assert_eq!(server.root("SELECT COUNT(*) FROM t_h4t.t"), "0");
    server.stop();
}

async fn insert_id(server: &Server) {
    server.database("t_h5");
    server.root(
        "CREATE TABLE t_h5.parent (id INT AUTO_INCREMENT PRIMARY KEY, k INT UNIQUE); \
         CREATE TABLE t_h5.child (parent BIGINT); \
         CREATE PROCEDURE t_h5.p_ins() INSERT INTO t_h5.parent (k) VALUES (77)",
    );
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = client_in(&sidepool, "t_h5").await;
    let mut b = client_in(&sidepool, "t_h5").await;
    let own = "SELECT LAST_INSERT_ID()";
    assert_eq!(
        a.run("INSERT INTO parent (k) VALUES (1)")
            .await
            .ok()
            .insert_id,
        1
    );
    assert_eq!(value(&mut b, own).await, "0");
    assert_eq!(
        b.run("INSERT INTO parent (id, k) VALUES (500, 2)")
            .await
            .ok()
            .insert_id,
        500
    );
    assert_eq!(
        value(&mut b, own).await,
        "0",
        "an explicit id is not a generated one"
    );
    b.run("INSERT INTO parent (k) VALUES (3)").await;
    a.run("INSERT INTO child VALUES (LAST_INSERT_ID())").await;
    assert_eq!(value(&mut b, own).await, "501");
    assert_eq!(value(&mut a, own).await, "1");
    b.run("INSERT INTO child SELECT LAST_INSERT_ID(4242)").await;
    assert_eq!(value(&mut a, own).await, "1");
    assert_eq!(value(&mut b, own).await, "4242");
    assert_eq!(
        value(&mut a, "SELECT GROUP_CONCAT(parent ORDER BY 1) FROM child").await,
        "1,4242"
    );
}

async fn warnings(server: &Server) {
    let (_sidepool, mut a, mut b) = two_on_one(server).await;
    let warned = a.query("SELECT CAST('x1' AS SIGNED)").await;
    assert!(
        matches!(&warned, Reply::Rows { end, .. } if end.warnings == 1),
        "{warned:?}"
    );
    assert_eq!(
        b.query("SHOW WARNINGS").await.rows().len(),
        0,
        "somebody else's warning"
    );
    let rows = a.query("SHOW WARNINGS").await.rows();
    assert_eq!(rows[0][1], Some(b"1292".to_vec()));
    assert_eq!(value(&mut a, "SHOW COUNT(*) WARNINGS").await, "1");
    assert_eq!(a.query("SELECT nonsense").await.err().code, 1054);
    b.run("SELECT 1").await;
    let rows = a.query("SHOW ERRORS").await.rows();
    assert_eq!(rows[0][1], Some(b"1054".to_vec()));
    a.run("SELECT 1 FROM (SELECT 1) AS t").await;
    b.query("SELECT other_nonsense").await.err();
    a.run("SET @@session.time_zone = '+00:00'").await;
    assert_eq!(a.query("SHOW ERRORS").await.rows().len(), 0);
}

/// Either the right number or a clear error, and from then on the right number.
async fn row_count(server: &Server) {
    server.database("t_rc");
    server.root("CREATE TABLE t_rc.t (a INT); INSERT INTO t_rc.t VALUES (1),(2),(3)");
    let sidepool = Sidepool::sharing(server, 2);
    let mut a = client_in(&sidepool, "t_rc").await;
    let mut b = client_in(&sidepool, "t_rc").await;
    a.run("UPDATE t SET a = a + 1").await;
    b.run("SELECT * FROM t").await;
    let first = a.query("SELECT ROW_COUNT()").await;
    if !matches!(first, Reply::Err(_)) {
        assert_eq!(first.text(), "3");
    }
    a.run("UPDATE t SET a = a + 1").await;
    b.run("SELECT * FROM t LIMIT 1").await;
    assert_eq!(value(&mut a, "SELECT ROW_COUNT()").await, "3");
    a.run("SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1").await;
    b.run("SELECT * FROM t LIMIT 1").await;
    assert_eq!(value(&mut a, "SELECT FOUND_ROWS()").await, "3");
}
