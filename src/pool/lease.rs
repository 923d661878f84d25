//! A borrowed connection, a reserved slot, and the ticket of a returned connection.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::time::Instant;

use super::connection::{Connector, PooledConnection};
use super::events::Origin;
use super::inner::Doomed;
use super::shared::Shared;
use super::shelves::Entry;
use super::waiters::LaneId;
use crate::reason::RetireReason;

/// A borrowed connection. [`give_back`](Self::give_back) shares it again; dropped any other way it
/// is closed as [`Abandoned`](RetireReason::Abandoned), since nobody knows what is in flight on it.
pub struct Lease<C: Connector> {
    /// `None` only while it ends.
    entry: Option<Box<Entry<C::Conn>>>,
    origin: Origin,
    shared: Arc<Shared<C>>,
}

impl<C: Connector> Lease<C> {
    pub(super) fn new(entry: Box<Entry<C::Conn>>, origin: Origin, shared: &Arc<Shared<C>>) -> Self {
        Self {
            entry: Some(entry),
            origin,
            shared: Arc::clone(shared),
        }
    }

    /// Where the connection came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Returns the connection, clean and between commands, to be shared. The ticket gets it back
    /// as it is, as long as nobody else has had it.
    pub fn give_back(mut self) -> Ticket {
        let Some(entry) = self.entry.take() else {
            return Ticket {
                shelf: 0,
                sequence: 0,
                id: 0,
            };
        };
        let (shelf, id) = (entry.shelf, entry.conn.id());
        let now = Instant::now();
        let sequence = self
            .shared
            .with(|inner, later| inner.give_back(entry, now, later));
        Ticket {
            shelf,
            sequence,
            id,
        }
    }

    /// Closes the connection.
    pub fn retire(mut self, reason: RetireReason) {
        self.end(reason);
    }

    fn end(&mut self, reason: RetireReason) {
        if let Some(entry) = self.entry.take() {
            self.shared
                .with(|inner, later| inner.retire(Doomed { entry, reason }, later));
        }
    }
}

impl<C: Connector> Deref for Lease<C> {
    type Target = C::Conn;

    #[expect(
        clippy::expect_used,
        reason = "the entry is taken only by methods that end the lease"
    )]
    fn deref(&self) -> &C::Conn {
        &self
            .entry
            .as_ref()
            .expect("a lease has its connection")
            .conn
    }
}

impl<C: Connector> DerefMut for Lease<C> {
    #[expect(
        clippy::expect_used,
        reason = "the entry is taken only by methods that end the lease"
    )]
    fn deref_mut(&mut self) -> &mut C::Conn {
        &mut self
            .entry
            .as_mut()
            .expect("a lease has its connection")
            .conn
    }
}

impl<C: Connector> Drop for Lease<C> {
    fn drop(&mut self) {
        self.end(RetireReason::Abandoned);
    }
}

impl<C: Connector> fmt::Debug for Lease<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", &self.entry.as_ref().map(|entry| entry.conn.id()))
            .field("origin", &self.origin)
            .finish()
    }
}

/// Names a connection as it was when it was returned; see [`Pool::reborrow`](super::Pool::reborrow).
#[derive(Debug)]
pub struct Ticket {
    pub(super) shelf: usize,
    /// The return itself, unique in its pool: any later use of the connection ends in another.
    pub(super) sequence: u64,
    /// The connection, unique for the process.
    pub(super) id: u64,
}

/// A slot within the limit for a connection that is not pooled (a probe, a KILL). Free again when
/// dropped, which therefore should be after that connection is closed.
pub struct SlotGuard<C: Connector> {
    shared: Arc<Shared<C>>,
}

impl<C: Connector> SlotGuard<C> {
    pub(super) fn new(shared: &Arc<Shared<C>>) -> Self {
        Self {
            shared: Arc::clone(shared),
        }
    }
}

impl<C: Connector> Drop for SlotGuard<C> {
    fn drop(&mut self) {
        self.shared
            .with(|inner, later| inner.free_slot(LaneId::Guards, later));
    }
}

impl<C: Connector> fmt::Debug for SlotGuard<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotGuard")
    }
}
