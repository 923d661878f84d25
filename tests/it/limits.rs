//! What is bounded: memory whatever passes, backend connections whoever is connected, clients, and
//! what somebody who has not logged in may cost.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;

use crate::support::clients::{account, client, connections, on_every_server, root, value};
use crate::support::eventually;
use crate::support::servers::{Make, Server, shared};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{DEPRECATE_EOF, Login, Wire};

on_every_server! {
    a_gigabyte_passes_in_little_memory => gigabyte;
    thousands_of_idle_clients => thousands;
}

/// One at a time of those that take the machine's time or memory.
async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

const MEGABYTES_100: u64 = 100 << 10;

async fn gigabyte(server: &Server) {
    const ROWS: usize = 1000;
    let _turn = alone().await;
    let sidepool = Sidepool::sharing(server, 2);
    // Most drivers want EOF packets, so that Sidepool has to look at the rows.
    let address = sidepool.address();
    let login = Login {
        without: DEPRECATE_EOF,
        ..Login::to(&address)
    };
    let mut wire = Wire::connect(&login).await.unwrap();
    wire.run("SELECT 1").await;
    let sql = format!(
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {ROWS}) \
         SELECT REPEAT('x', {}) FROM s",
        1 << 20
    );
    let began = Instant::now();
    wire.command(3, sql.as_bytes()).await;
    let (rows, bytes) = wire.skip_result().await;
    let took = began.elapsed();
    // Each value has its length in front, of four bytes.
    assert_eq!((rows, bytes), (ROWS, ROWS * ((1 << 20) + 4)));
    let peak = sidepool.peak_kb();
    assert!(peak < MEGABYTES_100, "{peak} KB resident in {took:?}");
    assert_eq!(value(&mut wire, "SELECT 'in step'").await, "in step");
}

const CLIENTS: usize = 5000;
const POOL: usize = 4;

async fn thousands(server: &Server) {
    let user = "l_many";
    account(server, user);
    allow_descriptors(CLIENTS as u64 + 1000);
    let _turn = alone().await;
    let settings = [
        ("SIDEPOOL_POOL__MAX_CONNECTIONS", &POOL.to_string()[..]),
        ("SIDEPOOL_AUTH__RECHECK", "1h"),
        ("SIDEPOOL_LOG__LEVEL", "info"),
    ];
    let sidepool = Sidepool::start(server, &settings);
    let mut watch = root(server).await;
    let first = log_in(sidepool.address(), user).await;
    let before = sidepool.resident_kb();
    let mut clients = vec![first];
    let mut logins = JoinSet::new();
    for n in 1..CLIENTS {
        if n > 100 {
            clients.push(logins.join_next().await.unwrap().unwrap());
        }
        logins.spawn(log_in(sidepool.address(), user));
    }
    clients.extend(logins.join_all().await);
    let count = |name: &str, labels: &str| sidepool.metric(name, labels);
    assert_eq!(count("sidepool_client_connections", ""), CLIENTS as f64);
    assert_eq!(count("sidepool_client_logins_total", "backend"), 1.0);
    for round in 0..2 {
        // All at once, over those few.
        let mut working: JoinSet<_> = clients.drain(..).map(|wire| work(wire, round)).collect();
        while let Some(wire) = working.join_next().await {
            clients.push(wire.unwrap());
            if clients.len().is_multiple_of(50) {
                let seen = connections(&mut watch, user).await;
                assert!(seen <= POOL, "{seen} connections in round {round}");
            }
        }
        let kb = sidepool.resident_kb().saturating_sub(before);
        assert!(kb < 100 << 10, "{kb} KB for {CLIENTS} idle clients");
    }
    assert_eq!(count("sidepool_pool_waiters", ""), 0.0);
    drop(clients);
    eventually("everybody has left", async || {
        sidepool.metric("sidepool_client_connections", "") == 0.0
    })
    .await;
    assert_eq!(
        value(&mut log_in(sidepool.address(), user).await, "SELECT 1").await,
        "1"
    );
}

async fn log_in(address: String, user: &'static str) -> Wire {
    let login = Login {
        user,
        ..Login::to(&address)
    };
    Wire::connect(&login).await.unwrap()
}

async fn work(mut wire: Wire, round: usize) -> Wire {
    let expected = format!("{}-{round}", wire.thread_id);
    let sql = format!("SELECT '{expected}'");
    assert_eq!(value(&mut wire, &sql).await, expected);
    wire
}

/// Raises this process's own limit as far as needed; Sidepool raises its own.
fn allow_descriptors(needed: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    assert!(
        enough(maximum),
        "{needed} open files are needed; the hard limit (ulimit -Hn) is {maximum:?}"
    );
    if !enough(current) {
        let wanted = Rlimit {
            current: Some(needed),
            maximum,
        };
        setrlimit(Resource::Nofile, wanted).unwrap();
    }
}

fn failed(sidepool: &Sidepool, reason: &str) -> f64 {
    let labels = format!("\"{reason}\"");
    sidepool.metric("sidepool_client_connections_setup_failed_total", &labels)
}

/// A connection that has read the greeting and says nothing.
fn silent(sidepool: &Sidepool) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", sidepool.port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut header = [0; 4];
    stream.read_exact(&mut header).unwrap();
    let mut greeting = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(
        (header[3], greeting[0]),
        (0, 10),
        "no greeting: {greeting:?}"
    );
    stream
}

#[tokio::test]
async fn one_client_too_many_is_told_so_and_nobody_else_minds() {
    let settings = [("SIDEPOOL_LISTENER__0__MAX_CLIENTS", "3")];
    let sidepool = Sidepool::start(shared(Make::MariaDb), &settings);
    let address = sidepool.address();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(client(&sidepool).await);
    }
    for n in 1..=3 {
        let error = Wire::connect(&Login::to(&address)).await.err().unwrap();
        assert_eq!(
            (error.code, &error.message[..]),
            (1040, "Too many connections")
        );
        assert_eq!(failed(&sidepool, "too_many_clients"), f64::from(n));
    }
    for wire in &mut clients {
        assert_eq!(value(wire, "SELECT 1").await, "1");
    }
    clients.pop().unwrap().quit().await;
    eventually("the place is free again", async || {
        Wire::connect(&Login::to(&address)).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn somebody_who_does_not_log_in_loses_his_place() {
    let settings = [
        ("SIDEPOOL_LISTENER__0__MAX_CLIENTS", "2"),
        ("SIDEPOOL_CLIENT__HANDSHAKE_TIMEOUT", "500ms"),
    ];
    let sidepool = Sidepool::start(shared(Make::MariaDb), &settings);
    let address = sidepool.address();
    let began = Instant::now();
    let mut quiet = silent(&sidepool);
    // A byte of the login now and then does not make the time longer.
    let slow = silent(&sidepool);
    let trickle = std::thread::spawn(move || {
        let mut slow = slow;
        let packet = [&[0xff, 0, 0, 1], &[0; 255][..]].concat();
        for byte in packet {
            if std::io::Write::write_all(&mut slow, &[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("a login of 13 seconds was waited for");
    });
    let error = Wire::connect(&Login::to(&address)).await.err().unwrap();
    assert_eq!(error.code, 1040);
    eventually("both places are free", async || {
        let both = [
            Wire::connect(&Login::to(&address)).await,
            Wire::connect(&Login::to(&address)).await,
        ];
        both.iter().all(Result::is_ok)
    })
    .await;
    assert!(began.elapsed() >= Duration::from_millis(500));
    let mut rest = Vec::new();
    let _ = quiet.read_to_end(&mut rest);
    trickle.join().unwrap();
    assert_eq!(failed(&sidepool, "handshake_timeout"), 2.0);
}

/// A length is only believed within bounds before the login, and costs nothing until the bytes come.
#[tokio::test]
async fn a_huge_packet_before_the_login_is_refused_unread() {
    let sidepool = Sidepool::start(shared(Make::MariaDb), &[]);
    let before = sidepool.peak_kb();
    for n in 1..=2 {
        let mut stream = silent(&sidepool);
        std::io::Write::write_all(&mut stream, b"\xfe\xff\xff\x01and so on").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(
            answer.get(3..5),
            Some(&[2, 0xff][..]),
            "no error: {answer:?}"
        );
        sidepool.wait("counted", |s| failed(s, "protocol_error") == f64::from(n));
    }
    // As many at once, each with the longest that is believed and nothing behind it.
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut stream = silent(&sidepool);
        std::io::Write::write_all(&mut stream, b"\xff\x7f\x01\x01").unwrap();
        waiting.push(stream);
    }
    let grown = sidepool.peak_kb() - before;
    assert!(grown < 20 << 10, "{grown} KB for lengths");
    assert_eq!(value(&mut client(&sidepool).await, "SELECT 1").await, "1");
}
