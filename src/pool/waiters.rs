//! Who waits, in which order, and how a waiter leaves.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::connection::{Connector, Fit, PooledConnection, Wish};
use super::events::{BorrowEnd, Origin};
use super::limits::Backoff;
use super::shared::Shared;
use super::shelves::Entry;

/// One queue: of a key, of logins that bring their own dial, or of reserved slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneId {
    Shelf(usize),
    Logins,
    Guards,
}

/// A waiter; its number (the place in the order across all lanes) is its key in the lane.
pub(super) struct Waiter<W> {
    pub(super) since: Instant,
    pub(super) waker: Option<Waker>,
    /// `None` for one that waits for a bare slot.
    pub(super) wish: Option<W>,
}

/// Waiters of one lane, and how much is already under way for them.
pub(super) struct Lane<W> {
    queue: BTreeMap<u64, Waiter<W>>,
    /// Dials (or slots being cleared) in flight: the first `pending` waiters need nothing more.
    pub(super) pending: usize,
    /// The server had no room for this lane a moment ago.
    pub(super) backoff: Backoff,
    /// The number under which this lane stands in the [`Heads`].
    head: Option<u64>,
}

impl<W> Default for Lane<W> {
    fn default() -> Self {
        Self {
            queue: BTreeMap::new(),
            pending: 0,
            backoff: Backoff::default(),
            head: None,
        }
    }
}

impl<W> Lane<W> {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.queue.keys().next().copied()
    }

    pub(super) fn insert(&mut self, number: u64, waiter: Waiter<W>) {
        self.queue.insert(number, waiter);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Waiter<W>> {
        self.queue.remove(&number)
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.queue.keys().copied().collect()
    }

    pub(super) fn ahead_of(&self, number: u64) -> usize {
        self.queue.range(..number).count()
    }

    pub(super) fn get(&mut self, number: u64) -> Option<&mut Waiter<W>> {
        self.queue.get_mut(&number)
    }

    /// The oldest waiter that `conn` serves.
    pub(super) fn first_served_by<T>(&self, conn: &T) -> Option<(u64, Fit)>
    where
        T: PooledConnection<Wish = W>,
    {
        self.queue.iter().find_map(|(&number, waiter)| {
            let fit = conn.fit(waiter.wish.as_ref()?);
            (fit != Fit::Unusable).then_some((number, fit))
        })
    }

    /// The first waiter that nothing is under way for.
    fn uncovered(&self) -> Option<u64> {
        if self.backoff.is_pausing() {
            return None;
        }
        self.queue.keys().nth(self.pending).copied()
    }

    /// The number under which this lane stands in the heads.
    pub(super) fn head(&self) -> Option<u64> {
        self.head
    }

    /// Brings the heads up to date after a change of this lane.
    pub(super) fn publish(&mut self, id: LaneId, heads: &mut Heads) {
        let head = self.uncovered();
        if head == self.head {
            return;
        }
        if let Some(old) = self.head {
            heads.remove(&old);
        }
        if let Some(new) = head {
            heads.insert(new, id);
        }
        self.head = head;
    }
}

/// What a waiter gets.
pub(super) enum Delivered<C: Connector> {
    Connection(Box<Entry<C::Conn>>, Origin),
    Slot,
    Failed(Arc<C::Error>),
    Closed,
}

/// Of each lane the first waiter that needs something, by number.
pub(super) type Heads = BTreeMap<u64, LaneId>;

/// The two lanes without a key, the order across lanes, and deliveries not yet picked up.
pub(super) struct Queues<C: Connector> {
    pub(super) logins: Lane<Wish<C>>,
    pub(super) guards: Lane<Wish<C>>,
    pub(super) heads: Heads,
    pub(super) delivered: BTreeMap<u64, Delivered<C>>,
    last_number: u64,
    /// Waiters in all lanes.
    pub(super) waiting: usize,
}

impl<C: Connector> Queues<C> {
    pub(super) fn new() -> Self {
        Self {
            logins: Lane::default(),
            guards: Lane::default(),
            heads: Heads::new(),
            delivered: BTreeMap::new(),
            last_number: 0,
            waiting: 0,
        }
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// What came of leaving a queue.
pub(super) enum Left<C: Connector> {
    /// Something had just been delivered; it is the leaver's to use.
    Late(Delivered<C>),
    /// Nothing had; so many waiters of the lane were in front.
    Empty { ahead: usize },
}

/// A place in a queue. Ends with what was delivered; dropped before that, the place is given up
/// and whatever was already delivered goes on to the next.
pub(super) struct Wait<C: Connector> {
    shared: Arc<Shared<C>>,
    lane: LaneId,
    number: u64,
    since: Instant,
    over: bool,
}

impl<C: Connector> Wait<C> {
    pub(super) fn new(shared: &Arc<Shared<C>>, lane: LaneId, number: u64, since: Instant) -> Self {
        Self {
            shared: Arc::clone(shared),
            lane,
            number,
            since,
            over: false,
        }
    }

    /// Leaves the queue.
    pub(super) fn leave(mut self) -> Left<C> {
        self.over = true;
        let (lane, number) = (self.lane, self.number);
        self.shared
            .with(|inner, later| inner.leave(lane, number, later))
    }
}

impl<C: Connector> Future for Wait<C> {
    type Output = Delivered<C>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (lane, number) = (self.lane, self.number);
        let mut inner = self.shared.lock();
        if let Some(delivered) = inner.queues.delivered.remove(&number) {
            drop(inner);
            self.over = true;
            return Poll::Ready(delivered);
        }
        let waiter = inner.lane(lane).and_then(|lane| lane.get(number));
        let stale = waiter.and_then(|waiter| match &waiter.waker {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => waiter.waker.replace(cx.waker().clone()),
        });
        drop(inner);
        drop(stale);
        Poll::Pending
    }
}

impl<C: Connector> Drop for Wait<C> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (lane, number) = (self.lane, self.number);
        let now = Instant::now();
        self.shared.with(|inner, later| {
            if let Left::Late(delivered) = inner.leave(lane, number, later) {
                inner.pass_on(lane, delivered, now, later);
            }
        });
        if matches!(lane, LaneId::Shelf(_)) {
            self.shared
                .events
                .borrow_ended(now - self.since, BorrowEnd::Cancelled);
        }
    }
}
