//! What a statement may do to session state that no tracker shows.
//!
//! The scan never decides alone where a tracker can: it only finds what trackers miss (hazard 8)
//! and what needs the session's own values in front. A false alarm costs a pin, a miss could cost
//! a wrong answer, so every doubt is read as "may".

mod area;
mod calls;
mod counted;
mod deeds;
mod lexer;
mod prepare;
mod set;
mod statement;
mod stored;
mod stream;
#[cfg(test)]
mod tests;
mod variables;
mod whole;

use std::ops::{BitOr, BitOrAssign};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};

pub use area::{Emptied, drops_database, empties};
pub use calls::may_call;
pub use counted::{Counted, counted, selects};
pub use deeds::{Assigned, Deed, Deeds, GlobalLock, Releasing, TableKind, TableName, deeds};
pub use lexer::{CharsetFamily, LexMode, Lexer, Token};
pub use prepare::{Name, Source, TextCommand, Using};
pub use set::set_without_scope;
pub use statement::digest;
pub use stream::StreamScan;
pub use variables::{Mentions, mentions, runs_code};
pub use whole::alias;

/// What a statement may do or need; a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$meta:meta])* $name:ident = $bit:literal;)+) => {
        impl Flags {
            $($(#[$meta])* pub const $name: Self = Self(1 << $bit);)+
        }
    };
}

flags! {
    /// Mentions a user variable.
    USER_VARIABLE = 0;
    /// Creates a temporary table or sequence.
    TEMPORARY = 1;
    /// `HANDLER …`
    HANDLER = 2;
    /// Takes a lock that no tracker shows.
    LOCK = 3;
    /// `LOCK TABLES`
    LOCK_TABLES = 4;
    /// `CALL`, compound statements: anything may happen inside.
    ROUTINE = 5;
    /// `SET ROLE`, `SET DEFAULT ROLE`
    ROLE = 6;
    /// `PREPARE`, `EXECUTE`, `DEALLOCATE`, `DROP PREPARE`
    PREPARE = 7;
    /// Reads warnings, errors or the diagnostics area.
    DIAGNOSTICS = 8;
    /// `ROW_COUNT()`
    ROW_COUNT = 9;
    /// `FOUND_ROWS()`
    FOUND_ROWS = 10;
    /// `SQL_CALC_FOUND_ROWS`
    CALC_FOUND_ROWS = 11;
    /// `LAST_INSERT_ID()`, `@@identity`
    LAST_INSERT_ID = 12;
    /// `CONNECTION_ID()`, `@@pseudo_thread_id`
    CONNECTION_ID = 13;
    /// `session_track_…`
    SESSION_TRACK = 14;
    /// `wait_timeout`, `interactive_timeout`
    TIMEOUT_VARIABLE = 15;
    /// `SAVEPOINT`
    SAVEPOINT = 16;
    /// May insert, or run code that reads `LAST_INSERT_ID()`: anything but plain reads and control.
    WRITE = 17;
    /// A single `SET` of session variables to literals: the same text on the same state gives the
    /// same state.
    PLAIN_SET = 18;
    /// More than one statement.
    MULTI = 19;
    /// Lists variables by no name that the scan can see (`SHOW VARIABLES`).
    ALL_VARIABLES = 20;
    /// A `SET` of any kind.
    SET = 21;
    /// May leave another `LAST_INSERT_ID()` behind although its OK does not say so.
    INSERT = 22;
    /// `COMMIT`, or `ROLLBACK` of the whole transaction.
    END_TRANSACTION = 23;
    /// Only shows warnings, errors or the diagnostics area, which it leaves as it is.
    LOOKS_BACK = 24;
    /// May do more than read and show: calls a function that is not known, writes, is no single
    /// statement. Only told of statements that read session variables by their settings.
    CODE = 25;
    /// A `SET` that may change variables of the server.
    GLOBAL = 26;
    /// `LASTVAL`, `PREVIOUS VALUE FOR`
    LASTVAL = 27;
    /// `XA …`
    XA = 28;
    /// A `SET` of a `@@name` without a scope.
    UNTRACKED = 29;
    /// Changes accounts, roles or privileges.
    PRIVILEGES = 31;
}

impl Flags {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Whether any of `other` is in the set.
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What is in both sets.
    #[must_use]
    pub const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A statement that is nothing but something Sidepool can answer or must route itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Whole {
    /// An ordinary statement.
    #[default]
    Ordinary,
    /// `SHOW WARNINGS`
    ShowWarnings,
    /// `SHOW ERRORS`
    ShowErrors,
    /// `SHOW COUNT(*) WARNINGS`
    CountWarnings,
    /// `SHOW COUNT(*) ERRORS`
    CountErrors,
    /// `SHOW WARNINGS LIMIT …`
    SomeWarnings(Part),
    /// `SHOW ERRORS LIMIT …`
    SomeErrors(Part),
    /// `SELECT @@warning_count`
    WarningCount,
    /// `SELECT @@error_count`
    ErrorCount,
    /// `SELECT ROW_COUNT()`
    RowCount,
    /// `CALL …`, and nothing else.
    Call,
    /// `SELECT FOUND_ROWS()`
    FoundRows,
    /// `SELECT CONNECTION_ID()`
    ConnectionId,
    /// `SELECT @@pseudo_thread_id`
    ThreadId,
    /// `KILL [HARD|SOFT] [CONNECTION|QUERY] n`
    Kill {
        /// The id named.
        id: u64,
        /// Only the statement, not the connection.
        query: bool,
    },
}

/// Which rows a `LIMIT` lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Left out in front.
    pub skip: usize,
    /// At most so many then.
    pub count: usize,
}

/// What the scan found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings {
    /// What any of the statements may do or need.
    pub flags: Flags,
    /// What the text is as a whole, when it is a single statement.
    pub whole: Whole,
}

/// Finds what statements may do to session state. Build once, share.
#[derive(Debug)]
pub struct Scanner {
    prefilter: AhoCorasick,
}

/// Words (or parts of words) and signs without which a statement's first word tells everything.
const ALARMS: &[&str] = &[
    "@",
    ";",
    "/*!",
    "/*m!",
    "temporary",
    "handler",
    "binlog",
    "authorization",
    "lock",
    "call",
    "role",
    "prepare",
    "execute",
    "deallocate",
    "warnings",
    "errors",
    "warning_count",
    "error_count",
    "diagnostics",
    "row_count",
    "found_rows",
    "last_insert_id",
    "connection_id",
    "pseudo_thread_id",
    "session_track",
    "wait_timeout",
    "interactive_timeout",
    "variables",
    "backup",
    "resource",
    "lastval",
    "previous",
    "identity",
    "atomic",
    "mysql",
];

impl Default for Scanner {
    fn default() -> Self {
        Self {
            prefilter: automaton(ALARMS),
        }
    }
}

impl Scanner {
    /// Scans the text of a `COM_QUERY` or `COM_STMT_PREPARE`.
    pub fn scan(&self, sql: &[u8], mode: LexMode) -> Findings {
        let mut lexer = Lexer::new(sql, mode);
        let first = lexer.next();
        if let Some(Token::Word(word)) = first
            && let Some(flags) = statement::plain_kind(word)
            && !self.prefilter.is_match(sql)
        {
            return Findings {
                flags,
                whole: Whole::Ordinary,
            };
        }
        statement::classify(sql, mode)
    }
}

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants, and every test builds it"
)]
fn automaton(patterns: &[&str]) -> AhoCorasick {
    AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(patterns)
        .expect("a few short patterns fit an automaton")
}
