//! One account and the secrets known for it.
//!
//! An [`Account`] is who a session is, shared by reference: pools are keyed by its [`id`](Account::id), which no
//! other account ever has again in this process. It owns its secrets, at most two because MySQL accounts
//! may have two passwords during a rotation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::protocol::auth::Secret;

/// Secrets kept per account (`ALTER USER … RETAIN CURRENT PASSWORD` makes two valid).
const MAX_SECRETS: usize = 2;

/// Which account. Never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(u64);

/// Which secret of which account, without saying what it is. Never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretId(u64);

/// Makes ids; one per process or test.
#[derive(Debug, Default)]
pub(super) struct Ids(AtomicU64);

/// Where an account is registered, so that it can be struck off.
pub(super) trait Register: std::fmt::Debug + Send + Sync {
    /// A secret of the account was forgotten because the database denied it.
    fn revoke(&self, account: &Arc<Account>, secret: SecretId);
}

/// A user of the database, as far as it has been proved here.
#[derive(Debug)]
pub struct Account {
    id: AccountId,
    user: Bytes,
    secrets: Mutex<Vec<KnownSecret>>,
    register: Weak<dyn Register>,
}

/// A secret with what is known of it.
#[derive(Debug, Clone)]
pub struct KnownSecret {
    /// Its name.
    pub id: SecretId,
    /// The password.
    pub secret: Secret,
    standing: Standing,
}

/// What speaks for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It came with the settings, and the settings decide.
    Configured,
    /// It was replaced in the settings and is good until then.
    Replaced { until: Instant },
    /// It came with the settings, but the database decides and was not asked yet.
    Unproved,
    /// The database accepted it then.
    Proved { at: Instant },
}

impl AccountId {
    /// The number itself, for keys of layers that know no accounts.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Ids {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Account {
    pub(super) fn new(ids: &Ids, user: &[u8], register: Weak<dyn Register>) -> Self {
        Self {
            id: AccountId(ids.next()),
            user: Bytes::copy_from_slice(user),
            secrets: Mutex::default(),
            register,
        }
    }

    /// The identity that pools are keyed by.
    pub const fn id(&self) -> AccountId {
        self.id
    }

    /// The user name, as the client sent it.
    pub const fn user(&self) -> &Bytes {
        &self.user
    }

    /// The secret to log in to a backend with: the one most recently proved or set. `None` after it was denied.
    pub fn login_secret(&self) -> Option<KnownSecret> {
        let secrets = self.secrets.lock();
        secrets.iter().max_by_key(|known| known.rank()).cloned()
    }

    /// Whether this secret has not been forgotten.
    pub fn knows(&self, id: SecretId) -> bool {
        self.secrets.lock().iter().any(|known| known.id == id)
    }

    /// The secrets a client may have and a backend may be asked with, best first.
    pub(crate) fn candidates(&self) -> Vec<KnownSecret> {
        let now = Instant::now();
        let mut secrets = self.secrets.lock();
        secrets.retain(
            |known| !matches!(known.standing, Standing::Replaced { until } if until <= now),
        );
        let mut candidates = secrets.clone();
        candidates.sort_by_key(|known| std::cmp::Reverse(known.rank()));
        candidates
    }

    /// The name of `secret` if a client that has it may come in without the database being asked.
    pub(super) fn fresh(&self, secret: &Secret, recheck: Duration) -> Option<SecretId> {
        let secrets = self.secrets.lock();
        let known = secrets.iter().find(|known| known.is(secret))?;
        known.is_fresh(recheck).then_some(known.id)
    }

    /// Whether nothing is known of it any more.
    pub(super) fn is_forgotten(&self) -> bool {
        self.secrets.lock().is_empty()
    }

    /// Keeps `secret` with its standing, or changes the standing of the one that is the same. The worst
    /// makes room for a third.
    pub(super) fn keep(&self, ids: &Ids, secret: &Secret, standing: Standing) -> SecretId {
        let mut secrets = self.secrets.lock();
        if let Some(known) = secrets.iter_mut().find(|known| known.is(secret)) {
            known.standing = standing;
            return known.id;
        }
        if secrets.len() >= MAX_SECRETS
            && let Some(worst) = (0..secrets.len()).min_by_key(|&i| secrets[i].rank())
        {
            secrets.swap_remove(worst);
        }
        let id = SecretId(ids.next());
        secrets.push(KnownSecret {
            id,
            secret: secret.clone(),
            standing,
        });
        id
    }

    /// A login with this secret has just succeeded, and the secret was used in it: as good as a proof, so a pool
    /// that grows now and then spares the next client one. Means nothing where the settings decide.
    pub fn confirmed(&self, secret: &Secret) {
        let mut secrets = self.secrets.lock();
        let proved = secrets
            .iter_mut()
            .find(|known| known.is(secret) && known.is_the_database_s());
        if let Some(known) = proved {
            known.standing = Standing::Proved { at: Instant::now() };
        }
    }

    /// The database has just denied a login with this secret: forgets it, and has what was opened with it closed.
    /// Nothing is forgotten where the settings decide.
    pub fn denied(self: &Arc<Self>, secret: &Secret) {
        let forgotten = {
            let mut secrets = self.secrets.lock();
            let at = secrets
                .iter()
                .position(|known| known.is(secret) && known.is_the_database_s());
            at.map(|at| secrets.swap_remove(at).id)
        };
        if let (Some(secret), Some(register)) = (forgotten, self.register.upgrade()) {
            register.revoke(self, secret);
        }
    }

    /// Puts `secret` in the settings' place: what was there before stays good until `grace` has passed.
    pub(super) fn replace_configured(&self, ids: &Ids, secret: &Secret, grace: Duration) {
        let until = Instant::now() + grace;
        for known in self.secrets.lock().iter_mut() {
            if known.standing == Standing::Configured && !known.is(secret) {
                known.standing = Standing::Replaced { until };
            }
        }
        self.keep(ids, secret, Standing::Configured);
    }

    /// Adds a secret from the settings that the database has still to confirm, unless it did already.
    pub(super) fn preload(&self, ids: &Ids, secret: &Secret) {
        let known = self.secrets.lock().iter().any(|known| known.is(secret));
        if !known {
            self.keep(ids, secret, Standing::Unproved);
        }
    }

    /// Forgets a secret by its name.
    pub(super) fn forget_id(&self, id: SecretId) -> Option<SecretId> {
        let mut secrets = self.secrets.lock();
        let at = secrets.iter().position(|known| known.id == id)?;
        Some(secrets.swap_remove(at).id)
    }
}

impl KnownSecret {
    fn is(&self, other: &Secret) -> bool {
        self.secret == *other
    }

    /// Whether the database decides over it.
    const fn is_the_database_s(&self) -> bool {
        matches!(self.standing, Standing::Unproved | Standing::Proved { .. })
    }

    fn is_fresh(&self, recheck: Duration) -> bool {
        match self.standing {
            Standing::Configured => true,
            Standing::Replaced { until } => Instant::now() < until,
            Standing::Unproved => false,
            Standing::Proved { at } => at.elapsed() < recheck,
        }
    }

    /// Higher is better.
    fn rank(&self) -> (u8, Option<Instant>) {
        match self.standing {
            Standing::Unproved => (0, None),
            Standing::Replaced { until } => (1, Some(until)),
            Standing::Proved { at } => (2, Some(at)),
            Standing::Configured => (3, None),
        }
    }
}
