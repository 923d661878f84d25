//! Sharing: many clients over few backend connections, never more of them than allowed, each client
//! with what is its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::clients::*;
use crate::support::eventually;
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Reply, Wire};

on_every_server! {
    many_clients_share_three_connections => many;
    a_borrow_timeout_is_9501_and_not_the_end => borrow_timeout;
    waiters_are_served_in_order => in_order;
    a_transaction_keeps_its_connection => transaction;
    room_is_made_for_another_account => two_accounts;
    idle_clients_hold_no_connection => idle_clients;
    the_limit_is_a_share_of_the_servers => percent;
    connections_are_not_opened_without_need => one_is_enough;
    a_replay_counts_when_it_was_answered => replays;
}

const LIMIT: usize = 3;

async fn many(server: &Server) {
    const CLIENTS: usize = 40;
    const ROUNDS: usize = 5;
    let user = "p_many";
    account(server, user);
    server.database("t_pool_many");
    server.root("CREATE TABLE t_pool_many.t (client INT, n INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, LIMIT);
    let done = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(most_connections(
        root(server).await,
        user,
        Arc::clone(&done),
    ));
    let mut tasks = JoinSet::new();
    for i in 0..CLIENTS {
        let mut wire = client_in(&sidepool, user, "t_pool_many").await;
        tasks.spawn(async move {
            for n in 0..ROUNDS {
                wire.run("BEGIN").await;
                wire.run(&format!("INSERT INTO t VALUES ({i}, {n})")).await;
                let count = format!("SELECT COUNT(*) FROM t WHERE client = {i}");
                assert_eq!(value(&mut wire, &count).await, (n + 1).to_string());
                assert_eq!(
                    wire.run("COMMIT").await.ok().status & 1,
                    0,
                    "still in a transaction"
                );
            }
            wire.quit().await;
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let most = watch.await.unwrap();
    assert!((2..=LIMIT).contains(&most), "{most} connections at once");
    let counts = "SELECT CONCAT(COUNT(*), ',', COUNT(DISTINCT client, n)) FROM t_pool_many.t";
    let all = CLIENTS * ROUNDS;
    assert_eq!(server.root(counts), format!("{all},{all}"));
    assert_eq!(sidepool.metric("sidepool_session_pins_total", ""), 0.0);
}

/// Looks again and again how many connections an account has; the most that were seen.
async fn most_connections(mut root: Wire, user: &'static str, done: Arc<AtomicBool>) -> usize {
    let mut most = 0;
    while !done.load(Ordering::Relaxed) {
        most = most.max(lasting(&mut root, user).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    most
}

/// How many connections an account has; if they are too many, how many of these stay. The server ends a
/// connection's stream, for which Sidepool waits before it opens another, and takes it off the list later
/// (MySQL 9.7.4).
async fn lasting(root: &mut Wire, user: &str) -> usize {
    let sql = format!(
        "SELECT COALESCE(GROUP_CONCAT(id), '') FROM information_schema.processlist WHERE user = '{user}'"
    );
    let ids = async |root: &mut Wire| -> Vec<String> {
        let list = value(root, &sql).await;
        list.split(',').map(str::to_owned).collect()
    };
    let mut seen = ids(root).await;
    let deadline = Instant::now() + Duration::from_secs(2);
    while seen.len() > LIMIT && Instant::now() < deadline {
        let now = ids(root).await;
        seen.retain(|id| now.contains(id));
    }
    seen.iter().filter(|id| !id.is_empty()).count()
}

async fn borrow_timeout(server: &Server) {
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "1"),
            ("SIDEPOOL_POOL__BORROW_TIMEOUT", "300ms"),
        ],
    );
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    a.run("BEGIN").await;
    for _ in 0..2 {
        let began = Instant::now();
        let error = b.query("SELECT 1").await.err();
        assert_eq!(
            (error.code, &error.state[..]),
            (9501, "HY000"),
            "{}",
            error.message
        );
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(290), "gave up after {took:?}");
        assert!(took < Duration::from_secs(5), "gave up after {took:?}");
    }
    a.run("COMMIT").await;
    assert_eq!(value(&mut b, "SELECT 7").await, "7");
    assert_eq!(
        sidepool.metric("sidepool_pool_borrow_timeouts_total", ""),
        2.0
    );
    assert_eq!(sidepool.metric("sidepool_pool_waiters", ""), 0.0);
}

async fn in_order(server: &Server) {
    server.database("t_pool_order");
    server.root("CREATE TABLE t_pool_order.t (id INT AUTO_INCREMENT PRIMARY KEY, who INT)");
    let sidepool = Sidepool::sharing(server, 1);
    let mut holder = client(&sidepool).await;
    let mut others = Vec::new();
    for _ in 0..6 {
        others.push(client(&sidepool).await);
    }
    holder.run("BEGIN").await;
    for (i, other) in others.iter_mut().enumerate() {
        let sql = format!("INSERT INTO t_pool_order.t (who) VALUES ({i})");
        other.command(3, sql.as_bytes()).await;
        eventually("the client waits", async || {
            sidepool.metric("sidepool_pool_waiters", "") == (i + 1) as f64
        })
        .await;
    }
    holder.run("COMMIT").await;
    for other in &mut others {
        other.read_reply().await.ok();
    }
    let order = server.root("SELECT GROUP_CONCAT(who ORDER BY id) FROM t_pool_order.t");
    assert_eq!(order, "0,1,2,3,4,5");
}

async fn transaction(server: &Server) {
    server.database("t_pool_trx");
    server.root("CREATE TABLE t_pool_trx.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 2);
    let mut a = client(&sidepool).await;
    let mut b = client(&sidepool).await;
    let count = "SELECT COUNT(*) FROM t_pool_trx.t";
    a.run("BEGIN").await;
    a.run("INSERT INTO t_pool_trx.t VALUES (1)").await;
    for _ in 0..5 {
        assert_eq!(
            value(&mut b, count).await,
            "0",
            "somebody else's uncommitted row"
        );
        assert_eq!(value(&mut a, count).await, "1", "the own row is gone");
    }
    assert_eq!(sidepool.metric("sidepool_sessions_in_transaction", ""), 1.0);
    assert_eq!(
        sidepool.metric("sidepool_pool_connections", "borrowed"),
        1.0
    );
    a.run("ROLLBACK").await;
    for wire in [&mut a, &mut b] {
        assert_eq!(value(wire, count).await, "0");
    }
    eventually("everything is given back", async || {
        sidepool.metric("sidepool_sessions_in_transaction", "") == 0.0
            && sidepool.metric("sidepool_pool_connections", "borrowed") == 0.0
    })
    .await;
}

async fn two_accounts(server: &Server) {
    account(server, "p_first");
    account(server, "p_second");
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "2"),
            ("SIDEPOOL_POOL__MAX_IDLE_PERCENT", "100"),
            ("SIDEPOOL_POOL__BORROW_TIMEOUT", "5s"),
        ],
    );
    let mut root = root(server).await;
    let mut firsts = [
        client_as(&sidepool, "p_first").await,
        client_as(&sidepool, "p_first").await,
    ];
    for wire in &mut firsts {
        wire.run("BEGIN").await;
    }
    for wire in &mut firsts {
        wire.run("COMMIT").await;
    }
    assert_eq!(connections(&mut root, "p_first").await, 2);
    let mut seconds = [
        client_as(&sidepool, "p_second").await,
        client_as(&sidepool, "p_second").await,
    ];
    for wire in &mut seconds {
        wire.run("BEGIN").await;
    }
    eventually("the first account has made room", async || {
        let first = connections(&mut root, "p_first").await;
        let second = connections(&mut root, "p_second").await;
        (first, second) == (0, 2)
    })
    .await;
    let [first, _] = &mut firsts;
    first.command(3, b"SELECT 5").await;
    eventually("the first account waits", async || {
        sidepool.metric("sidepool_pool_waiters", "") == 1.0
    })
    .await;
    for wire in &mut seconds {
        wire.run("COMMIT").await;
    }
    assert_eq!(first.read_reply().await.text(), "5");
    assert!(sidepool.metric("sidepool_pool_retired_total", "made_room") >= 3.0);
}

async fn idle_clients(server: &Server) {
    let user = "p_idle";
    account(server, user);
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "4"),
            ("SIDEPOOL_POOL__IDLE_TIMEOUT", "300ms"),
        ],
    );
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(client_as(&sidepool, user).await);
    }
    let mut root = root(server).await;
    for round in 0..2 {
        for wire in &mut clients {
            wire.run("SELECT 1").await;
        }
        assert_eq!(
            sidepool.metric("sidepool_client_connections", ""),
            10.0,
            "round {round}"
        );
        eventually("the server sees nobody", async || {
            connections(&mut root, user).await == 0
        })
        .await;
    }
    assert!(sidepool.metric("sidepool_pool_retired_total", "\"idle_timeout\"") >= 2.0);
}

/// Both servers' default is 151 connections, of which 2 percent are 3.
async fn percent(server: &Server) {
    let user = "p_percent";
    account(server, user);
    assert_eq!(server.root("SELECT @@max_connections"), "151");
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS_PERCENT", "2"),
            ("SIDEPOOL_POOL__BORROW_TIMEOUT", "300ms"),
        ],
    );
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut wire = client_as(&sidepool, user).await;
        wire.run("BEGIN").await;
        held.push(wire);
    }
    assert_eq!(sidepool.metric("sidepool_pool_connections_max", ""), 3.0);
    assert_eq!(
        sidepool.metric("sidepool_backend_server_max_connections", ""),
        151.0
    );
    let mut fourth = client_as(&sidepool, user).await;
    assert_eq!(fourth.query("SELECT 1").await.err().code, 9501);
    assert_eq!(connections(&mut root(server).await, user).await, 3);
}

/// Clients that take turns need one connection, or a second where one comes while the other is being
/// given back, whatever they may have.
async fn one_is_enough(server: &Server) {
    let user = "p_one";
    account(server, user);
    let sidepool = Sidepool::sharing(server, 20);
    let address = sidepool.address();
    let mut clients = Vec::new();
    for program in ["a", "b", "c"] {
        let login = Login {
            user,
            program,
            ..Login::to(&address)
        };
        clients.push(Wire::connect(&login).await.unwrap());
    }
    for _ in 0..5 {
        for wire in &mut clients {
            wire.run("SELECT 1").await;
            // It goes back behind the answer.
            eventually("it is back", async || {
                sidepool.metric("sidepool_pool_connections", "\"borrowed\"") == 0.0
            })
            .await;
        }
    }
    assert!((1..=2).contains(&connections(&mut root(server).await, user).await));
    assert!((1.0..=2.0).contains(&sidepool.metric("sidepool_pool_dials_total", "ok")));
}

/// Each counts once, also one that is answered in front of a command that fails.
async fn replays(server: &Server) {
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "1"),
            ("SIDEPOOL_POOL__MAX_IDLE_PERCENT", "100"),
        ],
    );
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    let counted = |result| sidepool.metric("sidepool_session_replays_total", result);
    a.run("SET group_concat_max_len = 4321").await;
    assert_eq!(counted("ok"), 0.0);
    for (n, failing) in [(1, false), (2, true), (3, false)] {
        let wire = if n % 2 == 1 { &mut b } else { &mut a };
        let sql = if failing {
            "SELECT nothing"
        } else {
            "SELECT 1"
        };
        let reply = wire.query(sql).await;
        assert_eq!(matches!(reply, Reply::Err(_)), failing);
        eventually("it is counted", async || counted("ok") >= f64::from(n)).await;
        assert_eq!(counted("ok"), f64::from(n), "{sql}");
    }
    assert_eq!(counted("failed"), 0.0);
}
