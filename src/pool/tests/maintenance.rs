//! What time does to idle connections.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::fake::*;
use crate::pool::*;
use crate::reason::RetireReason;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Waits until `n` connections are closed; returns how long that took.
async fn until_closed(server: &Server, n: usize) -> Duration {
    let begun = Instant::now();
    while server.closed().len() < n {
        assert!(begun.elapsed() < secs(1_000_000), "never");
        sleep(ms(100)).await;
    }
    begun.elapsed()
}

fn maintained(limits: Limits) -> (TestPool, Server, tokio_util::sync::DropGuard) {
    let (pool, server) = pool(limits);
    let token = CancellationToken::new();
    tokio::spawn(pool.clone().maintain(token.clone()));
    (pool, server, token.drop_guard())
}

#[tokio::test(start_paused = true)]
async fn the_idle_cap_closes_what_is_not_needed_for_a_while() {
    let (pool, server, _guard) = maintained(Limits {
        max_idle: 2,
        ..at_most(5)
    });
    let mut ids = Vec::new();
    // As long as all three are needed now and then, none is closed.
    for _ in 0..5 {
        ids = idle(&pool, 1, &[PLAIN, PLAIN, PLAIN]).await;
        sleep(secs(9)).await;
        assert_eq!(server.closed(), []);
    }
    assert_eq!(server.data().dials.len(), 3);
    until_closed(&server, 1).await;
    sleep(secs(60)).await;
    assert_eq!(server.closed(), [(ids[0], RetireReason::IdleCap)]);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_go_after_the_idle_timeout() {
    let (pool, server, _guard) = maintained(Limits {
        idle_timeout: secs(300),
        ..at_most(5)
    });
    idle(&pool, 1, &[PLAIN, PLAIN]).await;
    sleep(secs(200)).await;
    borrow(&pool, 1, PLAIN).await.give_back();
    let took = until_closed(&server, 1).await;
    assert!((secs(99)..secs(101)).contains(&took), "{took:?}");
    let took = until_closed(&server, 2).await;
    assert!((secs(199)..secs(202)).contains(&took), "{took:?}");
    assert_eq!(server.close_reasons(), [RetireReason::IdleTimeout; 2]);
    check(&pool);
    assert_eq!(pool.counts().total(), 0);
    assert!(pool.stats().keys.is_empty());
}

#[tokio::test(start_paused = true)]
async fn zero_means_never() {
    let (pool, server, _guard) = maintained(at_most(5));
    idle(&pool, 1, &[PLAIN]).await;
    sleep(secs(100_000)).await;
    assert!(server.closed().is_empty());
    // A changed limit takes effect within a round.
    pool.set_limits(Limits {
        idle_timeout: secs(10),
        ..at_most(5)
    });
    assert!(until_closed(&server, 1).await <= ms(1100));
}

#[tokio::test(start_paused = true)]
async fn lifetimes_end_spread_over_a_fifth() {
    let (pool, server, _guard) = maintained(Limits {
        max_lifetime: secs(1000),
        max_dials: 60,
        ..at_most(60)
    });
    idle(&pool, 1, &[PLAIN; 60]).await;
    let first = until_closed(&server, 1).await;
    let last = first + until_closed(&server, 60).await;
    assert!(
        first >= secs(898) && last <= secs(1102),
        "{first:?} {last:?}"
    );
    assert!(last - first > secs(100), "spread: {first:?} {last:?}");
    assert!(
        server
            .close_reasons()
            .iter()
            .all(|r| *r == RetireReason::MaxLifetime)
    );
}

#[tokio::test(start_paused = true)]
async fn a_borrowed_connection_over_its_lifetime_goes_when_returned() {
    let (pool, server, _guard) = maintained(Limits {
        max_lifetime: secs(100),
        ..at_most(5)
    });
    let lease = borrow(&pool, 1, PLAIN).await;
    sleep(secs(200)).await;
    assert!(server.closed().is_empty(), "not while it is lent");
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    waiter.abort();
    lease.give_back();
    settle().await;
    assert_eq!(server.close_reasons(), [RetireReason::MaxLifetime]);
}

#[tokio::test(start_paused = true)]
async fn connections_go_before_the_servers_own_limit() {
    // (wait_timeout, closed at, tolerance of a round)
    for (limit, expected) in [
        (secs(28_800), secs(25_920)),
        (secs(600), secs(540)),
        (secs(30), secs(25)),
        (secs(8), secs(4)),
        (secs(1), ms(500)),
    ] {
        let (pool, server, _guard) = maintained(at_most(5));
        server.data().idle_limit = Some(limit);
        idle(&pool, 1, &[PLAIN]).await;
        let took = until_closed(&server, 1).await;
        assert!(
            took < limit && took + ms(100) >= expected && took <= expected + ms(1100),
            "{limit:?} {took:?}"
        );
        assert_eq!(server.close_reasons(), [RetireReason::WaitTimeout]);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_of_the_last_key_are_kept_warm() {
    let limits = Limits {
        min_idle: 3,
        idle_timeout: secs(60),
        ..at_most(10)
    };
    let (pool, server, _guard) = maintained(limits);
    sleep(secs(5)).await;
    assert_eq!(server.dials(), 0, "no key is known yet");
    let lease = borrow(&pool, 1, PLAIN).await;
    sleep(secs(2)).await;
    check(&pool);
    assert_eq!(pool.counts().idle, 3);
    lease.give_back();
    // The fourth goes after the timeout, the three most recent stay.
    sleep(secs(1000)).await;
    assert_eq!(server.close_reasons(), [RetireReason::IdleTimeout]);
    assert_eq!((pool.counts().idle, server.dials()), (3, 4));
    // Lost ones are replaced.
    pool.retire_key(&1, RetireReason::Admin);
    sleep(secs(2)).await;
    assert_eq!((pool.counts().idle, server.dials()), (3, 7));
    // Never at the cost of a borrower.
    pool.set_limits(Limits {
        max_connections: 2,
        ..limits
    });
    let _both = [borrow(&pool, 2, PLAIN).await, borrow(&pool, 2, PLAIN).await];
    sleep(secs(5)).await;
    check(&pool);
    assert_eq!(pool.counts().total(), 2);
}

#[tokio::test(start_paused = true)]
async fn warming_up_does_not_hammer_a_failing_backend() {
    let (pool, server, _guard) = maintained(at_most(10));
    let lease = borrow(&pool, 1, PLAIN).await;
    server.set(1, Some(Mood::Fail(FakeError::Denied)));
    pool.set_limits(Limits {
        min_idle: 1,
        ..at_most(10)
    });
    sleep(secs(600)).await;
    assert!((8..25).contains(&server.dials()), "{}", server.dials());
    server.set(1, None);
    sleep(secs(62)).await;
    assert_eq!(pool.counts().idle, 1);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn maintenance_ends_at_shutdown() {
    let (pool, _server) = pool(at_most(5));
    let token = CancellationToken::new();
    let task = tokio::spawn(pool.clone().maintain(token.clone()));
    sleep(secs(5)).await;
    assert!(!task.is_finished());
    token.cancel();
    task.await.unwrap();
}
