//! Before a command is sent: the backend connection's named statements are made the session's.

use std::sync::Arc;

use tracing::debug;

use super::{Deed, Entry, UNKNOWN_STATEMENT};
use crate::backend::connection::StatementError;
use crate::backend::named::{Bound, NamedStatement, deallocate_sql, placeholder_sql};
use crate::backend::state::{DatabaseChange, State, replay};
use crate::metrics::Outcome;
use crate::protocol::command::Command;
use crate::reason::PinReason;
use crate::reason::RetireReason;
use crate::relay::ErrorInfo;
use crate::relay::own::OwnError;
use crate::session::exchange::{Hold, Replaying, Trouble};
use crate::session::statements::here::TOO_MANY;
use crate::session::work::Work;
use crate::session::{Flow, Session};

/// What became of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Readied {
    /// It has what the command needs.
    Ready,
    /// It failed, and nothing of the client's was sent: another one may do.
    Again,
}

/// Why a statement was not prepared.
enum Failed {
    /// The server refused.
    Refused(ErrorInfo),
    /// What must be set cannot be set here.
    Unreachable,
    /// The connection is of no more use.
    Broken(StatementError),
}

impl From<StatementError> for Failed {
    fn from(error: StatementError) -> Self {
        match error {
            StatementError::Own(OwnError::Server(error)) => Self::Refused(error),
            error => Self::Broken(error),
        }
    }
}

impl Session {
    /// Prepares what the command needs on the held connection and takes away what is another session's.
    pub(in crate::session) async fn ready_names(
        &mut self,
        work: &Work,
    ) -> Result<Readied, Trouble> {
        if self.carried.names.unknown {
            return Ok(Readied::Ready);
        }
        match work.names.as_ref().map(|names| &names.0) {
            Some(Deed::Nothing) => Ok(Readied::Ready),
            Some(Deed::Prepare { name, .. }) => {
                self.make_room_for(name.as_bytes());
                Ok(Readied::Ready)
            }
            Some(Deed::Execute { name, .. }) => self.ready_name(name.as_bytes()).await,
            Some(Deed::Deallocate(name)) => self.ready_to_deallocate(name.as_bytes()).await,
            Some(Deed::Anything { .. }) | None => self.ready_all().await,
        }
    }

    /// What the session has under that name; `None`: nothing.
    fn wanted(&mut self, name: &[u8]) -> Option<&mut Entry> {
        let entries = &mut self.carried.names.entries;
        let found = entries
            .iter_mut()
            .find(|(known, _)| known.as_bytes() == name);
        found.map(|(_, entry)| entry)
    }

    async fn ready_name(&mut self, name: &[u8]) -> Result<Readied, Trouble> {
        let client = self.me.id();
        let Some(entry) = self.wanted(name) else {
            return self.take_away(name).await;
        };
        let executions = entry.executions;
        // `None`: it is here, or the session would not be.
        let Some(statement) = entry.carried.clone() else {
            return Ok(Readied::Ready);
        };
        let Some(hold) = &mut self.hold else {
            return Ok(Readied::Again);
        };
        let history = Bound { client, executions };
        if hold.lease.named.holds(name, &statement, history) {
            return Ok(Readied::Ready);
        }
        let readied = self.prepare_again(name, statement).await;
        if let Some(entry) = self.wanted(name) {
            entry.executions = 0;
        }
        readied
    }

    /// The client gets the server's own answer.
    async fn ready_to_deallocate(&mut self, name: &[u8]) -> Result<Readied, Trouble> {
        if self.wanted(name).is_none() {
            return self.take_away(name).await;
        }
        let here = |hold: &Hold| hold.lease.named.has(name) && !hold.lease.named.is_uncertain(name);
        if self.hold.as_ref().is_some_and(here) {
            return Ok(Readied::Ready);
        }
        self.make_room_for(name);
        let done = self.prepare_as(name, &placeholder_sql(name)).await;
        self.readied(done)
    }

    /// Code that is run may use any name.
    async fn ready_all(&mut self) -> Result<Readied, Trouble> {
        let Some(hold) = &self.hold else {
            return Ok(Readied::Again);
        };
        let mut names: Vec<Box<[u8]>> = hold.lease.named.names().map(Into::into).collect();
        let own = self.carried.names.entries.keys();
        names.extend(own.map(|name| Box::from(name.as_bytes())));
        for name in names {
            if self.ready_name(&name).await? == Readied::Again {
                return Ok(Readied::Again);
            }
        }
        Ok(Readied::Ready)
    }

    /// In front of the client's command, another session's statement of that name is deallocated.
    async fn take_away(&mut self, name: &[u8]) -> Result<Readied, Trouble> {
        let Some(hold) = &mut self.hold else {
            return Ok(Readied::Again);
        };
        let (here, uncertain) = (
            hold.lease.named.has(name),
            hold.lease.named.is_uncertain(name),
        );
        if !here {
            return Ok(Readied::Ready);
        }
        hold.lease.named.remove(name);
        self.put_own(&deallocate_sql(name));
        if !uncertain {
            return Ok(Readied::Ready);
        }
        match self.hear_own().await {
            Err(Failed::Refused(error)) if error.code == UNKNOWN_STATEMENT => Ok(Readied::Ready),
            done => self.readied(done),
        }
    }

    /// Keeps the connection's names few.
    fn make_room_for(&mut self, name: &[u8]) {
        if let Some(hold) = &mut self.hold
            && !hold.lease.named.has(name)
            && let Some(surplus) = hold.lease.named.take_surplus()
        {
            self.put_own(&deallocate_sql(&surplus));
        }
    }

    async fn prepare_again(
        &mut self,
        name: &[u8],
        statement: Arc<NamedStatement>,
    ) -> Result<Readied, Trouble> {
        let known = |hold: &Hold| hold.pending.knows_state();
        if !self.hold.as_ref().is_some_and(known)
            && !self.pinned.pins.has(PinReason::SessionTrack)
            && let Flow::Close(_) = self.settle_or_close().await
        {
            return Err(Trouble::BackendLost { forwarded: true });
        }
        self.make_room_for(name);
        let done = match self.prepare_in_context(name, &statement).await {
            Err(Failed::Refused(error)) if error.code == TOO_MANY && self.make_room() => {
                if let Some(hold) = &mut self.hold {
                    hold.lease.put_closes();
                }
                self.prepare_in_context(name, &statement).await
            }
            done => done,
        };
        if done.is_ok()
            && let Some(hold) = &mut self.hold
        {
            hold.lease.named.put(name, Some(statement));
            self.context.metrics.sessions.reprepares.inc();
        }
        self.readied(done)
    }

    fn readied(&mut self, done: Result<(), Failed>) -> Result<Readied, Trouble> {
        let error = match done {
            Ok(()) => return Ok(Readied::Ready),
            Err(Failed::Refused(error)) => return Err(Trouble::Unprepared(error)),
            Err(Failed::Unreachable) => return Err(Trouble::Unprepared(unreachable_context())),
            Err(Failed::Broken(error)) => error,
        };
        debug!(%error, "backend connection failed as a statement was prepared again");
        let fresh = self.hold.as_ref().is_some_and(|hold| hold.fresh);
        match fresh {
            true => {
                self.let_go(RetireReason::Broken);
                Ok(Readied::Again)
            }
            false => Err(self.lost(RetireReason::Broken, false)),
        }
    }

    /// Prepares it under the state in which the client did, and returns to the session's.
    async fn prepare_in_context(
        &mut self,
        name: &[u8],
        statement: &NamedStatement,
    ) -> Result<(), Failed> {
        let Some(hold) = &self.hold else {
            return Err(Failed::Unreachable);
        };
        let here = hold.lease.state.clone();
        let mut there = here.in_parse_context_of(&statement.state);
        if statement.reads_user {
            there = there.with_user(statement.state.user().clone());
        }
        if there == here {
            return self.prepare_as(name, &statement.sql).await;
        }
        if replay(&there, &here).is_err() {
            return Err(Failed::Unreachable);
        }
        let done = match self.go_to(&there).await {
            Ok(()) => self.prepare_as(name, &statement.sql).await,
            Err(Failed::Broken(error)) => return Err(Failed::Broken(error)),
            refused => refused,
        };
        match (self.go_to(&here).await, done) {
            (Ok(()), done) => done,
            (Err(Failed::Broken(error)), _) => Err(Failed::Broken(error)),
            // It could be set a moment ago: the state is not known any more.
            (Err(_), _) => Err(Failed::Broken(StatementError::NoRow)),
        }
    }

    /// Prepares something under that name, whatever it was, and waits for the answer.
    async fn prepare_as(&mut self, name: &[u8], sql: &[u8]) -> Result<(), Failed> {
        self.put_own(sql);
        // A failure deallocates what had the name.
        if let Some(hold) = &mut self.hold {
            hold.lease.named.remove(name);
            hold.lease.count_prepared();
        }
        self.hear_own().await?;
        if let Some(hold) = &mut self.hold {
            hold.lease.named.put(name, None);
        }
        Ok(())
    }

    /// Brings the held connection into that state, and waits for the answers.
    async fn go_to(&mut self, state: &State) -> Result<(), Failed> {
        let Some(hold) = &self.hold else {
            return Err(Failed::Unreachable);
        };
        let replay = replay(&hold.lease.state, state).map_err(|_| Failed::Unreachable)?;
        if let Some(sql) = &replay.set_sql {
            self.put_own(sql);
        }
        self.hear_own().await?;
        let Some(hold) = &mut self.hold else {
            return Err(Failed::Unreachable);
        };
        let schema = hold.lease.state.schema().cloned();
        hold.lease.state = state.with_schema(schema.as_deref());
        match &replay.database {
            DatabaseChange::None => {}
            DatabaseChange::Pipelined(name) | DatabaseChange::Awaited(name) => {
                hold.lease.put_command(Command::InitDb, name);
                hold.lease.send().await?;
                hold.lease.read_ok().await?;
                hold.lease.state = state.clone();
            }
        }
        Ok(())
    }

    fn put_own(&mut self, sql: &[u8]) {
        if let Some(hold) = &mut self.hold {
            hold.lease.put_query(sql);
            self.own += 1;
        }
    }

    /// Sends what is in the output, all of it Sidepool's own, and hears all answers. The last may be a
    /// refusal.
    async fn hear_own(&mut self) -> Result<(), Failed> {
        let own = std::mem::take(&mut self.own);
        let Some(hold) = &mut self.hold else {
            return Err(Failed::Unreachable);
        };
        hold.lease.send().await?;
        for left in (0..own).rev() {
            match hold.lease.read_ok().await {
                Ok(_) => {}
                Err(error) if left == 0 => return Err(error.into()),
                // A replay, which cannot fail: the connection is not what it was taken for.
                Err(error) => return Err(Failed::Broken(error)),
            }
        }
        if std::mem::replace(&mut hold.replay, Replaying::Over) == Replaying::Unanswered {
            self.context.metrics.sessions.replays.inc(Outcome::Ok);
        }
        Ok(())
    }
}

fn unreachable_context() -> ErrorInfo {
    ErrorInfo {
        code: 1235,
        sqlstate: *b"42000",
        message:
            b"Sidepool cannot prepare this statement again in the state in which it was prepared"
                .to_vec()
                .into_boxed_slice(),
    }
}
