//! Bringing a backend connection just borrowed into the session's state.

use tracing::debug;

use super::Session;
use super::exchange::{Replaying, Trouble};
use crate::backend::connection::StatementError;
use crate::backend::state::{DatabaseChange, Replay, replay};
use crate::metrics::Outcome;
use crate::protocol::command::Command;
use crate::reason::RetireReason;
use crate::relay::ErrorInfo;
use crate::relay::own::OwnError;

/// New connections that one command may find to be out of its session's reach.
const MISFITS: usize = 3;

/// What became of a connection just borrowed.
pub(super) enum Replayed {
    /// It is in the session's state, or will be when its output is sent.
    Ready,
    /// Another one is needed.
    Again,
    /// No replay brings it there.
    Unreachable,
}

impl Session {
    /// Brings the connection just borrowed into the session's state. What cannot fail is only
    /// appended to its output.
    pub(super) async fn replay(&mut self) -> Result<Replayed, Trouble> {
        if self.has_untried_values() && !Box::pin(self.try_values()).await? {
            return Ok(Replayed::Again);
        }
        let Some(hold) = &mut self.hold else {
            return Ok(Replayed::Again);
        };
        if hold.lease.state == self.carried.state {
            return Ok(Replayed::Ready);
        }
        let Ok(replay) = replay(&hold.lease.state, &self.carried.state) else {
            // A new connection: those the pool has were asked whether they fit. It is another
            // session's.
            self.give_back();
            self.ticket = None;
            return Ok(Replayed::Unreachable);
        };
        hold.replay = Replaying::Unanswered;
        if let Some(sql) = &replay.set_sql {
            hold.lease.put_query(sql);
            self.own += 1;
        }
        match &replay.database {
            DatabaseChange::None => {}
            DatabaseChange::Pipelined(name) => {
                hold.lease.put_command(Command::InitDb, name);
                self.own += 1;
            }
            DatabaseChange::Awaited(name) => {
                hold.lease.put_command(Command::InitDb, name);
                return Box::pin(self.await_database(&replay)).await;
            }
        }
        hold.lease.state = self.carried.state.clone();
        Ok(Replayed::Ready)
    }

    /// A connection just opened cannot be brought into the session's state: since the session began,
    /// variables of the server have changed that it may not set, or it is another server. What the
    /// session has set itself is put on top of what a login shows now.
    pub(super) async fn begin_anew(&mut self, misfits: usize) -> Result<(), Trouble> {
        let unreachable = || Trouble::ReplayFailed(unreachable_state());
        if misfits > MISFITS {
            return Err(unreachable());
        }
        let key = &self.login.key;
        // As at the session's login.
        let collation = u8::try_from(self.login.client.collation).unwrap_or_default();
        let target = self.target();
        target.dialer().forget_globals();
        let Ok(first) = target.first_state(key, collation).await else {
            return Err(Trouble::BorrowTimeout);
        };
        let state = self.carried.state.rebase(&self.login.first, &first);
        let state = state.ok_or_else(unreachable)?;
        if !first.same_store(&self.login.first) {
            self.move_statements(&first).ok_or_else(unreachable)?;
        }
        debug!(
            client = self.me.id(),
            "session begun anew on top of the server's changed variables"
        );
        self.login.first = first;
        self.untry_values();
        self.set_state(state);
        Ok(())
    }

    /// Sends a replay that may fail, because the database may be gone, and waits for its answers.
    async fn await_database(&mut self, replay: &Replay) -> Result<Replayed, Trouble> {
        self.own = 0;
        let Some(hold) = &mut self.hold else {
            return Ok(Replayed::Again);
        };
        let lease = &mut hold.lease;
        let wanted = self.carried.state.clone();
        let answered = async {
            lease.send().await?;
            if replay.set_sql.is_some() {
                lease.read_ok().await?;
                lease.state = wanted.with_schema(lease.state.schema().map(|name| &name[..]));
            }
            lease.read_ok().await?;
            lease.state = wanted.clone();
            Ok::<(), StatementError>(())
        };
        match answered.await {
            Ok(()) => {
                hold.replay = Replaying::Over;
                self.context.metrics.sessions.replays.inc(Outcome::Ok);
                Ok(Replayed::Ready)
            }
            Err(StatementError::Own(OwnError::Server(error))) if lease.state != wanted => {
                debug!(%error, "the session's database cannot be selected any more");
                self.give_back();
                self.set_state(wanted.with_schema(None));
                Ok(Replayed::Again)
            }
            Err(error) => {
                // Nothing of the client's was sent, so the next connection may try.
                debug!(%error, "backend connection failed in a replay");
                self.let_go(RetireReason::Broken);
                Ok(Replayed::Again)
            }
        }
    }
}

fn unreachable_state() -> ErrorInfo {
    ErrorInfo {
        code: 1235,
        sqlstate: *b"42000",
        message: b"Sidepool cannot set this session's variables on the database server any more"
            .to_vec()
            .into_boxed_slice(),
    }
}
