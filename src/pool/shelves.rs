//! Idle connections by key, in the order of their return.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::connection::{Connector, Fit, PooledConnection, Wish};
use super::waiters::Lane;
use crate::reason::RetireReason;

/// Idle connections looked at for a better fit once a usable one is found.
pub(super) const SEARCH_BOUND: usize = 64;

/// A connection with what the pool remembers about it. Boxed from birth, so that lending it moves
/// a pointer and allocates nothing.
pub(super) struct Entry<T> {
    pub(super) conn: T,
    pub(super) shelf: usize,
    /// The pool's generation when its login began.
    generation: u64,
    born: Instant,
    /// This connection's share of `max_lifetime`, 0.9 to 1.1, so that those opened together do not
    /// end together.
    jitter: f64,
    idle_since: Instant,
}

impl<T: PooledConnection> Entry<T> {
    pub(super) fn new(conn: T, shelf: usize, generation: u64, now: Instant) -> Self {
        Self {
            conn,
            shelf,
            generation,
            born: now,
            jitter: rand::random_range(0.9..=1.1),
            idle_since: now,
        }
    }

    #[cfg(test)]
    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// When it is too old, or `None` for never.
    pub(super) fn lifetime_end(&self, max_lifetime: Duration) -> Option<Instant> {
        let lifetime = Some(max_lifetime).filter(|limit| !limit.is_zero())?;
        self.born.checked_add(lifetime.mul_f64(self.jitter))
    }

    /// When, left idle, it would pass `idle_timeout`, or `None` for never.
    pub(super) fn idle_end(&self, idle_timeout: Duration) -> Option<Instant> {
        let limit = Some(idle_timeout).filter(|limit| !limit.is_zero())?;
        self.idle_since.checked_add(limit)
    }

    /// When it must go so that the server's own limit never strikes: 10 % and at least 5 s before
    /// it, but never before half of it.
    pub(super) fn server_end(&self) -> Option<Instant> {
        let limit = self.conn.server_idle_limit()?;
        let margin = (limit / 10).max(Duration::from_secs(5)).min(limit / 2);
        self.idle_since.checked_add(limit - margin)
    }
}

/// All of one key.
pub(super) struct Shelf<C: Connector> {
    pub(super) key: C::Key,
    /// By return, the most recent last.
    idle: BTreeMap<u64, Box<Entry<C::Conn>>>,
    pub(super) borrowed: usize,
    /// Logins that came with a dial of their own ([`Pool::open`](super::Pool::open)).
    pub(super) logins: usize,
    /// Who waits for a connection of this key; its `pending` are the dials in flight.
    pub(super) lane: Lane<Wish<C>>,
    /// Connections of an older generation are closed, for this reason, instead of kept.
    pub(super) mark: Option<(u64, RetireReason)>,
}

impl<C: Connector> Shelf<C> {
    pub(super) fn idle_len(&self) -> usize {
        self.idle.len()
    }

    /// The best idle connection for `wish`: equal state, else same database, else usable, each most
    /// recent first. Looks at the [`SEARCH_BOUND`] most recent ones, and beyond them only until
    /// the first that is usable at all.
    fn best_fit(&self, wish: &Wish<C>) -> Option<(u64, Fit)> {
        let mut best: Option<(u64, Fit)> = None;
        for (looked_at, (&sequence, entry)) in self.idle.iter().rev().enumerate() {
            if looked_at >= SEARCH_BOUND && best.is_some() {
                break;
            }
            match entry.conn.fit(wish) {
                Fit::Unusable => {}
                Fit::Equal => return Some((sequence, Fit::Equal)),
                fit if best.is_none_or(|(_, so_far)| fit > so_far) => best = Some((sequence, fit)),
                _ => {}
            }
        }
        best
    }

    /// Why a connection of this key may not stay because of a mark.
    pub(super) fn marked(&self, entry: &Entry<C::Conn>) -> Option<RetireReason> {
        let (generation, reason) = self.mark?;
        (entry.generation < generation).then_some(reason)
    }

    fn is_unused(&self) -> bool {
        self.idle.is_empty()
            && self.borrowed == 0
            && self.logins == 0
            && self.lane.pending == 0
            && self.lane.is_empty()
            && !self.lane.backoff.is_pausing()
    }
}

/// The shelves of all keys and the order of return across them.
pub(super) struct Shelves<C: Connector> {
    /// Keys are the process's own numbers, so a hasher that withstands no attacker will do.
    index: HashMap<C::Key, usize, RandomState>,
    shelves: Vec<Option<Shelf<C>>>,
    vacant: Vec<usize>,
    /// Idle connections of all keys by return, the most recent last; the value is the shelf.
    order: BTreeMap<u64, usize>,
}

impl<C: Connector> Shelves<C> {
    pub(super) fn new() -> Self {
        Self {
            index: HashMap::default(),
            shelves: Vec::new(),
            vacant: Vec::new(),
            order: BTreeMap::new(),
        }
    }

    pub(super) fn idle_len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn find(&self, key: &C::Key) -> Option<usize> {
        self.index.get(key).copied()
    }

    pub(super) fn find_or_add(&mut self, key: &C::Key) -> usize {
        if let Some(shelf) = self.find(key) {
            return shelf;
        }
        let shelf = Shelf {
            key: key.clone(),
            idle: BTreeMap::new(),
            borrowed: 0,
            logins: 0,
            lane: Lane::default(),
            mark: None,
        };
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.shelves.push(None);
            self.shelves.len() - 1
        });
        self.shelves[at] = Some(shelf);
        self.index.insert(key.clone(), at);
        at
    }

    /// The shelf of a connection, dial or waiter; these keep it in place.
    #[expect(clippy::expect_used, reason = "only an unused shelf is removed")]
    pub(super) fn at(&mut self, shelf: usize) -> &mut Shelf<C> {
        self.shelves[shelf]
            .as_mut()
            .expect("a shelf in use is in place")
    }

    /// The shelf, if it is still there, for callers that nothing of it belongs to.
    pub(super) fn get(&mut self, shelf: usize) -> Option<&mut Shelf<C>> {
        self.shelves.get_mut(shelf)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Shelf<C>)> {
        self.shelves
            .iter()
            .enumerate()
            .filter_map(|(at, shelf)| Some((at, shelf.as_ref()?)))
    }

    /// Removes the shelf if nothing belongs to it.
    pub(super) fn remove_unused(&mut self, shelf: usize) -> bool {
        if !self.get(shelf).is_some_and(|shelf| shelf.is_unused()) {
            return false;
        }
        if let Some(gone) = self.shelves[shelf].take() {
            self.index.remove(&gone.key);
            self.vacant.push(shelf);
        }
        true
    }

    /// Takes the best idle connection of the shelf for `wish`.
    pub(super) fn take_best(
        &mut self,
        shelf: usize,
        wish: &Wish<C>,
    ) -> Option<(Box<Entry<C::Conn>>, Fit)> {
        let (sequence, fit) = self.at(shelf).best_fit(wish)?;
        Some((self.take(shelf, sequence)?, fit))
    }

    /// Takes the idle connection that was returned as `sequence` and never lent since.
    pub(super) fn take(&mut self, shelf: usize, sequence: u64) -> Option<Box<Entry<C::Conn>>> {
        let entry = self.get(shelf)?.idle.remove(&sequence)?;
        self.order.remove(&sequence);
        Some(entry)
    }

    /// The id of the idle connection that was returned as `sequence`.
    pub(super) fn idle_id(&mut self, shelf: usize, sequence: u64) -> Option<u64> {
        Some(self.get(shelf)?.idle.get(&sequence)?.conn.id())
    }

    /// Takes the least recently used idle connection of all keys.
    pub(super) fn take_oldest(&mut self) -> Option<Box<Entry<C::Conn>>> {
        let (&sequence, &shelf) = self.order.first_key_value()?;
        self.take(shelf, sequence)
    }

    pub(super) fn put(&mut self, sequence: u64, mut entry: Box<Entry<C::Conn>>, now: Instant) {
        entry.idle_since = now;
        let shelf = entry.shelf;
        self.at(shelf).idle.insert(sequence, entry);
        self.order.insert(sequence, shelf);
    }

    /// Every idle connection, least recently used first, as (return, shelf, connection).
    pub(super) fn idle(&self) -> impl Iterator<Item = (u64, &Shelf<C>, &Entry<C::Conn>)> {
        self.order.iter().filter_map(|(sequence, &at)| {
            let shelf = self.shelves.get(at)?.as_ref()?;
            Some((*sequence, shelf, shelf.idle.get(sequence)?.as_ref()))
        })
    }
}
