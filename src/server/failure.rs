//! What a client is told, and how it is counted, when the database's side of its login fails.

use bytes::Bytes;

use crate::backend::dialer::DialError;
use crate::backend::login::LoginError;
use crate::backend::target::{DatabaseError, TargetError};
use crate::pool::BorrowError;
use crate::protocol::handshake::{ServerError, SqlState};
use crate::reason::RejectReason;
use crate::relay::ErrorInfo;

/// RDS Proxy's error for a borrow that timed out.
const BORROW_TIMEOUT: (u16, &str) = (9501, "Timed-out waiting to acquire database connection");
/// MySQL's own: `ER_SERVER_SHUTDOWN`.
const SHUTDOWN: (u16, &str) = (1053, "Server shutdown in progress");
/// `CR_CONN_HOST_ERROR`: a client library's code, which MySQL Router sends as a server, too.
const UNREACHABLE: u16 = 2003;
/// `ER_UNKNOWN_ERROR`: what fits no other code.
const UNKNOWN: u16 = 1105;

/// Why the database's side of a login failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What the client is told.
    pub error: ServerError,
    /// How it is counted.
    pub reason: RejectReason,
}

impl Failure {
    /// A borrow or a login that failed at the backend of that name.
    pub(super) fn of_target(error: &TargetError, backend: &str) -> Self {
        match error {
            BorrowError::Timeout { .. } => Self::borrow_timeout(),
            BorrowError::Closed => Self {
                error: server_error(SHUTDOWN.0, *b"08S01", SHUTDOWN.1),
                reason: RejectReason::Drain,
            },
            BorrowError::Connect(error) => Self::of_dial(error, backend),
        }
    }

    /// No server to borrow from for too long.
    pub(super) fn borrow_timeout() -> Self {
        unavailable(BORROW_TIMEOUT.0, BORROW_TIMEOUT.1)
    }

    fn of_dial(error: &DialError, backend: &str) -> Self {
        match error {
            DialError::NoSecret => {
                let message = "Access denied: the database no longer accepts this password";
                let error = server_error(1045, *b"28000", message);
                Self {
                    error,
                    reason: RejectReason::AccessDenied,
                }
            }
            DialError::Login(LoginError::Refused(error)) => {
                let reason = match LoginError::Refused(error.clone()).denial() {
                    Some(_) => RejectReason::AccessDenied,
                    None => RejectReason::BackendUnavailable,
                };
                Self {
                    error: error.clone(),
                    reason,
                }
            }
            DialError::Login(LoginError::NotProof | LoginError::Declined(_)) => Self {
                error: server_error(UNKNOWN, *b"HY000", &format!("Sidepool: {error}")),
                reason: RejectReason::AccessDenied,
            },
            DialError::SetUp(_) if let Some(error) = error.expired() => Self {
                error: of_info(error.clone()),
                reason: RejectReason::AccessDenied,
            },
            DialError::Login(error) => unavailable(
                UNREACHABLE,
                &format!("Sidepool: can't connect to the database at {backend}: {error}"),
            ),
            DialError::NoBaseline => unavailable(UNKNOWN, &format!("Sidepool: {error}; try again")),
            DialError::SetUp(error) => unavailable(
                UNKNOWN,
                &format!("Sidepool: a connection to {backend} could not be set up: {error}"),
            ),
        }
    }

    /// A database that could not be selected.
    pub(super) fn of_database(error: DatabaseError, backend: &str) -> Self {
        match error {
            DatabaseError::Refused(error) => Self {
                error: of_info(error),
                reason: RejectReason::AccessDenied,
            },
            DatabaseError::Borrow(error) => Self::of_target(&error, backend),
            DatabaseError::Statement(error) => unavailable(
                UNREACHABLE,
                &format!("Sidepool: the connection to {backend} was lost: {error}"),
            ),
        }
    }

    /// No server that could serve the client was ever reached, so it cannot even be greeted.
    pub(super) fn not_reached(backends: &str) -> Self {
        let message = format!("Sidepool: the database at {backends} has not been reached yet");
        unavailable(UNREACHABLE, &message)
    }

    /// The same for a session.
    pub(super) fn into_info(self) -> ErrorInfo {
        ErrorInfo {
            code: self.error.code,
            sqlstate: self.error.sqlstate.0,
            message: self.error.message[..].into(),
        }
    }
}

/// An error of Sidepool's own or in a server's words.
pub(super) fn server_error(code: u16, sqlstate: [u8; 5], message: &str) -> ServerError {
    ServerError {
        code,
        sqlstate: SqlState(sqlstate),
        message: Bytes::copy_from_slice(message.as_bytes()),
    }
}

fn unavailable(code: u16, message: &str) -> Failure {
    Failure {
        error: server_error(code, *b"HY000", message),
        reason: RejectReason::BackendUnavailable,
    }
}

fn of_info(error: ErrorInfo) -> ServerError {
    ServerError {
        code: error.code,
        sqlstate: SqlState(error.sqlstate),
        message: Bytes::from(error.message.into_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::dial::Address;
    use crate::backend::dialer::Dialer;
    use crate::pool::Connector;
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    fn of(error: DialError) -> Failure {
        Failure::of_target(&BorrowError::Connect(Arc::new(error)), "db:3306")
    }

    fn text(failure: &Failure) -> String {
        String::from_utf8(failure.error.message.to_vec()).unwrap()
    }

    #[test]
    fn an_unreachable_server_is_named_and_the_servers_own_words_are_kept() {
        let address = Address::Tcp {
            host: "db".to_owned(),
            port: 3306,
        };
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        let unreachable = of(LoginError::Unreachable { address, source }.into());
        assert_eq!(
            (unreachable.error.code, unreachable.reason),
            (2003, RejectReason::BackendUnavailable)
        );
        assert!(
            text(&unreachable).contains("the database at db:3306"),
            "{unreachable:?}"
        );

        let locked = server_error(3118, *b"HY000", "Account is locked.");
        let refused = of(LoginError::Refused(locked.clone()).into());
        assert_eq!(
            refused,
            Failure {
                error: locked,
                reason: RejectReason::AccessDenied
            }
        );
        let gone = DialError::NoBaseline;
        assert!(!Dialer::is_denied(&gone), "the password was right");
        assert_eq!(of(gone).reason, RejectReason::BackendUnavailable);
        let full = server_error(1040, *b"08004", "Too many connections");
        let refused = of(LoginError::Refused(full).into());
        assert_eq!(refused.reason, RejectReason::BackendUnavailable);
    }

    #[test]
    fn a_borrow_timeout_has_the_words_of_rds() {
        let waited = Duration::from_secs(120);
        let timeout = Failure::of_target(&BorrowError::Timeout { waited, ahead: 0 }, "db");
        assert_eq!(timeout.error.code, 9501);
        assert_eq!(
            text(&timeout),
            "Timed-out waiting to acquire database connection"
        );
        assert_eq!(
            Failure::of_target(&BorrowError::Closed, "db").reason,
            RejectReason::Drain
        );
    }
}
