//! Reasons that end with a statement of the client's.

use super::*;

on_every_server! {
    the_last_temporary_table_dropped_unpins => temporary_tables;
    the_last_handler_closed_unpins => handlers;
    user_level_locks_unpin_when_none_is_held => user_locks;
    global_locks_unpin_with_their_own_ends => global_locks;
    variables_set_back_unpin => variables;
    table_locks_unpin => locked_tables;
    savepoints_hold => savepoints;
    counts_and_diagnostics_unpin_behind_the_next_statement => counts;
    what_a_function_makes_is_not_forgotten => functions;
    a_large_statement_pins_by_what_is_in_it => large;
}

async fn temporary_tables(server: &Server) {
    let sidepool = prepared(server, "t_up_tmp");
    let mut a = client_in(&sidepool, USER, "t_up_tmp").await;
    let mut b = client_in(&sidepool, USER, "t_up_tmp").await;
    let steps = [
        ("CREATE TEMPORARY TABLE x (a INT)", "+"),
        (
            "CREATE TEMPORARY TABLE IF NOT EXISTS t_up_tmp.y AS SELECT * FROM t",
            "+",
        ),
        ("INSERT INTO x VALUES (1)", "+"),
        ("ALTER TABLE x ADD b INT", "+"),
        ("DROP TABLE x", "+"),
        ("SELECT * FROM y", "+"),
        ("DROP TEMPORARY TABLE IF EXISTS `t_up_tmp`.`y`", "-"),
        ("SELECT * FROM y", "x-"),
        // Renamed, and dropped by two at once.
        ("CREATE TEMPORARY TABLE x (a INT)", "+"),
        ("CREATE TEMPORARY TABLE t (a INT)", "+"),
        ("ALTER TABLE x RENAME TO z", "+"),
        ("DROP TABLE t, z", "-"),
        ("SELECT COUNT(*) FROM t", "-"),
        // What fails makes none, and drops perhaps none.
        (
            "CREATE TEMPORARY TABLE x (a INT PRIMARY KEY) SELECT 1 AS a UNION ALL SELECT 1",
            "x-",
        ),
        ("CREATE TEMPORARY TABLE nowhere.x (a INT)", "x-"),
        ("CREATE TEMPORARY TABLE x (a INT)", "+"),
        ("DROP TABLE x, missing", "x+"),
        ("DROP TABLE IF EXISTS x", "-"),
        ("DROP TEMPORARY TABLE IF EXISTS missing", "-"),
        // In one text.
        (
            "CREATE TEMPORARY TABLE x (a INT); SELECT 1; DROP TABLE x",
            "-",
        ),
        ("CREATE TABLE w (temporary INT)", "-"),
        ("nonsense; CREATE TEMPORARY TABLE x (a INT)", "x-"),
        ("CREATE /*!50000 TEMPORARY */ TABLE x (a INT)", "+"),
        ("DROP TABLE x", "+"),
    ];
    follow(&sidepool, &mut a, &mut b, &steps).await;
    a.quit().await;
    // What stands in front of a syntax error has run.
    let mut c = client_in(&sidepool, USER, "t_up_tmp").await;
    let steps = [
        ("CREATE TEMPORARY TABLE x (a INT); nonsense", "x+"),
        ("DROP TABLE x; nonsense", "x+"),
    ];
    follow(&sidepool, &mut c, &mut b, &steps).await;
}

async fn handlers(server: &Server) {
    let sidepool = prepared(server, "t_up_hdl");
    let mut a = client_in(&sidepool, USER, "t_up_hdl").await;
    let mut b = client_in(&sidepool, USER, "t_up_hdl").await;
    let steps = [
        ("HANDLER t OPEN", "+"),
        ("HANDLER t_up_hdl.t OPEN AS h", "+"),
        ("HANDLER t READ FIRST", "+"),
        ("HANDLER t CLOSE", "+"),
        ("HANDLER h READ FIRST", "+"),
        ("HANDLER h CLOSE", "-"),
        ("HANDLER h READ FIRST", "x-"),
        ("HANDLER missing OPEN", "x-"),
        ("FLUSH TABLES WITH READ LOCK", "x-"),
        ("HANDLER t OPEN, AS", "x-"),
    ];
    follow(&sidepool, &mut a, &mut b, &steps).await;
}

async fn user_locks(server: &Server) {
    let sidepool = prepared(server, "t_up_lck");
    let mut a = client_in(&sidepool, USER, "t_up_lck").await;
    let mut b = client_in(&sidepool, USER, "t_up_lck").await;
    let mut root = crate::support::clients::root(server).await;
    let steps = [
        ("SELECT GET_LOCK('up_a', 0)", "+"),
        ("SELECT GET_LOCK('up_a', 0), GET_LOCK('up_b', 0)", "+"),
        ("SELECT RELEASE_LOCK('up_a')", "+"),
        ("SELECT RELEASE_LOCK('up_b')", "+"),
        ("DO RELEASE_LOCK('up_a')", "-"),
        (
            "SELECT GET_LOCK('up_a', 0); SELECT RELEASE_LOCK('up_a')",
            "-",
        ),
        // A name that only the server knows.
        ("SELECT GET_LOCK(CONCAT('up_', 'c'), 0)", "+"),
        ("SELECT RELEASE_LOCK('up_c')", "+"),
        ("SELECT RELEASE_ALL_LOCKS()", "-"),
    ];
    follow(&sidepool, &mut a, &mut b, &steps).await;
    // One that somebody else has is not obtained.
    root.run("SELECT GET_LOCK('up_other', 0)").await;
    follow(
        &sidepool,
        &mut a,
        &mut b,
        &[("SELECT GET_LOCK('up_other', 0)", "-")],
    )
    .await;
    // What the statement counted is not what was asked behind it.
    a.run("DO GET_LOCK('up_a', 0)").await;
    a.run("DO RELEASE_LOCK('up_a') + GET_LOCK('up_d', 0)").await;
    assert_eq!(value(&mut a, "SELECT ROW_COUNT()").await, "0");
    assert_eq!(value(&mut root, "SELECT IS_FREE_LOCK('up_d')").await, "0");
    follow(
        &sidepool,
        &mut a,
        &mut b,
        &[("DO RELEASE_ALL_LOCKS()", "-")],
    )
    .await;
    assert_eq!(value(&mut root, "SELECT IS_FREE_LOCK('up_d')").await, "1");
}

async fn global_locks(server: &Server) {
    // Of its own: such locks are everybody's.
    let server = &Server::start(server.make, &[]);
    server.root("GRANT ALL ON *.* TO 'app'@'%'");
    let sidepool = prepared(server, "t_up_glb");
    let mut a = client_in(&sidepool, USER, "t_up_glb").await;
    let mut b = client_in(&sidepool, USER, "t_up_glb").await;
    let steps = [
        ("FLUSH TABLES WITH READ LOCK", "+"),
        ("UNLOCK TABLES", "-"),
        ("FLUSH TABLES t FOR EXPORT", "+"),
        ("UNLOCK TABLES", "-"),
        ("FLUSH TABLES t WITH READ LOCK", "+"),
        ("UNLOCK TABLES", "-"),
    ];
    follow(&sidepool, &mut a, &mut b, &steps).await;
    let own: &[_] = match is_mariadb(server) {
        true => &[
            ("BACKUP STAGE START", "+"),
            ("BACKUP STAGE FLUSH", "+"),
            ("BACKUP STAGE END", "-"),
            ("BACKUP LOCK t", "+"),
            ("BACKUP UNLOCK", "-"),
        ],
        false => &[("LOCK INSTANCE FOR BACKUP", "+"), ("UNLOCK INSTANCE", "-")],
    };
    follow(&sidepool, &mut a, &mut b, own).await;
}

async fn variables(server: &Server) {
    let server = &Server::start(server.make, &[]);
    server.root("GRANT ALL ON *.* TO 'app'@'%'");
    let sidepool = prepared(server, "t_up_var");
    let mut a = client_in(&sidepool, USER, "t_up_var").await;
    let mut b = client_in(&sidepool, USER, "t_up_var").await;
    let steps = [
        ("SET timestamp = 1000000", "+"),
        ("SELECT NOW()", "+"),
        ("SET timestamp = DEFAULT", "-"),
        ("SET @@session.timestamp = 5.5", "+"),
        ("SET timestamp = 0, time_zone = '+01:00'", "-"),
        ("SET sql_log_bin = 0", "+"),
        ("INSERT INTO t VALUES (9, 9)", "+"),
        ("SET SESSION sql_log_bin = 1", "-"),
        ("SET sql_log_bin = 0, timestamp = 5", "+"),
        ("SET sql_log_bin = 1", "+"),
        ("SET timestamp = 0", "-"),
    ];
    follow(&sidepool, &mut a, &mut b, &steps).await;
    assert_eq!(value(&mut a, "SELECT @@time_zone").await, "+01:00");
    assert_eq!(
        value(
            &mut b,
            "SELECT ABS(UNIX_TIMESTAMP() - UNIX_TIMESTAMP(SYSDATE())) < 5"
        )
        .await,
        "1"
    );
}

async fn locked_tables(server: &Server) {
    let sidepool = prepared(server, "t_up_ltb");
    let mut a = client_in(&sidepool, USER, "t_up_ltb").await;
    let mut b = client_in(&sidepool, USER, "t_up_ltb").await;
    let steps = [
        ("LOCK TABLES t WRITE", "+"),
        ("UPDATE t SET b = 4", "+"),
        ("UNLOCK TABLES", "-"),
    ];
    follow(&sidepool, &mut a, &mut b, &steps).await;
}

/// With autocommit off nothing shows a transaction that begins with a savepoint; it is one all the same, and no pin.
async fn savepoints(server: &Server) {
    let sidepool = prepared(server, "t_up_sav");
    let mut a = client_in(&sidepool, USER, "t_up_sav").await;
    let mut b = client_in(&sidepool, USER, "t_up_sav").await;
    let steps = [
        ("SAVEPOINT s", "-"),
        ("SET autocommit = 0", "-"),
        ("ROLLBACK TO SAVEPOINT s", "x-"),
        ("SAVEPOINT s", "h"),
        ("SELECT 1", "h"),
        ("UPDATE t SET b = 5", "h"),
        ("ROLLBACK TO SAVEPOINT s", "h"),
        ("ROLLBACK TO SAVEPOINT s", "h"),
        ("nonsense", "xh"),
        ("COMMIT", "-"),
        ("SELECT SUM(b) FROM t", "h"),
        ("SAVEPOINT s", "h"),
        ("ROLLBACK", "-"),
        ("COMMIT; SAVEPOINT s", "h"),
        ("SET autocommit = 1", "-"),
        ("SET autocommit = 0; SAVEPOINT s; SELECT nonsense", "xh"),
        ("ROLLBACK", "-"),
    ];
    follow(&sidepool, &mut a, &mut b, &steps).await;
    assert_eq!(value(&mut a, "SELECT SUM(b) FROM t").await, "6");
    a.run("ROLLBACK").await;
    server.routine("CREATE PROCEDURE t_up_sav.p() SAVEPOINT s");
    if is_mariadb(server) {
        let steps = [
            ("CALL p()", "h"),
            ("ROLLBACK TO SAVEPOINT s", "h"),
            ("ROLLBACK", "-"),
        ];
        follow(&sidepool, &mut a, &mut b, &steps).await;
    }
    for sql in ["SAVEPOINT s_left", "SAVEPOINT s_reset"] {
        follow(&sidepool, &mut a, &mut b, &[(sql, "h")]).await;
        match sql {
            "SAVEPOINT s_left" => a.quit().await,
            _ => a.command(0x1f, b"").await,
        }
        eventually("free", async || is_free(&mut b).await).await;
        b.run("SET autocommit = 0").await;
        let error = b.query(&sql.replace("SAVE", "ROLLBACK TO SAVE")).await;
        assert_eq!(error.err().code, 1305);
        b.run("SET autocommit = 1").await;
        a = client_in(&sidepool, USER, "t_up_sav").await;
        a.run("SET autocommit = 0").await;
    }
}

async fn counts(server: &Server) {
    let sidepool = prepared(server, "t_up_cnt");
    let mut a = client_in(&sidepool, USER, "t_up_cnt").await;
    let mut b = client_in(&sidepool, USER, "t_up_cnt").await;
    let steps = [
        ("SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1", "+"),
        ("SELECT FOUND_ROWS()", "-"),
        ("SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1", "+"),
        ("SELECT 1", "-"),
        // Asked in a form that only the connection can answer, too late the first time.
        ("SELECT '1x' + 0 FROM t LIMIT 1", "-"),
        ("SELECT @@warning_count + 0", "x-"),
        ("SELECT '1x' + 0 FROM t LIMIT 1", "+"),
        ("SELECT COUNT(*) FROM t", "-"),
    ];
    follow(&sidepool, &mut a, &mut b, &steps).await;
    let mut c = client_in(&sidepool, USER, "t_up_cnt").await;
    c.run("BEGIN").await;
    c.run("SELECT GET_LOCK('up_trx', 0)").await;
    c.run("DO RELEASE_LOCK('up_trx')").await;
    assert!(!is_free(&mut b).await);
    follow(&sidepool, &mut c, &mut b, &[("COMMIT", "-")]).await;
}

/// A temporary table that a function makes has no name here.
async fn functions(server: &Server) {
    let sidepool = prepared(server, "t_up_fun");
    server.routine(
        "CREATE FUNCTION t_up_fun.f() RETURNS INT READS SQL DATA BEGIN \
         CREATE TEMPORARY TABLE IF NOT EXISTS t_up_fun.hidden (a INT); RETURN 1; END",
    );
    let mut a = client_in(&sidepool, USER, "t_up_fun").await;
    let mut b = client_in(&sidepool, USER, "t_up_fun").await;
    let steps = [
        ("CREATE TEMPORARY TABLE x (a INT)", "+"),
        ("SELECT f()", "+"),
        ("DROP TABLE x", "+"),
    ];
    follow(&sidepool, &mut a, &mut b, &steps).await;
    a.command(0x1f, b"").await;
    a.read_reply().await.ok();
    follow(&sidepool, &mut a, &mut b, &[("SELECT f()", "+")]).await;
    let label = "reason=\"unknown_state\"";
    assert_eq!(sidepool.metric("sidepool_session_pins_total", label), 1.0);
    a.command(0x1f, b"").await;
    a.read_reply().await.ok();
    follow(&sidepool, &mut a, &mut b, &[("SELECT * FROM hidden", "x-")]).await;
    assert_eq!(b.query("SELECT * FROM hidden").await.err().code, 1146);
}

/// 16 MiB and more: streamed, and looked at on the way.
async fn large(server: &Server) {
    let sidepool = prepared(server, "t_up_lrg");
    let mut a = client_in(&sidepool, USER, "t_up_lrg").await;
    let mut b = client_in(&sidepool, USER, "t_up_lrg").await;
    let filler = "x".repeat(17 << 20);
    let plain = format!("SELECT LENGTH('{filler}')");
    assert_eq!(value(&mut a, &plain).await, (17 << 20).to_string());
    let insert = format!("INSERT INTO t SELECT 7, LENGTH('{filler}')");
    a.run(&insert).await;
    eventually("free", async || is_free(&mut b).await).await;
    assert_eq!(sidepool.metric("sidepool_session_pins_total", ""), 0.0);
    // What stands behind it is seen.
    let variable = format!("SELECT LENGTH('{filler}'), @up := 5");
    a.run(&variable).await;
    assert!(!is_free(&mut b).await);
    assert_eq!(value(&mut a, "SELECT @up").await, "5");
    let label = "reason=\"large_statement\"";
    assert_eq!(sidepool.metric("sidepool_session_pins_total", label), 1.0);
    a.quit().await;
    eventually("free", async || is_free(&mut b).await).await;
    assert_eq!(value(&mut b, "SELECT @up").await, "NULL");
}
