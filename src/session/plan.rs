//! What a statement needs before it runs and what must be looked at afterwards.
//!
//! Pure decisions on the scan's findings and the session's own memory; nothing here touches a
//! connection. The loop carries a plan out, `settle` reads what it left to be done.

use super::pins::Pins;
use super::scan::{Findings, Flags, Whole};
use crate::reason::PinReason;

/// What the plan depends on besides the statement.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// The session holds a backend connection already.
    pub holding: bool,
    /// The client set its own `wait_timeout` or `interactive_timeout`.
    pub virtual_timeouts: bool,
    /// The last statement left warnings or an error, saved from the backend connection it ran on.
    pub saved_diagnostics: bool,
    /// Autocommit is off.
    pub autocommit_off: bool,
}

/// What must be sent in front of the statement, besides the replay of the session's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Before {
    /// The session's `LAST_INSERT_ID()`, if the backend connection has another.
    pub last_insert_id: bool,
    /// A statement that leaves the diagnostics area empty, as the session's own is.
    pub empty_diagnostics: bool,
    /// The client's own values of the virtual variables, which the statement may read.
    pub virtuals: bool,
}

/// What the statement may have changed unseen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct After {
    /// `LAST_INSERT_ID()` may be another.
    pub last_insert_id: bool,
    /// A `SET` of literals: its effect on a state may be remembered.
    pub plain_set: bool,
    /// It ended the transaction, so savepoints are gone.
    pub end_transaction: bool,
    /// It only looked at what the statement before it left behind.
    pub looks_back: bool,
}

/// Where the statement may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On any connection that can be brought into the session's state.
    Anywhere,
    /// Only where the previous statement ran, with nothing in between.
    Previous(PinReason),
}

/// A statement's plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Where it may run.
    pub place: Place,
    /// What goes in front.
    pub before: Before,
    /// What to look at behind.
    pub after: After,
    /// Reasons that stand once the statement may have run.
    pub pins: Pins,
}

impl Plan {
    /// A command without SQL: state is only what its answer reports.
    pub const PLAIN: Self = Self {
        place: Place::Anywhere,
        before: Before {
            last_insert_id: false,
            empty_diagnostics: false,
            virtuals: false,
        },
        after: After {
            last_insert_id: false,
            plain_set: false,
            end_transaction: false,
            looks_back: false,
        },
        pins: Pins::NONE,
    };

    /// The plan for a statement.
    pub fn of(findings: &Findings, memory: Memory) -> Self {
        let flags = findings.flags;
        // Nearly every statement has none of these; the rest of this function is for the few.
        if flags == Flags::NONE {
            return Self::PLAIN;
        }
        Self {
            place: place(flags, findings.whole, memory),
            before: before(flags, memory),
            after: After {
                last_insert_id: flags.any(Flags::INSERT | Flags::LAST_INSERT_ID),
                plain_set: flags.any(Flags::PLAIN_SET),
                end_transaction: flags.any(Flags::END_TRANSACTION),
                looks_back: flags.any(Flags::DIAGNOSTICS),
            },
            pins: pins(flags, memory),
        }
    }

    /// The plan for preparing a statement, which may run any time later on the same connection.
    pub fn of_prepare(findings: &Findings, memory: Memory) -> Self {
        let mut plan = Self::of(findings, memory);
        plan.before = Before::default();
        plan.after = After::default();
        plan.place = Place::Anywhere;
        plan.pins.add(PinReason::PreparedStatement);
        plan
    }
}

fn place(flags: Flags, whole: Whole, memory: Memory) -> Place {
    if flags.any(Flags::ROW_COUNT | Flags::FOUND_ROWS) {
        return Place::Previous(PinReason::RowCount);
    }
    // The four plain forms are answered from what was saved.
    if flags.any(Flags::DIAGNOSTICS) && memory.saved_diagnostics && whole == Whole::Ordinary {
        return Place::Previous(PinReason::Diagnostics);
    }
    Place::Anywhere
}

fn before(flags: Flags, memory: Memory) -> Before {
    let names_virtuals = flags.any(Flags::SESSION_TRACK | Flags::ALL_VARIABLES)
        || memory.virtual_timeouts && flags.any(Flags::TIMEOUT_VARIABLE);
    Before {
        last_insert_id: flags.any(Flags::WRITE | Flags::LAST_INSERT_ID),
        empty_diagnostics: flags.any(Flags::DIAGNOSTICS) && !memory.saved_diagnostics,
        virtuals: names_virtuals,
    }
}

fn pins(flags: Flags, memory: Memory) -> Pins {
    const REASONS: &[(Flags, PinReason)] = &[
        (Flags::USER_VARIABLE, PinReason::UserVariable),
        (Flags::TEMPORARY, PinReason::TemporaryTable),
        (Flags::HANDLER, PinReason::Handler),
        (Flags::LOCK, PinReason::Lock),
        (Flags::LOCK_TABLES, PinReason::LockTables),
        (Flags::ROUTINE, PinReason::Routine),
        (Flags::ROLE, PinReason::Role),
        (Flags::PREPARE, PinReason::PreparedStatement),
        (Flags::CONNECTION_ID, PinReason::ConnectionId),
        (Flags::CALC_FOUND_ROWS, PinReason::RowCount),
    ];
    let mut pins: Pins = REASONS
        .iter()
        .filter(|(flag, _)| flags.any(*flag))
        .map(|&(_, reason)| reason)
        .collect();
    // A client that sets the trackers itself sees through them from now on; Sidepool no longer does.
    if flags.any(Flags::SESSION_TRACK) && flags.any(Flags::SET | Flags::WRITE) {
        pins.add(PinReason::SessionTrack);
    }
    // With autocommit off a savepoint counts although no flag shows a transaction (hazard 8).
    if flags.any(Flags::SAVEPOINT) && memory.autocommit_off {
        pins.add(PinReason::Savepoint);
    }
    pins
}

#[cfg(test)]
mod tests {
    use super::super::scan::{LexMode, Scanner};
    use super::*;

    fn plan(sql: &str, memory: Memory) -> Plan {
        Plan::of(
            &Scanner::default().scan(sql.as_bytes(), LexMode::default()),
            memory,
        )
    }

    #[test]
    fn an_ordinary_read_needs_nothing() {
        assert_eq!(plan("SELECT * FROM t", Memory::default()), Plan::PLAIN);
    }

    #[test]
    fn the_insert_id_goes_in_front_of_writes_and_is_read_behind_inserts() {
        let insert = plan("INSERT INTO t VALUES (1)", Memory::default());
        assert!(insert.before.last_insert_id && insert.after.last_insert_id);
        let update = plan("UPDATE t SET a = 1", Memory::default());
        assert!(update.before.last_insert_id && !update.after.last_insert_id);
        let mention = plan("SELECT LAST_INSERT_ID()", Memory::default());
        assert!(mention.before.last_insert_id && mention.after.last_insert_id);
    }

    #[test]
    fn row_counts_are_only_where_the_previous_statement_ran() {
        let expected = Place::Previous(PinReason::RowCount);
        assert_eq!(
            plan("SELECT ROW_COUNT()", Memory::default()).place,
            expected
        );
        assert_eq!(
            plan("SELECT FOUND_ROWS()", Memory::default()).place,
            expected
        );
        assert!(
            plan("SELECT SQL_CALC_FOUND_ROWS 1", Memory::default())
                .pins
                .has(PinReason::RowCount)
        );
    }

    #[test]
    fn diagnostics_are_saved_or_empty() {
        let saved = Memory {
            saved_diagnostics: true,
            ..Memory::default()
        };
        assert_eq!(plan("SHOW WARNINGS", saved).place, Place::Anywhere);
        let limited = plan("SHOW WARNINGS LIMIT 1", saved).place;
        assert_eq!(limited, Place::Previous(PinReason::Diagnostics));
        assert!(
            plan("SHOW WARNINGS", Memory::default())
                .before
                .empty_diagnostics
        );
    }

    #[test]
    fn setting_a_tracker_pins_and_reading_one_does_not() {
        let set = plan("SET session_track_schema = 1", Memory::default());
        assert!(set.pins.has(PinReason::SessionTrack));
        let read = plan("SELECT @@session_track_schema", Memory::default());
        assert!(!read.pins.any() && read.before.virtuals);
        assert!(
            plan("SHOW VARIABLES LIKE 'sql_mode'", Memory::default())
                .before
                .virtuals
        );
    }

    #[test]
    fn a_savepoint_counts_only_without_autocommit() {
        let off = Memory {
            autocommit_off: true,
            ..Memory::default()
        };
        assert!(plan("SAVEPOINT a", off).pins.has(PinReason::Savepoint));
        assert!(!plan("SAVEPOINT a", Memory::default()).pins.any());
    }
}
