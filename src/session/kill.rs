//! Ending somebody's statement or connection: `KILL` by Sidepool's own ids, and clients that vanish.

use bytes::{Buf, BytesMut};
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::directory::FIRST_ID;
use super::exchange::Hold;
use super::work::Work;
use super::{Flow, Session};
use crate::backend::connection::StatementError;
use crate::backend::target::{Kill, KillError};
use crate::metrics::LocalAnswer;
use crate::protocol::command::Command;
use crate::protocol::packet::HEADER_LEN;
use crate::reason::{CloseReason, RetireReason};
use crate::relay::own::OwnError;

/// How long an abandoned statement's killer waits for a place at the server.
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// `ER_NO_SUCH_THREAD`.
const NO_SUCH_THREAD: u16 = 1094;

impl Session {
    /// `KILL` of one of Sidepool's ids; `None`: the id is a server's, and the server's affair.
    pub(super) async fn kill(&mut self, id: u64, query: bool, _began: Instant) -> Option<Flow> {
        if id < u64::from(FIRST_ID) {
            return None;
        }
        let id = u32::try_from(id).ok();
        let entry = id.and_then(|id| self.context.directory.get(id));
        let Some(entry) = entry else {
            let message = format!("Unknown thread id: {}", id.unwrap_or(u32::MAX));
            return Some(
                self.answer_sidepool(NO_SUCH_THREAD, *b"HY000", &message)
                    .await,
            );
        };
        if entry.identity().account_id() != self.login.identity.account_id() {
            let message = format!("You are not owner of thread {}", entry.id());
            return Some(self.answer_sidepool(1095, *b"HY000", &message).await);
        }
        self.context
            .metrics
            .sessions
            .local_answers
            .inc(LocalAnswer::Kill);
        if !query {
            entry.end(CloseReason::Killed);
        }
        let Some(kill) = entry.begin_kill() else {
            return Some(self.answer_ok().await);
        };
        // Its server may be another than ours, with another thread of that number.
        let target = kill.target().unwrap_or_else(|| self.target().clone());
        let key = self.login.key.clone();
        // In a task of its own: begun, it is finished, even if this client leaves.
        let what = match query {
            true => Kill::Query,
            false => Kill::Connection,
        };
        let killed =
            tokio::spawn(async move { target.kill(&key, what, kill.thread(), KILL_WITHIN).await });
        match killed.await {
            Ok(Ok(())) => Some(self.answer_ok().await),
            Ok(Err(KillError::Statement(StatementError::Own(OwnError::Server(error))))) => {
                // The server no longer knows the thread: what was to be killed is over.
                match error.code == NO_SUCH_THREAD {
                    true => Some(self.answer_ok().await),
                    false => Some(self.answer_error(&error).await),
                }
            }
            Ok(Err(error)) => {
                debug!(%error, "a statement could not be killed");
                let message = format!("Sidepool could not reach the database to kill it: {error}");
                Some(self.answer_sidepool(1105, *b"HY000", &message).await)
            }
            // A defect, logged where it happened.
            Err(_) => Some(
                self.answer_sidepool(1105, *b"HY000", "Sidepool could not kill it")
                    .await,
            ),
        }
    }

    /// `COM_PROCESS_KILL`, the same in binary.
    pub(super) async fn process_kill(&mut self, packet: BytesMut, began: Instant) -> Flow {
        let id = packet
            .get(HEADER_LEN + 1..HEADER_LEN + 5)
            .map(|mut id| id.get_u32_le());
        match id {
            Some(id) => {
                if let Some(flow) = self.kill(id.into(), false, began).await {
                    return flow;
                }
            }
            // MariaDB would take the missing bytes from what another client's command has left.
            None if self.is_mariadb() => return self.answer_malformed().await,
            None => {}
        }
        self.carry_out(Work::plain(Command::ProcessKill, packet, began))
            .await
    }

    /// The client has vanished in the middle of a statement: the statement is killed, and its
    /// connection closed, in the background.
    pub(super) fn abandon(&mut self) {
        let Some(Hold { lease, .. }) = self.hold.take() else {
            return;
        };
        self.me.set_backend_thread(0);
        let (target, key) = (self.target().clone(), self.login.key.clone());
        tokio::spawn(async move {
            let thread = lease.thread_id().into();
            if let Err(error) = target
                .kill(&key, Kill::Connection, thread, KILL_WITHIN)
                .await
            {
                debug!(%error, "an abandoned statement could not be killed");
            }
            // Not before the kill has returned: it must not hit somebody else's statement.
            lease.retire(RetireReason::Abandoned);
        });
    }
}
