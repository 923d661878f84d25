//! The credential store: who may come in without the database being asked, and who has to be proved.
//!
//! In mode `passthrough` the database decides: a secret is good for `auth.recheck` after a login with it
//! succeeded, then it is proved again, once, however many clients wait for it. In mode `users` the settings
//! decide. Owns the accounts and the proofs under way; the login itself is the caller's, as [`Prover`].

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

pub use super::account::{Account, AccountId, KnownSecret, SecretId};
use super::account::{Ids, Register, Standing};
use super::throttle::Throttle;
use crate::config::{AuthMode, AuthSettings};
use crate::metrics::LoginPath;
use crate::protocol::auth::Secret;
use crate::protocol::auth::server::Verdict;
use crate::protocol::handshake::{ServerError, SqlState};

/// How long a secret that was replaced in the settings is still good.
pub const GRACE: Duration = Duration::from_secs(60);

/// Logs in to the database to see whether a secret is right.
pub trait Prover: Send + Sync + 'static {
    /// Logs in with [`ProofRequest::secret`]; the connection is the prover's to keep, under
    /// [`ProofRequest::account`]. The future runs in a task of its own and is never cancelled, since a login that
    /// breaks off counts against the whole host.
    fn prove(&self, request: ProofRequest) -> ProofFuture;

    /// The database no longer accepts this secret, to be logged by whoever acts on it: idle backend connections of the account are to be
    /// retired and the sessions that came with the secret closed when they are next idle.
    fn revoked(&self, account: &Arc<Account>, secret: SecretId);
}

/// What [`Prover::prove`] returns.
pub type ProofFuture = Pin<Box<dyn Future<Output = Result<Proof, ProveError>> + Send>>;

/// What is to be proved.
#[derive(Debug)]
pub struct ProofRequest {
    /// Who. Perhaps nobody: an account that was never proved has no secrets yet.
    pub account: Arc<Account>,
    /// With what.
    pub secret: Secret,
}

/// A login that succeeded, and the secret was used in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It speaks for the next clients too.
    Lasting,
    /// For this client only: the password has expired and the session can do nothing but change it.
    Once,
}

/// A login that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProveError {
    /// The database refuses this account with this secret. The secret is forgotten.
    Denied(ServerError),
    /// The database refuses this account for now, whatever the secret. Nothing is forgotten.
    Blocked(ServerError),
    /// No answer to the question: nothing reachable, no room, a timeout. The client is told this error.
    Unavailable(ServerError),
    /// The login would have succeeded with any secret (`unix_socket`).
    NotProof,
}

/// Who a client turned out to be.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its account.
    pub account: Arc<Account>,
    /// The secret it came with.
    pub secret: SecretId,
    /// What proved it.
    pub path: LoginPath,
}

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Wrong user or password, in Sidepool's own words (error 1045).
    AccessDenied,
    /// The database's own words for something else than 1045: expired, locked, host blocked.
    Denied(ServerError),
    /// It could not be found out.
    Unavailable(ServerError),
}

/// The accounts of one process.
pub struct Accounts {
    shared: Arc<Shared>,
    throttle: Throttle,
}

/// The secrets to check a client against, as they were when it came.
#[derive(Debug)]
pub struct Candidates {
    secrets: Vec<Secret>,
}

struct Shared {
    mode: AuthMode,
    settings: ArcSwap<AuthSettings>,
    ids: Ids,
    prover: Arc<dyn Prover>,
    /// Makes names for secrets in [`Book::proofs`] that tell nothing about them.
    pepper: [u8; 32],
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    accounts: HashMap<Vec<u8>, Arc<Account>>,
    /// Accounts that are being proved for the first time, so that two passwords proved at once are one account's.
    newcomers: HashMap<Vec<u8>, Weak<Account>>,
    proofs: HashMap<ProofKey, watch::Receiver<Option<Outcome>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ProofKey {
    user: Vec<u8>,
    secret: [u8; 32],
}

type Outcome = Result<Identity, Refusal>;

enum Admission {
    Decided(Outcome),
    Proving(watch::Receiver<Option<Outcome>>),
}

impl Accounts {
    /// Begins with the settings' users. `auth.mode` stays what it is now.
    pub fn new(
        settings: AuthSettings,
        users: &BTreeMap<String, Secret>,
        prover: Arc<dyn Prover>,
    ) -> Self {
        let shared = Arc::new(Shared {
            mode: settings.mode,
            settings: ArcSwap::from_pointee(settings),
            ids: Ids::default(),
            prover,
            pepper: rand::random(),
            book: Mutex::default(),
        });
        shared.set_users(users);
        Self {
            shared,
            throttle: Throttle::default(),
        }
    }

    /// Takes over changed settings and users.
    pub fn reload(&self, settings: AuthSettings, users: &BTreeMap<String, Secret>) {
        self.shared.settings.store(Arc::new(settings));
        self.shared.set_users(users);
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<AuthSettings> {
        self.shared.settings.load_full()
    }

    /// The brake on failed logins.
    pub const fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// What is known of `user`; nothing, for most names in the world.
    pub fn lookup(&self, user: &[u8]) -> Candidates {
        let account = self.shared.book.lock().accounts.get(user).cloned();
        let known = account.map_or_else(Vec::new, |account| account.candidates());
        let secrets = known.into_iter().map(|known| known.secret).collect();
        Candidates { secrets }
    }

    /// Decides over a client whose exchange with `candidates` ended in `verdict`, asking the database if that is
    /// needed. Cancel-safe: a proof that was begun is finished and remembered all the same.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn decide(
        &self,
        user: &[u8],
        candidates: &Candidates,
        verdict: &Verdict,
    ) -> Result<Identity, Refusal> {
        let secret = match verdict {
            Verdict::Failed(_) => return Err(Refusal::AccessDenied),
            Verdict::Known(proved) => candidates
                .secret(proved.index)
                .ok_or(Refusal::AccessDenied)?,
            Verdict::Cleartext(secret) => secret,
        };
        let mut outcome = match Arc::clone(&self.shared).admit_or_prove(user, secret) {
            Admission::Decided(outcome) => {
                let path = match verdict {
                    Verdict::Cleartext(_) => LoginPath::Full,
                    _ => LoginPath::Cached,
                };
                return outcome.map(|identity| Identity { path, ..identity });
            }
            Admission::Proving(outcome) => outcome,
        };
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The proof's task died; its panic was reported where it happened.
            _ => Err(Refusal::Unavailable(ServerError {
                code: 1105,
                sqlstate: SqlState::HY000,
                message: Bytes::from_static(b"Unknown error"),
            })),
        }
    }
}

impl Candidates {
    /// The secrets, in the order that [`Verdict::Known`] counts them.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// The secret that a scramble was found to fit.
    pub fn secret(&self, index: usize) -> Option<&Secret> {
        self.secrets.get(index)
    }
}

impl Shared {
    fn set_users(self: &Arc<Self>, users: &BTreeMap<String, Secret>) {
        let mut gone = Vec::new();
        {
            let mut book = self.book.lock();
            for (name, secret) in users {
                let account = book.account(self, name.as_bytes());
                match self.mode {
                    AuthMode::Users => account.replace_configured(&self.ids, secret, GRACE),
                    AuthMode::Passthrough => account.preload(&self.ids, secret),
                }
                book.newcomers.remove(name.as_bytes());
                book.accounts.insert(name.clone().into_bytes(), account);
            }
            if self.mode == AuthMode::Users {
                book.accounts.retain(|name, account| {
                    let stays = std::str::from_utf8(name).is_ok_and(|n| users.contains_key(n));
                    if !stays {
                        gone.push(Arc::clone(account));
                    }
                    stays
                });
            }
        }
        for account in gone {
            for known in account.candidates() {
                account.forget_id(known.id);
                self.prover.revoked(&account, known.id);
            }
        }
    }

    /// Decides if that can be done here and now; else joins the proof of this secret that is under way, or
    /// begins it. All under one lock, so that a proof which ends in this moment is not begun again.
    fn admit_or_prove(self: Arc<Self>, user: &[u8], secret: &Secret) -> Admission {
        let recheck = self.settings.load().recheck;
        let mut book = self.book.lock();
        if let Some(account) = book.accounts.get(user)
            && let Some(secret) = account.fresh(secret, recheck)
        {
            let account = Arc::clone(account);
            let path = LoginPath::Cached;
            return Admission::Decided(Ok(Identity {
                account,
                secret,
                path,
            }));
        }
        if self.mode == AuthMode::Users {
            return Admission::Decided(Err(Refusal::AccessDenied));
        }
        let key = ProofKey {
            user: user.to_vec(),
            secret: self.name_of(secret),
        };
        if let Some(proof) = book.proofs.get(&key) {
            return Admission::Proving(proof.clone());
        }
        let account = book.account(&self, user);
        let (told, outcome) = watch::channel(None);
        book.proofs.insert(key.clone(), outcome.clone());
        drop(book);
        let ending = Ending {
            shared: Arc::clone(&self),
            key,
        };
        let secret = secret.clone();
        // In its own task: the client that began it may leave, the login must be finished.
        tokio::spawn(async move {
            let outcome = self.prove(account, secret).await;
            drop(ending);
            let _ = told.send(Some(outcome));
        });
        Admission::Proving(outcome)
    }

    async fn prove(self: &Arc<Self>, account: Arc<Account>, secret: Secret) -> Outcome {
        let request = ProofRequest {
            account: Arc::clone(&account),
            secret: secret.clone(),
        };
        match self.prover.prove(request).await {
            Ok(Proof::Lasting) => Ok(self.proved(account, &secret)),
            Ok(Proof::Once) => {
                // Not registered, so that it ends with the session.
                let account = Arc::new(self.new_account(account.user()));
                let standing = Standing::Proved { at: Instant::now() };
                let secret = account.keep(&self.ids, &secret, standing);
                let path = LoginPath::Backend;
                Ok(Identity {
                    account,
                    secret,
                    path,
                })
            }
            Err(ProveError::Unavailable(error)) => Err(Refusal::Unavailable(error)),
            Err(ProveError::Blocked(error)) => Err(Refusal::Denied(error)),
            Err(ProveError::Denied(error)) => {
                account.denied(&secret);
                // 1045 names Sidepool's host; the client is told of its own.
                Err(match error.code {
                    1045 => Refusal::AccessDenied,
                    _ => Refusal::Denied(error),
                })
            }
            Err(ProveError::NotProof) => {
                let user = account.user().escape_ascii();
                warn!(%user, "the database lets this account in without its password, so it cannot be used through Sidepool");
                account.denied(&secret);
                Err(Refusal::AccessDenied)
            }
        }
    }

    fn proved(&self, account: Arc<Account>, secret: &Secret) -> Identity {
        let mut book = self.book.lock();
        let user = account.user().to_vec();
        // Another one only if this account was revoked and proved anew in the meantime.
        let account = Arc::clone(book.accounts.entry(user).or_insert(account));
        let standing = Standing::Proved { at: Instant::now() };
        let secret = account.keep(&self.ids, secret, standing);
        let path = LoginPath::Backend;
        Identity {
            account,
            secret,
            path,
        }
    }

    fn new_account(self: &Arc<Self>, user: &[u8]) -> Account {
        let shared = Arc::downgrade(self);
        Account::new(&self.ids, user, shared)
    }

    fn name_of(&self, secret: &Secret) -> [u8; 32] {
        let mut input = zeroize::Zeroizing::new(self.pepper.to_vec());
        input.reserve_exact(secret.expose().len());
        input.extend_from_slice(secret.expose());
        let mut name = [0; 32];
        name.copy_from_slice(digest(&SHA256, &input).as_ref());
        name
    }
}

impl Register for Shared {
    fn revoke(&self, account: &Arc<Account>, secret: SecretId) {
        {
            let mut book = self.book.lock();
            let user = &account.user()[..];
            let registered = book.accounts.get(user);
            if registered.is_some_and(|a| Arc::ptr_eq(a, account)) && account.is_forgotten() {
                book.accounts.remove(user);
            }
        }
        self.prover.revoked(account, secret);
    }
}

impl Book {
    /// The account of that name: registered, being proved, or new.
    fn account(&mut self, shared: &Arc<Shared>, user: &[u8]) -> Arc<Account> {
        let newcomer = || self.newcomers.get(user).and_then(Weak::upgrade);
        if let Some(account) = self.accounts.get(user).cloned().or_else(newcomer) {
            return account;
        }
        let account = Arc::new(shared.new_account(user));
        self.newcomers
            .insert(user.to_vec(), Arc::downgrade(&account));
        account
    }
}

/// Takes a proof out of the book when it is over, also by a panic.
struct Ending {
    shared: Arc<Shared>,
    key: ProofKey,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut book = self.shared.book.lock();
        book.proofs.remove(&self.key);
        let others = book.proofs.keys().any(|key| key.user == self.key.user);
        if !others {
            book.newcomers.remove(&self.key.user);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("mode", &self.mode)
            .field("accounts", &self.book.lock().accounts.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Accounts").field(&self.shared).finish()
    }
}

#[cfg(test)]
mod tests;
