//! Statements that are prepared again: under the state they were prepared in, and whatever happened since.

use super::*;
use crate::support::clients::{account, root};

on_every_server! {
    a_statement_keeps_the_database_it_was_prepared_in => database;
    a_statement_keeps_the_modes_it_was_prepared_in => modes;
    a_statement_prepared_without_a_database => nowhere;
    within_a_transaction => transactions;
    a_database_or_table_that_is_gone => gone;
    a_connection_that_died_idle => killed;
    a_changed_user_has_none => changed;
}

async fn database(server: &Server) {
    for name in ["t_ps_db1", "t_ps_db2"] {
        server.database(name);
        server.root(&format!(
            "CREATE TABLE {name}.t (a VARCHAR(9)); INSERT INTO {name}.t VALUES ('{name}')"
        ));
    }
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_db1")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_db2")).await;
    a.run("PREPARE s FROM 'SELECT a, DATABASE() FROM t'").await;
    b.run("PREPARE s FROM 'SELECT a, DATABASE() FROM t'").await;
    a.run("USE t_ps_db2").await;
    for _ in 0..2 {
        assert_eq!(a.text("EXECUTE s").await, "t_ps_db1");
        assert_eq!(b.text("EXECUTE s").await, "t_ps_db2");
        assert_eq!(a.text("SELECT DATABASE()").await, "t_ps_db2");
    }
    // In the middle of a transaction in which the database was changed.
    b.run("BEGIN").await;
    b.run("USE t_ps_db1").await;
    b.run("PREPARE r FROM 'SELECT a FROM t'").await;
    b.run("USE t_ps_db2").await;
    assert_eq!(b.text("EXECUTE r").await, "t_ps_db1");
    b.run("COMMIT").await;
    a.run("EXECUTE s").await;
    assert_eq!(b.text("EXECUTE r").await, "t_ps_db1");
    assert_eq!(b.text("EXECUTE s").await, "t_ps_db2");
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn modes(server: &Server) {
    server.database("t_ps_mode");
    server.root("CREATE TABLE t_ps_mode.t (a VARCHAR(9)); INSERT INTO t_ps_mode.t VALUES ('x')");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_mode")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_mode")).await;
    let settings = [
        ("sql_mode", "'ANSI_QUOTES'", "''", "SELECT \"a\" FROM t"),
        ("sql_mode", "'PIPES_AS_CONCAT'", "''", "SELECT 1 || 2"),
        (
            "sql_mode",
            "'NO_BACKSLASH_ESCAPES'",
            "''",
            "SELECT LENGTH(''\\n'')",
        ),
        (
            "collation_connection",
            "utf8mb4_bin",
            "utf8mb4_general_ci",
            "SELECT ''a'' = ''A''",
        ),
        ("div_precision_increment", "9", "4", "SELECT 1 / 3"),
        (
            "lc_time_names",
            "'de_DE'",
            "'en_US'",
            "SELECT DAYNAME(''2020-01-01'')",
        ),
        (
            "group_concat_max_len",
            "4",
            "1024",
            "SELECT GROUP_CONCAT(REPEAT(a, 9)) FROM t",
        ),
    ];
    for (variable, first, then, text) in settings {
        a.run(&format!("SET {variable} = {first}")).await;
        a.run(&format!("PREPARE s FROM '{text}'")).await;
        a.run("PREPARE r FROM 'SELECT 1'").await;
        a.run(&format!("SET {variable} = {then}")).await;
        a.run(&format!("PREPARE t FROM '{text}'")).await;
        for _ in 0..2 {
            a.same("EXECUTE s").await;
            a.same("EXECUTE t").await;
            for name in ["s", "t", "r"] {
                b.run(&format!("PREPARE {name} FROM 'SELECT 7'")).await;
            }
            a.run("EXECUTE r").await;
            a.same(&format!("SELECT @@{variable}")).await;
        }
    }
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn nowhere(server: &Server) {
    server.database("t_ps_nowhere");
    server.root("CREATE TABLE t_ps_nowhere.t (a INT); INSERT INTO t_ps_nowhere.t VALUES (5)");
    let sidepool = Sidepool::sharing(server, 2);
    let mut a = Both::connect(server, &sidepool, None).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_nowhere")).await;
    a.run("PREPARE s FROM 'SELECT a FROM t_ps_nowhere.t'").await;
    b.run("PREPARE s FROM 'SELECT 1'").await;
    assert_eq!(a.text("EXECUTE s").await, "5");
    a.run("USE t_ps_nowhere").await;
    b.run("EXECUTE s").await;
    assert_eq!(a.text("EXECUTE s").await, "5");
    assert_eq!(pins(&sidepool, ""), 0.0);

    let mut c = Both::connect(server, &sidepool, None).await;
    c.run("PREPARE s FROM 'SELECT DATABASE()'").await;
    wait_pins(&sidepool, "prepared_statement", 1.0);
    c.run("USE t_ps_nowhere").await;
    c.run("EXECUTE s").await;
    c.run("DEALLOCATE PREPARE s").await;
    wait_pinned(&sidepool, 0.0);
}

async fn transactions(server: &Server) {
    server.database("t_ps_trx");
    server.root("CREATE TABLE t_ps_trx.t (a INT PRIMARY KEY) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 2);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_trx")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_trx")).await;
    a.run("PREPARE i FROM 'INSERT INTO t SELECT COALESCE(MAX(a), 0) + 1 FROM t'")
        .await;
    a.run("PREPARE n FROM 'SELECT COUNT(*) FROM t'").await;
    a.run("PREPARE r FROM 'ROLLBACK'").await;
    b.run("PREPARE i FROM 'SELECT 1'").await;
    b.run("PREPARE n FROM 'SELECT 2'").await;
    for begin in ["BEGIN", "SET autocommit = 0"] {
        a.direct.run("DELETE FROM t").await;
        a.direct.run("COMMIT").await;
        a.through.run(begin).await;
        a.through.run("EXECUTE i").await;
        assert_eq!(a.through.query("EXECUTE n").await.text(), "1");
        assert_eq!(b.text("EXECUTE n").await, "2");
        let error = a.through.query("INSERT INTO t VALUES (1)").await.err();
        assert_eq!(error.code, 1062);
        assert_eq!(b.text("EXECUTE i").await, "1");
        a.through.run("EXECUTE i").await;
        assert_eq!(a.through.query("EXECUTE n").await.text(), "2");
        a.through.run("EXECUTE r").await;
        assert_eq!(b.text("EXECUTE n").await, "2");
        assert_eq!(a.through.query("EXECUTE n").await.text(), "0");
        a.through.run("ROLLBACK").await;
    }
    a.through.run("SET autocommit = 1").await;
    // What waits for the next transaction is not used up, and not lost.
    for wire in [&mut a.direct, &mut a.through] {
        wire.run("SET TRANSACTION READ ONLY").await;
        wire.run("EXECUTE n").await;
        wire.run("SET TRANSACTION READ ONLY").await;
        wire.run("BEGIN").await;
        assert_eq!(wire.query("EXECUTE i").await.err().code, 1792);
        wire.run("ROLLBACK").await;
    }
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn gone(server: &Server) {
    server.database("t_ps_left");
    server.database("t_ps_lost");
    server.root("CREATE TABLE t_ps_lost.t (a INT)");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_lost")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_left")).await;
    a.run("PREPARE s FROM 'SELECT a FROM t'").await;
    a.run("USE t_ps_left").await;
    b.run("PREPARE s FROM 'SELECT 1'").await;
    server.root("DROP TABLE t_ps_lost.t");
    assert_eq!(a.code("EXECUTE s").await, 1146);
    assert_eq!(b.text("EXECUTE s").await, "1");
    assert_eq!(a.text("SELECT DATABASE()").await, "t_ps_left");
    server.root("CREATE TABLE t_ps_lost.t (a INT, b INT)");
    a.run("EXECUTE s").await;
    a.run("BEGIN").await;
    server.root("ALTER TABLE t_ps_lost.t DROP COLUMN a");
    assert_eq!(a.code("EXECUTE s").await, 1054);
    a.run("ROLLBACK").await;
    b.run("EXECUTE s").await;
    server.root("DROP DATABASE t_ps_lost");
    // MariaDB names the table, and another error.
    let error = a.through.query("EXECUTE s").await.err();
    assert!(matches!(error.code, 1049 | 1146), "{error:?}");
    assert_eq!(a.text("SELECT DATABASE()").await, "t_ps_left");
    assert_eq!(b.text("EXECUTE s").await, "1");
    server.database("t_ps_lost");
    server.root("CREATE TABLE t_ps_lost.t (a INT)");
    a.run("EXECUTE s").await;
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn killed(server: &Server) {
    server.database("t_ps_killed");
    account(server, "ps_killed");
    let sidepool = Sidepool::sharing(server, 1);
    let address = sidepool.address();
    let login = Login {
        user: "ps_killed",
        database: Some("t_ps_killed"),
        ..Login::to(&address)
    };
    let mut client = Wire::connect(&login).await.unwrap();
    let mut admin = root(server).await;
    client.run("PREPARE s FROM 'SELECT 1'").await;
    let threads = "SELECT id FROM information_schema.processlist WHERE user = 'ps_killed'";
    for _ in 0..2 {
        for row in admin.query(threads).await.rows() {
            let id = String::from_utf8(row[0].clone().unwrap()).unwrap();
            admin.query(&format!("KILL {id}")).await;
        }
        assert_eq!(client.query("EXECUTE s").await.text(), "1");
    }
    client.run("DEALLOCATE PREPARE s").await;
    assert_eq!(client.query("EXECUTE s").await.err().code, 1243);
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn changed(server: &Server) {
    server.database("t_ps_user");
    account(server, "ps_user");
    let sidepool = Sidepool::sharing(server, 2);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_user")).await;
    a.run("PREPARE s FROM 'SELECT 1'").await;
    for wire in [&mut a.direct, &mut a.through] {
        let password = crate::support::servers::PASSWORD;
        wire.change_user("ps_user", password).await.unwrap();
    }
    assert_eq!(a.code("EXECUTE s").await, 1243);
    a.run("PREPARE s FROM 'SELECT 2'").await;
    assert_eq!(a.text("EXECUTE s").await, "2");
    assert_eq!(pins(&sidepool, ""), 0.0);
}
