//! Keeps the books of client connections, whatever way a task ends, by a panic too.
//!
//! Always: received = succeeded + failed + handshakes now, and succeeded = closed + connections now.

use std::sync::Arc;

use tokio::time::Instant;

use crate::metrics::{ClientMetrics, GaugeGuard, LoginPath};
use crate::reason::{CloseReason, RejectReason};

/// A connection that was accepted and has not logged in yet. Dropped, it has failed.
#[derive(Debug)]
#[must_use]
pub(super) struct Arrival {
    clients: Arc<ClientMetrics>,
    accepted: Instant,
    /// The reason it fails for if nothing else is said; `None`: it has logged in.
    failing: Option<RejectReason>,
    _handshake: GaugeGuard,
}

/// A client that is logged in. Dropped, it is closed.
#[derive(Debug)]
#[must_use]
pub(super) struct Connected {
    clients: Arc<ClientMetrics>,
    since: Instant,
    reason: CloseReason,
    _connection: GaugeGuard,
}

impl Arrival {
    /// Counts a connection that was just accepted.
    pub(super) fn new(clients: &Arc<ClientMetrics>) -> Self {
        clients.received.inc();
        Self {
            clients: Arc::clone(clients),
            accepted: Instant::now(),
            // What is left if the task panics: a defect that the client provoked somehow.
            failing: Some(RejectReason::ProtocolError),
            _handshake: clients.handshakes.guard(),
        }
    }

    /// Counts a connection that was turned away as soon as it came.
    pub(super) fn rejected_at_once(clients: &ClientMetrics, reason: RejectReason) {
        clients.received.inc();
        clients.setup_failed.inc(reason);
    }

    /// The login failed.
    pub(super) fn rejected(mut self, reason: RejectReason) {
        self.failing = Some(reason);
    }

    /// The login succeeded.
    pub(super) fn logged_in(mut self, path: LoginPath, tls: bool) -> Connected {
        self.failing = None;
        let clients = Arc::clone(&self.clients);
        clients.setup_succeeded.inc();
        clients.logins.inc(path);
        clients.handshake.observe(self.accepted.elapsed());
        Connected {
            since: self.accepted,
            reason: CloseReason::Internal,
            _connection: clients.connections.guard(tls.into()),
            clients,
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if let Some(reason) = self.failing {
            self.clients.setup_failed.inc(reason);
        }
    }
}

impl Connected {
    /// The session ended.
    pub(super) fn closed(mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.clients.closed.inc(self.reason);
        self.clients.lifetime.observe(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, Tls};

    fn balanced(clients: &ClientMetrics) -> bool {
        let now = |gauge: i64| u64::try_from(gauge).unwrap();
        let connections = &clients.connections;
        let connected = connections.get(Tls::Off).get() + connections.get(Tls::On).get();
        let (succeeded, failed) = (clients.setup_succeeded.get(), clients.setup_failed.total());
        clients.received.get() == succeeded + failed + now(clients.handshakes.get())
            && succeeded == clients.closed.total() + now(connected)
    }

    #[tokio::test]
    async fn the_books_balance_at_every_step_and_after_a_panic() {
        let clients = Arc::clone(&Metrics::new().clients);
        Arrival::rejected_at_once(&clients, RejectReason::TooManyClients);
        assert!(balanced(&clients));
        let arrival = Arrival::new(&clients);
        assert!(balanced(&clients) && clients.handshakes.get() == 1);
        arrival.rejected(RejectReason::AccessDenied);
        assert!(balanced(&clients) && clients.handshakes.get() == 0);

        let connected = Arrival::new(&clients).logged_in(LoginPath::Cached, true);
        assert!(balanced(&clients) && clients.connections.get(Tls::On).get() == 1);
        connected.closed(CloseReason::Quit);
        assert!(balanced(&clients) && clients.connections.get(Tls::On).get() == 0);

        for logs_in in [false, true] {
            let clients = Arc::clone(&clients);
            let task = tokio::spawn(async move {
                let arrival = Arrival::new(&clients);
                let _connected = logs_in.then(|| arrival.logged_in(LoginPath::Full, false));
                panic!("a defect");
            });
            assert!(task.await.is_err());
        }
        assert!(balanced(&clients));
        assert_eq!(clients.closed.get(CloseReason::Internal).get(), 1);
        assert_eq!(clients.received.get(), 5);
    }
}
