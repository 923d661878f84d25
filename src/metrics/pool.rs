//! Metrics of the pools at one backend.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::handle::{
    ByLabel, Counter, Counters, Gauge, Gauges, Histogram, LATENCY, Maker, Resolver, WAIT,
};
use super::label::{ConnectionState, IdleFit, Outcome, Tls};
use crate::reason::RetireReason;

/// The pools at one backend, all accounts together.
#[derive(Debug, Clone)]
pub struct PoolMetrics {
    /// Backend connections now, by what they do.
    pub connections: Gauges<ConnectionState>,
    /// How many may exist at once.
    pub max: Gauge,
    /// Logged-in backend connections that are encrypted.
    pub tls: Gauge,
    /// Attempts to connect and log in; [`dialed`](Self::dialed) counts them.
    pub dials: ByLabel<Outcome, Counters<Tls>>,
    /// Duration of such attempts, failed ones too.
    pub dial: Histogram,
    /// Borrows by how well the backend connection fitted.
    pub borrows: Counters<IdleFit>,
    /// From asking the pool to having a backend connection.
    pub borrow_wait: Histogram,
    /// Borrows given up at `pool.borrow_timeout`.
    pub borrow_timeouts: Counter,
    /// Sessions in the queue now.
    pub waiters: Gauge,
    /// Backend connections that left the pool for good.
    pub retired: Counters<RetireReason>,
}

impl PoolMetrics {
    /// Counts an attempt to connect and log in that ended; `tls` says whether it was (to be) encrypted.
    pub fn dialed(&self, outcome: Outcome, tls: Tls) {
        self.dials.get(outcome).inc(tls);
    }
}

/// The families that [`PoolMetrics`] are resolved from.
#[derive(Debug)]
pub(super) struct PoolFamilies {
    connections: IntGaugeVec,
    max: IntGaugeVec,
    tls: IntGaugeVec,
    dials: IntCounterVec,
    dial: HistogramVec,
    borrows: IntCounterVec,
    borrow_wait: HistogramVec,
    borrow_timeouts: IntCounterVec,
    waiters: IntGaugeVec,
    retired: IntCounterVec,
}

impl PoolFamilies {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            connections: maker.gauge_family((
                "sidepool_pool_connections",
                "Backend connections now, by backend and by what they are doing.",
            ), &["backend", "state"]),
            max: maker.gauge_family((
                "sidepool_pool_connections_max",
                "Backend connections that Sidepool may have open at once at this backend.",
            ), &["backend"]),
            tls: maker.gauge_family((
                "sidepool_pool_connections_tls",
                "Backend connections now that are encrypted.",
            ), &["backend"]),
            dials: maker.counter_family((
                "sidepool_pool_dials_total",
                "Attempts to connect to a backend and log in, by how they ended and whether they were encrypted.",
            ), &["backend", "result", "tls"]),
            dial: maker.histogram_family((
                "sidepool_pool_dial_seconds",
                "Time to connect to a backend and log in, also when it failed.",
            ), &["backend"], LATENCY),
            borrows: maker.counter_family((
                "sidepool_pool_borrows_total",
                "Backend connections borrowed by sessions, by how well the connection fitted the session's state.",
            ), &["backend", "fit"]),
            borrow_wait: maker.histogram_family((
                "sidepool_pool_borrow_wait_seconds",
                "Time from asking for a backend connection to having it, for borrows that succeeded.",
            ), &["backend"], WAIT),
            borrow_timeouts: maker.counter_family((
                "sidepool_pool_borrow_timeouts_total",
                "Borrows that got no backend connection within pool.borrow_timeout; the client received error 9501.",
            ), &["backend"]),
            waiters: maker.gauge_family((
                "sidepool_pool_waiters",
                "Sessions that wait for a backend connection now.",
            ), &["backend"]),
            retired: maker.counter_family((
                "sidepool_pool_retired_total",
                "Backend connections that left the pool for good, by the reason for it.",
            ), &["backend", "reason"]),
        }
    }

    pub(super) fn resolve(&self, backend: &str) -> PoolMetrics {
        let of = Resolver(backend);
        PoolMetrics {
            connections: of.gauges(&self.connections),
            max: of.gauge(&self.max),
            tls: of.gauge(&self.tls),
            dials: of.counters2(&self.dials),
            dial: of.histogram(&self.dial),
            borrows: of.counters(&self.borrows),
            borrow_wait: of.histogram(&self.borrow_wait),
            borrow_timeouts: of.counter(&self.borrow_timeouts),
            waiters: of.gauge(&self.waiters),
            retired: of.counters(&self.retired),
        }
    }
}
