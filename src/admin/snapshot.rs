//! What the JSON API shows: plain values copied out of clients, pools and backends.
//!
//! The field names are the API's. Times are seconds, and ages rather than moments, so that no clocks
//! need to agree.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::metrics::{BackendRole, MetricLabel};
use crate::reason::PinReason;

/// Where snapshots come from.
///
/// Called on a blocking thread, several calls at once. An implementation copies what it finds and must not
/// make sessions wait: it reads what each session publishes of itself (atomics, a short lock of its own)
/// instead of asking sessions, and holds no lock on the registry while it walks many of them.
/// A snapshot is therefore not one instant: two clients in it may be some microseconds apart.
pub trait Sources: Send + Sync {
    /// Every logged-in client, in the order of their ids.
    fn clients(&self) -> Vec<ClientSnapshot>;

    /// One row per backend and account, summed over the capabilities that also separate pools.
    fn pools(&self) -> Vec<PoolSnapshot>;

    /// Every configured backend server.
    fn backends(&self) -> Vec<BackendSnapshot>;

    /// The effective settings as `sidepool check` prints them, with secrets masked.
    fn settings(&self) -> serde_json::Value;
}

/// Text that a client or server chose: at most [`Text::LIMIT`] characters, what is not UTF-8 replaced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// Characters kept; a longer text ends in `…` within this limit.
    pub const LIMIT: usize = 256;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        match text.char_indices().nth(Self::LIMIT) {
            None => Self(text.to_owned()),
            Some(_) => {
                let mut kept: String = text.chars().take(Self::LIMIT - 1).collect();
                kept.push('…');
                Self(kept)
            }
        }
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        // A character is at most four bytes, so that what follows cannot be among those kept.
        let head = &bytes[..bytes.len().min(4 * (Self::LIMIT + 1))];
        Self::from(String::from_utf8_lossy(head).as_ref())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One logged-in client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClientSnapshot {
    /// Sidepool's connection id, as the client was greeted with it and as its `KILL` takes it.
    /// `CONNECTION_ID()` shows the server's, below.
    pub id: u32,
    /// The account's name.
    pub user: Text,
    /// The current database, if one is selected.
    pub database: Option<Text>,
    /// The connection attribute `program_name`.
    pub program_name: Option<Text>,
    /// The client's address, by the PROXY header where one is believed; `unix` for a local socket.
    pub source: Text,
    /// Whether the client's connection is encrypted.
    pub tls: bool,
    /// What the session is doing.
    pub state: ClientState,
    /// Why the session is pinned, shown with what to do about it; the first cause if there are several.
    #[serde(flatten, serialize_with = "pin")]
    pub pin_reason: Option<PinReason>,
    /// Seconds since the client was accepted.
    pub connected_seconds: f64,
    /// Seconds since the last command's answer ended; 0 while one is in flight.
    pub idle_seconds: f64,
    /// Commands received.
    pub commands: u64,
    /// The server's id of the backend connection that the session holds now.
    pub backend_connection_id: Option<u64>,
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientState {
    /// Between commands, holding no backend connection.
    Idle,
    /// A command is in flight.
    Active,
    /// Between commands of a transaction.
    InTransaction,
    /// Between commands, pinned.
    Pinned,
    /// In the queue for a backend connection.
    Waiting,
}

/// The pools of one account at one backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolSnapshot {
    /// The backend's configured address.
    pub backend: String,
    /// The account's name.
    pub user: Text,
    /// Backend connections ready to be borrowed.
    pub idle: usize,
    /// Backend connections leased to sessions.
    pub borrowed: usize,
    /// Backend connections connecting and logging in.
    pub dialing: usize,
    /// Sessions in the queue.
    pub waiters: usize,
    /// How long the first of them has waited.
    pub oldest_waiter_seconds: Option<f64>,
    /// Backend connections that may exist at once at this backend, all accounts together.
    pub max_connections: usize,
}

/// One backend server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackendSnapshot {
    /// The configured address.
    pub address: String,
    /// What it is used for.
    #[serde(serialize_with = "label")]
    pub role: BackendRole,
    /// Whether it can be used.
    pub up: bool,
    /// What probes say it is: `writer`, `replica`, `down`, `unknown`; without probes nothing.
    pub state: Option<&'static str>,
    /// Seconds since it became that.
    pub state_seconds: Option<f64>,
    /// Whether it follows another server: `none`, `running`, `stopped`, or `hidden` from the monitor.
    pub replication: Option<&'static str>,
    /// Seconds that it is behind, as it says itself.
    pub replication_lag_seconds: Option<f64>,
    /// `@@version`, once known.
    pub server_version: Option<Text>,
    /// `@@max_connections`, once known.
    pub max_connections: Option<u64>,
    /// `@@wait_timeout`, once known.
    pub wait_timeout_seconds: Option<u64>,
    /// The last probe's or dial's error, kept after the backend has come back.
    pub last_error: Option<Text>,
    /// Seconds since then.
    pub last_error_seconds: Option<f64>,
}

fn pin<S: Serializer>(reason: &Option<PinReason>, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Pin {
        pin_reason: Option<&'static str>,
        pin_advice: Option<&'static str>,
    }
    let pin = Pin {
        pin_reason: reason.map(PinReason::as_str),
        pin_advice: reason.map(PinReason::advice),
    };
    pin.serialize(to)
}

fn label<L: MetricLabel, S: Serializer>(label: &L, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(label.word())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_in_characters_and_made_utf8() {
        assert_eq!(Text::from("app").as_str(), "app");
        assert_eq!(Text::from(&b"a\xffb"[..]).as_str(), "a\u{fffd}b");
        let fits = "ß".repeat(Text::LIMIT);
        assert_eq!(Text::from(fits.as_str()).as_str(), fits);
        for long in ["x".repeat(257), "😀".repeat(100_000)] {
            let text = Text::from(long.as_bytes());
            assert_eq!(text, Text::from(long.as_str()));
            assert_eq!(text.as_str().chars().count(), Text::LIMIT);
            assert!(text.as_str().ends_with('…'));
        }
        // Every broken byte becomes a character of its own.
        let broken = Text::from(&[0xff; 4000][..]);
        assert_eq!(broken.as_str().chars().count(), Text::LIMIT);
    }
}
