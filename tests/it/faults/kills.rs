//! `KILL` by Sidepool's ids.

use std::time::Duration;

use tokio::time::timeout;

use super::cable::Cable;
use super::{CLOSED, assert_calm, last_words};
use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Reply, Wire};

on_every_server! {
    kill_query_interrupts_a_statement_of_the_same_account => query;
    kill_query_works_though_the_pool_is_full => query_in_a_full_pool;
    kill_ends_a_connection_of_the_same_account => connection;
    kill_ends_a_loop_of_statements => loop_of_statements;
    kill_of_anothers_or_of_nobody_is_refused => refused;
    a_kill_that_comes_late_hits_nobody_else => late;
}

/// Waits for the answer of a statement that slept and was interrupted. MySQL's `SLEEP` answers 1.
async fn interrupted(wire: &mut Wire) {
    match timeout(Duration::from_secs(8), wire.read_reply()).await {
        Ok(Reply::Err(error)) => assert_eq!(error.code, 1317, "{error:?}"),
        Ok(Reply::Rows { rows, .. }) => assert_eq!(rows[0][0], Some(b"1".to_vec())),
        other => panic!("not interrupted: {other:?}"),
    }
}

async fn query(server: &Server) {
    interrupt(server, "f_kill_query", 4).await;
}

async fn query_in_a_full_pool(server: &Server) {
    interrupt(server, "f_kill_full", 1).await;
}

async fn interrupt(server: &Server, user: &str, connections: usize) {
    account(server, user);
    let sidepool = Sidepool::sharing(server, connections);
    let (mut busy, mut killer) = (
        client_as(&sidepool, user).await,
        client_as(&sidepool, user).await,
    );
    let mut looking = root(server).await;
    let statement = format!("SELECT SLEEP(60) AS {user}");
    let id = busy.thread_id;
    // The second as a driver says it that takes the id for a signed number.
    for id in [i64::from(id), i64::from(id.cast_signed())] {
        busy.command(3, statement.as_bytes()).await;
        eventually("it runs", async || {
            running(&mut looking, &statement).await == 1
        })
        .await;
        killer.run(&format!("KILL QUERY {id}")).await;
        interrupted(&mut busy).await;
        assert_eq!(value(&mut busy, "SELECT 7").await, "7");
    }
    // Nothing runs: nothing happens.
    killer.run(&format!("KILL QUERY {}", busy.thread_id)).await;
    assert_eq!(value(&mut busy, "SELECT 8").await, "8");
    assert_calm(&sidepool);
}

async fn connection(server: &Server) {
    let user = "f_kill_conn";
    account(server, user);
    let sidepool = Sidepool::sharing(server, 4);
    let mut killer = client_as(&sidepool, user).await;
    let mut idle = client_as(&sidepool, user).await;
    killer.run(&format!("KILL {}", idle.thread_id)).await;
    assert_eq!(last_words(&mut idle).await, Some(1927));
    let mut by_command = client_as(&sidepool, user).await;
    killer
        .command(12, &by_command.thread_id.to_le_bytes())
        .await;
    killer.read_reply().await.ok();
    assert_eq!(last_words(&mut by_command).await, Some(1927));
    let mut busy = client_as(&sidepool, user).await;
    busy.run("BEGIN").await;
    busy.command(3, b"SELECT SLEEP(60) AS f_kill_conn").await;
    let mut looking = root(server).await;
    eventually("it runs", async || {
        running(&mut looking, "SELECT SLEEP(60) AS f_kill_conn").await == 1
    })
    .await;
    killer
        .run(&format!("KILL CONNECTION {}", busy.thread_id))
        .await;
    // As on a direct connection: an end without a word.
    assert_eq!(busy.read_reply().await.err().code, 2013);
    // Itself.
    let own = killer.thread_id;
    let reply = killer.query(&format!("KILL {own}")).await;
    assert!(matches!(reply, Reply::Ok(_)), "{reply:?}");
    assert_eq!(last_words(&mut killer).await, Some(1927));
    assert_eq!(sidepool.metric(CLOSED, "\"killed\""), 4.0);
    assert_calm(&sidepool);
}

/// One of its statements takes a `KILL QUERY` for its own, and the loop goes on (measured on MariaDB).
async fn loop_of_statements(server: &Server) {
    if !is_mariadb(server) {
        return;
    }
    let user = "f_kill_loop";
    account(server, user);
    server.database("t_fault_loop");
    let sidepool = Sidepool::sharing(server, 4);
    let mut killer = client_in(&sidepool, user, "t_fault_loop").await;
    let mut busy = client_in(&sidepool, user, "t_fault_loop").await;
    busy.command(3, b"LOOP CREATE OR REPLACE VIEW v AS SELECT 1; END LOOP")
        .await;
    let mut looking = root(server).await;
    eventually("it runs", async || {
        running(&mut looking, "CREATE OR REPLACE VIEW v").await == 1
    })
    .await;
    killer.run(&format!("KILL {}", busy.thread_id)).await;
    eventually("it has ended", async || {
        connections(&mut looking, user).await <= 1
    })
    .await;
}

async fn refused(server: &Server) {
    let (user, other) = ("f_kill_owner", "f_kill_other");
    account(server, user);
    account(server, other);
    let sidepool = Sidepool::sharing(server, 4);
    let mut victim = client_as(&sidepool, user).await;
    let mut stranger = client_as(&sidepool, other).await;
    let id = victim.thread_id;
    for word in ["KILL", "KILL QUERY", "KILL CONNECTION"] {
        let error = stranger.query(&format!("{word} {id}")).await.err();
        assert_eq!((error.code, &error.state[..]), (1095, "HY000"));
        assert_eq!(error.message, format!("You are not owner of thread {id}"));
    }
    stranger.command(12, &id.to_le_bytes()).await;
    assert_eq!(stranger.read_reply().await.err().code, 1095);
    assert_eq!(value(&mut victim, "SELECT 7").await, "7");
    // What was never given out, and what the database itself does not know.
    let unknown = u32::MAX;
    let error = stranger.query(&format!("KILL {unknown}")).await.err();
    assert_eq!((error.code, &error.state[..]), (1094, "HY000"));
    assert_eq!(error.message, format!("Unknown thread id: {unknown}"));
    let error = stranger.query("KILL 2000000000").await.err();
    assert_eq!(error.code, 1094);
    victim.quit().await;
    eventually("it is gone", async || {
        let error = stranger.query(&format!("KILL {id}")).await.err();
        // Until it has left the directory it is another's.
        error.code == 1094
    })
    .await;
}

async fn late(server: &Server) {
    let user = "f_kill_late";
    account(server, user);
    let cable = Cable::to(&server.address());
    let sidepool = cable.sidepool(&[("SIDEPOOL_POOL__MAX_CONNECTIONS", "2")]);
    let mut first = client_as(&sidepool, user).await;
    let mut second = client_as(&sidepool, user).await;
    let mut killer = client_as(&sidepool, user).await;
    first.command(3, b"SELECT SLEEP(1) AS f_kill_late").await;
    let mut looking = root(server).await;
    eventually("it runs", async || {
        running(&mut looking, "SELECT SLEEP(1) AS f_kill_late").await == 1
    })
    .await;
    // The kill's own connection comes too late for the statement.
    cable.hold(true);
    let id = first.thread_id;
    killer
        .command(3, format!("KILL QUERY {id}").as_bytes())
        .await;
    eventually("the kill waits", async || cable.waiting() == 1).await;
    first.read_reply().await.rows();
    // Somebody else would get that very connection.
    second.command(3, b"SELECT SLEEP(2) AS f_kill_late").await;
    let began = timeout(Duration::from_millis(700), async {
        while running(&mut looking, "SELECT SLEEP(2) AS f_kill_late").await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let _ = began.await;
    cable.hold(false);
    killer.read_reply().await.ok();
    let slept = second.read_reply().await;
    assert_eq!(
        slept.rows()[0][0],
        Some(b"0".to_vec()),
        "it was interrupted"
    );
    assert_calm(&sidepool);
}
