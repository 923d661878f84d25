//! Opening backend connections for a pool: credentials tried in turn, facts kept up to date.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::connection::{BackendConnection, StatementError};
use super::dial::Address;
use super::facts::{Greeted, ServerFacts, ServerLimits, Virtuals};
use super::key::PoolKey;
use super::login::{self, Denial, LoggedIn, LoginError, LoginParams};
use super::setup::{self, SetUp, greeted};
use super::state::{Baselines, KnownTransitions, State, StateIds};
use super::tls::BackendTls;
use crate::config::Live;
use crate::pool::Connector;
use crate::protocol::auth::Secret;
use crate::protocol::auth::client::{Proof, ProofDemand};
use crate::protocol::capability::KeyBits;
use crate::relay::ErrorInfo;
use crate::relay::own::OwnError;

/// The collation pooled connections log in with when no session asks for one: `utf8mb4_general_ci`,
/// which every server since 5.5.3 has.
pub const DEFAULT_COLLATION: u8 = 45;

/// First states remembered per backend.
const BASELINES: usize = 4096;
/// Plain `SET`s whose effect is remembered, per backend.
const TRANSITIONS: usize = 4096;

/// What decides a session's first state besides the server's globals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BaselineKey {
    /// The account.
    pub account_id: u64,
    /// The collation id of the handshake.
    pub collation: u8,
    /// The capabilities of the key.
    pub bits: KeyBits,
}

/// Why a backend connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The login failed.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The login succeeded, setting up did not.
    #[error("setting the connection up: {0}")]
    SetUp(#[from] StatementError),
    /// No secret of the account is known: its proof was withdrawn.
    #[error("the account's password is not known")]
    NoSecret,
    /// The login succeeded, but what it showed was withdrawn before it could be used. Trying again helps.
    #[error("the session's first state changed while it was read")]
    NoBaseline,
}

impl DialError {
    /// What the server denied, if that is why. A login that would succeed with any password is denied by Sidepool.
    pub fn denial(&self) -> Option<Denial> {
        match self {
            Self::Login(LoginError::NotProof) => Some(Denial::Account),
            Self::Login(error) => error.denial(),
            Self::SetUp(_) if self.expired().is_some() => Some(Denial::Account),
            Self::SetUp(_) | Self::NoBaseline => None,
            Self::NoSecret => Some(Denial::Credentials),
        }
    }

    /// The server's words when it lets an account in whose password has expired and then refuses every statement,
    /// as MariaDB does.
    pub fn expired(&self) -> Option<&ErrorInfo> {
        const MUST_CHANGE_PASSWORD: u16 = 1820;
        match self {
            Self::SetUp(StatementError::Own(OwnError::Server(error)))
                if error.code == MUST_CHANGE_PASSWORD =>
            {
                Some(error)
            }
            _ => None,
        }
    }

    /// Whether a login that ended like this withdraws the secret that it was tried with.
    fn speaks_against_secret(&self) -> bool {
        matches!(self.denial(), Some(Denial::Credentials | Denial::Account))
    }
}

/// Opens connections to one backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: Address,
    tls: BackendTls,
    settings: Arc<Live>,
    ids: StateIds,
    next_id: AtomicU64,
    facts: ArcSwapOption<ServerFacts>,
    greeted: ArcSwapOption<Greeted>,
    virtuals: ArcSwap<Virtuals>,
    baselines: Baselines<BaselineKey>,
    transitions: KnownTransitions,
    limits: watch::Sender<ServerLimits>,
    reachable: AtomicBool,
    /// Statements under way that change the server's variables.
    changing_globals: AtomicUsize,
}

impl Dialer {
    /// A dialer for `address`. `ids` is shared by all dialers of the process.
    pub fn new(address: Address, tls: BackendTls, settings: Arc<Live>, ids: StateIds) -> Self {
        Self(Arc::new(Shared {
            address,
            tls,
            settings,
            ids,
            next_id: AtomicU64::new(1),
            facts: ArcSwapOption::empty(),
            greeted: ArcSwapOption::empty(),
            virtuals: ArcSwap::default(),
            baselines: Baselines::new(BASELINES),
            transitions: KnownTransitions::new(TRANSITIONS),
            limits: watch::Sender::new(ServerLimits::default()),
            reachable: AtomicBool::new(true),
            changing_globals: AtomicUsize::new(0),
        }))
    }

    /// Where it dials.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Whether the last attempt to reach the server got an answer from it.
    pub fn is_reachable(&self) -> bool {
        self.0.reachable.load(Ordering::Relaxed)
    }

    /// What the server greets with, as last seen; remembered while it is down.
    pub fn greeted(&self) -> Option<Arc<Greeted>> {
        self.0.greeted.load_full()
    }

    /// The virtual variables as the last login found them.
    pub fn virtuals(&self) -> Arc<Virtuals> {
        self.0.virtuals.load_full()
    }

    /// The server's limits, as the last login showed them.
    pub fn limits(&self) -> watch::Receiver<ServerLimits> {
        self.0.limits.subscribe()
    }

    /// A login or a probe has read the server's limits; whatever it could not read stays as it is.
    pub fn learn_limits(&self, seen: &ServerLimits) {
        self.0.limits.send_if_modified(|known| {
            let now = ServerLimits {
                max_connections: seen.max_connections.or(known.max_connections),
                max_prepared: seen.max_prepared.or(known.max_prepared),
                wait_timeout: seen.wait_timeout.or(known.wait_timeout),
            };
            let changed = *known != now;
            *known = now;
            changed
        });
    }

    /// First states by account, charset and capabilities.
    pub fn baselines(&self) -> &Baselines<BaselineKey> {
        &self.0.baselines
    }

    /// Effects of plain `SET`s that are known already.
    pub fn transitions(&self) -> &KnownTransitions {
        &self.0.transitions
    }

    /// The first state for `key`, unless it is older than `max_age` or a client is changing the server's
    /// variables at this moment.
    pub fn first_state(&self, key: &BaselineKey, max_age: Duration) -> Option<State> {
        match self.0.changing_globals.load(Ordering::SeqCst) {
            0 => self.0.baselines.get(key, Instant::now(), max_age),
            _ => None,
        }
    }

    /// A client is about to change variables of the server. Until the guard is dropped, every login is
    /// looked at anew; from then on, what was seen before is forgotten.
    pub fn changing_globals(&self) -> ChangingGlobals {
        self.0.changing_globals.fetch_add(1, Ordering::SeqCst);
        ChangingGlobals(self.clone())
    }

    /// A variable of the server is another: what logins and `SET`s lead to is to be looked at anew.
    pub fn forget_globals(&self) {
        self.globals_changed(Instant::now());
    }

    /// The variables of the server changed before `seen`.
    fn globals_changed(&self, seen: Instant) {
        self.0.baselines.expire(seen);
        self.0.transitions.clear();
    }

    /// Learns the greeting without credentials. Not to be cancelled.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn greet(&self) -> Result<Arc<Greeted>, LoginError> {
        let timeout = self.connect_timeout();
        let greeting = login::read_greeting(&self.0.address, timeout).await?;
        let greeted = Arc::new(greeted(&greeting));
        self.0.greeted.store(Some(Arc::clone(&greeted)));
        Ok(greeted)
    }

    /// Logs in with that secret and sets the connection up; `proof`: whether the login must show that
    /// the server looked at the secret. What the login shows is remembered, and the account is told what it says of
    /// the secret. Not to be cancelled.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn log_in(
        &self,
        key: &PoolKey,
        secret: Secret,
        collation: u8,
        proof: ProofDemand,
    ) -> Result<BackendConnection, DialError> {
        let opened = self.open(key, secret.clone(), collation, proof).await;
        match &opened {
            Ok((_, Proof::SecretUsed(_))) => key.credentials().confirmed(&secret),
            Err(error) if error.speaks_against_secret() => {
                Arc::clone(key.credentials()).denied(&secret);
            }
            _ => {}
        }
        opened.map(|(connection, _)| connection)
    }

    async fn open(
        &self,
        key: &PoolKey,
        secret: Secret,
        collation: u8,
        proof: ProofDemand,
    ) -> Result<(BackendConnection, Proof), DialError> {
        let user = Bytes::copy_from_slice(key.credentials().user());
        let params = LoginParams {
            proof,
            ..self.params(user, key.bits(), secret, collation)
        };
        let read_at = Instant::now();
        let logged_in = login::login(&self.0.address, &params).await;
        let answered = !matches!(
            logged_in,
            Err(LoginError::Unreachable { .. }
                | LoginError::Timeout { .. }
                | LoginError::Lost { .. })
        );
        self.0.reachable.store(answered, Ordering::Relaxed);
        let logged_in = logged_in?;
        self.0
            .greeted
            .store(Some(Arc::new(greeted(&logged_in.greeting))));
        let proof = logged_in.proof;
        let settings = self.0.settings.load();
        let set_up = SetUp {
            known: self.0.facts.load_full(),
            ids: &self.0.ids,
            init_query: settings.pool.init_query.as_deref().unwrap_or_default(),
            id: self.0.next_id.fetch_add(1, Ordering::Relaxed),
        };
        let connection = setup::set_up(logged_in, set_up).await?;
        self.remember(key, collation, &connection, read_at);
        Ok((connection, proof))
    }

    /// Logs in with a secret and leaves it at that: nothing is set up, and only the greeting remembered. Not to be
    /// cancelled.
    ///
    /// # Errors
    /// [`LoginError`].
    pub(super) async fn log_in_only(
        &self,
        user: Bytes,
        secret: Secret,
    ) -> Result<LoggedIn, LoginError> {
        let params = self.params(user, KeyBits::default(), secret, DEFAULT_COLLATION);
        let logged_in = login::login(&self.0.address, &params).await?;
        let greeted = greeted(&logged_in.greeting);
        self.0.greeted.store(Some(Arc::new(greeted)));
        Ok(logged_in)
    }

    fn params(&self, user: Bytes, bits: KeyBits, secret: Secret, collation: u8) -> LoginParams {
        let settings = self.0.settings.load();
        let attribute = (
            Bytes::from_static(b"program_name"),
            Bytes::from_static(b"sidepool"),
        );
        LoginParams {
            user,
            secret,
            database: None,
            collation,
            wanted: bits.capabilities(),
            attributes: vec![attribute],
            tls: self.0.tls.clone(),
            timeout: settings.backend.connect_timeout,
            allow_public_key_retrieval: settings.backend.allow_public_key_retrieval,
            proof: ProofDemand::Required,
        }
    }

    fn remember(
        &self,
        key: &PoolKey,
        collation: u8,
        connection: &BackendConnection,
        read_at: Instant,
    ) {
        let account_id = key.credentials().account_id();
        let key = BaselineKey {
            account_id,
            collation,
            bits: key.bits(),
        };
        let changed = |before: State| before != connection.state;
        if self.0.baselines.last(&key).is_some_and(changed) {
            debug!(backend = %self.0.address, "a login shows other variables than the one before");
            self.globals_changed(read_at);
        }
        self.0
            .baselines
            .insert(key, connection.state.clone(), read_at);
        self.0.virtuals.store(Arc::clone(connection.virtuals()));
        let facts = connection.facts();
        let before = self.0.facts.swap(Some(Arc::clone(facts)));
        if !facts.trackers && before.is_none_or(|before| before.trackers) {
            warn!(
                backend = %self.0.address,
                "the server has no session trackers, so every session is pinned (no_trackers)"
            );
        }
        self.learn_limits(connection.limits());
    }

    fn connect_timeout(&self) -> Duration {
        self.0.settings.load().backend.connect_timeout
    }
}

/// See [`Dialer::changing_globals`].
#[derive(Debug)]
pub struct ChangingGlobals(Dialer);

impl Drop for ChangingGlobals {
    fn drop(&mut self) {
        self.0.forget_globals();
        self.0.0.changing_globals.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connector for Dialer {
    type Conn = BackendConnection;
    type Key = PoolKey;
    type Error = DialError;

    /// Tries each known secret until one is not denied: two are known while a password changes.
    async fn connect(&self, key: &PoolKey) -> Result<BackendConnection, DialError> {
        let mut last = DialError::NoSecret;
        for secret in key.credentials().secrets() {
            // One more round trip on MariaDB, for which the next client's login costs none, and an account that
            // no longer asks for its password is noticed.
            let proof = ProofDemand::Required;
            match self.log_in(key, secret, DEFAULT_COLLATION, proof).await {
                Err(error) if error.denial() == Some(Denial::Credentials) => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    fn is_full(error: &DialError) -> bool {
        matches!(error, DialError::Login(error) if error.is_full())
    }

    fn is_denied(error: &DialError) -> bool {
        error.speaks_against_secret()
    }
}
