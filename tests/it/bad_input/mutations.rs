//! A real client's bytes, damaged at random: whatever is made of them, Sidepool goes on.

use tokio::io::AsyncWriteExt;

use super::*;
use crate::support::clients::{account, on_every_server};
use crate::support::eventually;
use crate::support::servers::Server;
use crate::support::wire::{Login, Wire};

on_every_server! {
    damaged_streams_do_no_harm => damaged;
}

const ROUNDS: usize = 250;
const SEED: u64 = 20_261_123;
const USER: &str = "b_damaged";

/// The commands of a client that does a little of everything.
fn commands() -> Vec<u8> {
    let query = |sql: &str| packet(0, &[b"\x03", sql.as_bytes()].concat());
    [
        query("SELECT 1"),
        query("SET NAMES latin1"),
        packet(0, b"\x02t_bad_damaged"),
        query("BEGIN"),
        query("INSERT INTO t VALUES (1)"),
        query("COMMIT"),
        packet(0, b"\x16SELECT a FROM t WHERE a = ?"),
        packet(
            0,
            b"\x17\x01\0\0\0\0\x01\0\0\0\0\x01\x08\0\x01\0\0\0\0\0\0\0",
        ),
        packet(0, b"\x18\x01\0\0\0\0\0long data"),
        packet(0, b"\x19\x01\0\0\0"),
        query("SET @x = 1, time_zone = '+01:00'"),
        query("SELECT @x, 'it''s', \"a\\\"b\" /* c */ -- d"),
        query("CREATE TEMPORARY TABLE tt (a INT)"),
        packet(0, b"\x0e"),
        packet(0, b"\x1b\x01\0"),
        packet(0, b"\x04t\0%"),
        packet(0, b"\x1f"),
        query("SELECT * FROM t; SELECT 2"),
        packet(0, b"\x01"),
    ]
    .concat()
}

/// One to four damages, anywhere behind `from`.
fn damage(bytes: &mut Vec<u8>, from: usize, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let at = from + numbers.below(bytes.len() - from);
        match numbers.below(6) {
            0 => bytes[at] ^= 1 << numbers.below(8),
            1 => bytes[at] = numbers.below(256) as u8,
            2 => bytes.truncate(at.max(from + 1)),
            3 => {
                let len = 1 + numbers.below(40);
                let new = numbers.bytes(len);
                bytes.splice(at..at, new);
            }
            4 => {
                let end = bytes.len().min(at + 1 + numbers.below(30));
                if end - at < bytes.len() - from {
                    bytes.drain(at..end);
                }
            }
            _ => {
                let end = bytes.len().min(at + 1 + numbers.below(60));
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

async fn damaged(server: &Server) {
    account(server, USER);
    // Without a password a login can be recorded: it does not depend on the nonce.
    server.root(&format!("ALTER USER '{USER}'@'%' IDENTIFIED BY ''"));
    server.database("t_bad_damaged");
    server.root("CREATE TABLE t_bad_damaged.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_POOL__MAX_CONNECTIONS", "8")]);
    let address = sidepool.address();
    let honest = Login {
        user: USER,
        password: "",
        ..Login::to(&address)
    };
    let greeted = Wire::connect(&honest).await.unwrap();
    let plugin = match greeted.server_version.contains("MariaDB") {
        true => "mysql_native_password",
        false => "caching_sha2_password",
    };
    greeted.quit().await;
    let logged_in = packet(1, &login(USER, plugin, b""));
    let mut numbers = Numbers(SEED);
    for round in 0..ROUNDS {
        let mut bytes = [&logged_in[..], &commands()].concat();
        // The undamaged one first, or the others would show little.
        if round > 0 {
            let from = match round % 4 {
                0 => 0,
                _ => logged_in.len(),
            };
            damage(&mut bytes, from, &mut numbers);
        }
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        match numbers.below(3) {
            // Everything is answered or refused.
            0 | 1 => {
                let _ = stream.shutdown().await;
                packets_to_the_end(&mut stream).await;
            }
            // Gone in the middle of it all.
            _ => drop(stream),
        }
        if round % 50 == 0 {
            assert_serves(&sidepool).await;
        }
    }
    let all = ROUNDS as f64;
    let succeeded = || sidepool.metric("sidepool_client_connections_setup_succeeded_total", "");
    assert!(succeeded() > all / 2.0, "most got in: {}", succeeded());
    eventually("nobody is left", async || {
        sidepool.metric("sidepool_client_connections", "") == 0.0
            && sidepool.metric("sidepool_client_handshakes", "") == 0.0
            && sidepool.metric("sidepool_pool_connections", "\"borrowed\"") == 0.0
    })
    .await;
    assert_eq!(sidepool.metric("sidepool_sessions_pinned", ""), 0.0);
    assert_eq!(sidepool.metric("sidepool_sessions_in_transaction", ""), 0.0);
    assert_serves(&sidepool).await;
}
