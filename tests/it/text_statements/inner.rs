//! What the text of a prepared statement does is done by its `EXECUTE`.

use super::*;

on_every_server! {
    settings_made_by_a_prepared_statement_are_carried => settings;
    what_pins_pins_when_it_is_executed => pinning;
    inserts_and_their_ids => inserts;
    warnings_are_those_of_the_statement => warnings;
    errors_within => errors;
    routines_prepare_and_execute => routines;
    immediate_execution => immediate;
}

async fn settings(server: &Server) {
    server.database("t_ps_set");
    server.database("t_ps_set2");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_set")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_set")).await;
    let show = "SELECT @@sql_mode, @@time_zone, @@autocommit, DATABASE()";
    // The same text does not do the same in two sessions.
    a.run("PREPARE s FROM 'SET sql_mode = ''ANSI'', time_zone = ''+01:00'''")
        .await;
    b.run("PREPARE s FROM 'SET sql_mode = ''TRADITIONAL'''")
        .await;
    for _ in 0..2 {
        for both in [&mut a, &mut b] {
            both.run("EXECUTE s").await;
            both.run(show).await;
        }
        for both in [&mut a, &mut b] {
            both.run(show).await;
            both.run("SET sql_mode = '', time_zone = '+02:00'").await;
        }
    }
    if is_mariadb(server) {
        a.run("PREPARE u FROM 'USE t_ps_set2'").await;
        a.run("EXECUTE u").await;
        b.run(show).await;
        a.run(show).await;
        a.run("PREPARE t FROM 'BEGIN'").await;
        a.run("EXECUTE t").await;
        a.run("ROLLBACK").await;
        b.run(show).await;
    }
    a.run("PREPARE c FROM 'SET autocommit = 0'").await;
    a.run("EXECUTE c").await;
    a.run("SET autocommit = 1").await;
    b.run(show).await;
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn pinning(server: &Server) {
    server.database("t_ps_pin");
    let sidepool = Sidepool::sharing(server, 2);
    let cases = [
        (
            "CREATE TEMPORARY TABLE tmp AS SELECT 19 AS a",
            "SELECT a FROM tmp",
            "temporary_table",
        ),
        (
            "DO GET_LOCK(''ps_pin'', 0)",
            "SELECT IS_USED_LOCK('ps_pin') IS NULL",
            "lock",
        ),
    ];
    for (text, shown, reason) in cases {
        let mut through = Both::connect(server, &sidepool, Some("t_ps_pin"))
            .await
            .through;
        let mut other = Both::connect(server, &sidepool, Some("t_ps_pin"))
            .await
            .through;
        through.run(&format!("PREPARE s FROM '{text}'")).await;
        wait_pinned(&sidepool, 0.0);
        other.run("SELECT 1").await;
        through.run("EXECUTE s").await;
        wait_pins(&sidepool, reason, 1.0);
        assert_eq!(pins(&sidepool, "prepared_statement"), 0.0);
        let mine = through.query(shown).await.rows();
        assert_ne!(other.query(shown).await, Reply::Ok(Default::default()));
        assert_eq!(through.query(shown).await.rows(), mine);
        through.quit().await;
        other.quit().await;
        sidepool.wait("unpinned", |s| pinned(s) == 0.0);
    }
}

async fn inserts(server: &Server) {
    server.database("t_ps_ins");
    server.root("CREATE TABLE t_ps_ins.t (a INT PRIMARY KEY AUTO_INCREMENT, b INT)");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_ins"))
        .await
        .through;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_ins"))
        .await
        .through;
    a.run("PREPARE i FROM 'INSERT INTO t (b) VALUES (LAST_INSERT_ID()), (LAST_INSERT_ID())'")
        .await;
    b.run("PREPARE i FROM 'INSERT INTO t (b) VALUES (LAST_INSERT_ID())'")
        .await;
    a.run("PREPARE l FROM 'SELECT LAST_INSERT_ID()'").await;
    b.run("PREPARE l FROM 'SELECT LAST_INSERT_ID()'").await;
    let first = a.run("EXECUTE i").await.ok();
    assert_eq!((first.affected, first.insert_id), (2, 1));
    assert_eq!(b.run("EXECUTE i").await.ok().insert_id, 3);
    assert_eq!(a.query("EXECUTE l").await.text(), "1");
    assert_eq!(b.query("EXECUTE l").await.text(), "3");
    assert_eq!(a.run("EXECUTE i").await.ok().insert_id, 4);
    assert_eq!(b.run("EXECUTE i").await.ok().insert_id, 6);
    let given = a.query("SELECT GROUP_CONCAT(b ORDER BY a) FROM t").await;
    assert_eq!(given.text(), "0,0,0,1,1,3");
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn warnings(server: &Server) {
    server.database("t_ps_warn");
    server.root("CREATE TABLE t_ps_warn.t (a VARCHAR(3)); INSERT INTO t_ps_warn.t VALUES ('x')");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_warn")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_warn")).await;
    a.run("PREPARE w FROM 'SELECT a + 0 FROM t'").await;
    a.run("PREPARE n FROM 'SELECT 1'").await;
    a.run("PREPARE t FROM 'SELECT a FROM t'").await;
    for name in ["w", "n", "t"] {
        b.run(&format!("PREPARE {name} FROM 'SELECT 2'")).await;
    }
    for begin in ["DO 0", "BEGIN"] {
        a.run(begin).await;
        for next in [
            "EXECUTE n",
            "EXECUTE t",
            "PREPARE x FROM 'SELECT 1'",
            "PREPARE x FROM 'SELECT a FROM t'",
            "DEALLOCATE PREPARE x",
            "DROP PREPARE n",
            "EXECUTE n",
        ] {
            a.run("EXECUTE w").await;
            if begin == "DO 0" {
                b.run("EXECUTE n").await;
            }
            a.same("SHOW WARNINGS").await;
            a.same(next).await;
            a.same("SHOW WARNINGS").await;
        }
        a.run("PREPARE n FROM 'SELECT 1'").await;
        a.run("COMMIT").await;
    }
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn errors(server: &Server) {
    server.database("t_ps_err");
    server.root("CREATE TABLE t_ps_err.t (a INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t_ps_err.t VALUES (1)");
    let sidepool = Sidepool::sharing(server, 2);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_err")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_err")).await;
    a.run("PREPARE s FROM 'INSERT INTO t VALUES (1)'").await;
    a.run("PREPARE m FROM 'SELECT (SELECT 1 UNION SELECT 2)'")
        .await;
    for name in ["s", "m"] {
        b.run(&format!("PREPARE {name} FROM 'SELECT 2'")).await;
    }
    for _ in 0..2 {
        assert_eq!(a.code("EXECUTE s").await, 1062);
        b.run("EXECUTE s").await;
        a.same("SHOW WARNINGS").await;
        assert_eq!(a.code("EXECUTE m").await, 1242);
        b.run("EXECUTE m").await;
        assert_eq!(a.code("EXECUTE s USING @a").await, 1210);
    }
}

async fn routines(server: &Server) {
    server.database("t_ps_proc");
    for body in [
        "p_makes() BEGIN PREPARE made FROM 'SELECT 5'; END",
        "p_uses() BEGIN EXECUTE used; END",
        "p_all() BEGIN PREPARE s FROM 'SELECT 6'; EXECUTE s; DEALLOCATE PREPARE s; END",
    ] {
        server.routine(&format!("CREATE PROCEDURE t_ps_proc.{body}"));
    }
    let sidepool = Sidepool::sharing(server, 3);
    let connect = async || Both::connect(server, &sidepool, Some("t_ps_proc")).await;
    let (mut a, mut b) = (connect().await, connect().await);
    for name in ["used", "made", "s"] {
        b.run(&format!("PREPARE {name} FROM 'SELECT 7'")).await;
    }
    a.run("PREPARE other FROM 'SELECT 8'").await;
    assert_eq!(a.code("CALL p_uses()").await, 1243);
    let mut a = connect().await;
    a.run("PREPARE used FROM 'SELECT 9'").await;
    a.run("PREPARE s FROM 'SELECT 10'").await;
    b.run("EXECUTE used").await;
    assert_eq!(a.text("CALL p_uses()").await, "9");
    a.run("CALL p_makes()").await;
    assert_eq!(a.text("EXECUTE made").await, "5");
    assert_eq!(a.text("CALL p_all()").await, "6");
    assert_eq!(a.code("EXECUTE s").await, 1243);
    assert_eq!(a.text("EXECUTE used").await, "9");
    for name in ["used", "made", "s"] {
        assert_eq!(b.text(&format!("EXECUTE {name}")).await, "7");
    }
    b.run("PREPARE p FROM 'CALL p_makes()'").await;
    b.run("EXECUTE p").await;
    assert_eq!(b.text("EXECUTE made").await, "5");
}

async fn immediate(server: &Server) {
    server.database("t_ps_now");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_now")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_now")).await;
    a.same("EXECUTE IMMEDIATE 'SELECT 1'").await;
    b.same("EXECUTE IMMEDIATE 'SELECT ?' USING 5").await;
    a.same("EXECUTE IMMEDIATE 'SET time_zone = ''+03:00'''")
        .await;
    b.run("SELECT @@time_zone").await;
    a.run("SELECT @@time_zone").await;
    b.same("EXECUTE IMMEDIATE 'SELECT 1 +'").await;
    a.run("PREPARE immediate FROM 'SELECT 2'").await;
    b.same("EXECUTE immediate").await;
    a.same("EXECUTE immediate").await;
    assert_eq!(pins(&sidepool, ""), 0.0);
    a.same("EXECUTE IMMEDIATE 'CREATE TEMPORARY TABLE tmp (a INT)'")
        .await;
    let expected = if is_mariadb(server) { 1.0 } else { 0.0 };
    wait_pins(&sidepool, "temporary_table", expected);
}
