//! The MySQL client/server protocol: bytes ↔ values. No sockets, no clock, nothing of ours.

pub mod auth;
pub mod capability;
pub mod command;
pub mod handshake;
pub mod packet;
pub mod reply;
pub mod response;
