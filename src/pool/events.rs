//! What the pool tells those who measure it.

use std::time::Duration;

use super::connection::Fit;
use crate::reason::RetireReason;

/// Listens to a pool. Called outside the pool's lock, from whatever task caused the event; an
/// implementation must be quick and must not call back into the pool.
pub trait Events: Send + Sync + 'static {
    /// A connection was lent after `wait` (zero if one was idle).
    fn borrowed(&self, _wait: Duration, _origin: Origin) {}
    /// A borrow ended without a connection after `wait`.
    fn borrow_ended(&self, _wait: Duration, _end: BorrowEnd) {}
    /// A login ended; `took` is the time of the login alone.
    fn dialed(&self, _outcome: DialOutcome, _took: Duration) {}
    /// A connection left the pool.
    fn retired(&self, _reason: RetireReason) {}
    /// The counts after a change. Calls from different threads may overtake each other: drop one
    /// whose `version` is lower than the last seen.
    fn counts(&self, _counts: Counts) {}
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl Events for NoEvents {}

/// Where a lent connection came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was idle.
    Idle(Fit),
    /// It was passed on by whoever returned it.
    Handed(Fit),
    /// It was opened just now.
    Dialed,
    /// It was reserved and still free ([`Pool::reborrow`](super::Pool::reborrow)).
    Reserved,
}

/// How a borrow ended that got no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BorrowEnd {
    /// Its time was over.
    Timeout,
    /// The login for it failed.
    Failed,
    /// The pool was or became closed.
    Closed,
    /// The borrower left.
    Cancelled,
}

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialOutcome {
    /// A connection was opened.
    Opened,
    /// The server had no room.
    Full,
    /// The server refused the credentials.
    Denied,
    /// Anything else.
    Failed,
}

/// How many connections are in which state, and how many borrowers wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Counts the changes of this pool.
    pub version: u64,
    /// Free.
    pub idle: usize,
    /// Lent, or handed to a waiter that has not yet taken it.
    pub borrowed: usize,
    /// Being opened (or closing first, to make the room).
    pub dialing: usize,
    /// Slots held by [`Pool::reserve`](super::Pool::reserve).
    pub reserved: usize,
    /// Being closed; they count until the server has let go of them.
    pub closing: usize,
    /// Waiting for a connection or a slot.
    pub waiters: usize,
}

impl Counts {
    /// All that count in `max_connections`.
    pub fn total(&self) -> usize {
        self.idle + self.borrowed + self.dialing + self.reserved + self.closing
    }
}
