//! One logical connection of a client.

pub mod scan;
