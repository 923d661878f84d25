//! Every type of column, in rows of both protocols, and text that is no UTF-8.

use super::tape::{EXECUTE, FRAMINGS, Pair, QUERY, error, rows};
use super::*;

on_every_server! {
    every_column_type_is_the_servers_own => columns;
    every_parameter_type_is_the_servers_own => parameters;
    many_columns_and_wide_rows => many_columns;
    values_at_the_lengths_that_change_the_header => lengths;
    text_in_the_clients_charset_is_not_touched => charsets;
}

const COLUMNS: &str = "ti TINYINT, ut TINYINT UNSIGNED, bo BOOLEAN, si SMALLINT, mi MEDIUMINT, i INT UNSIGNED ZEROFILL, \
    bi BIGINT, ub BIGINT UNSIGNED, f FLOAT, d DOUBLE, de DECIMAL(65,30), d0 DECIMAL(5,0), b1 BIT(1), bt BIT(20), b64 BIT(64), \
    dt DATE, t0 TIME, tm TIME(6), dt0 DATETIME, dtm DATETIME(6), ts TIMESTAMP(3) NULL, y YEAR, c CHAR(5), vc VARCHAR(50), \
    l1 VARCHAR(9) CHARACTER SET latin1, u16 VARCHAR(9) CHARACTER SET utf16, b BINARY(4), vb VARBINARY(50), tt TINYTEXT, \
    te TEXT, lt LONGTEXT, tb TINYBLOB, bl BLOB, lb LONGBLOB, e ENUM('x','y','é'), s SET('p','q'), j JSON, g GEOMETRY, \
    po POINT, li LINESTRING";

const LARGEST: &str = "-128, 255, TRUE, -32768, -8388608, 42, -9223372036854775808, 18446744073709551615, -1.5, 1e300, \
    12345678901234567890123456789012345.012345678901234567890123456789, -99999, b'1', b'10110011100011110000', \
    x'8000000000000001', '9999-12-31', '838:59:59', '-838:59:59.000001', '9999-12-31 23:59:59', \
    '2024-02-29 23:59:59.999999', '2001-09-09 01:46:40.123', 2155, 'a', 'emoji: 🐬 é', 'é', 'é🐬', x'ff00fe', x'00ff00', \
    '', 'text', 'long', x'00', x'', x'deadbeef', 'é', 'p,q', '{\"a\": [1, null, \"é\"]}', ST_GeomFromText('POINT(1 2)'), \
    ST_GeomFromText('POINT(-1 0.5)'), ST_GeomFromText('LINESTRING(0 0, 1 1)')";

/// Columns that only one of the servers has.
fn own_columns(server: &Server) -> [&'static str; 2] {
    match is_mariadb(server) {
        true => [
            ", uu UUID, ip INET6, i4 INET4",
            ", '123e4567-e89b-12d3-a456-426655440000', '2001:db8::ff00:42:8329', '192.0.2.1'",
        ],
        false => [", ve VECTOR(3)", ", STRING_TO_VECTOR('[1,2.5,-3]')"],
    }
}

async fn columns(server: &Server) {
    let [own, values] = own_columns(server);
    server.database("t_rel_types");
    server.root(&format!(
        "CREATE TABLE t_rel_types.t (id INT PRIMARY KEY, {COLUMNS}{own})"
    ));
    server.root(&format!(
        "SET NAMES utf8mb4; SET sql_mode = ''; USE t_rel_types; INSERT INTO t (id) VALUES (0); \
         INSERT INTO t VALUES (1, {LARGEST}{values}); \
         INSERT INTO t (id, vc, bl, lt, dt, dt0, ts, t0, f, de, y, e, s) VALUES (2, '', REPEAT(x'00', 251), \
         REPEAT('€', 70000), '0000-00-00', '0000-00-00 00:00:00', 0, '00:00:00', -0.0, 0, 0, 'wrong', ''); \
         INSERT INTO t (id, dt, dt0, dtm, tm, f, d) VALUES (3, '2024-00-00', '2024-05-00 01:02:03', \
         '2024-05-06 00:00:00.000001', '-00:00:00.000001', 3.4e38, -2.2250738585072014e-308)"
    ));
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_types", (0, without)).await;
        for sql in [
            "SELECT * FROM t ORDER BY id",
            "SELECT * FROM t WHERE id = 9",
            "SELECT id AS `an alias é`, vc `x.y`, COUNT(*), MAX(de), NULL, 1.5, 1e0, 'x', x'00', NOW() IS NULL, TRUE FROM t GROUP BY id, vc",
        ] {
            let text = pair.run(sql).await;
            let statement = pair.prepare(sql).await;
            let binary = pair.execute(&statement).await;
            assert_eq!(rows(&text, without != 0), rows(&binary, without != 0));
        }
    }
}

/// One parameter of each type, sent in binary and shown as the server understood it.
async fn parameters(server: &Server) {
    server.database("t_rel_params");
    let sidepool = Sidepool::sharing(server, 2);
    // Type, unsigned flag, value.
    let mut values: Vec<(u8, u8, Vec<u8>)> = vec![
        (1, 0, vec![0x80]),
        (1, 0x80, vec![0x80]),
        (2, 0, vec![0xff, 0xff]),
        (3, 0x80, vec![0xff; 4]),
        (8, 0, vec![0xff; 8]),
        (8, 0x80, vec![0xff; 8]),
        (4, 0, 1.25f32.to_le_bytes().into()),
        (5, 0, 1e-300f64.to_le_bytes().into()),
        (6, 0, vec![]),
        (10, 0, vec![4, 0xe8, 7, 2, 29]),
        (12, 0, vec![0]),
        (12, 0, vec![7, 0xe8, 7, 2, 29, 23, 59, 58]),
        (7, 0, vec![11, 0xe8, 7, 2, 29, 23, 59, 58, 1, 0, 0, 0]),
        (
            11,
            0,
            vec![12, 1, 4, 0, 0, 0, 22, 59, 58, 0x3f, 0x42, 0xe, 0],
        ),
        (246, 0, b"\x0512.34".into()),
        (252, 0, b"\x03\xff\x00\xfe".into()),
        (254, 0, b"\x00".into()),
    ];
    values.push((
        253,
        0,
        [&[0xfd, 0, 0, 2], &vec![0xfe; 0x2_0000][..]].concat(),
    ));
    let marks = vec!["?"; values.len()].join(", ");
    let mut rest = vec![0, 1, 0, 0, 0];
    let mut nulls = vec![0u8; values.len().div_ceil(8)];
    nulls[1] |= 1;
    rest.extend_from_slice(&nulls);
    rest.push(1);
    values
        .iter()
        .for_each(|(kind, unsigned, _)| rest.extend_from_slice(&[*kind, *unsigned]));
    values
        .iter()
        .for_each(|(_, _, value)| rest.extend_from_slice(value));
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_params", (0, without)).await;
        let statement = pair.prepare(&format!("SELECT {marks}")).await;
        let shown = pair.on(&statement, EXECUTE, &rest).await;
        assert!(error(&shown).is_none(), "{:?}", error(&shown));
        // Types are remembered from the execution before.
        let again = [
            &[0, 1, 0, 0, 0],
            &nulls[..],
            &[0],
            &rest[5 + nulls.len() + 1 + 2 * values.len()..],
        ]
        .concat();
        assert_eq!(pair.on(&statement, EXECUTE, &again).await, shown);
    }
}

async fn many_columns(server: &Server) {
    server.database("t_rel_wide");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_wide", (0, without)).await;
        for count in [250, 251, 252, 1000, 4000] {
            let list: Vec<_> = (0..count).map(|n| format!("{n}")).collect();
            let sql = format!(
                "SELECT {} UNION ALL SELECT {}",
                list.join(","),
                vec!["NULL"; count].join(",")
            );
            let packets = pair.run(&sql).await;
            assert_eq!(rows(&packets, without != 0), 2, "{count} columns");
        }
    }
}

/// Lengths at which a length is written in another form, first bytes that mean something else
/// elsewhere, and packets that cross the edges of Sidepool's buffers.
async fn lengths(server: &Server) {
    server.database("t_rel_lengths");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_lengths", (0, without)).await;
        for len in [
            0,
            1,
            4,
            5,
            8,
            9,
            250,
            251,
            252,
            253,
            254,
            255,
            0xfffe,
            0xffff,
            0x1_0000,
            0x1_0001,
            1 << 20,
        ] {
            for byte in ["00", "fb", "fe", "ff"] {
                let sql = format!(
                    "SELECT REPEAT(x'{byte}', {len}), '', NULL UNION ALL SELECT NULL, x'{byte}', ''"
                );
                let packets = pair.run(&sql).await;
                assert_eq!(rows(&packets, without != 0), 2, "{len}");
            }
        }
        for len in (8000..8300).step_by(7).chain((16_300..16_450).step_by(9)) {
            pair.run(&format!(
                "SELECT REPEAT('a', {len}) UNION ALL SELECT 'b' UNION ALL SELECT REPEAT('c', {len})"
            ))
            .await;
        }
    }
}

/// Character sets whose text is no UTF-8, in which the second byte of a character may look like a quote
/// or a backslash, with statements that a wrong reading would cut in another place.
async fn charsets(server: &Server) {
    server.database("t_rel_charsets");
    let sidepool = Sidepool::sharing(server, 2);
    const LATIN1: u8 = 8;
    const UTF8MB3: u8 = 33;
    const UTF8MB4: u8 = 45;
    const GBK: u8 = 28;
    const SJIS: u8 = 13;
    const BINARY: u8 = 63;
    let texts: [&[u8]; 6] = [
        b"SELECT 'caf\xe9', HEX('caf\xe9'), 1 AS `caf\xe9`, _binary'\xff\x00\xfe'",
        b"SELECT '\xf0\x9f\x90\xac', LENGTH('\xf0\x9f\x90\xac'), CHAR_LENGTH('\xc3\xa9'), CHARSET('a'), COLLATION('a')",
        b"SELECT HEX('\xbf\x5c'), '; SET @a = 1 -- ', 2",
        b"SELECT HEX('\x95\x5c'), '; SET @a = 1 -- ', 2",
        b"SELECT '\xff\xfe\xfd', nonsense_\xe9",
        b"SELECT * FROM `no such t\xe9ble`",
    ];
    for charset in [LATIN1, UTF8MB3, UTF8MB4, GBK, SJIS, BINARY] {
        let login = Login {
            database: Some("t_rel_charsets"),
            charset,
            ..Login::to("")
        };
        let mut pair = Pair::log_in(server, &sidepool, &login).await;
        for text in texts {
            pair.same(QUERY, text).await;
        }
        for name in ["latin1", "gbk", "utf8mb4"] {
            pair.run(&format!("SET NAMES {name}")).await;
            for text in texts {
                pair.same(QUERY, text).await;
            }
        }
        pair.run("SET character_set_results = NULL").await;
        pair.run("SELECT _latin1 x'e9', _utf8mb4 x'c3a9', _ucs2 x'00e9'")
            .await;
    }
    let pinned = sidepool.metric("sidepool_session_pins_total", "");
    assert_eq!(pinned, 0.0, "{}", sidepool.log());
}
