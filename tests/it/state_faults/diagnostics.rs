//! Warnings and errors of the last statement, where they are not on the connection the session has.

use super::*;

on_every_server! {
    a_refused_prepare_replaces_the_warnings_before_it => refused_prepare;
    a_transaction_does_not_begin_with_somebody_elses_warnings => in_a_transaction;
    warnings_stay_over_what_does_not_touch_them => stay;
    warnings_are_never_shown_in_a_charset_of_before => charset_of_before;
    a_bad_look_at_the_warnings_is_an_error_itself => bad_look;
    the_counts_outlive_the_rows_on_mysql => counts;
}

/// The codes that `SHOW WARNINGS` lists.
async fn codes(wire: &mut Wire) -> Vec<String> {
    let rows = wire.query("SHOW WARNINGS").await.rows();
    let code = |row: &Vec<Option<Vec<u8>>>| String::from_utf8(row[1].clone().unwrap()).unwrap();
    rows.iter().map(code).collect()
}

/// A client through Sidepool with another that disturbs, and a dedicated connection.
async fn beside(server: &Server) -> (Sidepool, Wire, Wire, Wire) {
    let sidepool = Sidepool::sharing(server, 1);
    let (a, b) = (client(&sidepool).await, client(&sidepool).await);
    let direct = Wire::connect(&Login::to(&server.address())).await.unwrap();
    (sidepool, a, b, direct)
}

async fn refused_prepare(server: &Server) {
    let (_sidepool, mut a, mut b, mut direct) = beside(server).await;
    let mut seen = Vec::new();
    for wire in [&mut a, &mut direct] {
        assert_eq!(wire.query("SELECT nonsense").await.err().code, 1054);
        b.run("SELECT 1").await;
        wire.command(0x16, b"SHOW WARNINGS").await;
        let (_, first) = wire.read_packet().await.unwrap();
        if first[0] == 0 {
            // MariaDB prepares it.
            for _ in 0..u16::from_le_bytes([first[5], first[6]]) {
                wire.read_packet().await.unwrap();
            }
            wire.command(0x19, &first[1..5]).await;
        }
        b.run("SELECT 1").await;
        seen.push((first[0], codes(wire).await));
    }
    assert_eq!(seen[0], seen[1], "through Sidepool and direct");
    let expected = if is_mariadb(server) { "1054" } else { "1295" };
    assert_eq!(seen[0].1, [expected]);
}

async fn in_a_transaction(server: &Server) {
    server.database("t_sfd");
    server.root("CREATE TABLE t_sfd.t (a INT) ENGINE = InnoDB");
    let (_sidepool, mut a, mut b, mut direct) = beside(server).await;
    for begin in [
        "BEGIN",
        "START TRANSACTION READ ONLY",
        "SET TRANSACTION READ WRITE",
    ] {
        for wire in [&mut a, &mut direct] {
            wire.run("SELECT COUNT(*) FROM t_sfd.t").await;
            assert_eq!(b.query("SELECT bees_error").await.err().code, 1054);
            wire.run(begin).await;
            assert_eq!(codes(wire).await, Vec::<String>::new(), "behind {begin}");
            wire.run("SELECT COUNT(*) FROM t_sfd.t").await;
            assert_eq!(codes(wire).await, Vec::<String>::new(), "within {begin}");
            assert_eq!(wire.query("SELECT own_error").await.err().code, 1054);
            assert_eq!(codes(wire).await, ["1054"], "own, within {begin}");
            assert_eq!(value(wire, "SHOW COUNT(*) ERRORS").await, "1");
            wire.run("ROLLBACK").await;
        }
    }
}

/// On MariaDB what uses no table leaves the diagnostics area alone.
async fn stay(server: &Server) {
    let (_sidepool, mut a, mut b, mut direct) = beside(server).await;
    let quiet = [
        "DO 1",
        "SELECT 1 FROM DUAL",
        "(SELECT 1)",
        "SHOW GRANTS",
        "SHOW CREATE DATABASE t_sfs",
        "EXPLAIN SELECT 1",
        "BEGIN",
        "COMMIT",
        "UNLOCK TABLES",
        "SET time_zone = '+01:00'",
        "WITH x AS (SELECT 1) SELECT 2",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "SHOW TABLES FROM t_sfs",
        "SHOW FULL TABLES FROM t_sfs",
        "DESCRIBE t_sfs.t",
    ];
    server.database("t_sfs");
    server.root("CREATE TABLE t_sfs.t (a INT) ENGINE = InnoDB");
    for sql in quiet {
        let mut seen = Vec::new();
        for wire in [&mut a, &mut direct] {
            assert_eq!(wire.query("SELECT nonsense").await.err().code, 1054);
            b.run("SELECT 1").await;
            wire.run(sql).await;
            if sql != "BEGIN" {
                assert_eq!(b.query("SELECT bees_error").await.err().code, 1054);
            }
            seen.push(codes(wire).await);
            if sql == "BEGIN" {
                wire.run("ROLLBACK").await;
            }
        }
        assert_eq!(seen[0], seen[1], "{sql}: through Sidepool and direct");
    }
    // Within a transaction the one warning stays, whatever was carried before.
    let mut seen = Vec::new();
    for wire in [&mut a, &mut direct] {
        wire.run("BEGIN").await;
        wire.run("SELECT CAST('x' AS SIGNED)").await;
        wire.run("SELECT 2").await;
        seen.push(codes(wire).await);
        wire.run("COMMIT").await;
        seen.push(codes(wire).await);
    }
    assert_eq!(seen[..2], seen[2..]);
}

async fn charset_of_before(server: &Server) {
    let (_sidepool, mut a, mut b, mut direct) = beside(server).await;
    for wire in [&mut a, &mut direct] {
        assert_eq!(wire.query("SELECT `n\u{e9}`").await.err().code, 1054);
        wire.run("SET character_set_results = latin1").await;
        b.run("SELECT 1").await;
    }
    let direct = direct.query("SHOW WARNINGS").await;
    match a.query("SHOW WARNINGS").await {
        Reply::Err(error) => assert_eq!(error.code, 1235),
        other => assert_eq!(other.rows(), direct.rows()),
    }
}

async fn bad_look(server: &Server) {
    let (_sidepool, mut a, mut b, mut direct) = beside(server).await;
    let mut seen = Vec::new();
    for wire in [&mut a, &mut direct] {
        wire.run("SELECT 1 FROM (SELECT 1) AS t").await;
        b.run("SELECT 1").await;
        assert_eq!(wire.query("SHOW WARNINGS LIMIT x").await.err().code, 1327);
        b.run("SELECT 1").await;
        seen.push(codes(wire).await);
    }
    assert_eq!(seen[0], ["1327"]);
    assert_eq!(seen[0], seen[1]);
}

async fn counts(server: &Server) {
    let (_sidepool, mut a, mut b, mut direct) = beside(server).await;
    let mut seen = Vec::new();
    for wire in [&mut a, &mut direct] {
        // Within a transaction the connection is there to be asked.
        wire.run("BEGIN").await;
        wire.run("SELECT CAST('x' AS SIGNED)").await;
        let count = value(wire, "SELECT @@warning_count").await;
        let listed = codes(wire).await;
        let counted = value(wire, "SHOW COUNT(*) WARNINGS").await;
        wire.run("COMMIT").await;
        b.run("SELECT 1").await;
        let then = value(wire, "SHOW COUNT(*) WARNINGS").await;
        seen.push((count, listed, counted, then));
    }
    assert_eq!(seen[0], seen[1]);
}
