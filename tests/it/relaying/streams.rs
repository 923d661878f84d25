//! How bytes come and go: at once, one by one, slowly; and files from the client.

use std::time::{Duration, Instant};

use super::tape::{EXECUTE, FRAMINGS, PREPARE, Packets, Pair, QUERY, error, read_answer};
use super::*;
use crate::support::wire::{LOCAL_FILES, Reply, parse_ok};

on_every_server! {
    pipelined_commands_are_answered_in_order => pipelined;
    a_pipelined_quit_ends_behind_the_answers => pipelined_quit;
    many_pipelined_commands => many_pipelined;
    commands_may_come_byte_by_byte => byte_by_byte;
    a_slow_reader_costs_no_memory => slow_reader;
    a_file_is_sent_or_refused => local_infile;
    a_file_that_the_server_does_not_want => unwanted_file;
}

/// Commands as they stand in one write.
fn commands(list: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (command, payload) in list {
        bytes.extend_from_slice(&(payload.len() as u32 + 1).to_le_bytes());
        bytes.push(*command);
        bytes.extend_from_slice(payload);
    }
    bytes
}

async fn pipelined(server: &Server) {
    server.database("t_rel_pipe");
    server.root("CREATE TABLE t_rel_pipe.t (a INT)");
    let sidepool = Sidepool::sharing(server, 1);
    let mut wire = client(&sidepool).await;
    let mut other = client(&sidepool).await;
    other.run("SET time_zone = '+01:00'").await;
    let bytes = commands(&[
        (QUERY, b"SELECT 'one'"),
        (2, b"t_rel_pipe"),
        (QUERY, b"INSERT INTO t VALUES (1)"),
        (14, b""),
        (QUERY, b"SELECT nonsense"),
        (QUERY, b"SET time_zone = '+02:00'"),
        (QUERY, b"SELECT @@time_zone"),
        (QUERY, b"SELECT COUNT(*) FROM t"),
        (QUERY, b"SELECT 'last'"),
    ]);
    wire.send_raw(&bytes).await.unwrap();
    assert_eq!(wire.read_reply().await.text(), "one");
    wire.read_reply().await.ok();
    assert_eq!(wire.read_reply().await.ok().affected, 1);
    wire.read_reply().await.ok();
    assert_eq!(wire.read_reply().await.err().code, 1054);
    wire.read_reply().await.ok();
    assert_eq!(wire.read_reply().await.text(), "+02:00");
    assert_eq!(wire.read_reply().await.text(), "1");
    assert_eq!(wire.read_reply().await.text(), "last");
    assert_eq!(value(&mut other, "SELECT @@time_zone").await, "+01:00");
}

async fn pipelined_quit(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    let mut wire = client(&sidepool).await;
    let bytes = commands(&[(QUERY, b"SELECT 1"), (QUERY, b"SELECT 2"), (1, b"")]);
    wire.send_raw(&bytes).await.unwrap();
    assert_eq!(wire.read_reply().await.text(), "1");
    assert_eq!(wire.read_reply().await.text(), "2");
    assert!(wire.read_packet().await.is_err());
}

/// More than Sidepool takes ahead, with answers that are larger still, read only afterwards.
async fn many_pipelined(server: &Server) {
    const COUNT: usize = 1000;
    let sidepool = Sidepool::sharing(server, 1);
    let mut wire = client(&sidepool).await;
    let mut bytes = Vec::new();
    for n in 0..COUNT {
        let sql = format!("SELECT {n}, REPEAT('x', 100) /* {} */", "-".repeat(100));
        bytes.extend_from_slice(&commands(&[(QUERY, sql.as_bytes())]));
    }
    wire.send_raw(&bytes).await.unwrap();
    for n in 0..COUNT {
        assert_eq!(wire.read_reply().await.text(), n.to_string());
    }
}

async fn byte_by_byte(server: &Server) {
    server.database("t_rel_bytes");
    server.root("CREATE TABLE t_rel_bytes.t (a VARCHAR(20))");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair =
            Pair::connect(server, &sidepool, "t_rel_bytes", (LOCAL_FILES, without)).await;
        let lines = [
            (QUERY, &b"SELECT 'as slow as can be', 2"[..]),
            (14, b""),
            (2, b"t_rel_bytes"),
            (QUERY, b"SET time_zone = '+07:00'"),
            (QUERY, b"SELECT @@time_zone"),
            (QUERY, b"SELECT nonsense"),
        ];
        for (command, payload) in lines {
            for wire in [&mut pair.direct, &mut pair.through] {
                trickle(wire, &commands(&[(command, payload)])).await;
            }
            pair.answers(command).await;
        }
        let mut ids = Vec::new();
        for wire in [&mut pair.direct, &mut pair.through] {
            trickle(wire, &commands(&[(PREPARE, b"SELECT ?, 'x'")])).await;
            ids.push(read_answer(wire, PREPARE).await[0].1[1..5].to_vec());
        }
        for (wire, id) in [&mut pair.direct, &mut pair.through].into_iter().zip(ids) {
            let execute = [&id[..], b"\0\x01\0\0\0\0\x01\x03\0\x07\0\0\0"].concat();
            trickle(wire, &commands(&[(EXECUTE, &execute)])).await;
        }
        assert!(error(&pair.answers(EXECUTE).await).is_none());
        pair.query("LOAD DATA LOCAL INFILE 'f' INTO TABLE t").await;
        for wire in [&mut pair.direct, &mut pair.through] {
            trickle(wire, b"\x05\0\0\x02ab\nc\n\x02\0\0\x03d\n\0\0\0\x04").await;
        }
        assert!(error(&pair.answers(QUERY).await).is_none());
        pair.run("SELECT COUNT(*), MAX(a) FROM t").await;
    }
}

/// Each byte in a segment of its own.
async fn trickle(wire: &mut Wire, bytes: &[u8]) {
    for byte in bytes {
        wire.send_raw(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// 200 rows of a megabyte.
const ROWS_OF_A_MEGABYTE: &[u8] =
    b"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 200) \
    SELECT REPEAT('x', 1000000) FROM s";

async fn slow_reader(server: &Server) {
    let sidepool = Sidepool::sharing(server, 2);
    let mut wire = client(&sidepool).await;
    let mut other = client(&sidepool).await;
    wire.run("SELECT 1").await;
    let before = sidepool.peak_kb();
    wire.command(3, ROWS_OF_A_MEGABYTE).await;
    // A little now and then for a while, and then the rest at once.
    let all = 200 * (4 + 4 + 1_000_000);
    let began = Instant::now();
    let mut read = 0;
    while began.elapsed() < Duration::from_secs(2) && read < all / 4 {
        read += wire.discard(64 << 10).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(value(&mut other, "SELECT 1").await, "1");
    }
    let grown = sidepool.peak_kb() - before;
    assert!(grown < 20 << 10, "{grown} KB for one slow reader");
    while read < all {
        read += wire.discard(1 << 20).await.unwrap();
    }
    let grown = sidepool.peak_kb() - before;
    assert!(grown < 20 << 10, "{grown} KB for one reader");
}

async fn local_infile(server: &Server) {
    server.database("t_rel_file");
    server.root("CREATE TABLE t_rel_file.t (a VARCHAR(200))");
    let sidepool = Sidepool::sharing(server, 2);
    let load = "LOAD DATA LOCAL INFILE 'some file' INTO TABLE t";
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_file", (LOCAL_FILES, without)).await;
        // Refused or empty: an empty packet at once.
        assert_eq!(pair.query(load).await, [(1, b"\xfbsome file".to_vec())]);
        send_file(&mut pair, 2, &[], 1).await;
        // A megabyte in packets of different sizes, more of them than there are sequence ids.
        let file: Vec<u8> = (0..10_000)
            .flat_map(|n| format!("{n:099}\n").into_bytes())
            .collect();
        for size in [1_000_000, 37_111, 3_000] {
            pair.query(load).await;
            let answer = send_file(&mut pair, 2, &file, size).await;
            assert_eq!(parse_ok(&answer[0].1).affected, 10_000);
            pair.run("SELECT COUNT(*), SUM(a) FROM t").await;
        }
        // Among other statements the request, and so the file, has other sequence ids.
        let several = format!("SELECT 1; {load}; SELECT 'behind'; DO 0");
        let request = pair.query(&several).await;
        send_file(&mut pair, request.last().unwrap().0 + 1, b"a\nb\n", 3).await;
        server.root("DELETE FROM t_rel_file.t");
    }
    // A client that does not allow it is asked by nobody.
    let mut unwilling = Pair::connect(server, &sidepool, "t_rel_file", (0, 0)).await;
    assert!(error(&unwilling.query(load).await).is_some());
    unwilling.run("SELECT 1").await;
}

/// Sends a file, in packets from that sequence id on; what comes behind it.
async fn send_file(pair: &mut Pair, first_seq: u8, file: &[u8], size: usize) -> Packets {
    for wire in [&mut pair.direct, &mut pair.through] {
        let mut seq = first_seq;
        for piece in file.chunks(size) {
            wire.send(seq, piece).await;
            seq = seq.wrapping_add(1);
        }
        wire.send(seq, b"").await;
    }
    pair.answers(QUERY).await
}

/// Servers that meet an error in a file read it to its end before they say so.
async fn unwanted_file(server: &Server) {
    server.database("t_rel_unwanted");
    server.root("CREATE TABLE t_rel_unwanted.t (a INT PRIMARY KEY)");
    let sidepool = Sidepool::sharing(server, 2);
    let load = "LOAD DATA LOCAL INFILE 'f' INTO TABLE t_rel_unwanted.t (a) SET a = IF(a = 7, (SELECT 1 UNION SELECT 2), a)";
    for without in FRAMINGS {
        let mut pair =
            Pair::connect(server, &sidepool, "t_rel_unwanted", (LOCAL_FILES, without)).await;
        pair.query(load).await;
        let file: Vec<u8> = (0..100_000)
            .flat_map(|n| format!("{n}\n").into_bytes())
            .collect();
        let answer = send_file(&mut pair, 2, &file, 10_000).await;
        assert!(error(&answer).is_some(), "{answer:?}");
        pair.run("SELECT 'in step'").await;
    }
    // A missing table is an error at once, without a request.
    let mut pair = Pair::connect(server, &sidepool, "t_rel_unwanted", (LOCAL_FILES, 0)).await;
    assert!(
        error(
            &pair
                .query("LOAD DATA LOCAL INFILE 'f' INTO TABLE none")
                .await
        )
        .is_some()
    );
    let mut wire = client(&sidepool).await;
    assert!(!matches!(wire.query("SELECT 1").await, Reply::Err(_)));
}
