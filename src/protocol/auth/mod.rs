//! Proving who somebody is: the exchanges of both sides, without I/O.

pub mod server;
