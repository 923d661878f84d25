//! The lock, and what is done after it is released: logins, closes, wake-ups, events.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error, warn};

use super::connection::{Connector, PooledConnection};
use super::events::{DialOutcome, Events};
use super::inner::{Dial, Doomed, Inner, Job, Later, Phase, Start};
use super::limits::Limits;
use super::logins::DialFailure;
use super::waiters::LaneId;

/// A close that takes longer is cut off, and the slot counts as free.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Shared<C: Connector> {
    inner: Mutex<Inner<C>>,
    pub(super) connector: C,
    pub(super) events: Arc<dyn Events>,
    /// Leases may be dropped outside the runtime.
    runtime: Handle,
    /// Told when a closed pool has nothing left.
    pub(super) empty: Notify,
}

impl<C: Connector> Shared<C> {
    pub(super) fn new(connector: C, limits: Limits, events: Arc<dyn Events>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner::new(limits)),
            connector,
            events,
            runtime: Handle::current(),
            empty: Notify::new(),
        })
    }

    /// The data, to look at or to change in ways that ask for nothing later.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        self.inner.lock()
    }

    /// Changes the data under the lock, then does what the change asks for.
    pub(super) fn with<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Inner<C>, &mut Later<C>) -> R,
    ) -> R {
        let mut later = Later::default();
        let (result, counts, phase) = {
            let mut inner = self.inner.lock();
            let result = change(&mut inner, &mut later);
            (result, inner.counts(), inner.phase)
        };
        if !later.is_nothing() {
            self.apply(later);
        }
        self.events.counts(counts);
        if phase == Phase::Closed && counts.total() == 0 {
            self.empty.notify_waiters();
        }
        result
    }

    fn apply(self: &Arc<Self>, later: Later<C>) {
        for doomed in later.closes {
            let shared = Arc::clone(self);
            self.runtime.spawn(async move {
                let slot = OnDrop(Some(|| shared.with(|inner, later| inner.closed(later))));
                shared.close(doomed).await;
                drop(slot);
            });
        }
        for Start { job, after } in later.starts {
            match job {
                Job::Dial(dial) => {
                    self.runtime.spawn(Arc::clone(self).dial(dial, after));
                }
                Job::Grant(lane) => {
                    self.runtime.spawn(Arc::clone(self).grant(lane, after));
                }
            }
        }
        for (shelf, until) in later.pauses {
            let shared = Arc::clone(self);
            self.runtime.spawn(async move {
                sleep_until(until).await;
                shared.with(|inner, later| inner.unpause(shelf, Instant::now(), later));
            });
        }
        for waiter in later.woken {
            if let Some(waker) = waiter.waker {
                waker.wake();
            }
        }
    }

    async fn close(&self, doomed: Doomed<C>) {
        let Doomed { entry, reason } = doomed;
        let id = entry.conn.id();
        self.events.retired(reason);
        debug!(connection = id, %reason, "backend connection retired");
        if timeout(CLOSE_TIMEOUT, entry.conn.close(reason))
            .await
            .is_err()
        {
            debug!(
                connection = id,
                "the server did not end a closed connection in time"
            );
        }
    }

    async fn grant(self: Arc<Self>, lane: LaneId, after: Option<Doomed<C>>) {
        let slot = OnDrop(Some(|| {
            self.with(|inner, later| inner.granted(lane, later))
        }));
        if let Some(doomed) = after {
            self.close(doomed).await;
        }
        drop(slot);
    }

    async fn dial(self: Arc<Self>, dial: Dial<C::Key>, after: Option<Doomed<C>>) {
        let mut slot = DialSlot {
            shared: &self,
            dial: &dial,
            result: Err(DialFailure::Lost),
        };
        if let Some(doomed) = after {
            self.close(doomed).await;
            if !self.lock().is_wanted(dial.shelf) {
                slot.result = Err(DialFailure::Unwanted);
                return;
            }
        }
        let result = self.timed(self.connector.connect(&dial.key)).await;
        slot.result = result.map_err(Self::classify);
    }

    /// Awaits a login and reports it.
    pub(super) async fn timed(
        &self,
        login: impl Future<Output = Result<C::Conn, C::Error>> + Send,
    ) -> Result<C::Conn, C::Error> {
        let begun = Instant::now();
        let result = login.await;
        let outcome = match &result {
            Ok(_) => DialOutcome::Opened,
            Err(error) if C::is_full(error) => DialOutcome::Full,
            Err(error) if C::is_denied(error) => DialOutcome::Denied,
            Err(_) => DialOutcome::Failed,
        };
        self.events.dialed(outcome, begun.elapsed());
        result
    }

    /// Runs a login that brings its own dial, on a slot that was delivered for it.
    pub(super) fn spawn_login(
        self: &Arc<Self>,
        key: &C::Key,
        dial: impl Future<Output = Result<C::Conn, C::Error>> + Send + 'static,
        tell: oneshot::Sender<Result<(), C::Error>>,
    ) {
        let of = self.with(|inner, _| inner.login_begins(key));
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            let mut slot = LoginSlot {
                shared: &shared,
                of,
                conn: None,
            };
            let result = match shared.timed(dial).await {
                Ok(conn) => {
                    slot.conn = Some(conn);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            drop(slot);
            // The caller may have left.
            let _ = tell.send(result);
        });
    }

    fn classify(error: C::Error) -> DialFailure<C::Error> {
        if C::is_full(&error) {
            debug!(%error, "the server has no room for another connection");
            DialFailure::Full
        } else if C::is_denied(&error) {
            DialFailure::Denied(Arc::new(error))
        } else {
            DialFailure::Failed(Arc::new(error))
        }
    }
}

/// The slot of a login under way. Dropped, also by a panic of the connector, it ends the login with
/// the result so far, so that neither the slot nor a waiter is forgotten.
struct DialSlot<'a, C: Connector> {
    shared: &'a Arc<Shared<C>>,
    dial: &'a Dial<C::Key>,
    result: Result<C::Conn, DialFailure<C::Error>>,
}

impl<C: Connector> Drop for DialSlot<'_, C> {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Err(DialFailure::Lost));
        let failed = match &result {
            Err(DialFailure::Failed(error) | DialFailure::Denied(error)) => Some(Arc::clone(error)),
            Err(DialFailure::Lost) => {
                error!(key = ?self.dial.key, "a login to the backend ended without a result");
                None
            }
            Ok(_) | Err(DialFailure::Full | DialFailure::Unwanted) => None,
        };
        let of = (self.dial.shelf, self.dial.generation);
        let now = Instant::now();
        let told = self
            .shared
            .with(|inner, later| inner.dial_ended(of, result, now, later));
        if let Some(error) = failed.filter(|_| !told) {
            warn!(key = ?self.dial.key, %error, "a login to the backend failed while nobody waited for it");
        }
    }
}

/// The slot of a login that brought its own dial; like [`DialSlot`].
struct LoginSlot<'a, C: Connector> {
    shared: &'a Arc<Shared<C>>,
    of: (usize, u64),
    conn: Option<C::Conn>,
}

impl<C: Connector> Drop for LoginSlot<'_, C> {
    fn drop(&mut self) {
        let (of, conn, now) = (self.of, self.conn.take(), Instant::now());
        self.shared
            .with(|inner, later| inner.login_ended(of, conn, now, later));
    }
}

/// Runs its closure when dropped, also by a panic.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run();
        }
    }
}
