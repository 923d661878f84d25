//! The last words to a client, so that its driver can say why the connection ended.
//!
//! A notice is an ERR with sequence id 0, as MySQL sends it to an idle client, followed by a
//! half-close; the client's own end is awaited, because closing a socket with unread input makes the
//! kernel send a reset that can overtake the notice.

use std::borrow::Cow;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tracing::{debug, info};

use super::context::SessionContext;
use super::directory::Identity;
use super::{Flow, Session};
use crate::config::CloseNotice;
use crate::metrics::{ErrorSource, WatchEnding};
use crate::protocol::packet::{put_packet, take_packet};
use crate::protocol::reply::{ERR, put_err};
use crate::reason::{CloseReason, RetireReason};
use crate::relay::Conn;

/// How long the socket of a client is listened to that was closed for another reason than idleness.
const DRAIN: Duration = Duration::from_secs(5);
/// Bytes of a server's goodbye.
const NOTICE_MAX: usize = 64 * 1024;

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
    /// Tells a client that is between two commands why its connection ends.
    pub(super) async fn say_farewell(&mut self, reason: CloseReason) {
        self.pass_on_notice(reason);
        if let Some((code, sqlstate, message)) = self.notice(reason) {
            put_err(&mut self.client.output, 0, code, sqlstate, message);
        }
        // Whether it still listens shows when its own end is awaited.
        let _ = self.client.send().await;
    }

    /// The one line about the end of a client's connection.
    pub(super) fn log_end(&self, reason: CloseReason) {
        use CloseReason as R;
        let (client, identity) = (self.me.id(), &self.login.identity);
        let (user, program) = shown(identity);
        let source = &identity.source;
        match reason {
            R::Quit | R::ClientGone | R::Drain => {
                debug!(client, %reason, user = &*user, program = &*program, source, "client closed");
            }
            _ => {
                let idle_seconds = self.clock.idle_since.elapsed().as_secs();
                info!(client, %reason, user = &*user, program = &*program, source, idle_seconds, "client closed");
            }
        }
    }

    /// What the server said when it ended the connection that the session held.
    fn pass_on_notice(&mut self, reason: CloseReason) {
        if reason != CloseReason::BackendLost {
            return;
        }
        if let Some(hold) = &mut self.hold
            && let Ok(Some(packet)) = take_packet(&mut hold.lease.conn.input, NOTICE_MAX)
            && packet.first_seq == 0
            && packet.payload.first() == Some(&ERR)
        {
            put_packet(&mut self.client.output, 0, &packet.payload);
        }
        self.let_go(RetireReason::ServerClosed);
    }

    fn notice(&mut self, reason: CloseReason) -> Option<(u16, [u8; 5], &'static str)> {
        let idle = match self.effective().close_notice {
            CloseNotice::Auto if self.is_mariadb() => Some(KILLED),
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

    /// The backend connection is lost and the client has got nothing of the answer. It gets nothing but
    /// the end, as from a server: of that each driver makes its own "2013 Lost connection during query".
    /// An ERR with that code would be no help: MariaDB's client library takes no code of its own range
    /// from a server (`2027 Received malformed packet`, measured with 10.11.19), which no connection pool
    /// knows as a lost connection; and drivers that do take it keep the connection.
    pub(super) fn farewell_lost(&self) -> Ready<Flow> {
        self.context
            .metrics
            .queries
            .errors
            .inc(ErrorSource::Sidepool);
        // A kill ends the backend connection as well.
        let reason = self.me.end_reason().unwrap_or(CloseReason::BackendLost);
        ready(Flow::Close(reason))
    }
}

/// Ends the sending side and listens for the client's end in the background. What a client closed
/// for idleness still sends is a stale use.
pub(super) fn linger(
    mut client: Conn,
    reason: CloseReason,
    context: &SessionContext,
    (id, identity): (u32, Arc<Identity>),
) {
    use CloseReason as R;
    if matches!(reason, R::Quit | R::ClientGone | R::IoError | R::Keepalive) {
        return;
    }
    let watch = Arc::clone(&context.watch);
    let idle = (is_idleness(reason) && watch.is_on()).then(|| context.metrics.idle.clone());
    tokio::spawn(async move {
        if client.stream.shutdown().await.is_err() {
            return;
        }
        let Some(idle) = idle else {
            // Whatever comes is thrown away: the client has been told.
            let _ = tokio::time::timeout(DRAIN, drain(client)).await;
            return;
        };
        let watched = idle.watched.guard();
        let closed_at = Instant::now();
        let ending = watch.watch(client).await;
        idle.watch_ended(ending);
        if ending == WatchEnding::StaleUse {
            let (user, program) = shown(&identity);
            let (client, source) = (id, &identity.source);
            info!(
                client,
                user = &*user,
                program = &*program,
                source,
                seconds_late = closed_at.elapsed().as_secs(),
                "stale use: a command came after the connection was closed"
            );
        }
        drop(watched);
    });
}

/// User and program for a log line.
fn shown(identity: &Identity) -> (Cow<'_, str>, Cow<'_, str>) {
    let program = identity.program_name.as_deref().unwrap_or_default();
    (
        String::from_utf8_lossy(&identity.user),
        String::from_utf8_lossy(program),
    )
}

async fn drain(mut client: Conn) {
    while matches!(client.read_more().await, Ok(n) if n > 0) {
        client.input.clear();
    }
}

const fn is_idleness(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::IdleTimeout
            | CloseReason::IdleTransactionTimeout
            | CloseReason::PinnedIdleTimeout
    )
}
