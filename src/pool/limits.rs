//! How many connections there may be and how long they may live.

use std::time::Duration;

/// The limits of one pool; every one is live ([`Pool::set_limits`](super::Pool::set_limits)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the server at any time: idle, borrowed, dialing, closing and reserved slots.
    /// At least 1.
    pub max_connections: usize,
    /// Idle connections over all keys; beyond it the least recently used ones are closed, after they
    /// were not needed for a few seconds. 0: a connection is closed when it is returned.
    pub max_idle: usize,
    /// Idle connections kept warm, see [`maintain`](super::Pool::maintain).
    pub min_idle: usize,
    /// Idle longer than this is closed; zero: never.
    pub idle_timeout: Duration,
    /// Older than this is closed when idle or returned, ±10 % per connection; zero: never.
    pub max_lifetime: Duration,
    /// Logins in flight at any time. At least 1.
    pub max_dials: usize,
}

impl Default for Limits {
    /// The defaults of the settings, for a server that allows 151 connections.
    fn default() -> Self {
        Self {
            max_connections: 151,
            max_idle: 75,
            min_idle: 0,
            idle_timeout: Duration::from_secs(5 * 60),
            max_lifetime: Duration::from_secs(24 * 60 * 60),
            max_dials: 4,
        }
    }
}

impl Limits {
    /// The same with the two limits raised to 1 under which nothing could ever be lent.
    pub(super) fn usable(mut self) -> Self {
        self.max_connections = self.max_connections.max(1);
        self.max_dials = self.max_dials.max(1);
        self
    }
}

/// A pause after a failure, doubling up to a cap and forgotten by a success.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Backoff {
    until: Option<tokio::time::Instant>,
    last: Duration,
}

impl Backoff {
    /// Begins a pause at `now` and returns its end, unless one is under way: the failures of logins
    /// that began together count once.
    pub(super) fn fail(
        &mut self,
        now: tokio::time::Instant,
        first: Duration,
        cap: Duration,
    ) -> Option<tokio::time::Instant> {
        if !self.expire(now) {
            return None;
        }
        self.last = (self.last * 2).clamp(first, cap);
        let until = now + self.last;
        self.until = Some(until);
        self.until
    }

    /// A success: no pause, and the next one is short again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Ends the pause if its time has come; `true` if none is left.
    pub(super) fn expire(&mut self, now: tokio::time::Instant) -> bool {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
        self.until.is_none()
    }

    pub(super) fn is_pausing(&self) -> bool {
        self.until.is_some()
    }
}
