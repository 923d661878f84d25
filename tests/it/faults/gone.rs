//! Clients that vanish: their statement is killed, their transaction rolled back, their place free.

use std::time::Duration;

use tokio::time::timeout;

use super::cable::Cable;
use super::{CLOSED, RETIRED, assert_calm};
use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{LOCAL_FILES, Login, Reply, Wire};

on_every_server! {
    the_statement_of_a_client_that_closed_is_killed => closed_in_statement;
    the_statement_of_a_client_that_was_reset_is_killed => reset_in_statement;
    several_abandoned_statements_are_killed_though_the_pool_is_full => many_in_statements;
    a_client_that_leaves_in_the_middle_of_a_result_frees_its_place => left_in_result;
    a_client_that_takes_nothing_does_not_keep_its_place => takes_nothing;
    a_client_that_stops_in_a_large_statement_does_not_keep_its_place => stalled_upload;
    a_client_that_owes_a_file_does_not_keep_its_place => owes_a_file;
    a_statement_whose_client_left_the_queue_is_not_run => left_in_queue;
    the_transaction_of_a_client_that_left_is_rolled_back => left_in_transaction;
    half_a_command_does_no_harm => half_a_command;
    half_a_command_does_not_hold_a_transaction_for_ever => stalled_in_transaction;
}

/// A client whose connection can be reset.
async fn on_a_cable(cable: &Cable, user: &str) -> Wire {
    let login = Login {
        user,
        ..Login::to(&cable.address)
    };
    Wire::connect(&login).await.unwrap()
}

async fn closed_in_statement(server: &Server) {
    in_statement(server, "f_closed", async |wire, _| drop(wire)).await;
}

async fn reset_in_statement(server: &Server) {
    in_statement(server, "f_reset", async |wire, cable| {
        cable.reset();
        drop(wire);
    })
    .await;
}

/// The one connection there is runs a statement whose client then vanishes.
async fn in_statement(server: &Server, user: &'static str, vanish: impl AsyncFn(Wire, &Cable)) {
    account(server, user);
    let sidepool = Sidepool::sharing(server, 1);
    let cable = Cable::to(&sidepool.address());
    let mut wire = on_a_cable(&cable, user).await;
    let statement = format!("SELECT SLEEP(60) AS {user}");
    wire.command(3, statement.as_bytes()).await;
    let mut looking = root(server).await;
    eventually("it runs", async || {
        running(&mut looking, &statement).await == 1
    })
    .await;
    vanish(wire, &cable).await;
    eventually("it is killed", async || {
        running(&mut looking, &statement).await == 0
    })
    .await;
    let _other = serves_others(&sidepool, user).await;
    assert_eq!(sidepool.metric(RETIRED, "\"abandoned\""), 1.0);
    assert_eq!(sidepool.metric(CLOSED, "\"client_gone\""), 1.0);
    assert_calm(&sidepool);
}

async fn many_in_statements(server: &Server) {
    const CLIENTS: usize = 4;
    let user = "f_many";
    account(server, user);
    let sidepool = Sidepool::sharing(server, CLIENTS);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut wire = client_as(&sidepool, user).await;
        wire.command(3, b"SELECT SLEEP(60) AS f_many").await;
        clients.push(wire);
    }
    let mut looking = root(server).await;
    let statement = "SELECT SLEEP(60) AS f_many";
    eventually("all run", async || {
        running(&mut looking, statement).await == CLIENTS
    })
    .await;
    clients.clear();
    eventually("all are killed", async || {
        running(&mut looking, statement).await == 0
    })
    .await;
    eventually("all places are free", async || {
        sidepool.metric(RETIRED, "\"abandoned\"") == CLIENTS as f64
    })
    .await;
    let mut other = client_as(&sidepool, user).await;
    assert_eq!(value(&mut other, "SELECT 7").await, "7");
}

async fn left_in_result(server: &Server) {
    let user = "f_result";
    account(server, user);
    let sidepool = Sidepool::sharing(server, 1);
    for begun in [false, true] {
        let mut wire = client_as(&sidepool, user).await;
        // More than all buffers on the way hold.
        let sql = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
                   SELECT /* f_result */ REPEAT('x', 1000) FROM n a, n b";
        wire.command(3, sql.as_bytes()).await;
        if begun {
            wire.read_packet().await.unwrap();
        }
        drop(wire);
        serves_others(&sidepool, user).await;
    }
    assert_calm(&sidepool);
}

async fn left_in_queue(server: &Server) {
    let user = "f_queue";
    account(server, user);
    server.database("t_fault_queue");
    server.root("CREATE TABLE t_fault_queue.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 1);
    let mut busy = client_as(&sidepool, user).await;
    let mut impatient = client_as(&sidepool, user).await;
    busy.run("BEGIN").await;
    impatient
        .command(3, b"INSERT INTO t_fault_queue.t VALUES (1)")
        .await;
    let waiting = || sidepool.metric("sidepool_pool_waiters", "");
    eventually("it waits", async || waiting() == 1.0).await;
    drop(impatient);
    eventually("its place is given up", async || waiting() == 0.0).await;
    busy.run("COMMIT").await;
    let count = value(&mut busy, "SELECT COUNT(*) FROM t_fault_queue.t").await;
    assert_eq!(count, "0");
    assert_eq!(sidepool.metric(CLOSED, "\"client_gone\""), 1.0);
    assert_calm(&sidepool);
}

async fn left_in_transaction(server: &Server) {
    let user = "f_left";
    account(server, user);
    server.database("t_fault_left");
    server.root("CREATE TABLE t_fault_left.t (a INT PRIMARY KEY) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 1);
    let cable = Cable::to(&sidepool.address());
    let mut other = client_as(&sidepool, user).await;
    for reset in [false, true] {
        let mut wire = on_a_cable(&cable, user).await;
        wire.run("BEGIN").await;
        wire.run("INSERT INTO t_fault_left.t VALUES (1)").await;
        match reset {
            true => cable.reset(),
            false => drop(wire),
        }
        // Would wait for the row's lock, and then fail, if the transaction were still there.
        let insert = other.query("INSERT INTO t_fault_left.t VALUES (1)");
        let answer = timeout(Duration::from_secs(8), insert).await;
        answer.expect("the transaction is over").ok();
        other.run("DELETE FROM t_fault_left.t").await;
    }
    assert_eq!(sidepool.metric(CLOSED, "\"client_gone\""), 2.0);
    assert_calm(&sidepool);
}

async fn half_a_command(server: &Server) {
    let user = "f_half";
    account(server, user);
    server.database("t_fault_half");
    server.root("CREATE TABLE t_fault_half.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 1);
    let command = b"\x03INSERT INTO t_fault_half.t VALUES (1)";
    let whole = [&[command.len() as u8, 0, 0, 0], &command[..]].concat();
    for len in 1..whole.len() {
        let mut wire = client_as(&sidepool, user).await;
        if len % 2 == 0 {
            wire.run("BEGIN").await;
        }
        wire.send_raw(&whole[..len]).await.unwrap();
        drop(wire);
    }
    let mut other = client_as(&sidepool, user).await;
    let count = value(&mut other, "SELECT COUNT(*) FROM t_fault_half.t").await;
    assert_eq!(count, "0");
    eventually("all are gone", async || {
        sidepool.metric(CLOSED, "\"client_gone\"") == (whole.len() - 1) as f64
    })
    .await;
    assert_calm(&sidepool);
}

async fn stalled_in_transaction(server: &Server) {
    let user = "f_stalled";
    account(server, user);
    let limit = ("SIDEPOOL_CLIENT__IDLE_TRANSACTION_TIMEOUT", "1s");
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_POOL__MAX_CONNECTIONS", "1"), limit]);
    let mut wire = client_as(&sidepool, user).await;
    wire.run("BEGIN").await;
    wire.run("SELECT 1").await;
    // A header that promises ten bytes, and three of them.
    wire.send_raw(b"\x0a\0\0\0\x03SE").await.unwrap();
    serves_others(&sidepool, user).await;
    assert_calm(&sidepool);
}

async fn takes_nothing(server: &Server) {
    let user = "f_frozen";
    account(server, user);
    let sidepool = Sidepool::sharing(server, 1);
    let mut frozen = client_as(&sidepool, user).await;
    frozen.run("SET SESSION net_write_timeout = 1").await;
    let sql = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
               SELECT /* f_frozen */ REPEAT('x', 1000) FROM n a, n b";
    frozen.command(3, sql.as_bytes()).await;
    frozen.read_packet().await.unwrap();
    place_comes_free(&sidepool, user).await;
    let mut looking = root(server).await;
    assert!(connections(&mut looking, user).await <= 1);
    assert_calm(&sidepool);
    drop(frozen);
}

async fn stalled_upload(server: &Server) {
    let user = "f_upload";
    account(server, user);
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "1"),
            ("SIDEPOOL_CLIENT__PINNED_IDLE_TIMEOUT", "1s"),
            ("SIDEPOOL_CLIENT__IDLE_TRANSACTION_TIMEOUT", "1s"),
        ],
    );
    for before in ["DO 0", "BEGIN"] {
        let mut stalled = client_as(&sidepool, user).await;
        stalled.run(before).await;
        // A packet of 16 MiB, which is not the last one, and the first bytes of it.
        stalled
            .send_raw(b"\xff\xff\xff\0\x03SELECT 'too large to be held")
            .await
            .unwrap();
        place_comes_free(&sidepool, user).await;
        let ended = timeout(Duration::from_secs(5), super::last_words(&mut stalled)).await;
        assert!(ended.is_ok(), "its connection ends");
    }
}

async fn owes_a_file(server: &Server) {
    let user = "f_file";
    account(server, user);
    server.database("t_fault_file");
    server.root("CREATE TABLE t_fault_file.t (a TEXT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 1);
    let address = sidepool.address();
    let login = Login {
        user,
        with: LOCAL_FILES,
        ..Login::to(&address)
    };
    let mut owes = Wire::connect(&login).await.unwrap();
    owes.run("SET SESSION net_read_timeout = 1").await;
    let reply = owes
        .query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t_fault_file.t")
        .await;
    assert!(matches!(reply, Reply::LocalInfile(_)), "{reply:?}");
    // Some of it comes, and no end.
    owes.send(2, b"first\nsecond\n").await;
    place_comes_free(&sidepool, user).await;
    let mut other = client_as(&sidepool, user).await;
    let count = value(&mut other, "SELECT COUNT(*) FROM t_fault_file.t").await;
    assert_eq!(count, "0");
}

/// The one connection there is can be had again.
async fn place_comes_free(sidepool: &Sidepool, user: &str) {
    let mut other = client_as(sidepool, user).await;
    let answer = timeout(Duration::from_secs(12), other.query("SELECT 7")).await;
    assert_eq!(answer.expect("the place is free").text(), "7");
    assert_calm(sidepool);
}

/// The one backend connection is there for others: what held it has ended. The client that saw it
/// is still there, so that its end is not counted yet.
async fn serves_others(sidepool: &Sidepool, user: &str) -> Wire {
    let mut other = client_as(sidepool, user).await;
    let answer = timeout(Duration::from_secs(8), other.query("SELECT 7")).await;
    assert_eq!(answer.expect("the connection is free").text(), "7");
    other
}
