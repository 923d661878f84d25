//! What a session has open on its connection that goes by a name: temporary tables, handlers, locks,
//! variables that cannot be replayed.
//!
//! Names are added as soon as they may be open, and removed only when it is certain that they are not.
//! What has no name that can be known is a doubt, which ends with a reset of the connection only.

use std::fmt::Write;

use super::scan::{Assigned, Deed, Deeds, GlobalLock, Releasing, TableKind, TableName};
use crate::reason::PinReason;

/// More names than this are a doubt.
const MAX_NAMES: usize = 1000;
/// More locks than this are not asked for in one statement.
const MAX_LOCKS: usize = 100;

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Well, with so many rows.
    Done {
        /// Rows of its last result set.
        rows: u64,
    },
    /// With an error.
    Failed,
    /// With the error that the account may not do it.
    Denied,
    /// With the parser's error: nothing has run.
    NotRun,
}

/// What is open.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Open {
    tables: Names<Table>,
    handlers: Names<Box<[u8]>>,
    user_locks: Names<Box<[u8]>>,
    /// User-level locks were taken or released since the server was asked which are held.
    locks_changed: bool,
    global_locks: Vec<GlobalLock>,
    last_value: bool,
    lasting: bool,
    variables: Names<Box<[u8]>>,
    /// The current database cannot be told.
    adrift: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Table {
    kind: TableKind,
    database: Box<[u8]>,
    name: Box<[u8]>,
}

#[derive(Debug, PartialEq, Eq)]
struct Names<T> {
    known: Vec<T>,
    /// There may be others.
    doubt: bool,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            known: Vec::new(),
            doubt: false,
        }
    }
}

impl<T: PartialEq> Names<T> {
    const fn any(&self) -> bool {
        !self.known.is_empty() || self.doubt
    }

    fn add(&mut self, name: Option<T>) {
        match name {
            Some(name) if self.known.len() < MAX_NAMES => {
                if !self.known.contains(&name) {
                    self.known.push(name);
                }
            }
            _ => self.doubt = true,
        }
    }
}

impl Open {
    /// The reasons that this module decides about.
    pub const REASONS: [PinReason; 3] = [
        PinReason::TemporaryTable,
        PinReason::Handler,
        PinReason::Lock,
    ];

    /// Whether something is, or may be, open that pins for that reason.
    pub const fn holds(&self, reason: PinReason) -> bool {
        match reason {
            PinReason::TemporaryTable => self.tables.any(),
            PinReason::Handler => self.handlers.any(),
            PinReason::Lock => {
                self.user_locks.any()
                    || !self.global_locks.is_empty()
                    || self.last_value
                    || self.lasting
            }
            PinReason::SessionVariable => self.variables.any(),
            _ => false,
        }
    }

    /// Whether it is all closed.
    pub const fn is_empty(&self) -> bool {
        !self.tables.any()
            && !self.handlers.any()
            && !self.holds(PinReason::Lock)
            && !self.variables.any()
    }

    /// Whether a reset is not known to end it all.
    pub const fn outlives_reset(&self) -> bool {
        self.lasting
    }

    /// Something that pins for that reason may be open, and nobody knows what it is called.
    pub const fn doubt(&mut self, reason: PinReason) {
        match reason {
            PinReason::TemporaryTable => self.tables.doubt = true,
            PinReason::Handler => self.handlers.doubt = true,
            PinReason::Lock => self.lasting = true,
            PinReason::SessionVariable => self.variables.doubt = true,
            _ => {}
        }
    }

    /// Notes what a statement has done. `database` is the current one, if it can be told.
    pub fn note(&mut self, deeds: &Deeds<'_>, outcome: Outcome, database: Option<&[u8]>) {
        let certain = !deeds.doubtful && matches!(outcome, Outcome::Done { .. });
        if outcome == Outcome::NotRun {
            return;
        }
        // An error undoes what a single statement did; of several some have run.
        let opens = !deeds.doubtful && (certain || deeds.several);
        let moved = deeds.several && deeds.list.contains(&Deed::Use);
        self.adrift |= moved && !certain;
        let database = database.filter(|_| !self.adrift && !moved);
        for deed in &deeds.list {
            if opens {
                self.open_tables(deed, database);
            }
            if certain {
                self.close(deed, outcome, deeds.several, database);
            }
            // Privileges are checked before such a lock is taken.
            let denied = outcome == Outcome::Denied && !deeds.several;
            if !(denied && matches!(deed, Deed::Take(_))) {
                self.note_lock(deed);
            }
        }
    }

    /// A variable that is never replayed has changed.
    pub fn changed(&mut self, name: &[u8]) {
        self.variables.add(Some(name.to_ascii_lowercase().into()));
    }

    /// Whether that variable, which is never replayed, may be another than at the session's begin.
    pub fn may_have_changed(&self, name: &[u8]) -> bool {
        self.variables.doubt || self.variables.known.iter().any(|known| **known == *name)
    }

    /// A change of state that nothing explains, by a statement that may call functions: they may have
    /// made a temporary table.
    pub const fn unexplained(&mut self) {
        if self.tables.any() {
            self.tables.doubt = true;
        }
    }

    fn open_tables(&mut self, deed: &Deed<'_>, database: Option<&[u8]>) {
        match deed {
            Deed::Create(kind, name) => {
                let table = name.and_then(|name| Table::new(*kind, name, database));
                self.tables.add(table);
            }
            Deed::MayRename(from, to) if self.may_have(*from, database) => {
                let to = to.and_then(|to| Table::new(TableKind::Table, to, database));
                self.tables.add(to);
            }
            Deed::Rename(from, None) if self.may_have(*from, database) => {
                self.tables.doubt = true;
            }
            Deed::Rename(from, Some(to)) if self.may_have(*from, database) => {
                self.tables.add(Table::new(TableKind::Table, *to, database));
            }
            Deed::OpenHandler(alias) => self.handlers.add(alias.map(Into::into)),
            _ => {}
        }
    }

    fn close(&mut self, deed: &Deed<'_>, outcome: Outcome, several: bool, database: Option<&[u8]>) {
        match deed {
            Deed::Drop(kind, names) => {
                let gone = |table: &Table| {
                    // DROP SEQUENCE IF EXISTS lets a table of that name be.
                    let fits = *kind == TableKind::Table || table.kind == TableKind::Sequence;
                    fits && names.iter().any(|name| table.is(*name, database))
                };
                self.tables.known.retain(|table| !gone(table));
            }
            Deed::Rename(Some(from), Some(to)) if from != to => {
                self.tables.known.retain(|table| !table.is(*from, database));
            }
            Deed::CloseHandler(alias) => self.handlers.known.retain(|known| **known != **alias),
            Deed::ReleaseAll(how) => {
                let ran = *how == Releasing::Do || outcome == Outcome::Done { rows: 1 };
                if ran && !several {
                    self.user_locks = Names::default();
                }
            }
            Deed::End(lock) => self.global_locks.retain(|held| held != lock),
            Deed::Assign(name, Assigned::Initial) if !several => {
                let name = name.to_ascii_lowercase();
                self.variables.known.retain(|known| **known != name[..]);
            }
            _ => {}
        }
    }

    /// Locks count as taken although the statement failed: functions are called row by row.
    fn note_lock(&mut self, deed: &Deed<'_>) {
        match deed {
            Deed::GetLock(name) => {
                self.user_locks.add(name.map(Into::into));
                self.locks_changed = true;
            }
            Deed::MayRelease => self.locks_changed = true,
            Deed::Take(lock) if !self.global_locks.contains(lock) => self.global_locks.push(*lock),
            Deed::LastValue => self.last_value = true,
            Deed::Lasting => self.lasting = true,
            _ => {}
        }
    }

    fn may_have(&self, name: Option<TableName<'_>>, database: Option<&[u8]>) -> bool {
        match name {
            None => self.tables.any(),
            Some(name) => self.tables.known.iter().any(|t| t.may_be(name, database)),
        }
    }

    /// Asks the server which of the user-level locks the session still holds; `None`: nothing has
    /// changed, or the answer would not let it go. `thread` is the server's id of the connection.
    pub fn lock_question(&self, thread: u64) -> Option<String> {
        let locks = &self.user_locks;
        let others = !self.global_locks.is_empty() || self.last_value || self.lasting;
        let worth = self.locks_changed
            && !locks.doubt
            && !others
            && (1..=MAX_LOCKS).contains(&locks.known.len());
        if !worth {
            return None;
        }
        let mut sql = String::from("SELECT ");
        for (at, name) in locks.known.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let name = String::from_utf8_lossy(name);
            // Writing to a String does not fail.
            let _ = write!(
                sql,
                "{comma}IS_USED_LOCK('{name}') IN (CONNECTION_ID(),{thread})"
            );
        }
        // Whatever the session's sql_select_limit is.
        sql.push_str(" LIMIT 1");
        Some(sql)
    }

    /// Notes the answer: which of the locks, in the order asked for, are held.
    pub fn answer_locks(&mut self, held: &[bool]) {
        let mut at = 0;
        self.user_locks.known.retain(|_| {
            at += 1;
            held.get(at - 1).copied().unwrap_or(true)
        });
        self.locks_changed = false;
    }
}

impl Table {
    fn new(kind: TableKind, name: TableName<'_>, current: Option<&[u8]>) -> Option<Self> {
        Some(Self {
            kind,
            database: name.database.or(current)?.into(),
            name: name.table.into(),
        })
    }

    /// Certainly this one.
    fn is(&self, name: TableName<'_>, current: Option<&[u8]>) -> bool {
        let database = name.database.or(current);
        *self.name == *name.table && database.is_some_and(|database| *self.database == *database)
    }

    /// Perhaps this one: servers may compare without regard to case.
    fn may_be(&self, name: TableName<'_>, current: Option<&[u8]>) -> bool {
        let same = self.name.eq_ignore_ascii_case(name.table);
        let database = name.database.or(current);
        same && database.is_none_or(|database| self.database.eq_ignore_ascii_case(database))
    }
}

#[cfg(test)]
mod tests;
