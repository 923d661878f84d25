//! Commands that are none, or not well formed: what the server says to a client of its own is what a
//! client of Sidepool is told, packet by packet.

use super::*;
use crate::support::clients::{is_mariadb, on_every_server};
use crate::support::eventually;
use crate::support::servers::{PASSWORD, Server};
use crate::support::wire::{Login, Wire, parse_err};

on_every_server! {
    unknown_commands_are_told_so => unknown;
    malformed_commands_get_the_servers_answer => malformed;
    malformed_commands_in_a_transaction_get_the_servers_answer => malformed_in_transaction;
    half_a_kill_kills_nobody => half_a_kill;
    replication_is_refused_by_name => replication;
    a_command_out_of_turn_ends_the_connection => out_of_turn;
    text_in_no_encoding_arrives_as_it_is => any_bytes;
}

/// Commands that are not compared: they stop the server, end the connection, or tell what differs.
const NOT_COMPARED: [u8; 6] = [0x01, 0x08, 0x09, 0x0a, 0x0d, 0x11];
/// Commands that name something by a number.
const BY_NUMBER: [u8; 6] = [0x0c, 0x17, 0x1a, 0x1b, 0x1c, 0xfa];
const REPLICATION: [(u8, &str); 7] = [
    (0x12, "binlog_dump"),
    (0x13, "table_dump"),
    (0x14, "connect_out"),
    (0x15, "register_slave"),
    (0x1e, "binlog_dump_gtid"),
    // MySQL's alone.
    (0x20, "clone"),
    (0x21, "subscribe_group_replication"),
];

/// Everything that comes for one packet and a statement behind it; ends with the statement's row, or
/// with the connection.
async fn said(wire: &mut Wire, payload: &[u8]) -> Vec<(u8, Vec<u8>)> {
    wire.send(0, payload).await;
    // Binary, since a connection's character set is shown with every other text.
    wire.command(3, b"SELECT _binary'alive'").await;
    let mut said = Vec::new();
    loop {
        let next = timeout(Duration::from_secs(5), wire.read_packet()).await;
        match next.expect("an answer or the end") {
            Ok(packet) => {
                let over = packet.1 == b"\x05alive";
                said.push(packet);
                if over {
                    // The end of the rows.
                    wire.read_packet().await.unwrap();
                    return said;
                }
            }
            Err(_) => {
                said.push((0, b"the end".to_vec()));
                return said;
            }
        }
    }
}

/// The server and Sidepool, side by side.
struct Both<'t> {
    addresses: [&'t str; 2],
    /// What is run in front of each comparison.
    before: &'static str,
    wires: Option<[Wire; 2]>,
}

impl Both<'_> {
    async fn compare(&mut self, payload: &[u8]) {
        let [mut direct, mut through] = match self.wires.take() {
            Some(wires) => wires,
            None => {
                let [direct, through] = self.addresses.map(Login::to);
                [
                    Wire::connect(&direct).await.unwrap(),
                    Wire::connect(&through).await.unwrap(),
                ]
            }
        };
        direct.run(self.before).await;
        through.run(self.before).await;
        let expected = said(&mut direct, payload).await;
        let got = said(&mut through, payload).await;
        let text = |said: &[(u8, Vec<u8>)]| -> Vec<String> {
            let packet = |(seq, bytes): &(u8, Vec<u8>)| format!("{seq} {}", bytes.escape_ascii());
            said.iter().map(packet).collect()
        };
        assert_eq!(text(&got), text(&expected), "{payload:02x?}");
        if expected.last().is_some_and(|(_, last)| last != b"the end") {
            self.wires = Some([direct, through]);
        }
    }
}

fn is_replication(server: &Server, byte: u8) -> bool {
    let mysqls = byte == 0x20 || byte == 0x21;
    REPLICATION.iter().any(|&(known, _)| known == byte) && !(mysqls && is_mariadb(server))
}

async fn unknown(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    let addresses = [&*server.address(), &*sidepool.address()];
    let mut both = Both {
        addresses,
        before: "DO 0",
        wires: None,
    };
    both.compare(b"").await;
    let known = 0x01..=0x1f;
    for byte in 0..=255u8 {
        let internal = [0x00, 0x0b, 0x0f, 0x10, 0x1d].contains(&byte);
        let unknown = !known.contains(&byte) && byte != 0xfa && !is_replication(server, byte);
        if internal || unknown {
            both.compare(&[byte]).await;
            both.compare(&[byte, 1, 2, 3]).await;
        }
    }
    assert_serves(&sidepool).await;
}

async fn malformed(server: &Server) {
    compare_malformed(server, "DO 0").await;
}

/// There every command reaches the server, on a connection that is kept.
async fn malformed_in_transaction(server: &Server) {
    compare_malformed(server, "BEGIN").await;
}

async fn compare_malformed(server: &Server, before: &'static str) {
    let sidepool = Sidepool::start(server, &[]);
    let addresses = [&*server.address(), &*sidepool.address()];
    let mut both = Both {
        addresses,
        before,
        wires: None,
    };
    for byte in (0x02..=0x1f).chain([0xfa]) {
        if NOT_COMPARED.contains(&byte) || is_replication(server, byte) {
            continue;
        }
        for rest in [
            &b""[..],
            b"\x01",
            b"\x01\0\0",
            b"\x99\x99\x99\0",
            b"\x99\x99\x99\0\0\0\0\0\0",
            b"\x99\x99\x99\0\0\x01\0\0\0\xff\xff\xff",
            b"no\0such\0thing",
            &[0xff; 300],
        ] {
            let flushes = byte == 0x07 && !rest.is_empty();
            // Ids from 2^31 on are Sidepool's.
            let own_kill = byte == 0x0c && rest.starts_with(&[0xff; 4]);
            // MariaDB takes what is missing from what the packet before has left in its buffer.
            let short = is_mariadb(server) && rest.len() < 4 && BY_NUMBER.contains(&byte);
            if !flushes && !own_kill && !short {
                both.compare(&[&[byte], rest].concat()).await;
            }
        }
    }
    assert_serves(&sidepool).await;
}

async fn half_a_kill(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    let mut wire = client(&sidepool).await;
    let mut other = client(&sidepool).await;
    // What MariaDB would find in its buffer is the number of the very connection.
    let id = other.query("SELECT CONNECTION_ID() + 0").await.text();
    let id = id.parse::<u32>().unwrap().to_le_bytes();
    other.quit().await;
    for len in 0..4 {
        let long = [b"\x03/*", &id[2..], b"*/ DO 0"].concat();
        wire.send(0, &long).await;
        wire.read_reply().await.ok();
        wire.command(0x0c, &id[..len]).await;
        let error = wire.read_reply().await.err();
        assert!([1835, 1047].contains(&error.code), "{error:?}");
        assert_eq!(wire.query("SELECT 7").await.text(), "7");
    }
    assert_serves(&sidepool).await;
}

async fn replication(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    let mut wire = client(&sidepool).await;
    for (byte, name) in REPLICATION {
        if !is_replication(server, byte) {
            continue;
        }
        wire.command(byte, b"\x04\0\0\0\0\0\x01\0\0\0mysql-bin.000001")
            .await;
        let (seq, answer) = wire.read_packet().await.unwrap();
        let error = parse_err(&answer);
        assert_eq!((seq, error.code, &error.state[..]), (1, 1235, "42000"));
        let message = error.message;
        assert!(message.contains(&format!("'{name}'")), "{message}");
        assert!(
            message.contains("connect to the database itself"),
            "{message}"
        );
        assert_eq!(wire.query("SELECT 7").await.text(), "7");
    }
    assert_serves(&sidepool).await;
}

async fn out_of_turn(server: &Server) {
    server.database("t_bad_turn");
    server.root("CREATE TABLE t_bad_turn.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 1);
    for seq in [1, 7, 255] {
        let mut wire = client(&sidepool).await;
        wire.run("BEGIN").await;
        wire.run("INSERT INTO t_bad_turn.t VALUES (1)").await;
        wire.send(seq, b"\x03COMMIT").await;
        let (_, answer) = wire.read_packet().await.unwrap();
        assert_eq!(parse_err(&answer).code, 1156);
        assert!(wire.read_packet().await.is_err());
    }
    let mut wire = client(&sidepool).await;
    let count = wire.query("SELECT COUNT(*) FROM t_bad_turn.t").await;
    assert_eq!(count.text(), "0");
    eventually("all are counted", async || {
        sidepool.metric(CLOSED, "\"protocol_error\"") == 3.0
    })
    .await;
    assert_serves(&sidepool).await;
}

async fn any_bytes(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    // Neither a quote nor a backslash, and no byte that would be the first of several.
    let odd: Vec<u8> = (0u8..=255).filter(|b| !b"'\\".contains(b)).collect();
    for charset in [8u8, 63, 45] {
        let (direct, through) = (server.address(), sidepool.address());
        let mut answers = Vec::new();
        for address in [&direct, &through] {
            let login = Login {
                charset,
                password: PASSWORD,
                ..Login::to(address)
            };
            let mut wire = Wire::connect(&login).await.unwrap();
            for before in ["_binary", ""] {
                let sql = [b"SELECT HEX(", before.as_bytes(), b"'", &odd, b"')"].concat();
                let reply = wire.query_bytes(&sql).await;
                if before == "_binary" {
                    let hex: String = odd.iter().map(|b| format!("{b:02X}")).collect();
                    assert_eq!(reply.clone().text(), hex, "charset {charset}");
                }
                answers.push(reply);
            }
            // In a name, where it cannot be right.
            let sql = b"SELECT 1 AS `\xff\xfe\x80` FROM `\xc3\x28`.`\xf0`";
            answers.push(wire.query_bytes(sql).await);
        }
        let (direct, through) = answers.split_at(answers.len() / 2);
        assert_eq!(through, direct, "charset {charset}");
    }
    assert_serves(&sidepool).await;
}
