//! A backend connection after login: its stream, and what Sidepool knows of its session state.
//!
//! It also carries out Sidepool's own statements: they are appended to the output, sent in one
//! write and answered in order (measured on both servers).

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;

use super::facts::{ServerFacts, ServerLimits, Virtuals};
use super::named::NamedStatements;
use super::state::{
    self, Family, LEAST_PACKET, LIST_SQL, ReadError, ReadQuery, Reading, State, UserQuery,
    UserReading, narrow, unhex,
};
use super::statements::{StatementCache, put_prepare};
use crate::pool::{Fit, PooledConnection};
use crate::protocol::capability::Capabilities;
use crate::protocol::command::Command;
use crate::protocol::packet::put_packet;
use crate::protocol::reply::StatusFlags;
use crate::protocol::response::Framing;
use crate::reason::RetireReason;
use crate::relay::own::{
    OwnError, OwnResultSet, read_own_ok, read_own_prepared, read_own_result_set,
};
use crate::relay::{Answer, Conn};

/// Bytes of the answer to one own statement; a catalog read back whole is a few KiB.
const OWN_MAX: usize = 1 << 20;

/// Bytes of the answer to a reading of user variables.
const USER_MAX: usize = 8 << 20;
/// The role that is active.
const ROLE_SQL: &[u8] = b"SELECT HEX(CURRENT_ROLE()) LIMIT 1";
/// What routines, functions and triggers may have left on a MariaDB connection that only `STATE` reports,
/// counted (routines count too, measured on 10.11.19), and the role. Introducers, because the session's
/// charset may be a wide one.
const CREATED_SQL: &[u8] =
    b"SELECT CAST(SUM(VARIABLE_VALUE) AS UNSIGNED),HEX(CURRENT_ROLE()) FROM information_schema.SESSION_STATUS \
      WHERE VARIABLE_NAME IN (_latin1'COM_CREATE_TEMPORARY_TABLE',_latin1'COM_CREATE_SEQUENCE',\
      _latin1'COM_PREPARE_SQL',_latin1'COM_HA_OPEN') LIMIT 1";

/// A logged-in backend connection.
#[derive(Debug)]
pub struct BackendConnection {
    /// The stream and its buffers.
    pub conn: Conn,
    /// The session state it is in.
    pub state: State,
    /// What `LAST_INSERT_ID()` returns on it.
    pub last_insert_id: u64,
    /// Status flags of its last OK.
    pub status: StatusFlags,
    /// What is prepared on it by SQL text.
    pub named: NamedStatements,
    /// What is prepared on it.
    pub statements: StatementCache,
    identity: Identity,
    facts: Arc<ServerFacts>,
    virtuals: Arc<Virtuals>,
    limits: ServerLimits,
    origin: Origin,
}

/// What a login showed that tells later whether anything was left on the connection that no tracker shows.
#[derive(Debug)]
pub(super) struct Origin {
    /// The role, as [`ROLE_SQL`] shows it; `None`: the server has no roles.
    role: Option<Option<Bytes>>,
    /// `@@max_allowed_packet`
    max_packet: u64,
    /// What [`CREATED_SQL`] counted last. A `COM_RESET_CONNECTION` begins anew (MariaDB 10.11.19).
    created: u64,
}

impl Origin {
    /// From the row that a login shows: the size of packets in the fifth column, the role in the last.
    pub(super) fn of(set: &OwnResultSet, has_roles: bool) -> Self {
        let row = set.rows.first().map_or(&[][..], |row| row);
        let role = has_roles.then(|| row.last().cloned().flatten());
        let number = |at: usize| {
            std::str::from_utf8(row.get(at)?.as_ref()?)
                .ok()?
                .parse()
                .ok()
        };
        Self {
            role,
            max_packet: number(4).unwrap_or_default(),
            created: 0,
        }
    }

    fn is_role(&self, shown: Option<&Bytes>) -> bool {
        let expected = self.role.as_ref();
        expected.is_none_or(|role| shown.map(|s| narrow(s)) == role.as_deref().map(narrow))
    }
}

/// What never changes about a connection.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    id: u64,
    thread_id: u32,
    capabilities: Capabilities,
}

/// Why own statements failed. The connection is of no more use, except after a refusal.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The statement has no usable answer.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// The statement could not be sent.
    #[error("backend connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// A read-back's row makes no sense.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A role is active that was not at the login, which nothing undoes.
    #[error("a role was left active")]
    Role,
    /// A statement that selects one row selected none.
    #[error("an own statement returned no row")]
    NoRow,
}

impl Identity {
    /// The identity of a connection that has just logged in; `id` is unique for the process.
    pub const fn new(id: u64, thread_id: u32, capabilities: Capabilities) -> Self {
        Self {
            id,
            thread_id,
            capabilities,
        }
    }

    /// How answers are framed on the connection.
    pub const fn framing(&self) -> Framing {
        Framing {
            deprecate_eof: self.capabilities.contains(Capabilities::DEPRECATE_EOF),
            session_track: self.capabilities.contains(Capabilities::SESSION_TRACK),
        }
    }

    /// What was negotiated with the server.
    pub const fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Whether the text of a `COM_QUERY` is preceded by query attributes.
    pub const fn has_query_attributes(&self) -> bool {
        self.capabilities.contains(Capabilities::QUERY_ATTRIBUTES)
    }
}

impl BackendConnection {
    /// A connection that has been set up; see [`setup`](super::setup).
    pub(super) fn new(raw: RawConnection, facts: Arc<ServerFacts>, found: Found) -> Self {
        Self {
            conn: raw.conn,
            state: found.state,
            last_insert_id: 0,
            status: raw.status,
            named: NamedStatements::default(),
            statements: StatementCache::default(),
            identity: raw.identity,
            facts,
            virtuals: found.virtuals,
            limits: found.limits,
            origin: found.origin,
        }
    }

    /// What never changes about it.
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// The server's thread id, as its process list shows it.
    pub const fn thread_id(&self) -> u32 {
        self.identity.thread_id
    }

    /// How answers are framed on the connection.
    pub const fn framing(&self) -> Framing {
        self.identity.framing()
    }

    /// What was negotiated with the server.
    pub const fn capabilities(&self) -> Capabilities {
        self.identity.capabilities
    }

    /// What is known of the server.
    pub const fn facts(&self) -> &Arc<ServerFacts> {
        &self.facts
    }

    /// The virtual variables as a client on a connection of its own would have found them.
    pub const fn virtuals(&self) -> &Arc<Virtuals> {
        &self.virtuals
    }

    /// What the login showed of the server's limits.
    pub const fn limits(&self) -> &ServerLimits {
        &self.limits
    }

    /// Appends an own `COM_QUERY`; it is sent with whatever else is in the output.
    pub fn put_query(&mut self, sql: &[u8]) {
        put_query(
            &mut self.conn.output,
            self.identity.has_query_attributes(),
            sql,
        );
    }

    /// Appends an own command.
    pub fn put_command(&mut self, command: Command, argument: &[u8]) {
        put_command(&mut self.conn.output, command, argument);
    }

    /// Appends an own `COM_STMT_PREPARE`.
    pub fn put_prepare(&mut self, text: &[u8]) {
        put_prepare(&mut self.conn.output, text);
    }

    /// Appends what closes statements of no more use. It has no answer.
    #[inline]
    pub fn put_closes(&mut self) {
        self.statements.put_closes(&mut self.conn.output);
    }

    /// Sends what was appended. Not cancel-safe.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn send(&mut self) -> Result<(), StatementError> {
        Ok(self.conn.send().await?)
    }

    /// Reads the OK of the next own command. Not cancel-safe.
    ///
    /// # Errors
    /// [`StatementError::Own`].
    pub async fn read_ok(&mut self) -> Result<Answer, StatementError> {
        Ok(read_own_ok(&mut self.conn, self.identity.framing()).await?)
    }

    /// Reads the answer to the next own `COM_STMT_PREPARE`: the server's id. Not cancel-safe.
    ///
    /// # Errors
    /// [`StatementError::Own`].
    pub async fn read_prepared(&mut self) -> Result<u32, StatementError> {
        let framing = self.identity.framing();
        let prepared = read_own_prepared(&mut self.conn, framing).await?;
        Ok(prepared.statement_id)
    }

    /// Reads the answer to the next own query. Not cancel-safe.
    ///
    /// # Errors
    /// [`StatementError::Own`].
    pub async fn read_rows(&mut self) -> Result<OwnResultSet, StatementError> {
        Ok(read_own_result_set(&mut self.conn, self.identity.framing(), OWN_MAX).await?)
    }

    /// Reads the answer to the next own query, a read-back. Not cancel-safe.
    ///
    /// # Errors
    /// [`StatementError`].
    pub async fn read_reading(&mut self, query: &ReadQuery) -> Result<Reading, StatementError> {
        let set = self.read_rows().await?;
        decode_reading(&set, query)
    }
}

/// User variables, and what hides behind them.
impl BackendConnection {
    /// Whether the server takes statements as long as those that set user variables.
    pub const fn takes_user_variables(&self) -> bool {
        self.origin.max_packet >= LEAST_PACKET
    }

    /// Reads the answer to the next own query, a read-back of user variables. Not cancel-safe.
    ///
    /// # Errors
    /// [`StatementError`].
    pub async fn read_user(&mut self, query: &UserQuery) -> Result<UserReading, StatementError> {
        let framing = self.identity.framing();
        let set = read_own_result_set(&mut self.conn, framing, USER_MAX).await?;
        let row = set.rows.first().ok_or(StatementError::NoRow)?;
        let row: Vec<_> = row.iter().map(Option::as_deref).collect();
        let definitions: Vec<_> = set.columns.iter().map(|c| &*c.payload).collect();
        let family = self.facts.catalog.family();
        Ok(query.decode(&definitions, &row, family)?)
    }

    /// Appends the question which user variables there are; MariaDB only.
    pub fn put_user_list(&mut self) {
        self.put_query(LIST_SQL);
    }

    /// Reads the answer to [`put_user_list`](Self::put_user_list): names in lower case.
    ///
    /// # Errors
    /// [`StatementError`].
    pub async fn read_user_list(&mut self) -> Result<Vec<Box<[u8]>>, StatementError> {
        let set = self.read_rows().await?;
        let name = |row: &Vec<Option<Bytes>>| {
            let hex = row.first().and_then(Option::as_ref);
            Ok(unhex(hex.ok_or(StatementError::NoRow)?)?
                .to_ascii_lowercase()
                .into())
        };
        set.rows.iter().map(name).collect()
    }

    /// Appends the question what was created, and which role is active; MariaDB only.
    pub fn put_created(&mut self) {
        self.put_query(CREATED_SQL);
    }

    /// Reads the answer to [`put_created`](Self::put_created): whether nothing was created since it was
    /// asked last, and the role is the login's.
    ///
    /// # Errors
    /// [`StatementError`].
    pub async fn nothing_created(&mut self) -> Result<bool, StatementError> {
        let set = self.read_rows().await?;
        let row = set.rows.first().ok_or(StatementError::NoRow)?;
        let [Some(count), role] = &row[..] else {
            return Err(StatementError::NoRow);
        };
        let count = std::str::from_utf8(&narrow(count))
            .ok()
            .and_then(|text| text.parse().ok());
        let count: u64 = count.ok_or(StatementError::NoRow)?;
        let before = std::mem::replace(&mut self.origin.created, count);
        Ok(before == count && self.origin.is_role(role.as_ref()))
    }

    /// Another statement was prepared by SQL text, and it is known which.
    pub const fn count_prepared(&mut self) {
        self.origin.created += 1;
    }

    /// A `COM_RESET_CONNECTION` has dropped what was created.
    pub const fn begin_anew(&mut self) {
        self.origin.created = 0;
    }

    /// Appends the question which role is active, which a reset does not change; `false`: the server has
    /// none.
    pub fn put_role(&mut self) -> bool {
        let has_roles = self.origin.role.is_some();
        if has_roles {
            self.put_query(ROLE_SQL);
        }
        has_roles
    }

    /// Reads the answer to [`put_role`](Self::put_role): whether it is the one that a login shows.
    ///
    /// # Errors
    /// [`StatementError`].
    pub async fn has_first_role(&mut self) -> Result<bool, StatementError> {
        let set = self.read_rows().await?;
        let row = set.rows.first().ok_or(StatementError::NoRow)?;
        Ok(self.origin.is_role(row.first().and_then(Option::as_ref)))
    }

    /// Whether the server lists user variables.
    pub fn lists_user_variables(&self) -> bool {
        self.facts.catalog.family() == Family::MariaDb
    }
}

/// What a read-back's result set says.
pub(super) fn decode_reading(
    set: &OwnResultSet,
    query: &ReadQuery,
) -> Result<Reading, StatementError> {
    let row = set.rows.first().ok_or(StatementError::NoRow)?;
    let row: Vec<Option<&[u8]>> = row.iter().map(Option::as_deref).collect();
    let kinds: Vec<_> = set
        .columns
        .iter()
        .map(|c| state::ColumnKind::from_type(c.kind))
        .collect();
    Ok(query.decode(&row, &kinds)?)
}

/// A connection that has logged in and not been set up yet.
#[derive(Debug)]
pub(super) struct RawConnection {
    pub conn: Conn,
    pub identity: Identity,
    pub status: StatusFlags,
}

/// What setting up a connection found.
#[derive(Debug)]
pub(super) struct Found {
    pub state: State,
    pub virtuals: Arc<Virtuals>,
    pub limits: ServerLimits,
    pub origin: Origin,
}

impl PooledConnection for BackendConnection {
    type Wish = State;

    fn id(&self) -> u64 {
        self.identity.id
    }

    fn fit(&self, wish: &State) -> Fit {
        match state::fit(&self.state, wish) {
            state::Fit::Equal => Fit::Equal,
            state::Fit::SameDatabase => Fit::SameDatabase,
            state::Fit::Usable => Fit::Usable,
            state::Fit::Unusable => Fit::Unusable,
        }
    }

    fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        self.conn.input.is_empty() && self.conn.stream.try_read(&mut byte).is_none()
    }

    fn server_idle_limit(&self) -> Option<Duration> {
        self.limits.wait_timeout
    }

    /// Waits for the server's end of stream: only then has it let go.
    async fn close(mut self, _reason: RetireReason) {
        self.conn.output.clear();
        say_goodbye(&mut self.conn).await;
    }
}

/// `COM_QUIT`, then waits for the server's end of stream.
pub(super) async fn say_goodbye(conn: &mut Conn) {
    put_command(&mut conn.output, Command::Quit, b"");
    if conn.send().await.is_err() {
        return;
    }
    // The end of a stream that failed half-way is an end as well.
    let _ = conn.stream.shutdown().await;
    while matches!(conn.read_more().await, Ok(n) if n > 0) {
        conn.input.clear();
    }
}

/// Appends a command with its argument.
pub(super) fn put_command(output: &mut BytesMut, command: Command, argument: &[u8]) {
    let mut payload = BytesMut::with_capacity(1 + argument.len());
    payload.put_u8(command as u8);
    payload.put_slice(argument);
    put_packet(output, 0, &payload);
}

/// Appends a `COM_QUERY`. With `CLIENT_QUERY_ATTRIBUTES` its text is preceded by a parameter count
/// of 0 and a parameter set count of 1.
pub(super) fn put_query(output: &mut BytesMut, attributes: bool, sql: &[u8]) {
    let mut payload = BytesMut::with_capacity(3 + sql.len());
    payload.put_u8(Command::Query as u8);
    if attributes {
        payload.put_slice(&[0, 1]);
    }
    payload.put_slice(sql);
    put_packet(output, 0, &payload);
}
