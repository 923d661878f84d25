//! The data under the lock, and how connections are lent and come back.
//!
//! Two rules hold after each change: no waiter waits for something that is idle or free (unless
//! `max_dials` are in flight), and all states together never count more than `max_connections`. A
//! slot is handed from a connection that closes to the login that needs the room
//! ([`Start::after`]), so it is never both.

use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connector, Fit, Wish};
use super::events::{Counts, Origin};
use super::lease::Ticket;
use super::limits::{Backoff, Limits};
use super::shelves::{Entry, Shelves};
use super::waiters::{Delivered, LaneId, Queues, Waiter};
use crate::reason::RetireReason;

/// How much later than the oldest waiter another may have come and still be served before it,
/// because a connection of its own key was returned. Without this, keys under load would close
/// each other's connections at every return; with it, none is passed over for long.
pub(super) const FAIRNESS_BOUND: Duration = Duration::from_millis(100);

/// A connection that leaves, and why.
pub(super) struct Doomed<C: Connector> {
    pub(super) entry: Box<Entry<C::Conn>>,
    pub(super) reason: RetireReason,
}

/// Something to begin once the lock is released.
pub(super) struct Start<C: Connector> {
    pub(super) job: Job<C::Key>,
    /// Closed first; its slot is the one that is used.
    pub(super) after: Option<Doomed<C>>,
}

pub(super) enum Job<K> {
    /// A login for the waiters of a key.
    Dial(Dial<K>),
    /// A bare slot for the first waiter of this lane.
    Grant(LaneId),
}

pub(super) struct Dial<K> {
    pub(super) shelf: usize,
    pub(super) key: K,
    pub(super) generation: u64,
}

/// What a change asks to be done after the lock is released.
pub(super) struct Later<C: Connector> {
    pub(super) woken: Vec<Waiter<Wish<C>>>,
    pub(super) closes: Vec<Doomed<C>>,
    pub(super) starts: Vec<Start<C>>,
    /// Shelves that pause, and until when.
    pub(super) pauses: Vec<(usize, Instant)>,
}

impl<C: Connector> Default for Later<C> {
    fn default() -> Self {
        Self {
            woken: Vec::new(),
            closes: Vec::new(),
            starts: Vec::new(),
            pauses: Vec::new(),
        }
    }
}

impl<C: Connector> Later<C> {
    /// Whether nothing is asked for: the common case of a borrow or return that nobody waited for.
    pub(super) fn is_nothing(&self) -> bool {
        self.woken.is_empty()
            && self.closes.is_empty()
            && self.starts.is_empty()
            && self.pauses.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closed,
}

/// Connections that are not idle, by state.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Slots {
    pub(super) borrowed: usize,
    pub(super) dialing: usize,
    pub(super) reserved: usize,
    pub(super) closing: usize,
}

/// How a connection came to be free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Returned,
    Fresh,
}

/// What a borrower got at once.
pub(super) enum Taken<C: Connector> {
    Lent(Box<Entry<C::Conn>>, Fit),
    Nothing,
    Queued(LaneId, u64),
    Closed,
}

pub(super) struct Inner<C: Connector> {
    pub(super) limits: Limits,
    pub(super) phase: Phase,
    pub(super) shelves: Shelves<C>,
    pub(super) slots: Slots,
    pub(super) queues: Queues<C>,
    /// Counts returns: the recency of idle connections and what a ticket names.
    pub(super) sequence: u64,
    /// Counts marks: a connection of an older generation than its key's mark is not kept.
    pub(super) generation: u64,
    version: u64,
    /// The key borrowed last.
    pub(super) recent: Option<usize>,
    pub(super) warm: Backoff,
}

impl<C: Connector> Inner<C> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits: limits.usable(),
            phase: Phase::Open,
            shelves: Shelves::new(),
            slots: Slots::default(),
            queues: Queues::new(),
            sequence: 0,
            generation: 0,
            version: 0,
            recent: None,
            warm: Backoff::default(),
        }
    }

    /// The counts, with a new version.
    pub(super) fn counts(&mut self) -> Counts {
        self.version += 1;
        Counts {
            version: self.version,
            idle: self.shelves.idle_len(),
            borrowed: self.slots.borrowed,
            dialing: self.slots.dialing,
            reserved: self.slots.reserved,
            closing: self.slots.closing,
            waiters: self.queues.waiting,
        }
    }

    pub(super) fn total(&self) -> usize {
        let slots = &self.slots;
        self.shelves.idle_len() + slots.borrowed + slots.dialing + slots.reserved + slots.closing
    }

    pub(super) fn has_room(&self) -> bool {
        self.total() < self.limits.max_connections
    }

    /// Lends the best idle connection.
    pub(super) fn take(&mut self, key: &C::Key, wish: &Wish<C>) -> Taken<C> {
        if self.phase == Phase::Closed {
            return Taken::Closed;
        }
        let Some(shelf) = self.shelves.find(key) else {
            return Taken::Nothing;
        };
        match self.shelves.take_best(shelf, wish) {
            Some((entry, fit)) => {
                self.lend(shelf);
                Taken::Lent(entry, fit)
            }
            None => Taken::Nothing,
        }
    }

    /// Lends the best idle connection or queues the borrower. `place` is the number and time of one
    /// that was already served once, with a connection that turned out to be dead.
    pub(super) fn take_or_queue(
        &mut self,
        key: &C::Key,
        wish: &Wish<C>,
        place: (Option<u64>, Instant),
        later: &mut Later<C>,
    ) -> Taken<C> {
        match self.take(key, wish) {
            Taken::Nothing => {}
            taken => return taken,
        }
        let shelf = self.shelves.find_or_add(key);
        self.use_now(shelf);
        let lane = LaneId::Shelf(shelf);
        Taken::Queued(lane, self.queue(lane, place, Some(wish.clone()), later))
    }

    /// Queues for a bare slot, or takes one that is free. With `wait` false only the latter.
    pub(super) fn take_slot(
        &mut self,
        lane: LaneId,
        wait: bool,
        since: Instant,
        later: &mut Later<C>,
    ) -> Taken<C> {
        if self.phase == Phase::Closed {
            return Taken::Closed;
        }
        let dial_free = lane == LaneId::Guards || self.slots.dialing < self.limits.max_dials;
        let free = self.has_room() && dial_free;
        if !(wait || free) {
            return Taken::Nothing;
        }
        Taken::Queued(lane, self.queue(lane, (None, since), None, later))
    }

    pub(super) fn queue(
        &mut self,
        lane: LaneId,
        (number, since): (Option<u64>, Instant),
        wish: Option<Wish<C>>,
        later: &mut Later<C>,
    ) -> u64 {
        let number = number.unwrap_or_else(|| self.queues.next_number());
        self.queues.waiting += 1;
        self.change(lane, |lane| {
            lane.insert(
                number,
                Waiter {
                    since,
                    waker: None,
                    wish,
                },
            )
        });
        self.schedule(later);
        number
    }

    /// Lends exactly the connection the ticket names, if nobody had it since.
    pub(super) fn take_ticket(&mut self, ticket: &Ticket) -> Option<Box<Entry<C::Conn>>> {
        // Sequences of two pools may coincide, ids of connections cannot.
        if self.shelves.idle_id(ticket.shelf, ticket.sequence)? != ticket.id {
            return None;
        }
        let entry = self.shelves.take(ticket.shelf, ticket.sequence)?;
        self.lend(ticket.shelf);
        Some(entry)
    }

    pub(super) fn lend(&mut self, shelf: usize) {
        self.slots.borrowed += 1;
        self.shelves.at(shelf).borrowed += 1;
        self.use_now(shelf);
    }

    pub(super) fn use_now(&mut self, shelf: usize) {
        let before = self.recent.replace(shelf);
        if let Some(before) = before.filter(|&before| before != shelf) {
            self.tidy(before);
        }
    }

    /// A lent connection comes back; returns the sequence for its ticket.
    pub(super) fn give_back(
        &mut self,
        entry: Box<Entry<C::Conn>>,
        now: Instant,
        later: &mut Later<C>,
    ) -> u64 {
        let shelf = entry.shelf;
        self.unlend(shelf);
        let sequence = self.settle(entry, Arrival::Returned, now, later);
        self.tidy(shelf);
        sequence
    }

    /// A lent connection comes back only to be closed.
    pub(super) fn retire(&mut self, doomed: Doomed<C>, later: &mut Later<C>) {
        let shelf = doomed.entry.shelf;
        self.unlend(shelf);
        self.end(doomed, later);
        self.tidy(shelf);
    }

    pub(super) fn unlend(&mut self, shelf: usize) {
        self.slots.borrowed -= 1;
        self.shelves.at(shelf).borrowed -= 1;
    }

    /// Finds the place of a connection that no count holds at the moment.
    pub(super) fn settle(
        &mut self,
        entry: Box<Entry<C::Conn>>,
        arrival: Arrival,
        now: Instant,
        later: &mut Later<C>,
    ) -> u64 {
        self.sequence += 1;
        let sequence = self.sequence;
        if let Some(reason) = self.must_go(&entry, now) {
            self.end(Doomed { entry, reason }, later);
            return sequence;
        }
        let shelf = entry.shelf;
        let lane = &self.shelves.at(shelf).lane;
        let served = lane.first_served_by(&entry.conn).or_else(|| {
            // What has just been opened and serves nobody serves nobody better the next time: the
            // oldest waiter is to learn that, or connections would be opened and closed for it
            // until its time is up.
            let first = lane.first().filter(|_| arrival == Arrival::Fresh);
            first.map(|number| (number, Fit::Unusable))
        });
        let Some((number, fit)) = served else {
            self.shelves.put(sequence, entry, now);
            self.schedule(later);
            self.cap_idle(later);
            return sequence;
        };
        // One that was just opened is not closed for somebody else: where logins take longer than
        // the bound, that could go on without anybody being served.
        let passed_over = match arrival {
            Arrival::Returned => self.passed_over(shelf, number),
            Arrival::Fresh => None,
        };
        if let Some(lane) = passed_over {
            self.start(
                lane,
                Some(Doomed {
                    entry,
                    reason: RetireReason::MadeRoom,
                }),
                later,
            );
            return sequence;
        }
        let origin = match arrival {
            Arrival::Returned => Origin::Handed(fit),
            Arrival::Fresh => Origin::Dialed,
        };
        self.lend(shelf);
        self.deliver(
            LaneId::Shelf(shelf),
            number,
            Delivered::Connection(entry, origin),
            later,
        );
        sequence
    }

    pub(super) fn must_go(&mut self, entry: &Entry<C::Conn>, now: Instant) -> Option<RetireReason> {
        if self.phase == Phase::Closed {
            return Some(RetireReason::Drain);
        }
        if let Some(reason) = self.shelves.at(entry.shelf).marked(entry) {
            return Some(reason);
        }
        if entry
            .lifetime_end(self.limits.max_lifetime)
            .is_some_and(|end| end <= now)
        {
            return Some(RetireReason::MaxLifetime);
        }
        // The limit was lowered meanwhile.
        (!self.has_room()).then_some(RetireReason::Admin)
    }

    /// The lane of a waiter that came more than the fairness bound before waiter `number` and needs
    /// room more than that one needs the connection.
    pub(super) fn passed_over(&mut self, shelf: usize, number: u64) -> Option<LaneId> {
        let (older, lane) = self.neediest().filter(|(older, _)| *older < number)?;
        let came = self.shelves.at(shelf).lane.get(number)?.since;
        let older_came = self.lane(lane)?.get(older)?.since;
        (came - older_came > FAIRNESS_BOUND).then_some(lane)
    }

    /// Closes a connection that no count holds any more. Its slot goes to the neediest waiter, if
    /// there is one, else it is free when the server has let go.
    pub(super) fn end(&mut self, doomed: Doomed<C>, later: &mut Later<C>) {
        match self.neediest() {
            Some((_, lane)) if self.has_room() => self.start(lane, Some(doomed), later),
            _ => self.close_only(doomed, later),
        }
    }

    pub(super) fn close_only(&mut self, doomed: Doomed<C>, later: &mut Later<C>) {
        self.slots.closing += 1;
        later.closes.push(doomed);
    }

    /// The server has let go of a connection.
    pub(super) fn closed(&mut self, later: &mut Later<C>) {
        self.slots.closing -= 1;
        self.schedule(later);
    }

    /// Closes what is idle where nothing may be. Beyond any other cap, `maintain` closes.
    pub(super) fn cap_idle(&mut self, later: &mut Later<C>) {
        while self.limits.max_idle == 0 && self.shelves.idle_len() > 0 {
            let Some(entry) = self.shelves.take_oldest() else {
                break;
            };
            let shelf = entry.shelf;
            self.end(
                Doomed {
                    entry,
                    reason: RetireReason::IdleCap,
                },
                later,
            );
            self.tidy(shelf);
        }
    }

    /// `true` if the pool is closed and nothing is left.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Closed && self.total() == 0
    }

    /// Forgets a key that nothing belongs to; the last used one stays while connections of it are
    /// to be kept warm.
    pub(super) fn tidy(&mut self, shelf: usize) {
        let last_used = self.recent == Some(shelf);
        if last_used && self.limits.min_idle > 0 && self.phase == Phase::Open {
            return;
        }
        if self.shelves.remove_unused(shelf) && last_used {
            self.recent = None;
        }
    }
}
