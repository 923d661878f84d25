//! A real client's bytes, damaged at random: whatever is made of them, Sidepool goes on.

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::*;
use crate::support::clients::{account, on_every_server};
use crate::support::eventually;
use crate::support::servers::Server;
use crate::support::wire::{Login, Wire};

on_every_server! {
    damaged_streams_do_no_harm => damaged;
}

const ROUNDS: usize = 300;
const AT_ONCE: usize = 16;
/// No answer for so long is taken for none.
const QUIET: Duration = Duration::from_millis(150);
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

/// One to four damages, anywhere.
fn damage(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(6) {
            0 => bytes[at] ^= 1 << numbers.below(8),
            1 => bytes[at] = numbers.below(256) as u8,
            2 => bytes.truncate(at.max(1)),
            3 => {
                let len = 1 + numbers.below(40);
                let new = numbers.bytes(len);
                bytes.splice(at..at, new);
            }
            4 => {
                let end = bytes.len().min(at + 1 + numbers.below(30));
                if end - at < bytes.len() {
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

/// The login and the commands of one client.
fn stream(round: usize, plugin: &str, numbers: &mut Numbers) -> (Vec<u8>, Vec<u8>) {
    let mut commands = commands();
    if round % 4 != 3 {
        // The undamaged one first, or the others would show little.
        if round > 0 {
            damage(&mut commands, numbers);
        }
        return (packet(1, &login(USER, plugin, b"")), commands);
    }
    // Somebody else each time, since failed logins are slowed down.
    let mut login = packet(1, &login(&format!("b_{round}"), plugin, b""));
    damage(&mut login, numbers);
    (login, commands)
}

/// Sends all of it, takes what comes, and leaves in one way or the other when nothing more does.
async fn play(address: &str, bytes: &[u8], ending: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    if ending == 0 {
        // Gone in the middle of it all.
        return;
    }
    let mut answer = [0; 4096];
    while let Ok(Ok(1..)) = timeout(QUIET, stream.read(&mut answer)).await {}
    if ending == 1 {
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        // A failed login may be one too many, and is then held up for as much as ten seconds.
        let ended = timeout(Duration::from_secs(12), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "its end is not noticed: {bytes:02x?}");
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
    let mut numbers = Numbers(SEED);
    let mut clients = JoinSet::new();
    for round in 0..ROUNDS {
        let (login, bytes) = stream(round, plugin, &mut numbers);
        let ending = numbers.below(3);
        let (address, bytes) = (address.clone(), [login, bytes].concat());
        clients.spawn(async move { play(&address, &bytes, ending).await });
        if clients.len() == AT_ONCE {
            clients.join_next().await.unwrap().unwrap();
        }
        if round % 50 == 0 {
            assert_serves(&sidepool).await;
        }
    }
    while let Some(played) = clients.join_next().await {
        played.unwrap();
    }
    let all = ROUNDS as f64;
    let succeeded = || sidepool.metric("sidepool_client_connections_setup_succeeded_total", "");
    assert!(succeeded() > all / 3.0, "many got in: {}", succeeded());
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
