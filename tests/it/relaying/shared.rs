//! Prepared statements that several sessions use over one connection: each sees what it would see on a connection
//! of its own.

use super::tape::{
    EXECUTE, FETCH, LONG_DATA, PREPARE, Pair, QUERY, STMT_CLOSE, STMT_RESET, Statement, error,
    read_answer, rows,
};
use super::*;
use crate::support::clients::{is_mariadb, root};
use crate::support::eventually;
use crate::support::wire::DEPRECATE_EOF;

on_every_server! {
    statements_of_equal_text_are_one => equal_texts;
    types_are_each_session_s_own => types;
    a_statement_keeps_the_database_and_the_mode_it_was_prepared_in => contexts;
    data_and_cursors_are_each_statement_s_own => alone;
    data_may_come_behind_a_replay => behind_a_replay;
    saved_warnings_are_there_for_executions => warnings;
    a_closed_statement_is_gone_for_its_client_alone => closed;
    tables_change_and_go => tables;
    a_statement_outlives_its_connection => killed;
    a_large_execution_gets_the_types_it_left_out => large;
    statements_run_in_transactions_and_fail_alone => transactions;
    few_statements_are_kept => few;
}

const LONGLONG: (u8, u8) = (8, 0);
const TEXT: (u8, u8) = (0xfd, 0);

/// An execution with one parameter, with its type or without.
fn one(kind: Option<(u8, u8)>, value: &[u8]) -> Vec<u8> {
    let mut packet = vec![0, 1, 0, 0, 0, 0];
    match kind {
        Some((kind, flag)) => packet.extend_from_slice(&[1, kind, flag]),
        None => packet.push(0),
    }
    packet.extend_from_slice(value);
    packet
}

fn number(value: i64) -> [u8; 8] {
    value.to_le_bytes()
}

async fn two(server: &Server, sidepool: &Sidepool, database: &str) -> (Pair, Pair) {
    (
        Pair::connect(server, sidepool, database, (0, 0)).await,
        Pair::connect(server, sidepool, database, (0, 0)).await,
    )
}

fn no_pins(sidepool: &Sidepool) {
    assert_eq!(sidepool.metric("sidepool_session_pins_total", ""), 0.0);
    assert_eq!(sidepool.metric("sidepool_sessions_pinned", ""), 0.0);
}

async fn ok(pair: &mut Pair, statement: &Statement, rest: &[u8]) -> super::tape::Packets {
    let packets = pair.on(statement, EXECUTE, rest).await;
    assert!(error(&packets).is_none(), "{:?}", error(&packets));
    packets
}

async fn equal_texts(server: &Server) {
    numbers(server, "t_shr_equal", 1);
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = two(server, &sidepool, "t_shr_equal").await;
    let sql = "SELECT id FROM t WHERE id > ? ORDER BY id LIMIT 2";
    let (of_a, of_b) = (a.prepare(sql).await, b.prepare(sql).await);
    let other = b.prepare("SELECT COUNT(*) + ? FROM t").await;
    for i in 0..10 {
        ok(&mut a, &of_a, &one(Some(LONGLONG), &number(i))).await;
        ok(&mut b, &of_b, &one(Some(LONGLONG), &number(i + 3))).await;
        ok(&mut b, &other, &one(Some(LONGLONG), &number(i))).await;
    }
    assert_eq!(
        sidepool.metric("sidepool_pool_connections", "").max(1.0),
        1.0
    );
    assert_eq!(
        sidepool.metric("sidepool_session_statement_reprepares_total", ""),
        0.0,
        "all was there"
    );
    assert!(sidepool.metric("sidepool_session_statement_hits_total", "") >= 30.0);
    no_pins(&sidepool);
}

async fn types(server: &Server) {
    server.database("t_shr_types");
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = two(server, &sidepool, "t_shr_types").await;
    for sql in [
        "SELECT ?",
        "SELECT CONCAT('<', ?, '>')",
        "SELECT COALESCE(?, 1)",
    ] {
        let (of_a, of_b) = (a.prepare(sql).await, b.prepare(sql).await);
        // Types that were never sent.
        let refused = a.on(&of_a, EXECUTE, &one(None, &number(1))).await;
        assert_eq!(error(&refused).map(|error| error.code), Some(1210));
        ok(&mut a, &of_a, &one(Some(LONGLONG), &number(5))).await;
        ok(&mut b, &of_b, &one(Some(TEXT), b"\x03yes")).await;
        ok(&mut a, &of_a, &one(None, &number(6))).await;
        ok(&mut b, &of_b, &one(None, b"\x02no")).await;
        ok(&mut a, &of_a, &one(None, &number(7))).await;
        // A newcomer relies on none, whatever others have sent.
        let mut c = Pair::connect(server, &sidepool, "t_shr_types", (0, 0)).await;
        let of_c = c.prepare(sql).await;
        let refused = c.on(&of_c, EXECUTE, &one(None, &number(1))).await;
        assert_eq!(error(&refused).map(|error| error.code), Some(1210));
        ok(&mut c, &of_c, &one(Some(TEXT), b"\x01c")).await;
    }
    no_pins(&sidepool);
}

async fn contexts(server: &Server) {
    for name in ["t_shr_one", "t_shr_two"] {
        server.database(name);
        server.root(&format!(
            "CREATE TABLE {name}.t (v VARCHAR(20)); INSERT INTO {name}.t VALUES ('{name}')"
        ));
    }
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = two(server, &sidepool, "t_shr_one").await;
    let table = a.prepare("SELECT v, DATABASE() FROM t").await;
    a.run("USE t_shr_two").await;
    let other = a.prepare("SELECT v, DATABASE() FROM t").await;
    let quoted = a.prepare("SELECT \"v\" FROM t").await;
    a.run("SET sql_mode = 'ANSI_QUOTES'").await;
    let ansi = a.prepare("SELECT \"v\" FROM t").await;
    a.run("SET NAMES latin1").await;
    let latin = a.prepare("SELECT LENGTH('\u{e9}')").await;
    let of_b = b.prepare("SELECT v, DATABASE() FROM t").await;
    for round in 0..3 {
        for statement in [&table, &other, &quoted, &ansi, &latin] {
            ok(&mut a, statement, &[0, 1, 0, 0, 0]).await;
        }
        ok(&mut b, &of_b, &[0, 1, 0, 0, 0]).await;
        a.run("SELECT DATABASE(), @@sql_mode, @@character_set_client")
            .await;
        b.run("SELECT DATABASE(), @@sql_mode, @@character_set_client")
            .await;
        if round == 0 {
            // Now none is prepared, and each must be brought back to where it was prepared.
            kill_all(server, "t\\_shr\\_%o%", &[&a, &b]).await;
        } else {
            a.run("USE t_shr_one").await;
        }
    }
    assert!(sidepool.metric("sidepool_session_statement_reprepares_total", "") >= 5.0);
    no_pins(&sidepool);
}

/// Ends the pool's idle connections, which are in databases named so; the clients do not notice.
async fn kill_all(server: &Server, databases: &str, pairs: &[&Pair]) {
    let mut root = root(server).await;
    let spared: Vec<_> = pairs
        .iter()
        .map(|pair| pair.direct.thread_id.to_string())
        .collect();
    let sql = format!(
        "SELECT id FROM information_schema.processlist WHERE db LIKE '{databases}' AND id NOT IN ({})",
        spared.join(",")
    );
    let threads = root.query(&sql).await.rows();
    assert!(!threads.is_empty(), "no connection to kill");
    for row in threads {
        let id = String::from_utf8(row[0].clone().unwrap()).unwrap();
        root.query(&format!("KILL {id}")).await;
    }
    eventually("the connections are gone", async || {
        root.query(&sql).await.rows().is_empty()
    })
    .await;
}

async fn alone(server: &Server) {
    numbers(server, "t_shr_alone", 1);
    server.root("CREATE TABLE t_shr_alone.b (v LONGBLOB)");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Pair::connect(server, &sidepool, "t_shr_alone", (0, 0)).await;
    let sql = "INSERT INTO b VALUES (?)";
    let (one_id, other) = (a.prepare(sql).await, a.prepare(sql).await);
    a.on(&one_id, LONG_DATA, b"\0\0for one").await;
    a.on(&other, LONG_DATA, b"\0\0for the other").await;
    ok(&mut a, &one_id, &one(Some((0xfc, 0)), b"")).await;
    a.on(&other, STMT_RESET, b"").await;
    ok(&mut a, &other, &one(Some((0xfc, 0)), b"\x06inline")).await;
    a.run("SELECT v FROM b ORDER BY v").await;
    let rows = "SELECT id FROM t ORDER BY id";
    let (first, second) = (a.prepare(rows).await, a.prepare(rows).await);
    for statement in [&first, &second] {
        ok(&mut a, statement, &[1, 1, 0, 0, 0]).await;
        a.on(statement, FETCH, &3u32.to_le_bytes()).await;
    }
    a.on(&first, FETCH, &2u32.to_le_bytes()).await;
    a.on(&second, FETCH, &5000u32.to_le_bytes()).await;
    a.on(&second, FETCH, &1u32.to_le_bytes()).await;
    a.on(&first, STMT_CLOSE, b"").await;
    // The connection is free again, and the cursor's statement is not taken for one without.
    let mut b = Pair::connect(server, &sidepool, "t_shr_alone", (0, 0)).await;
    let of_b = b.prepare(rows).await;
    ok(&mut b, &of_b, &[0, 1, 0, 0, 0]).await;
    ok(&mut b, &of_b, &[0, 1, 0, 0, 0]).await;
    no_pins(&sidepool);
}

/// Data has no answer, the replay in front of it has.
async fn behind_a_replay(server: &Server) {
    numbers(server, "t_shr_ahead", 1);
    server.root("CREATE TABLE t_shr_ahead.b (v LONGBLOB)");
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = two(server, &sidepool, "t_shr_ahead").await;
    let insert = a.prepare("INSERT INTO b (v) VALUES (?), ('two')").await;
    for (length, zone) in [(5, "+01:00"), (3_000_000, "+02:00"), (0, "+03:00")] {
        b.run(&format!("SET time_zone = '{zone}'")).await;
        let data = [b"\0\0".to_vec(), vec![b'x'; length]].concat();
        a.on(&insert, LONG_DATA, &data).await;
        ok(&mut a, &insert, &one(Some((0xfc, 0)), b"")).await;
    }
    a.run("SELECT COUNT(*), LENGTH(v), SHA2(v, 256) FROM b GROUP BY 2, 3 ORDER BY 2")
        .await;
    assert_eq!(
        sidepool.metric("sidepool_session_replays_total", "\"failed\""),
        0.0
    );
    no_pins(&sidepool);
}

/// MariaDB prepares what shows warnings, and drivers that prepare everything do so.
async fn warnings(server: &Server) {
    if !is_mariadb(server) {
        return;
    }
    server.database("t_shr_warn");
    server.root("CREATE TABLE t_shr_warn.w (a VARCHAR(2), b TINYINT)");
    let sidepool = Sidepool::sharing(server, 1);
    for without in [0, DEPRECATE_EOF] {
        let mut a = Pair::connect(server, &sidepool, "t_shr_warn", (0, without)).await;
        let mut b = Pair::connect(server, &sidepool, "t_shr_warn", (0, without)).await;
        a.run("SET sql_mode = ''").await;
        for sql in [
            "SHOW WARNINGS",
            "SHOW ERRORS",
            "SHOW COUNT(*) WARNINGS",
            "SHOW COUNT(*) ERRORS",
            "SHOW WARNINGS LIMIT 1, 1",
        ] {
            a.run("INSERT INTO w VALUES ('\u{e9}\u{e9}\u{e9}', 1000)")
                .await;
            b.run("SELECT 'between'").await;
            let shows = a.prepare(sql).await;
            b.run("SELECT 'between'").await;
            ok(&mut a, &shows, &[0, 1, 0, 0, 0]).await;
            ok(&mut a, &shows, &[0, 1, 0, 0, 0]).await;
            let again = a.prepare("SHOW WARNINGS").await;
            ok(&mut a, &again, &[0, 1, 0, 0, 0]).await;
            a.on(&shows, STMT_CLOSE, b"").await;
        }
        a.query("INSERT INTO missing VALUES (1)").await;
        let shows = a.prepare("SHOW ERRORS").await;
        b.run("SELECT 'between'").await;
        ok(&mut a, &shows, &[0, 1, 0, 0, 0]).await;
    }
    no_pins(&sidepool);
}

async fn closed(server: &Server) {
    server.database("t_shr_closed");
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = two(server, &sidepool, "t_shr_closed").await;
    let (of_a, of_b) = (a.prepare("SELECT 7").await, b.prepare("SELECT 7").await);
    a.execute(&of_a).await;
    a.on(&of_a, STMT_CLOSE, b"").await;
    let gone = a.execute(&of_a).await;
    assert_eq!(error(&gone).map(|error| error.code), Some(1243));
    assert!(error(&b.execute(&of_b).await).is_none());
    // Ids that the server may have given to somebody else.
    for id in 1..40u32 {
        let packet = [&id.to_le_bytes()[..], &[0, 1, 0, 0, 0]].concat();
        a.through.command(EXECUTE, &packet).await;
        let packets = read_answer(&mut a.through, EXECUTE).await;
        assert_eq!(error(&packets).map(|error| error.code), Some(1243), "{id}");
        let said = error(&packets).unwrap().message;
        assert!(said.contains(&format!("({id})")), "{said}");
    }
    assert!(error(&b.execute(&of_b).await).is_none());
    // MariaDB's number of the statement prepared last.
    let last = [0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0];
    a.same(EXECUTE, &last).await;
    a.prepare("SELECT 8").await;
    a.same(EXECUTE, &last).await;
    a.same(PREPARE, b"nonsense").await;
    a.same(EXECUTE, &last).await;
    no_pins(&sidepool);
}

async fn tables(server: &Server) {
    numbers(server, "t_shr_tables", 1);
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = two(server, &sidepool, "t_shr_tables").await;
    let sql = "SELECT * FROM d";
    let (of_a, of_b) = (a.prepare(sql).await, b.prepare(sql).await);
    a.execute(&of_a).await;
    server.root("ALTER TABLE t_shr_tables.d ADD COLUMN more INT DEFAULT 5");
    a.execute(&of_a).await;
    rows_through(&mut b, &of_b, 10).await;
    server.root("DROP TABLE t_shr_tables.d");
    for again in [false, true] {
        if again {
            kill_all(server, "t_shr_tables", &[&a, &b]).await;
        }
        let gone = a.execute(&of_a).await;
        assert_eq!(error(&gone).map(|error| error.code), Some(1146));
        a.same(QUERY, b"SHOW WARNINGS").await;
        b.run("SELECT 'in step'").await;
    }
    server.root("CREATE TABLE t_shr_tables.d (n INT)");
    rows_through(&mut b, &of_b, 0).await;
    rows_through(&mut a, &of_a, 0).await;
    no_pins(&sidepool);
}

/// Executes a statement below which a table was changed. Only the one session that meets the change first is told so by
/// a status flag, where on connections of their own all are.
async fn rows_through(pair: &mut Pair, statement: &Statement, expected: usize) {
    let packet = [&statement.through()[..], &[0, 1, 0, 0, 0]].concat();
    pair.through.command(EXECUTE, &packet).await;
    let packets = read_answer(&mut pair.through, EXECUTE).await;
    assert!(error(&packets).is_none(), "{:?}", error(&packets));
    assert_eq!(rows(&packets, !pair.through.has(DEPRECATE_EOF)), expected);
}

async fn killed(server: &Server) {
    numbers(server, "t_shr_killed", 1);
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Pair::connect(server, &sidepool, "t_shr_killed", (0, 0)).await;
    let statement = a.prepare("SELECT id, ? FROM t ORDER BY id LIMIT 3").await;
    ok(&mut a, &statement, &one(Some(LONGLONG), &number(1))).await;
    for i in 0..2 {
        kill_all(server, "t_shr_killed", &[&a]).await;
        ok(&mut a, &statement, &one(None, &number(i))).await;
    }
    assert!(sidepool.metric("sidepool_session_statement_reprepares_total", "") >= 2.0);
    no_pins(&sidepool);
}

async fn large(server: &Server) {
    server.database("t_shr_large");
    server.root("SET GLOBAL max_allowed_packet = 64 << 20");
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = two(server, &sidepool, "t_shr_large").await;
    let sql = "SELECT LENGTH(?)";
    let (of_a, of_b) = (a.prepare(sql).await, b.prepare(sql).await);
    ok(&mut a, &of_a, &one(Some(TEXT), b"\x03abc")).await;
    ok(&mut b, &of_b, &one(Some(LONGLONG), &number(1))).await;
    const HEAD: usize = 16;
    for size in [
        0xff_ffff - HEAD - 1,
        0xff_ffff - HEAD,
        0xff_ffff,
        0x1ff_fffe - HEAD,
    ] {
        let mut value = vec![0xfe];
        value.extend_from_slice(&(size as u64).to_le_bytes());
        value.resize(value.len() + size, b'x');
        ok(&mut a, &of_a, &one(None, &value)).await;
        ok(&mut b, &of_b, &one(None, &number(size as i64))).await;
    }
    no_pins(&sidepool);
}

async fn transactions(server: &Server) {
    server.database("t_shr_trx");
    server.root("CREATE TABLE t_shr_trx.t (id INT, who INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 2);
    let (mut a, mut b) = two(server, &sidepool, "t_shr_trx").await;
    let sql = "INSERT INTO t VALUES (?, 1)";
    let of_a = a.prepare(sql).await;
    b.through.command(QUERY, b"SELECT 1").await;
    read_answer(&mut b.through, QUERY).await;
    // The transaction holds a connection that may lack the statement.
    // Either side has rows of its own.
    a.run("BEGIN").await;
    a.run("SET div_precision_increment = 7").await;
    ok(&mut a, &of_a, &one(Some(LONGLONG), &number(1))).await;
    fail(&mut a).await;
    a.run("SELECT COUNT(*), @@div_precision_increment FROM t")
        .await;
    a.same(QUERY, b"ROLLBACK").await;
    a.run("SELECT COUNT(*) FROM t").await;
    ok(&mut a, &of_a, &one(None, &number(1))).await;
    a.through.command(QUERY, b"DELETE FROM t").await;
    read_answer(&mut a.through, QUERY).await;
    no_pins(&sidepool);
}

/// A statement that fails within the transaction leaves it as it is.
async fn fail(pair: &mut Pair) {
    let refused = pair.same(PREPARE, b"SELECT nonsense").await;
    assert!(error(&refused).is_some());
}

async fn few(server: &Server) {
    server.database("t_shr_few");
    let own = Server::start(server.make, &["--max-prepared-stmt-count=8"]);
    let sidepool = Sidepool::sharing(&own, 2);
    let mut through = client(&sidepool).await;
    let mut ids = Vec::new();
    for i in 0..7 {
        through
            .command(PREPARE, format!("SELECT {i}").as_bytes())
            .await;
        let packets = read_answer(&mut through, PREPARE).await;
        assert!(error(&packets).is_none(), "{:?}", error(&packets));
        ids.push(packets[0].1[1..5].to_vec());
    }
    for _ in 0..3 {
        for id in &ids {
            through
                .command(EXECUTE, &[&id[..], &[0, 1, 0, 0, 0]].concat())
                .await;
            let packets = read_answer(&mut through, EXECUTE).await;
            assert!(error(&packets).is_none(), "{:?}", error(&packets));
        }
    }
    assert!(sidepool.metric("sidepool_session_statement_evictions_total", "") > 0.0);
    no_pins(&sidepool);
}
