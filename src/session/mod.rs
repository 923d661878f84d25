//! One logical connection of a client.

pub mod context;
pub mod directory;
pub mod pins;
pub mod plan;
pub mod scan;
pub mod timers;
