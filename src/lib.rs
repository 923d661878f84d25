//! Sidepool: a connection proxy for MySQL and MariaDB.
//!
//! Data flows one way: client → session → pool → backend → relay → client. The modules below stand
//! in that order; `protocol` is what they all speak, `reason` and `transport` what they all name.

pub mod client;
pub mod session;

pub mod pool;

pub mod backend;

pub mod relay;

pub mod protocol;
pub mod reason;
pub mod transport;

pub mod admin;
pub mod cli;
pub mod config;
pub mod drain;
pub mod logging;
pub mod metrics;
pub mod server;
