//! States: interned vectors of values, so that equality, same database and same guarded values are
//! comparisons of numbers.
//!
//! A [`State`] is an `Arc`; the store knows states only weakly and sweeps what is gone whenever its
//! tables have doubled, so thousands of transient states cost no more than the live ones.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::catalog::{Catalog, VarId};
use super::read::Reading;
use super::replay::ReplayCache;
use super::value::Value;
use crate::reason::PinReason;

/// The source of state ids. One per process, shared by the stores of all backends, so that a state id
/// never means two things.
#[derive(Debug, Clone, Default)]
pub struct StateIds(Arc<AtomicU64>);

impl StateIds {
    /// Never 0.
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// All states under one [`Catalog`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StateStore(Arc<StoreInner>);

#[derive(Debug)]
struct StoreInner {
    catalog: Arc<Catalog>,
    ids: StateIds,
    tables: Mutex<Tables>,
    hasher: RandomState,
    replays: ReplayCache,
}

#[derive(Debug)]
struct Tables {
    states: WeakTable<Inner>,
    schemas: WeakTable<Tagged<Bytes>>,
    guards: WeakTable<Tagged<Vec<Value>>>,
}

/// The session variables and the database of a session or of a backend connection. Immutable; equal
/// states of one store are the same state.
#[derive(Debug, Clone)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: u64,
    schema: Option<Arc<Tagged<Bytes>>>,
    guard: Arc<Tagged<Vec<Value>>>,
    values: Box<[Value]>,
    /// True if a value cannot be written as a literal.
    unreplayable: bool,
    store: Arc<StoreInner>,
}

/// An interned thing and the number that stands for it.
#[derive(Debug)]
struct Tagged<T> {
    id: u64,
    value: T,
}

impl StateStore {
    /// An empty store.
    pub fn new(catalog: Arc<Catalog>, ids: StateIds) -> Self {
        Self(Arc::new(StoreInner {
            catalog,
            ids,
            tables: Mutex::new(Tables {
                states: WeakTable::default(),
                schemas: WeakTable::default(),
                guards: WeakTable::default(),
            }),
            hasher: RandomState::new(),
            replays: ReplayCache::default(),
        }))
    }

    /// The catalog that gives the values their names.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.0.catalog
    }

    /// The state with these values, in the catalog's order, and this database (UTF-8). A missing value
    /// counts as NULL, one too many is dropped.
    pub fn intern(&self, mut values: Vec<Value>, schema: Option<&[u8]>) -> State {
        values.resize(self.0.catalog.len(), Value::Null);
        self.0.intern(values, schema)
    }

    /// The state shown by [`Catalog::read_all_sql`]. `None` if the reading is not of every variable.
    pub fn from_reading(&self, reading: &Reading) -> Option<State> {
        let complete = self
            .0
            .catalog
            .ids()
            .eq(reading.vars.iter().map(|(id, _)| *id));
        let values = reading
            .vars
            .iter()
            .map(|(_, value)| value.clone())
            .collect();
        complete.then(|| self.intern(values, reading.schema.as_ref().and_then(Option::as_deref)))
    }

    /// States alive now; for tests and the console.
    pub fn live(&self) -> usize {
        self.0.tables.lock().states.live()
    }

    pub(super) fn replays(&self) -> &ReplayCache {
        &self.0.replays
    }
}

impl State {
    /// Unique in the process as long as all stores share their [`StateIds`].
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Equal for equal databases of one store; 0 for no database.
    pub fn schema_id(&self) -> u64 {
        self.0.schema.as_ref().map_or(0, |schema| schema.id)
    }

    /// The selected database, UTF-8.
    pub fn schema(&self) -> Option<&Bytes> {
        self.0.schema.as_ref().map(|schema| &schema.value)
    }

    /// The value of a variable. An id of another catalog shows NULL or another variable.
    pub fn get(&self, id: VarId) -> &Value {
        self.0.values.get(id.index()).unwrap_or(&Value::Null)
    }

    /// The value of the variable of that name, if the state has it.
    pub fn get_named(&self, name: &str) -> Option<&Value> {
        self.catalog().id(name).map(|id| self.get(id))
    }

    /// This state with some values changed.
    #[must_use]
    pub fn with(&self, changes: &[(VarId, Value)]) -> Self {
        if changes.iter().all(|(id, value)| self.get(*id) == value) {
            return self.clone();
        }
        let mut values = self.0.values.to_vec();
        for (id, value) in changes {
            if let Some(slot) = values.get_mut(id.index()) {
                *slot = value.clone();
            }
        }
        self.0
            .store
            .intern(values, self.schema().map(|name| &name[..]))
    }

    /// This state with another database, or none. The name is UTF-8, as the schema tracker reports it
    /// whatever the session's charsets are.
    #[must_use]
    pub fn with_schema(&self, schema: Option<&[u8]>) -> Self {
        if self.schema().map(|name| &name[..]) == schema {
            return self.clone();
        }
        self.0.store.intern(self.0.values.to_vec(), schema)
    }

    /// This state with what a read-back showed.
    #[must_use]
    pub fn with_reading(&self, reading: &Reading) -> Self {
        let state = self.with(&reading.vars);
        match &reading.schema {
            Some(schema) => state.with_schema(schema.as_deref()),
            None => state,
        }
    }

    /// This session's wishes on another server, or after its globals changed: whatever differs from `first`, in
    /// which the session began, put into `onto`, the first state there. The database is this state's. `None` if a
    /// variable that differs does not exist there.
    #[must_use]
    pub fn rebase(&self, first: &Self, onto: &Self) -> Option<Self> {
        let ours = self.catalog();
        let theirs = onto.catalog();
        let changes: Option<Vec<_>> = ours
            .ids()
            .filter(|&id| self.get(id) != first.get(id))
            .map(|id| Some((theirs.id(ours.name(id))?, self.get(id).clone())))
            .collect();
        Some(
            onto.with(&changes?)
                .with_schema(self.schema().map(|name| &name[..])),
        )
    }

    /// Why a session in this state, which began in `first`, is pinned; `None` if its state can be made
    /// on another backend connection.
    pub fn pin_reason(&self, first: &Self) -> Option<PinReason> {
        let literal = |id| self.get(id) == first.get(id) || self.get(id).is_replayable();
        let replayable = self.same_guard(first)
            && (self.all_replayable() || self.catalog().ids().all(literal))
            && (self.schema_id() == first.schema_id() || self.schema_is_replayable());
        (!replayable).then_some(PinReason::SessionVariable)
    }

    /// The catalog that gives the values their names.
    pub fn catalog(&self) -> &Catalog {
        &self.0.store.catalog
    }

    /// The store this state lives in.
    pub fn store(&self) -> StateStore {
        StateStore(Arc::clone(&self.0.store))
    }

    pub(super) fn same_store(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.store, &other.0.store)
    }

    /// True if all guarded variables have equal values.
    pub(super) fn same_guard(&self, other: &Self) -> bool {
        self.0.guard.id == other.0.guard.id
    }

    /// True if every value can be written as a literal.
    pub(super) fn all_replayable(&self) -> bool {
        !self.0.unreplayable
    }

    /// `COM_INIT_DB` carries the name in `character_set_client`, the store has it in UTF-8.
    pub(super) fn schema_is_replayable(&self) -> bool {
        let utf8 = || {
            let charset = self
                .get_named("character_set_client")
                .and_then(Value::as_bytes);
            matches!(charset, Some(b"utf8mb4" | b"utf8mb3" | b"utf8"))
        };
        self.schema().is_none_or(|name| name.is_ascii()) || utf8()
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for State {}

impl StoreInner {
    fn intern(self: &Arc<Self>, values: Vec<Value>, schema: Option<&[u8]>) -> State {
        let guarded: Vec<Value> = self
            .catalog
            .ids()
            .filter(|id| self.catalog.is_guarded(*id))
            .map(|id| values[id.index()].clone())
            .collect();
        let hash = self.hasher.hash_one((&values, schema));
        let schema_hash = self.hasher.hash_one(schema);
        let guard_hash = self.hasher.hash_one(&guarded);
        let mut guard = self.tables.lock();
        let tables = &mut *guard;
        let found = tables.states.find(hash, |state| {
            state.values[..] == values[..] && state.schema.as_ref().map(|s| &s.value[..]) == schema
        });
        if let Some(state) = found {
            return State(state);
        }
        let schema = schema.map(|name| {
            let make = || Tagged {
                id: self.ids.next(),
                value: Bytes::copy_from_slice(name),
            };
            tables
                .schemas
                .find_or(schema_hash, |tagged| tagged.value[..] == *name, make)
        });
        let same = |tagged: &Tagged<Vec<Value>>| tagged.value == guarded;
        let make = || Tagged {
            id: self.ids.next(),
            value: guarded.clone(),
        };
        let guard_values = tables.guards.find_or(guard_hash, same, make);
        let unreplayable = values.iter().any(|value| !value.is_replayable());
        let state = Arc::new(Inner {
            id: self.ids.next(),
            schema,
            guard: guard_values,
            values: values.into(),
            unreplayable,
            store: Arc::clone(self),
        });
        tables.states.insert(hash, &state);
        State(state)
    }
}

/// A hash table of weak references. What it holds takes no lock when it is dropped, so that an entry may lose
/// its last owner under the lock that protects the table.
#[derive(Debug)]
struct WeakTable<T> {
    entries: HashMap<u64, Vec<Weak<T>>>,
    count: usize,
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 64;

impl<T> Default for WeakTable<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            count: 0,
            sweep_at: FIRST_SWEEP,
        }
    }
}

impl<T> WeakTable<T> {
    fn find(&self, hash: u64, same: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        self.entries
            .get(&hash)?
            .iter()
            .filter_map(Weak::upgrade)
            .find(|found| same(found))
    }

    fn find_or(
        &mut self,
        hash: u64,
        same: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        self.find(hash, same).unwrap_or_else(|| {
            let made = Arc::new(make());
            self.insert(hash, &made);
            made
        })
    }

    fn insert(&mut self, hash: u64, made: &Arc<T>) {
        if self.count >= self.sweep_at {
            self.sweep();
        }
        self.entries
            .entry(hash)
            .or_default()
            .push(Arc::downgrade(made));
        self.count += 1;
    }

    fn sweep(&mut self) {
        self.entries.retain(|_, bucket| {
            bucket.retain(|weak| weak.strong_count() > 0);
            !bucket.is_empty()
        });
        self.count = self.entries.values().map(Vec::len).sum();
        self.sweep_at = FIRST_SWEEP.max(self.count * 2);
    }

    fn live(&self) -> usize {
        self.entries
            .values()
            .flatten()
            .filter(|weak| weak.strong_count() > 0)
            .count()
    }
}

#[cfg(test)]
mod tests;
