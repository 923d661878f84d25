//! Logins: how many, for whom, and what their failure means.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fake::*;
use crate::pool::*;
use crate::reason::RetireReason;

fn failure(result: Result<TestLease, TestError>) -> FakeError {
    match result {
        Err(BorrowError::Connect(error)) => *error,
        other => panic!("{other:?}"),
    }
}

/// Otherwise connections would be opened and closed for it until its time is up.
#[tokio::test(start_paused = true)]
async fn a_waiter_that_no_connection_serves_gets_the_one_opened_for_it() {
    for connections in [1, 3] {
        let (pool, server) = pool(at_most(connections));
        let lease = borrow(&pool, 1, OUT_OF_REACH).await;
        assert_eq!(lease.origin(), Origin::Dialed);
        assert_eq!(server.dials(), 1);
        lease.give_back();
        let lease = borrow(&pool, 1, PLAIN).await;
        assert_eq!(server.dials(), 1, "it serves others");
        drop(lease);
    }
}

#[tokio::test(start_paused = true)]
async fn logins_in_flight_are_bounded() {
    let (pool, server) = pool(Limits {
        max_dials: 3,
        ..at_most(50)
    });
    let mut waiters = Vec::new();
    for n in 0..20 {
        waiters.push(borrow_later(&pool, n % 3, PLAIN).await);
    }
    let mut leases = Vec::new();
    for waiter in waiters {
        leases.push(waiter.await.unwrap().unwrap());
        check(&pool);
    }
    assert_eq!((server.dials(), server.data().dials_peak), (20, 3));
}

#[tokio::test(start_paused = true)]
async fn a_login_is_finished_though_its_waiter_left() {
    let (pool, server) = pool(at_most(5));
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    waiter.abort();
    sleep(ms(20)).await;
    check(&pool);
    assert_eq!((server.dials(), pool.counts().idle), (1, 1));
    // One that comes while it is in flight gets it and opens nothing.
    let gone = borrow_later(&pool, 2, PLAIN).await;
    gone.abort();
    settle().await;
    let lease = borrow(&pool, 2, PLAIN).await;
    assert_eq!((lease.origin(), server.dials()), (Origin::Dialed, 2));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_served_otherwise_leaves_its_login_to_the_next() {
    let (pool, server) = pool(at_most(2));
    let lease = borrow(&pool, 1, PLAIN).await;
    let first = borrow_later(&pool, 1, PLAIN).await;
    lease.give_back();
    let second = borrow_later(&pool, 1, PLAIN).await;
    let first = first.await.unwrap().unwrap();
    assert_eq!(first.origin(), Origin::Handed(Fit::Equal));
    assert_eq!(second.await.unwrap().unwrap().origin(), Origin::Dialed);
    assert_eq!(server.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_fails_the_one_it_was_for() {
    let (pool, server) = pool(Limits {
        max_dials: 1,
        ..at_most(5)
    });
    server.set(1, Some(Mood::Fail(FakeError::Refused)));
    let first = borrow_later(&pool, 1, PLAIN).await;
    let second = borrow_later(&pool, 1, PLAIN).await;
    let other = borrow_later(&pool, 2, PLAIN).await;
    // What is begun from now on works.
    server.set(1, None);
    assert_eq!(failure(first.await.unwrap()), FakeError::Refused);
    assert!(!second.is_finished() && !other.is_finished());
    second.await.unwrap().unwrap();
    other.await.unwrap().unwrap();
    assert_eq!(server.data().dials, [1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn each_borrower_costs_a_failing_backend_one_login() {
    let (pool, server) = pool(at_most(50));
    server.set(1, Some(Mood::Fail(FakeError::Refused)));
    let mut waiters = Vec::new();
    for _ in 0..30 {
        waiters.push(borrow_later(&pool, 1, PLAIN).await);
    }
    for waiter in waiters {
        assert_eq!(failure(waiter.await.unwrap()), FakeError::Refused);
    }
    sleep(MINUTE).await;
    check(&pool);
    assert_eq!((server.dials(), server.data().dials_peak), (30, 4));
    assert_eq!(pool.counts().total(), 0);
    assert!(pool.stats().keys.is_empty(), "the key is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_failure_spares_a_waiter_with_another_login_in_flight() {
    let (pool, server) = pool(at_most(5));
    server.set(1, Some(Mood::Fail(FakeError::Refused)));
    let gone = borrow_later(&pool, 1, PLAIN).await;
    sleep(ms(5)).await;
    server.set(1, None);
    let stays = borrow_later(&pool, 1, PLAIN).await;
    gone.abort();
    assert_eq!(stays.await.unwrap().unwrap().origin(), Origin::Dialed);
    assert_eq!(server.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_fail_every_waiter_of_the_key_at_once() {
    let (pool, server) = pool(Limits {
        max_dials: 1,
        ..at_most(5)
    });
    server.set(1, Some(Mood::Fail(FakeError::Denied)));
    let mut waiters = Vec::new();
    for _ in 0..10 {
        waiters.push(borrow_later(&pool, 1, PLAIN).await);
    }
    let other = borrow_later(&pool, 2, PLAIN).await;
    for waiter in waiters {
        assert_eq!(failure(waiter.await.unwrap()), FakeError::Denied);
    }
    other.await.unwrap().unwrap();
    assert_eq!(server.data().dials, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_full_server_makes_borrowers_wait_for_a_return() {
    let (pool, server) = pool(at_most(5));
    server.data().capacity = Some(1);
    let lease = borrow(&pool, 1, PLAIN).await;
    let first = borrow_later(&pool, 1, PLAIN).await;
    let second = borrow_later(&pool, 2, PLAIN).await;
    sleep(ms(5000)).await;
    assert!(!first.is_finished() && !second.is_finished());
    // At 0, 100, 200, 400, 800 ms and then every second, of each key.
    assert!((12..=20).contains(&server.dials()), "{}", server.dials());
    let id = lease.id();
    lease.give_back();
    settle().await;
    let first = first.await.unwrap().unwrap();
    assert_eq!(first.id(), id);
    // The connection of the other key is the only room that can be made.
    first.give_back();
    second.await.unwrap().unwrap();
    assert_eq!(server.close_reasons(), [RetireReason::MadeRoom]);
}

#[tokio::test(start_paused = true)]
async fn a_success_makes_the_next_pause_short_again() {
    let (pool, server) = pool(at_most(5));
    server.set(1, Some(Mood::Fail(FakeError::Full)));
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    sleep(Duration::from_secs(5)).await;
    server.set(1, None);
    let _kept = waiter.await.unwrap().unwrap();
    server.set(1, Some(Mood::Fail(FakeError::Full)));
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    server.set(1, None);
    let begun = Instant::now();
    waiter.await.unwrap().unwrap();
    assert!(begun.elapsed() <= ms(125), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn logins_refused_together_pause_once() {
    let (pool, server) = pool(at_most(50));
    server.set(1, Some(Mood::Fail(FakeError::Full)));
    let mut waiters = Vec::new();
    for _ in 0..4 {
        waiters.push(borrow_later(&pool, 1, PLAIN).await);
    }
    sleep(ms(50)).await;
    assert_eq!(server.dials(), 4);
    server.set(1, None);
    let begun = Instant::now();
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    assert!(begun.elapsed() < ms(100), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_at_a_full_server_still_times_out() {
    let (pool, server) = pool(at_most(5));
    server.set(1, Some(Mood::Fail(FakeError::Full)));
    let error = pool.borrow(&1, &PLAIN, ms(700)).await.unwrap_err();
    assert!(matches!(error, BorrowError::Timeout { waited, .. } if waited == ms(700)));
    sleep(MINUTE).await;
    assert_eq!(server.dials(), 3, "and is not dialed for any more");
    assert!(pool.stats().keys.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pause_outlives_those_who_waited() {
    let (pool, server) = pool(at_most(5));
    server.set(1, Some(Mood::Fail(FakeError::Full)));
    for _ in 0..5 {
        pool.borrow(&1, &PLAIN, ms(15)).await.unwrap_err();
        check(&pool);
    }
    assert_eq!(server.dials(), 1);
    sleep(ms(100)).await;
    assert!(pool.stats().keys.is_empty(), "then the key is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_connector_costs_no_slot_and_no_waiter() {
    let (pool, server) = pool(at_most(1));
    server.set(1, Some(Mood::Panic));
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    sleep(ms(50)).await;
    check(&pool);
    assert_eq!(pool.counts().total(), 0);
    server.set(1, None);
    waiter.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_opened_login_joins_the_pool() {
    let (pool, server) = pool(at_most(5));
    let login = |server: &Server, key| {
        let server = server.clone();
        async move { server.login(key).await }
    };
    pool.open(&1, login(&server, 1), MINUTE).await.unwrap();
    check(&pool);
    assert_eq!(pool.counts().idle, 1);
    // To a waiter of its key, if there is one.
    let lease = borrow(&pool, 1, PLAIN).await;
    pool.set_limits(at_most(2));
    server.data().dial_time = ms(1000);
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    lease.give_back();
    let lease = waiter.await.unwrap().unwrap();
    assert_eq!(lease.key, 1);
    // Its own error is told to the caller and to nobody else.
    server.set(3, Some(Mood::Fail(FakeError::Denied)));
    let error = pool.open(&3, login(&server, 3), MINUTE).await.unwrap_err();
    assert!(matches!(error, BorrowError::Connect(error) if *error == FakeError::Denied));
    check(&pool);
}

#[tokio::test(start_paused = true)]
async fn an_opened_login_keeps_to_the_limits() {
    let (pool, server) = pool(at_most(1));
    let begin = |key: Key, timeout| {
        let (pool, server) = (pool.clone(), server.clone());
        tokio::spawn(async move {
            let dial = { async move { server.login(key).await } };
            pool.open(&key, dial, timeout).await
        })
    };
    // Everything is lent.
    let lease = borrow(&pool, 1, PLAIN).await;
    let error = begin(2, ms(300)).await.unwrap().unwrap_err();
    assert!(matches!(error, BorrowError::Timeout { .. }));
    let error = begin(2, Duration::ZERO).await.unwrap().unwrap_err();
    assert!(matches!(error, BorrowError::Timeout { .. }));
    assert_eq!(server.dials(), 1, "a login without a slot is not begun");
    // Room is made for it.
    lease.give_back();
    begin(2, MINUTE).await.unwrap().unwrap();
    check(&pool);
    assert_eq!(server.data().peak, 1);
    // The caller leaves: the login is finished all the same.
    let caller = begin(3, MINUTE);
    sleep(ms(5)).await;
    caller.abort();
    sleep(ms(50)).await;
    assert_eq!(
        pool.stats().keys,
        [(
            3,
            KeyStats {
                idle: 1,
                ..KeyStats::default()
            }
        )]
    );
    assert_eq!(server.data().peak, 1);
}

#[tokio::test(start_paused = true)]
async fn reserved_slots_count_in_the_limit() {
    let (pool, server) = pool(at_most(2));
    let guard = pool.reserve(MINUTE).await.unwrap();
    let lease = borrow(&pool, 1, PLAIN).await;
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    assert!(pool.reserve(Duration::ZERO).await.is_err());
    assert!(pool.reserve(ms(50)).await.is_err());
    assert!(!waiter.is_finished());
    drop(guard);
    let second = waiter.await.unwrap().unwrap();
    // Idle connections make room for it, and it is granted only when they are gone.
    lease.give_back();
    let (handle, begun) = (pool.clone(), Instant::now());
    let guard = handle.reserve(MINUTE).await.unwrap();
    assert_eq!(begun.elapsed(), ms(2));
    assert_eq!(server.data().live, 1);
    assert_eq!(pool.counts().total(), 2);
    drop((guard, second));
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_left_frees_the_slot_that_was_cleared() {
    let (pool, server) = pool(at_most(1));
    idle(&pool, 1, &[PLAIN]).await;
    let handle = pool.clone();
    let reservation = tokio::spawn(async move { handle.reserve(MINUTE).await });
    settle().await;
    reservation.abort();
    sleep(ms(10)).await;
    check(&pool);
    assert_eq!((pool.counts().total(), server.data().live), (0, 0));
    // Cut off between the delivery and its pick-up.
    let lease = borrow(&pool, 1, PLAIN).await;
    let handle = pool.clone();
    let reservation = tokio::spawn(async move { handle.reserve(MINUTE).await });
    settle().await;
    drop(lease);
    sleep(ms(1)).await;
    reservation.abort();
    sleep(ms(10)).await;
    check(&pool);
    assert_eq!(pool.counts().total(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiters_can_be_failed_from_outside() {
    let (pool, server) = pool(at_most(2));
    let one = borrow(&pool, 1, PLAIN).await;
    let two = borrow(&pool, 2, PLAIN).await;
    let first = borrow_later(&pool, 1, PLAIN).await;
    let second = borrow_later(&pool, 2, PLAIN).await;
    assert_eq!(
        pool.fail_waiters(|key| *key == 1, Arc::new(FakeError::Denied)),
        1
    );
    assert_eq!(failure(first.await.unwrap()), FakeError::Denied);
    two.give_back();
    second.await.unwrap().unwrap();
    drop(one);
    assert_eq!(server.dials(), 2);
}
