//! The end of Sidepool: what its clients see, and what the database is left with.

use std::time::{Duration, Instant};

use super::last_words;
use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::{PASSWORD, Server};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Wire, parse_err};

on_every_server! {
    idle_and_pinned_clients_are_told_and_statements_end => orderly;
    what_does_not_end_is_cut_and_killed_at_the_database => cut;
    half_a_command_does_not_hold_up_the_end => half_a_command;
    a_second_interrupt_ends_at_once => interrupted_twice;
}

const SOON: Duration = Duration::from_secs(10);

async fn orderly(server: &Server) {
    let user = "f_drain";
    account(server, user);
    server.database("t_fault_drain");
    server.root("CREATE TABLE t_fault_drain.t (a INT) ENGINE=InnoDB");
    let mut sidepool = Sidepool::start(server, &[]);
    let mut idle = client_as(&sidepool, user).await;
    idle.run("SELECT 1").await;
    let mut pinned = client_as(&sidepool, user).await;
    pinned.run("DO GET_LOCK('f_drain', 0)").await;
    let mut busy = client_as(&sidepool, user).await;
    let mut inside = client_as(&sidepool, user).await;
    inside.run("BEGIN").await;
    inside.run("INSERT INTO t_fault_drain.t VALUES (1)").await;
    busy.command(3, b"SELECT SLEEP(1) AS f_drain").await;
    let mut looking = root(server).await;
    eventually("it runs", async || {
        running(&mut looking, "SELECT SLEEP(1) AS f_drain").await == 1
    })
    .await;
    sidepool.signal("TERM");
    for wire in [&mut idle, &mut pinned] {
        let (seq, notice) = wire.read_packet().await.unwrap();
        let notice = parse_err(&notice);
        assert_eq!((seq, notice.code, &notice.state[..]), (0, 1053, "08S01"));
        assert_eq!(notice.message, "Server shutdown in progress");
        assert!(wire.read_packet().await.is_err());
    }
    // Its statement is answered, and then it is told.
    assert_eq!(busy.read_reply().await.text(), "0");
    assert_eq!(last_words(&mut busy).await, Some(1053));
    inside.run("INSERT INTO t_fault_drain.t VALUES (2)").await;
    inside.run("COMMIT").await;
    assert_eq!(last_words(&mut inside).await, Some(1053));
    // Lingering sockets do not hold it up.
    assert_eq!(sidepool.wait_exit(SOON), Some(0));
    let count = value(&mut looking, "SELECT COUNT(*) FROM t_fault_drain.t").await;
    assert_eq!(count, "2");
    assert_eq!(connections(&mut looking, user).await, 0);
}

async fn cut(server: &Server) {
    let user = "f_cut";
    let changed = "f_cut_changed";
    account(server, user);
    account(server, changed);
    let settings = [
        ("SIDEPOOL_SERVER__DRAIN_TIMEOUT", "500ms"),
        ("SIDEPOOL_POOL__MAX_CONNECTIONS", "2"),
    ];
    let mut sidepool = Sidepool::start(server, &settings);
    let mut looking = root(server).await;
    let mut busy: Vec<Wire> = Vec::new();
    for _ in 0..2 {
        let wire = client_as(&sidepool, user).await;
        busy.push(wire);
    }
    // A statement can only be killed by the account that it runs as.
    busy[1].change_user(changed, PASSWORD).await.unwrap();
    for wire in &mut busy {
        wire.command(3, b"SELECT SLEEP(60) AS f_cut").await;
    }
    eventually("they run", async || {
        running(&mut looking, "SELECT SLEEP(60) AS f_cut").await == 2
    })
    .await;
    let began = Instant::now();
    sidepool.signal("TERM");
    for wire in &mut busy {
        assert_eq!(wire.read_reply().await.err().code, 2013);
    }
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert_eq!(sidepool.wait_exit(SOON), Some(0));
    eventually("they are killed", async || {
        running(&mut looking, "SELECT SLEEP(60) AS f_cut").await == 0
    })
    .await;
    eventually("nothing is left", async || {
        connections(&mut looking, user).await + connections(&mut looking, changed).await == 0
    })
    .await;
}

async fn half_a_command(server: &Server) {
    let mut sidepool = Sidepool::start(server, &[]);
    let mut half = client(&sidepool).await;
    half.send_raw(b"\x0a\0\0\0\x03SE").await.unwrap();
    // One that has not logged in, either.
    let mut silent = tokio::net::TcpStream::connect(sidepool.address())
        .await
        .unwrap();
    let began = Instant::now();
    sidepool.signal("TERM");
    assert_eq!(last_words(&mut half).await, Some(1053));
    let mut rest = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut rest).await;
    assert_eq!(sidepool.wait_exit(SOON), Some(0));
    assert!(began.elapsed() < SOON);
    let address = sidepool.address();
    assert!(Wire::connect(&Login::to(&address)).await.is_err());
}

async fn interrupted_twice(server: &Server) {
    let user = "f_interrupt";
    account(server, user);
    server.database("t_fault_int");
    server.root("CREATE TABLE t_fault_int.t (a INT) ENGINE=InnoDB");
    let mut sidepool = Sidepool::start(server, &[]);
    let mut inside = client_as(&sidepool, user).await;
    inside.run("BEGIN").await;
    inside.run("INSERT INTO t_fault_int.t VALUES (1)").await;
    sidepool.signal("INT");
    let draining = async || sidepool.log().contains("clients are sent away");
    eventually("the drain has begun", draining).await;
    // The transaction may go on until then.
    inside.run("INSERT INTO t_fault_int.t VALUES (2)").await;
    sidepool.signal("INT");
    assert_eq!(sidepool.wait_exit(SOON), Some(128 + 2));
    assert_eq!(last_words(&mut inside).await, None);
    let mut looking = root(server).await;
    eventually("it is rolled back", async || {
        connections(&mut looking, user).await == 0
    })
    .await;
    let count = value(&mut looking, "SELECT COUNT(*) FROM t_fault_int.t").await;
    assert_eq!(count, "0");
}
