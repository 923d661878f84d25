//! What is answered by Sidepool instead of pinning, compared with a direct connection.

use super::*;
use crate::support::wire::Login;

on_every_server! {
    the_connection_id_is_that_of_the_greeting => connection_id;
    found_rows_are_counted => found_rows;
    diagnostics_are_told_in_other_forms => diagnostics;
}

/// A connection to the server itself.
async fn direct(server: &Server, database: &str) -> Wire {
    let address = server.address();
    let login = Login {
        database: Some(database),
        ..Login::to(&address)
    };
    Wire::connect(&login).await.unwrap()
}

/// Columns and rows, or the error's number.
fn shown(reply: Reply) -> String {
    match reply {
        Reply::Rows { columns, rows, end } => format!("{columns:?} {rows:?} {}", end.warnings),
        Reply::Err(error) => error.code.to_string(),
        other => format!("{other:?}"),
    }
}

async fn connection_id(server: &Server) {
    let sidepool = prepared(server, "t_up_cid");
    let mut a = client_in(&sidepool, USER, "t_up_cid").await;
    let mut b = client_in(&sidepool, USER, "t_up_cid").await;
    let mut direct = direct(server, "t_up_cid").await;
    let id = a.thread_id.to_string();
    assert!(a.thread_id >= 1 << 31);
    let own = direct.thread_id.to_string();
    for sql in [
        "SELECT CONNECTION_ID()",
        "select connection_id ( ) ;",
        "SELECT CONNECTION_ID() AS id",
        "SELECT CONNECTION_ID() AS `my id`",
        "SELECT CONNECTION_ID() thread_id",
        "SELECT @@pseudo_thread_id",
        "SELECT @@session.pseudo_thread_id AS id",
    ] {
        let (
            Reply::Rows { columns, rows, .. },
            Reply::Rows {
                columns: theirs,
                rows: own_rows,
                ..
            },
        ) = (a.query(sql).await, direct.query(sql).await)
        else {
            panic!("no rows: {sql}");
        };
        assert_eq!(columns, theirs, "{sql}");
        assert_eq!(rows[0][0].as_deref(), Some(id.as_bytes()), "{sql}");
        assert_eq!(own_rows[0][0].as_deref(), Some(own.as_bytes()), "{sql}");
    }
    assert!(is_free(&mut b).await);
    // The same in a transaction, and what looks back at it.
    for sql in [
        "BEGIN",
        "SELECT 1 + '1x'",
        "SELECT CONNECTION_ID() AS id",
        "SELECT ROW_COUNT()",
        "SHOW WARNINGS",
        "UPDATE t SET b = b + 1",
        "SELECT @@pseudo_thread_id",
        "SELECT ROW_COUNT()",
        "COMMIT",
    ] {
        let (ours, theirs) = (a.query(sql).await, direct.query(sql).await);
        if !sql.contains("CONNECTION") && !sql.contains("pseudo") && !sql.starts_with("UPDATE") {
            assert_eq!(shown(ours), shown(theirs), "{sql}");
        }
        if sql.starts_with("UPDATE") {
            direct.run("ROLLBACK").await;
            direct.run("BEGIN").await;
        }
    }
    kill_and_inner(&sidepool, a, b).await;
}

/// What the id is good for, and what it is within something else.
async fn kill_and_inner(sidepool: &Sidepool, mut a: Wire, mut b: Wire) {
    let id = a.thread_id;
    let killed = format!("KILL {id}");
    b.run(&killed).await;
    assert_eq!(a.query("SELECT 1").await.err().code, 1927);
    // One that it has given itself is the server's affair, others are not.
    b.run("SET timestamp = 5").await;
    let own = b.thread_id.to_string();
    assert_eq!(value(&mut b, "SELECT CONNECTION_ID()").await, own);
    b.run("SET timestamp = DEFAULT").await;
    // Within something else it is the server's, and stays.
    let mut c = client_in(sidepool, USER, "t_up_cid").await;
    let inner = value(&mut c, "SELECT CONNECTION_ID() + 0").await;
    assert!(!is_free(&mut b).await);
    assert_eq!(value(&mut c, "SELECT CONNECTION_ID() + 0").await, inner);
    assert_ne!(inner, c.thread_id.to_string());
}

async fn found_rows(server: &Server) {
    let sidepool = prepared(server, "t_up_fnd");
    let mut a = client_in(&sidepool, USER, "t_up_fnd").await;
    let mut b = client_in(&sidepool, USER, "t_up_fnd").await;
    let mut direct = direct(server, "t_up_fnd").await;
    // The first time by the connection of the statement before.
    a.run("SELECT a FROM t").await;
    assert_eq!(value(&mut a, "SELECT FOUND_ROWS()").await, "3");
    let statements = [
        "SELECT a FROM t",
        "SELECT a FROM t LIMIT 2",
        "SELECT a FROM t WHERE a IN (1, 2)",
        "SELECT a FROM t WHERE 0",
        "SELECT a FROM t LIMIT 0",
        "SELECT DISTINCT b > 1 FROM t ORDER BY 1 LIMIT 1",
        "SELECT b, COUNT(*) FROM t GROUP BY b",
        "SELECT * FROM t x JOIN t y LIMIT 7",
        "SELECT (SELECT MIN(a) FROM t), b FROM t",
        "SELECT FOUND_ROWS()",
        "SELECT ROW_COUNT()",
    ];
    for sql in statements {
        a.query(sql).await;
        if is_mariadb(server) {
            assert!(is_free(&mut b).await, "pinned behind {sql}");
        }
        direct.run(sql).await;
        let ours = shown(a.query("SELECT FOUND_ROWS() AS n").await);
        let theirs = shown(direct.query("SELECT FOUND_ROWS() AS n").await);
        if is_mariadb(server) || ours != "1235" {
            assert_eq!(ours, theirs, "{sql}");
        }
    }
    // Where the number is not sure, it comes from the connection or not at all.
    for sql in [
        "SELECT MIN(a) FROM t WHERE a = 999",
        "SELECT a FROM t LIMIT 1, 1",
        "(SELECT 1 UNION SELECT 2) LIMIT 1",
        "SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1",
        "UPDATE t SET b = b",
        "SHOW TABLES",
    ] {
        for connection in [&mut a, &mut direct] {
            connection.run("SELECT a FROM t LIMIT 2").await;
            connection.run(sql).await;
        }
        let _ = is_free(&mut b).await;
        let ours = shown(a.query("SELECT FOUND_ROWS() AS n").await);
        let theirs = shown(direct.query("SELECT FOUND_ROWS() AS n").await);
        assert!(ours == theirs || ours == "1235", "{sql}: {ours} {theirs}");
    }
}

async fn diagnostics(server: &Server) {
    let sidepool = prepared(server, "t_up_dia");
    let mut a = client_in(&sidepool, USER, "t_up_dia").await;
    let mut b = client_in(&sidepool, USER, "t_up_dia").await;
    let mut direct = direct(server, "t_up_dia").await;
    for sql in [
        "SHOW WARNINGS LIMIT 1",
        "SHOW WARNINGS LIMIT 1, 5",
        "SHOW WARNINGS LIMIT 1 OFFSET 9",
        "SHOW ERRORS LIMIT 1",
        "SELECT @@warning_count",
        "SELECT @@session.warning_count AS n",
        "SELECT @@error_count",
        "SHOW COUNT(*) WARNINGS",
    ] {
        for connection in [&mut a, &mut direct] {
            connection
                .run("SELECT '1x' + 0, '2x' + 0 FROM t LIMIT 1")
                .await;
        }
        assert!(is_free(&mut b).await, "the connection goes back");
        for next in [sql, "SHOW WARNINGS", "SELECT ROW_COUNT()"] {
            let (ours, theirs) = (a.query(next).await, direct.query(next).await);
            assert_eq!(shown(ours), shown(theirs), "{next} behind {sql}");
        }
        assert!(is_free(&mut b).await, "pinned behind {sql}");
    }
    assert_eq!(sidepool.metric("sidepool_session_pins_total", ""), 0.0);
}
