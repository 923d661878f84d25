//! Limits, marks, closing, and what is reported.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::fake::*;
use crate::pool::*;
use crate::reason::RetireReason;

#[tokio::test(start_paused = true)]
async fn where_nothing_may_be_idle_a_return_closes() {
    let (pool, server) = pool(at_most(5));
    idle(&pool, 1, &[PLAIN, PLAIN, PLAIN]).await;
    pool.set_limits(Limits {
        max_idle: 0,
        ..at_most(5)
    });
    check(&pool);
    sleep(ms(10)).await;
    assert_eq!(pool.counts().total(), 0);
    borrow(&pool, 1, PLAIN).await.give_back();
    settle().await;
    assert_eq!(server.close_reasons(), [RetireReason::IdleCap; 4]);
}

#[tokio::test(start_paused = true)]
async fn lowered_limits_take_idle_now_and_borrowed_when_returned() {
    let (pool, server) = pool(at_most(4));
    let lent = [borrow(&pool, 1, PLAIN).await, borrow(&pool, 1, PLAIN).await];
    idle(&pool, 2, &[PLAIN, PLAIN]).await;
    pool.set_limits(at_most(1));
    check(&pool);
    sleep(ms(10)).await;
    assert_eq!(server.close_reasons(), [RetireReason::Admin; 2]);
    assert_eq!(pool.counts().total(), 2);
    let waiter = borrow_later(&pool, 3, PLAIN).await;
    let [one, two] = lent;
    one.give_back();
    sleep(ms(50)).await;
    check(&pool);
    assert!(
        !waiter.is_finished(),
        "the limit is reached by the other one"
    );
    two.give_back();
    waiter.await.unwrap().unwrap();
    assert_eq!(
        server.close_reasons()[2..],
        [RetireReason::Admin, RetireReason::MadeRoom],
    );
    assert_eq!(server.data().dials.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn raised_limits_serve_those_who_wait() {
    let (pool, _server) = pool(Limits {
        max_dials: 1,
        ..at_most(1)
    });
    let lease = borrow(&pool, 1, PLAIN).await;
    let one = borrow_later(&pool, 1, PLAIN).await;
    let two = borrow_later(&pool, 2, PLAIN).await;
    pool.set_limits(at_most(3));
    check(&pool);
    sleep(ms(15)).await;
    assert!(one.is_finished() && two.is_finished());
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn limits_of_zero_still_lend() {
    let limits = Limits {
        max_connections: 0,
        max_dials: 0,
        ..at_most(0)
    };
    let (pool, server) = pool(limits);
    borrow(&pool, 1, PLAIN).await.give_back();
    sleep(ms(10)).await;
    let (peak, live) = (server.data().peak, pool.counts().total());
    assert_eq!((peak, live), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_retired_key_keeps_nothing_that_was_opened_before() {
    let (pool, server) = pool(at_most(9));
    idle(&pool, 2, &[PLAIN]).await;
    let lent = borrow(&pool, 1, PLAIN).await;
    idle(&pool, 1, &[PLAIN]).await;
    let taken = borrow(&pool, 1, PLAIN).await;
    let dialing = borrow_later(&pool, 1, PLAIN).await;
    taken.give_back();
    let after = dialing.await.unwrap().unwrap();
    assert_eq!(pool.retire_key(&1, RetireReason::AuthRevoked), 0);
    sleep(ms(50)).await;
    // One idle (the login that lost its waiter), two lent.
    let mut expected = vec![RetireReason::AuthRevoked];
    assert_eq!(server.close_reasons(), expected);
    lent.give_back();
    after.give_back();
    settle().await;
    expected.extend([RetireReason::AuthRevoked; 2]);
    assert_eq!(server.close_reasons(), expected);
    // What is opened from now on stays, and the other key never noticed.
    borrow(&pool, 1, PLAIN).await.give_back();
    let mut keys = pool.stats().keys;
    keys.sort_by_key(|(key, _)| *key);
    let idle = KeyStats {
        idle: 1,
        ..KeyStats::default()
    };
    assert_eq!(keys, [(1, idle), (2, idle)]);
}

#[tokio::test(start_paused = true)]
async fn a_login_begun_before_the_mark_is_not_trusted() {
    let (pool, server) = pool(at_most(9));
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    sleep(ms(5)).await;
    pool.retire_keys(|_| true, RetireReason::Admin);
    let begun = Instant::now();
    let lease = waiter.await.unwrap().unwrap();
    assert_eq!(
        begun.elapsed(),
        ms(17),
        "the rest of the first, its close, a second"
    );
    assert_eq!(server.close_reasons(), [RetireReason::Admin]);
    lease.give_back();
    assert_eq!(pool.counts().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_retired_by_choice() {
    let (pool, server) = pool(at_most(9));
    let ids = idle(&pool, 1, &[state(1, 0), state(2, 0), state(3, 0)]).await;
    let retired = pool.retire_idle(
        |key, conn| *key == 1 && conn.state.db == Some(2),
        RetireReason::Dirty,
    );
    check(&pool);
    settle().await;
    assert_eq!(retired, 1);
    assert_eq!(server.closed(), [(ids[1], RetireReason::Dirty)]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_lends_nothing_and_lets_go_of_everything() {
    let (pool, server) = pool(at_most(3));
    idle(&pool, 1, &[PLAIN]).await;
    let lent = borrow(&pool, 2, PLAIN).await;
    let dialing = borrow_later(&pool, 3, PLAIN).await;
    let waiting = borrow_later(&pool, 4, PLAIN).await;
    let guard = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.reserve(MINUTE).await })
    };
    settle().await;
    pool.close();
    check(&pool);
    for waiter in [dialing, waiting] {
        assert!(matches!(waiter.await.unwrap(), Err(BorrowError::Closed)));
    }
    assert!(matches!(guard.await.unwrap(), Err(BorrowError::Closed)));
    assert!(matches!(
        pool.borrow(&1, &PLAIN, MINUTE).await,
        Err(BorrowError::Closed)
    ));
    assert!(matches!(
        pool.reserve(MINUTE).await,
        Err(BorrowError::Closed)
    ));
    let closed = tokio::spawn({
        let pool = pool.clone();
        async move { pool.closed().await }
    });
    sleep(ms(100)).await;
    assert!(!closed.is_finished(), "one is still lent");
    assert!(pool.reborrow(lent.give_back()).is_none());
    closed.await.unwrap();
    assert_eq!(server.data().live, 0);
    assert!(server.data().dropped.is_empty());
    let drained = server
        .close_reasons()
        .iter()
        .filter(|r| **r == RetireReason::Drain)
        .count();
    assert!(drained >= 2, "{:?}", server.close_reasons());
    pool.closed().await;
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>, Mutex<Counts>);

impl Events for Log {
    fn borrowed(&self, wait: Duration, origin: Origin) {
        self.0.lock().push(format!("borrowed {wait:?} {origin:?}"));
    }
    fn borrow_ended(&self, wait: Duration, end: BorrowEnd) {
        self.0.lock().push(format!("ended {wait:?} {end:?}"));
    }
    fn dialed(&self, outcome: DialOutcome, took: Duration) {
        self.0.lock().push(format!("dialed {outcome:?} {took:?}"));
    }
    fn retired(&self, reason: RetireReason) {
        self.0.lock().push(format!("retired {reason}"));
    }
    fn counts(&self, counts: Counts) {
        *self.1.lock() = counts;
    }
}

#[tokio::test(start_paused = true)]
async fn everything_is_reported_once() {
    let log = Arc::new(Log::default());
    let (pool, server) = pool_with(at_most(1), Arc::clone(&log) as Arc<dyn Events>);
    let lease = borrow(&pool, 1, PLAIN).await;
    assert_eq!(log.1.lock().borrowed, 1);
    pool.borrow(&1, &PLAIN, ms(30)).await.unwrap_err();
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    assert_eq!(log.1.lock().waiters, 1);
    sleep(ms(5)).await;
    waiter.abort();
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    sleep(ms(7)).await;
    lease.give_back();
    waiter.await.unwrap().unwrap().give_back();
    borrow(&pool, 1, PLAIN).await.retire(RetireReason::Dirty);
    sleep(ms(5)).await;
    server.set(1, Some(Mood::Fail(FakeError::Refused)));
    pool.borrow(&1, &PLAIN, MINUTE).await.unwrap_err();
    pool.close();
    pool.borrow(&1, &PLAIN, MINUTE).await.unwrap_err();
    let expected = [
        "dialed Opened 10ms",
        "borrowed 10ms Dialed",
        "ended 30ms Timeout",
        "ended 5ms Cancelled",
        "borrowed 7ms Handed(Equal)",
        "borrowed 0ns Idle(Equal)",
        "retired dirty",
        "dialed Failed 10ms",
        "ended 10ms Failed",
        "ended 0ns Closed",
    ];
    assert_eq!(*log.0.lock(), expected);
    let counts = *log.1.lock();
    assert_eq!(
        counts,
        Counts {
            version: counts.version,
            ..Counts::default()
        }
    );
}

#[tokio::test(start_paused = true)]
async fn stats_are_by_key() {
    let (pool, _server) = pool(at_most(4));
    idle(&pool, 1, &[PLAIN]).await;
    let _lent = [borrow(&pool, 2, PLAIN).await, borrow(&pool, 2, PLAIN).await];
    let _dialing = borrow_later(&pool, 3, PLAIN).await;
    let stats = pool.stats();
    assert_eq!(stats.limits, at_most(4));
    let total = stats.total;
    assert_eq!(
        (total.idle, total.borrowed, total.dialing, total.waiters),
        (1, 2, 1, 1)
    );
    let mut keys = stats.keys;
    keys.sort_by_key(|(key, _)| *key);
    let none = KeyStats::default();
    let expected = [
        (1, KeyStats { idle: 1, ..none }),
        (
            2,
            KeyStats {
                borrowed: 2,
                ..none
            },
        ),
        (
            3,
            KeyStats {
                dialing: 1,
                waiters: 1,
                ..none
            },
        ),
    ];
    assert_eq!(keys, expected);
}
