//! Packets at, around and beyond 16 MB, where one becomes several. Servers take 64 MB.

use super::tape::{EXECUTE, FRAMINGS, LONG_DATA, Pair, QUERY, error};
use super::*;
use crate::support::wire::LOCAL_FILES;

on_every_server! {
    commands_of_16_megabytes => commands;
    rows_of_16_megabytes => rows_down;
    parameters_of_16_megabytes => parameters;
    a_statement_beyond_the_servers_limit_is_refused_by_it => too_large;
    a_file_in_packets_of_16_megabytes => file;
    large_values_leave_no_memory_behind => memory;
    large_packets_pass_over_tls => over_tls;
}

const MEGABYTE: usize = 1 << 20;
/// The longest payload of one packet.
const FULL: usize = 0xff_ffff;

/// Payloads just short of a full packet, exactly one, more, exactly two; fewer of them in the framing
/// that is not translated.
fn sizes(without: u32) -> &'static [usize] {
    match without {
        0 => &[FULL, 20 * MEGABYTE],
        _ => &[FULL - 1, FULL, FULL + 1, 2 * FULL],
    }
}

async fn commands(server: &Server) {
    server.database("t_rel_large");
    let sidepool = Sidepool::sharing(server, 2);
    let mut other = client(&sidepool).await;
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_large", (0, without)).await;
        for &size in sizes(without) {
            // The command's byte, the statement, the value.
            let head = "SELECT LENGTH('";
            let tail = format!("'), {size}");
            let value_len = size - 1 - head.len() - tail.len();
            let sql = [head.as_bytes(), &vec![b'x'; value_len], tail.as_bytes()].concat();
            assert_eq!(sql.len() + 1, size);
            let answer = pair.same(QUERY, &sql).await;
            assert!(error(&answer).is_none(), "{size}: {:?}", error(&answer));
            assert_eq!(
                value(&mut other, "SELECT 'still right'").await,
                "still right"
            );
            pair.run("SELECT 'in step'").await;
        }
        let nonsense = [b"SELECT nonsense /*", &vec![b'x'; FULL][..], b"*/"].concat();
        assert_eq!(
            error(&pair.same(QUERY, &nonsense).await).unwrap().code,
            1054
        );
        pair.run("SELECT 'in step'").await;
    }
}

async fn rows_down(server: &Server) {
    server.database("t_rel_down");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_down", (0, without)).await;
        for &size in sizes(without) {
            // In front of a value stands its length, of four bytes or of nine.
            let len = size - if size - 4 > FULL { 9 } else { 4 };
            let answer = pair.run(&format!("SELECT REPEAT('x', {len})")).await;
            assert!(answer.iter().any(|(_, row)| row.len() == size), "{len}");
            pair.run("SELECT 'in step'").await;
        }
        // Several in one row, among small ones, in binary too.
        let sql = format!(
            "SELECT 1, REPEAT('x', {FULL}), REPEAT('y', {FULL}), NULL UNION ALL SELECT 2, '', NULL, 'z'"
        );
        pair.run(&sql).await;
        let statement = pair.prepare(&sql).await;
        pair.execute(&statement).await;
    }
}

async fn parameters(server: &Server) {
    server.database("t_rel_bigparam");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_bigparam", (0, without)).await;
        let statement = pair.prepare("SELECT LENGTH(?), 1").await;
        for &size in sizes(without) {
            // Command byte, id, and as below.
            let fixed = 1 + 4 + 9;
            let len = size - fixed - if size > FULL + fixed { 9 } else { 4 };
            let mut execute = vec![0, 1, 0, 0, 0, 0, 1, 252, 0];
            if size > FULL + fixed {
                execute.push(0xfe);
                execute.extend_from_slice(&(len as u64).to_le_bytes());
            } else {
                execute.push(0xfd);
                execute.extend_from_slice(&(len as u32).to_le_bytes()[..3]);
            }
            execute.resize(execute.len() + len, b'p');
            let answer = pair.on(&statement, EXECUTE, &execute).await;
            assert!(error(&answer).is_none(), "{size}: {:?}", error(&answer));
            pair.run("SELECT 'in step'").await;
        }
        for size in [FULL, 20 * MEGABYTE] {
            // Command byte, id, parameter number.
            let piece = [&[0, 0], &vec![b'l'; size - 7][..]].concat();
            pair.on(&statement, LONG_DATA, &piece).await;
            pair.on(&statement, LONG_DATA, b"\0\0end").await;
            let answer = pair
                .on(&statement, EXECUTE, &[0, 1, 0, 0, 0, 0, 1, 252, 0])
                .await;
            let len = (size - 7 + 3).to_string();
            assert!(error(&answer).is_none(), "{:?}", error(&answer));
            // Binary rows: the length is a number of 8 bytes.
            let shown = len.parse::<u64>().unwrap().to_le_bytes();
            let seen = answer
                .iter()
                .any(|(_, row)| row.windows(4).any(|part| part == &shown[..4]));
            assert!(seen, "{answer:?}");
        }
    }
}

/// Servers answer 1153 while the statement still comes, and close.
async fn too_large(server: &Server) {
    let sidepool = Sidepool::sharing(server, 2);
    let mut wire = client(&sidepool).await;
    let mut other = client(&sidepool).await;
    let sql = [b"\x03DO '", &vec![b'x'; 70 * MEGABYTE][..], b"'"].concat();
    let mut packets = Vec::new();
    for (seq, chunk) in sql.chunks(FULL).enumerate() {
        packets.extend_from_slice(&(chunk.len() as u32 | (seq as u32) << 24).to_le_bytes());
        packets.extend_from_slice(chunk);
    }
    // The connection may end before all is written.
    let _ = wire.send_raw(&packets).await;
    let error = wire.read_reply().await.err();
    assert!([1153, 2013].contains(&error.code), "{error:?}");
    assert_eq!(value(&mut other, "SELECT 1").await, "1");
}

/// Lines beyond 10 are kept from the table, so nothing is stored of what passes.
async fn file(server: &Server) {
    server.database("t_rel_bigfile");
    server.root("CREATE TABLE t_rel_bigfile.t (a VARCHAR(200))");
    let sidepool = Sidepool::sharing(server, 2);
    let lines: Vec<u8> = (0..200_000)
        .flat_map(|n| format!("{n:099}\n").into_bytes())
        .collect();
    for without in FRAMINGS {
        let mut pair =
            Pair::connect(server, &sidepool, "t_rel_bigfile", (LOCAL_FILES, without)).await;
        let load = "LOAD DATA LOCAL INFILE 'large' INTO TABLE t IGNORE 199990 LINES";
        // Packets that are full have another behind them, though the other be empty.
        for size in [FULL, FULL - 1, 20_000_000] {
            let request = pair.query(load).await;
            assert_eq!(request.last().unwrap().1[0], 0xfb);
            for wire in [&mut pair.direct, &mut pair.through] {
                let mut seq = 2u8;
                for piece in lines.chunks(size) {
                    wire.send(seq, piece).await;
                    seq = seq.wrapping_add((piece.len() / FULL) as u8 + 1);
                }
                wire.send(seq, b"").await;
            }
            let answer = pair.answers(QUERY).await;
            assert!(error(&answer).is_none(), "{size}: {:?}", error(&answer));
        }
        pair.run("SELECT COUNT(*), SUM(a) FROM t").await;
    }
}

/// What a value needed while it passed is given back.
async fn memory(server: &Server) {
    let sidepool = Sidepool::sharing(server, 2);
    let mut wire = client(&sidepool).await;
    wire.run("SELECT 1").await;
    let before = sidepool.peak_kb();
    let sql = format!("SELECT LENGTH('{}')", "x".repeat(40 * MEGABYTE));
    assert_eq!(wire.query(&sql).await.text(), (40 * MEGABYTE).to_string());
    wire.command(3, b"SELECT REPEAT('x', 60000000)").await;
    assert_eq!(wire.skip_result().await.0, 1);
    let grown = sidepool.peak_kb() - before;
    assert!(
        grown < 20 << 10,
        "{grown} KB for a statement and a row of 40 MB and more"
    );
}

/// The client's side is encrypted; the server's is where the server offers it.
async fn over_tls(server: &Server) {
    let sidepool = Sidepool::sharing(server, 2);
    let address = sidepool.address();
    for without in FRAMINGS {
        let login = Login {
            without,
            tls: true,
            ..Login::to(&address)
        };
        let mut wire = Wire::connect(&login).await.unwrap();
        for size in [FULL - 4, 20 * MEGABYTE] {
            let sql = format!("SELECT REPEAT('x', {size}), 'behind'");
            let rows = wire.query(&sql).await.rows();
            assert_eq!(rows[0][0].as_deref().map(<[u8]>::len), Some(size));
            assert_eq!(rows[0][1].as_deref(), Some(&b"behind"[..]));
            let sql = format!("SELECT LENGTH('{}')", "x".repeat(size));
            assert_eq!(wire.query(&sql).await.text(), size.to_string());
        }
    }
}
