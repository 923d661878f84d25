//! Prepared statements that sessions share: what makes two of them the same, and which of them a
//! backend connection has.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use super::connection::put_command;
use super::state::{State, WeakTable};
use crate::protocol::command::Command;

/// A statement's text and the state that it was first prepared in. Interned: as long as one lives,
/// equal text under an equal [parse context](State::parse_id) is the same key.
#[derive(Debug)]
pub struct StatementKey {
    id: u64,
    text: Bytes,
    state: State,
}

impl StatementKey {
    /// The key of this text (as the client sent it) under what decides in `state` how it is read.
    pub fn of(text: &[u8], state: &State) -> Arc<Self> {
        state.store().statements().intern(text, state)
    }

    /// A key that equals no other, for a statement whose text is not known.
    pub fn unshared(state: &State) -> Arc<Self> {
        Arc::new(Self {
            id: state.fresh_id(),
            text: Bytes::new(),
            state: state.clone(),
        })
    }

    /// The text, in the state's `character_set_client`.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// A state in which it may be prepared.
    pub fn state(&self) -> &State {
        &self.state
    }
}

/// The keys of all statements that sessions or connections know. Under one [`StateStore`](super::state::StateStore).
#[derive(Debug, Default)]
pub(super) struct StatementKeys {
    table: Mutex<WeakTable<StatementKey>>,
    hasher: RandomState,
}

impl StatementKeys {
    fn intern(&self, text: &[u8], state: &State) -> Arc<StatementKey> {
        let context = state.parse_id();
        let hash = self.hasher.hash_one((text, context));
        let same = |key: &StatementKey| key.state.parse_id() == context && key.text == text;
        let mut table = self.table.lock();
        table.find_or(hash, same, || StatementKey {
            id: state.fresh_id(),
            text: Bytes::copy_from_slice(text),
            state: state.clone(),
        })
    }
}

/// For what a prepared statement is used. MySQL 9.7.4 answers without rows when one whose first execution opened
/// a cursor is executed without, so the one is never used for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// It is executed and answers with rows.
    Rows,
    /// It is executed with a cursor.
    Cursor,
}

/// The prepared statements of one backend connection that any session may use, and those that one has for
/// itself. Nothing is allocated while there are none.
#[derive(Debug, Default)]
pub struct StatementCache {
    /// By key; several of one, for different uses and types.
    shared: HashMap<u64, Vec<Shared>>,
    /// How many there are.
    count: usize,
    /// Ids of those that a session has for itself.
    alone: Vec<u32>,
    /// Ids of what is to be closed.
    closing: Vec<u32>,
    /// Counts uses, for their order.
    clock: u64,
}

#[derive(Debug)]
struct Shared {
    /// Keeps the key alive, so that a session that prepares the same text again finds it.
    key: Arc<StatementKey>,
    id: u32,
    /// When it was used last.
    used: u64,
    /// How it is executed; `None`: it was not yet, so that it serves any use.
    usage: Option<Use>,
    /// The types of parameters that it was executed with.
    types: Option<Box<[u8]>>,
}

/// What an execution says of its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding<'t> {
    /// There are none.
    None,
    /// They are of these types, or of any where a statement does not depend on those of earlier executions. MySQL
    /// 9.7.4 resolves a statement for the types it is executed with first: `SELECT ?` of 5 and then of `'yes'`
    /// selects 0. MariaDB 10.11.19 does not.
    Typed(&'t [u8]),
    /// It relies on types that were never sent: the server must not know any.
    Unbound,
}

/// Types that no execution has: of one that relied on none.
const UNKNOWN: &[u8] = b"?";

impl Shared {
    fn serves(&self, usage: Use, binding: Binding<'_>) -> bool {
        self.usage == Some(usage)
            && match binding {
                Binding::None => true,
                Binding::Typed(types) => self.types.as_deref() == Some(types),
                Binding::Unbound => false,
            }
    }
}

impl StatementCache {
    /// The server's id of a statement, if the connection has it in a shape that serves this execution.
    #[inline]
    pub fn find(&mut self, key: &StatementKey, usage: Use, binding: Binding<'_>) -> Option<u32> {
        let of_key = self.shared.get_mut(&key.id)?;
        self.clock += 1;
        let used = of_key.iter_mut().find(|s| s.serves(usage, binding));
        let shared = match used {
            Some(shared) => shared,
            None => {
                let fresh = of_key.iter_mut().find(|s| s.usage.is_none())?;
                fresh.usage = Some(usage);
                fresh.types = match binding {
                    Binding::None => None,
                    Binding::Typed(types) => Some(types.into()),
                    Binding::Unbound => Some(UNKNOWN.into()),
                };
                fresh
            }
        };
        shared.used = self.clock;
        Some(shared.id)
    }

    /// Adds a statement just prepared. One of its key that was never executed is closed for it. Where there are too many,
    /// those not used for longest are closed; how many.
    pub fn insert(&mut self, key: &Arc<StatementKey>, id: u32, max: usize) -> usize {
        let of_key = self.shared.get(&key.id);
        let fresh = of_key.and_then(|all| all.iter().find(|shared| shared.usage.is_none()));
        if let Some(older) = fresh.map(|shared| shared.id) {
            self.close(older);
        }
        self.add(Shared {
            key: Arc::clone(key),
            id,
            used: 0,
            usage: None,
            types: None,
        });
        self.shrink(max)
    }

    fn add(&mut self, mut shared: Shared) {
        self.clock += 1;
        shared.used = self.clock;
        self.shared.entry(shared.key.id).or_default().push(shared);
        self.count += 1;
    }

    fn shrink(&mut self, max: usize) -> usize {
        let mut evicted = 0;
        while self.count > max.max(1) {
            let all = self.shared.values().flatten();
            let Some(eldest) = all.min_by_key(|shared| shared.used).map(|s| s.id) else {
                break;
            };
            self.close(eldest);
            evicted += 1;
        }
        evicted
    }

    /// Takes one out of the shared ones.
    fn remove(&mut self, id: u32) -> bool {
        let before = self.count;
        self.shared.retain(|_, of_key| {
            let len = of_key.len();
            of_key.retain(|shared| shared.id != id);
            self.count -= len - of_key.len();
            !of_key.is_empty()
        });
        self.count < before
    }

    /// Takes a statement out of the shared ones: a session has it for itself until it is
    /// [given back](Self::share) or [closed](Self::close).
    pub fn reserve(&mut self, id: u32) {
        if self.remove(id) {
            self.alone.push(id);
        }
    }

    /// Adds a statement just prepared that one session has for itself.
    pub fn insert_alone(&mut self, id: u32) {
        self.alone.push(id);
    }

    /// Whoever had it for itself no longer does. If there is another that serves the same meanwhile, that one stays.
    pub fn share(
        &mut self,
        key: &Arc<StatementKey>,
        id: u32,
        (usage, types): (Use, Option<&[u8]>),
        max: usize,
    ) -> usize {
        self.alone.retain(|alone| *alone != id);
        let binding = types.map_or(Binding::None, Binding::Typed);
        let of_key = self.shared.get(&key.id);
        if of_key.is_some_and(|all| all.iter().any(|shared| shared.serves(usage, binding))) {
            self.closing.push(id);
            return 0;
        }
        self.add(Shared {
            key: Arc::clone(key),
            id,
            used: 0,
            usage: Some(usage),
            types: types.map(Into::into),
        });
        self.shrink(max)
    }

    /// It is of no more use to anybody.
    pub fn close(&mut self, id: u32) {
        self.remove(id);
        self.alone.retain(|alone| *alone != id);
        self.closing.push(id);
    }

    /// Makes room: none is shared any more.
    pub fn close_shared(&mut self) -> usize {
        let all = self.shared.drain().flat_map(|(_, of_key)| of_key);
        self.closing.extend(all.map(|shared| shared.id));
        std::mem::take(&mut self.count)
    }

    /// Whether a statement of this id is open for all to use.
    pub fn shares(&self, id: u32) -> bool {
        self.shared.values().flatten().any(|shared| shared.id == id)
    }

    /// Whether a session has the statement of this id for itself.
    pub fn has_alone(&self, id: u32) -> bool {
        self.alone.contains(&id)
    }

    /// The server has forgotten all statements.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Statements that are open at the server.
    pub fn len(&self) -> usize {
        self.count + self.alone.len() + self.closing.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends what closes those of no more use. It has no answer.
    #[inline]
    pub fn put_closes(&mut self, output: &mut BytesMut) {
        if !self.closing.is_empty() {
            self.put_all_closes(output);
        }
    }

    fn put_all_closes(&mut self, output: &mut BytesMut) {
        for id in std::mem::take(&mut self.closing) {
            put_command(output, Command::StmtClose, &id.to_le_bytes());
        }
    }

    /// Texts of the shared statements; for tests.
    #[cfg(test)]
    fn texts(&self) -> Vec<&[u8]> {
        let mut texts: Vec<_> = self
            .shared
            .values()
            .flatten()
            .map(|s| &s.key.text[..])
            .collect();
        texts.sort_unstable();
        texts
    }
}

/// Appends a `COM_STMT_PREPARE`.
pub(super) fn put_prepare(output: &mut BytesMut, text: &[u8]) {
    output.reserve(5 + text.len());
    let mut payload = BytesMut::with_capacity(1 + text.len());
    payload.put_u8(Command::StmtPrepare as u8);
    payload.put_slice(text);
    crate::protocol::packet::put_packet(output, 0, &payload);
}

/// How many statements a connection may keep, when the server allows so many in all and the pool has so many
/// connections. A quarter is left to those that sessions have for themselves, and to others.
pub fn share_of(max_prepared: u64, connections: usize) -> usize {
    const MOST: usize = 256;
    let all = usize::try_from(max_prepared).unwrap_or(usize::MAX) / 4 * 3;
    (all / connections.max(1)).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::state::testing;

    fn key(text: &str) -> Arc<StatementKey> {
        StatementKey::of(text.as_bytes(), &testing::first_state())
    }

    fn keys<const N: usize>(texts: [&str; N]) -> [Arc<StatementKey>; N] {
        let state = testing::first_state();
        texts.map(|text| StatementKey::of(text.as_bytes(), &state))
    }

    fn closes(cache: &mut StatementCache) -> Vec<u32> {
        let mut output = BytesMut::new();
        cache.put_closes(&mut output);
        output
            .chunks(9)
            .map(|packet| {
                assert_eq!(packet[..5], [5, 0, 0, 0, 0x19]);
                u32::from_le_bytes(packet[5..].try_into().unwrap())
            })
            .collect()
    }

    #[test]
    fn equal_texts_read_alike_are_one_statement() {
        let state = testing::first_state();
        let same = state.with_schema(None);
        let of = |text: &[u8], state: &State| StatementKey::of(text, state);
        let first = of(b"SELECT 1", &state);
        assert!(Arc::ptr_eq(&first, &of(b"SELECT 1", &same)));
        assert!(!Arc::ptr_eq(&first, &of(b"SELECT 2", &state)));
        let elsewhere = state.with_schema(Some(b"app"));
        assert!(!Arc::ptr_eq(&first, &of(b"SELECT 1", &elsewhere)));
        assert_ne!(first.id, StatementKey::unshared(&state).id);
    }

    const INT: Binding<'_> = Binding::Typed(b"\x08\0");
    const TEXT: Binding<'_> = Binding::Typed(b"\xfd\0");

    #[test]
    fn what_was_not_used_for_longest_is_closed() {
        let mut cache = StatementCache::default();
        let keys = keys(["a", "b", "c"]);
        for (id, key) in keys.iter().take(2).enumerate() {
            assert_eq!(cache.insert(key, id as u32, 2), 0);
        }
        assert_eq!(cache.find(&keys[0], Use::Rows, Binding::None), Some(0));
        assert_eq!(cache.insert(&keys[2], 2, 2), 1);
        assert_eq!(cache.texts(), [b"a", b"c"]);
        assert_eq!(closes(&mut cache), [1]);
        assert!(closes(&mut cache).is_empty());
        assert_eq!(cache.find(&keys[1], Use::Rows, Binding::None), None);
        assert_eq!(cache.insert(&keys[2], 9, 2), 0, "the same again");
        assert_eq!(closes(&mut cache), [2]);
        assert_eq!(cache.close_shared(), 2);
        let mut closed = closes(&mut cache);
        closed.sort_unstable();
        assert_eq!(closed, [0, 9]);
        assert!(cache.is_empty());
    }

    #[test]
    fn what_was_executed_with_a_cursor_is_not_executed_without() {
        let mut cache = StatementCache::default();
        let key = key("a");
        let find = |cache: &mut StatementCache, usage| cache.find(&key, usage, Binding::None);
        cache.insert(&key, 1, 9);
        assert_eq!(find(&mut cache, Use::Cursor), Some(1));
        assert_eq!(find(&mut cache, Use::Rows), None);
        cache.insert(&key, 2, 9);
        assert_eq!(find(&mut cache, Use::Rows), Some(2));
        assert_eq!(find(&mut cache, Use::Cursor), Some(1));
        cache.reserve(1);
        assert_eq!(find(&mut cache, Use::Cursor), None);
    }

    #[test]
    fn a_statement_serves_the_types_it_was_executed_with_first() {
        let mut cache = StatementCache::default();
        let key = key("a");
        let find = |cache: &mut StatementCache, binding| cache.find(&key, Use::Rows, binding);
        cache.insert(&key, 1, 9);
        assert_eq!(find(&mut cache, INT), Some(1));
        assert_eq!(find(&mut cache, TEXT), None);
        assert_eq!(find(&mut cache, Binding::Unbound), None);
        cache.insert(&key, 2, 9);
        assert_eq!(
            find(&mut cache, INT),
            Some(1),
            "the new one is left as it is"
        );
        assert_eq!(find(&mut cache, TEXT), Some(2));
        cache.insert(&key, 3, 9);
        assert_eq!(find(&mut cache, Binding::Unbound), Some(3));
        for binding in [INT, TEXT, Binding::Unbound] {
            assert_ne!(find(&mut cache, binding), Some(3));
        }
        assert!(closes(&mut cache).is_empty());
        assert_eq!(cache.len(), 3);
    }

    #[test]
    fn what_a_session_has_for_itself_nobody_else_finds() {
        let mut cache = StatementCache::default();
        let key = key("a");
        let int = (Use::Rows, Some(&b"\x08\0"[..]));
        cache.insert(&key, 1, 9);
        cache.reserve(1);
        assert!(cache.has_alone(1) && !cache.shares(1));
        assert_eq!(cache.find(&key, Use::Rows, INT), None);
        cache.insert(&key, 2, 9);
        assert_eq!(cache.find(&key, Use::Rows, INT), Some(2));
        cache.share(&key, 1, int, 9);
        assert_eq!(closes(&mut cache), [1], "there is another meanwhile");
        cache.reserve(2);
        cache.share(&key, 2, int, 9);
        assert_eq!(cache.find(&key, Use::Rows, TEXT), None);
        assert_eq!(cache.find(&key, Use::Rows, INT), Some(2));
        cache.close(2);
        assert_eq!(closes(&mut cache), [2]);
        assert!(cache.is_empty());
    }

    #[test]
    fn the_server_s_room_is_shared_out() {
        assert_eq!(share_of(16_382, 100), 122);
        assert_eq!(share_of(16_382, 10), 256);
        assert_eq!(share_of(0, 10), 1);
        assert_eq!(share_of(10, 1000), 1);
        assert_eq!(share_of(u64::MAX, 0), 256);
    }
}
