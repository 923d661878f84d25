//! One result, several, and those that end in the middle.

use super::tape::{EXECUTE, FRAMINGS, Pair, error};
use super::*;
use crate::support::wire::MULTI_STATEMENTS;

on_every_server! {
    several_statements_at_once => several;
    several_results_of_a_procedure => procedures;
    out_parameters => out_parameters;
    warnings_are_counted => warnings;
    many_rows_are_the_servers_own => many_rows;
    an_error_behind_rows_is_the_servers_own => error_behind_rows;
    a_statement_killed_among_its_rows => killed;
    a_statement_out_of_time_among_its_rows => out_of_time;
}

async fn several(server: &Server) {
    server.database("t_rel_several");
    server.root("CREATE TABLE t_rel_several.t (id INT, a INT NOT NULL)");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_several", (0, without)).await;
        for sql in [
            "SELECT 1; SELECT 2, 3; DO 0; SELECT 4 WHERE FALSE; SELECT 5",
            "DO 0; DO 0; DO 0",
            "SELECT 1; SELECT nonsense; SELECT 3",
            "DO 0; SELECT nonsense; SELECT 3",
            "SELECT 1; SELECT 2 FROM; SELECT 3",
            "INSERT INTO t VALUES (1, 1); INSERT INTO t VALUES (2, NULL); INSERT INTO t VALUES (3, 3)",
            "SELECT COUNT(*) > 0, MAX(id) FROM t",
            "SELECT 1; SELECT POW(10, id) FROM (SELECT 400 id) x; SELECT 3",
            "SET time_zone = '+03:00'; SELECT @@time_zone; SELECT nonsense",
            "SELECT @@time_zone",
            "BEGIN; UPDATE t SET a = a + 1 LIMIT 1; SELECT MAX(a) FROM t; ROLLBACK; SELECT MAX(a) FROM t",
            "SELECT 1;",
            "SELECT 1; ",
            "SELECT 1;;",
            ";",
            "",
            " ",
            "-- nothing",
            "/* nothing */",
            "SELECT 1 -- ; SELECT 2",
            "SELECT 1 /* ; SELECT 2 */; SELECT 3",
            "SELECT ';'; SELECT \"a;b\"",
        ] {
            pair.query(sql).await;
        }
        assert_eq!(
            value(&mut pair.through, "SELECT DATABASE()").await,
            "t_rel_several"
        );
    }
    let mut single = Pair::connect(server, &sidepool, "t_rel_several", (0, MULTI_STATEMENTS)).await;
    assert_eq!(error(&single.query("DO 0; DO 0").await).unwrap().code, 1064);
}

async fn procedures(server: &Server) {
    server.database("t_rel_call");
    server.root("CREATE TABLE t_rel_call.t (id INT PRIMARY KEY, v VARCHAR(9)); INSERT INTO t_rel_call.t VALUES (1,'a'),(2,NULL)");
    for body in [
        "several() BEGIN SELECT 1; SELECT * FROM t ORDER BY id; SELECT id FROM t WHERE id > 9; UPDATE t SET v = v; END",
        "nothing() BEGIN END",
        "fails() BEGIN SELECT 1; SELECT * FROM t ORDER BY id; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'é enough'; SELECT 3; END",
        "warns() BEGIN SELECT CAST('x' AS SIGNED); SIGNAL SQLSTATE '01000' SET MESSAGE_TEXT = 'careful'; END",
        "nested(n INT) BEGIN SET max_sp_recursion_depth = 9; SELECT n; IF n > 0 THEN CALL nested(n - 1); END IF; END",
    ] {
        server.routine(&format!("CREATE PROCEDURE t_rel_call.{body}"));
    }
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_call", (0, without)).await;
        for sql in [
            "CALL several()",
            "CALL nothing()",
            "CALL fails()",
            "CALL warns()",
            "CALL nested(3)",
            "CALL none()",
        ] {
            pair.query(sql).await;
            pair.query("SHOW WARNINGS").await;
            pair.query(&format!("{sql}; SELECT 'behind'")).await;
        }
        for sql in [
            "CALL several()",
            "CALL nothing()",
            "CALL fails()",
            "CALL nested(2)",
        ] {
            let statement = pair.prepare(sql).await;
            pair.execute(&statement).await;
            pair.execute(&statement).await;
        }
    }
}

async fn out_parameters(server: &Server) {
    server.database("t_rel_out");
    server.routine(
        "CREATE PROCEDURE t_rel_out.p(IN a INT, OUT b INT, INOUT c VARCHAR(20)) \
         BEGIN SELECT a, c; SET b = a + 1; SET c = CONCAT(c, '!'); END",
    );
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_out", (0, without)).await;
        let statement = pair.prepare("CALL p(?, ?, ?)").await;
        // No NULLs; types INT, INT, VARCHAR.
        let parameters = b"\0\x01\0\0\0\0\x01\x03\0\x03\0\xfd\0\x07\0\0\0\x08\0\0\0\x02hi";
        for _ in 0..2 {
            let answer = pair.on(&statement, EXECUTE, parameters).await;
            assert!(error(&answer).is_none(), "{:?}", error(&answer));
            assert!(
                answer
                    .iter()
                    .any(|(_, packet)| packet.ends_with(b"\x03hi!")),
                "{answer:?}"
            );
        }
        pair.query("SET @b = 0, @c = 'x'; CALL p(1, @b, @c); SELECT @b, @c")
            .await;
    }
}

async fn warnings(server: &Server) {
    server.database("t_rel_warn");
    server.root("CREATE TABLE t_rel_warn.t (a TINYINT, b VARCHAR(2))");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_warn", (0, without)).await;
        pair.run("SET sql_mode = ''").await;
        let many = (0..300)
            .map(|n| format!("({n}, 'long{n}')"))
            .collect::<Vec<_>>()
            .join(",");
        for sql in [
            "SELECT CAST('x' AS SIGNED), CAST('y' AS SIGNED)",
            "INSERT INTO t VALUES (1000, 'abc')",
            &format!("INSERT INTO t VALUES {many}"),
            "DROP TABLE IF EXISTS none, nothing",
            "SELECT CAST('x' AS SIGNED); SELECT 1; SELECT CAST('y' AS SIGNED), CAST('z' AS SIGNED)",
            "SELECT 1",
            "INSERT INTO none VALUES (1)",
        ] {
            for look in ["SHOW WARNINGS", "SHOW COUNT(*) WARNINGS", "SHOW ERRORS"] {
                pair.query(sql).await;
                pair.query(look).await;
            }
        }
        let statement = pair
            .prepare("SELECT CAST('x' AS SIGNED), a FROM t LIMIT 3")
            .await;
        pair.execute(&statement).await;
        pair.query("SHOW WARNINGS").await;
    }
}

async fn many_rows(server: &Server) {
    const ROWS: usize = 100_000;
    numbers(server, "t_rel_rows", 5);
    let sidepool = Sidepool::sharing(server, 2);
    let sql = "SELECT * FROM t ORDER BY id";
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_rows", (0, without)).await;
        let statement = pair.prepare(sql).await;
        for binary in [false, true] {
            let digests = match binary {
                true => pair.digests_of(&statement).await,
                false => pair.digests(sql).await,
            };
            assert_eq!(digests[0].rows, ROWS);
            assert_eq!(digests[0], digests[1]);
            pair.run("SELECT 'in step'").await;
        }
    }
}

/// 308 rows of 10 KB pass before the one that cannot be computed.
async fn error_behind_rows(server: &Server) {
    numbers(server, "t_rel_error", 3);
    let sidepool = Sidepool::sharing(server, 1);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_error", (0, without)).await;
        let sql = "SELECT id, REPEAT('x', 10000), POW(10, id) FROM t ORDER BY id";
        let text = pair.query(sql).await;
        assert_eq!(error(&text).unwrap().code, 1690);
        assert!(text.len() > 300, "{} packets", text.len());
        pair.query("SHOW WARNINGS").await;
        pair.query(&format!("SELECT 1; {sql}; SELECT 2")).await;
        let statement = pair.prepare(sql).await;
        let binary = pair.execute(&statement).await;
        assert_eq!(error(&binary).unwrap().code, 1690);
        pair.run("SELECT 'in step'").await;
    }
}

/// A result without end, killed while it flows.
const ENDLESS: &str = "SELECT /* t_rel_endless */ REPEAT('x', 10000) FROM t_rel_kill.t a, t_rel_kill.t b, t_rel_kill.t c";

async fn killed(server: &Server) {
    numbers(server, "t_rel_kill", 3);
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let address = sidepool.address();
        let login = Login {
            without,
            ..Login::to(&address)
        };
        let mut wire = Wire::connect(&login).await.unwrap();
        let mut other = client(&sidepool).await;
        wire.command(3, ENDLESS.as_bytes()).await;
        for _ in 0..1000 {
            wire.read_packet().await.unwrap();
        }
        // By the id that this client knows itself by: Sidepool's.
        other.run(&format!("KILL QUERY {}", wire.thread_id)).await;
        let error = until_error(&mut wire).await;
        assert_eq!((error.code, &error.state[..]), (1317, "70100"), "{error:?}");
        assert_eq!(value(&mut wire, "SELECT 'in step'").await, "in step");
        assert_eq!(value(&mut other, "SELECT 'untouched'").await, "untouched");
    }
}

async fn out_of_time(server: &Server) {
    numbers(server, "t_rel_time", 3);
    let sidepool = Sidepool::sharing(server, 2);
    let mut wire = client(&sidepool).await;
    let (sql, code) = match is_mariadb(server) {
        true => (
            "SET STATEMENT max_statement_time = 0.3 FOR SELECT REPEAT('x', 20000), SLEEP(0.01) FROM t_rel_time.t",
            1969,
        ),
        false => (
            "SELECT /*+ MAX_EXECUTION_TIME(300) */ REPEAT('x', 20000), SLEEP(0.01) FROM t_rel_time.t",
            3024,
        ),
    };
    for _ in 0..2 {
        wire.command(3, sql.as_bytes()).await;
        for _ in 0..5 {
            wire.read_packet().await.unwrap();
        }
        let error = until_error(&mut wire).await;
        assert_eq!(error.code, code, "{error:?}");
        assert_eq!(value(&mut wire, "SELECT 'in step'").await, "in step");
    }
    let limit = if is_mariadb(server) {
        "max_statement_time"
    } else {
        "max_execution_time"
    };
    let left: f64 = value(&mut wire, &format!("SELECT @@{limit}"))
        .await
        .parse()
        .unwrap();
    assert_eq!(left, 0.0, "the limit of one statement stayed");
}

/// Reads rows up to the error behind them.
async fn until_error(wire: &mut Wire) -> crate::support::wire::ServerError {
    loop {
        let (_, packet) = wire.read_packet().await.unwrap();
        match packet[0] {
            0xff => return crate::support::wire::parse_err(&packet),
            0xfe if packet.len() < 9 => panic!("all rows came"),
            _ => {}
        }
    }
}
