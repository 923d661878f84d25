//! Transactions that the status flags of no answer show.

use crate::support::clients::{client_in, on_every_server, value};
use crate::support::servers::{Server, USER};
use crate::support::sidepool::Sidepool;
use crate::support::wire::Reply;

on_every_server! {
    a_failed_statement_without_autocommit_leaves_its_transaction_with_its_session => failed_statement;
    locks_of_a_failed_statement_go_with_its_session => locks_go;
    what_waits_for_the_next_transaction_keeps_no_connection => next_transaction;
    what_waits_for_the_next_transaction_outlives_an_error => next_transaction_over_errors;
}

/// With autocommit off a statement that fails has begun a transaction, although its ERR cannot say
/// so: its snapshot and its locks are nobody else's.
async fn failed_statement(server: &Server) {
    server.database("t_trx1");
    server.root(
        "CREATE TABLE t_trx1.t (a INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t_trx1.t VALUES (1)",
    );
    let sidepool = Sidepool::sharing(server, 2);
    let mut a = client_in(&sidepool, USER, "t_trx1").await;
    let mut b = client_in(&sidepool, USER, "t_trx1").await;
    for client in [&mut a, &mut b] {
        client.run("SET autocommit = 0").await;
    }
    let error = a
        .query("SELECT a + (SELECT 1 UNION SELECT 2) FROM t")
        .await
        .err();
    assert_eq!(error.code, 1242);
    server.root("INSERT INTO t_trx1.t VALUES (2)");
    // A stranger's first read sees what is committed by now.
    assert_eq!(value(&mut b, "SELECT COUNT(*) FROM t").await, "2");
    // And the session has kept its snapshot, if its failed statement took one.
    let direct = direct_count(server).await;
    assert_eq!(value(&mut a, "SELECT COUNT(*) FROM t").await, direct);
}

/// What a dedicated connection counts after the same statements.
async fn direct_count(server: &Server) -> String {
    let address = server.address();
    let mut wire = crate::support::wire::Wire::connect(&crate::support::wire::Login {
        database: Some("t_trx1"),
        ..crate::support::wire::Login::to(&address)
    })
    .await
    .unwrap();
    server.root("DELETE FROM t_trx1.t WHERE a = 2");
    wire.run("SET autocommit = 0").await;
    wire.query("SELECT a + (SELECT 1 UNION SELECT 2) FROM t")
        .await
        .err();
    server.root("INSERT INTO t_trx1.t VALUES (2)");
    value(&mut wire, "SELECT COUNT(*) FROM t").await
}

async fn locks_go(server: &Server) {
    server.database("t_trx2");
    server.root(
        "CREATE TABLE t_trx2.t (a INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t_trx2.t VALUES (1)",
    );
    let sidepool = Sidepool::sharing(server, 2);
    let mut a = client_in(&sidepool, USER, "t_trx2").await;
    a.run("SET autocommit = 0").await;
    // The duplicate's row stays locked although the statement is undone.
    assert_eq!(a.query("INSERT INTO t VALUES (1)").await.err().code, 1062);
    a.run("ROLLBACK").await;
    let mut b = client_in(&sidepool, USER, "t_trx2").await;
    b.run("SET innodb_lock_wait_timeout = 1").await;
    b.run("UPDATE t SET a = 3 WHERE a = 1").await;
    assert_eq!(value(&mut b, "SELECT a FROM t").await, "3");
    // Left without a rollback, the locks go when the session does.
    assert_eq!(a.query("INSERT INTO t VALUES (3)").await.err().code, 1062);
    drop(a);
    crate::support::eventually("the row is free", async || {
        matches!(
            b.query("UPDATE t SET a = 4 WHERE a = 3").await,
            crate::support::wire::Reply::Ok(_)
        )
    })
    .await;
}

/// `SET TRANSACTION` waits for the session's own next transaction, on whatever connection it runs, and
/// its connection serves others meanwhile.
async fn next_transaction(server: &Server) {
    server.database("t_trx3");
    server.root("CREATE TABLE t_trx3.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = client_in(&sidepool, USER, "t_trx3").await;
    let mut b = client_in(&sidepool, USER, "t_trx3").await;
    for completion in ["NO_CHAIN", "CHAIN"] {
        a.run(&format!("SET completion_type = {completion}")).await;
        a.run("SET TRANSACTION READ ONLY").await;
        // Nobody is in a transaction, so the one connection is free, and as others know it.
        b.run("INSERT INTO t VALUES (1)").await;
        a.run("SET time_zone = '+01:00'").await;
        b.run("BEGIN").await;
        b.run("INSERT INTO t VALUES (2)").await;
        b.run("COMMIT").await;
        a.run("START TRANSACTION").await;
        assert_eq!(a.query("INSERT INTO t VALUES (3)").await.err().code, 1792);
        a.run("COMMIT AND NO CHAIN").await;
        a.run("INSERT INTO t VALUES (4)").await;
        a.run("COMMIT AND NO CHAIN").await;
    }
    assert_eq!(value(&mut b, "SELECT COUNT(*) FROM t").await, "6");
    assert_eq!(sidepool.metric("sidepool_session_pins_total", ""), 0.0);
}

/// It also waits over an error, and not over what ends it or begins the session anew.
async fn next_transaction_over_errors(server: &Server) {
    server.database("t_trx4");
    server.root("CREATE TABLE t_trx4.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = client_in(&sidepool, USER, "t_trx4").await;
    let mut b = client_in(&sidepool, USER, "t_trx4").await;
    for (end, refused) in [("SELECT nothing", true), ("COMMIT", false), ("", false)] {
        a.run("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
        a.run("SET TRANSACTION READ ONLY").await;
        if end.is_empty() {
            a.command(31, b"").await;
            a.read_reply().await.ok();
        } else {
            a.query(end).await;
        }
        b.run("INSERT INTO t VALUES (1)").await;
        a.run("BEGIN").await;
        let reply = a.query("INSERT INTO t_trx4.t VALUES (2)").await;
        assert_eq!(matches!(reply, Reply::Err(_)), refused, "behind {end:?}");
        a.run("ROLLBACK").await;
    }
}
