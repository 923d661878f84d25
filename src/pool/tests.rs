//! The pool over fake connections on paused time.

mod borrowing;
mod dialing;
mod fake;
mod limits;
mod maintenance;
mod random;
mod sharing;
mod stress;
