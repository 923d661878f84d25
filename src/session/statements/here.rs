//! Making sure that the held backend connection has the statement that a command is about.
//!
//! Nothing of the client's has been sent yet, so a connection that dies here may be replaced.

use std::sync::Arc;

use tracing::debug;

use super::binary::{Alone, Bound, Errand, LAST, Why};
use super::packet::{ID_AT, put_id};
use super::trip::{Failed, Made, Trip};
use crate::backend::connection::StatementError;
use crate::backend::state::{Family, SchemaColumn, State, replay};
use crate::backend::statements::{StatementKey, Use};
use crate::metrics::{ErrorSource, Outcome};
use crate::protocol::reply::put_err;
use crate::reason::{PinReason, RetireReason};
use crate::relay::{Answer, End, ErrorInfo};
use crate::session::Session;
use crate::session::diagnostics::not_kept;
use crate::session::exchange::{Replaying, Trouble};
use crate::session::plan::Place;
use crate::session::scan::{Emptied, Flags, empties};
use crate::session::work::{Body, Work};

/// `ER_MAX_PREPARED_STMT_COUNT_REACHED`.
pub(super) const TOO_MANY: u16 = 1461;
/// An id that no server gives, for one that must not be looked up.
pub(super) const NOBODY: u32 = 0x7fff_ffff;

/// Whether a command may be sent.
pub(in crate::session) enum Ready {
    /// The connection has what it is about, and the packet names it.
    Yes,
    /// The connection was lost with nothing sent; another may do.
    Again,
    /// The server refuses to prepare the statement. The client has been told.
    Refused(Answer),
}

/// Why a command is not ready.
enum Stop {
    /// The connection was lost with nothing sent; another may do.
    Again,
    Trouble(Trouble),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// What a look at the connection showed.
enum Aim {
    Hit,
    /// A statement must be prepared first.
    Missing {
        own: u32,
        usage: Use,
        alone: Option<Why>,
    },
    /// It must be known how the server reads statements now.
    Parsing,
    /// MariaDB must have no statement that was prepared last.
    NoLast,
}

impl Session {
    /// Makes the held connection ready for the command.
    pub(in crate::session) async fn ready(&mut self, work: &mut Work) -> Result<Ready, Trouble> {
        match self.aim(work) {
            Aim::Hit => Ok(Ready::Yes),
            aim => match Box::pin(self.make_ready(work, aim)).await {
                Ok(ready) => Ok(ready),
                Err(Stop::Again) => Ok(Ready::Again),
                Err(Stop::Trouble(trouble)) => Err(trouble),
            },
        }
    }

    async fn make_ready(&mut self, work: &mut Work, aim: Aim) -> Result<Ready, Stop> {
        match aim {
            Aim::Hit => {}
            Aim::Missing { own, usage, alone } => {
                match self.prepare_here(work, own, usage, alone).await? {
                    Ready::Yes => {}
                    other => return Ok(other),
                }
                // It is there now.
                self.aim(work);
            }
            Aim::Parsing => self.know_parse_context().await?,
            Aim::NoLast => self.forget_last().await?,
        }
        Ok(Ready::Yes)
    }

    /// Looks the statement up and puts its id into the packet: all there is to do for nearly every execution.
    #[inline]
    fn aim(&mut self, work: &mut Work) -> Aim {
        let depends = self.login.first.catalog().family() == Family::MySql;
        let (Some(errand), Some(hold)) = (work.errand, &mut self.hold) else {
            return Aim::Hit;
        };
        let wanted = match errand {
            Errand::Prepare(_) => return Aim::Parsing,
            Errand::Stranger(LAST) if !depends => return Aim::NoLast,
            Errand::Stranger(id) => {
                if hold.lease.statements.has_alone(id) {
                    work.put_id(&mut self.client.input, NOBODY);
                } else if hold.lease.statements.shares(id) {
                    hold.lease.statements.close(id);
                }
                return Aim::Hit;
            }
            Errand::Execute {
                own, usage, bound, ..
            } => (own, usage, bound, None),
            Errand::LongData { own, .. } => (own, Use::Rows, Bound::Known, Some(Why::LongData)),
            Errand::Reset { own } | Errand::Fetch { own } => (own, Use::Rows, Bound::None, None),
        };
        let (own, usage, bound, alone) = wanted;
        let statements = &mut hold.lease.statements;
        let Some(statement) = self.statements.get(own) else {
            return Aim::Hit;
        };
        // Without types known yet, they come with the execution.
        let binding = statement.binding(bound, depends);
        let found = match (statement.alone, alone) {
            (Some(alone), _) => Some(alone.id),
            (None, None) => {
                let found = statements.find(&statement.key, usage, binding);
                if found.is_some() && matches!(errand, Errand::Execute { .. }) {
                    self.context.metrics.sessions.statement_hits.inc();
                }
                found
            }
            (None, Some(why)) => {
                let found = statements.find(&statement.key, usage, binding);
                if let Some(id) = found {
                    statements.reserve(id);
                    self.statements
                        .set_alone(own, Some(Alone::new(id, usage, why)));
                }
                found
            }
        };
        let Some(id) = found else {
            return Aim::Missing { own, usage, alone };
        };
        work.put_id(&mut self.client.input, id);
        if let Errand::LongData { own, param } = errand {
            self.spoil(own, param);
        }
        Aim::Hit
    }

    /// Data for a parameter that there is not: the statement is of no use until it is reset.
    fn spoil(&mut self, own: u32, param: u16) {
        let Some(statement) = self.statements.get(own) else {
            return;
        };
        if let Some(alone) = &mut statement.alone
            && param >= statement.params
            && alone.why != Why::Unrepeatable
        {
            alone.why = Why::Spoilt;
        }
    }

    /// Prepares a statement on the held connection, in the state it was prepared in at first.
    async fn prepare_here(
        &mut self,
        work: &Work,
        own: u32,
        usage: Use,
        alone: Option<Why>,
    ) -> Result<Ready, Stop> {
        let Some(key) = self.statements.get(own).map(|s| Arc::clone(&s.key)) else {
            return Ok(Ready::Yes);
        };
        self.know_parse_context().await?;
        let disturbs = self.disturbs(work, &key);
        let made = match self.travel(&key).await? {
            Made::Refused(error) if error.code == TOO_MANY && self.make_room() => {
                self.travel(&key).await?
            }
            made => made,
        };
        match made {
            Made::Refused(error) => return Ok(Ready::Refused(self.refused(error).await?)),
            Made::Id(id) => self.made(own, &key, usage, alone, id),
        }
        if let (Some(lost), Some(hold)) = (disturbs, &mut self.hold) {
            // The next time it need not be prepared.
            hold.pending.asked();
            return Err(not_kept(lost).into());
        }
        Ok(Ready::Yes)
    }

    fn made(&mut self, own: u32, key: &Arc<StatementKey>, usage: Use, alone: Option<Why>, id: u32) {
        let max = self.target().statements_per_connection();
        let metrics = &self.context.metrics.sessions;
        metrics.reprepares.inc();
        let Some(hold) = &mut self.hold else { return };
        match alone {
            Some(why) => {
                hold.lease.statements.insert_alone(id);
                self.statements
                    .set_alone(own, Some(Alone::new(id, usage, why)));
            }
            None => {
                let evicted = hold.lease.statements.insert(key, id, max);
                metrics.statement_evictions.add(evicted as u64);
            }
        }
    }

    /// The session goes on in states that begin with `first`; so do its statements. `None` if that cannot be.
    pub(in crate::session) fn move_statements(&mut self, first: &State) -> Option<()> {
        let (now, began) = (&self.carried.state, &self.login.first);
        let then = |prepared: &State| {
            let then = now.in_parse_context_of(prepared);
            // No database is selected where a statement was prepared without.
            let then = then.with_schema(prepared.schema().map(|name| &name[..]));
            then.rebase(began, first)
        };
        self.statements.rebase(then)?;
        self.carried.names.rebase(then)
    }

    /// Whether preparing it now would destroy what the command is to look at: a `SET` does to row counts, and
    /// preparing what uses tables (on MySQL anything) does to the diagnostics area. Preparing alone leaves
    /// row counts as they are (measured on both servers).
    fn disturbs(&self, work: &Work, key: &StatementKey) -> Option<Flags> {
        let Place::Previous(needs) = work.plan.place else {
            return None;
        };
        let hold = self.hold.as_ref()?;
        let state = &hold.lease.state;
        let switches = state.in_parse_context_of(key.state()) != *state;
        if switches {
            return Some(needs);
        }
        let lex = work.lex(self.carried.lex);
        let empties = needs.any(Flags::DIAGNOSTICS)
            && (!self.is_mariadb() || empties(key.text(), lex) != Emptied::No);
        empties.then_some(Flags::DIAGNOSTICS)
    }

    /// `true` if there is room for another statement now.
    pub(super) fn make_room(&mut self) -> bool {
        let Some(hold) = &mut self.hold else {
            return false;
        };
        let closed = hold.lease.statements.close_shared();
        let metrics = &self.context.metrics.sessions;
        metrics.statement_evictions.add(closed as u64);
        closed > 0
    }

    /// The server's refusal is the answer to the client's command.
    async fn refused(&mut self, error: ErrorInfo) -> Result<Answer, Trouble> {
        debug!(%error, "a statement could not be prepared again");
        if let Some(hold) = &mut self.hold {
            hold.pending.asked();
        }
        put_err(
            &mut self.client.output,
            self.first_seq,
            error.code,
            error.sqlstate,
            &String::from_utf8_lossy(&error.message),
        );
        self.client.send().await.map_err(|_| Trouble::ClientGone)?;
        Ok(Answer {
            end: End::Error(error),
            ..Answer::default()
        })
    }

    /// One preparation on the held connection, with what has gathered in its output in front.
    async fn travel(&mut self, key: &StatementKey) -> Result<Made, Stop> {
        let own = std::mem::take(&mut self.own);
        let Some(hold) = &mut self.hold else {
            return Err(Stop::Again);
        };
        let lease = &mut hold.lease;
        let there = lease.state.in_parse_context_of(key.state());
        let there = match there == lease.state {
            true => None,
            false => match (replay(&lease.state, &there), replay(&there, &lease.state)) {
                (Ok(there), Ok(back)) => Some((there, back)),
                _ => return Ok(Made::Refused(unreachable())),
            },
        };
        let trip = Trip { there, own };
        match trip.run(hold, key).await {
            Ok(made) => {
                if std::mem::replace(&mut hold.replay, Replaying::Over) == Replaying::Unanswered {
                    self.context.metrics.sessions.replays.inc(Outcome::Ok);
                }
                if let Made::Refused(_) = made {
                    let errors = &self.context.metrics.queries.errors;
                    errors.inc(ErrorSource::Database);
                }
                Ok(made)
            }
            Err(Failed::Replay(error)) => {
                self.context.metrics.sessions.replays.inc(Outcome::Failed);
                self.let_go(RetireReason::ReplayFailed);
                Err(Trouble::ReplayFailed(error).into())
            }
            Err(Failed::Connection(error)) => {
                debug!(%error, "backend connection failed while a statement was prepared again");
                Err(self.lost_here())
            }
        }
    }

    /// The connection is lost and nothing of the command was sent.
    fn lost_here(&mut self) -> Stop {
        match self.hold.as_ref().is_some_and(|hold| hold.fresh) {
            true => {
                self.let_go(RetireReason::Broken);
                Stop::Again
            }
            false => self.lost(RetireReason::Broken, false).into(),
        }
    }

    /// Makes sure that the database and all variables that decide how a statement is read are known.
    async fn know_parse_context(&mut self) -> Result<(), Stop> {
        let Some(hold) = &mut self.hold else {
            return Ok(());
        };
        let facts = hold.lease.facts().clone();
        let pins = self.pinned.pins;
        if pins.has(PinReason::SessionTrack) || !facts.trackers {
            // Nothing was reported, or not to Sidepool.
            return self.read_whole_state().await;
        }
        let pending = &hold.pending;
        let names = pending.names.iter().map(|name| &**name);
        let found = facts.catalog.resolve(names);
        let parsed = facts.catalog.parsed();
        let open = pending.everything
            || pending.unsettled
            || pending.diagnostics
            || pending.schema.is_some()
            || found.unknown
            || found.vars.iter().any(|var| parsed.contains(var));
        if !open {
            return Ok(());
        }
        hold.pending.asked();
        self.settle().await.map_err(|error| {
            debug!(%error, "session state could not be read back before a statement is prepared");
            self.lost(RetireReason::Broken, false).into()
        })
    }

    async fn read_whole_state(&mut self) -> Result<(), Stop> {
        let own = std::mem::take(&mut self.own);
        let Some(hold) = &mut self.hold else {
            return Ok(());
        };
        hold.pending.asked();
        let lease = &mut hold.lease;
        let facts = lease.facts().clone();
        let query = facts.catalog.read_all_sql(SchemaColumn::Include);
        lease.put_query(query.sql());
        let read = async {
            lease.send().await?;
            for _ in 0..own {
                lease.read_ok().await?;
            }
            let reading = lease.read_reading(&query).await?;
            let state = facts.store.from_reading(&reading);
            state.ok_or(StatementError::NoRow)
        };
        match read.await {
            Ok(state) => {
                lease.state = state.clone();
                self.set_state(state);
                Ok(())
            }
            Err(error) => {
                debug!(%error, "session state could not be read before a statement is prepared");
                Err(self.lost_here())
            }
        }
    }

    /// MariaDB would take its own statement of that connection for the one meant: the last one is closed.
    async fn forget_last(&mut self) -> Result<(), Stop> {
        let state = self.carried.state.clone();
        let key = StatementKey::of(b"DO 1", &state);
        if let Made::Id(id) = self.travel(&key).await?
            && let Some(hold) = &mut self.hold
        {
            hold.lease.statements.close(id);
        }
        Ok(())
    }
}

impl Work {
    /// Names the statement in the command's first packet.
    #[inline]
    fn put_id(&mut self, input: &mut [u8], id: u32) {
        match &mut self.body {
            Body::Whole(packet) => put_id(packet, id),
            Body::Streamed if input.len() >= ID_AT + 4 => put_id(input, id),
            Body::Streamed => {}
        }
    }
}

/// What a client is told whose statement cannot be prepared again where its session is now.
fn unreachable() -> ErrorInfo {
    ErrorInfo {
        code: 1235,
        sqlstate: *b"42000",
        message: b"Sidepool cannot bring back the state in which this statement was prepared; prepare it again"
            .to_vec()
            .into_boxed_slice(),
    }
}
