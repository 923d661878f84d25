//! Prepared statements in the binary protocol: long data, cursors, ids.

use super::tape::{
    EXECUTE, FETCH, FRAMINGS, LONG_DATA, Pair, QUERY, STMT_CLOSE, STMT_RESET, error,
};
use super::*;

on_every_server! {
    parameters_come_in_pieces => long_data;
    an_open_cursor_is_read_on => cursor;
    cursors_side_by_side => cursors;
    statements_that_are_not_there => unknown;
    statements_live_and_die_as_the_server_says => life;
    statements_of_every_kind_are_prepared => kinds;
}

/// Flags, iterations, no NULLs, types INT and BLOB.
const INT_AND_BLOB: [u8; 11] = [0, 1, 0, 0, 0, 0, 1, 3, 0, 252, 0];

async fn long_data(server: &Server) {
    server.database("t_rel_long");
    server.root("CREATE TABLE t_rel_long.t (id INT, v LONGBLOB)");
    let sidepool = Sidepool::sharing(server, 1);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_long", (0, without)).await;
        let insert = pair.prepare("INSERT INTO t VALUES (?, ?)").await;
        for byte in [b'a', b'b', 0xff] {
            let piece = [&[1, 0], &vec![byte; 300_000][..]].concat();
            pair.on(&insert, LONG_DATA, &piece).await;
        }
        let execute = [&INT_AND_BLOB[..], &[9, 0, 0, 0]].concat();
        assert!(error(&pair.on(&insert, EXECUTE, &execute).await).is_none());
        // The data is used up; what is sent now is forgotten by the reset, and then the value is inline.
        pair.on(&insert, LONG_DATA, b"\x01\0forgotten").await;
        pair.on(&insert, STMT_RESET, b"").await;
        pair.on(&insert, EXECUTE, &[&execute[..], b"\x02ok"].concat())
            .await;
        // A parameter that is not there: the error comes with the execution.
        pair.on(&insert, LONG_DATA, b"\x09\0wrong").await;
        pair.on(&insert, EXECUTE, &[&execute[..], b"\x02ok"].concat())
            .await;
        pair.on(&insert, STMT_CLOSE, b"").await;
        let seen = pair
            .run("SELECT id, LENGTH(v), SHA2(v, 256) FROM t GROUP BY id, v ORDER BY 2")
            .await;
        let shown = seen
            .iter()
            .any(|(_, row)| row.windows(6).any(|part| part == b"900000"));
        assert!(shown, "{seen:?}");
        pair.run("SELECT 'ends'").await;
    }
    let mut other = client(&sidepool).await;
    assert_eq!(
        value(&mut other, "SELECT 1").await,
        "1",
        "the connection is shared again"
    );
    assert_eq!(sidepool.metric("sidepool_sessions_pinned", ""), 0.0);
}

const READ_ONLY_CURSOR: [u8; 5] = [1, 1, 0, 0, 0];

async fn cursor(server: &Server) {
    numbers(server, "t_rel_cursor", 2);
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_cursor", (0, without)).await;
        let all = pair.prepare("SELECT * FROM t ORDER BY id").await;
        pair.on(&all, EXECUTE, &READ_ONLY_CURSOR).await;
        let mut packets = 0;
        for count in [0u32, 1, 30, 1000] {
            packets += pair.on(&all, FETCH, &count.to_le_bytes()).await.len();
            // Other statements run beside an open cursor.
            pair.run("SELECT 'beside'").await;
        }
        assert!(packets > 100, "{packets}");
        // It is at its end, then reset, then closed.
        let behind = pair.on(&all, FETCH, &1u32.to_le_bytes()).await;
        assert!(error(&behind).is_some(), "{behind:?}");
        pair.on(&all, EXECUTE, &READ_ONLY_CURSOR).await;
        pair.on(&all, STMT_RESET, b"").await;
        pair.on(&all, FETCH, &1u32.to_le_bytes()).await;
        let none = pair.prepare("SELECT * FROM t WHERE id > 1000").await;
        pair.on(&none, EXECUTE, &READ_ONLY_CURSOR).await;
        pair.on(&none, FETCH, &1u32.to_le_bytes()).await;
        // No rows come of it, so no cursor does.
        let update = pair.prepare("UPDATE t SET v = v WHERE id = 1").await;
        pair.on(&update, EXECUTE, &READ_ONLY_CURSOR).await;
        pair.on(&update, FETCH, &1u32.to_le_bytes()).await;
        pair.run("SELECT 1").await;
    }
}

async fn cursors(server: &Server) {
    numbers(server, "t_rel_cursors", 2);
    let sidepool = Sidepool::sharing(server, 3);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_cursors", (0, without)).await;
        let up = pair.prepare("SELECT id FROM t ORDER BY id").await;
        let down = pair.prepare("SELECT id, w FROM t ORDER BY id DESC").await;
        pair.on(&up, EXECUTE, &READ_ONLY_CURSOR).await;
        pair.on(&down, EXECUTE, &READ_ONLY_CURSOR).await;
        for _ in 0..5 {
            pair.on(&up, FETCH, &7u32.to_le_bytes()).await;
            pair.on(&down, FETCH, &9u32.to_le_bytes()).await;
        }
        pair.on(&up, STMT_CLOSE, b"").await;
        pair.on(&down, FETCH, &100u32.to_le_bytes()).await;
        pair.on(&up, FETCH, &1u32.to_le_bytes()).await;
    }
}

async fn unknown(server: &Server) {
    server.database("t_rel_unknown");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_unknown", (0, without)).await;
        let id = 77_777u32.to_le_bytes();
        for (command, rest) in [
            (EXECUTE, &[0, 1, 0, 0, 0][..]),
            (FETCH, &[1, 0, 0, 0]),
            (STMT_RESET, &[]),
            (LONG_DATA, b"\0\0data"),
            (STMT_CLOSE, &[]),
        ] {
            pair.same(command, &[&id[..], rest].concat()).await;
            pair.run("SELECT 'in step'").await;
        }
        for (command, malformed) in [
            (EXECUTE, &b"\x01\0"[..]),
            (FETCH, b""),
            (STMT_RESET, b"\x01"),
            (STMT_CLOSE, b"\x01"),
            (LONG_DATA, b""),
        ] {
            if command != STMT_CLOSE && command != LONG_DATA {
                pair.same(command, malformed).await;
            }
            pair.run("SELECT 'in step'").await;
        }
    }
}

async fn life(server: &Server) {
    numbers(server, "t_rel_life", 1);
    let sidepool = Sidepool::sharing(server, 1);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_life", (0, without)).await;
        let first = pair.prepare("SELECT id FROM t WHERE id = ?").await;
        let second = pair.prepare("SELECT ?, ?").await;
        let three = [0, 1, 0, 0, 0, 0, 1, 3, 0, 3, 0, 0, 0];
        pair.on(&first, EXECUTE, &three).await;
        // Parameters that are missing.
        pair.on(&second, EXECUTE, &[0, 1, 0, 0, 0]).await;
        pair.on(&first, STMT_CLOSE, b"").await;
        pair.on(&first, EXECUTE, &three).await;
        // The table changes below the statement.
        let star = pair
            .prepare("SELECT * FROM t WHERE id < 3 ORDER BY id")
            .await;
        pair.execute(&star).await;
        server.root("ALTER TABLE t_rel_life.t ADD COLUMN more INT DEFAULT 5");
        pair.execute(&star).await;
        server.root("ALTER TABLE t_rel_life.t DROP COLUMN more");
        pair.execute(&star).await;
        pair.same(QUERY, b"SELECT 1; SELECT 2").await;
        pair.execute(&star).await;
    }
}

async fn kinds(server: &Server) {
    numbers(server, "t_rel_kinds", 1);
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_kinds", (0, without)).await;
        for sql in [
            "SELECT 1",
            "SELECT * FROM t ORDER BY id",
            "INSERT INTO d VALUES (1)",
            "UPDATE d SET n = n + 1",
            "DELETE FROM d WHERE n = 2 LIMIT 1",
            "SET time_zone = '+04:00'",
            "SELECT @@time_zone",
            "COMMIT",
            "SHOW TABLES",
            "SHOW VARIABLES LIKE 'time_zone'",
            "EXPLAIN SELECT * FROM t",
            "CREATE TABLE IF NOT EXISTS t (a INT)",
            "DROP TABLE IF EXISTS none",
            "DO 1",
            "CALL none()",
        ] {
            pair.same(22, b"SELECT nonsense").await;
            pair.same(22, b"SELECT 1; SELECT 2").await;
            pair.same(22, b"").await;
            if sql != "CALL none()" {
                let statement = pair.prepare(sql).await;
                pair.execute(&statement).await;
                pair.execute(&statement).await;
                pair.on(&statement, STMT_CLOSE, b"").await;
            }
        }
        pair.run("SELECT @@time_zone, DATABASE()").await;
    }
}
