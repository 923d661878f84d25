//! What pools tell, as metrics.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::backend::dial::Address;
use crate::backend::dialer::Dialer;
use crate::backend::probe::{Condition, Standing};
use crate::backend::tls::TlsMode;
use crate::metrics::{BackendMetrics, ConnectionState, IdleFit, Outcome, PoolMetrics, Tls};
use crate::pool::{BorrowEnd, Counts, DialOutcome, Events, Fit, Origin};
use crate::protocol::capability::Capabilities;
use crate::reason::RetireReason;

/// Counts what happens in one backend's pool.
#[derive(Debug)]
pub(super) struct PoolEvents {
    pool: PoolMetrics,
    backend: BackendMetrics,
    dialer: Dialer,
    tls: TlsMode,
    /// What probes say of the server, if there are any.
    probes: Option<watch::Receiver<Condition>>,
    /// The version of the counts that the gauges show; held while they are set.
    shown: Mutex<u64>,
}

impl PoolEvents {
    /// Counts in these handles.
    pub(super) const fn new(
        pool: PoolMetrics,
        backend: BackendMetrics,
        dialer: Dialer,
        tls: TlsMode,
        probes: Option<watch::Receiver<Condition>>,
    ) -> Self {
        let shown = Mutex::new(0);
        Self {
            pool,
            backend,
            dialer,
            tls,
            probes,
            shown,
        }
    }

    /// Whether dials have to tell if the server can be used: nobody probes it, or probes cannot.
    fn judged_by_dials(&self) -> bool {
        let unknown = |condition: &Condition| condition.standing == Standing::Unknown;
        let probes = self.probes.as_ref();
        probes.is_none_or(|condition| unknown(&condition.borrow()))
    }

    /// Whether connections to this server are encrypted, which mode and server decide for all of them alike.
    fn tls(&self) -> Tls {
        let encrypted = match self.tls {
            TlsMode::Off => false,
            TlsMode::Preferred => {
                let offered = |capabilities: Capabilities| capabilities.contains(Capabilities::SSL);
                let greeted = self.dialer.greeted();
                matches!(self.dialer.address(), Address::Tcp { .. })
                    && greeted.is_some_and(|greeted| offered(greeted.capabilities))
            }
            TlsMode::Required | TlsMode::VerifyCa | TlsMode::VerifyIdentity => true,
        };
        encrypted.into()
    }
}

impl Events for PoolEvents {
    fn borrowed(&self, wait: Duration, origin: Origin) {
        self.pool.borrow_wait.observe(wait);
        self.pool.borrows.inc(match origin {
            Origin::Dialed => IdleFit::Dialed,
            Origin::Reserved => IdleFit::EqualState,
            Origin::Idle(fit) | Origin::Handed(fit) => match fit {
                Fit::Equal => IdleFit::EqualState,
                Fit::SameDatabase => IdleFit::SameDatabase,
                Fit::Usable | Fit::Unusable => IdleFit::Usable,
            },
        });
    }

    fn borrow_ended(&self, _wait: Duration, end: BorrowEnd) {
        if end == BorrowEnd::Timeout {
            self.pool.borrow_timeouts.inc();
        }
    }

    fn dialed(&self, outcome: DialOutcome, took: Duration) {
        self.pool.dial.observe(took);
        let (result, up) = match outcome {
            DialOutcome::Opened => (Outcome::Ok, true),
            // It answers, if not as one would wish.
            DialOutcome::Full | DialOutcome::Denied => (Outcome::Failed, true),
            DialOutcome::Failed => (Outcome::Failed, false),
        };
        self.pool.dialed(result, self.tls());
        if self.judged_by_dials() {
            self.backend.set_up(up);
        }
    }

    fn retired(&self, reason: RetireReason) {
        self.pool.retired.inc(reason);
    }

    fn counts(&self, counts: Counts) {
        let mut shown = self.shown.lock();
        if counts.version < *shown {
            return;
        }
        *shown = counts.version;
        let set = |gauge: &crate::metrics::Gauge, n: usize| gauge.set(n as i64);
        let connections = &self.pool.connections;
        set(connections.get(ConnectionState::Idle), counts.idle);
        set(connections.get(ConnectionState::Borrowed), counts.borrowed);
        set(connections.get(ConnectionState::Dialing), counts.dialing);
        set(&self.pool.waiters, counts.waiters);
        let encrypted = match self.tls() {
            Tls::On => counts.idle + counts.borrowed,
            Tls::Off => 0,
        };
        set(&self.pool.tls, encrypted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::state::StateIds;
    use crate::backend::tls::BackendTls;
    use crate::config::{Live, Settings};
    use crate::metrics::Metrics;
    use std::sync::Arc;

    #[test]
    fn gauges_never_go_back_to_an_older_count() {
        let metrics = Metrics::new();
        let address = Address::Unix("/x".into());
        let live = Arc::new(Live::new(Settings::default()));
        let dialer = Dialer::new(address, BackendTls::off(), live, StateIds::default());
        let (pool, backend) = (metrics.pool("x"), metrics.backend("x"));
        let events = PoolEvents::new(
            pool.clone(),
            backend.clone(),
            dialer,
            TlsMode::Required,
            None,
        );
        let counts = |version, idle| Counts {
            version,
            idle,
            waiters: idle,
            ..Counts::default()
        };
        events.counts(counts(7, 2));
        events.counts(counts(6, 9));
        assert_eq!(pool.connections.get(ConnectionState::Idle).get(), 2);
        assert_eq!((pool.waiters.get(), pool.tls.get()), (2, 2));

        events.dialed(DialOutcome::Denied, Duration::ZERO);
        assert_eq!(backend.up.get(), 1);
        events.dialed(DialOutcome::Failed, Duration::ZERO);
        assert_eq!(backend.up.get(), 0);
        assert_eq!(pool.dials.get(Outcome::Failed).get(Tls::On).get(), 2);
        events.borrow_ended(Duration::ZERO, BorrowEnd::Cancelled);
        events.borrow_ended(Duration::ZERO, BorrowEnd::Timeout);
        assert_eq!(pool.borrow_timeouts.get(), 1);
    }
}
