//! Hazards 10 and 11: every answer, packet for packet, as the server itself frames it for this
//! client's capabilities; and no capability that Sidepool does not carry.

use super::*;
use crate::support::wire::{CONNECT_WITH_DB, DEPRECATE_EOF, FOUND_ROWS, SESSION_TRACK};

on_every_server! {
    h10_classic_framing_is_the_servers_own => classic;
    h10_deprecate_eof_framing_is_the_servers_own => modern;
    h10_classic_with_trackers_is_the_servers_own => classic_tracked;
    h11_only_known_capabilities_are_offered => offered;
    h11_found_rows_is_the_clients_choice => found_rows;
}

async fn classic(server: &Server) {
    compare(server, "t_h10c", 0, DEPRECATE_EOF).await;
}

async fn modern(server: &Server) {
    compare(server, "t_h10m", SESSION_TRACK, 0).await;
}

async fn classic_tracked(server: &Server) {
    compare(server, "t_h10t", SESSION_TRACK, DEPRECATE_EOF).await;
}

/// How many packets end an answer, by what its first one says.
#[derive(Clone, Copy)]
enum Shape {
    /// `COM_QUERY` and `COM_STMT_EXECUTE`.
    Results,
    /// Exactly this many packets.
    Packets(usize),
    /// Packets until an EOF, OK or ERR that is not the first.
    UntilEnd,
}

async fn compare(server: &Server, database: &str, with: u32, without: u32) {
    server.database(database);
    server.root(&format!(
        "CREATE TABLE {database}.t (id INT PRIMARY KEY, s VARCHAR(20)); \
         INSERT INTO {database}.t VALUES (1,'a'),(2,NULL),(3,'c')"
    ));
    server.routine(&format!(
        "CREATE PROCEDURE {database}.p() BEGIN SELECT 1; SELECT * FROM t; END"
    ));
    let sidepool = Sidepool::sharing(server, 2);
    let mut logs = Vec::new();
    for address in [server.address(), sidepool.address()] {
        let login = Login {
            database: Some(database),
            with,
            without,
            ..Login::to(&address)
        };
        let mut wire = Wire::connect(&login).await.unwrap();
        logs.push(run_script(&mut wire).await);
    }
    for (direct, through) in logs[0].iter().zip(&logs[1]) {
        assert_eq!(direct, through, "{}", direct.0);
    }
}

type Packets = Vec<(u8, Vec<u8>)>;

async fn run_script(wire: &mut Wire) -> Vec<(String, Packets)> {
    let deprecate = wire.has(DEPRECATE_EOF);
    let mut log = Vec::new();
    let mut statement = [0; 4];
    for (name, command, payload, shape) in
        text_script().into_iter().chain(binary_script(!deprecate))
    {
        let mut payload = payload;
        // The server's ids differ between two runs, so the statement's own stands in for id 1.
        if matches!(command, 23 | 26 | 28) && payload.starts_with(&[1, 0, 0, 0]) {
            payload[..4].copy_from_slice(&statement);
        }
        wire.command(command, &payload).await;
        let mut packets = read_answer(wire, shape).await;
        if command == 22 {
            statement.copy_from_slice(&packets[0].1[1..5]);
            packets[0].1[1..5].fill(0);
        }
        mask(name, &mut packets, deprecate);
        log.push((name.to_owned(), packets));
    }
    log
}

type Line = (&'static str, u8, Vec<u8>, Shape);

fn text_script() -> Vec<Line> {
    use Shape::Results;
    vec![
        (
            "rows",
            3,
            b"SELECT id, s FROM t ORDER BY id".into(),
            Results,
        ),
        (
            "no rows",
            3,
            b"SELECT id FROM t WHERE id > 9".into(),
            Results,
        ),
        (
            "ok with info",
            3,
            b"UPDATE t SET s = 'x' WHERE id = 9".into(),
            Results,
        ),
        ("error", 3, b"SELECT nonsense".into(), Results),
        (
            "several",
            3,
            b"SELECT 1; DO 0; SELECT id FROM t ORDER BY id".into(),
            Results,
        ),
        (
            "several with an error",
            3,
            b"SELECT 1; SELECT nonsense".into(),
            Results,
        ),
        (
            "error among rows",
            3,
            b"SELECT (SELECT a.id FROM t a WHERE a.id <= t.id) FROM t ORDER BY id".into(),
            Results,
        ),
    ]
}

fn binary_script(classic: bool) -> Vec<Line> {
    use Shape::{Packets as N, Results, UntilEnd};
    let eof = usize::from(classic);
    vec![
        ("field list", 4, b"t\0%".into(), UntilEnd),
        ("ping", 14, b"".into(), N(1)),
        ("set option", 27, b"\x01\x00".into(), N(1)),
        ("set option back", 27, b"\x00\x00".into(), N(1)),
        ("init db of nothing", 2, b"t_no_such_database".into(), N(1)),
        (
            "prepare",
            22,
            b"SELECT id, s FROM t WHERE id >= ? ORDER BY id".into(),
            N(5 + 2 * eof - 1),
        ),
        ("execute", 23, execute(1, 0, 2), Results),
        ("execute with a cursor", 23, execute(1, 1, 1), UntilEnd),
        ("fetch", 28, b"\x01\0\0\0\x02\0\0\0".into(), UntilEnd),
        (
            "fetch the rest",
            28,
            b"\x01\0\0\0\x09\0\0\0".into(),
            UntilEnd,
        ),
        ("reset statement", 26, b"\x01\0\0\0".into(), N(1)),
        (
            "execute an unknown statement",
            23,
            execute(99, 0, 1),
            Results,
        ),
        ("call", 3, b"CALL p()".into(), Results),
        ("statistics is text", 9, b"".into(), N(1)),
        ("unknown command", 200, b"".into(), N(1)),
    ]
}

/// `COM_STMT_EXECUTE` with one INT parameter.
fn execute(statement: u32, cursor: u8, parameter: u32) -> Vec<u8> {
    let mut out = statement.to_le_bytes().to_vec();
    out.push(cursor);
    out.extend_from_slice(&1u32.to_le_bytes());
    out.extend_from_slice(&[0, 1, 3, 0]);
    out.extend_from_slice(&parameter.to_le_bytes());
    out
}

async fn read_answer(wire: &mut Wire, shape: Shape) -> Packets {
    let mut packets = Packets::new();
    match shape {
        Shape::Packets(count) => {
            for _ in 0..count {
                packets.push(wire.read_packet().await.unwrap());
                if packets[0].1[0] == 0xff {
                    break;
                }
            }
        }
        Shape::UntilEnd => loop {
            let packet = wire.read_packet().await.unwrap();
            let end = is_end(&packet.1);
            packets.push(packet);
            if end {
                break;
            }
        },
        Shape::Results => while read_result(wire, &mut packets).await {},
    }
    packets
}

fn is_end(payload: &[u8]) -> bool {
    payload[0] == 0xff || payload[0] == 0xfe && payload.len() < 0xff_ffff
}

/// Reads one result; whether another follows.
async fn read_result(wire: &mut Wire, packets: &mut Packets) -> bool {
    const MORE: u8 = 8;
    let first = wire.read_packet().await.unwrap();
    let kind = first.1[0];
    packets.push(first.clone());
    match kind {
        0xff => return false,
        0 => return first.1[3] & MORE != 0,
        _ => {}
    }
    let columns = usize::from(kind);
    let ends = if wire.has(DEPRECATE_EOF) { 1 } else { 2 };
    let mut seen = 0;
    let mut read = 0;
    loop {
        let packet = wire.read_packet().await.unwrap();
        read += 1;
        let payload = packet.1.clone();
        packets.push(packet);
        if payload[0] == 0xff {
            return false;
        }
        if read > columns && is_end(&payload) {
            seen += 1;
            if seen == ends {
                // EOF: header, warnings, status. OK with header fe: header, two counts of 0, status.
                return payload[3] & MORE != 0;
            }
        }
    }
}

/// What may differ from a dedicated connection: the flags and warnings of an EOF that only ends
/// column definitions, the text of `COM_STATISTICS`, and the texts of errors for unknown commands.
fn mask(name: &str, packets: &mut Packets, deprecate: bool) {
    if name.starts_with("statistics") {
        packets.iter_mut().for_each(|(_, payload)| payload.clear());
    }
    if !deprecate {
        let last = packets.len() - 1;
        for (i, (_, payload)) in packets.iter_mut().enumerate() {
            if payload.first() == Some(&0xfe) && payload.len() == 5 && i != last {
                payload.truncate(1);
            }
        }
    }
}

async fn offered(server: &Server) {
    const TLS: u32 = 1 << 11;
    const QUERY_ATTRIBUTES: u32 = 1 << 27;
    const COMPRESS: u32 = 1 << 5;
    const OPTIONAL_METADATA: u32 = 1 << 25;
    const ZSTD: u32 = 1 << 26;
    let sidepool = Sidepool::sharing(server, 1);
    let address = sidepool.address();
    let everything = Login {
        with: !(TLS | CONNECT_WITH_DB | QUERY_ATTRIBUTES),
        ..Login::to(&address)
    };
    let mut wire = Wire::connect(&everything).await.unwrap();
    assert_eq!(wire.capabilities & (COMPRESS | OPTIONAL_METADATA | ZSTD), 0);
    assert_eq!(
        value(&mut wire, "SELECT 'still understood'").await,
        "still understood"
    );
    assert!(
        wire.thread_id >= 1 << 31,
        "ids of Sidepool are disjoint from the servers'"
    );
}

async fn found_rows(server: &Server) {
    server.database("t_h11");
    server.root("CREATE TABLE t_h11.t (a INT); INSERT INTO t_h11.t VALUES (1),(1)");
    let sidepool = Sidepool::sharing(server, 2);
    let address = sidepool.address();
    let login = Login {
        database: Some("t_h11"),
        ..Login::to(&address)
    };
    let mut changed = Wire::connect(&login).await.unwrap();
    let mut found = Wire::connect(&Login {
        with: FOUND_ROWS,
        ..login.clone()
    })
    .await
    .unwrap();
    for _ in 0..2 {
        assert_eq!(changed.run("UPDATE t SET a = 1").await.ok().affected, 0);
        assert_eq!(found.run("UPDATE t SET a = 1").await.ok().affected, 2);
    }
}
