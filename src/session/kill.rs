//! Ending somebody's statement or connection: `KILL` by Sidepool's own ids, and clients that vanish.

use bytes::{Buf, BytesMut};
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::directory::FIRST_ID;
use super::exchange::{Hold, Work};
use super::{Flow, Session};
use crate::metrics::LocalAnswer;
use crate::protocol::command::Command;
use crate::protocol::packet::HEADER_LEN;
use crate::reason::{CloseReason, RetireReason};

/// How long an abandoned statement's killer waits for a place at the server.
const KILL_WITHIN: Duration = Duration::from_secs(5);

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
            return Some(self.answer_sidepool(1094, *b"HY000", &message).await);
        };
        if entry.identity().account_id != self.login.identity.account_id {
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
        if let Some(thread) = entry.backend_thread() {
            // Its server may be another than ours, with another thread of that number.
            let target = entry.target().unwrap_or_else(|| self.target().clone());
            let killed = target
                .kill_query(&self.login.key, thread, KILL_WITHIN)
                .await;
            if let Err(error) = killed {
                debug!(%error, "a statement could not be killed");
            }
        }
        Some(self.answer_ok().await)
    }

    /// `COM_PROCESS_KILL`, the same in binary.
    pub(super) async fn process_kill(&mut self, packet: BytesMut, began: Instant) -> Flow {
        let id = packet
            .get(HEADER_LEN + 1..HEADER_LEN + 5)
            .map(|mut id| id.get_u32_le());
        if let Some(id) = id
            && let Some(flow) = self.kill(id.into(), false, began).await
        {
            return flow;
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
            if let Err(error) = target.kill_query(&key, thread, KILL_WITHIN).await {
                debug!(%error, "an abandoned statement could not be killed");
            }
            // Not before the kill has returned: it must not hit somebody else's statement.
            lease.retire(RetireReason::Abandoned);
        });
    }
}
