//! What may still be asked about a session's last statements, and where: the diagnostics area, `ROW_COUNT()`,
//! `FOUND_ROWS()`.

use super::Session;
use super::exchange::Trouble;
use super::memory::MARK;
use super::scan::{Emptied, Flags, LexMode, drops_database, empties, selects};
use super::work::Work;
use crate::backend::connection::BackendConnection;
use crate::backend::state::{State, Value};
use crate::protocol::command::Command;
use crate::reason::PinReason;
use crate::relay::Answer;

/// Empties the diagnostics area on both servers. MariaDB 10.11 leaves it alone in statements without
/// a table (`DO 0`, `SET`), so this one has a derived one.
const EMPTY_DIAGNOSTICS: &[u8] = b"DO (SELECT COUNT(*) FROM (SELECT 1) AS t)";
/// On MariaDB, in front of what may keep or empty the area: tells which it did.
const MARK_DIAGNOSTICS: &str = "SIGNAL SQLSTATE '01000' SET MESSAGE_TEXT = ";

impl Session {
    /// What `ROW_COUNT()` and `FOUND_ROWS()` tell on the connection is now of this command, if it sets them.
    pub(super) fn note_counts(&mut self, answer: &Answer, work: &Work) {
        let lex = work.lex(self.carried.lex);
        let Some(hold) = &mut self.hold else { return };
        if self.carried.set_row_count(answer) {
            hold.pending.told |= Flags::ROW_COUNT;
        }
        if answer.error().is_none() && selects(work.text(), lex) {
            hold.pending.told |= Flags::FOUND_ROWS;
        }
    }

    /// What the command left in the diagnostics area: something of its own, nothing, or what there was.
    pub(super) fn note_diagnostics(&mut self, answer: &Answer, work: &Work) {
        let (mariadb, lex) = (self.is_mariadb(), work.lex(self.carried.lex));
        let unseen = self.leaves_unseen(work);
        let any_saved = self.carried.has_diagnostics();
        let Some(hold) = &mut self.hold else { return };
        let (pending, saved) = (&mut hold.pending, &mut self.carried.diagnostics);
        let looks_back = work.plan.after.looks_back;
        // What looks back shows what there was, and may add to it.
        let own = answer.warnings > 0 && !(looks_back && (pending.diagnostics || any_saved));
        if answer.error().is_some() || own || unseen {
            pending.diagnostics = true;
            // On MariaDB one that left none itself may have kept what is saved.
            let left = answer.error().is_some() || own;
            pending.doubtful = mariadb && any_saved && !left;
            pending.told = pending.told.without(Flags::DIAGNOSTICS);
            if !pending.doubtful {
                *saved = None;
            }
            return;
        }
        if looks_back {
            return;
        }
        match emptied(work, mariadb, lex) {
            Emptied::Yes => {
                pending.diagnostics = false;
                pending.doubtful = false;
                pending.told |= Flags::DIAGNOSTICS;
                *saved = None;
            }
            Emptied::No => {}
            Emptied::Perhaps => {
                if let Some(saved) = saved.as_mut().filter(|_| any_saved) {
                    saved.lost = true;
                }
            }
        }
    }

    /// Whether a command may leave warnings that its OK does not count: the OK of a `CALL` and, on MariaDB,
    /// that of a `DROP DATABASE` counts none of them (measured).
    pub(super) fn leaves_unseen(&self, work: &Work) -> bool {
        let executed = work.command == Command::StmtExecute;
        work.plan.pins.has(PinReason::Routine)
            || work.plan.after.routine
            || executed && self.pinned.pins.has(PinReason::Routine)
            // Only what writes can be one.
            || work.plan.before.last_insert_id && drops_database(work.text(), work.lex(self.carried.lex))
    }
}

/// Appends what empties the area, or marks it, on a connection in that state; how many statements that are.
pub(super) fn put_diagnostics(
    connection: &mut BackendConnection,
    marked: bool,
    state: &State,
) -> u16 {
    if !marked {
        connection.put_query(EMPTY_DIAGNOSTICS);
        return 1;
    }
    let mark = format!("{MARK_DIAGNOSTICS}'{MARK}'");
    let text = |name| state.get_named(name).and_then(Value::as_bytes);
    let wide = text("character_set_connection").is_some_and(|charset| {
        charset.starts_with(b"ucs2") || charset.starts_with(b"utf16") || charset == b"utf32"
    });
    match text("collation_connection").filter(|_| wide) {
        // No literal of such a character set is an SQLSTATE (1407).
        Some(collation) => {
            let back = [b"SET @@session.collation_connection=", collation].concat();
            connection.put_query(b"SET @@session.character_set_connection=latin1");
            connection.put_query(mark.as_bytes());
            connection.put_query(&back);
            3
        }
        None => {
            connection.put_query(mark.as_bytes());
            1
        }
    }
}

/// Nothing is lacking of what a statement needs of the one before it.
pub(super) const fn kept(lacking: Flags) -> Result<(), Trouble> {
    match lacking {
        Flags::NONE => Ok(()),
        _ => Err(not_kept(lacking)),
    }
}

pub(super) const fn not_kept(lacking: Flags) -> Trouble {
    // A connection that is kept for the numbers has the diagnostics too.
    Trouble::NotKept(if lacking.any(Flags::LASTVAL) {
        PinReason::Lock
    } else if lacking.any(Flags::ROW_COUNT) || lacking.any(Flags::FOUND_ROWS) {
        PinReason::RowCount
    } else {
        PinReason::Diagnostics
    })
}

/// What a command that went well did to the diagnostics area. Measured on MariaDB 10.11.19, where only what
/// uses a table empties it, and MySQL 9.7.4.
fn emptied(work: &Work, mariadb: bool, lex: LexMode) -> Emptied {
    match work.command {
        Command::Query | Command::StmtPrepare | Command::StmtExecute | Command::StmtBulkExecute => {
            match mariadb {
                true => empties(work.text(), lex),
                false => Emptied::Yes,
            }
        }
        _ => Emptied::No,
    }
}
