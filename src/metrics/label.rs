//! The label values of metrics that are not reasons: small closed enums, and the names of commands.

use super::handle::MetricLabel;

/// Declares a closed list of label values.
macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl MetricLabel for $name {
            const VALUES: &'static [Self] = &[$(Self::$variant,)+];

            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            fn position(self) -> usize {
                self as usize
            }
        }
    };
}

/// Lets the crate's reasons be labels; their words and indexes stay in `reason`.
macro_rules! labels_of_reasons {
    ($($reason:ident)+) => {
        $(
            impl MetricLabel for crate::reason::$reason {
                const VALUES: &'static [Self] = Self::ALL;

                fn word(self) -> &'static str {
                    self.as_str()
                }

                fn position(self) -> usize {
                    self.index()
                }
            }
        )+
    };
}
labels_of_reasons! { PinReason CloseReason RejectReason RetireReason }

labels! {
    /// Whether a connection is encrypted.
    Tls {
        /// Not encrypted.
        Off => "false",
        /// Encrypted.
        On => "true",
    }
}

impl From<bool> for Tls {
    fn from(encrypted: bool) -> Self {
        if encrypted { Self::On } else { Self::Off }
    }
}

labels! {
    /// How an attempt ended.
    Outcome {
        /// It worked.
        Ok => "ok",
        /// It did not.
        Failed => "failed",
    }
}

impl Outcome {
    /// The outcome of a `Result`.
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() {
            Self::Ok
        } else {
            Self::Failed
        }
    }
}

labels! {
    /// What proved a client's login.
    LoginPath {
        /// A scramble checked against a secret that was proved within `auth.recheck`; the database was not asked.
        Cached => "cached",
        /// The full exchange, checked against a known secret; the database was not asked.
        Full => "full",
        /// A real login at the backend.
        Backend => "backend",
    }
}

labels! {
    /// Which timeout would have closed a client in observe mode.
    IdleRule {
        /// `client.idle_timeout`.
        Idle => "idle",
        /// `client.idle_transaction_timeout`.
        IdleTransaction => "idle_transaction",
        /// `client.pinned_idle_timeout`.
        PinnedIdle => "pinned_idle",
    }
}

labels! {
    /// How the watch of a client's socket ended after that client was closed for idleness.
    WatchEnding {
        /// A command arrived: what the application sees as a lost connection.
        StaleUse => "stale_use",
        /// The application closed its side without using it again.
        Clean => "clean",
        /// Let go unseen, timed out, or lost: nobody knows.
        Unknown => "unknown",
    }
}

labels! {
    /// What Sidepool answered without borrowing a backend connection.
    LocalAnswer {
        /// `COM_PING`.
        Ping => "ping",
        /// `SHOW WARNINGS`, `SHOW ERRORS` and their counts, from saved rows.
        Warnings => "warnings",
        /// `ROW_COUNT()` as a whole statement.
        RowCount => "row_count",
        /// `FOUND_ROWS()` as a whole statement.
        FoundRows => "found_rows",
        /// `CONNECTION_ID()` as a whole statement.
        ConnectionId => "connection_id",
        /// `SHOW SIDEPOOL …`.
        ShowSidepool => "show_sidepool",
        /// `KILL` and `COM_PROCESS_KILL` of one of Sidepool's ids.
        Kill => "kill",
        /// A setting that Sidepool keeps for the client instead of the server (`wait_timeout`, `session_track_*`).
        Setting => "setting",
        /// A command on prepared statements that needs no server (reset, close, long data).
        Statement => "statement",
        /// `COM_RESET_CONNECTION` and other commands that only change the session's own record.
        Session => "session",
    }
}

labels! {
    /// Which way bytes went.
    Direction {
        /// What clients sent on to the database.
        ToDatabase => "client_to_database",
        /// What the database answered.
        ToClient => "database_to_client",
    }
}

labels! {
    /// Who wrote an error that a client received.
    ErrorSource {
        /// The database; Sidepool forwarded it.
        Database => "database",
        /// Sidepool itself: a borrow timeout, a lost backend connection, a refused statement.
        Sidepool => "sidepool",
    }
}

labels! {
    /// What a backend connection is doing.
    ConnectionState {
        /// In the pool, ready to be borrowed.
        Idle => "idle",
        /// Leased to a session.
        Borrowed => "borrowed",
        /// Connecting and logging in.
        Dialing => "dialing",
    }
}

labels! {
    /// How well the backend connection that was borrowed fitted the session.
    IdleFit {
        /// Its state equals the session's: nothing is replayed.
        EqualState => "equal_state",
        /// It is on the session's database: other state is replayed.
        SameDatabase => "same_database",
        /// Database and state are replayed.
        Usable => "usable",
        /// None was idle: it was dialed.
        Dialed => "dialed",
    }
}

labels! {
    /// What a backend server is used for.
    BackendRole {
        /// Accepts writes.
        Writer => "writer",
        /// A replica.
        Reader => "reader",
        /// Not probed yet, or not reachable.
        Unknown => "unknown",
    }
}

/// A client's command by its byte; bytes that name no command are counted as `other`.
///
/// The list is the MySQL protocol's command phase with MariaDB's `COM_STMT_BULK_EXECUTE` (0xfa).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommandName(u8);

/// Command bytes and their words. `OTHER` comes last.
const COMMANDS: &[(u8, &str)] = &[
    (0x01, "quit"),
    (0x02, "init_db"),
    (0x03, "query"),
    (0x04, "field_list"),
    (0x05, "create_db"),
    (0x06, "drop_db"),
    (0x07, "refresh"),
    (0x08, "shutdown"),
    (0x09, "statistics"),
    (0x0a, "process_info"),
    (0x0c, "process_kill"),
    (0x0d, "debug"),
    (0x0e, "ping"),
    (0x11, "change_user"),
    (0x12, "binlog_dump"),
    (0x15, "register_slave"),
    (0x16, "stmt_prepare"),
    (0x17, "stmt_execute"),
    (0x18, "stmt_send_long_data"),
    (0x19, "stmt_close"),
    (0x1a, "stmt_reset"),
    (0x1b, "set_option"),
    (0x1c, "stmt_fetch"),
    (0x1e, "binlog_dump_gtid"),
    (0x1f, "reset_connection"),
    (0x20, "clone"),
    (0xfa, "stmt_bulk_execute"),
    (0xff, "other"),
];

/// Index into [`COMMANDS`] of every possible byte.
const COMMAND_INDEX: [u8; 256] = {
    let other = COMMANDS.len() as u8 - 1;
    let mut index = [other; 256];
    let mut i = 0;
    while i < COMMANDS.len() {
        index[COMMANDS[i].0 as usize] = i as u8;
        i += 1;
    }
    index
};

/// Every [`CommandName`], one for each entry of [`COMMANDS`].
const COMMAND_NAMES: [CommandName; COMMANDS.len()] = {
    let mut names = [CommandName(0); COMMANDS.len()];
    let mut i = 0;
    while i < COMMANDS.len() {
        names[i] = CommandName(i as u8);
        i += 1;
    }
    names
};

impl CommandName {
    /// The name of the command that this byte starts.
    pub const fn of(byte: u8) -> Self {
        Self(COMMAND_INDEX[byte as usize])
    }
}

impl MetricLabel for CommandName {
    const VALUES: &'static [Self] = &COMMAND_NAMES;

    fn word(self) -> &'static str {
        COMMANDS[usize::from(self.0)].1
    }

    fn position(self) -> usize {
        usize::from(self.0)
    }
}
