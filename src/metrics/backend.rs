//! Metrics of one backend server as probes see it.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::handle::{Counter, Gauge, Gauges, Maker, MetricLabel, Resolver};
use super::label::BackendRole;

/// One backend server.
#[derive(Debug, Clone)]
pub struct BackendMetrics {
    /// 1 while it accepts connections, else 0.
    pub up: Gauge,
    /// Probes that got no good answer.
    pub probe_failures: Counter,
    /// The server's `@@max_connections`.
    pub server_max_connections: Gauge,
    /// The server's `@@wait_timeout` in seconds.
    pub server_wait_timeout: Gauge,
    /// 1 under the present role, 0 under the others; [`set_role`](Self::set_role) changes it.
    role: Gauges<BackendRole>,
}

impl BackendMetrics {
    /// Records whether the backend can be used.
    pub fn set_up(&self, up: bool) {
        self.up.set(i64::from(up));
    }

    /// Records what the backend is used for.
    pub fn set_role(&self, role: BackendRole) {
        for candidate in BackendRole::VALUES {
            self.role.get(*candidate).set(i64::from(*candidate == role));
        }
    }
}

/// The families that [`BackendMetrics`] are resolved from.
#[derive(Debug)]
pub(super) struct BackendFamilies {
    up: IntGaugeVec,
    probe_failures: IntCounterVec,
    server_max_connections: IntGaugeVec,
    server_wait_timeout: IntGaugeVec,
    role: IntGaugeVec,
}

impl BackendFamilies {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            up: maker.gauge_family((
                "sidepool_backend_up",
                "1 while this backend answers and can be used, 0 while it cannot.",
            ), &["backend"]),
            probe_failures: maker.counter_family((
                "sidepool_backend_probe_failures_total",
                "Probes of this backend that failed.",
            ), &["backend"]),
            server_max_connections: maker.gauge_family((
                "sidepool_backend_server_max_connections",
                "The server's own @@max_connections; 0 until it is known.",
            ), &["backend"]),
            server_wait_timeout: maker.gauge_family((
                "sidepool_backend_server_wait_timeout_seconds",
                "The server's own @@wait_timeout, after which it closes idle connections; 0 until it is known.",
            ), &["backend"]),
            role: maker.gauge_family((
                "sidepool_backend_role",
                "1 under the role that this backend has now, 0 under the others.",
            ), &["backend", "role"]),
        }
    }

    pub(super) fn resolve(&self, backend: &str) -> BackendMetrics {
        let of = Resolver(backend);
        BackendMetrics {
            up: of.gauge(&self.up),
            probe_failures: of.counter(&self.probe_failures),
            server_max_connections: of.gauge(&self.server_max_connections),
            server_wait_timeout: of.gauge(&self.server_wait_timeout),
            role: of.gauges(&self.role),
        }
    }
}
