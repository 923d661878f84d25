//! The handle: what sessions, logins, probes and operators ask of the pool.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::connection::{Connector, PooledConnection, Wish};
use super::error::BorrowError;
use super::events::{BorrowEnd, Counts, Events, Origin};
use super::inner::Taken;
use super::lease::{Lease, SlotGuard, Ticket};
use super::limits::Limits;
use super::shared::Shared;
use super::waiters::{Delivered, LaneId, Left, Wait};
use crate::reason::RetireReason;

/// A deadline for timeouts too long for the clock.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The connections of one backend, shared. Clones are handles of the same pool.
pub struct Pool<C: Connector> {
    pub(super) shared: Arc<Shared<C>>,
}

impl<C: Connector> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// What is in the pool at one moment.
#[derive(Debug, Clone)]
pub struct PoolStats<K> {
    /// Over all keys.
    pub total: Counts,
    /// The limits in force.
    pub limits: Limits,
    /// By key, in no order.
    pub keys: Vec<(K, KeyStats)>,
}

/// What is in the pool of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyStats {
    /// Free.
    pub idle: usize,
    /// Lent.
    pub borrowed: usize,
    /// Being opened.
    pub dialing: usize,
    /// Waiting for one.
    pub waiters: usize,
}

type Outcome<T, C> = Result<T, BorrowError<<C as Connector>::Error>>;

impl<C: Connector> Pool<C> {
    /// An empty pool. Must be called within a Tokio runtime: logins and closes are its tasks.
    pub fn new(connector: C, limits: Limits, events: Arc<dyn Events>) -> Self {
        Self {
            shared: Shared::new(connector, limits, events),
        }
    }

    /// Borrows the idle connection of `key` that fits `wish` best; else opens one, closing an idle
    /// one that does not fit if the limit asks for it; else waits its turn. With a zero `timeout` only
    /// an idle connection is lent, and nothing is opened.
    ///
    /// # Errors
    /// [`BorrowError::Timeout`] when `timeout` is over, [`BorrowError::Connect`] when the login for
    /// this borrower failed, [`BorrowError::Closed`] when the pool is.
    ///
    /// Cancel safe: a borrower that leaves gives up its place, and what it was just given goes to the
    /// next. A login begun for it is finished for others.
    pub async fn borrow(
        &self,
        key: &C::Key,
        wish: &Wish<C>,
        timeout: Duration,
    ) -> Outcome<Lease<C>, C> {
        loop {
            match self.shared.with(|inner, _| inner.take(key, wish)) {
                Taken::Lent(entry, fit) => {
                    let lease = Lease::new(entry, Origin::Idle(fit), &self.shared);
                    if let Some(lease) = self.lend(lease, Duration::ZERO) {
                        return Ok(lease);
                    }
                }
                Taken::Closed => {
                    return Err(self.end(Duration::ZERO, BorrowError::Closed));
                }
                Taken::Nothing | Taken::Queued(..) => break,
            }
        }
        if timeout.is_zero() {
            let ahead = self.waiters_of(key);
            let error = BorrowError::Timeout {
                waited: Duration::ZERO,
                ahead,
            };
            return Err(self.end(Duration::ZERO, error));
        }
        self.borrow_waiting(key, wish, timeout).await
    }

    async fn borrow_waiting(
        &self,
        key: &C::Key,
        wish: &Wish<C>,
        timeout: Duration,
    ) -> Outcome<Lease<C>, C> {
        let since = Instant::now();
        let deadline = since.checked_add(timeout).unwrap_or_else(|| since + FAR);
        let mut number = None;
        loop {
            let taken = self
                .shared
                .with(|inner, later| inner.take_or_queue(key, wish, (number, since), later));
            let lease = match taken {
                Taken::Lent(entry, fit) => Lease::new(entry, Origin::Idle(fit), &self.shared),
                Taken::Queued(lane, place) => {
                    // A dead connection does not cost the borrower its place.
                    number = Some(place);
                    let waited = self.wait(lane, place, since, deadline).await;
                    match waited.map_err(|error| self.end(since.elapsed(), error))? {
                        Some((entry, origin)) => Lease::new(entry, origin, &self.shared),
                        None => continue,
                    }
                }
                Taken::Closed | Taken::Nothing => {
                    return Err(self.end(since.elapsed(), BorrowError::Closed));
                }
            };
            if let Some(lease) = self.lend(lease, since.elapsed()) {
                return Ok(lease);
            }
        }
    }

    /// Borrows exactly the connection that was returned for this ticket, provided that nobody has
    /// had it since and it is still alive.
    pub fn reborrow(&self, ticket: Ticket) -> Option<Lease<C>> {
        let entry = self.shared.with(|inner, _| inner.take_ticket(&ticket))?;
        self.lend(
            Lease::new(entry, Origin::Reserved, &self.shared),
            Duration::ZERO,
        )
    }

    /// Runs a login that proves a credential, in a slot within the limits and as one of the
    /// `max_dials`; its connection joins the pool: it goes to the first waiter of `key` it fits, else it
    /// is idle. `timeout` bounds the wait for the slot; the login brings its own limit.
    ///
    /// # Errors
    /// [`BorrowError::Timeout`] without a slot in time, [`BorrowError::Connect`] with the login's own
    /// error (also when the server is full: a login that began cannot be repeated here).
    ///
    /// Cancel safe: a begun login is finished even if the caller left.
    pub async fn open<F>(&self, key: &C::Key, dial: F, timeout: Duration) -> Outcome<(), C>
    where
        F: Future<Output = Result<C::Conn, C::Error>> + Send + 'static,
    {
        self.slot(LaneId::Logins, timeout).await?;
        // From here to the spawn nothing is awaited, so the slot cannot be lost.
        let (tell, told) = oneshot::channel();
        self.shared.spawn_login(key, dial, tell);
        match told.await {
            Ok(result) => result.map_err(|error| BorrowError::Connect(Arc::new(error))),
            // The login's task ended without a result: the runtime is going down.
            Err(_) => Err(BorrowError::Closed),
        }
    }

    /// Takes a slot for a connection that is not pooled (a probe, a KILL), making room if needed.
    /// Zero `timeout`: only if one is free.
    ///
    /// # Errors
    /// [`BorrowError::Timeout`], [`BorrowError::Closed`]. Cancel safe.
    pub async fn reserve(&self, timeout: Duration) -> Outcome<SlotGuard<C>, C> {
        self.slot(LaneId::Guards, timeout).await?;
        Ok(SlotGuard::new(&self.shared))
    }

    async fn slot(&self, lane: LaneId, timeout: Duration) -> Outcome<(), C> {
        let since = Instant::now();
        let deadline = since.checked_add(timeout).unwrap_or_else(|| since + FAR);
        let wait = !timeout.is_zero();
        match self
            .shared
            .with(|inner, later| inner.take_slot(lane, wait, since, later))
        {
            Taken::Queued(lane, number) => {
                self.wait(lane, number, since, deadline).await.map(|_| ())
            }
            Taken::Nothing => Err(BorrowError::Timeout {
                waited: Duration::ZERO,
                ahead: 0,
            }),
            Taken::Closed | Taken::Lent(..) => Err(BorrowError::Closed),
        }
    }

    /// Retires idle connections picked by `which` (called under the lock: cheap, and never into the
    /// pool); returns how many.
    pub fn retire_idle(
        &self,
        which: impl Fn(&C::Key, &C::Conn) -> bool,
        reason: RetireReason,
    ) -> usize {
        self.shared
            .with(|inner, later| inner.retire_idle(which, reason, later))
    }

    /// Retires all connections of one key that exist or are being opened now: idle ones at once,
    /// borrowed ones when returned. Returns how many were idle.
    pub fn retire_key(&self, key: &C::Key, reason: RetireReason) -> usize {
        self.retire_keys(|other| other == key, reason)
    }

    /// The same for every key that `which` picks: all of an account, or all (`RECONNECT`).
    pub fn retire_keys(&self, which: impl Fn(&C::Key) -> bool, reason: RetireReason) -> usize {
        self.shared
            .with(|inner, later| inner.retire_keys(which, reason, later))
    }

    /// Fails those who wait for a connection of a key that `which` picks; returns how many.
    pub fn fail_waiters(&self, which: impl Fn(&C::Key) -> bool, error: Arc<C::Error>) -> usize {
        self.shared.with(|inner, later| {
            let lanes: Vec<LaneId> = inner
                .shelves
                .iter()
                .filter(|(_, shelf)| which(&shelf.key))
                .map(|(at, _)| LaneId::Shelf(at))
                .collect();
            let failure = || Delivered::Failed(Arc::clone(&error));
            lanes
                .into_iter()
                .map(|lane| inner.fail_lane(lane, failure, later))
                .sum()
        })
    }

    /// Changes the limits. Idle connections beyond them are closed now, borrowed ones when returned.
    pub fn set_limits(&self, limits: Limits) {
        self.shared
            .with(|inner, later| inner.set_limits(limits, later));
    }

    /// The counts alone, at the cost of one lock.
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts()
    }

    /// What is in the pool, by key.
    pub fn stats(&self) -> PoolStats<C::Key> {
        let mut inner = self.shared.lock();
        let total = inner.counts();
        let keys = inner.shelves.iter().map(|(_, shelf)| {
            let stats = KeyStats {
                idle: shelf.idle_len(),
                borrowed: shelf.borrowed,
                dialing: shelf.lane.pending + shelf.logins,
                waiters: shelf.lane.len(),
            };
            (shelf.key.clone(), stats)
        });
        PoolStats {
            total,
            limits: inner.limits,
            keys: keys.collect(),
        }
    }

    /// Ends sharing: waiters fail, idle connections are closed, borrowed ones and those being opened
    /// when they come back. Cannot be undone.
    pub fn close(&self) {
        self.shared.with(|inner, later| inner.close(later));
    }

    /// Ends when the pool is closed and nothing of it is left at the server.
    pub async fn closed(&self) {
        loop {
            let mut empty = std::pin::pin!(self.shared.empty.notified());
            empty.as_mut().enable();
            if self.shared.lock().is_over() {
                return;
            }
            empty.await;
        }
    }

    /// Waits in a queue: `Some` connection, or `None` for a slot.
    async fn wait(
        &self,
        lane: LaneId,
        number: u64,
        since: Instant,
        deadline: Instant,
    ) -> Outcome<Option<Handed<C>>, C> {
        let mut wait = Wait::new(&self.shared, lane, number, since);
        let delivered = match timeout_at(deadline, &mut wait).await {
            Ok(delivered) => delivered,
            Err(_) => match wait.leave() {
                Left::Late(delivered) => delivered,
                Left::Empty { ahead } => {
                    let waited = since.elapsed();
                    return Err(BorrowError::Timeout { waited, ahead });
                }
            },
        };
        match delivered {
            Delivered::Connection(entry, origin) => Ok(Some((entry, origin))),
            Delivered::Slot => Ok(None),
            Delivered::Failed(error) => Err(BorrowError::Connect(error)),
            Delivered::Closed => Err(BorrowError::Closed),
        }
    }

    /// The last check before a connection is lent: a dead one is retired instead.
    fn lend(&self, mut lease: Lease<C>, waited: Duration) -> Option<Lease<C>> {
        if !lease.is_silent() {
            lease.retire(RetireReason::ServerClosed);
            return None;
        }
        self.shared.events.borrowed(waited, lease.origin());
        Some(lease)
    }

    fn end(&self, waited: Duration, error: BorrowError<C::Error>) -> BorrowError<C::Error> {
        let end = match &error {
            BorrowError::Timeout { .. } => BorrowEnd::Timeout,
            BorrowError::Connect(_) => BorrowEnd::Failed,
            BorrowError::Closed => BorrowEnd::Closed,
        };
        self.shared.events.borrow_ended(waited, end);
        error
    }

    fn waiters_of(&self, key: &C::Key) -> usize {
        let mut inner = self.shared.lock();
        match inner.shelves.find(key) {
            Some(shelf) => inner.shelves.at(shelf).lane.len(),
            None => 0,
        }
    }
}

/// A connection that came out of a queue.
type Handed<C> = (Box<super::shelves::Entry<<C as Connector>::Conn>>, Origin);
