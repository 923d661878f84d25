//! What is sent a second time, and what is not; and a server without session trackers.

use super::cable::{Act, Cable};
use super::{CLOSED, RETRIES, assert_calm};
use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::Wire;

on_every_server! {
    a_notice_in_place_of_an_answer_sends_the_statement_again => notices;
    it_is_not_sent_again_for_ever => notices_for_ever;
    no_other_notice_does => other_notices;
    nor_does_an_end_without_an_answer => ends;
    nor_does_a_lost_answer => lost_answer;
    nor_does_a_transaction => in_transaction;
    without_trackers_every_session_is_pinned => no_trackers;
}

/// A table, and a client that reaches it by a cable.
async fn set_up(server: &Server, database: &str) -> (Cable, Sidepool, Wire) {
    server.database(database);
    server.root(&format!("CREATE TABLE {database}.t (a INT) ENGINE=InnoDB"));
    let cable = Cable::to(&server.address());
    let sidepool = cable.sidepool(&[("SIDEPOOL_POOL__MAX_CONNECTIONS", "2")]);
    let wire = client_in(&sidepool, crate::support::servers::USER, database).await;
    (cable, sidepool, wire)
}

async fn rows(server: &Server, database: &str) -> String {
    let mut looking = root(server).await;
    value(&mut looking, &format!("SELECT COUNT(*) FROM {database}.t")).await
}

async fn notices(server: &Server) {
    let (cable, sidepool, mut wire) = set_up(server, "t_retry").await;
    for (done, code) in [4031, 1053, 1927].into_iter().enumerate() {
        cable.trick("INSERT", &[Act::Notice(code)]);
        wire.run("INSERT INTO t VALUES (1)").await;
        assert_eq!(rows(server, "t_retry").await, (done + 1).to_string());
    }
    assert_eq!(sidepool.metric(RETRIES, ""), 3.0);
    cable.trick("INSERT", &[Act::Notice(1053), Act::Notice(4031)]);
    wire.run("INSERT INTO t VALUES (1)").await;
    assert_eq!(rows(server, "t_retry").await, "4");
    assert_eq!(sidepool.metric(RETRIES, ""), 5.0);
    assert_eq!((cable.tricks_left(), sidepool.metric(CLOSED, "")), (0, 0.0));
    assert_calm(&sidepool);
}

async fn notices_for_ever(server: &Server) {
    let (cable, sidepool, mut wire) = set_up(server, "t_retry_ever").await;
    cable.trick("INSERT", &[Act::Notice(1053); 100]);
    let error = wire.query("INSERT INTO t VALUES (1)").await.err();
    assert_eq!(error.code, 2013, "{error:?}");
    assert!(cable.tricks_left() > 50);
    assert_eq!(rows(server, "t_retry_ever").await, "0");
    assert_calm(&sidepool);
}

async fn other_notices(server: &Server) {
    let (cable, sidepool, mut wire) = set_up(server, "t_retry_other").await;
    cable.trick("INSERT", &[Act::Notice(1317)]);
    let error = wire.query("INSERT INTO t VALUES (1)").await.err();
    assert_eq!(error.code, 2013, "{error:?}");
    assert_eq!(rows(server, "t_retry_other").await, "0");
    assert_eq!(sidepool.metric(RETRIES, ""), 0.0);
}

async fn ends(server: &Server) {
    let (cable, sidepool, mut wire) = set_up(server, "t_retry_ends").await;
    cable.trick("INSERT", &[Act::Close]);
    let error = wire.query("INSERT INTO t VALUES (1)").await.err();
    // Nobody but the test knows that it never arrived.
    assert_eq!(error.code, 2013, "{error:?}");
    assert!(wire.read_packet().await.is_err());
    assert_eq!(rows(server, "t_retry_ends").await, "0");
    assert_eq!(sidepool.metric(RETRIES, ""), 0.0);
    assert_eq!(sidepool.metric(CLOSED, "\"backend_lost\""), 1.0);
}

async fn lost_answer(server: &Server) {
    let (cable, sidepool, mut wire) = set_up(server, "t_retry_lost").await;
    cable.trick("INSERT", &[Act::SwallowAnswer]);
    let error = wire.query("INSERT INTO t VALUES (1)").await.err();
    assert_eq!(error.code, 2013, "{error:?}");
    eventually("it has run", async || {
        rows(server, "t_retry_lost").await == "1"
    })
    .await;
    let mut other = client(&sidepool).await;
    let count = value(&mut other, "SELECT COUNT(*) FROM t_retry_lost.t").await;
    assert_eq!(count, "1", "it has run twice");
    assert_eq!(sidepool.metric(RETRIES, ""), 0.0);
    assert_calm(&sidepool);
}

async fn in_transaction(server: &Server) {
    let (cable, sidepool, mut wire) = set_up(server, "t_retry_trx").await;
    wire.run("BEGIN").await;
    wire.run("INSERT INTO t VALUES (1)").await;
    cable.trick("VALUES (2)", &[Act::Notice(1053)]);
    let error = wire.query("INSERT INTO t VALUES (2)").await.err();
    assert!([2013, 1053].contains(&error.code), "{error:?}");
    assert!(wire.read_packet().await.is_err());
    assert_eq!(rows(server, "t_retry_trx").await, "0");
    assert_eq!(sidepool.metric(RETRIES, ""), 0.0);
}

async fn no_trackers(server: &Server) {
    let user = "f_trackers";
    account(server, user);
    let cable = Cable::without_trackers(&server.address());
    let sidepool = cable.sidepool(&[]);
    let (mut a, mut b) = (
        client_as(&sidepool, user).await,
        client_as(&sidepool, user).await,
    );
    a.run("SET time_zone = '+01:00'").await;
    a.run("SELECT 'a' INTO @x").await;
    assert_eq!(value(&mut b, "SELECT @@time_zone").await, "SYSTEM");
    assert_eq!(value(&mut a, "SELECT @@time_zone").await, "+01:00");
    assert_eq!(value(&mut a, "SELECT @x").await, "a");
    assert_eq!(value(&mut b, "SELECT @x").await, "NULL");
    let pins = "sidepool_session_pins_total";
    assert_eq!(sidepool.metric(pins, "\"no_trackers\""), 2.0);
    assert_eq!(sidepool.metric("sidepool_sessions_pinned", ""), 2.0);
    // Left alone, nothing of it is found by the next: nobody can tell what is on its connection.
    const THREAD: &str = "SELECT CONNECTION_ID() + 0";
    let (left, kept) = (value(&mut a, THREAD).await, value(&mut b, THREAD).await);
    a.quit().await;
    eventually("it is gone", async || {
        sidepool.metric("sidepool_sessions_pinned", "") == 1.0
    })
    .await;
    let mut c = client_as(&sidepool, user).await;
    assert_eq!(value(&mut c, "SELECT @x").await, "NULL");
    assert_eq!(value(&mut c, "SELECT @@time_zone").await, "SYSTEM");
    let thread = value(&mut c, THREAD).await;
    assert!(thread != left && thread != kept, "{thread}");
    let dirty = sidepool.metric("sidepool_pool_retired_total", "reason=\"dirty\"");
    assert_eq!(dirty, 1.0);
    let log = sidepool.log();
    let said = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("no session trackers"));
    assert_eq!(said.count(), 1, "{log}");
    assert_calm(&sidepool);
}
