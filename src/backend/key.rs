//! What makes backend connections interchangeable but for session state: account and capabilities.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::protocol::auth::Secret;
use crate::protocol::capability::KeyBits;

/// An account whose secrets can be had whenever a backend connection is opened.
pub trait Credentials: Send + Sync + 'static {
    /// Unique for the process and never reused: another secret does not make another account, but
    /// another user does.
    fn account_id(&self) -> u64;

    /// The user name, bytes as the database knows it.
    fn user(&self) -> &[u8];

    /// The secrets to try, best first: two while a password is being changed. None: no login of
    /// this account has been proved, or the proof was withdrawn.
    fn secrets(&self) -> Vec<Secret>;

    /// A login with this secret has succeeded, and the server used the secret in it.
    fn confirmed(&self, secret: &Secret);

    /// The server has denied a login with this secret, or let the account in without looking at it: it speaks for
    /// nobody any more. Must not wait for anything.
    fn denied(self: Arc<Self>, secret: &Secret);
}

/// The key of a pool's connections. Equal keys may share; no connection ever moves between accounts.
#[derive(Clone)]
pub struct PoolKey {
    credentials: Arc<dyn Credentials>,
    bits: KeyBits,
}

impl PoolKey {
    /// The key of connections of that account with those capabilities.
    pub fn new(credentials: Arc<dyn Credentials>, bits: KeyBits) -> Self {
        Self { credentials, bits }
    }

    /// Whose connections.
    pub fn credentials(&self) -> &Arc<dyn Credentials> {
        &self.credentials
    }

    /// The capabilities that no translation can make up for.
    pub const fn bits(&self) -> KeyBits {
        self.bits
    }
}

impl PartialEq for PoolKey {
    fn eq(&self, other: &Self) -> bool {
        self.credentials.account_id() == other.credentials.account_id() && self.bits == other.bits
    }
}

impl Eq for PoolKey {}

impl Hash for PoolKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.credentials.account_id().hash(state);
        self.bits.hash(state);
    }
}

impl fmt::Debug for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolKey")
            .field("user", &String::from_utf8_lossy(self.credentials.user()))
            .field("bits", &self.bits)
            .finish()
    }
}
