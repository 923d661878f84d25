//! MySQL's side: dialling, logging in, and the state a backend connection is in.

pub mod dial;
pub mod login;
pub mod state;
pub mod tls;
