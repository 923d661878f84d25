//! Sharing backend connections: one [`Pool`] per backend, with keys (account and capabilities) inside.
//!
//! The pool owns which connection is idle, lent, being opened or being closed, who waits for one,
//! and how many there may be. It knows a connection only as a [`PooledConnection`] and opens one
//! only through a [`Connector`]. All of it is plain data under one short lock (`inner`): what
//! takes time (logins, closes, wake-ups, events) is collected there and done after the lock is
//! released (`shared`). All timing is tokio's, so paused time drives every rule in tests.

mod connection;
mod error;
mod events;
mod inner;
mod lease;
mod limits;
mod logins;
mod maintenance;
mod orders;
#[expect(clippy::module_inception, reason = "the handle has the module's name")]
mod pool;
mod schedule;
mod shared;
mod shelves;
mod waiters;

pub use connection::{Connector, Fit, PooledConnection};
pub use error::BorrowError;
pub use events::{BorrowEnd, Counts, DialOutcome, Events, NoEvents, Origin};
pub use lease::{Lease, SlotGuard, Ticket};
pub use limits::Limits;
pub use pool::{KeyStats, Pool, PoolStats};
