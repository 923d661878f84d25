//! Failed logins are slowed down, per account and source.
//!
//! Owns the memory of recent failures, bounded. After [`FREE_FAILURES`] within [`WINDOW`] every further
//! login of that account from that source, right or wrong, waits before it is judged, longer each time:
//! since a fresh proof is checked without the database, a fast answer would let passwords be guessed at
//! the speed of this process. Per account *and* source, so that nobody locks others out (hazards 20).

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Failures that cost nothing.
pub const FREE_FAILURES: u32 = 10;
/// A failure is forgotten this long after the last one.
pub const WINDOW: Duration = Duration::from_secs(60);
/// The longest wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The first wait; each further failure doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Logins of one account and source that may wait at a time; more are refused at once, for waiting in
/// parallel would defeat the wait.
const MAX_WAITING: u32 = 4;
/// Pairs remembered; the one longest without a login goes first.
const MAX_PAIRS: usize = 10_000;

/// Recent failures of all accounts and sources.
#[derive(Debug)]
pub struct Throttle {
    pairs: Arc<Mutex<LruCache<Pair, Failures>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pair {
    user: Vec<u8>,
    /// `None`: this machine, through a Unix socket.
    source: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    waiting: u32,
}

/// Leave to be judged. Say what came of it.
#[derive(Debug)]
#[must_use = "a login that came to nothing counts as failed unless it is forgiven"]
pub struct Attempt {
    pairs: Arc<Mutex<LruCache<Pair, Failures>>>,
    pair: Option<Pair>,
}

/// Too many logins of this account and source are waiting already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins of this account from this source")]
pub struct Throttled;

impl Default for Throttle {
    fn default() -> Self {
        const PAIRS: NonZeroUsize = NonZeroUsize::new(MAX_PAIRS).unwrap();
        Self {
            pairs: Arc::new(Mutex::new(LruCache::new(PAIRS))),
        }
    }
}

impl Throttle {
    /// Waits as long as earlier failures of this account from this source make it. Cancel-safe.
    ///
    /// # Errors
    /// [`Throttled`] at once when others wait already.
    pub async fn admit(&self, user: &[u8], source: Option<IpAddr>) -> Result<Attempt, Throttled> {
        let pair = Pair {
            user: user.to_vec(),
            source,
        };
        let until = {
            let mut pairs = self.pairs.lock();
            match pairs.get_mut(&pair) {
                Some(failures) => failures.begin_wait()?,
                None => None,
            }
        };
        if let Some(until) = until {
            let waiting = Waiting {
                pairs: &self.pairs,
                pair: &pair,
            };
            tokio::time::sleep_until(until).await;
            drop(waiting);
        }
        Ok(Attempt {
            pairs: Arc::clone(&self.pairs),
            pair: Some(pair),
        })
    }
}

impl Failures {
    /// When the next login may be judged; it is counted as waiting until then. `None`: now.
    fn begin_wait(&mut self) -> Result<Option<Instant>, Throttled> {
        let now = Instant::now();
        if now.duration_since(self.last) >= WINDOW {
            self.count = 0;
        }
        let Some(over) = self.count.checked_sub(FREE_FAILURES) else {
            return Ok(None);
        };
        let wait = FIRST_WAIT
            .saturating_mul(1 << over.min(16))
            .min(LONGEST_WAIT);
        let until = self.last + wait;
        if until <= now {
            return Ok(None);
        }
        if self.waiting >= MAX_WAITING {
            return Err(Throttled);
        }
        self.waiting += 1;
        Ok(Some(until))
    }
}

impl Attempt {
    /// The login succeeded: earlier failures are forgotten.
    pub fn succeeded(mut self) {
        if let Some(pair) = self.pair.take() {
            let mut pairs = self.pairs.lock();
            // Those who wait keep their place in the count of waiters.
            if let Some(failures) = pairs.get_mut(&pair) {
                failures.count = 0;
            }
        }
    }

    /// The login came to nothing through no fault of the client: it does not count.
    pub fn forgiven(mut self) {
        self.pair = None;
    }
}

/// A login that ends in any other way has failed, also one whose client leaves when it is asked for the
/// password: the scramble that did not fit was a guess.
impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(pair) = self.pair.take() else {
            return;
        };
        let now = Instant::now();
        let mut pairs = self.pairs.lock();
        let fresh = Failures {
            count: 0,
            last: now,
            waiting: 0,
        };
        let failures = pairs.get_or_insert_mut(pair, || fresh);
        if now.duration_since(failures.last) >= WINDOW {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }
}

struct Waiting<'a> {
    pairs: &'a Mutex<LruCache<Pair, Failures>>,
    pair: &'a Pair,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(failures) = self.pairs.lock().get_mut(self.pair) {
            failures.waiting = failures.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    async fn fail(throttle: &Throttle, times: u32) {
        for _ in 0..times {
            drop(throttle.admit(b"app", HERE).await.unwrap());
        }
    }

    async fn wait_of(throttle: &Throttle, user: &[u8], source: Option<IpAddr>) -> Duration {
        let start = Instant::now();
        throttle.admit(user, source).await.unwrap().forgiven();
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn ten_failures_are_free_then_the_wait_doubles_up_to_ten_seconds() {
        let throttle = Throttle::default();
        let start = Instant::now();
        fail(&throttle, FREE_FAILURES).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let start = Instant::now();
            fail(&throttle, 1).await;
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        // Others are not held up: another source, another account.
        assert_eq!(wait_of(&throttle, b"app", None).await, Duration::ZERO);
        assert_eq!(wait_of(&throttle, b"other", HERE).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn success_clears_and_time_heals() {
        let throttle = Throttle::default();
        fail(&throttle, FREE_FAILURES).await;
        throttle.admit(b"app", HERE).await.unwrap().succeeded();
        assert_eq!(wait_of(&throttle, b"app", HERE).await, Duration::ZERO);
        fail(&throttle, FREE_FAILURES + 1).await;
        assert_ne!(wait_of(&throttle, b"app", HERE).await, Duration::ZERO);
        tokio::time::advance(WINDOW).await;
        fail(&throttle, FREE_FAILURES).await;
        assert_eq!(wait_of(&throttle, b"other", HERE).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_in_parallel_is_bounded() {
        let throttle = Throttle::default();
        fail(&throttle, FREE_FAILURES + 5).await;
        let admit = || throttle.admit(b"app", HERE);
        let all = async { tokio::join!(admit(), admit(), admit(), admit(), admit()) };
        let (a, b, c, d, e) = all.await;
        assert_eq!(e.unwrap_err(), Throttled);
        for attempt in [a, b, c, d] {
            attempt.unwrap().forgiven();
        }
        // Whoever gave up waiting makes room.
        fail(&throttle, 1).await;
        for _ in 0..10 {
            let gone = tokio::time::timeout(Duration::from_millis(1), admit()).await;
            assert!(gone.is_err());
        }
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            for i in 0..MAX_PAIRS + 10 {
                drop(throttle.admit(i.to_string().as_bytes(), None).await);
            }
        });
        assert_eq!(throttle.pairs.lock().len(), MAX_PAIRS);
    }
}
