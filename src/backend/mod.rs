//! MySQL's side: dialling, logging in, and the state a backend connection is in.

pub mod connection;
pub mod dial;
pub mod dialer;
pub mod election;
pub mod facts;
pub mod key;
pub mod login;
pub mod named;
pub mod probe;
pub mod route;
pub mod setup;
pub mod state;
pub mod statements;
pub mod target;
pub mod tls;
