//! One backend server as sessions see it: its pool, and what is known of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::connection::{BackendConnection, StatementError};
use super::dialer::{BaselineKey, DialError, Dialer};
use super::facts::ServerLimits;
use super::key::PoolKey;
use super::state::{KnownTransitions, State, replay};
use super::statements::share_of;
use crate::config::{Live, Settings};
use crate::pool::{BorrowError, Connector, Events, Limits, Pool, PooledConnection, SlotGuard};
use crate::protocol::auth::Secret;
use crate::protocol::auth::client::ProofDemand;
use crate::protocol::command::Command;
use crate::reason::RetireReason;
use crate::relay::ErrorInfo;
use crate::relay::own::OwnError;

/// Databases that were selected with success and need not be tried again at the next login.
const DATABASES: usize = 4096;
/// Pause between two attempts to learn a server's greeting.
const GREET_EVERY: Duration = Duration::from_secs(1);
/// How long a kill waits for a place within the limit.
const KILL_WAITS: Duration = Duration::from_millis(100);
/// `max_prepared_stmt_count` of a server that has not been asked.
const DEFAULT_MAX_PREPARED: u64 = 16_382;
/// Connections until the server has said how many it allows.
const UNTIL_KNOWN: usize = 4;

/// A borrow that failed.
pub type TargetError = BorrowError<DialError>;

/// What a kill ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// The statement.
    Query,
    /// The connection. A loop of statements may outlive a `KILL QUERY`, which one of them takes for its own
    /// (MariaDB 10.11.19: `LOOP CREATE OR REPLACE VIEW …; END LOOP`).
    Connection,
}

/// Logins that may be looked at in vain for a session's first state.
const FIRST_STATE_TRIES: usize = 5;

/// One backend server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Target(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    pool: Pool<Dialer>,
    settings: Arc<Live>,
    databases: Mutex<HashMap<DatabaseKey, KnownDatabase>>,
    /// The one place beyond the limit, for kills.
    kill_place: Semaphore,
}

/// Where a kill's own connection counts; given back when dropped.
enum KillPlace<'t> {
    Within(#[expect(dead_code, reason = "held")] SlotGuard<Dialer>),
    Beyond(#[expect(dead_code, reason = "held")] SemaphorePermit<'t>),
}

type DatabaseKey = (u64, Bytes);

#[derive(Debug, Clone)]
struct KnownDatabase {
    /// The name as the server knows it, which may differ in case.
    name: Bytes,
    seen: Instant,
}

/// Why a database cannot be selected.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The server refuses it.
    #[error("{0}")]
    Refused(ErrorInfo),
    /// No backend connection could be had to ask.
    #[error(transparent)]
    Borrow(#[from] TargetError),
    /// The backend connection failed while it was asked.
    #[error(transparent)]
    Statement(StatementError),
}

/// Why a statement could not be killed.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// No place at the server.
    #[error(transparent)]
    Borrow(#[from] TargetError),
    /// No connection to it.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server refused, or the connection failed.
    #[error(transparent)]
    Statement(#[from] StatementError),
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("address", self.dialer.address())
            .finish_non_exhaustive()
    }
}

impl Target {
    /// A target without any connection. Must be called within a runtime.
    pub fn new(dialer: Dialer, settings: Arc<Live>, events: Arc<dyn Events>) -> Self {
        let limits = {
            let now = settings.load();
            limits(&now, &ServerLimits::default())
        };
        let pool = Pool::new(dialer.clone(), limits, events);
        Self(Arc::new(Inner {
            dialer,
            pool,
            settings,
            databases: Mutex::new(HashMap::new()),
            kill_place: Semaphore::new(1),
        }))
    }

    /// Whether this is the same one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Opens connections and knows the server.
    pub fn dialer(&self) -> &Dialer {
        &self.0.dialer
    }

    /// The pool.
    pub fn pool(&self) -> &Pool<Dialer> {
        &self.0.pool
    }

    /// Effects of plain `SET`s that are known already.
    pub fn transitions(&self) -> &KnownTransitions {
        self.0.dialer.transitions()
    }

    /// How many prepared statements a connection may keep for sessions to share.
    pub fn statements_per_connection(&self) -> usize {
        let settings = self.0.settings.load();
        let server = self.0.dialer.limits().borrow().clone();
        let connections = limits(&settings, &server).max_connections;
        share_of(
            server.max_prepared.unwrap_or(DEFAULT_MAX_PREPARED),
            connections,
        )
    }

    /// How many prepared statements the server allows in all.
    pub fn max_prepared(&self) -> u64 {
        let limits = self.0.dialer.limits();
        let known = limits.borrow().max_prepared;
        known.unwrap_or(DEFAULT_MAX_PREPARED)
    }

    /// Proves a secret by a real login, which then joins the pool.
    ///
    /// # Errors
    /// [`BorrowError::Connect`] with what the server said. Cancel safe: a begun login is finished.
    pub async fn prove(
        &self,
        key: &PoolKey,
        secret: Secret,
        collation: u8,
    ) -> Result<(), TargetError> {
        let dial = {
            let (dialer, key) = (self.0.dialer.clone(), key.clone());
            let proof = ProofDemand::Required;
            async move { dialer.log_in(&key, secret, collation, proof).await }
        };
        self.0.pool.open(key, dial, self.borrow_timeout()).await
    }

    /// The state that a real login with that account, charset and capabilities shows. Read by one,
    /// at most `auth.recheck` ago.
    ///
    /// # Errors
    /// As [`prove`](Self::prove).
    pub async fn first_state(&self, key: &PoolKey, collation: u8) -> Result<State, TargetError> {
        let account_id = key.credentials().account_id();
        let baseline = BaselineKey {
            account_id,
            collation,
            bits: key.bits(),
        };
        let recheck = self.0.settings.load().auth.recheck;
        if let Some(state) = self.0.dialer.first_state(&baseline, recheck) {
            return Ok(state);
        }
        // What a login showed may be withdrawn before it is used, by somebody who changes the server.
        for _ in 0..FIRST_STATE_TRIES {
            if let Some(state) = self.read_first_state(key, &baseline).await? {
                return Ok(state);
            }
        }
        Err(BorrowError::Connect(Arc::new(DialError::NoBaseline)))
    }

    /// What a login shows now; `None` if that was withdrawn at once.
    async fn read_first_state(
        &self,
        key: &PoolKey,
        baseline: &BaselineKey,
    ) -> Result<Option<State>, TargetError> {
        let mut last = DialError::NoSecret;
        for secret in key.credentials().secrets() {
            let began = Instant::now();
            match self.prove(key, secret, baseline.collation).await {
                Ok(()) => return Ok(self.0.dialer.baselines().since(baseline, began)),
                Err(BorrowError::Connect(error)) if Dialer::is_denied(&error) => {
                    last = DialError::NoSecret;
                    drop(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(BorrowError::Connect(Arc::new(last)))
    }

    /// `state` in that database, if the server lets the account select it.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn select_database(
        &self,
        key: &PoolKey,
        state: &State,
        database: &Bytes,
    ) -> Result<State, DatabaseError> {
        let known = (key.credentials().account_id(), database.clone());
        let recheck = self.0.settings.load().auth.recheck;
        // Which name other bytes are depends on the charset.
        if let Some(found) = self.0.databases.lock().get(&known)
            && found.seen.elapsed() <= recheck
            && database.is_ascii()
        {
            return Ok(state.with_schema(Some(&found.name)));
        }
        let mut lease = self
            .0
            .pool
            .borrow(key, state, self.borrow_timeout())
            .await?;
        let selected = match database.is_ascii() {
            true => init_db(&mut lease, database).await,
            false => init_db_as(&mut lease, state, database).await,
        };
        match selected {
            Ok(name) => {
                lease.state = lease.state.with_schema(Some(&name));
                lease.give_back();
                self.remember_database(known, name.clone());
                Ok(state.with_schema(Some(&name)))
            }
            Err(StatementError::Own(OwnError::Server(error))) => {
                lease.give_back();
                Err(DatabaseError::Refused(error))
            }
            Err(error) => {
                lease.retire(RetireReason::Broken);
                Err(DatabaseError::Statement(error))
            }
        }
    }

    /// Accounts, roles or privileges are changing. A connection has the privileges of its login, so none of
    /// before is lent to anybody any more.
    pub fn forget_privileges(&self) {
        self.0.dialer.forget_globals();
        self.0.databases.lock().clear();
        let reason = RetireReason::PrivilegesChanged;
        let idle = self.0.pool.retire_keys(|_| true, reason);
        debug!(
            idle,
            "connections of before a change of privileges are closed"
        );
    }

    fn remember_database(&self, key: DatabaseKey, name: Bytes) {
        let mut databases = self.0.databases.lock();
        if databases.len() >= DATABASES {
            databases.clear();
        }
        databases.insert(
            key,
            KnownDatabase {
                name,
                seen: Instant::now(),
            },
        );
    }

    fn borrow_timeout(&self) -> Duration {
        self.0.settings.load().pool.borrow_timeout
    }

    /// Whether the server could be reached when it was tried last.
    pub fn is_reachable(&self) -> bool {
        self.0.dialer.is_reachable()
    }

    /// Kills the statement that runs on that thread, or the thread, over a connection of its own. It counts
    /// in the limit while there is room; a full pool is just when statements have to be killed, so one
    /// kill at a time goes beyond it.
    ///
    /// # Errors
    /// [`KillError`]. Not to be cancelled: run it where it can end.
    pub async fn kill(
        &self,
        key: &PoolKey,
        what: Kill,
        thread: u64,
        within: Duration,
    ) -> Result<(), KillError> {
        let place = self.place_for_kill(within).await?;
        let mut connection = self.0.dialer.connect(key).await?;
        let what = match what {
            Kill::Query => "QUERY",
            Kill::Connection => "CONNECTION",
        };
        connection.put_query(format!("KILL {what} {thread}").as_bytes());
        connection.send().await?;
        let killed = connection.read_ok().await;
        connection.close(RetireReason::Admin).await;
        drop(place);
        killed?;
        Ok(())
    }

    async fn place_for_kill(&self, within: Duration) -> Result<KillPlace<'_>, TargetError> {
        let full = match self.0.pool.reserve(KILL_WAITS.min(within)).await {
            Ok(slot) => return Ok(KillPlace::Within(slot)),
            Err(error @ BorrowError::Timeout { .. }) => error,
            Err(error) => return Err(error),
        };
        match tokio::time::timeout(within, self.0.kill_place.acquire()).await {
            Ok(Ok(permit)) => Ok(KillPlace::Beyond(permit)),
            _ => Err(full),
        }
    }

    /// Re-reads the settings' limits.
    pub fn apply_settings(&self) {
        let now = self.0.settings.load();
        let server = self.0.dialer.limits().borrow().clone();
        self.0.pool.set_limits(limits(&now, &server));
    }

    /// Keeps the pool in order until `shutdown`: learns the greeting (unless probes do), follows the server's limits,
    /// retires what is too old.
    pub async fn run(self, shutdown: CancellationToken) {
        let maintain = self.0.pool.clone().maintain(shutdown.clone());
        let follow = async {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.follow_limits() => {}
            }
        };
        let monitored = self.0.settings.load().backend.monitor_user.is_some();
        let greet = async {
            if monitored {
                // The first probe learns the greeting.
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.learn_greeting() => {}
            }
        };
        tokio::join!(maintain, follow, greet);
    }

    async fn follow_limits(&self) {
        let mut limits = self.0.dialer.limits();
        while limits.changed().await.is_ok() {
            self.apply_settings();
        }
    }

    /// Tries until the server has greeted once. What it greets with later, logins show.
    async fn learn_greeting(&self) {
        let mut said = false;
        loop {
            // In a task of its own: dropped half-way it would count to max_connect_errors.
            let dialer = self.0.dialer.clone();
            match tokio::spawn(async move { dialer.greet().await }).await {
                Ok(Ok(greeted)) => {
                    let address = self.0.dialer.address();
                    info!(backend = %address, version = %greeted.version, "backend reached");
                    return;
                }
                Ok(Err(error)) if !said => {
                    let address = self.0.dialer.address();
                    warn!(backend = %address, %error, "backend not reached; trying on");
                    said = true;
                }
                _ => {}
            }
            tokio::time::sleep(GREET_EVERY).await;
        }
    }
}

/// Selects a database; its name as the server knows it.
/// As [`init_db`], with the name in the charset of `state`.
async fn init_db_as(
    connection: &mut BackendConnection,
    state: &State,
    database: &[u8],
) -> Result<Bytes, StatementError> {
    let there = connection.state.schema().map(|name| &**name);
    let wanted = state.with_schema(there);
    if let Ok(replay) = replay(&connection.state, &wanted)
        && let Some(sql) = &replay.set_sql
    {
        connection.put_query(sql);
        connection.send().await?;
        connection.read_ok().await?;
        connection.state = wanted;
    }
    init_db(connection, database).await
}

async fn init_db(
    connection: &mut BackendConnection,
    database: &[u8],
) -> Result<Bytes, StatementError> {
    connection.put_command(Command::InitDb, database);
    connection.send().await?;
    let answer = connection.read_ok().await?;
    Ok(Bytes::copy_from_slice(
        answer.trackers.schema().unwrap_or(database),
    ))
}

fn limits(settings: &Settings, server: &ServerLimits) -> Limits {
    let (settings, backend) = (&settings.pool, &settings.backend);
    let percent = |of: usize, percent: u8| of * usize::from(percent) / 100;
    let wanted = match (settings.max_connections, server.max_connections) {
        (0, Some(server)) => percent(server as usize, settings.max_connections_percent),
        (0, None) => UNTIL_KNOWN,
        (set, _) => set,
    };
    // One of them is the probe's.
    let least = match backend.monitor_user {
        Some(_) => 2,
        None => 1,
    };
    let max_connections = wanted.max(least);
    Limits {
        max_connections,
        // Rounded up: a pool of one may keep its connection.
        max_idle: (max_connections * usize::from(settings.max_idle_percent)).div_ceil(100),
        min_idle: settings.min_idle,
        idle_timeout: settings.idle_timeout,
        max_lifetime: settings.max_lifetime,
        max_dials: backend.max_dials,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_the_least_size_may_keep_its_connection() {
        let mut settings = Settings::default();
        settings.pool.max_connections_percent = 1;
        let server = ServerLimits {
            max_connections: Some(50),
            ..ServerLimits::default()
        };
        let limits = limits(&settings, &server);
        assert_eq!((limits.max_connections, limits.max_idle), (1, 1));
    }
}
