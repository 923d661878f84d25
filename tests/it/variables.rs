//! User variables are a session's own wherever its statements run, and pin nothing; routines.

mod routines;
mod values;

use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::{Make, Server};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{DEPRECATE_EOF, Login, MULTI_STATEMENTS, Reply, Wire};

on_every_server! {
    sessions_with_other_variables_share_a_connection => sharing;
    a_session_without_variables_sees_none => no_leak;
    triggers_and_views_read_the_sessions_own => readers;
    every_way_to_set_a_variable_is_seen => ways;
    what_was_set_before_an_error_stays => errors;
    what_a_transaction_sets_stays => transactions;
    triggers_set_what_the_session_carries => written_by_triggers;
    large_values_pin_until_they_are_small_again => large;
    odd_names_and_too_many_pin => odd;
    variables_outlive_their_backend_connection => killed;
    a_reset_connection_has_no_variables => reset;
    odd_sessions_read_and_write_them => odd_sessions;
}

const PINS: &str = "sidepool_session_pins_total";

async fn two(server: &Server) -> (Sidepool, Wire, Wire) {
    let sidepool = Sidepool::sharing(server, 1);
    let (a, b) = (client(&sidepool).await, client(&sidepool).await);
    (sidepool, a, b)
}

fn unpinned(sidepool: &Sidepool) {
    assert_eq!(sidepool.metric(PINS, ""), 0.0, "{}", sidepool.log());
}

async fn sharing(server: &Server) {
    let (sidepool, mut a, mut b) = two(server).await;
    a.run("SET @x = 1, @y = 'a', @@session.time_zone = '+01:00'")
        .await;
    b.run("SET @x = 2.50, @z = NULL, time_zone = '+02:00'")
        .await;
    for _ in 0..3 {
        assert_eq!(
            value(&mut a, "SELECT CONCAT_WS(',', @x, @Y, @z, @@time_zone)").await,
            "1,a,+01:00"
        );
        assert_eq!(
            value(&mut b, "SELECT CONCAT_WS(',', @X, @y, @z, @@time_zone)").await,
            "2.50,+02:00"
        );
    }
    a.run("SET @x = @x + 1").await;
    b.run("DO 1").await;
    assert_eq!(value(&mut a, "SELECT @x").await, "2");
    unpinned(&sidepool);
}

async fn no_leak(server: &Server) {
    let (sidepool, mut a, mut b) = two(server).await;
    a.run("SET @x = 1, @y = CAST(5 AS UNSIGNED), @s = 'x'")
        .await;
    for _ in 0..2 {
        assert_eq!(value(&mut b, "SELECT COALESCE(@x, @y, @s)").await, "NULL");
        assert_eq!(value(&mut b, "SELECT COLLATION(@x)").await, "binary");
        assert_eq!(value(&mut a, "SELECT CONCAT(@x, @y, @s)").await, "15x");
    }
    a.quit().await;
    assert_eq!(value(&mut b, "SELECT COALESCE(@x, @y, @s)").await, "NULL");
    unpinned(&sidepool);
}

async fn readers(server: &Server) {
    server.database("t_uv_read");
    server.root("CREATE TABLE t_uv_read.t (a INT); CREATE TABLE t_uv_read.log (who VARCHAR(20))");
    server.routine(
        "CREATE TRIGGER t_uv_read.audit AFTER INSERT ON t_uv_read.t FOR EACH ROW \
         INSERT INTO t_uv_read.log VALUES (@user_id)",
    );
    server.routine(
        "CREATE FUNCTION t_uv_read.me() RETURNS VARCHAR(20) DETERMINISTIC RETURN @user_id",
    );
    let (sidepool, mut a, mut b) = two(server).await;
    let mut c = client(&sidepool).await;
    a.run("SET @user_id = 'ann'").await;
    b.run("SET @user_id = 'bob'").await;
    for _ in 0..2 {
        for wire in [&mut a, &mut c, &mut b] {
            wire.run("INSERT INTO t_uv_read.t VALUES (1)").await;
        }
    }
    let rows = "SELECT GROUP_CONCAT(IFNULL(who, '-') ORDER BY who) FROM t_uv_read.log";
    assert_eq!(value(&mut c, rows).await, "-,-,ann,ann,bob,bob");
    assert_eq!(value(&mut b, "SELECT t_uv_read.me()").await, "bob");
    assert_eq!(value(&mut c, "SELECT t_uv_read.me()").await, "NULL");
    unpinned(&sidepool);
}

/// Statement, and what `CONCAT_WS(',', @a, @b)` is behind it.
const WAYS: &[(&str, &str)] = &[
    ("SET @a = 1", "1"),
    ("SET @a := 2, @`b` = @a", "2,1"),
    ("SELECT @a := 3, @b := 4", "3,4"),
    ("SELECT 5, 6 INTO @a, @b", "5,6"),
    ("SELECT n INTO @a FROM t LIMIT 1", "1,6"),
    ("UPDATE t SET n = (@b := n + 7)", "1,8"),
    ("INSERT INTO t SELECT @a := 9", "9,8"),
    ("DELETE FROM t WHERE n = (@a := 10)", "10,8"),
    ("SET @A = NULL", "8"),
    ("DO 1; SET @a = 11; DO 2", "11,8"),
    ("SET @sum = 0, @a = (SELECT 12)", "12,8"),
    ("/*!40101 SET @b = 13 */", "12,13"),
    ("GET DIAGNOSTICS @a = NUMBER", "0,13"),
    ("SET sql_mode = 'ANSI_QUOTES', @\"b\" = 14", "0,14"),
    ("SET @a = CONCAT(@a, \"b\")", ""),
];

async fn ways(server: &Server) {
    server.database("t_uv_ways");
    let sidepool = Sidepool::sharing(server, 1);
    for without in [0, DEPRECATE_EOF] {
        server.root("DROP TABLE IF EXISTS t_uv_ways.t; CREATE TABLE t_uv_ways.t (n INT); INSERT INTO t_uv_ways.t VALUES (1)");
        let address = sidepool.address();
        let login = Login {
            database: Some("t_uv_ways"),
            with: MULTI_STATEMENTS,
            without,
            ..Login::to(&address)
        };
        let (mut a, mut b) = (
            Wire::connect(&login).await.unwrap(),
            Wire::connect(&login).await.unwrap(),
        );
        b.run("SET @b = 'b'").await;
        for (sql, expected) in WAYS {
            let replies = a.query_all(sql).await;
            if expected.is_empty() {
                // Under ANSI_QUOTES that is a column.
                assert_eq!(replies[0].clone().err().code, 1054);
                continue;
            }
            assert!(!matches!(replies[0], Reply::Err(_)), "{sql}: {replies:?}");
            assert_eq!(
                value(&mut b, "SELECT CONCAT_WS(',', @a, @b)").await,
                "b",
                "{sql}"
            );
            assert_eq!(
                value(&mut a, "SELECT CONCAT_WS(',', @a, @b)").await,
                *expected,
                "{sql}"
            );
        }
        let rows = a
            .query("SELECT @n := @n + 1 FROM t, (SELECT @n := 0) AS i")
            .await
            .rows();
        assert_eq!(rows[0][0].as_deref(), Some(&b"1"[..]));
    }
    unpinned(&sidepool);
}

async fn errors(server: &Server) {
    server.database("t_uv_err");
    server.root(
        "CREATE TABLE t_uv_err.t (a INT PRIMARY KEY); INSERT INTO t_uv_err.t VALUES (1), (2)",
    );
    let (sidepool, mut a, mut b) = two(server).await;
    let mut twin = Wire::connect(&Login::to(&server.address())).await.unwrap();
    b.run("SET @n = 'b'").await;
    for wire in [&mut a, &mut twin] {
        wire.run("SET @n = 0").await;
        let reply = wire
            .query("INSERT INTO t_uv_err.t SELECT 3 - (@n := @n + 1) FROM t_uv_err.t")
            .await;
        assert_eq!(reply.err().code, 1062);
        assert_eq!(value(&mut b, "SELECT @n").await, "b");
    }
    let n = value(&mut twin, "SELECT @n").await;
    assert_eq!(value(&mut a, "SELECT @n").await, n);
    assert_eq!(
        a.query("SET @n = 5, time_zone = 'nowhere'")
            .await
            .err()
            .code,
        1298
    );
    assert_eq!(value(&mut b, "SELECT @n").await, "b");
    assert_eq!(value(&mut a, "SELECT @n").await, n);
    unpinned(&sidepool);
}

async fn transactions(server: &Server) {
    server.database("t_uv_tx");
    server.root("CREATE TABLE t_uv_tx.t (a INT)");
    let (sidepool, mut a, mut b) = two(server).await;
    a.run("SET @a = 1").await;
    for end in ["COMMIT", "ROLLBACK"] {
        b.run("DO 1").await;
        a.run("BEGIN").await;
        a.run("INSERT INTO t_uv_tx.t VALUES (@a)").await;
        a.run("SET @a = @a + 1").await;
        a.run("SELECT MAX(a) INTO @m FROM t_uv_tx.t").await;
        a.run(end).await;
        assert_eq!(value(&mut b, "SELECT COALESCE(@a, @m)").await, "NULL");
    }
    assert_eq!(value(&mut a, "SELECT CONCAT(@a, @m)").await, "32");
    unpinned(&sidepool);
}

/// What a trigger puts into variables without any tracker is read back if the session carries them.
async fn written_by_triggers(server: &Server) {
    server.database("t_uv_trig");
    server.root("CREATE TABLE t_uv_trig.t (a INT); CREATE TABLE t_uv_trig.u (a INT)");
    server.routine(
        "CREATE TRIGGER t_uv_trig.silent BEFORE INSERT ON t_uv_trig.t FOR EACH ROW SELECT NEW.a INTO @last",
    );
    server.routine(
        "CREATE TRIGGER t_uv_trig.told BEFORE INSERT ON t_uv_trig.u FOR EACH ROW SET @count = @count + 1",
    );
    let (sidepool, mut a, mut b) = two(server).await;
    a.run("SET @last = NULL").await;
    a.run("INSERT INTO t_uv_trig.t VALUES (7)").await;
    assert_eq!(value(&mut b, "SELECT @last").await, "NULL");
    assert_eq!(value(&mut a, "SELECT @last").await, "7");
    unpinned(&sidepool);
    a.run("SET @count = 0").await;
    a.run("INSERT INTO t_uv_trig.u VALUES (1), (2)").await;
    assert_eq!(value(&mut b, "SELECT @count").await, "NULL");
    if is_mariadb(server) {
        // One that the session never named is listed.
        let mut c = client(&sidepool).await;
        c.run("INSERT INTO t_uv_trig.u VALUES (3)").await;
        assert_eq!(value(&mut b, "SELECT @count").await, "NULL");
        unpinned(&sidepool);
    }
    assert_eq!(value(&mut a, "SELECT @count").await, "2");
    unpinned(&sidepool);
}

async fn large(server: &Server) {
    let sidepool = Sidepool::sharing(server, 2);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    a.run("SET @big = REPEAT('x', 60000)").await;
    b.run("DO 1").await;
    assert_eq!(value(&mut a, "SELECT LENGTH(@big)").await, "60000");
    unpinned(&sidepool);
    for (round, sql) in [
        "SET @big = REPEAT('x', 5000000)",
        "SET @c = REPEAT('x', 60000), @d = @c",
    ]
    .into_iter()
    .enumerate()
    {
        a.run(sql).await;
        eventually("pinned", async || {
            sidepool.metric("sidepool_sessions_pinned", "") == 1.0
        })
        .await;
        let pinned = sidepool.metric(PINS, "\"user_variable\"");
        assert_eq!(pinned, round as f64 + 1.0);
        assert_eq!(value(&mut b, "SELECT COALESCE(@big, @c, @d)").await, "NULL");
        a.run("SET @big = 5, @c = 6, @d = NULL").await;
        eventually("unpinned", async || {
            sidepool.metric("sidepool_sessions_pinned", "") == 0.0
        })
        .await;
        assert_eq!(value(&mut b, "SELECT COALESCE(@big, @c, @d)").await, "NULL");
        assert_eq!(value(&mut a, "SELECT CONCAT(@big, @c)").await, "56");
    }
}

async fn odd(server: &Server) {
    let sidepool = Sidepool::sharing(server, 4);
    let many: Vec<_> = (0..201).map(|n| format!("@v{n} = {n}")).collect();
    let statements = [
        "SET @`a\"b` = 1".to_owned(),
        "SET @é = 1".to_owned(),
        "SELECT@a:=1".to_owned(),
        format!("SET {}", many.join(",")),
    ];
    for (at, sql) in statements.iter().enumerate() {
        let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
        a.run(sql).await;
        eventually(&format!("pinned by {sql}"), async || {
            sidepool.metric(PINS, "\"user_variable\"") == at as f64 + 1.0
        })
        .await;
        let probe = "SELECT COALESCE(@`a\"b`, @é, @a, @v200)";
        assert_eq!(value(&mut b, probe).await, "NULL");
        assert_ne!(value(&mut a, probe).await, "NULL");
        a.quit().await;
        assert_eq!(value(&mut b, probe).await, "NULL");
    }
    // Too long a name is MySQL's error, and no reason to lose the connection.
    let mut a = client(&sidepool).await;
    a.query("SET @`blank ` = 1").await;
    assert_eq!(value(&mut a, "SELECT 1").await, "1");
    a.query(&format!("SET @{} = 1", "n".repeat(70))).await;
    assert_eq!(value(&mut a, "SELECT 1").await, "1");
}

async fn killed(server: &Server) {
    account(server, "uv_killed");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = client_as(&sidepool, "uv_killed").await;
    let mut root = root(server).await;
    a.run("SET @a = 'kept', @b = 1.50").await;
    for _ in 0..2 {
        let id = value(
            &mut root,
            "SELECT MAX(id) FROM information_schema.processlist WHERE user = 'uv_killed'",
        )
        .await;
        root.run(&format!("KILL {id}")).await;
        while connections(&mut root, "uv_killed").await > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(value(&mut a, "SELECT CONCAT(@a, @b)").await, "kept1.50");
    }
    unpinned(&sidepool);
}

async fn reset(server: &Server) {
    let (sidepool, mut a, mut b) = two(server).await;
    a.run("SET @a = 1, @é = 2").await;
    a.command(31, b"").await;
    a.read_reply().await.ok();
    assert_eq!(value(&mut a, "SELECT COALESCE(@a, @é)").await, "NULL");
    assert_eq!(value(&mut b, "SELECT COALESCE(@a, @é)").await, "NULL");
    b.run("SET @a = 1").await;
    assert_eq!(value(&mut a, "SELECT @a").await, "NULL");
    eventually("unpinned", async || {
        sidepool.metric("sidepool_sessions_pinned", "") == 0.0
    })
    .await;
}

/// Own statements are immune to what the client does to its session.
async fn odd_sessions(server: &Server) {
    let mut settings = vec![
        "SET character_set_results = ucs2",
        "SET character_set_results = utf32",
        "SET character_set_results = NULL",
        "SET collation_connection = utf32_bin",
        "SET collation_connection = ucs2_bin",
        "SET sql_select_limit = 0",
        "SET sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'",
        "SET NAMES gbk",
        "SET NAMES swe7",
    ];
    if server.make == Make::MariaDb {
        settings.push("SET sql_mode = 'ORACLE,EMPTY_STRING_IS_NULL'");
        settings.push("SET sql_mode = 'MSSQL'");
    }
    let mut wrong = Vec::new();
    for setting in settings {
        let sidepool = Sidepool::sharing(server, 2);
        let mut b = client(&sidepool).await;
        let mut shown = Vec::new();
        for address in [sidepool.address(), server.address()] {
            let mut a = Wire::connect(&Login::to(&address)).await.unwrap();
            a.run(setting).await;
            a.run(
                "SET @i = -5, @u = CAST(7 AS UNSIGNED), @d = 1.50, @f = -1.068614193728396e-12, @s = _latin1 x'E9' , \
                 @b = _binary x'00FF', @e = _utf8mb4 x'', @n = NULL",
            )
            .await;
            b.run("SET @i = 'b', @s = 1").await;
            b.run("SET time_zone = '+01:00'").await;
            let sql = "SELECT @i, @u, @d, @f, HEX(@s), HEX(@b), HEX(@e), @n, COLLATION(@s), COLLATION(@e) LIMIT 1";
            let Reply::Rows { columns, rows, .. } = a.query(sql).await else {
                panic!("{setting}")
            };
            shown.push((columns, rows));
        }
        if shown[0] != shown[1] {
            wrong.push(format!("{setting}:\n{:?}\n{:?}", shown[0], shown[1]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
