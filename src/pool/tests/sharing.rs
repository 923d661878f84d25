//! Sharing the limit between keys: room, fairness, and no thrashing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fake::*;
use crate::pool::inner::FAIRNESS_BOUND;
use crate::pool::*;
use crate::reason::RetireReason;

#[tokio::test(start_paused = true)]
async fn room_is_made_by_closing_the_least_recently_used() {
    let (pool, server) = pool(at_most(3));
    let ids = idle(&pool, 1, &[PLAIN]).await;
    let more = idle(&pool, 2, &[PLAIN, PLAIN]).await;
    let lease = borrow(&pool, 3, PLAIN).await;
    assert_eq!(server.closed(), [(ids[0], RetireReason::MadeRoom)]);
    let other = borrow(&pool, 4, PLAIN).await;
    assert_eq!(server.closed()[1], (more[0], RetireReason::MadeRoom));
    assert_eq!(
        server.data().peak,
        3,
        "a login begins only when the server has let go"
    );
    drop((lease, other));
}

#[tokio::test(start_paused = true)]
async fn an_unusable_connection_of_the_same_key_makes_room() {
    let (pool, server) = pool(at_most(1));
    let ids = idle(&pool, 1, &[state(1, 0)]).await;
    let begun = Instant::now();
    let lease = borrow(&pool, 1, PLAIN).await;
    assert_eq!(begun.elapsed(), ms(12), "closed, then dialed");
    assert_eq!(lease.origin(), Origin::Dialed);
    assert_eq!(server.closed(), [(ids[0], RetireReason::MadeRoom)]);
    assert_eq!(server.data().peak, 1);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_hangs_is_cut_off() {
    let (pool, server) = pool(at_most(1));
    server.data().close_time = MINUTE;
    idle(&pool, 1, &[PLAIN]).await;
    let begun = Instant::now();
    borrow(&pool, 2, PLAIN).await;
    assert_eq!(begun.elapsed(), ms(2010));
    assert!(server.data().dropped.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_login_not_yet_begun_is_given_up_when_nobody_waits() {
    let (pool, server) = pool(at_most(1));
    idle(&pool, 1, &[PLAIN]).await;
    let waiter = borrow_later(&pool, 2, PLAIN).await;
    waiter.abort();
    sleep(ms(50)).await;
    check(&pool);
    assert_eq!((server.dials(), pool.counts().total()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_return_serves_its_own_key_first_but_not_for_long() {
    for (head_start, own_key_first) in [(ms(99), true), (ms(101), false)] {
        let (pool, server) = pool(at_most(1));
        let lease = borrow(&pool, 1, PLAIN).await;
        let other = borrow_later(&pool, 2, PLAIN).await;
        sleep(head_start).await;
        let own = borrow_later(&pool, 1, PLAIN).await;
        lease.give_back();
        check(&pool);
        sleep(ms(15)).await;
        assert_eq!(own.is_finished(), own_key_first, "{head_start:?}");
        assert_eq!(other.is_finished(), !own_key_first, "{head_start:?}");
        assert_eq!(server.closed().is_empty(), own_key_first, "{head_start:?}");
        assert_eq!(server.data().peak, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_waiter_may_be_one_the_connection_does_not_fit() {
    let (pool, server) = pool(at_most(1));
    let lease = borrow(&pool, 1, PLAIN).await;
    let without_database = borrow_later(&pool, 1, PLAIN).await;
    sleep(ms(150)).await;
    let with_database = borrow_later(&pool, 1, state(1, 0)).await;
    give_back_as(lease, state(1, 0));
    let lease = without_database.await.unwrap().unwrap();
    assert_eq!(lease.origin(), Origin::Dialed);
    assert!(!with_database.is_finished());
    lease.give_back();
    with_database.await.unwrap().unwrap();
    assert_eq!(server.close_reasons(), [RetireReason::MadeRoom]);
}

#[tokio::test(start_paused = true)]
async fn what_was_just_opened_is_not_closed_for_an_older_waiter() {
    let (pool, server) = pool(at_most(1));
    server.data().dial_time = ms(300);
    let login = {
        let (pool, server) = (pool.clone(), server.clone());
        tokio::spawn(async move {
            pool.open(&1, async move { server.login(1).await }, MINUTE)
                .await
        })
    };
    settle().await;
    let other = borrow_later(&pool, 2, PLAIN).await;
    sleep(ms(150)).await;
    let own = borrow_later(&pool, 1, PLAIN).await;
    login.await.unwrap().unwrap();
    let lease = own.await.unwrap().unwrap();
    assert!(server.closed().is_empty() && !other.is_finished());
    lease.give_back();
    other.await.unwrap().unwrap();
}

/// One busy key must not starve another: each waits no longer than the bound, a return, and a
/// close and a login.
#[tokio::test(start_paused = true)]
async fn a_busy_key_starves_nobody() {
    let (pool, server) = pool(at_most(3));
    for _ in 0..12 {
        let pool = pool.clone();
        tokio::spawn(async move {
            while let Ok(lease) = pool.borrow(&1, &PLAIN, MINUTE).await {
                sleep(ms(7)).await;
                lease.give_back();
            }
        });
    }
    sleep(ms(300)).await;
    for key in 2..12 {
        let begun = Instant::now();
        let lease = borrow(&pool, key, PLAIN).await;
        // The waiters of the busy key that came within the bound are served before it: 12 at most,
        // three at a time.
        let longest = FAIRNESS_BOUND + 4 * ms(7) + ms(2) + ms(10);
        assert!(begun.elapsed() <= longest, "{key}: {:?}", begun.elapsed());
        lease.give_back();
        sleep(ms(200)).await;
    }
    assert_eq!(server.data().peak, 3);
    pool.close();
}

/// Two keys in overload, every wait far above the bound: connections must not be closed and opened
/// at each return.
#[tokio::test(start_paused = true)]
async fn keys_in_overload_do_not_close_each_others_connections() {
    let (pool, server) = pool(at_most(10));
    let served = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    for n in 0..600 {
        let (pool, key) = (pool.clone(), (n % 2) as Key);
        let served = Arc::clone(&served[n % 2]);
        tokio::spawn(async move {
            while let Ok(lease) = pool.borrow(&key, &PLAIN, MINUTE).await {
                sleep(ms(10)).await;
                served.fetch_add(1, Ordering::Relaxed);
                lease.give_back();
            }
        });
    }
    sleep(Duration::from_secs(30)).await;
    let served = served.map(|served| served.load(Ordering::Relaxed));
    let (least, total) = (served[0].min(served[1]), served[0] + served[1]);
    assert!(total > 28_000, "{served:?}");
    assert!(least * 10 > total * 4, "both get their share: {served:?}");
    assert!(
        server.dials() * 50 < total,
        "{} logins for {total} borrows",
        server.dials()
    );
    assert_eq!(server.data().peak, 10);
    pool.close();
}

#[tokio::test(start_paused = true)]
async fn many_keys_in_overload_are_all_served() {
    let (pool, server) = pool(at_most(5));
    let mut tasks = Vec::new();
    for n in 0..200_u64 {
        let (pool, key) = (pool.clone(), (n % 20) as Key);
        tasks.push(tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            for _ in 0..20 {
                let begun = Instant::now();
                let lease = pool
                    .borrow(&key, &PLAIN, MINUTE)
                    .await
                    .expect("served in time");
                longest = longest.max(begun.elapsed());
                sleep(ms(5)).await;
                lease.give_back();
            }
            longest
        }));
    }
    let mut longest = Duration::ZERO;
    for task in tasks {
        longest = longest.max(task.await.unwrap());
    }
    // 195 in front, five at a time, each at worst with a close and a login.
    assert!(longest <= ms(40 * 17) + 2 * FAIRNESS_BOUND, "{longest:?}");
    assert_eq!(server.data().peak, 5);
    check(&pool);
}
