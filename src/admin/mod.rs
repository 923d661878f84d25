//! The HTTP side: metrics, health, and JSON for people and scripts.
//!
//! Owns the routes, who may call them, and the readiness latches. What it shows of clients, pools and
//! backends comes as plain [snapshots](snapshot) through [`Sources`], so that it knows none of their
//! internals; the server's wiring implements that trait.

mod guard;
mod readiness;
mod route;
mod serve;
pub mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use guard::{EmptyToken, Token};
pub use readiness::{Latch, NotReady, Readiness};
pub use serve::serve;
pub use snapshot::Sources;

use crate::metrics::Metrics;

/// What the routes read.
pub struct AdminContext {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/ready`.
    pub readiness: Readiness,
    /// For `/api/v1/…`.
    pub sources: Arc<dyn Sources>,
    /// `admin.token_file`; `None`: guarded routes are served on loopback addresses only.
    pub token: Option<Token>,
}

/// Which routes a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `admin.address`: everything.
    Full,
    /// `admin.metrics_address`: `/metrics`, `/live` and `/ready`, for scrapers and kubelets.
    MetricsOnly,
}
