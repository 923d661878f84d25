//! What the pool asks of a backend connection and of the one who opens them.

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use crate::reason::RetireReason;

/// How well an idle connection serves a borrower; a greater value is a better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fit {
    /// It must not be given to this borrower.
    Unusable,
    /// It serves after a replay.
    Usable,
    /// It serves after a replay that leaves the database alone.
    SameDatabase,
    /// Its session state is the borrower's: nothing to replay.
    Equal,
}

/// A backend connection as the pool sees it.
pub trait PooledConnection: Send + 'static {
    /// What a borrower would like (its session state). Cloned, under the pool's lock, only for a
    /// borrower that has to wait: make it a handle.
    type Wish: Clone + Send + Sync + 'static;

    /// Unique for the process.
    fn id(&self) -> u64;

    /// How well this connection serves `wish`. Called under the pool's lock, often many times in a
    /// row: it must be cheap and must not panic. A connection fresh from
    /// [`Connector::connect`] must fit every wish of its key, or its borrower waits in vain.
    fn fit(&self, wish: &Self::Wish) -> Fit;

    /// Reads the idle socket without blocking; `false` on EOF, an error, or bytes that nobody asked
    /// for (a server says goodbye so). Called outside the lock.
    fn is_silent(&mut self) -> bool;

    /// The server's `wait_timeout` for this connection, if it is known. Called under the lock.
    fn server_idle_limit(&self) -> Option<Duration>;

    /// Closes politely. The connection counts in the limit until the future ends, which therefore
    /// should be when the server has let go of it (its EOF after `COM_QUIT`). The pool runs it in a
    /// task of its own and drops it after 2 s.
    fn close(self, reason: RetireReason) -> impl Future<Output = ()> + Send;
}

/// Opens backend connections of one backend.
pub trait Connector: Send + Sync + 'static {
    /// What is opened.
    type Conn: PooledConnection;
    /// What makes connections interchangeable but for session state: account and capabilities.
    type Key: Eq + Hash + Clone + Debug + Send + Sync + 'static;
    /// Why opening failed. Waiters share one by `Arc`.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Dials and logs in. Runs in a task of its own and is never dropped half-way by the pool (an
    /// aborted handshake counts against `max_connect_errors`), so it must bring its own time limit.
    /// An error is returned only when its socket is closed.
    fn connect(
        &self,
        key: &Self::Key,
    ) -> impl Future<Output = Result<Self::Conn, Self::Error>> + Send;

    /// The server has no room (1040, 1203, 1226): borrowers wait instead of failing.
    fn is_full(error: &Self::Error) -> bool;

    /// The server refuses these credentials (1045 and its kin): trying again cannot help, so every
    /// waiter of the key fails at once.
    fn is_denied(_error: &Self::Error) -> bool {
        false
    }
}

pub(super) type Wish<C> = <<C as Connector>::Conn as PooledConnection>::Wish;
