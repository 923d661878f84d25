//! Prometheus metrics: one registry, typed handles in groups, and the text that a scraper reads.
//!
//! Owns every metric name, label and HELP text (`docs/METRICS.md` lists them; a test compares the two).
//! The only user of the crate `prometheus`. Handles are resolved once, when [`Metrics`] or a backend's
//! group is made; the data path updates them without looking up a label. There is no global registry:
//! whoever counts is given the group it needs.

mod backend;
mod client;
mod handle;
mod label;
mod pool;
mod process;
mod query;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use prometheus::{Encoder, Registry, TextEncoder};

pub use backend::BackendMetrics;
pub use client::{ClientMetrics, IdleMetrics};
pub use handle::{ByLabel, Counter, Counters, Gauge, GaugeGuard, Gauges, Histogram, MetricLabel};
pub use label::{
    BackendRole, CommandName, ConnectionState, Direction, ErrorSource, IdleFit, IdleRule,
    LocalAnswer, LoginPath, Outcome, Tls, WatchEnding,
};
pub use pool::PoolMetrics;
pub use process::ProcessMetrics;
pub use query::QueryMetrics;
pub use session::SessionMetrics;

use self::backend::BackendFamilies;
use self::handle::Maker;
use self::pool::PoolFamilies;

/// `Content-Type` of what [`Metrics::encode`] returns.
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// The metrics could not be written as text.
#[derive(Debug, thiserror::Error)]
#[error("metrics could not be encoded: {0}")]
pub struct EncodeError(#[from] prometheus::Error);

/// The registry and every group of handles. Cheap to share in an `Arc`; groups are `Arc`s themselves,
/// so that a layer can keep the one it needs without seeing the others.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Clients' connections and logins.
    pub clients: Arc<ClientMetrics>,
    /// The study of idleness: gaps, stale uses, what observe mode would have done.
    pub idle: Arc<IdleMetrics>,
    /// Pins, replays and what else keeps session state exact.
    pub sessions: Arc<SessionMetrics>,
    /// Commands, latencies, bytes, errors.
    pub queries: Arc<QueryMetrics>,
    /// The process, its build and its settings.
    pub process: Arc<ProcessMetrics>,
    pools: PoolFamilies,
    backends: BackendFamilies,
}

impl Metrics {
    /// Makes a registry of its own with every metric in it, all at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let maker = Maker::new(&registry);
        Self {
            clients: Arc::new(ClientMetrics::new(&maker)),
            idle: Arc::new(IdleMetrics::new(&maker)),
            sessions: Arc::new(SessionMetrics::new(&maker)),
            queries: Arc::new(QueryMetrics::new(&maker)),
            process: Arc::new(ProcessMetrics::new(&maker)),
            pools: PoolFamilies::new(&maker),
            backends: BackendFamilies::new(&maker),
            registry,
        }
    }

    /// The handles of the pools at one backend; `backend` is its configured address and becomes a label
    /// value, so it must never come from a client. Resolve once and keep: every call with the same
    /// address gives handles on the same numbers.
    pub fn pool(&self, backend: &str) -> PoolMetrics {
        self.pools.resolve(backend)
    }

    /// The handles of one backend server; the same rules as [`pool`](Self::pool).
    pub fn backend(&self, backend: &str) -> BackendMetrics {
        self.backends.resolve(backend)
    }

    /// Everything in Prometheus's text format ([`TEXT_FORMAT`]), with process figures read now from `/proc`.
    /// Blocks for microseconds on `/proc`, never on the data path.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        self.process.refresh();
        let mut text = Vec::with_capacity(32 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
