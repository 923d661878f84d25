//! Where accounts meet the database: passwords are proved at a backend, and what follows when one is
//! no longer good.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::failure::Failure;
use super::targets::Targets;
use crate::backend::dialer::{DEFAULT_COLLATION, DialError};
use crate::backend::key::{Credentials, PoolKey};
use crate::backend::login::{Denial, LoginError};
use crate::backend::target::{Target, TargetError};
use crate::client::accounts::{
    Account, AccountId, Proof, ProofFuture, ProofRequest, ProveError, Prover, SecretId,
};
use crate::config::Live;
use crate::pool::BorrowError;
use crate::protocol::auth::Secret;
use crate::protocol::capability::KeyBits;
use crate::reason::{CloseReason, RetireReason};
use crate::session::directory::Directory;

/// Users of whom is remembered how their clients log in.
const HINTS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Pause before a server that was full is asked again, at first and at most.
const FULL_PAUSE: Duration = Duration::from_millis(50);
const FULL_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Proves passwords at a backend.
pub(super) struct BackendProver {
    pub(super) targets: Arc<Targets>,
    pub(super) live: Arc<Live>,
    pub(super) directory: Arc<Directory>,
    pub(super) logins: Arc<Logins>,
}

/// What logins leave behind: how clients of a user log in, and which password let a client in.
pub(super) struct Logins {
    habits: Mutex<LruCache<Bytes, Habit>>,
    clients: Mutex<HashMap<u32, (AccountId, SecretId)>>,
}

/// What a client's login asks of the backend connection that proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Habit {
    pub(super) bits: KeyBits,
    pub(super) collation: u8,
}

/// Keeps in mind which password let a client in, for as long as it lives.
pub(super) struct LoggedIn {
    logins: Arc<Logins>,
    id: u32,
}

impl Credentials for Account {
    fn account_id(&self) -> u64 {
        self.id().get()
    }

    fn user(&self) -> &[u8] {
        Self::user(self)
    }

    fn secrets(&self) -> Vec<Secret> {
        let known = self.candidates().into_iter();
        known.map(|known| known.secret).collect()
    }

    fn confirmed(&self, secret: &Secret) {
        Self::confirmed(self, secret);
    }

    fn denied(self: Arc<Self>, secret: &Secret) {
        Self::denied(&self, secret);
    }
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            habits: Mutex::new(LruCache::new(HINTS)),
            clients: Mutex::default(),
        }
    }
}

impl Logins {
    /// A client of `user` logged in like this; the next one will most likely do the same.
    pub(super) fn note_habit(&self, user: &Bytes, habit: Habit) {
        self.habits.lock().put(user.clone(), habit);
    }

    /// How a client of `user` is likely to log in. A user's first is taken to be like others' last, unless
    /// the charset of the login decides which user it is.
    fn habit(&self, user: &Bytes) -> Habit {
        let mut habits = self.habits.lock();
        let own = habits.get(user).copied();
        let is_utf8 = !user.is_ascii() && std::str::from_utf8(user).is_ok();
        let others = || {
            habits
                .iter()
                .next()
                .map(|(_, habit)| *habit)
                .filter(|_| !is_utf8)
        };
        own.or_else(others).unwrap_or(Habit {
            bits: KeyBits::default(),
            collation: DEFAULT_COLLATION,
        })
    }

    /// A client came in with that password.
    pub(super) fn enter(
        self: &Arc<Self>,
        id: u32,
        account: AccountId,
        secret: SecretId,
    ) -> LoggedIn {
        self.clients.lock().insert(id, (account, secret));
        LoggedIn {
            logins: Arc::clone(self),
            id,
        }
    }

    /// Whether a client that is `account` now may go on being it when `revoked` is no longer good.
    fn survives(&self, id: u32, account: AccountId, revoked: SecretId) -> bool {
        match self.clients.lock().get(&id) {
            Some((of, with)) => *of == account && *with != revoked,
            None => false,
        }
    }
}

impl Drop for LoggedIn {
    fn drop(&mut self) {
        self.logins.clients.lock().remove(&self.id);
    }
}

impl Prover for BackendProver {
    fn prove(&self, request: ProofRequest) -> ProofFuture {
        let member = self.targets.proving();
        let (target, backend) = (member.target.clone(), member.name.clone());
        let habit = self.logins.habit(request.account.user());
        let limit = self.live.load().pool.borrow_timeout;
        Box::pin(async move {
            match log_in(&target, &request, habit, limit).await {
                Ok(()) => Ok(Proof::Lasting),
                Err(error) => Err(prove_error(&error, &backend)),
            }
        })
    }

    fn revoked(&self, account: &Arc<Account>, secret: SecretId) {
        let id = account.id();
        let is_theirs = |key: &PoolKey| key.credentials().account_id() == id.get();
        let mut retired = 0;
        for member in self.targets.members() {
            let pool = member.target.pool();
            retired += pool.retire_keys(is_theirs, RetireReason::AuthRevoked);
            if account.login_secret().is_none() {
                pool.fail_waiters(is_theirs, Arc::new(DialError::NoSecret));
            }
        }
        let clients = self.directory.list();
        let theirs = clients
            .iter()
            .filter(|client| client.identity.account_id() == Some(id.get()));
        let mut ended = 0;
        for client in theirs.filter(|client| !self.logins.survives(client.id, id, secret)) {
            if let Some(entry) = self.directory.get(client.id) {
                entry.end(CloseReason::AuthRevoked);
                ended += 1;
            }
        }
        let user = &*String::from_utf8_lossy(account.user());
        info!(
            user,
            idle_backend_connections = retired,
            clients = ended,
            "password revoked: what was opened with it is closed when idle"
        );
    }
}

/// A login that waits while the server is full.
async fn log_in(
    target: &Target,
    request: &ProofRequest,
    habit: Habit,
    limit: Duration,
) -> Result<(), TargetError> {
    let account: Arc<dyn Credentials> = Arc::<Account>::clone(&request.account);
    let key = PoolKey::new(account, habit.bits);
    let until = Instant::now() + limit;
    let mut pause = FULL_PAUSE;
    loop {
        let proved = target
            .prove(&key, request.secret.clone(), habit.collation)
            .await;
        let full = match &proved {
            Err(BorrowError::Connect(error)) => {
                matches!(&**error, DialError::Login(error) if error.is_full())
            }
            _ => false,
        };
        if !full || Instant::now() + pause > until {
            return proved;
        }
        sleep(pause).await;
        pause = (pause * 2).min(FULL_PAUSE_MAX);
    }
}

fn prove_error(error: &TargetError, backend: &str) -> ProveError {
    let failure = Failure::of_target(error, backend);
    let BorrowError::Connect(error) = error else {
        return ProveError::Unavailable(failure.error);
    };
    match &**error {
        DialError::Login(LoginError::NotProof) => ProveError::NotProof,
        error => match error.denial() {
            Some(Denial::Credentials | Denial::Account) => ProveError::Denied(failure.error),
            Some(Denial::Blocked) => ProveError::Blocked(failure.error),
            _ => ProveError::Unavailable(failure.error),
        },
    }
}
