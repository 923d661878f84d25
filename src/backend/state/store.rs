//! States: interned vectors of values, so that equality, same database and same guarded values are
//! comparisons of numbers.
//!
//! A [`State`] is an `Arc`; the store knows states only weakly and sweeps what is gone whenever its
//! tables have doubled, so thousands of transient states cost no more than the live ones.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::catalog::{Catalog, VarId};
use super::read::Reading;
use super::replay::ReplayCache;
use super::user::{UserReading, UserVariables};
use super::value::Value;
use super::weak::WeakTable;
use crate::backend::statements::StatementKeys;
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
    /// No user variables, as every connection begins.
    no_user: Arc<Tagged<UserVariables>>,
    statements: StatementKeys,
}

#[derive(Debug)]
struct Tables {
    states: WeakTable<Inner>,
    schemas: WeakTable<Tagged<Bytes>>,
    guards: WeakTable<Tagged<Vec<Value>>>,
    users: WeakTable<Tagged<UserVariables>>,
    parses: WeakTable<Tagged<ParseContext>>,
}

/// The session variables, the user variables and the database of a session or of a backend connection.
/// Immutable; equal states of one store are the same state.
#[derive(Debug, Clone)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: u64,
    schema: Option<Arc<Tagged<Bytes>>>,
    guard: Arc<Tagged<Vec<Value>>>,
    parse: Arc<Tagged<ParseContext>>,
    values: Box<[Value]>,
    user: Arc<Tagged<UserVariables>>,
    /// What cannot be written as a literal.
    unreplayable: Unreplayable,
    store: Arc<StoreInner>,
}

/// Which values cannot be written as literals.
#[derive(Debug, Clone, Copy)]
struct Unreplayable {
    /// That of a session variable.
    session: bool,
    /// That of a user variable, or they are too many or too long together.
    user: bool,
}

/// What decides how a statement is read when it is prepared.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ParseContext {
    /// The values of [`Catalog::parsed`].
    values: Vec<Value>,
    schema: Option<Bytes>,
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
        let no_user = Arc::new(Tagged {
            id: 0,
            value: UserVariables::default(),
        });
        Self(Arc::new(StoreInner {
            catalog,
            ids,
            tables: Mutex::new(Tables {
                states: WeakTable::default(),
                schemas: WeakTable::default(),
                guards: WeakTable::default(),
                users: WeakTable::default(),
                parses: WeakTable::default(),
            }),
            hasher: RandomState::new(),
            replays: ReplayCache::default(),
            no_user,
            statements: StatementKeys::default(),
        }))
    }

    /// The catalog that gives the values their names.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.0.catalog
    }

    /// The state with these values, in the catalog's order, this database (UTF-8) and no user variables. A
    /// missing value counts as NULL, one too many is dropped.
    pub fn intern(&self, mut values: Vec<Value>, schema: Option<&[u8]>) -> State {
        values.resize(self.0.catalog.len(), Value::Null);
        let user = Arc::clone(&self.0.no_user);
        self.0.intern(values, schema, user)
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

    pub(in crate::backend) fn statements(&self) -> &StatementKeys {
        &self.0.statements
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

    /// Stands for the database and the variables by which a statement is read when it is prepared. Unique in
    /// the process like [`id`](Self::id), equal for states of one store that agree in these, as long as one
    /// of them lives.
    pub fn parse_id(&self) -> u64 {
        self.0.parse.id
    }

    /// This state in which statements are read as in `other`, which may be of another store: with its
    /// database, if it has one (none cannot be selected), and its values of what decides that. Setting
    /// these never ends a transaction.
    #[must_use]
    pub fn in_parse_context_of(&self, other: &Self) -> Self {
        let same_store = self.same_store(other);
        if same_store && self.parse_id() == other.parse_id() {
            return self.clone();
        }
        let changes: Vec<_> = self
            .catalog()
            .parsed()
            .iter()
            .filter_map(|&id| {
                let value = match same_store {
                    true => other.get(id),
                    false => other.get_named(self.catalog().name(id))?,
                };
                Some((id, value.clone()))
            })
            .collect();
        let schema = other.schema().or_else(|| self.schema());
        self.with(&changes)
            .with_schema(schema.map(|name| &name[..]))
    }

    /// A number that no state, nor anything within one, has or will have.
    pub(in crate::backend) fn fresh_id(&self) -> u64 {
        self.0.store.ids.next()
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
        let user = Arc::clone(&self.0.user);
        self.0
            .store
            .intern(values, self.schema().map(|name| &name[..]), user)
    }

    /// This state with another database, or none. The name is UTF-8, as the schema tracker reports it
    /// whatever the session's charsets are.
    #[must_use]
    pub fn with_schema(&self, schema: Option<&[u8]>) -> Self {
        if self.schema().map(|name| &name[..]) == schema {
            return self.clone();
        }
        let user = Arc::clone(&self.0.user);
        self.0.store.intern(self.0.values.to_vec(), schema, user)
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

    /// The user variables.
    pub fn user(&self) -> &UserVariables {
        &self.0.user.value
    }

    /// This state with other user variables.
    #[must_use]
    pub fn with_user(&self, user: UserVariables) -> Self {
        if *self.user() == user {
            return self.clone();
        }
        let user = self.0.store.intern_user(user);
        let schema = self.schema().map(|name| &name[..]);
        self.0.store.intern(self.0.values.to_vec(), schema, user)
    }

    /// This state with the user variables of another, which may be of another store.
    #[must_use]
    pub fn with_user_of(&self, other: &Self) -> Self {
        if !self.same_store(other) {
            return self.with_user(other.user().clone());
        }
        if self.same_user(other) {
            return self.clone();
        }
        let user = Arc::clone(&other.0.user);
        let schema = self.schema().map(|name| &name[..]);
        self.0.store.intern(self.0.values.to_vec(), schema, user)
    }

    /// This state with what a read-back of user variables showed.
    #[must_use]
    pub fn with_user_reading(&self, reading: UserReading) -> Self {
        self.with_user(self.user().with_reading(reading))
    }

    /// This session's wishes on another server, or after its globals changed: whatever differs from `first`, in
    /// which the session began, put into `onto`, the first state there. Database and user variables are this
    /// state's. `None` if a variable that differs does not exist there.
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
                .with_schema(self.schema().map(|name| &name[..]))
                .with_user_of(self),
        )
    }

    /// Why a session in this state, which began in `first`, is pinned; `None` if its state can be made
    /// on another backend connection.
    pub fn pin_reason(&self, first: &Self) -> Option<PinReason> {
        let literal = |id| self.get(id) == first.get(id) || self.get(id).is_replayable();
        let replayable = self.same_guard(first)
            && (self.all_replayable() || self.catalog().ids().all(literal))
            && (self.schema_id() == first.schema_id() || self.schema_is_replayable());
        match replayable {
            false => Some(PinReason::SessionVariable),
            true => self.0.unreplayable.user.then_some(PinReason::UserVariable),
        }
    }

    /// The catalog that gives the values their names.
    pub fn catalog(&self) -> &Catalog {
        &self.0.store.catalog
    }

    /// The store this state lives in.
    pub fn store(&self) -> StateStore {
        StateStore(Arc::clone(&self.0.store))
    }

    /// Whether both belong to one server, as it was discovered once.
    pub fn same_store(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.store, &other.0.store)
    }

    /// True if all guarded variables have equal values.
    pub(super) fn same_guard(&self, other: &Self) -> bool {
        self.0.guard.id == other.0.guard.id
    }

    /// True if every value can be written as a literal.
    pub(super) fn all_replayable(&self) -> bool {
        !self.0.unreplayable.session
    }

    /// True if both have equal user variables.
    pub(super) fn same_user(&self, other: &Self) -> bool {
        self.0.user.id == other.0.user.id
    }

    /// True if a connection in this state can be given the user variables of `to`. Under `swe7`, in which
    /// names are read in another alphabet, none is given.
    pub(super) fn user_leads_to(&self, to: &Self) -> bool {
        let client = self.get_named("character_set_client");
        self.same_user(to)
            || !to.0.unreplayable.user && client.and_then(Value::as_bytes) != Some(b"swe7")
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
    fn intern_user(&self, user: UserVariables) -> Arc<Tagged<UserVariables>> {
        if user.is_empty() {
            return Arc::clone(&self.no_user);
        }
        let hash = self.hasher.hash_one(&user);
        let mut tables = self.tables.lock();
        if let Some(known) = tables.users.find(hash, |tagged| tagged.value == user) {
            return known;
        }
        let made = Arc::new(Tagged {
            id: self.ids.next(),
            value: user,
        });
        tables.users.insert(hash, &made);
        made
    }

    fn intern(
        self: &Arc<Self>,
        values: Vec<Value>,
        schema: Option<&[u8]>,
        user: Arc<Tagged<UserVariables>>,
    ) -> State {
        let guarded: Vec<Value> = self
            .catalog
            .ids()
            .filter(|id| self.catalog.is_guarded(*id))
            .map(|id| values[id.index()].clone())
            .collect();
        let hash = self.hasher.hash_one((&values, schema, user.id));
        let schema_hash = self.hasher.hash_one(schema);
        let guard_hash = self.hasher.hash_one(&guarded);
        let mut guard = self.tables.lock();
        let tables = &mut *guard;
        let found = tables.states.find(hash, |state| {
            state.values[..] == values[..]
                && state.schema.as_ref().map(|s| &s.value[..]) == schema
                && state.user.id == user.id
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
        let unreplayable = Unreplayable {
            session: values.iter().any(|value| !value.is_replayable()),
            user: !user.value.are_replayable(),
        };
        let parse = tables.parse_context(self, &values, schema.as_deref());
        let state = Arc::new(Inner {
            id: self.ids.next(),
            schema,
            guard: guard_values,
            parse,
            values: values.into(),
            user,
            unreplayable,
            store: Arc::clone(self),
        });
        tables.states.insert(hash, &state);
        State(state)
    }
}

impl Tables {
    fn parse_context(
        &mut self,
        store: &StoreInner,
        values: &[Value],
        schema: Option<&Tagged<Bytes>>,
    ) -> Arc<Tagged<ParseContext>> {
        let parsed = store.catalog.parsed().iter();
        let context = ParseContext {
            values: parsed.map(|id| values[id.index()].clone()).collect(),
            schema: schema.map(|schema| schema.value.clone()),
        };
        let hash = store.hasher.hash_one(&context);
        if let Some(known) = self.parses.find(hash, |tagged| tagged.value == context) {
            return known;
        }
        let made = Arc::new(Tagged {
            id: store.ids.next(),
            value: context,
        });
        self.parses.insert(hash, &made);
        made
    }
}

#[cfg(test)]
mod tests;
