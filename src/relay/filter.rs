//! Which session-tracking data a client gets to see.
//!
//! Backend connections track more than a client would on a dedicated connection, and for Sidepool's own
//! ends. What goes on to a client is what its own settings (`session_track_*`) would have sent.

use crate::protocol::reply::{Malformed, OkPacket, SessionChange, put_session_change};

/// What a client's own `session_track_*` settings let through. Irrelevant for clients that did not
/// negotiate `CLIENT_SESSION_TRACK`: they get nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackerFilter {
    /// Everything as the backend sent it.
    All,
    /// What these settings select.
    Selected(TrackerSelection),
}

/// The `session_track_*` settings of a client's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerSelection {
    /// `session_track_system_variables`.
    pub variables: TrackedVariables,
    /// `session_track_schema`.
    pub schema: bool,
    /// `session_track_state_change`.
    pub state_change: bool,
    /// `session_track_gtids` (MySQL).
    pub gtids: bool,
    /// `session_track_transaction_info`.
    pub transaction_info: TransactionInfo,
}

/// `session_track_system_variables`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackedVariables {
    /// `'*'`.
    Every,
    /// A list of names, lower case.
    Named(Vec<Box<str>>),
}

/// `session_track_transaction_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionInfo {
    /// `OFF`.
    Off,
    /// `STATE`.
    State,
    /// `CHARACTERISTICS`: these and the state.
    Characteristics,
}

impl Default for TrackerFilter {
    /// The defaults of MySQL 9.7 and MariaDB 10.11, which are the same.
    fn default() -> Self {
        let names = [
            "time_zone",
            "autocommit",
            "character_set_client",
            "character_set_results",
            "character_set_connection",
        ];
        Self::Selected(TrackerSelection {
            variables: TrackedVariables::Named(names.into_iter().map(Box::from).collect()),
            schema: true,
            state_change: false,
            gtids: false,
            transaction_info: TransactionInfo::Off,
        })
    }
}

impl TrackerSelection {
    fn admits(&self, change: &SessionChange<'_>) -> bool {
        match change {
            SessionChange::Variable { name, .. } => match &self.variables {
                TrackedVariables::Every => true,
                TrackedVariables::Named(names) => names
                    .iter()
                    .any(|known| known.as_bytes().eq_ignore_ascii_case(name)),
            },
            SessionChange::Schema(_) => self.schema,
            SessionChange::State => self.state_change,
            SessionChange::Gtids(_) => self.gtids,
            SessionChange::Transaction(_) => self.transaction_info != TransactionInfo::Off,
            SessionChange::Characteristics(_) => {
                self.transaction_info == TransactionInfo::Characteristics
            }
            SessionChange::Other(_) => false,
        }
    }
}

/// The tracking data a client gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filtered {
    /// What the backend sent.
    Unchanged,
    /// This instead; nothing if empty.
    Replaced(Vec<u8>),
}

/// Filters the tracking data of `ok` for a client that negotiated it or not.
///
/// # Errors
/// [`Malformed::SessionState`].
pub(crate) fn filter(
    filter: &TrackerFilter,
    session_track: bool,
    ok: &OkPacket<'_>,
) -> Result<Filtered, Malformed> {
    if !session_track {
        return Ok(Filtered::Replaced(Vec::new()));
    }
    let TrackerFilter::Selected(selection) = filter else {
        return Ok(Filtered::Unchanged);
    };
    let (mut kept, mut dropped) = (Vec::new(), 0_usize);
    for change in ok.session_changes() {
        let change = change?;
        if selection.admits(&change) {
            put_session_change(&mut kept, &change);
        } else {
            dropped += 1;
        }
    }
    Ok(if dropped == 0 && !kept.is_empty() {
        Filtered::Unchanged
    } else {
        Filtered::Replaced(kept)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::reply::StatusFlags;

    fn ok(session_state: &[u8]) -> OkPacket<'_> {
        OkPacket {
            affected_rows: 0,
            last_insert_id: 0,
            status: StatusFlags(0x4002),
            warnings: 0,
            info_at: 7,
            raw_info: b"\0",
            session_state,
        }
    }

    fn items(changes: &[SessionChange<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for change in changes {
            put_session_change(&mut out, change);
        }
        out
    }

    const ZONE: SessionChange<'_> = SessionChange::Variable {
        name: b"time_zone",
        value: b"UTC",
    };
    const MODE: SessionChange<'_> = SessionChange::Variable {
        name: b"sql_mode",
        value: b"",
    };

    #[test]
    fn default_settings_keep_five_variables_and_the_schema() {
        let all = items(&[
            ZONE,
            MODE,
            SessionChange::Schema(b"a"),
            SessionChange::State,
            SessionChange::Transaction(*b"T_______"),
            SessionChange::Characteristics(b""),
            SessionChange::Gtids(b"\0\0"),
        ]);
        let kept = items(&[ZONE, SessionChange::Schema(b"a")]);
        let default = TrackerFilter::default();
        assert_eq!(
            filter(&default, true, &ok(&all)),
            Ok(Filtered::Replaced(kept.clone()))
        );
        assert_eq!(filter(&default, true, &ok(&kept)), Ok(Filtered::Unchanged));
        assert_eq!(
            filter(&default, false, &ok(&all)),
            Ok(Filtered::Replaced(Vec::new()))
        );
        assert_eq!(
            filter(&TrackerFilter::All, true, &ok(&all)),
            Ok(Filtered::Unchanged)
        );
    }

    #[test]
    fn each_setting_admits_its_own() {
        let none = TrackerSelection {
            variables: TrackedVariables::Named(Vec::new()),
            schema: false,
            state_change: false,
            gtids: false,
            transaction_info: TransactionInfo::Off,
        };
        let state = SessionChange::Transaction(*b"T_______");
        let characteristics = SessionChange::Characteristics(b"");
        let everything = [
            ZONE,
            SessionChange::Schema(b"a"),
            SessionChange::State,
            SessionChange::Gtids(b"\0\0"),
            state,
            characteristics,
            SessionChange::Other(9),
        ];
        assert!(everything.iter().all(|change| !none.admits(change)));
        let with = |change: fn(&mut TrackerSelection)| {
            let mut selection = none.clone();
            change(&mut selection);
            let admitted = everything.iter().map(|c| u8::from(selection.admits(c)));
            admitted.collect::<Vec<_>>()
        };
        assert_eq!(
            with(|s| s.variables = TrackedVariables::Every),
            [1, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(with(|s| s.schema = true), [0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(with(|s| s.state_change = true), [0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(with(|s| s.gtids = true), [0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(
            with(|s| s.transaction_info = TransactionInfo::State),
            [0, 0, 0, 0, 1, 0, 0]
        );
        assert_eq!(
            with(|s| s.transaction_info = TransactionInfo::Characteristics),
            [0, 0, 0, 0, 1, 1, 0]
        );
    }

    #[test]
    fn malformed_data_is_an_error() {
        assert!(filter(&TrackerFilter::default(), true, &ok(b"\x00\x05a")).is_err());
    }
}
