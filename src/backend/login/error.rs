//! Why a login failed, and what a caller can conclude from it.

use std::io;
use std::time::Duration;

use crate::backend::dial::Address;
use crate::protocol::auth::client::AuthError;
use crate::protocol::handshake::ServerError;

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The server answered with an ERR, which is for the client to see.
    #[error("{0}")]
    Refused(ServerError),
    /// No connection could be made.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// The backend.
        address: Address,
        /// The last attempt's error.
        source: io::Error,
    },
    /// The connection broke before the login had ended.
    #[error("connection to {address} lost while logging in: {source}")]
    Lost {
        /// The backend.
        address: Address,
        /// What happened to it.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {address} failed: {source}")]
    Tls {
        /// The backend.
        address: Address,
        /// The handshake's error.
        source: io::Error,
    },
    /// TLS is demanded and the server has none.
    #[error("{0} offers no TLS, which backend.tls.mode demands")]
    TlsNotOffered(Address),
    /// `backend.connect_timeout` passed.
    #[error("login to {address} took longer than {after:?}")]
    Timeout {
        /// The backend.
        address: Address,
        /// The time it was given.
        after: Duration,
    },
    /// The server sent what is no MySQL, or not in its place.
    #[error("{address} broke the protocol while logging in: {reason}")]
    Protocol {
        /// The backend.
        address: Address,
        /// What was wrong.
        reason: String,
    },
    /// The password may not be sent the way the account wants it, or the plugin is not known. The message says
    /// which setting helps.
    #[error("{0}")]
    Declined(AuthError),
    /// The server let the account in without looking at the secret, so letting the client in would let anybody in.
    #[error(
        "the account can log in without its password (an authentication plugin like unix_socket), \
         so a login through it proves nothing"
    )]
    NotProof,
}

/// What a server denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// User, host or password: the secret is no longer good.
    Credentials,
    /// The account may not log in, whatever the password: locked, expired, TLS demanded of it.
    Account,
    /// The account is blocked because somebody tried wrong passwords. It says nothing about this one, and whoever guesses must
    /// not get others' connections closed by it.
    Blocked,
    /// The database: the credentials were good.
    Database,
}

impl LoginError {
    /// Whether the server has no room now (1040, 1203, 1226): wait and try again, do not fail.
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Refused(error) if is_full(error.code))
    }

    /// Whether the server said no to who asked: [`Denial`] tells what.
    pub const fn is_access_denied(&self) -> bool {
        self.denial().is_some()
    }

    /// What the server denied, if that is what it did.
    pub const fn denial(&self) -> Option<Denial> {
        match self {
            Self::Refused(error) => denial(error.code),
            _ => None,
        }
    }

    /// The server's ERR, to be shown to the client.
    pub const fn server_error(&self) -> Option<&ServerError> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

/// Whether a server that answers a login with this error has no room now.
pub(in crate::backend) const fn is_full(code: u16) -> bool {
    matches!(code, 1040 | 1203 | 1226)
}

/// What a server denies that answers a login with this error. Codes: MySQL's and MariaDB's server error references.
pub(in crate::backend) const fn denial(code: u16) -> Option<Denial> {
    match code {
        // Access denied; the same without a password; host not allowed.
        1045 | 1698 | 1130 => Some(Denial::Credentials),
        1044 | 1049 => Some(Denial::Database),
        // Password expired (in the sandbox, at login); account locked (MySQL, MariaDB); TLS required by the
        // server.
        1820 | 1862 | 3118 | 3159 | 4151 => Some(Denial::Account),
        // After failed logins (MySQL, MariaDB).
        3955 | 4150 => Some(Denial::Blocked),
        _ => None,
    }
}
