//! Why a borrow failed.

use std::sync::Arc;
use std::time::Duration;

/// Why no connection was lent.
#[derive(Debug, thiserror::Error)]
pub enum BorrowError<E: std::error::Error + 'static> {
    /// Nothing came free in time.
    #[error("no backend connection came free within {waited:?} ({ahead} waiters ahead)")]
    Timeout {
        /// How long the borrower waited.
        waited: Duration,
        /// Waiters of the same key that were still in front of it.
        ahead: usize,
    },
    /// The login that was to serve this borrower failed.
    #[error("a backend connection could not be opened")]
    Connect(#[source] Arc<E>),
    /// The pool is closed.
    #[error("the pool is closed")]
    Closed,
}
