//! Integration tests against real servers. One binary, so that one MariaDB and one MySQL serve all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    dead_code,
    reason = "tests"
)]

mod backends;
mod harness;
mod hazards;
mod lifecycle;
mod pooling;
mod support;
mod timeouts;
