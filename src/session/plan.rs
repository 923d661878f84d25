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
    /// What a `CALL` leaves can be found out, or the operator says that nothing is left.
    pub routines_leave_no_trace: bool,
}

/// What must be sent in front of the statement, besides the replay of the session's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Before {
    /// The session's `LAST_INSERT_ID()`, if the backend connection has another.
    pub last_insert_id: bool,
    /// A statement that leaves the diagnostics area empty, as the session's own is.
    pub empty_diagnostics: bool,
    /// The client's own values of the virtual variables that the statement may read.
    pub virtuals: Shown,
}

/// Virtual variables of which the backend connection has the client's own values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// None.
    #[default]
    None,
    /// `wait_timeout` and `interactive_timeout`.
    Timeouts,
    /// These and the trackers: what happens now is not seen.
    All,
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
    /// It may have set a savepoint.
    pub savepoint: bool,
    /// It set variables that MariaDB's trackers do not name: 10.11.19 is silent about `SET @@time_zone = …`.
    pub untracked: bool,
    /// It is about a distributed transaction.
    pub xa: bool,
    /// It may have changed variables of the server.
    pub globals: bool,
    /// It may have changed accounts, roles or privileges.
    pub privileges: bool,
    /// It only looked at what the statement before it left behind.
    pub looks_back: bool,
    /// It names user variables.
    pub user_variables: bool,
    /// It called a routine, and is not pinned for it.
    pub routine: bool,
    /// It left `ROW_COUNT()` and `FOUND_ROWS()` as they were.
    pub keeps_counts: bool,
}

/// Where the statement may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On any connection that can be brought into the session's state.
    Anywhere,
    /// Only where the previous statement ran, as long as these of its numbers are still to be read there.
    Previous(Flags),
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
            virtuals: Shown::None,
        },
        after: After {
            last_insert_id: false,
            plain_set: false,
            end_transaction: false,
            savepoint: false,
            untracked: false,
            xa: false,
            globals: false,
            privileges: false,
            looks_back: false,
            user_variables: false,
            routine: false,
            keeps_counts: false,
        },
        pins: Pins::NONE,
    };

    /// Preparing a statement: what it does is done when it is executed.
    pub const PREPARE: Self = Self {
        after: After {
            keeps_counts: true,
            ..Self::PLAIN.after
        },
        ..Self::PLAIN
    };

    /// The plan for a statement.
    pub fn of(findings: &Findings, memory: Memory) -> Self {
        let flags = findings.flags;
        // Nearly every statement has none of these; the rest of this function is for the few.
        if flags == Flags::NONE {
            return Self::PLAIN;
        }
        let routine = findings.whole == Whole::Call && memory.routines_leave_no_trace;
        let mut pins = pins(flags);
        if routine {
            pins.remove(PinReason::Routine);
        }
        Self {
            place: place(flags, memory),
            before: before(flags, memory),
            after: After {
                last_insert_id: flags.any(Flags::INSERT | Flags::LAST_INSERT_ID),
                plain_set: flags.any(Flags::PLAIN_SET),
                end_transaction: flags.any(Flags::END_TRANSACTION),
                savepoint: flags.any(Flags::SAVEPOINT) || routine,
                untracked: flags.any(Flags::UNTRACKED),
                xa: flags.any(Flags::XA),
                globals: flags.any(Flags::GLOBAL),
                privileges: flags.any(Flags::PRIVILEGES),
                looks_back: flags.any(Flags::LOOKS_BACK),
                user_variables: flags.any(Flags::USER_VARIABLE),
                routine,
                keeps_counts: false,
            },
            pins,
        }
    }

    /// A statement that nobody has read: what it may do to the session is not known.
    pub fn unread() -> Self {
        let mut plan = Self::PLAIN;
        plan.before.last_insert_id = true;
        plan.after.last_insert_id = true;
        plan.pins.add(PinReason::LargeStatement);
        plan
    }
}

fn place(flags: Flags, memory: Memory) -> Place {
    // The connection remembers the last value of a sequence, of whichever session it was.
    let mut needs = flags.only(Flags::ROW_COUNT | Flags::FOUND_ROWS | Flags::LASTVAL);
    // The four plain forms have been answered from what was saved, if that can still be shown. An area
    // that is to be empty can be emptied in front, unless that changed the other numbers.
    if memory.saved_diagnostics || needs != Flags::NONE {
        needs |= flags.only(Flags::DIAGNOSTICS);
    }
    match needs {
        Flags::NONE => Place::Anywhere,
        needs => Place::Previous(needs),
    }
}

fn before(flags: Flags, memory: Memory) -> Before {
    let virtuals = if flags.any(Flags::SESSION_TRACK | Flags::ALL_VARIABLES) {
        Shown::All
    } else if memory.virtual_timeouts && flags.any(Flags::TIMEOUT_VARIABLE) {
        Shown::Timeouts
    } else {
        Shown::None
    };
    Before {
        // A list of all variables shows the id as well.
        last_insert_id: flags.any(Flags::WRITE | Flags::LAST_INSERT_ID | Flags::ALL_VARIABLES),
        empty_diagnostics: flags.any(Flags::DIAGNOSTICS) && !memory.saved_diagnostics,
        virtuals,
    }
}

fn pins(flags: Flags) -> Pins {
    const REASONS: &[(Flags, PinReason)] = &[
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
    // So does a statement that reads the client's own settings and may do more than that.
    if flags.any(Flags::SESSION_TRACK) && flags.any(Flags::SET | Flags::WRITE)
        || flags.any(Flags::SESSION_TRACK | Flags::ALL_VARIABLES) && flags.any(Flags::CODE)
    {
        pins.add(PinReason::SessionTrack);
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
        for (sql, needs) in [
            ("SELECT ROW_COUNT()", Flags::ROW_COUNT),
            ("SELECT FOUND_ROWS()", Flags::FOUND_ROWS),
            (
                "GET DIAGNOSTICS @n = NUMBER, @r = ROW_COUNT",
                Flags::ROW_COUNT | Flags::DIAGNOSTICS,
            ),
        ] {
            assert_eq!(
                plan(sql, Memory::default()).place,
                Place::Previous(needs),
                "{sql}"
            );
        }
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
        for sql in [
            "SHOW WARNINGS",
            "SHOW WARNINGS LIMIT 1",
            "SELECT @@warning_count",
        ] {
            assert_eq!(
                plan(sql, saved).place,
                Place::Previous(Flags::DIAGNOSTICS),
                "{sql}"
            );
        }
        assert!(plan("SHOW WARNINGS", saved).after.looks_back);
        assert!(!plan("SELECT @@warning_count", saved).after.looks_back);
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
        assert!(!read.pins.any() && read.before.virtuals == Shown::All);
        let list = plan("SHOW VARIABLES LIKE 'sql_mode'", Memory::default());
        assert!(!list.pins.any() && list.before.virtuals == Shown::All);
        assert!(list.before.last_insert_id);
    }

    #[test]
    fn what_runs_while_the_trackers_are_the_clients_pins() {
        for sql in [
            "SHOW VARIABLES; SET timestamp = 5",
            "SELECT @@session_track_schema, f()",
            "SHOW VARIABLES WHERE f(Value)",
            "SELECT @@session_track_schema INTO OUTFILE 'x'",
        ] {
            assert!(
                plan(sql, Memory::default())
                    .pins
                    .has(PinReason::SessionTrack),
                "{sql}"
            );
        }
        for sql in [
            "SHOW VARIABLES WHERE Variable_name IN ('a', 'b') OR (Variable_name = 'c')",
            "SELECT concat(@@session_track_schema, '') FROM dual",
        ] {
            assert!(!plan(sql, Memory::default()).pins.any(), "{sql}");
        }
    }

    #[test]
    fn own_timeouts_are_shown_without_the_trackers() {
        let own = Memory {
            virtual_timeouts: true,
            ..Memory::default()
        };
        let shown = |sql| plan(sql, own).before.virtuals;
        assert_eq!(shown("SELECT @@wait_timeout"), Shown::Timeouts);
        assert_eq!(
            shown("SET wait_timeout = 5, timestamp = 6"),
            Shown::Timeouts
        );
        assert_eq!(
            plan("SELECT @@wait_timeout", Memory::default())
                .before
                .virtuals,
            Shown::None
        );
    }

    #[test]
    fn a_savepoint_is_no_pin() {
        let set = plan("SAVEPOINT a", Memory::default());
        assert!(set.after.savepoint && !set.pins.any());
        let back = plan("ROLLBACK TO SAVEPOINT a", Memory::default());
        assert!(!back.after.savepoint && !back.after.end_transaction);
    }

    #[test]
    fn a_call_pins_unless_what_it_leaves_is_known() {
        let known = Memory {
            routines_leave_no_trace: true,
            ..Memory::default()
        };
        let followed = plan("CALL p(@a)", known);
        assert!(!followed.pins.any() && followed.after.routine && followed.after.user_variables);
        assert!(followed.before.last_insert_id);
        for (sql, memory) in [
            ("CALL p()", Memory::default()),
            ("SELECT 1; CALL p()", known),
            ("/*!50000 CALL p() */", known),
            ("BEGIN NOT ATOMIC CALL p(); END", known),
        ] {
            assert!(plan(sql, memory).pins.has(PinReason::Routine), "{sql}");
        }
        assert!(!plan("SET @a = 1", Memory::default()).pins.any());
    }
}
