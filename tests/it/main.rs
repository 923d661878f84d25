//! Integration tests against real servers. One binary, so that one MariaDB and one MySQL serve all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "tests"
)]

mod backends;
mod bad_input;
mod equivalence;
mod faults;
mod harness;
mod hazards;
mod lifecycle;
mod limits;
mod login;
mod looking_back;
mod own_suite;
mod pooling;
mod regressions;
mod relaying;
mod scripted;
mod state_faults;
mod support;
mod text_statements;
mod timeouts;
mod transactions;
mod unpins;
mod variables;
