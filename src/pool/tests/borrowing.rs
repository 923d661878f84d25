//! Which connection is lent, and what a waiter gets.

use super::fake::*;
use crate::pool::shelves::SEARCH_BOUND;
use crate::pool::*;
use crate::reason::RetireReason;

#[tokio::test(start_paused = true)]
async fn the_best_fit_is_lent_most_recent_first() {
    let table: &[(&str, &[State], State, usize, Fit)] = &[
        (
            "equal before all",
            &[state(1, 1), state(1, 2), state(2, 0)],
            state(1, 1),
            0,
            Fit::Equal,
        ),
        (
            "the later equal",
            &[state(1, 1), state(1, 1), state(2, 0)],
            state(1, 1),
            1,
            Fit::Equal,
        ),
        (
            "same database",
            &[state(1, 1), state(2, 2), PLAIN],
            state(1, 7),
            0,
            Fit::SameDatabase,
        ),
        (
            "the later of one database",
            &[state(1, 1), state(1, 2)],
            state(1, 7),
            1,
            Fit::SameDatabase,
        ),
        (
            "else the latest",
            &[state(1, 1), state(2, 2)],
            state(3, 3),
            1,
            Fit::Usable,
        ),
        (
            "never an unusable",
            &[PLAIN, state(1, 0), state(2, 0)],
            PLAIN,
            0,
            Fit::Equal,
        ),
    ];
    for (what, states, wish, expected, fit) in table {
        let (pool, server) = pool(at_most(9));
        let ids = idle(&pool, 1, states).await;
        let lease = borrow(&pool, 1, *wish).await;
        assert_eq!(lease.id(), ids[*expected], "{what}");
        assert_eq!(lease.origin(), Origin::Idle(*fit), "{what}");
        assert_eq!(server.dials(), states.len(), "{what}: nothing is opened");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unusable_connection_is_never_lent() {
    let (pool, server) = pool(at_most(9));
    idle(&pool, 1, &[state(1, 0), state(2, 0)]).await;
    let lease = borrow(&pool, 1, PLAIN).await;
    assert_eq!(lease.origin(), Origin::Dialed);
    assert_eq!(server.dials(), 3);
    assert_eq!(pool.counts().idle, 2);
}

#[tokio::test(start_paused = true)]
async fn connections_never_move_between_keys() {
    let (pool, _server) = pool(at_most(9));
    idle(&pool, 1, &[PLAIN, PLAIN]).await;
    assert_eq!(borrow(&pool, 2, PLAIN).await.key, 2);
    assert_eq!(borrow(&pool, 1, PLAIN).await.key, 1);
}

#[tokio::test(start_paused = true)]
async fn the_search_is_bounded() {
    let (pool, server) = pool(Limits {
        max_dials: 400,
        ..at_most(400)
    });
    // The equal one is the oldest, out of reach; all others would do.
    let mut states = vec![state(5, 5)];
    states.extend(vec![state(1, 1); 300]);
    let ids = idle(&pool, 1, &states).await;
    server.data().fit_calls = 0;
    let lease = pool.borrow(&1, &state(5, 5), MINUTE).await.unwrap();
    assert_eq!(server.data().fit_calls, SEARCH_BOUND);
    assert_eq!(lease.id(), ids[300]);
    // But a usable one is found wherever it is.
    let (pool, server) = super::fake::pool(Limits {
        max_dials: 400,
        ..at_most(400)
    });
    let mut states = vec![PLAIN];
    states.extend(vec![state(1, 1); 300]);
    let ids = idle(&pool, 1, &states).await;
    assert_eq!(borrow(&pool, 1, PLAIN).await.id(), ids[0]);
    assert_eq!(server.dials(), 301);
}

#[tokio::test(start_paused = true)]
async fn dead_connections_are_retired_and_the_search_goes_on() {
    let (pool, server) = pool(at_most(9));
    let ids = idle(&pool, 1, &[PLAIN, PLAIN, PLAIN]).await;
    server.data().dead = ids[1..].to_vec();
    let lease = pool
        .borrow(&1, &PLAIN, std::time::Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(lease.id(), ids[0]);
    settle().await;
    let expected = [
        (ids[2], RetireReason::ServerClosed),
        (ids[1], RetireReason::ServerClosed),
    ];
    assert_eq!(server.closed(), expected);
    // With the last one dead too a new one is opened.
    lease.give_back();
    server.data().dead.push(ids[0]);
    assert_eq!(borrow(&pool, 1, PLAIN).await.origin(), Origin::Dialed);
}

#[tokio::test(start_paused = true)]
async fn a_zero_timeout_takes_only_what_is_idle() {
    let (pool, server) = pool(at_most(9));
    let error = pool
        .borrow(&1, &PLAIN, std::time::Duration::ZERO)
        .await
        .unwrap_err();
    assert!(matches!(error, BorrowError::Timeout { ahead: 0, waited } if waited.is_zero()));
    settle().await;
    assert_eq!(server.dials(), 0, "nothing is opened for it");
    idle(&pool, 1, &[PLAIN]).await;
    assert!(
        pool.borrow(&1, &PLAIN, std::time::Duration::ZERO)
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_tells_how_long_and_behind_whom() {
    let (pool, _server) = pool(at_most(1));
    let lease = borrow(&pool, 1, PLAIN).await;
    let first = borrow_later(&pool, 1, PLAIN).await;
    let second = borrow_later(&pool, 1, PLAIN).await;
    let error = pool.borrow(&1, &PLAIN, ms(250)).await.unwrap_err();
    assert!(
        matches!(error, BorrowError::Timeout { waited, ahead: 2 } if waited == ms(250)),
        "{error:?}"
    );
    assert_eq!(pool.counts().waiters, 2, "it left the queue");
    lease.give_back();
    first.await.unwrap().unwrap().give_back();
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_endless_timeout_is_no_error() {
    let (pool, _server) = pool(at_most(1));
    let lease = borrow(&pool, 1, PLAIN).await;
    let handle = pool.clone();
    let waiter =
        tokio::spawn(async move { handle.borrow(&1, &PLAIN, std::time::Duration::MAX).await });
    settle().await;
    lease.give_back();
    waiter.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_order() {
    let (pool, server) = pool(at_most(1));
    let mut lease = borrow(&pool, 1, PLAIN).await;
    let mut waiters = Vec::new();
    for _ in 0..5 {
        waiters.push(borrow_later(&pool, 1, PLAIN).await);
    }
    for at in 0..waiters.len() {
        lease.give_back();
        settle().await;
        check(&pool);
        let served: Vec<_> = waiters[at..]
            .iter()
            .map(|waiter| waiter.is_finished())
            .collect();
        assert!(served[0] && !served[1..].contains(&true), "{served:?}");
        lease = (&mut waiters[at]).await.unwrap().unwrap();
        assert_eq!(lease.origin(), Origin::Handed(Fit::Equal));
    }
    assert_eq!(server.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_returned_connection_passes_waiters_it_does_not_fit() {
    let (pool, _server) = pool(at_most(1));
    let lease = borrow(&pool, 1, PLAIN).await;
    let without_database = borrow_later(&pool, 1, PLAIN).await;
    let with_database = borrow_later(&pool, 1, state(1, 0)).await;
    let id = lease.id();
    give_back_as(lease, state(1, 0));
    check(&pool);
    let lease = with_database.await.unwrap().unwrap();
    assert_eq!(
        (lease.id(), lease.origin()),
        (id, Origin::Handed(Fit::Equal))
    );
    assert!(!without_database.is_finished());
    // Nobody else of the key: now it is closed to make room for the one it does not fit.
    lease.give_back();
    let lease = without_database.await.unwrap().unwrap();
    assert_eq!(lease.origin(), Origin::Dialed);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_leaves_the_queue() {
    let (pool, _server) = pool(at_most(1));
    let lease = borrow(&pool, 1, PLAIN).await;
    let first = borrow_later(&pool, 1, PLAIN).await;
    let second = borrow_later(&pool, 1, PLAIN).await;
    first.abort();
    settle().await;
    assert_eq!(pool.counts().waiters, 1);
    lease.give_back();
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_given_to_a_waiter_that_left_goes_on_to_the_next() {
    let (pool, server) = pool(at_most(1));
    let lease = borrow(&pool, 1, PLAIN).await;
    let id = lease.id();
    let first = borrow_later(&pool, 1, PLAIN).await;
    let second = borrow_later(&pool, 1, PLAIN).await;
    // Delivered, and the waiter is gone before it ran again.
    lease.give_back();
    assert_eq!(pool.counts().borrowed, 1);
    first.abort();
    let lease = second.await.unwrap().unwrap();
    assert_eq!(lease.id(), id);
    // The same with nobody behind: it is idle.
    let third = borrow_later(&pool, 1, PLAIN).await;
    lease.give_back();
    third.abort();
    settle().await;
    check(&pool);
    let counts = pool.counts();
    assert_eq!((counts.idle, counts.borrowed, counts.waiters), (1, 0, 0));
    assert!(server.closed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_does_not_cost_a_waiter_its_place() {
    let (pool, server) = pool(at_most(2));
    let one = borrow(&pool, 1, PLAIN).await;
    let two = borrow(&pool, 1, PLAIN).await;
    let first = borrow_later(&pool, 1, PLAIN).await;
    let second = borrow_later(&pool, 1, PLAIN).await;
    server.data().dead.push(one.id());
    one.give_back();
    settle().await;
    check(&pool);
    // Its slot goes to a login for the first, and what comes back meanwhile to the first as well.
    let id = two.id();
    two.give_back();
    let first = first.await.unwrap().unwrap();
    assert_eq!(first.id(), id);
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.origin(), Origin::Dialed);
    assert_eq!(server.close_reasons(), [RetireReason::ServerClosed]);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_gets_exactly_the_connection_nobody_had_since() {
    let (pool, server) = pool(at_most(9));
    let one = borrow(&pool, 1, PLAIN).await;
    let two = borrow(&pool, 1, PLAIN).await;
    let id = one.id();
    let ticket = one.give_back();
    two.give_back();
    // Not the most recent one, but that one.
    let lease = pool.reborrow(ticket).expect("it is free");
    assert_eq!((lease.id(), lease.origin()), (id, Origin::Reserved));
    check(&pool);
    // Borrowed by another.
    let ticket = lease.give_back();
    let other = borrow(&pool, 1, PLAIN).await;
    assert_eq!(other.id(), id);
    assert!(pool.reborrow(ticket).is_none());
    // Borrowed and returned by another.
    let ticket = other.give_back();
    borrow(&pool, 1, PLAIN).await.give_back();
    assert!(pool.reborrow(ticket).is_none());
    // Dead.
    let lease = borrow(&pool, 1, PLAIN).await;
    server.data().dead.push(lease.id());
    assert!(pool.reborrow(lease.give_back()).is_none());
    settle().await;
    assert_eq!(server.close_reasons(), [RetireReason::ServerClosed]);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_worth_nothing_elsewhere() {
    let (here, _server) = pool(at_most(9));
    let (there, _other) = pool(at_most(9));
    let ticket = borrow(&here, 1, PLAIN).await.give_back();
    borrow(&there, 1, PLAIN).await.give_back();
    assert!(there.reborrow(ticket).is_none());
    // Handed straight to a waiter.
    let (pool, _server) = pool(at_most(1));
    let lease = borrow(&pool, 1, PLAIN).await;
    let waiter = borrow_later(&pool, 1, PLAIN).await;
    let ticket = lease.give_back();
    assert!(pool.reborrow(ticket).is_none());
    waiter.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_is_abandoned_and_its_slot_serves_a_waiter() {
    let (pool, server) = pool(at_most(1));
    let lease = borrow(&pool, 1, PLAIN).await;
    let waiter = borrow_later(&pool, 2, PLAIN).await;
    drop(lease);
    check(&pool);
    assert_eq!(waiter.await.unwrap().unwrap().origin(), Origin::Dialed);
    assert_eq!(server.close_reasons(), [RetireReason::Abandoned]);
    assert_eq!(server.data().peak, 1);
    let lease = borrow_later(&pool, 1, PLAIN).await;
    settle().await;
    lease.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lease_may_end_outside_the_runtime() {
    let (pool, server) = pool(at_most(2));
    let lease = borrow(&pool, 1, PLAIN).await;
    std::thread::spawn(move || drop(lease)).join().unwrap();
    settle().await;
    assert_eq!(server.close_reasons(), [RetireReason::Abandoned]);
}
