//! From a login to a usable backend connection: trackers on, `init_query` run, first state read.
//!
//! The first connection to a server also learns its session variables. Everything that need not wait
//! for an earlier answer goes out in one write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::connection::{
    BackendConnection, Found, Identity, Origin, RawConnection, StatementError, decode_reading,
    put_command, put_query,
};
use super::facts::{Greeted, ServerFacts, ServerLimits, Virtuals};
use super::login::LoggedIn;
use super::state::{Catalog, IdleTimeouts, SchemaColumn, State, StateIds};
use crate::protocol::capability::Capabilities;
use crate::protocol::command::Command;
use crate::protocol::handshake::Greeting;
use crate::protocol::reply::StatusFlags;
use crate::relay::Conn;
use crate::relay::own::{OwnError, OwnResultSet, read_own_ok, read_own_result_set};

/// Bytes of the list of a server's variables.
const DISCOVERY_MAX: usize = 4 << 20;

/// The limits and the virtual variables, as a fresh connection has them; then the trackers and the role,
/// where there are such.
const LIMITS_SQL: &str = "SELECT @@wait_timeout,@@interactive_timeout,@@max_connections,\
     @@max_prepared_stmt_count,@@max_allowed_packet";
const TRACKERS_SQL: &str = ",@@session_track_system_variables,@@session_track_schema,\
     @@session_track_state_change,@@session_track_transaction_info";

/// What setting up needs besides the connection.
#[derive(Debug)]
pub(super) struct SetUp<'a> {
    /// The facts of the same server, if they are known already.
    pub known: Option<Arc<ServerFacts>>,
    /// Where ids of states come from.
    pub ids: &'a StateIds,
    /// `pool.init_query`; empty: none.
    pub init_query: &'a str,
    /// The connection's process-wide id.
    pub id: u64,
}

/// Sets a connection up. Not cancel-safe.
///
/// # Errors
/// [`StatementError`]; the connection is closed then.
pub(super) async fn set_up(
    logged_in: LoggedIn,
    set_up: SetUp<'_>,
) -> Result<BackendConnection, StatementError> {
    let greeting = logged_in.greeting;
    let identity = Identity::new(set_up.id, greeting.connection_id, logged_in.capabilities);
    let mut conn = Conn::new(logged_in.stream);
    conn.input = logged_in.read_buffer;
    let status = StatusFlags(logged_in.status);
    let mut raw = RawConnection {
        conn,
        identity,
        status,
    };
    let facts = match set_up
        .known
        .filter(|facts| *facts.greeted.version == *version(&greeting))
    {
        Some(facts) => facts,
        None => Arc::new(discover(&mut raw, &greeting, set_up.ids.clone()).await?),
    };
    let found = first_state(&mut raw, &facts, set_up.init_query).await?;
    raw.conn.release();
    Ok(BackendConnection::new(raw, facts, found))
}

/// What a greeting shows.
pub fn greeted(greeting: &Greeting) -> Greeted {
    Greeted {
        version: version(greeting).into(),
        capabilities: greeting.capabilities,
        collation: greeting.collation,
        status: greeting.status,
    }
}

fn version(greeting: &Greeting) -> String {
    String::from_utf8_lossy(&greeting.server_version).into_owned()
}

impl BackendConnection {
    /// Runs `pool.init_query` again, after a reset. Not cancel-safe.
    ///
    /// # Errors
    /// [`StatementError`].
    pub async fn run_init_query(&mut self, init_query: &str) -> Result<(), StatementError> {
        let identity = self.identity();
        run_init_query(&mut self.conn, identity, init_query).await
    }
}

impl RawConnection {
    fn query(&mut self, sql: &[u8]) {
        put_query(
            &mut self.conn.output,
            self.identity.has_query_attributes(),
            sql,
        );
    }

    async fn rows(&mut self, max: usize) -> Result<OwnResultSet, StatementError> {
        Ok(read_own_result_set(&mut self.conn, self.identity.framing(), max).await?)
    }

    async fn ok(&mut self) -> Result<(), StatementError> {
        let answer = read_own_ok(&mut self.conn, self.identity.framing()).await?;
        self.status = answer.status.unwrap_or(self.status);
        Ok(())
    }
}

/// Learns the server's session variables.
async fn discover(
    raw: &mut RawConnection,
    greeting: &Greeting,
    ids: StateIds,
) -> Result<ServerFacts, StatementError> {
    let version = version(greeting);
    let mut catalog = Catalog::builtin(&version);
    for discovery in Catalog::discovery_sql(&version) {
        raw.query(discovery.sql.as_bytes());
        raw.conn.send().await?;
        match raw.rows(DISCOVERY_MAX).await {
            Ok(set) => {
                let names = set.rows.iter().filter_map(|row| row.first()?.as_deref());
                if let Some(found) = Catalog::from_rows(&version, *discovery, names) {
                    catalog = found;
                    break;
                }
            }
            // No privilege, or no such table: the next way.
            Err(StatementError::Own(OwnError::Server(_))) => {}
            Err(error) => return Err(error),
        }
    }
    let catalog = readable(raw, catalog).await?;
    let trackers = raw.identity.framing().session_track;
    Ok(ServerFacts::new(greeted(greeting), catalog, ids, trackers))
}

/// The catalog without the variables that cannot be read after all.
async fn readable(
    raw: &mut RawConnection,
    mut catalog: Catalog,
) -> Result<Catalog, StatementError> {
    const UNKNOWN_SYSTEM_VARIABLE: u16 = 1193;
    loop {
        raw.query(catalog.read_all_sql(SchemaColumn::Omit).sql());
        raw.conn.send().await?;
        match raw.rows(DISCOVERY_MAX).await {
            Ok(_) => return Ok(catalog),
            Err(StatementError::Own(OwnError::Server(error)))
                if error.code == UNKNOWN_SYSTEM_VARIABLE =>
            {
                let message = String::from_utf8_lossy(&error.message).into_owned();
                let name = message.split('\'').nth(1).unwrap_or_default();
                let smaller = catalog.without(name);
                if smaller.len() == catalog.len() {
                    return Err(OwnError::Server(error).into());
                }
                catalog = smaller;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Switches the trackers on, runs `init_query` and reads the state that follows.
async fn first_state(
    raw: &mut RawConnection,
    facts: &ServerFacts,
    init_query: &str,
) -> Result<Found, StatementError> {
    let trackers = if facts.trackers { TRACKERS_SQL } else { "" };
    let role = if facts.has_roles() {
        ",HEX(CURRENT_ROLE())"
    } else {
        ""
    };
    raw.query(format!("{LIMITS_SQL}{trackers}{role} LIMIT 1").as_bytes());
    if facts.trackers {
        raw.query(facts.catalog.setup_sql().as_bytes());
    }
    let read_all = facts.catalog.read_all_sql(SchemaColumn::Include);
    if init_query.is_empty() {
        raw.query(read_all.sql());
    }
    raw.conn.send().await?;
    let shown = raw.rows(DISCOVERY_MAX).await?;
    let (limits, virtuals) = limits_of(&shown)?;
    let origin = Origin::of(&shown, facts.has_roles());
    if facts.trackers {
        raw.ok().await?;
    }
    if !init_query.is_empty() {
        run_init_query(&mut raw.conn, raw.identity, init_query).await?;
        raw.query(read_all.sql());
        raw.conn.send().await?;
    }
    let reading = decode_reading(&raw.rows(DISCOVERY_MAX).await?, &read_all)?;
    let state: State = facts
        .store
        .from_reading(&reading)
        .ok_or(StatementError::NoRow)?;
    Ok(Found {
        state,
        virtuals: Arc::new(virtuals),
        limits,
        origin,
    })
}

/// Runs the operator's statements, several as they may be, and drops their answers.
async fn run_init_query(
    conn: &mut Conn,
    identity: Identity,
    init_query: &str,
) -> Result<(), StatementError> {
    const MULTI_STATEMENTS_ON: [u8; 2] = [0, 0];
    const MULTI_STATEMENTS_OFF: [u8; 2] = [1, 0];
    let framing = identity.framing();
    let option = !identity
        .capabilities()
        .contains(Capabilities::MULTI_STATEMENTS);
    if option {
        put_command(&mut conn.output, Command::SetOption, &MULTI_STATEMENTS_ON);
    }
    put_query(
        &mut conn.output,
        identity.has_query_attributes(),
        init_query.as_bytes(),
    );
    if option {
        put_command(&mut conn.output, Command::SetOption, &MULTI_STATEMENTS_OFF);
    }
    conn.send().await?;
    if option {
        read_own_ok(conn, framing).await?;
    }
    // One answer for each statement, with rows or without.
    read_own_result_set(conn, framing, DISCOVERY_MAX).await?;
    if option {
        read_own_ok(conn, framing).await?;
    }
    Ok(())
}

fn limits_of(set: &OwnResultSet) -> Result<(ServerLimits, Virtuals), StatementError> {
    let row = set.rows.first().ok_or(StatementError::NoRow)?;
    let text = |at: usize| -> Option<Box<str>> {
        let value: &Bytes = row.get(at)?.as_ref()?;
        Some(String::from_utf8_lossy(value).into())
    };
    let cells: Vec<Option<&[u8]>> = row.iter().take(2).map(Option::as_deref).collect();
    let idle = IdleTimeouts::from_row(&cells);
    let limits = ServerLimits {
        max_connections: text(2).and_then(|number| number.parse().ok()),
        max_prepared: text(3).and_then(|number| number.parse().ok()),
        wait_timeout: idle.map(|idle| Duration::from_secs(idle.wait)),
    };
    let virtuals = Virtuals {
        idle,
        track_system_variables: text(5),
        track_schema: text(6),
        track_state_change: text(7),
        track_transaction_info: text(8),
    };
    Ok((limits, virtuals))
}
