//! What a session carries from one backend connection to the next.

use std::sync::Arc;

use super::scan::{CharsetFamily, LexMode};
use super::statements::text::TextStatements;
use crate::backend::facts::Virtuals;
use crate::backend::state::{IdleTimeouts, State, Value, narrow};
use crate::protocol::reply::StatusFlags;
use crate::relay::own::OwnResultSet;
use crate::relay::{
    Answer, End, TrackedVariables, TrackerFilter, TrackerSelection, TransactionInfo,
};

/// The session as it is between two statements, wherever it ran last.
#[derive(Debug)]
pub struct Carried {
    /// Variables and database.
    pub state: State,
    /// What `LAST_INSERT_ID()` returns.
    pub last_insert_id: u64,
    /// The client's own `wait_timeout` and `interactive_timeout`, if it set any.
    pub timeouts: Option<IdleTimeouts>,
    /// `SET TRANSACTION` statements that wait for the session's next transaction, while no connection
    /// of its own has them.
    pub next_transaction: Option<Box<[u8]>>,
    /// What `ROW_COUNT()` returns.
    pub row_count: i64,
    /// What `FOUND_ROWS()` returns, where that is certain.
    pub found_rows: Option<u64>,
    /// What the last statement left in the diagnostics area, if anything.
    pub diagnostics: Option<Box<SavedDiagnostics>>,
    /// Status flags of the last OK.
    pub status: StatusFlags,
    /// What this session was found to use, so that from now on it is kept for it.
    pub learned: Learned,
    /// The statements it prepared by SQL text.
    pub names: Box<TextStatements>,
    /// How the session's own statements are to be read.
    pub lex: LexMode,
    /// Which tracking data the client gets to see.
    pub filter: Arc<TrackerFilter>,
}

/// The message of a warning that no server gives.
pub const MARK: &str = "kept by sidepool";

/// The diagnostics area as its four plain readers would show it.
#[derive(Debug)]
pub struct SavedDiagnostics {
    /// `SHOW WARNINGS`
    pub warnings: OwnResultSet,
    /// `SHOW ERRORS`
    pub errors: OwnResultSet,
    /// `SHOW COUNT(*) WARNINGS`
    pub warning_count: OwnResultSet,
    /// `SHOW COUNT(*) ERRORS`
    pub error_count: OwnResultSet,
    /// `character_set_results`, in which the rows are written; `None` until it is known.
    pub charset: Option<Value>,
    /// Statements elsewhere may have emptied the area since.
    pub lost: bool,
}

impl SavedDiagnostics {
    /// Whether there was nothing.
    fn is_empty(&self) -> bool {
        let count = self
            .warning_count
            .rows
            .first()
            .and_then(|row| row.first()?.as_ref());
        let none = count.is_some_and(|count| *narrow(count) == *b"0");
        none && !self.lost && self.warnings.rows.is_empty()
    }

    /// Whether it is the mark that Sidepool sets: what stood there before it stands there still.
    pub fn is_mark(&self) -> bool {
        let message = self
            .warnings
            .rows
            .first()
            .and_then(|row| row.get(2)?.as_ref());
        message.is_some_and(|message| *narrow(message) == *MARK.as_bytes())
    }

    /// All four, in the order in which they were asked for.
    pub const fn sets(&self) -> [&OwnResultSet; 4] {
        [
            &self.warnings,
            &self.errors,
            &self.warning_count,
            &self.error_count,
        ]
    }
}

/// What a session was found to use too late once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Learned {
    /// `ROW_COUNT()` or `FOUND_ROWS()`: the backend connection is kept after each statement.
    pub row_count: bool,
    /// `FOUND_ROWS()` as a statement of its own: rows are counted where that tells it.
    pub found_rows: bool,
    /// Diagnostics in other forms than the four: it is kept after warnings and errors.
    pub diagnostics: bool,
}

impl Learned {
    /// Whether anything was learned.
    pub const fn any(self) -> bool {
        self.row_count || self.diagnostics
    }
}

impl Carried {
    /// A session that has just logged in.
    pub fn new(state: State, virtuals: &Virtuals) -> Self {
        let mut status = StatusFlags(0);
        if value(&state, "autocommit") == Some(b"1") {
            status.0 |= StatusFlags::AUTOCOMMIT;
        }
        let mut carried = Self {
            lex: LexMode::default(),
            state,
            last_insert_id: 0,
            timeouts: None,
            next_transaction: None,
            row_count: 0,
            found_rows: None,
            diagnostics: None,
            status,
            learned: Learned::default(),
            names: Box::default(),
            filter: Arc::new(default_filter(virtuals)),
        };
        carried.look_at_state();
        carried
    }

    /// The session is now in this state.
    pub fn set_state(&mut self, state: State) {
        if state != self.state {
            self.state = state;
            self.look_at_state();
        }
    }

    /// The diagnostics that were saved, if they can still be shown as they are: on MariaDB they outlive
    /// a `SET NAMES`, behind which the server would write them in another charset.
    pub fn readable_diagnostics(&self) -> Option<&SavedDiagnostics> {
        let saved = self.diagnostics.as_deref()?;
        let here = saved.charset.as_ref() == self.state.get_named(RESULTS_CHARSET);
        (here && !saved.lost).then_some(saved)
    }

    /// Whether the area that was saved is another than an empty one, or may be.
    pub fn has_diagnostics(&self) -> bool {
        self.diagnostics
            .as_ref()
            .is_some_and(|saved| !saved.is_empty())
    }

    /// The diagnostics were saved in the present state.
    pub fn date_diagnostics(&mut self) {
        let charset = self.state.get_named(RESULTS_CHARSET).cloned();
        if let Some(saved) = &mut self.diagnostics
            && saved.charset.is_none()
        {
            saved.charset = charset;
        }
    }

    fn look_at_state(&mut self) {
        let sql_mode = value(&self.state, "sql_mode").unwrap_or_default();
        let has = |mode: &[u8]| sql_mode.split(|&b| b == b',').any(|m| m == mode);
        let charset = value(&self.state, "character_set_client").unwrap_or_default();
        self.lex = LexMode {
            ansi_quotes: has(b"ANSI_QUOTES"),
            no_backslash_escapes: has(b"NO_BACKSLASH_ESCAPES"),
            charset: CharsetFamily::of(charset),
        };
    }

    /// What `ROW_COUNT()` returns after an answer: the affected rows of an OK, -1 after rows and errors
    /// (measured on both servers for every kind of statement, and for `USE` and a ping). `false`: the same
    /// as before.
    pub const fn set_row_count(&mut self, answer: &Answer) -> bool {
        self.row_count = match answer.end {
            End::Ok => answer.affected_rows.cast_signed(),
            End::Rows | End::Error(_) => -1,
            End::Nothing | End::Prepared(_) | End::Text => return false,
        };
        true
    }

    /// The status flags of an OK, as far as they outlive its statement.
    pub const fn set_status(&mut self, status: StatusFlags) {
        const LASTING: u16 = StatusFlags::IN_TRANSACTION
            | StatusFlags::AUTOCOMMIT
            | StatusFlags::NO_BACKSLASH_ESCAPES
            | StatusFlags::ANSI_QUOTES
            | StatusFlags::IN_TRANSACTION_READONLY;
        self.status = StatusFlags(status.0 & LASTING);
    }
}

const RESULTS_CHARSET: &str = "character_set_results";

fn value<'s>(state: &'s State, name: &str) -> Option<&'s [u8]> {
    state.get_named(name).and_then(Value::as_bytes)
}

/// What a fresh connection's own tracker settings let through.
fn default_filter(virtuals: &Virtuals) -> TrackerFilter {
    let on = |value: &Option<Box<str>>| {
        value
            .as_deref()
            .is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("on"))
    };
    let names = virtuals
        .track_system_variables
        .as_deref()
        .unwrap_or_default();
    let variables = if names == "*" {
        TrackedVariables::Every
    } else {
        let names = names
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase().into());
        TrackedVariables::Named(names.collect())
    };
    TrackerFilter::Selected(TrackerSelection {
        variables,
        schema: on(&virtuals.track_schema),
        state_change: on(&virtuals.track_state_change),
        gtids: false,
        transaction_info: match virtuals.track_transaction_info.as_deref() {
            Some("STATE") => TransactionInfo::State,
            Some("CHARACTERISTICS") => TransactionInfo::Characteristics,
            _ => TransactionInfo::Off,
        },
    })
}
