//! What an answer told, for the session's bookkeeping.

use tokio::time::Instant;

use crate::protocol::reply::{
    EofPacket, ErrPacket, Malformed, OkPacket, PrepareOk, SessionChange, SessionChanges,
    StatusFlags,
};

/// What the answer to one command told. Costs no allocation unless something was tracked or went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Status flags of the last OK or EOF; `None` when the answer had none (ERR alone, PREPARE, text).
    pub status: Option<StatusFlags>,
    /// Warnings of the last OK, EOF or PREPARE_OK.
    pub warnings: u16,
    /// Affected rows of the last OK.
    pub affected_rows: u64,
    /// The last id other than 0 in any OK of the answer; 0 if there was none.
    pub last_insert_id: u64,
    /// Rows of the last result set.
    pub rows: u64,
    /// How the answer ended.
    pub end: End,
    /// What the backend tracked, in all OK packets of the answer together.
    pub trackers: Trackers,
    /// Bytes of the answer as the backend sent it.
    pub bytes: u64,
    /// When its first byte was there; `None` for an answer of no bytes, and for own commands.
    pub begun: Option<Instant>,
}

/// How an answer ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum End {
    /// With nothing: the command has no answer.
    #[default]
    Nothing,
    /// With an OK.
    Ok,
    /// With the end of a result set (of a field list, of a fetch). Whether a cursor is open, the status
    /// flags say.
    Rows,
    /// With an ERR.
    Error(ErrorInfo),
    /// With a prepared statement.
    Prepared(PrepareOk),
    /// With a line of text.
    Text,
}

/// An ERR packet's contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{code} ({}): {}",
    String::from_utf8_lossy(sqlstate),
    String::from_utf8_lossy(message)
)]
pub struct ErrorInfo {
    /// MySQL's error number.
    pub code: u16,
    /// SQLSTATE.
    pub sqlstate: [u8; 5],
    /// The message, in the session's character set.
    pub message: Box<[u8]>,
}

impl ErrorInfo {
    pub(crate) fn new(err: &ErrPacket<'_>) -> Self {
        Self {
            code: err.code,
            sqlstate: err.sqlstate,
            message: err.message.into(),
        }
    }
}

impl Answer {
    /// The ERR that ended the answer.
    pub const fn error(&self) -> Option<&ErrorInfo> {
        match &self.end {
            End::Error(error) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn note_ok(&mut self, ok: &OkPacket<'_>, end: End) -> Result<(), Malformed> {
        self.status = Some(ok.status);
        self.warnings = ok.warnings;
        if end == End::Ok {
            self.affected_rows = ok.affected_rows;
        }
        if ok.last_insert_id != 0 {
            self.last_insert_id = ok.last_insert_id;
        }
        self.end = end;
        if ok.session_state.is_empty() {
            return Ok(());
        }
        self.trackers.append(ok)
    }

    pub(crate) fn note_eof(&mut self, eof: EofPacket) {
        self.status = Some(eof.status);
        self.warnings = eof.warnings;
        self.end = End::Rows;
    }
}

/// Session-tracking data of one or several OK packets, as sent and checked. Empty without allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trackers {
    items: Vec<u8>,
}

impl Trackers {
    /// Adds what an OK packet carries.
    ///
    /// # Errors
    /// [`Malformed::SessionState`]; nothing is added then.
    pub fn append(&mut self, ok: &OkPacket<'_>) -> Result<(), Malformed> {
        for change in ok.session_changes() {
            change?;
        }
        self.items.extend_from_slice(ok.session_state);
        Ok(())
    }

    /// Adds what other packets carried, later ones.
    pub fn merge(&mut self, later: &Self) {
        self.items.extend_from_slice(&later.items);
    }

    /// Whether nothing was tracked.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All changes in the order they were reported.
    pub fn changes(&self) -> impl Iterator<Item = SessionChange<'_>> {
        // Checked when they were added.
        SessionChanges::new(&self.items).filter_map(Result::ok)
    }

    /// Names of the system variables reported, each once.
    pub fn variables(&self) -> Vec<&[u8]> {
        let mut names = Vec::new();
        for change in self.changes() {
            if let SessionChange::Variable { name, .. } = change
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        names
    }

    /// The database, if it was reported; empty when there is none any more.
    pub fn schema(&self) -> Option<&[u8]> {
        self.last(|change| match change {
            SessionChange::Schema(name) => Some(name),
            _ => None,
        })
    }

    /// Whether the session's state changed in a way that the other items need not name.
    pub fn state_changed(&self) -> bool {
        self.changes().any(|change| change == SessionChange::State)
    }

    /// The transaction's state, such as `T_R_W_S_`, if it was reported.
    pub fn transaction_state(&self) -> Option<[u8; 8]> {
        self.last(|change| match change {
            SessionChange::Transaction(state) => Some(state),
            _ => None,
        })
    }

    /// The statements that restore the next transaction's characteristics, if they were reported.
    pub fn characteristics(&self) -> Option<&[u8]> {
        self.last(|change| match change {
            SessionChange::Characteristics(text) => Some(text),
            _ => None,
        })
    }

    fn last<'a, T>(&'a self, pick: impl Fn(SessionChange<'a>) -> Option<T>) -> Option<T> {
        self.changes().filter_map(pick).last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::reply::put_session_change;

    #[test]
    fn trackers_of_several_ok_packets_are_read_as_one() {
        let mut trackers = Trackers::default();
        assert!(trackers.is_empty() && trackers.schema().is_none());
        let variable = |name, value| SessionChange::Variable { name, value };
        for changes in [
            [variable(b"time_zone", b"a"), SessionChange::Schema(b"one")],
            [variable(b"time_zone", b"b"), variable(b"sql_mode", b"")],
            [SessionChange::State, SessionChange::Schema(b"two")],
            [
                SessionChange::Transaction(*b"T_______"),
                SessionChange::Characteristics(b"START TRANSACTION;"),
            ],
        ] {
            let mut session_state = Vec::new();
            for change in &changes {
                put_session_change(&mut session_state, change);
            }
            let ok = OkPacket {
                affected_rows: 0,
                last_insert_id: 0,
                status: StatusFlags(0x4002),
                warnings: 0,
                info_at: 7,
                raw_info: b"\0",
                session_state: &session_state,
            };
            trackers.append(&ok).unwrap();
        }
        assert_eq!(trackers.variables(), [&b"time_zone"[..], b"sql_mode"]);
        assert_eq!(trackers.schema(), Some(&b"two"[..]));
        assert!(trackers.state_changed());
        assert_eq!(trackers.transaction_state(), Some(*b"T_______"));
        assert_eq!(trackers.characteristics(), Some(&b"START TRANSACTION;"[..]));
    }
}
