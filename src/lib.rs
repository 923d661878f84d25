//! Sidepool: a connection proxy for MySQL and MariaDB.
//!
//! Data flows one way: client → session → pool → backend → relay → client. The modules below stand
//! in that order; `protocol` is what they all speak, `reason` and `transport` what they all name.

pub mod reason;
