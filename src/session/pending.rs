//! What is not yet known of the state that a held backend connection is in.
//!
//! Answers are noted here as they pass; `settle` asks the server for what is missing before the
//! connection may be shared.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::plan::{Plan, Shown};
use super::scan::Flags;
use crate::protocol::reply::StatusFlags;
use crate::reason::PinReason;
use crate::relay::{Answer, Trackers};

/// No transaction, no locks: what the transaction tracker shows of a connection at rest.
const AT_REST: [u8; 8] = *b"________";
/// What characteristics of the next transaction begin with; those of a running one hold a
/// `START TRANSACTION` (measured on both servers).
const SET_TRANSACTION: &[u8] = b"SET TRANSACTION ";

/// Open questions about a held backend connection.
#[derive(Debug, Default)]
pub struct Pending {
    /// Names of variables that may have changed, as reported, each once.
    pub names: Vec<Box<[u8]>>,
    /// The database that was reported last; `Some(None)`: none any more.
    pub schema: Option<Option<Bytes>>,
    /// `LAST_INSERT_ID()` may be another.
    pub insert_id: bool,
    /// An ERR came: changes made before it are not reported yet.
    pub unsettled: bool,
    /// The session's diagnostics are those on the connection: a statement left warnings or an error
    /// there. Otherwise they are what the session carries, whatever the connection has.
    pub diagnostics: bool,
    /// If these are none, then perhaps those from before are still the session's.
    pub doubtful: bool,
    /// The client's own values of virtual variables that the connection has.
    pub shown: Shown,
    /// Everything must be read back.
    pub everything: bool,
    /// The client switched several statements at once on or off; the connection is to be put back.
    pub option: Option<bool>,
    /// What `ROW_COUNT()`, `FOUND_ROWS()` and a diagnostics area that is known to be empty would tell of the
    /// session's own statements; the rest is another session's, or of statements of Sidepool's.
    pub told: Flags,
    /// The session has spoken of a distributed transaction. MariaDB 10.11.19 takes a
    /// `COM_RESET_CONNECTION` behind `XA PREPARE`, and fails every use of InnoDB from then on (1031).
    pub xa: bool,
    /// What shows a transaction besides the status flags.
    transaction: Transaction,
    /// Characteristics of a transaction: the one that runs, or the next one.
    characteristics: Option<Box<[u8]>>,
    /// What is not known of user variables.
    pub user: Unread,
}

/// What has been told of a transaction.
#[derive(Debug)]
struct Transaction {
    /// The transaction tracker's last report.
    state: [u8; 8],
    /// There is a savepoint that nothing else shows: with autocommit off neither flags nor tracker tell
    /// of one that is set first (both servers).
    savepoint: bool,
}

impl Default for Transaction {
    fn default() -> Self {
        Self {
            state: AT_REST,
            savepoint: false,
        }
    }
}

/// Open questions about user variables and what hides behind them.
#[derive(Debug, Default)]
pub struct Unread {
    /// Names, plain and in lower case, of those that may have been set.
    pub names: BTreeSet<Box<[u8]>>,
    /// Others may have been set, which only the server's list tells.
    pub list: bool,
    /// Something may have been created that no tracker names: if so, the session is pinned for this reason.
    pub residue: Option<PinReason>,
    /// Something was created that pins for a reason of its own; it is to be counted, and does not count as
    /// residue.
    pub recount: bool,
}

impl Unread {
    /// Whether what was created on the connection is to be counted.
    pub const fn asks_for_created(&self) -> bool {
        self.residue.is_some() || self.recount
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.list && self.residue.is_none() && !self.recount
    }
}

impl Pending {
    /// Notes what an answer told. `true`: the state changed and nothing named says how.
    pub fn note(&mut self, answer: &Answer, plan: &Plan) -> bool {
        self.insert_id |= plan.after.last_insert_id || answer.last_insert_id != 0;
        self.unsettled |= answer.error().is_some();
        self.xa |= plan.after.xa;
        let unexplained = !answer.trackers.is_empty() && self.note_trackers(answer);
        if let Some(status) = answer.status {
            self.note_savepoint(status, plan);
        }
        unexplained
    }

    /// Savepoints last as long as their transaction. One that begins with a savepoint is not shown, nor need it be
    /// once it has been rolled back to that; so it is not looked for again, but ends where the client ends it.
    fn note_savepoint(&mut self, status: StatusFlags, plan: &Plan) {
        self.transaction.savepoint &= !plan.after.end_transaction && !status.autocommit();
        if plan.after.savepoint && !status.autocommit() && !self.in_transaction(status) {
            self.transaction.savepoint = true;
        }
    }

    fn note_trackers(&mut self, answer: &Answer) -> bool {
        let trackers = &answer.trackers;
        let mut named = false;
        for name in trackers.variables() {
            named = true;
            self.note_variable(name);
        }
        if let Some(schema) = trackers.schema() {
            named = true;
            self.schema = Some((!schema.is_empty()).then(|| Bytes::copy_from_slice(schema)));
        }
        self.note_transaction(trackers);
        trackers.state_changed() && !named
    }

    /// Notes that a variable may have changed.
    pub fn note_variable(&mut self, name: &[u8]) {
        if !self.names.iter().any(|known| **known == *name) {
            self.names.push(name.into());
        }
    }

    /// Notes what an answer, be it to an own statement, told about the transaction.
    pub fn note_transaction(&mut self, trackers: &Trackers) {
        if let Some(transaction) = trackers.transaction_state() {
            self.transaction.state = transaction;
        }
        if let Some(characteristics) = trackers.characteristics() {
            self.characteristics = (!characteristics.is_empty()).then(|| characteristics.into());
        }
    }

    /// Whether the connection is in the middle of a transaction.
    pub fn in_transaction(&self, status: StatusFlags) -> bool {
        status.in_transaction()
            || status.has(StatusFlags::IN_TRANSACTION_READONLY)
            || self.transaction.state[0] != b'_'
            || self.transaction.savepoint
            || self.characteristics.is_some() && self.waiting().is_none()
    }

    /// The `SET TRANSACTION` statements that wait for the next transaction, as the server reports them:
    /// all of them, each with its `;`. `None` while a transaction runs.
    pub fn next_transaction(&self, status: StatusFlags) -> Option<&[u8]> {
        self.waiting().filter(|_| !self.in_transaction(status))
    }

    fn waiting(&self) -> Option<&[u8]> {
        let text = self.characteristics.as_deref()?;
        let is_set = |sql: &[u8]| {
            sql.trim_ascii().is_empty() || sql.trim_ascii().starts_with(SET_TRANSACTION)
        };
        text.split(|&b| b == b';').all(is_set).then_some(text)
    }

    /// Such statements have been put on the connection, or are there no more.
    pub fn set_next_transaction(&mut self, statements: Option<&[u8]>) {
        self.characteristics = statements.map(Into::into);
    }

    /// Whether the session holds table locks.
    pub const fn tables_locked(&self) -> bool {
        self.transaction.state[7] == b'L'
    }

    /// Of what a statement needs of the one before it, what the connection cannot tell.
    pub fn lacks(&self, needs: Flags) -> Flags {
        let mut there = self.told | Flags::LASTVAL;
        if self.diagnostics && !self.doubtful {
            there |= Flags::DIAGNOSTICS;
        }
        needs.without(there)
    }

    /// Sidepool has run statements of its own on the connection.
    pub fn asked(&mut self) {
        self.told = Flags::NONE;
    }

    /// Whether nothing needs to be asked before the connection is shared.
    pub fn is_settled(&self) -> bool {
        self.names.is_empty()
            && !self.insert_id
            && !self.unsettled
            && !self.diagnostics
            && self.shown == Shown::None
            && !self.everything
            && self.option.is_none()
            && self.user.is_empty()
            && self.waiting().is_none()
    }

    /// Whether variables, those of users too, and database are known.
    pub fn knows_state(&self) -> bool {
        self.names.is_empty()
            && self.schema.is_none()
            && !self.unsettled
            && !self.everything
            && self.shown == Shown::None
            && self.user.is_empty()
    }

    /// Whether the way statements are to be read may have changed.
    pub fn names_any(&self, names: &[&[u8]]) -> bool {
        self.names.iter().any(|known| names.contains(&&**known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_pending_has_no_questions() {
        let pending = Pending::default();
        assert!(pending.is_settled());
        assert!(!pending.in_transaction(StatusFlags(StatusFlags::AUTOCOMMIT)));
        assert!(!pending.tables_locked());
    }

    #[test]
    fn a_transaction_shows_in_the_flags_or_in_the_tracker() {
        let mut pending = Pending::default();
        assert!(pending.in_transaction(StatusFlags(StatusFlags::IN_TRANSACTION)));
        pending.transaction.state = *b"I___W___";
        assert!(pending.in_transaction(StatusFlags(0)));
        pending.transaction.state = *b"_______L";
        assert!(!pending.in_transaction(StatusFlags(0)) && pending.tables_locked());
    }

    #[test]
    fn a_savepoint_without_autocommit_is_a_transaction_until_that_is_ended() {
        let (off, on) = (StatusFlags(0), StatusFlags(StatusFlags::AUTOCOMMIT));
        let running = StatusFlags(StatusFlags::IN_TRANSACTION);
        let (mut sets, mut ends) = (Plan::PLAIN, Plan::PLAIN);
        sets.after.savepoint = true;
        ends.after.end_transaction = true;
        let after = |plans: &[(Plan, StatusFlags)]| {
            let mut pending = Pending::default();
            for (plan, status) in plans {
                let answer = Answer {
                    status: Some(*status),
                    ..Answer::default()
                };
                assert!(!pending.note(&answer, plan));
            }
            pending.in_transaction(off)
        };
        assert!(after(&[(sets, off)]));
        assert!(after(&[
            (sets, off),
            (Plan::PLAIN, running),
            (Plan::PLAIN, off)
        ]));
        assert!(!after(&[(sets, off), (ends, off)]));
        assert!(!after(&[(sets, off), (Plan::PLAIN, on)]));
        assert!(!after(&[(sets, on)]));
        assert!(!after(&[(sets, running)]), "the flags show that one");
        let mut both = sets;
        both.after.end_transaction = true;
        assert!(after(&[(both, off)]), "COMMIT; SAVEPOINT a");
    }

    #[test]
    fn what_waits_for_a_transaction_is_none() {
        let idle = StatusFlags(StatusFlags::AUTOCOMMIT);
        let mut pending = Pending::default();
        let text = b"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SET TRANSACTION READ ONLY;";
        pending.set_next_transaction(Some(text));
        assert!(!pending.in_transaction(idle) && !pending.is_settled());
        assert_eq!(pending.next_transaction(idle), Some(&text[..]));
        for running in [
            &b"START TRANSACTION;"[..],
            b"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; START TRANSACTION READ ONLY;",
        ] {
            pending.set_next_transaction(Some(running));
            assert!(pending.in_transaction(idle) && pending.next_transaction(idle).is_none());
        }
        pending.set_next_transaction(Some(text));
        pending.transaction.state = *b"I___W___";
        assert!(pending.next_transaction(idle).is_none());
    }
}
