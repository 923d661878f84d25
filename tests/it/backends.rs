//! Several servers: who is the writer is found by probes, and a failover is followed while clients stay connected.

mod monitor;
mod replication;

use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::{Make, Server, USER, free_port};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Wire};

pub const MONITOR: &str = "probe";
pub const MONITOR_PASSWORD: &str = "probe-secret";

/// Two servers of their own: the first writable, the second read-only.
pub struct Pair {
    pub first: Server,
    pub second: Server,
    directory: TempDir,
}

/// Sidepool in front of a pair, with a listener for readers as well.
pub struct Front {
    pub sidepool: Sidepool,
    reader_port: u16,
}

/// Runs a case on servers of every make.
macro_rules! on_every_make {
    ($($name:ident => $case:ident;)+) => {
        $(mod $name {
            use crate::support::servers::Make;

            #[tokio::test]
            async fn mariadb() {
                super::$case(Make::MariaDb).await;
            }

            #[tokio::test]
            async fn mysql() {
                if crate::support::servers::makes().contains(&Make::MySql) {
                    super::$case(Make::MySql).await;
                }
            }
        })+
    };
}
pub(crate) use on_every_make;

on_every_make! {
    clients_follow_the_writer_and_keep_their_state => failover;
    readers_go_to_replicas_and_to_the_writer_when_there_is_none => readers;
}

impl Pair {
    pub fn start(make: Make, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let start = |id: u32| {
            let id = format!("--server-id={id}");
            let options: Vec<&str> = options.iter().copied().chain([&*id]).collect();
            let server = Server::start(make, &options);
            let right = match make {
                Make::MariaDb => "SLAVE MONITOR",
                Make::MySql => "REPLICATION CLIENT",
            };
            server.root(&format!(
                "CREATE USER '{MONITOR}'@'%' IDENTIFIED BY '{MONITOR_PASSWORD}'; \
                 GRANT {right} ON *.* TO '{MONITOR}'@'%'"
            ));
            server.database("t_b");
            server.root("CREATE TABLE t_b.t (who VARCHAR(20)) ENGINE=InnoDB");
            server
        };
        let pair = Self {
            first: start(1),
            second: start(2),
            directory,
        };
        read_only(&pair.second, true);
        pair
    }

    /// Sidepool with a listener for writers and one for readers, when it is ready.
    pub fn front(&self, settings: &[(&str, &str)]) -> Front {
        let front = self.front_not_ready(MONITOR_PASSWORD, settings);
        front.sidepool.wait_ready();
        front
    }

    /// The same with that password for probes, without waiting.
    pub fn front_not_ready(&self, password: &str, settings: &[(&str, &str)]) -> Front {
        let file = self.directory.path().join("monitor");
        std::fs::write(&file, format!("{password}\n")).unwrap();
        let reader_port = free_port();
        let reader = format!("127.0.0.1:{reader_port}");
        let addresses = format!("{},{}", self.first.address(), self.second.address());
        let mut all = vec![
            ("SIDEPOOL_BACKEND__MONITOR_USER", MONITOR),
            (
                "SIDEPOOL_BACKEND__MONITOR_PASSWORD_FILE",
                file.to_str().unwrap(),
            ),
            ("SIDEPOOL_BACKEND__PROBE_INTERVAL", "100ms"),
            ("SIDEPOOL_LISTENER__1__ADDRESS", &reader),
            ("SIDEPOOL_LISTENER__1__ROLE", "reader"),
        ];
        all.extend_from_slice(settings);
        Front {
            sidepool: Sidepool::launch(&addresses, &all),
            reader_port,
        }
    }
}

impl Front {
    /// A client of the listener for readers, in the tests' database.
    pub async fn reader(&self) -> Wire {
        let address = format!("127.0.0.1:{}", self.reader_port);
        let login = Login {
            database: Some("t_b"),
            ..Login::to(&address)
        };
        Wire::connect(&login).await.unwrap()
    }

    /// What the API says of a backend; null until it is served.
    pub fn backend(&self, server: &Server) -> serde_json::Value {
        let Some((_, body)) = self.sidepool.get("/api/v1/backends") else {
            return serde_json::Value::Null;
        };
        let all: serde_json::Value = serde_json::from_str(&body).unwrap();
        let address = server.address();
        let list = all["backends"].as_array().unwrap().iter();
        list.clone()
            .find(|one| one["address"] == *address)
            .unwrap()
            .clone()
    }

    pub async fn wait_state(&self, server: &Server, state: &str) {
        eventually(state, async || self.backend(server)["state"] == state).await;
    }
}

/// Makes a server read-only, or writable, as a switchover does.
pub fn read_only(server: &Server, on: bool) {
    server.root(&format!("SET GLOBAL read_only = {}", u8::from(on)));
}

/// The server that answers, by its id.
pub async fn whose(wire: &mut Wire) -> String {
    value(wire, "SELECT @@server_id").await
}

async fn failover(make: Make) {
    let pair = Pair::start(make, &[]);
    let (first, second) = (&pair.first, &pair.second);
    let front = pair.front(&[("SIDEPOOL_POOL__BORROW_TIMEOUT", "15s")]);
    let sidepool = &front.sidepool;
    let mut writer = client_in(sidepool, USER, "t_b").await;
    let mut idle = client_in(sidepool, USER, "t_b").await;
    let mut pinned = client_in(sidepool, USER, "t_b").await;
    let mut busy = client_in(sidepool, USER, "t_b").await;
    writer
        .run("SET time_zone = '+03:00', sql_mode = 'ANSI_QUOTES', @own = 1.50")
        .await;
    writer.run("INSERT INTO t VALUES ('before')").await.ok();
    pinned.run("CREATE TEMPORARY TABLE mine (a INT)").await.ok();
    busy.run("BEGIN").await;
    assert_eq!(whose(&mut busy).await, "1");
    let id = writer.thread_id;

    // Nobody accepts writes for a while: who comes waits, and is served by the new writer.
    read_only(first, true);
    front.wait_state(first, "replica").await;
    assert_eq!(
        sidepool.metric("sidepool_backend_role", "role=\"writer\""),
        0.0
    );
    let began = Instant::now();
    writer.command(3, b"INSERT INTO t VALUES ('during')").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    read_only(second, false);
    writer.read_reply().await.ok();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(writer.thread_id, id);
    let here =
        "SELECT CONCAT(@@server_id, @@time_zone, @@sql_mode, DATABASE(), COUNT(*), @own) FROM t";
    assert_eq!(value(&mut writer, here).await, "2+03:00ANSI_QUOTESt_b11.50");
    assert_eq!(second.root("SELECT who FROM t_b.t"), "during");

    // Others follow when they need the database; so do new ones.
    assert_eq!(whose(&mut idle).await, "2");
    assert_eq!(whose(&mut client(sidepool).await).await, "2");
    // A transaction ends where it began, and only then its client moves.
    assert_eq!(whose(&mut busy).await, "1");
    busy.run("COMMIT").await.ok();
    assert_eq!(whose(&mut busy).await, "2");
    // What is pinned cannot move.
    assert_eq!(pinned.query("SELECT 1").await.err().code, 2013);
    eventually("old connections are closed", async || {
        connections(&mut root(first).await, USER).await == 0
    })
    .await;
    let lost = sidepool.metric("sidepool_pool_retired_total", "reason=\"target_lost\"");
    assert!(lost >= 2.0, "{lost}");
    assert_eq!(
        sidepool.metric("sidepool_backend_role", "role=\"writer\""),
        1.0
    );

    // The old one comes back writable: the one in use stays.
    read_only(first, false);
    front.wait_state(first, "writer").await;
    assert_eq!(whose(&mut idle).await, "2");
    sidepool.wait("warned", |s| {
        s.log().contains("several servers accept writes")
    });
}

async fn readers(make: Make) {
    let pair = Pair::start(make, &[]);
    let (first, second) = (&pair.first, &pair.second);
    let front = pair.front(&[("SIDEPOOL_POOL__BORROW_TIMEOUT", "1s")]);
    let sidepool = &front.sidepool;
    let mut reader = front.reader().await;
    assert_eq!(whose(&mut reader).await, "2");
    assert_eq!(whose(&mut client(sidepool).await).await, "1");
    reader.run("SET time_zone = '+02:00'").await;
    let (state, role) = (front.backend(second), front.backend(second)["role"].clone());
    assert_eq!(
        (state["state"].clone(), role),
        ("replica".into(), "reader".into())
    );

    second.stop();
    front.wait_state(second, "down").await;
    assert_eq!(front.backend(second)["up"], false);
    assert_eq!(whose(&mut reader).await, "1");
    assert_eq!(value(&mut reader, "SELECT @@time_zone").await, "+02:00");
    assert_eq!(sidepool.get("/ready").unwrap().0, 200, "there is a writer");

    second.restart(&["--server-id=2", "--read-only=1"]);
    front.wait_state(second, "replica").await;
    assert_eq!(whose(&mut reader).await, "2");
    assert!(front.backend(second)["last_error"].is_string());

    // Without a writer its clients wait, and are told; readers go on. Both stay connected.
    let mut writer = client_in(sidepool, USER, "t_b").await;
    first.stop();
    front.wait_state(first, "down").await;
    assert_eq!(whose(&mut reader).await, "2");
    assert_eq!(writer.query("SELECT 1").await.err().code, 9501);
    assert_eq!(sidepool.get("/ready").unwrap().0, 200, "reads are served");
    second.stop();
    front.wait_state(second, "down").await;
    sidepool.wait("red", |s| s.get("/ready").is_some_and(|r| r.0 == 503));
    first.restart(&["--server-id=1"]);
    sidepool.wait_ready();
    assert_eq!(whose(&mut writer).await, "1");
    assert_eq!(whose(&mut reader).await, "1");
}
