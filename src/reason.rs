//! Why things happen: the closed lists of reasons for pins, closes, rejects and retirements.
//!
//! Each reason has one word, [`as_str`](PinReason::as_str), used alike as log field, metric label,
//! console column and JSON value, so that an operator can search for one term everywhere.

/// Declares a fieldless enum of reasons with its words and a dense index for metric arrays.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every reason, in the order of [`index`](Self::index).
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The one word for this reason in logs, metrics, console and JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Position in [`ALL`](Self::ALL); dense, for arrays of metric handles.
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a session is pinned to its backend connection.
    PinReason {
        /// A binary or text prepared statement is open.
        PreparedStatement => "prepared_statement",
        /// A user variable was set.
        UserVariable => "user_variable",
        /// A temporary table exists.
        TemporaryTable => "temporary_table",
        /// `HANDLER … OPEN`.
        Handler => "handler",
        /// `LOCK TABLES`, as the transaction tracker shows it.
        LockTables => "lock_tables",
        /// `GET_LOCK`, global read lock, `LOCK INSTANCE`, `BACKUP STAGE`, `SET RESOURCE GROUP`, `LASTVAL`.
        Lock => "lock",
        /// A routine, or text executed as one, whose residue no tracker shows.
        Routine => "routine",
        /// `SET ROLE`, `SET DEFAULT ROLE`: the backend connection is closed afterwards.
        Role => "role",
        /// Warnings or diagnostics could not be kept for the client otherwise.
        Diagnostics => "diagnostics",
        /// `ROW_COUNT()` or `FOUND_ROWS()` is used by this session.
        RowCount => "row_count",
        /// `CONNECTION_ID()` inside a larger statement.
        ConnectionId => "connection_id",
        /// A session variable that cannot be replayed (needs a privilege, or changes by itself).
        SessionVariable => "session_variable",
        /// The client reads or sets the session trackers itself.
        SessionTrack => "session_track",
        /// A statement too large to be scanned contained a word that may change session state.
        LargeStatement => "large_statement",
        /// The server reported a change that nothing else explains.
        UnknownState => "unknown_state",
        /// The backend has no session trackers at all.
        NoTrackers => "no_trackers",
    }
}

impl PinReason {
    /// One sentence: what to change so that it does not happen, or ends.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::PreparedStatement => {
                "close prepared statements when they are no longer needed, or let the driver prepare on the client's side"
            }
            Self::UserVariable => {
                "pass values as parameters or in the statement instead of user variables, or reset the connection when done"
            }
            Self::TemporaryTable => {
                "drop temporary tables by name as soon as they are no longer needed, or use a common table expression"
            }
            Self::Handler => "close every HANDLER as soon as it has been read, or use SELECT",
            Self::LockTables => "run UNLOCK TABLES as soon as possible, or use a transaction",
            Self::Lock => {
                "release locks by the same literal names, or with SELECT RELEASE_ALL_LOCKS(), UNLOCK or BACKUP END, as soon as possible"
            }
            Self::Routine => {
                "reset the connection after calling procedures, or do what they do in plain statements"
            }
            Self::Role => {
                "give the account a default role on the server instead of SET ROLE in the session"
            }
            Self::Diagnostics => {
                "read warnings with plain SHOW WARNINGS or SHOW ERRORS directly behind the statement"
            }
            Self::RowCount => {
                "take the number of rows from the statement's own answer, and SELECT COUNT(*) instead of SQL_CALC_FOUND_ROWS"
            }
            Self::ConnectionId => {
                "ask SELECT CONNECTION_ID() as a statement of its own, which is answered without pinning"
            }
            Self::SessionVariable => {
                "set such variables on the server instead of in the session, or set them back and reset the connection when done"
            }
            Self::SessionTrack => {
                "do not set session_track_* variables, or reset the connection when done"
            }
            Self::LargeStatement => {
                "split statements of 16 MB and more, or send large values as parameters of a prepared statement"
            }
            Self::UnknownState => {
                "find the statement by its digest and reset the connection after it"
            }
            Self::NoTrackers => {
                "use a server with session trackers: MariaDB 10.2 or MySQL 5.7 and later, without a proxy in between"
            }
        }
    }
}

reasons! {
    /// Why a client connection was closed.
    CloseReason {
        /// The client said `COM_QUIT`.
        Quit => "quit",
        /// The client's side of the connection ended without `COM_QUIT`.
        ClientGone => "client_gone",
        /// `client.idle_timeout`, or the client's own lower `wait_timeout`.
        IdleTimeout => "idle_timeout",
        /// `client.idle_transaction_timeout`.
        IdleTransactionTimeout => "idle_transaction_timeout",
        /// `client.pinned_idle_timeout`.
        PinnedIdleTimeout => "pinned_idle_timeout",
        /// `client.max_lifetime`.
        MaxLifetime => "max_lifetime",
        /// TCP keepalive toward the client failed.
        Keepalive => "keepalive",
        /// The backend connection died in a transaction, a pin or a possibly delivered command.
        BackendLost => "backend_lost",
        /// The database no longer accepts this account's credentials.
        AuthRevoked => "auth_revoked",
        /// A replay that cannot fail failed.
        ReplayFailed => "replay_failed",
        /// The client broke the protocol.
        ProtocolError => "protocol_error",
        /// Killed by the operator or by another session's `KILL`.
        Killed => "killed",
        /// Sidepool is shutting down.
        Drain => "drain",
        /// Reading or writing the client's socket failed.
        IoError => "io_error",
        /// A defect in Sidepool; the session's task ended unexpectedly.
        Internal => "internal",
    }
}

reasons! {
    /// Why a client never got a session.
    RejectReason {
        /// The user, password or database was refused.
        AccessDenied => "access_denied",
        /// `[[auth.allow]]` does not admit this user from this source.
        NotAllowed => "not_allowed",
        /// The listener requires TLS.
        TlsRequired => "tls_required",
        /// The TLS handshake failed.
        TlsFailed => "tls_failed",
        /// `listener.max_clients` is reached.
        TooManyClients => "too_many_clients",
        /// `client.handshake_timeout` passed.
        HandshakeTimeout => "handshake_timeout",
        /// Too many failed logins of this account from this source.
        Throttled => "throttled",
        /// The client broke the protocol before it was logged in.
        ProtocolError => "protocol_error",
        /// The connection ended before the login did (a port scan, a health check).
        ClientGone => "client_gone",
        /// No backend could be reached to prove the login.
        BackendUnavailable => "backend_unavailable",
        /// The PROXY header was missing, malformed, or from a peer not believed.
        ProxyProtocol => "proxy_protocol",
        /// Sidepool is shutting down.
        Drain => "drain",
    }
}

reasons! {
    /// Why a backend connection left the pool.
    RetireReason {
        /// Idle longer than `pool.idle_timeout`.
        IdleTimeout => "idle_timeout",
        /// More idle connections than `pool.max_idle_percent`.
        IdleCap => "idle_cap",
        /// Older than `pool.max_lifetime`.
        MaxLifetime => "max_lifetime",
        /// Closed before the server's own `wait_timeout` would.
        WaitTimeout => "wait_timeout",
        /// Closed to make room for another key at the global limit.
        MadeRoom => "made_room",
        /// The server closed it while it was idle.
        ServerClosed => "server_closed",
        /// The client left in the middle of a statement.
        Abandoned => "abandoned",
        /// State that must not be shared (a role, an unknown change) or a failed reset.
        Dirty => "dirty",
        /// A replay failed on it.
        ReplayFailed => "replay_failed",
        /// It broke the protocol or its socket failed.
        Broken => "broken",
        /// The account's credentials are no longer accepted.
        AuthRevoked => "auth_revoked",
        /// A client changed accounts or privileges, which servers look up when a connection logs in.
        PrivilegesChanged => "privileges_changed",
        /// `RECONNECT`, a reload or an operator's request.
        Admin => "admin",
        /// The backend is no longer a target (failover, removal).
        TargetLost => "target_lost",
        /// Sidepool is shutting down.
        Drain => "drain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_indexes_dense() {
        let words: std::collections::HashSet<_> =
            PinReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), PinReason::ALL.len());
        for (i, r) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(r.index(), i);
        }
    }
}
