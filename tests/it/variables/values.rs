//! A value that was carried to another connection is the same to the last byte.

use super::*;

on_every_server! {
    a_carried_value_is_the_same_to_the_last_byte => values;
    random_doubles_are_carried_exactly => doubles;
}

const VALUES: &[&str] = &[
    "SET @v = 5",
    "SET @v = -5",
    "SET @v = TRUE",
    "SET @v = -9223372036854775808",
    "SET @v = 9223372036854775807",
    "SET @v = 18446744073709551615",
    "SET @v = CAST(5 AS UNSIGNED)",
    "SET @v = 1.50",
    "SET @v = -0.00",
    "SET @v = CAST(7 AS DECIMAL(20,0))",
    "SET @v = 12345678901234567890123456789012345",
    "SET @v = 0.123456789012345678901234567890",
    "SET @v = 10 / 3",
    "SET @v = 1e0",
    "SET @v = 0.1e0 + 0.2e0",
    "SET @v = -0e0",
    "SET @v = ROUND(-0.4e0)",
    "SET @v = 1.7976931348623157e308",
    "SET @v = 5e-324",
    "SET @v = -2.6852612770139757e-117",
    "SET @v = CAST(1.1 AS FLOAT)",
    "SET @v = 'text'",
    "SET @v = ''",
    "SET @v = 'it''s \\\\ \\0 \"'",
    "SET @v = 'é😀'",
    "SET @v = _latin1 x'E9FF00'",
    "SET @v = _latin1'a' COLLATE latin1_bin",
    "SET @v = _utf8mb4'a' COLLATE utf8mb4_bin",
    "SET @v = _utf8mb3'a' COLLATE utf8mb3_unicode_ci",
    "SET @v = _binary'ab\\0c'",
    "SET @v = _binary''",
    "SET @v = _ucs2 x'00410042' COLLATE ucs2_bin",
    "SET @v = _utf16 x'D83DDE00'",
    "SET @v = _utf16le x'4100'",
    "SET @v = _utf32 x'0001F600'",
    "SET @v = _ascii'a'",
    "SET @v = _gbk'abc'",
    "SET @v = _gbk x'8140'",
    "SET @v = CONVERT('é' USING cp1251)",
    "SET @v = x'4142'",
    "SET @v = 0x41",
    "SET @v = b'101'",
    "SET @v = DATE'2020-01-02'",
    "SET @v = TIME'-10:00:00.5'",
    "SET @v = TIMESTAMP'2020-01-02 10:00:00.123456'",
    "SET @v = JSON_OBJECT('a', 1)",
    "SET @v = POINT(1, 2)",
    "SET @v = UUID_TO_BIN('6ccd780c-baba-1026-9564-5b8c656024db')",
    "SET @v = USER()",
    "SET @v = CAST('::1' AS INET6)",
    "SET @v = CAST('6ccd780c-baba-1026-9564-5b8c656024db' AS UUID)",
    "SELECT h INTO @v FROM t_uv_val.full",
    "SELECT i INTO @v FROM t_uv_val.full",
    "SELECT j INTO @v FROM t_uv_val.full",
    "SELECT @v := e FROM t_uv_val.full",
    "SELECT @v := f FROM t_uv_val.full",
    "SET @v = NULL",
    "SET @v = 1, @v = NULL",
    "SET @v = CAST(1 AS UNSIGNED), @v = NULL",
    "SET @v = 1.5, @v = NULL",
    "SET @v = 1e0, @v = NULL",
    "SET @v = 'a', @v = NULL",
    "SET @v = _latin1'a' COLLATE latin1_bin, @v = NULL",
    "SELECT CAST(NULL AS UNSIGNED) INTO @v",
    "SELECT CAST(NULL AS CHAR) INTO @v",
    "SELECT NULL + 0 INTO @v",
    "SELECT a INTO @v FROM t_uv_val.nulls",
    "SELECT b INTO @v FROM t_uv_val.nulls",
    "SELECT c INTO @v FROM t_uv_val.nulls",
    "SELECT d INTO @v FROM t_uv_val.nulls",
    "SELECT a INTO @v FROM t_uv_val.full",
    "SELECT b INTO @v FROM t_uv_val.full",
    "SELECT c INTO @v FROM t_uv_val.full",
    "SELECT d INTO @v FROM t_uv_val.full",
    "SELECT e INTO @v FROM t_uv_val.full",
    "SELECT f INTO @v FROM t_uv_val.full",
    "SELECT g INTO @v FROM t_uv_val.full",
    "SELECT 1 FROM DUAL WHERE @v",
];

const PROBES: &[&str] = &[
    "SELECT @v",
    "SELECT HEX(@v), CHARSET(@v), COLLATION(@v), COERCIBILITY(@v), LENGTH(@v), @v IS NULL",
    "SELECT @v + 0, @v = '5', @v = 5, @v < 2, CONCAT(@v, ''), @v / 3, -@v",
    "SELECT @v = 'A', @v LIKE 't%', 1 / @v",
];

async fn values(server: &Server) {
    server.database("t_uv_val");
    let columns = "a INT, b BIGINT UNSIGNED, c DECIMAL(10,4), d VARCHAR(20) CHARACTER SET latin1, e BIT(10), f DATETIME(3), g FLOAT, h ENUM('p', 'q'), i YEAR, j TIME(2)";
    server.root(&format!(
        "CREATE TABLE t_uv_val.nulls ({columns}); INSERT INTO t_uv_val.nulls () VALUES (); \
         CREATE TABLE t_uv_val.full ({columns}); \
         INSERT INTO t_uv_val.full VALUES (-3, 3, 1.5, 'x', b'1010101010', '2020-01-01 10:00:00.125', 1.1, 'q', 2020, '10:00:00.25')"
    ));
    let sidepool = Sidepool::sharing(server, 1);
    let mut wrong = Vec::new();
    for (at, sql) in VALUES.iter().enumerate() {
        let mut shown = Vec::new();
        // Not known to be taken as it is.
        let pinned = sql.contains("_gbk x") || sql.contains("POINT") && is_mariadb(server);
        for (through, address) in [(true, sidepool.address()), (false, server.address())] {
            let login = Login {
                database: Some("t_uv_val"),
                ..Login::to(&address)
            };
            let other = match through && !pinned {
                true => Some(client_in(&sidepool, "app", "t_uv_val").await),
                false => None,
            };
            let others = ["SET @v = 'other'", "SET @v = 3", "DO 1", "SET @v = 1e5"][at % 4];
            shown.push(shown_to(&login, sql, other, others).await);
            eventually("given back", async || {
                sidepool.metric("sidepool_sessions_pinned", "") == 0.0
            })
            .await;
        }
        // What was never set is, on a connection that others had set it on, a NULL of another width.
        let never = *sql == "SELECT 1 FROM DUAL WHERE @v"
            || sql.contains("UUID_TO_BIN") && is_mariadb(server)
            || (sql.contains("INET6") || sql.contains("AS UUID")) && !is_mariadb(server);
        // And on MySQL a NULL selected into it takes the type that it had.
        let keeps_type = !is_mariadb(server)
            && [
                "SELECT CAST(NULL AS CHAR) INTO",
                "SELECT d INTO @v FROM t_uv_val.nulls",
            ]
            .iter()
            .any(|head| sql.starts_with(head));
        if shown[0] != shown[1] && !never && !keeps_type {
            for (through, direct) in shown[0].iter().zip(&shown[1]).filter(|(a, b)| a != b) {
                wrong.push(format!("{sql}:\n  {through}\n  {direct}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        sidepool.metric("sidepool_session_replays_total", "\"failed\""),
        0.0
    );
    let pins = if is_mariadb(server) { 2.0 } else { 1.0 };
    assert_eq!(sidepool.metric(PINS, ""), pins);
}

/// What a client sees of the value that `sql` sets. In between another uses the connection.
async fn shown_to(
    login: &Login<'_>,
    sql: &str,
    mut other: Option<Wire>,
    others: &str,
) -> Vec<String> {
    let mut wire = Wire::connect(login).await.unwrap();
    let failed = matches!(wire.query(sql).await, Reply::Err(_));
    let mut seen = vec![format!("{failed}")];
    for probe in PROBES {
        // Another's is of another type, and then nobody's.
        if let Some(other) = &mut other {
            other.run(others).await;
        }
        seen.push(match wire.query(probe).await {
            Reply::Rows { columns, rows, .. } => format!("{columns:?} {rows:?}"),
            Reply::Err(error) => format!("{error:?}"),
            _ => String::new(),
        });
    }
    wire.run("DROP TABLE IF EXISTS made").await;
    // In strict mode some values do not fit the type that the server makes of theirs.
    seen.push(
        match wire.query("CREATE TABLE made AS SELECT @v AS v").await {
            Reply::Err(error) => format!("{error:?}"),
            _ => format!("{:?}", wire.query("SHOW CREATE TABLE made").await.rows()),
        },
    );
    wire.quit().await;
    seen
}

async fn doubles(server: &Server) {
    use rand::{Rng as _, SeedableRng as _};
    let (sidepool, mut a, mut b) = two(server).await;
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for _ in 0..300 {
        let number = f64::from_bits(random.random::<u64>());
        if !number.is_finite() {
            continue;
        }
        a.run(&format!("SET @d = {number:e}")).await;
        b.run("DO 1").await;
        assert_eq!(
            value(&mut a, &format!("SELECT @d = {number:e}")).await,
            "1",
            "{number:e}"
        );
    }
    unpinned(&sidepool);
}
