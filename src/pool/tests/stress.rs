//! Many threads on real time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::fake::*;
use crate::pool::*;
use crate::reason::RetireReason;

async fn client(pool: TestPool, n: u8, until: Instant, served: Arc<AtomicUsize>) {
    let key = n % 3;
    let mut ticket = None;
    let mut round = 0_usize;
    while Instant::now() < until {
        round += 1;
        let wish = State {
            db: (!round.is_multiple_of(3)).then_some(n % 2),
            vars: n % 4,
        };
        let time = if round.is_multiple_of(17) {
            Duration::from_micros(50)
        } else {
            Duration::from_secs(20)
        };
        let lease = match ticket.take().and_then(|ticket| pool.reborrow(ticket)) {
            Some(lease) => Ok(lease),
            None if round.is_multiple_of(13) => {
                let attempt = pool.borrow(&key, &wish, time);
                match tokio::time::timeout(Duration::from_micros(30), attempt).await {
                    Ok(result) => result,
                    Err(_) => continue,
                }
            }
            None => pool.borrow(&key, &wish, time).await,
        };
        match lease {
            Ok(mut lease) => {
                assert_eq!(lease.key, key);
                lease.state = wish;
                tokio::task::yield_now().await;
                served.fetch_add(1, Ordering::Relaxed);
                match round % 101 {
                    0 => drop(lease),
                    1 => lease.retire(RetireReason::Dirty),
                    _ => ticket = Some(lease.give_back()),
                }
            }
            Err(error) => {
                assert!(
                    matches!(error, BorrowError::Timeout { .. }) && time < Duration::from_secs(1),
                    "client {n} in round {round}: {error:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_share_few_connections() {
    let limits = Limits {
        max_idle: 6,
        min_idle: 1,
        idle_timeout: ms(20),
        max_lifetime: ms(300),
        max_dials: 3,
        ..at_most(8)
    };
    let (pool, server) = pool(limits);
    server.data().dial_time = Duration::from_micros(300);
    server.data().close_time = Duration::from_micros(100);
    let token = CancellationToken::new();
    let maintenance = tokio::spawn(pool.clone().maintain(token.clone()));
    let served = Arc::new(AtomicUsize::new(0));
    let until = Instant::now() + Duration::from_millis(1500);
    let clients: Vec<_> = (0..40)
        .map(|n| tokio::spawn(client(pool.clone(), n, until, Arc::clone(&served))))
        .collect();
    while Instant::now() < until {
        check(&pool);
        tokio::time::sleep(ms(1)).await;
    }
    for client in clients {
        client.await.unwrap();
    }
    token.cancel();
    maintenance.await.unwrap();
    check(&pool);
    assert!(served.load(Ordering::Relaxed) > 100);
    pool.close();
    pool.closed().await;
    let data = server.data();
    assert!(
        data.peak <= 8 && data.dials_peak <= 3,
        "{} {}",
        data.peak,
        data.dials_peak
    );
    assert_eq!(data.live, 0);
    assert!(data.dropped.is_empty());
}
