//! Replay: what must be sent to a backend connection in one state to bring it into another.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::RwLock;
use std::collections::HashMap;

use super::catalog::VarId;
use super::store::State;
use super::value::{Quoting, Value};

/// How well a backend connection in one state serves a session in another; the order of choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fit {
    /// No replay at all.
    Equal,
    /// The same database: one `SET`, in the same write as the client's command.
    SameDatabase,
    /// A replay that changes the database.
    Usable,
    /// It cannot be brought there: it has a database and the session has none, or a variable differs that
    /// is never replayed.
    Unusable,
}

/// What to send, in this order: the `SET`, then `COM_INIT_DB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// One multi-assignment `SET` (all or nothing on both servers), ASCII. It cannot fail for an account
    /// for which these values were read, so it goes in the same write as what follows.
    pub set_sql: Option<Bytes>,
    /// The change of database.
    pub database: DatabaseChange,
}

/// The change of database within a [`Replay`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseChange {
    /// None.
    None,
    /// `COM_INIT_DB` with this name (in the new `character_set_client`), from no database: may go in the
    /// same write as the client's command, which then at worst runs without a database.
    Pipelined(Bytes),
    /// `COM_INIT_DB` with this name from another database: its OK must be there before the client's command
    /// is sent, which otherwise would run in the wrong place (hazard 3).
    Awaited(Bytes),
}

/// Why a state cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unreplayable {
    /// A guarded variable differs, or the wanted value cannot be written as a literal.
    #[error("a session variable cannot be replayed")]
    Variable(VarId),
    /// A selected database cannot be un-selected (`COM_INIT_DB` with an empty name is error 1046).
    #[error("a database cannot be un-selected")]
    NoDatabase,
    /// The name of the database cannot be written in the session's client charset.
    #[error("the database's name cannot be sent in this charset")]
    DatabaseName,
    /// The user variables cannot be written, or not from here.
    #[error("the user variables cannot be replayed")]
    UserVariables,
    /// The states belong to different catalogs.
    #[error("the states belong to different servers")]
    OtherStore,
}

/// How well a backend connection in state `from` serves a session in state `to`. Compares ids; only a session
/// with values that are no literals (which is pinned) costs more.
pub fn fit(from: &State, to: &State) -> Fit {
    if from == to {
        return Fit::Equal;
    }
    let same_database = from.schema_id() == to.schema_id();
    let reachable = from.same_store(to)
        && from.same_guard(to)
        && from.user_leads_to(to)
        && (same_database || to.schema().is_some())
        && (to.all_replayable() && (same_database || to.schema_is_replayable())
            || replay(from, to).is_ok());
    match (reachable, same_database) {
        (false, _) => Fit::Unusable,
        (true, true) => Fit::SameDatabase,
        (true, false) => Fit::Usable,
    }
}

/// The shortest way from one state to the other. Cached: the second time costs one lookup.
///
/// # Errors
/// If there is none.
pub fn replay(from: &State, to: &State) -> Result<Arc<Replay>, Unreplayable> {
    if !from.same_store(to) {
        return Err(Unreplayable::OtherStore);
    }
    let store = to.store();
    let key = (from.id(), to.id());
    if let Some(known) = store.replays().get(key) {
        return known;
    }
    let made = build(from, to).map(Arc::new);
    let sql = made
        .as_ref()
        .ok()
        .and_then(|replay| replay.set_sql.as_ref());
    // Long values are many and come once.
    if sql.is_none_or(|sql| sql.len() <= MOST_CACHED) {
        store.replays().put(key, made.clone());
    }
    made
}

fn build(from: &State, to: &State) -> Result<Replay, Unreplayable> {
    let database = database_change(from, to)?;
    let assignments = assignments(from, to)?;
    if !from.user_leads_to(to) {
        return Err(Unreplayable::UserVariables);
    }
    Ok(Replay {
        set_sql: set_sql(from, to, &assignments),
        database,
    })
}

fn database_change(from: &State, to: &State) -> Result<DatabaseChange, Unreplayable> {
    if from.schema_id() == to.schema_id() {
        return Ok(DatabaseChange::None);
    }
    let name = to.schema().ok_or(Unreplayable::NoDatabase)?;
    if !to.schema_is_replayable() {
        return Err(Unreplayable::DatabaseName);
    }
    Ok(match from.schema() {
        None => DatabaseChange::Pipelined(name.clone()),
        Some(_) => DatabaseChange::Awaited(name.clone()),
    })
}

/// The variables to set, in order: those that differ, and those that setting one of them changes.
fn assignments(from: &State, to: &State) -> Result<Vec<VarId>, Unreplayable> {
    let catalog = to.catalog();
    let mut assigned: Vec<VarId> = catalog
        .ids()
        .filter(|&id| from.get(id) != to.get(id))
        .collect();
    let mut next = 0;
    while let Some(&id) = assigned.get(next) {
        if catalog.is_guarded(id) && from.get(id) != to.get(id) || !to.get(id).is_replayable() {
            return Err(Unreplayable::Variable(id));
        }
        for &effect in catalog.side_effects(id) {
            if !assigned.contains(&effect) {
                assigned.push(effect);
            }
        }
        next += 1;
    }
    assigned.sort_by_key(|&id| (catalog.rank(id), id));
    Ok(assigned)
}

/// The `SET`; `None` if it would set nothing.
fn set_sql(from: &State, to: &State, assignments: &[VarId]) -> Option<Bytes> {
    let quoting = quoting(from);
    let mut sql = BytesMut::from(&b"SET "[..]);
    let catalog = to.catalog();
    let is_charset = |id| NAMES.contains(&catalog.name(id));
    let names = set_names(to).filter(|_| assignments.iter().any(|&id| is_charset(id)));
    let begin = sql.len();
    let separate = |sql: &mut BytesMut| {
        if sql.len() > begin {
            sql.put_u8(b',');
        }
    };
    if let Some(names) = &names {
        sql.put_slice(names.as_bytes());
    }
    for &id in assignments {
        if names.is_some() && is_charset(id) {
            continue;
        }
        separate(&mut sql);
        sql.put_slice(b"@@session.");
        sql.put_slice(catalog.name(id).as_bytes());
        sql.put_u8(b'=');
        to.get(id).put_literal(&mut sql, quoting);
    }
    if !from.same_user(to) {
        from.user().put_assignments(to.user(), &mut sql, separate);
    }
    (sql.len() > begin).then(|| sql.freeze())
}

/// What `SET NAMES` sets.
const NAMES: [&str; 4] = [
    "character_set_client",
    "character_set_results",
    "character_set_connection",
    "collation_connection",
];

/// The `SET NAMES` that ends in this state, if one does. Column definitions name the collation that came
/// with `character_set_results`, which no variable shows: after a login or a `SET NAMES` it is the one of
/// `collation_connection`, after `character_set_results='utf8mb4'` it is the server's default.
fn set_names(to: &State) -> Option<String> {
    let values = NAMES.map(|name| to.get_named(name).and_then(Value::as_bytes));
    let [
        Some(client),
        Some(results),
        Some(connection),
        Some(collation),
    ] = values
    else {
        return None;
    };
    let is_of_charset = collation
        .strip_prefix(client)
        .is_some_and(|rest| rest.starts_with(b"_"));
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    if client != results
        || client != connection
        || !is_of_charset
        || !collation.iter().all(is_plain)
    {
        return None;
    }
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some(format!(
        "NAMES {} COLLATE {}",
        text(client),
        text(collation)
    ))
}

/// All literals of a `SET` are read under the charsets before it. Where `character_set_connection` is
/// wide (any client may say `SET collation_connection=utf16_bin`), both servers took `'InnoDB'` for a
/// few letters of UTF-16: unknown engine, unknown charset. An introducer prevents that.
fn quoting(from: &State) -> Quoting {
    let charset = from
        .get_named("character_set_connection")
        .and_then(Value::as_bytes);
    match charset {
        Some(b"ucs2" | b"utf16" | b"utf16le" | b"utf32") => Quoting::Introduced,
        _ => Quoting::Plain,
    }
}

/// What was found for a pair of states.
type Known = Result<Arc<Replay>, Unreplayable>;

/// Replays by pair of state ids. Bounded by two generations: when the younger is full it becomes the older,
/// which is dropped; a use moves an entry back into the younger. Readers share the lock.
#[derive(Debug, Default)]
pub(super) struct ReplayCache(RwLock<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<(u64, u64), Known>,
    old: HashMap<(u64, u64), Known>,
}

/// Bytes of a statement that is remembered.
const MOST_CACHED: usize = 2048;
/// Entries per generation. Tens of states are usual, and a pair is used in both directions.
const GENERATION: usize = 4096;

impl ReplayCache {
    fn get(&self, key: (u64, u64)) -> Option<Known> {
        let generations = self.0.read();
        if let Some(known) = generations.young.get(&key) {
            return Some(known.clone());
        }
        let known = generations.old.get(&key)?.clone();
        drop(generations);
        self.put(key, known.clone());
        Some(known)
    }

    fn put(&self, key: (u64, u64), known: Known) {
        let mut generations = self.0.write();
        if generations.young.len() >= GENERATION {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(key, known);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.0.read();
        generations.young.len() + generations.old.len()
    }
}

#[cfg(test)]
mod tests;
