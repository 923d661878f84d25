//! The last words to a client, so that its driver can say why the connection ended.
//!
//! A notice is an ERR with sequence id 0, as MySQL sends it to an idle client, followed by a
//! half-close; the client's own end is awaited, because closing a socket with unread input makes the
//! kernel send a reset that can overtake the notice.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tracing::info;

use super::{Flow, Session};
use crate::backend::state::Family;
use crate::config::CloseNotice;
use crate::metrics::{ErrorSource, Metrics, WatchEnding};
use crate::protocol::command::Command;
use crate::protocol::packet::HEADER_LEN;
use crate::protocol::reply::put_err;
use crate::reason::CloseReason;
use crate::relay::Conn;

/// How long a closed client's socket is listened to for its end.
const LINGER: Duration = Duration::from_secs(30);

/// MySQL's words for a client that was idle for too long (8.0.24 and later).
const IDLE: (u16, [u8; 5], &str) = (
    4031,
    *b"HY000",
    "The client was disconnected by the server because of inactivity. See wait_timeout and \
     interactive_timeout for configuring this behavior.",
);
/// MariaDB's words for a connection that was ended by somebody else.
const KILLED: (u16, [u8; 5], &str) = (1927, *b"70100", "Connection was killed");
const SHUTDOWN: (u16, [u8; 5], &str) = (1053, *b"08S01", "Server shutdown in progress");

impl Session {
    /// Tells a client that is between two commands why its connection ends. Whether its socket is
    /// worth listening to afterwards.
    pub(super) async fn say_farewell(&mut self, reason: CloseReason) -> bool {
        if let Some((code, sqlstate, message)) = self.notice(reason) {
            put_err(&mut self.client.output, 0, code, sqlstate, message);
            if self.client.send().await.is_err() {
                return false;
            }
        }
        let idle = self.clock.idle_since.elapsed();
        if is_idleness(reason) {
            info!(client = self.me.id(), %reason, idle_seconds = idle.as_secs(), "client closed");
        }
        self.client.stream.shutdown().await.is_ok() && is_idleness(reason)
    }

    fn notice(&self, reason: CloseReason) -> Option<(u16, [u8; 5], &'static str)> {
        let idle = match self.effective().close_notice {
            CloseNotice::Auto if self.family_is_mariadb() => Some(KILLED),
            CloseNotice::Auto | CloseNotice::Err4031 => Some(IDLE),
            CloseNotice::Err1927 => Some(KILLED),
            CloseNotice::None => None,
        };
        match reason {
            _ if is_idleness(reason) || reason == CloseReason::MaxLifetime => idle,
            CloseReason::Drain => idle.map(|_| SHUTDOWN),
            CloseReason::Killed | CloseReason::AuthRevoked => idle.map(|_| KILLED),
            _ => None,
        }
    }

    fn family_is_mariadb(&self) -> bool {
        let greeted = self.context.target.dialer().greeted();
        greeted.is_some_and(|greeted| greeted.family() == Family::MariaDb)
    }

    /// The backend connection is lost and the client has got nothing of the answer: what its own
    /// driver would have said, so that it is treated as the disconnection it is.
    pub(super) async fn farewell_lost(&mut self) -> Flow {
        self.context
            .metrics
            .queries
            .errors
            .inc(ErrorSource::Sidepool);
        let message = "Lost connection to MySQL server during query";
        put_err(
            &mut self.client.output,
            self.first_seq,
            2013,
            *b"HY000",
            message,
        );
        // The client's own end of the connection decides how it ends.
        let _ = self.client.send().await;
        let _ = self.client.stream.shutdown().await;
        Flow::Close(CloseReason::BackendLost)
    }
}

/// Listens to a closed client in the background: what it still sends is a stale use.
pub(super) fn linger(client: Conn, metrics: &Metrics, id: u32) {
    let idle = metrics.idle.clone();
    tokio::spawn(async move {
        let watched = idle.watched.guard();
        let ending = tokio::time::timeout(LINGER, watch(client)).await;
        let ending = ending.unwrap_or(WatchEnding::Unknown);
        idle.watch_ended(ending);
        if ending == WatchEnding::StaleUse {
            info!(
                client = id,
                "stale use: a command came after the connection was closed"
            );
        }
        drop(watched);
    });
}

const fn is_idleness(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::IdleTimeout
            | CloseReason::IdleTransactionTimeout
            | CloseReason::PinnedIdleTimeout
    )
}

/// Waits for the client's end, or for a command that comes too late.
async fn watch(mut client: Conn) -> WatchEnding {
    loop {
        match client.read_more().await {
            Ok(0) => return WatchEnding::Clean,
            Err(_) => return WatchEnding::Unknown,
            Ok(_) => {}
        }
        match client.input.get(HEADER_LEN) {
            // A driver that closes its side says so first.
            Some(&command) if command == Command::Quit as u8 => client.input.clear(),
            Some(_) => return WatchEnding::StaleUse,
            None => {}
        }
    }
}
