//! Before a backend connection is shared again: what is not known of its state is asked.
//!
//! Runs after the client has its whole answer. Everything that need not wait for an earlier answer
//! goes out in one write; only what an error had hidden can need a second one.

use bytes::Bytes;

use super::Session;
use super::exchange::Hold;
use super::memory::{Carried, SavedDiagnostics};
use super::pending::Unread;
use super::pins::Cleaning;
use super::plan::Shown;
use crate::backend::connection::{BackendConnection, StatementError};
use crate::backend::facts::ServerFacts;
use crate::backend::state::{
    IdleTimeouts, MOST_VARIABLES, ReadBack, ReadQuery, SchemaColumn, State, UserQuery, Virtual,
    is_plain_name, narrow,
};
use crate::metrics::SessionMetrics;
use crate::protocol::command::Command;
use crate::reason::{PinReason, RetireReason};
use crate::relay::Trackers;
use crate::relay::own::OwnError;

/// Brings out what the server has not reported yet: changes made before an error travel in the next
/// OK that itself changes state (measured on both servers, hazard 2).
const FLUSH: &[u8] = b"SET @@session.session_track_schema=ON";
/// The id, whatever the session's `sql_select_limit` is.
const INSERT_ID: &[u8] = b"SELECT LAST_INSERT_ID() LIMIT 1";
/// Forgets what waits for the next transaction, whatever `completion_type` is (measured on both servers).
const END_TRANSACTION: &[u8] = b"COMMIT AND NO CHAIN NO RELEASE";
/// The four plain readers of the diagnostics area; none of them changes it.
const DIAGNOSTICS: [&[u8]; 4] = [
    b"SHOW WARNINGS",
    b"SHOW ERRORS",
    b"SHOW COUNT(*) WARNINGS",
    b"SHOW COUNT(*) ERRORS",
];

/// What the first write asked for, to read the answers in the same order.
struct Asked {
    diagnostics: bool,
    next_transaction: bool,
    trackers: bool,
    restore_timeouts: bool,
    option: bool,
    flush: bool,
    insert_id: bool,
    timeouts: bool,
    read: Option<ReadQuery>,
    user: Option<UserQuery>,
    list: bool,
    created: bool,
}

/// What settling found out besides the state.
#[derive(Debug, Default)]
struct Found {
    /// There is something on the connection that nothing names.
    residue: Option<PinReason>,
    /// There are user variables that cannot be read back.
    odd_variables: bool,
}

impl Session {
    /// Asks all open questions about the held connection. Afterwards the session's state and the
    /// connection's are the same, and known.
    ///
    /// # Errors
    /// [`StatementError`]: the session's own state is then unknown.
    pub(super) async fn settle(&mut self) -> Result<(), StatementError> {
        let saving = self.hold.as_ref().is_some_and(|h| h.pending.diagnostics);
        let mut found = Found::default();
        // A second time behind an error: only its flush tells whether a SET TRANSACTION waits.
        while let Some(hold) = &mut self.hold
            && !(hold.pending.is_settled() && hold.pending.schema.is_none())
        {
            let settled = hold.pending.is_settled();
            let mut settling = Settling {
                hold,
                carried: &mut self.carried,
            };
            let (state, seen) = settling.run(&self.context.metrics.sessions).await?;
            found.residue = found.residue.or(seen.residue);
            found.odd_variables |= seen.odd_variables;
            if !settled {
                hold.pending.asked();
            }
            hold.lease.state = state.clone();
            let done = hold.pending.next_transaction(self.carried.status).is_none();
            self.set_state(state);
            if done {
                break;
            }
        }
        if saving {
            self.carried.date_diagnostics();
        }
        if let Some(reason) = found.residue {
            self.carried.names.lose_track();
            self.pin(reason, b"");
        }
        if found.odd_variables {
            self.pin_for_variables(b"");
        }
        Ok(())
    }
}

struct Settling<'s> {
    hold: &'s mut Hold,
    carried: &'s mut Carried,
}

impl Settling<'_> {
    async fn run(&mut self, metrics: &SessionMetrics) -> Result<(State, Found), StatementError> {
        let facts = self.hold.lease.facts().clone();
        let found = self.resolve(&facts);
        let asked = self.ask(&facts, &found);
        self.hold.lease.send().await?;
        let late = self.hear(&asked, metrics).await?;
        self.hold.pending.note_transaction(&late);
        let mut state = self.reported_state();
        if let Some(query) = &asked.read {
            metrics.readbacks.inc();
            state = state.with_reading(&self.hold.lease.read_reading(query).await?);
        }
        let (state, seen) = self.hear_user(&asked, state).await?;
        let pending = &mut self.hold.pending;
        pending.user = Unread::default();
        pending.names.clear();
        pending.schema = None;
        pending.insert_id = false;
        pending.unsettled = false;
        pending.diagnostics = false;
        pending.doubtful = false;
        pending.shown = Shown::None;
        pending.everything = false;
        pending.option = None;
        if late.is_empty() {
            return Ok((state, seen));
        }
        Ok((self.hear_late(&facts, state, &late).await?, seen))
    }

    fn resolve(&self, facts: &ServerFacts) -> ReadBack {
        facts
            .catalog
            .resolve(self.hold.pending.names.iter().map(|name| &**name))
    }

    /// The state with the database that was reported.
    fn reported_state(&self) -> State {
        let state = self.carried.state.clone();
        match &self.hold.pending.schema {
            Some(schema) => state.with_schema(schema.as_deref()),
            None => state,
        }
    }

    /// Appends all questions to the connection's output.
    fn ask(&mut self, facts: &ServerFacts, found: &ReadBack) -> Asked {
        let (lease, pending) = (&mut self.hold.lease, &self.hold.pending);
        let is_timeout =
            |v: &Virtual| matches!(v, Virtual::WaitTimeout | Virtual::InteractiveTimeout);
        let timeouts = found.virtuals.iter().any(is_timeout);
        let trackers = pending.shown == Shown::All || found.virtuals.iter().any(|v| v.is_tracker());
        let restore_timeouts =
            timeouts || pending.shown != Shown::None && self.carried.timeouts.is_some();
        let read = if pending.everything || pending.shown == Shown::All {
            Some(facts.catalog.read_all_sql(SchemaColumn::Include))
        } else {
            facts.catalog.read_sql(&found.vars, SchemaColumn::Omit)
        };
        // First, because every other statement may empty or fill the diagnostics area.
        if pending.diagnostics {
            DIAGNOSTICS.iter().for_each(|sql| lease.put_query(sql));
        }
        // An error may hide that it waits no more; the flush tells.
        let next_transaction = pending
            .next_transaction(self.carried.status)
            .filter(|_| !pending.unsettled);
        if let Some(statements) = next_transaction {
            self.carried.next_transaction = Some(statements.into());
            lease.put_query(END_TRANSACTION);
        }
        if timeouts {
            lease.put_query(IdleTimeouts::READ_SQL.as_bytes());
        }
        let own_timeouts = lease.virtuals().idle;
        if let (true, Some(own)) = (restore_timeouts, own_timeouts) {
            lease.put_query(own.set_sql().as_bytes());
        }
        if trackers {
            lease.put_query(facts.catalog.setup_sql().as_bytes());
        }
        if let Some(on) = pending.option {
            // The argument of COM_SET_OPTION: 0 switches on, 1 off.
            lease.put_command(Command::SetOption, &[u8::from(on), 0]);
        }
        if pending.unsettled {
            lease.put_query(FLUSH);
        }
        if pending.insert_id {
            lease.put_query(INSERT_ID);
        }
        if let Some(query) = &read {
            lease.put_query(query.sql());
        }
        let user = put_user(lease, &pending.user);
        Asked {
            diagnostics: pending.diagnostics,
            next_transaction: next_transaction.is_some(),
            trackers,
            restore_timeouts: restore_timeouts && own_timeouts.is_some(),
            option: pending.option.is_some(),
            flush: pending.unsettled,
            insert_id: pending.insert_id,
            timeouts,
            read,
            user,
            list: pending.user.list,
            created: pending.user.asks_for_created(),
        }
    }

    /// Reads the answers up to the read-back; what came out with any of them. Not only the flush
    /// brings it: on MySQL the end of a result set does as well.
    async fn hear(
        &mut self,
        asked: &Asked,
        metrics: &SessionMetrics,
    ) -> Result<Trackers, StatementError> {
        let mut late = Trackers::default();
        if asked.diagnostics {
            late.merge(&self.hear_diagnostics().await?);
        }
        let lease = &mut self.hold.lease;
        if asked.next_transaction {
            late.merge(&lease.read_ok().await?.trackers);
            self.hold.pending.set_next_transaction(None);
        }
        if asked.timeouts {
            let set = lease.read_rows().await?;
            late.merge(&set.answer.trackers);
            let row: Vec<_> = set
                .rows
                .first()
                .ok_or(StatementError::NoRow)?
                .iter()
                .map(|c| c.as_deref())
                .collect();
            let wish = IdleTimeouts::from_row(&row);
            self.carried.timeouts = wish.filter(|_| wish != lease.virtuals().idle);
        }
        if asked.restore_timeouts {
            late.merge(&lease.read_ok().await?.trackers);
        }
        if asked.trackers {
            late.merge(&lease.read_ok().await?.trackers);
        }
        if asked.option {
            late.merge(&lease.read_ok().await?.trackers);
        }
        if asked.flush {
            metrics.error_flushes.inc();
            late.merge(&self.hear_flush().await?);
        }
        let lease = &mut self.hold.lease;
        if asked.insert_id {
            let set = lease.read_rows().await?;
            late.merge(&set.answer.trackers);
            let id = number(set.rows.first().and_then(|row| row.first()?.as_ref()))?;
            lease.last_insert_id = id;
            self.carried.last_insert_id = id;
        }
        Ok(late)
    }

    /// Reads the answers about user variables, behind all others.
    async fn hear_user(
        &mut self,
        asked: &Asked,
        mut state: State,
    ) -> Result<(State, Found), StatementError> {
        let lease = &mut self.hold.lease;
        let unread = &self.hold.pending.user;
        let mut found = Found::default();
        if let Some(query) = &asked.user {
            state = state.with_user_reading(lease.read_user(query).await?);
        }
        let listed = match asked.list {
            true => told(lease.read_user_list().await)?,
            false => Some(Vec::new()),
        };
        let created = asked.created && told(lease.nothing_created().await)? != Some(true);
        if listed.is_none() || created && unread.residue.is_some() && !unread.recount {
            found.residue = unread.residue.or(Some(PinReason::UnknownState));
        }
        let (plain, odd): (Vec<_>, Vec<_>) = listed
            .into_iter()
            .flatten()
            .filter(|name| !unread.names.contains(name))
            .partition(|name| is_plain_name(name));
        found.odd_variables = !odd.is_empty() || plain.len() > MOST_VARIABLES;
        if !plain.is_empty() && !found.odd_variables {
            let query = UserQuery::new(plain);
            lease.put_query(query.sql());
            lease.send().await?;
            state = state.with_user_reading(lease.read_user(&query).await?);
        }
        Ok((state, found))
    }

    async fn hear_diagnostics(&mut self) -> Result<Trackers, StatementError> {
        let (lease, mut late) = (&mut self.hold.lease, Trackers::default());
        let now = SavedDiagnostics {
            warnings: lease.read_rows().await?,
            errors: lease.read_rows().await?,
            warning_count: lease.read_rows().await?,
            error_count: lease.read_rows().await?,
            charset: None,
            lost: false,
        };
        for set in now.sets() {
            late.merge(&set.answer.trackers);
        }
        if !(self.hold.pending.doubtful && now.is_mark()) {
            self.carried.diagnostics = Some(Box::new(now));
        }
        Ok(late)
    }

    async fn hear_flush(&mut self) -> Result<Trackers, StatementError> {
        let flushed = self.hold.lease.read_ok().await?;
        // An ERR has no status flags: with autocommit off, the failed statement has begun a
        // transaction all the same, which has locks and a snapshot (measured on both servers).
        if let Some(status) = flushed.status {
            self.carried.set_status(status);
        }
        Ok(flushed.trackers)
    }

    /// What the error had hidden: names that were reported only now.
    async fn hear_late(
        &mut self,
        facts: &ServerFacts,
        mut state: State,
        late: &Trackers,
    ) -> Result<State, StatementError> {
        if let Some(schema) = late.schema() {
            state = state.with_schema(Some(schema).filter(|name| !name.is_empty()));
        }
        let found = facts.catalog.resolve(late.variables());
        if let Some(query) = facts.catalog.read_sql(&found.vars, SchemaColumn::Omit) {
            self.hold.lease.put_query(query.sql());
            self.hold.lease.send().await?;
            state = state.with_reading(&self.hold.lease.read_reading(&query).await?);
        }
        Ok(state)
    }
}

/// Appends the questions about user variables.
fn put_user(lease: &mut BackendConnection, unread: &Unread) -> Option<UserQuery> {
    let query = (!unread.names.is_empty()).then(|| UserQuery::new(unread.names.iter().cloned()));
    if let Some(query) = &query {
        lease.put_query(query.sql());
    }
    if unread.list {
        lease.put_user_list();
    }
    if unread.asks_for_created() {
        lease.put_created();
    }
    query
}

/// Makes a connection that a session leaves fit for others, or closes it. Runs to its end even
/// though the client is gone.
pub(super) async fn clean_up(hold: Hold, cleaning: Cleaning, init_query: &str) {
    let mut lease = hold.lease;
    match cleaning {
        Cleaning::None => {
            lease.give_back();
        }
        Cleaning::Close => lease.retire(RetireReason::Dirty),
        Cleaning::Reset => match reset(&mut lease, init_query).await {
            Ok(()) => {
                lease.give_back();
            }
            Err(StatementError::Role) => lease.retire(RetireReason::Dirty),
            Err(_) => lease.retire(RetireReason::Broken),
        },
    }
}

/// `COM_RESET_CONNECTION`, and what it undoes: trackers and `init_query` (hazard 7). The state that
/// follows is read back.
///
/// # Errors
/// [`StatementError`]: the connection is of no more use.
pub(super) async fn reset(
    connection: &mut BackendConnection,
    init_query: &str,
) -> Result<(), StatementError> {
    connection.put_command(Command::ResetConnection, b"");
    connection.send().await?;
    connection.read_ok().await?;
    if !init_query.is_empty() {
        connection.run_init_query(init_query).await?;
    }
    if read_after_reset(connection).await? == RoleAfter::Another {
        return Err(StatementError::Role);
    }
    select_again(connection).await
}

/// Selects the connection's database once more: a reset keeps it and sets `character_set_database` to
/// the server's default all the same (measured on both servers).
///
/// # Errors
/// [`StatementError`]: the connection is of no more use; the database may be gone.
pub(super) async fn select_again(connection: &mut BackendConnection) -> Result<(), StatementError> {
    let Some(name) = connection.state.schema().cloned() else {
        return Ok(());
    };
    connection.put_command(Command::InitDb, &name);
    connection.send().await?;
    connection.read_ok().await.map(drop)
}

/// The role after a reset, which does not change it (measured on both servers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoleAfter {
    /// The one that a login shows.
    AsAtLogin,
    /// A statement, or a routine that ran on the connection, has set another.
    Another,
}

/// Sets the trackers again after a `COM_RESET_CONNECTION` and reads the state.
///
/// # Errors
/// [`StatementError`].
pub(super) async fn read_after_reset(
    connection: &mut BackendConnection,
) -> Result<RoleAfter, StatementError> {
    connection.statements.clear();
    connection.named.clear();
    let facts = connection.facts().clone();
    let query = facts.catalog.read_all_sql(SchemaColumn::Include);
    if facts.trackers {
        connection.put_query(facts.catalog.setup_sql().as_bytes());
    }
    connection.put_query(query.sql());
    connection.begin_anew();
    let has_roles = connection.put_role();
    connection.send().await?;
    if facts.trackers {
        connection.read_ok().await?;
    }
    let reading = connection.read_reading(&query).await?;
    connection.state = facts
        .store
        .from_reading(&reading)
        .ok_or(StatementError::NoRow)?;
    connection.last_insert_id = 0;
    Ok(match !has_roles || connection.has_first_role().await? {
        true => RoleAfter::AsAtLogin,
        false => RoleAfter::Another,
    })
}

/// An answer that the server may refuse, as it does when the session's own `max_join_size` is small.
fn told<T>(answer: Result<T, StatementError>) -> Result<Option<T>, StatementError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(StatementError::Own(OwnError::Server(_))) => Ok(None),
        Err(error) => Err(error),
    }
}

fn number(column: Option<&Bytes>) -> Result<u64, StatementError> {
    column
        .and_then(|text| std::str::from_utf8(&narrow(text)).ok()?.parse().ok())
        .ok_or(StatementError::NoRow)
}
