//! The catalog: every session variable of one server, by name, with what Sidepool does about it.
//!
//! Built once per server version at discovery; shared by all of that server's states. Sources of the
//! names: MariaDB `information_schema.system_variables` (10.1 on), MySQL
//! `performance_schema.variables_metadata` (9.0 on), else `SHOW SESSION VARIABLES` cut to the names
//! known to be session variables. All three answered an account without any privilege.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::names;
use super::read::{ReadQuery, SchemaColumn};
use super::virtuals::Virtual;
use crate::reason::PinReason;

/// Whose variables these are; the two families refuse, name and couple them differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// MariaDB.
    MariaDb,
    /// MySQL and what calls itself neither.
    MySql,
}

impl Family {
    /// From the version in a greeting or of `SELECT VERSION()`. MariaDB's greeting may carry `5.5.5-`
    /// in front of its version, for old replicas.
    pub fn of_version(server_version: &str) -> Self {
        let lower = server_version.to_ascii_lowercase();
        if lower.contains("mariadb")
            || lower.starts_with("5.5.5-10.")
            || lower.starts_with("5.5.5-11.")
        {
            Self::MariaDb
        } else {
            Self::MySql
        }
    }
}

/// A tracked variable's place in every [`State`](super::State) made under the same [`Catalog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VarId(pub(super) u16);

impl VarId {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is done about a session variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Read back and replayed.
    Tracked,
    /// Read back but never replayed: setting it needs a privilege, or may be refused the second time. A
    /// session in which it differs from the first state is pinned until it no longer does.
    Guarded,
    /// The client's wish is remembered by the session, never the backend's.
    Virtual(Virtual),
    /// Reading it back does not tell what was set: whoever sets it is pinned.
    NeverReplayed,
    /// `last_insert_id`, `identity`: kept by the session beside the variables.
    LastInsertId,
    /// Read-only or a counter: a report of it means nothing.
    Ignored,
}

/// One way to learn a server's session variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discovery {
    /// The statement to send.
    pub sql: &'static str,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Rows hold every variable that is not global-only.
    Exact,
    /// Rows hold global variables too, not told apart.
    Mixed,
}

/// What reported names mean: see [`Catalog::resolve`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// To be read back: the named variables and their dependants, each once.
    pub vars: Vec<VarId>,
    /// Virtual variables that were set on the backend connection, and so must be restored there.
    pub virtuals: Vec<Virtual>,
    /// Set if a name pins whatever its value is now.
    pub pin: Option<PinReason>,
    /// True if `last_insert_id` or `identity` was set.
    pub last_insert_id: bool,
    /// True if a name is not in the catalog: the server has variables that discovery did not show. `pin`
    /// is set too.
    pub unknown: bool,
}

/// Every session variable of one server.
#[derive(Debug, PartialEq, Eq)]
pub struct Catalog {
    family: Family,
    /// Names of tracked and guarded variables, by [`VarId`].
    names: Vec<Box<str>>,
    classes: Vec<Class>,
    entries: HashMap<Box<str>, Entry>,
    /// By [`VarId`]: itself and what must be read back with it.
    dependants: Vec<Vec<VarId>>,
    /// By [`VarId`]: what setting it changes as well.
    side_effects: Vec<Vec<VarId>>,
    /// By [`VarId`]: place in a `SET`.
    ranks: Vec<u8>,
    /// What decides how a statement is read when it is prepared.
    parsed: Vec<VarId>,
    tracker_list: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Vector(VarId),
    Other(Class),
}

impl Catalog {
    /// The queries to try in order. The first that succeeds with rows is given to [`from_rows`](Self::from_rows);
    /// if all fail, [`builtin`](Self::builtin) remains.
    pub fn discovery_sql(server_version: &str) -> &'static [Discovery] {
        match Family::of_version(server_version) {
            Family::MariaDb => &[MARIADB_TABLE, SHOW],
            Family::MySql => &[MYSQL_TABLE, SHOW],
        }
    }

    /// From the rows of `discovery`; the first column of each is the name. `None` if no row names a
    /// session variable (MySQL's table is empty where `performance_schema` is off).
    pub fn from_rows<'a>(
        server_version: &str,
        discovery: Discovery,
        names: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let family = Family::of_version(server_version);
        let names: Vec<String> = names
            .into_iter()
            .filter_map(|name| Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase()))
            .filter(|name| is_plain_name(name))
            .filter(|name| {
                discovery.source == Source::Exact || names::is_known_session_variable(family, name)
            })
            .collect();
        (!names.is_empty()).then(|| Self::new(family, names))
    }

    /// The few variables that every server since MariaDB 10.2 and MySQL 5.7 has, and that clients do
    /// set. Everything else is then unknown, and pins.
    pub fn builtin(server_version: &str) -> Self {
        let family = Family::of_version(server_version);
        Self::new(family, names::minimal(server_version, family))
    }

    /// The same catalog without the variable `name`: the remedy when reading all of them fails with
    /// error 1193 (unknown system variable) that names it.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let rest = self
            .entries
            .keys()
            .filter(|n| ***n != *name)
            .map(|n| n.to_string());
        Self::new(self.family, rest.collect())
    }

    /// Whose variables these are.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Number of variables in a state.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True if a state has no variables at all; never so for a discovered or built-in catalog.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All variables of a state, in its order.
    pub fn ids(&self) -> impl Iterator<Item = VarId> + use<> {
        (0..self.names.len() as u16).map(VarId)
    }

    /// The name of a variable, lower case.
    pub fn name(&self, id: VarId) -> &str {
        &self.names[id.index()]
    }

    /// The variable of that name or alias, in any case; `None` if it is not part of a state.
    pub fn id(&self, name: &str) -> Option<VarId> {
        match self.entry(name.as_bytes())? {
            Entry::Vector(id) => Some(id),
            Entry::Other(_) => None,
        }
    }

    /// The class of the variable of that name, in any case; `None` if the server is not known to have it.
    pub fn class(&self, name: &str) -> Option<Class> {
        Some(match self.entry(name.as_bytes())? {
            Entry::Vector(id) => self.classes[id.index()],
            Entry::Other(class) => class,
        })
    }

    /// Reads every variable of a state.
    pub fn read_all_sql(&self, schema: SchemaColumn) -> ReadQuery {
        ReadQuery::new(self, self.ids().collect(), schema)
    }

    /// Reads `vars`; `None` if there is nothing to read.
    pub fn read_sql(&self, vars: &[VarId], schema: SchemaColumn) -> Option<ReadQuery> {
        (!vars.is_empty() || schema == SchemaColumn::Include)
            .then(|| ReadQuery::new(self, vars.to_vec(), schema))
    }

    /// What the names in a session tracker mean. Names may be in any case and need not be UTF-8.
    pub fn resolve<'a>(&self, names: impl IntoIterator<Item = &'a [u8]>) -> ReadBack {
        let mut back = ReadBack::default();
        for name in names {
            self.resolve_one(name, &mut back);
        }
        back.vars.sort_unstable();
        back.vars.dedup();
        back
    }

    /// The value of `session_track_system_variables` on backend connections.
    ///
    /// MySQL 9.7.4: the names, because under `*` it adds `statement_id` to every OK packet (30 bytes where a
    /// `SELECT` has 7); with the names (3.6 kB) `SELECT`, `DO`, `INSERT` report nothing. An unknown name there
    /// is a warning. MariaDB 10.11.19: `*`, which reports no more than the names do; a `SET` of 4.1 kB of names
    /// takes 160 µs instead of 60, and an unknown name is error 1193.
    pub fn tracker_list(&self) -> &str {
        &self.tracker_list
    }

    /// One `SET` of the four trackers: for a new or reset backend connection, and to restore them after a
    /// client's statement set one. Its meaning does not depend on the session's charsets.
    pub fn setup_sql(&self) -> String {
        format!(
            "SET @@session.session_track_system_variables=_latin1'{}',@@session.session_track_schema=1,\
             @@session.session_track_state_change=1,\
             @@session.session_track_transaction_info=_latin1'CHARACTERISTICS'",
            self.tracker_list
        )
    }

    pub(super) fn is_guarded(&self, id: VarId) -> bool {
        self.classes[id.index()] == Class::Guarded
    }

    /// The variables that decide how a statement is read when it is prepared, in a state's order.
    pub fn parsed(&self) -> &[VarId] {
        &self.parsed
    }

    pub(super) fn side_effects(&self, id: VarId) -> &[VarId] {
        &self.side_effects[id.index()]
    }

    pub(super) fn rank(&self, id: VarId) -> u8 {
        self.ranks[id.index()]
    }

    fn new(family: Family, mut all: Vec<String>) -> Self {
        all.sort_unstable();
        all.dedup();
        let mut catalog = Self {
            family,
            names: Vec::new(),
            classes: Vec::new(),
            entries: HashMap::new(),
            dependants: Vec::new(),
            side_effects: Vec::new(),
            ranks: Vec::new(),
            parsed: Vec::new(),
            tracker_list: tracker_list(family, &all),
        };
        let aliased = |name: &str| {
            let pair = names::ALIASES.iter().find(|(alias, _)| *alias == name)?;
            all.iter().any(|n| n == pair.1).then_some(pair.1)
        };
        for name in &all {
            if aliased(name).is_none() {
                catalog.add(name);
            }
        }
        for name in &all {
            if let Some(&entry) = aliased(name).and_then(|canonical| catalog.entries.get(canonical))
            {
                catalog.entries.insert(name.as_str().into(), entry);
            }
        }
        catalog.link();
        catalog
    }

    fn add(&mut self, name: &str) {
        let class = names::class_of(self.family, name);
        let entry = match class {
            Class::Tracked | Class::Guarded => {
                let id = VarId(self.names.len() as u16);
                self.names.push(name.into());
                self.classes.push(class);
                self.ranks.push(names::rank(name));
                if class == Class::Tracked && names::is_parsed(name) {
                    self.parsed.push(id);
                }
                Entry::Vector(id)
            }
            other => Entry::Other(other),
        };
        self.entries.insert(name.into(), entry);
    }

    /// Fills in dependants and side effects, now that all names have ids.
    fn link(&mut self) {
        let ids: Vec<VarId> = self.ids().collect();
        for id in ids {
            let name = self.name(id);
            let of_family = names::FAMILIES
                .iter()
                .filter(|family| family.contains(&name));
            let mut read: Vec<VarId> = of_family
                .flat_map(|f| f.iter().filter_map(|n| self.id(n)))
                .collect();
            read.push(id);
            let changed = names::SIDE_EFFECTS
                .iter()
                .filter(|(cause, _)| *cause == name);
            let changed = changed.filter_map(|(_, effect)| self.id(effect)).collect();
            self.dependants.push(read);
            self.side_effects.push(changed);
        }
    }

    fn entry(&self, name: &[u8]) -> Option<Entry> {
        let name = std::str::from_utf8(name).ok()?;
        let found = self.entries.get(name);
        // Both servers report lower case, MariaDB with exceptions (`wsrep_OSU_method`).
        found
            .or_else(|| self.entries.get(name.to_ascii_lowercase().as_str()))
            .copied()
    }

    fn resolve_one(&self, name: &[u8], back: &mut ReadBack) {
        match self.entry(name) {
            Some(Entry::Vector(id)) => back.vars.extend_from_slice(&self.dependants[id.index()]),
            Some(Entry::Other(Class::Virtual(which))) => {
                if !back.virtuals.contains(&which) {
                    back.virtuals.push(which);
                }
            }
            Some(Entry::Other(Class::LastInsertId)) => back.last_insert_id = true,
            Some(Entry::Other(Class::NeverReplayed)) => {
                back.pin = back.pin.or(Some(PinReason::SessionVariable))
            }
            Some(Entry::Other(_)) => {}
            None => {
                back.unknown = true;
                back.pin = Some(PinReason::UnknownState);
            }
        }
    }
}

const MARIADB_TABLE: Discovery = Discovery {
    sql: "SELECT variable_name FROM information_schema.system_variables WHERE variable_scope <> 'GLOBAL'",
    source: Source::Exact,
};

const MYSQL_TABLE: Discovery = Discovery {
    sql: "SELECT variable_name FROM performance_schema.variables_metadata WHERE variable_scope <> 'GLOBAL'",
    source: Source::Exact,
};

const SHOW: Discovery = Discovery {
    sql: "SHOW SESSION VARIABLES",
    source: Source::Mixed,
};

/// Letters, digits, underscores: what can stand behind `@@` as it is. Structured variables
/// (`hot.key_buffer_size`, component variables with a dot) are global.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// `*` on MariaDB; the names on MySQL, which under `*` adds `statement_id` to every OK packet.
fn tracker_list(family: Family, all: &[String]) -> Box<str> {
    if family == Family::MariaDb {
        return "*".into();
    }
    let mut list = String::new();
    for name in all
        .iter()
        .filter(|n| names::class_of(family, n) != Class::Ignored)
    {
        let comma = if list.is_empty() { "" } else { "," };
        // Writing to a String does not fail.
        let _ = write!(list, "{comma}{name}");
    }
    list.into()
}

#[cfg(test)]
mod tests;
