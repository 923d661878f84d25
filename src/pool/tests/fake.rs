//! A fake server that counts what a real one would show in its process list, its connections, and
//! the check of the pool's own rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::pool::inner::{Inner, Phase};
use crate::pool::waiters::LaneId;
use crate::pool::*;
use crate::reason::RetireReason;

pub(super) type Key = u8;

/// Database and session variables that a borrower would like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) db: Option<u8>,
    pub(super) vars: u8,
}

pub(super) const PLAIN: State = State { db: None, vars: 0 };

/// What no connection can be brought to.
pub(super) const OUT_OF_REACH: State = State {
    db: None,
    vars: u8::MAX,
};

pub(super) fn state(db: u8, vars: u8) -> State {
    State { db: Some(db), vars }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FakeError {
    #[error("refused")]
    Refused,
    #[error("denied")]
    Denied,
    #[error("full")]
    Full,
}

/// What the next logins of a key do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Fail(FakeError),
    Panic,
}

#[derive(Default)]
pub(super) struct ServerData {
    /// In the process list: logins in flight and connections not yet let go of.
    pub(super) live: usize,
    pub(super) peak: usize,
    pub(super) dials_now: usize,
    pub(super) dials_peak: usize,
    /// Every login begun, by key.
    pub(super) dials: Vec<Key>,
    pub(super) moods: HashMap<Key, Mood>,
    pub(super) dead: Vec<u64>,
    /// Closed politely, in order.
    pub(super) closed: Vec<(u64, RetireReason)>,
    pub(super) dropped: Vec<u64>,
    pub(super) dial_time: Duration,
    pub(super) close_time: Duration,
    /// The server's own limit.
    pub(super) capacity: Option<usize>,
    pub(super) idle_limit: Option<Duration>,
    pub(super) fit_calls: usize,
}

#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<ServerData>>);

impl Server {
    pub(super) fn data(&self) -> parking_lot::MutexGuard<'_, ServerData> {
        self.0.lock()
    }

    pub(super) fn set(&self, key: Key, mood: Option<Mood>) {
        match mood {
            Some(mood) => self.data().moods.insert(key, mood),
            None => self.data().moods.remove(&key),
        };
    }

    pub(super) fn closed(&self) -> Vec<(u64, RetireReason)> {
        self.data().closed.clone()
    }

    pub(super) fn close_reasons(&self) -> Vec<RetireReason> {
        self.data()
            .closed
            .iter()
            .map(|(_, reason)| *reason)
            .collect()
    }

    pub(super) fn dials(&self) -> usize {
        self.data().dials.len()
    }

    pub(super) async fn login(&self, key: Key) -> Result<FakeConn, FakeError> {
        struct InFlight<'a>(&'a Server, bool);
        impl Drop for InFlight<'_> {
            fn drop(&mut self) {
                let mut data = self.0.data();
                data.dials_now -= 1;
                if !self.1 {
                    data.live -= 1;
                }
            }
        }
        let (time, mood, full) = {
            let mut data = self.data();
            let full = data.capacity.is_some_and(|capacity| data.live >= capacity);
            data.live += 1;
            data.peak = data.peak.max(data.live);
            data.dials_now += 1;
            data.dials_peak = data.dials_peak.max(data.dials_now);
            data.dials.push(key);
            (data.dial_time, data.moods.get(&key).copied(), full)
        };
        let mut in_flight = InFlight(self, false);
        sleep(time).await;
        match mood {
            Some(Mood::Panic) => panic!("the fake connector was told to panic"),
            Some(Mood::Fail(error)) => return Err(error),
            None if full => return Err(FakeError::Full),
            None => {}
        }
        in_flight.1 = true;
        Ok(FakeConn {
            id: rand::random(),
            key,
            state: PLAIN,
            server: self.clone(),
            over: false,
        })
    }
}

pub(super) struct FakeConn {
    id: u64,
    pub(super) key: Key,
    pub(super) state: State,
    server: Server,
    over: bool,
}

impl FakeConn {
    fn let_go(&mut self, tell: impl FnOnce(&mut ServerData)) {
        if !std::mem::replace(&mut self.over, true) {
            let mut data = self.server.data();
            data.live -= 1;
            tell(&mut data);
        }
    }
}

impl PooledConnection for FakeConn {
    type Wish = State;

    fn id(&self) -> u64 {
        self.id
    }

    fn fit(&self, wish: &State) -> Fit {
        self.server.data().fit_calls += 1;
        match (self.state.db, wish.db) {
            (Some(_), None) => Fit::Unusable,
            _ if *wish == OUT_OF_REACH => Fit::Unusable,
            _ if self.state == *wish => Fit::Equal,
            (mine, theirs) if mine == theirs => Fit::SameDatabase,
            _ => Fit::Usable,
        }
    }

    fn is_silent(&mut self) -> bool {
        !self.server.data().dead.contains(&self.id)
    }

    fn server_idle_limit(&self) -> Option<Duration> {
        self.server.data().idle_limit
    }

    async fn close(mut self, reason: RetireReason) {
        let time = {
            let mut data = self.server.data();
            data.closed.push((self.id, reason));
            data.close_time
        };
        sleep(time).await;
        self.let_go(|_| {});
    }
}

impl Drop for FakeConn {
    fn drop(&mut self) {
        let id = self.id;
        // Also reached when the pool cuts a close off: then it was told to close all the same.
        self.let_go(|data| {
            if !data.closed.iter().any(|(closed, _)| *closed == id) {
                data.dropped.push(id);
            }
        });
    }
}

pub(super) struct FakeConnector(Server);

impl Connector for FakeConnector {
    type Conn = FakeConn;
    type Key = Key;
    type Error = FakeError;

    async fn connect(&self, key: &Key) -> Result<FakeConn, FakeError> {
        self.0.login(*key).await
    }

    fn is_full(error: &FakeError) -> bool {
        *error == FakeError::Full
    }

    fn is_denied(error: &FakeError) -> bool {
        *error == FakeError::Denied
    }
}

pub(super) type TestPool = Pool<FakeConnector>;
pub(super) type TestLease = Lease<FakeConnector>;
pub(super) type TestError = BorrowError<FakeError>;

pub(super) const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Limits without timeouts.
pub(super) fn at_most(max_connections: usize) -> Limits {
    Limits {
        max_connections,
        max_idle: max_connections,
        min_idle: 0,
        idle_timeout: Duration::ZERO,
        max_lifetime: Duration::ZERO,
        max_dials: 4,
    }
}

/// A server whose logins take 10 ms and closes 2 ms, and a pool on it.
pub(super) fn pool(limits: Limits) -> (TestPool, Server) {
    pool_with(limits, Arc::new(NoEvents))
}

pub(super) fn pool_with(limits: Limits, events: Arc<dyn Events>) -> (TestPool, Server) {
    let server = Server::default();
    server.data().dial_time = ms(10);
    server.data().close_time = ms(2);
    let pool = Pool::new(FakeConnector(server.clone()), limits, events);
    (pool, server)
}

pub(super) async fn borrow(pool: &TestPool, key: Key, wish: State) -> TestLease {
    let lease = pool
        .borrow(&key, &wish, MINUTE)
        .await
        .expect("a connection");
    check(pool);
    lease
}

/// Borrows in a task of its own, which has queued (or dialed) when this returns.
pub(super) async fn borrow_later(
    pool: &TestPool,
    key: Key,
    wish: State,
) -> JoinHandle<Result<TestLease, TestError>> {
    let handle = pool.clone();
    let task = tokio::spawn(async move { handle.borrow(&key, &wish, MINUTE).await });
    settle().await;
    check(pool);
    task
}

/// Lets every task that can run do so, without letting time pass.
pub(super) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Returns `lease` as if its session had left it in `state`.
pub(super) fn give_back_as(mut lease: TestLease, state: State) -> Ticket {
    lease.state = state;
    lease.give_back()
}

/// Opens `n` connections of a key and leaves them idle, the last one most recent; returns the ids.
pub(super) async fn idle(pool: &TestPool, key: Key, states: &[State]) -> Vec<u64> {
    let mut leases = Vec::new();
    for _ in states {
        leases.push(borrow(pool, key, PLAIN).await);
    }
    let ids = leases.iter().map(|lease| lease.id()).collect();
    for (lease, state) in leases.into_iter().zip(states) {
        give_back_as(lease, *state);
        check(pool);
    }
    ids
}

/// Checks the rules that hold after every change.
pub(super) fn check(pool: &TestPool) {
    let mut inner = pool.shared.lock();
    let inner = &mut *inner;
    let counts = inner.counts();
    let limits = inner.limits;
    check_counts(inner);
    assert!(
        counts.idle == 0 || limits.max_idle > 0,
        "idle cap: {counts:?}"
    );
    if inner.phase == Phase::Closed {
        assert_eq!((counts.idle, counts.waiters), (0, 0), "{counts:?}");
        return;
    }
    if let Some((number, lane)) = inner.neediest() {
        assert!(
            counts.total() >= limits.max_connections,
            "waiter {number} of {lane:?} waits beside a free slot: {counts:?}"
        );
        // Above a limit that was lowered nothing begins until what is closing is gone.
        let coming_down = counts.total() > limits.max_connections && counts.closing > 0;
        assert!(
            counts.idle == 0 || coming_down,
            "waiter {number} of {lane:?} waits although room can be made: {counts:?}"
        );
    }
    let idle: Vec<_> = inner
        .shelves
        .idle()
        .map(|(sequence, _, e)| (sequence, e.shelf))
        .collect();
    for (sequence, shelf) in idle {
        let entry = inner.shelves.take(shelf, sequence).expect("listed");
        let served = inner.shelves.at(shelf).lane.first_served_by(&entry.conn);
        assert_eq!(served, None, "a waiter waits beside a connection that fits");
        let idle_since = entry.idle_since();
        inner.shelves.put(sequence, entry, idle_since);
    }
}

fn check_counts(inner: &mut Inner<FakeConnector>) {
    let (mut borrowed, mut pending, mut logins, mut idle, mut waiting) = (0, 0, 0, 0, 0);
    let mut heads = Vec::new();
    for (at, shelf) in inner.shelves.iter() {
        borrowed += shelf.borrowed;
        pending += shelf.lane.pending;
        logins += shelf.logins;
        idle += shelf.idle_len();
        waiting += shelf.lane.len();
        heads.extend(shelf.lane.head().map(|head| (head, LaneId::Shelf(at))));
    }
    for (id, lane) in [
        (LaneId::Logins, &inner.queues.logins),
        (LaneId::Guards, &inner.queues.guards),
    ] {
        waiting += lane.len();
        heads.extend(lane.head().map(|head| (head, id)));
    }
    heads.sort_by_key(|head| head.0);
    assert_eq!(
        inner
            .queues
            .heads
            .iter()
            .map(|(n, l)| (*n, *l))
            .collect::<Vec<_>>(),
        heads
    );
    assert_eq!(borrowed, inner.slots.borrowed);
    assert_eq!(idle, inner.shelves.idle_len());
    assert_eq!(waiting, inner.queues.waiting);
    // The rest are slots delivered to logins that have not begun.
    assert!(pending + logins + inner.queues.logins.pending <= inner.slots.dialing);
    assert!(inner.queues.guards.pending <= inner.slots.reserved);
}
