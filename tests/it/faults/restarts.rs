//! The database goes away, comes back, stands still, or is full.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{CLOSED, RETIRED, assert_calm, kill, last_words, pid};
use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Reply, Wire};

super::on_every_private_server! {
    idle_clients_do_not_notice_a_restart => restart_while_idle;
    a_transaction_ends_with_its_server => restart_in_transaction;
    a_killed_server_runs_nothing_twice => killed_in_a_statement;
    a_frozen_server_is_waited_for_and_no_longer_than_said => frozen;
    a_full_server_is_waited_for => full;
}

on_every_server! {
    a_connection_killed_while_idle_is_not_the_clients_problem => killed_idle;
    a_connection_killed_in_a_transaction_is_said_to_be_lost => killed_in_transaction;
    a_statement_killed_with_its_connection_is_said_to_be_lost => killed_running;
}

/// Whoever is not in a transaction needs a new connection.
const NONE_IDLE: (&str, &str) = ("SIDEPOOL_POOL__MAX_IDLE_PERCENT", "0");

async fn restart_while_idle(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut wire = client(&sidepool).await;
        wire.command(3, b"SELECT SLEEP(0.2)").await;
        clients.push(wire);
    }
    for wire in &mut clients {
        wire.read_reply().await.rows();
    }
    server.stop();
    // One cannot wait: its statement is kept until there is a server.
    clients[0].command(3, b"SELECT 'early'").await;
    server.restart(&[]);
    assert_eq!(clients[0].read_reply().await.text(), "early");
    for wire in &mut clients {
        assert_eq!(value(wire, "SELECT 7").await, "7");
    }
    assert_eq!(sidepool.metric(CLOSED, ""), 0.0);
    assert!(sidepool.metric(RETIRED, "\"server_closed\"") >= 4.0);
    assert_calm(&sidepool);
}

async fn restart_in_transaction(server: &Server) {
    server.database("t_fault_trx");
    server.root("CREATE TABLE t_fault_trx.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::start(server, &[]);
    let (mut inside, mut outside) = (client(&sidepool).await, client(&sidepool).await);
    outside.run("SELECT 1").await;
    inside.run("BEGIN").await;
    inside.run("INSERT INTO t_fault_trx.t VALUES (1)").await;
    server.stop();
    // Told when it happens, if the server has said anything, and not at its next statement.
    let told = timeout(Duration::from_secs(5), last_words(&mut inside)).await;
    let told = told.expect("the connection ends with the transaction");
    assert!(matches!(told, None | Some(1053 | 1927 | 4031)), "{told:?}");
    server.restart(&[]);
    let count = "SELECT COUNT(*) FROM t_fault_trx.t";
    assert_eq!(value(&mut outside, count).await, "0");
    assert_eq!(sidepool.metric(CLOSED, "\"backend_lost\""), 1.0);
    assert_eq!(sidepool.metric(CLOSED, ""), 1.0);
    assert_eq!(sidepool.metric("sidepool_sessions_in_transaction", ""), 0.0);
    assert_calm(&sidepool);
}

async fn killed_in_a_statement(server: &Server) {
    server.database("t_fault_kill");
    server.root("CREATE TABLE t_fault_kill.t (a INT) ENGINE=InnoDB");
    server.routine(
        "CREATE PROCEDURE t_fault_kill.pay() BEGIN INSERT INTO t_fault_kill.t VALUES (1); DO SLEEP(30); END",
    );
    let sidepool = Sidepool::start(server, &[]);
    let (mut busy, mut idle) = (client(&sidepool).await, client(&sidepool).await);
    idle.run("SELECT 1").await;
    busy.command(3, b"CALL t_fault_kill.pay()").await;
    let mut looking = root(server).await;
    let count = "SELECT COUNT(*) FROM t_fault_kill.t";
    eventually("the row is there", async || {
        value(&mut looking, count).await == "1"
    })
    .await;
    assert!(kill("KILL", &pid(server)));
    // Nothing but the end: an ERR with a code of the clients' own range is none to MariaDB's client library.
    assert!(busy.read_packet().await.is_err(), "closed without a word");
    // The shell above it has to notice before another can be started.
    server.stop();
    server.restart(&[]);
    assert_eq!(value(&mut idle, count).await, "1");
    let mut looking = root(server).await;
    assert_eq!(running(&mut looking, "CALL").await, 0, "it was run again");
    assert_eq!(value(&mut idle, count).await, "1");
    assert_eq!(sidepool.metric(CLOSED, "\"backend_lost\""), 1.0);
    assert_calm(&sidepool);
}

async fn frozen(server: &Server) {
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_BACKEND__CONNECT_TIMEOUT", "500ms"),
            ("SIDEPOOL_POOL__BORROW_TIMEOUT", "1500ms"),
            NONE_IDLE,
        ],
    );
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    a.run("BEGIN").await;
    assert!(kill("STOP", &pid(server)));
    // Its open connection looks as good as ever.
    a.command(3, b"SELECT 'a'").await;
    let began = Instant::now();
    let error = b.query("SELECT 'b'").await.err();
    let took = began.elapsed();
    assert_eq!(error.code, 9501, "{error:?}");
    assert!(took >= Duration::from_secs(1), "given up after {took:?}");
    assert!(took < Duration::from_secs(6), "given up after {took:?}");
    // A login that has to be proved is told which server did not answer, and that it is time that was lacking.
    let address = sidepool.address();
    let stranger = Login {
        user: "nobody",
        ..Login::to(&address)
    };
    let error = Wire::connect(&stranger).await.err().unwrap();
    assert_eq!(error.code, 2003, "{error:?}");
    assert!(error.message.contains(&server.address()), "{error:?}");
    assert!(kill("CONT", &pid(server)));
    assert_eq!(a.read_reply().await.text(), "a");
    assert_eq!(value(&mut b, "SELECT 'b'").await, "b");
    assert_eq!(sidepool.metric(CLOSED, ""), 0.0);
    assert_calm(&sidepool);
}

async fn full(server: &Server) {
    let before = server.root("SELECT @@GLOBAL.max_connections");
    let sidepool = Sidepool::start(server, &[NONE_IDLE]);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    a.run("BEGIN").await;
    server.root("SET GLOBAL max_connections = 10");
    let mut others = Vec::new();
    let address = server.address();
    let refused = loop {
        match Wire::connect(&Login::to(&address)).await {
            Ok(wire) => others.push(wire),
            Err(error) => break error,
        }
        assert!(others.len() < 20, "the server never got full");
    };
    assert_eq!(refused.code, 1040);
    b.command(3, b"SELECT 'b'").await;
    let answer = timeout(Duration::from_millis(700), b.read_reply()).await;
    assert!(answer.is_err(), "it waits: {answer:?}");
    let dials = || sidepool.metric("sidepool_pool_dials_total", "\"failed\"");
    eventually("it tried", async || dials() >= 1.0).await;
    others.clear();
    let answer = timeout(Duration::from_secs(10), b.read_reply()).await;
    assert_eq!(answer.expect("room was made").text(), "b");
    a.run("COMMIT").await;
    server.root(&format!("SET GLOBAL max_connections = {before}"));
    assert_eq!(sidepool.metric(CLOSED, ""), 0.0);
    assert_calm(&sidepool);
}

/// Kills every connection of the account at the server, as a DBA does.
async fn kill_all(server: &Server, user: &str) {
    let mut looking = root(server).await;
    let list = format!("SELECT id FROM information_schema.processlist WHERE user = '{user}'");
    for row in looking.query(&list).await.rows() {
        let id = String::from_utf8(row[0].clone().unwrap()).unwrap();
        looking.run(&format!("KILL {id}")).await;
    }
    eventually("they are gone", async || {
        connections(&mut looking, user).await == 0
    })
    .await;
}

async fn killed_idle(server: &Server) {
    let user = "f_idle";
    account(server, user);
    let sidepool = Sidepool::start(server, &[]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(client_as(&sidepool, user).await);
    }
    for wire in &mut clients {
        wire.command(3, b"SELECT SLEEP(0.2)").await;
    }
    for wire in &mut clients {
        wire.read_reply().await.rows();
    }
    kill_all(server, user).await;
    for wire in &mut clients {
        assert_eq!(value(wire, "SELECT 7").await, "7");
    }
    assert_eq!(sidepool.metric(CLOSED, ""), 0.0);
    assert!(sidepool.metric(RETIRED, "\"server_closed\"") >= 3.0);
}

async fn killed_in_transaction(server: &Server) {
    let user = "f_trx";
    account(server, user);
    server.database("t_fault_ktrx");
    server.root("CREATE TABLE t_fault_ktrx.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 1);
    let mut inside = client_as(&sidepool, user).await;
    inside.run("BEGIN").await;
    inside.run("INSERT INTO t_fault_ktrx.t VALUES (1)").await;
    kill_all(server, user).await;
    // Sent into the ending connection or not, it is not run outside the transaction.
    let answer = inside.query("INSERT INTO t_fault_ktrx.t VALUES (2)").await;
    let code = answer.err().code;
    assert!([2013, 1927, 1053, 4031].contains(&code), "{code}");
    let mut other = client_as(&sidepool, user).await;
    assert_eq!(
        value(&mut other, "SELECT COUNT(*) FROM t_fault_ktrx.t").await,
        "0"
    );
    assert_eq!(sidepool.metric(CLOSED, "\"backend_lost\""), 1.0);
}

async fn killed_running(server: &Server) {
    let user = "f_running";
    account(server, user);
    let sidepool = Sidepool::sharing(server, 1);
    let mut busy = client_as(&sidepool, user).await;
    busy.command(3, b"SELECT SLEEP(30) AS f_running").await;
    let mut looking = root(server).await;
    eventually("it runs", async || {
        running(&mut looking, "SELECT SLEEP(30) AS f_running").await == 1
    })
    .await;
    kill_all(server, user).await;
    let reply = timeout(Duration::from_secs(5), busy.read_reply()).await;
    let Ok(Reply::Err(error)) = reply else {
        panic!("an error at once: {reply:?}");
    };
    assert!(
        [2013, 1927, 1317, 1053].contains(&error.code) && !error.message.is_empty(),
        "{error:?}"
    );
    let mut other = client_as(&sidepool, user).await;
    assert_eq!(value(&mut other, "SELECT 7").await, "7");
    assert_eq!(
        running(&mut looking, "SELECT SLEEP(30) AS f_running").await,
        0
    );
    assert_calm(&sidepool);
}
