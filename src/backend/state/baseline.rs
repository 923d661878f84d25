//! Baselines: the first state of a session, by whatever decides it (account, charset, capabilities).

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::store::State;

/// First states, read once per key. The age of an entry says when to read it again.
#[derive(Debug)]
pub struct Baselines<K> {
    entries: RwLock<HashMap<K, Entry>>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    state: State,
    read_at: Instant,
}

impl<K: Eq + Hash + Clone> Baselines<K> {
    /// At most `capacity` entries; the oldest makes room.
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: RwLock::new(HashMap::new()),
            capacity: capacity.max(1),
        }
    }

    /// The first state for `key`, unless it is older than `max_age` at `now` or was never read.
    pub fn get(&self, key: &K, now: Instant, max_age: Duration) -> Option<State> {
        let entries = self.entries.read();
        let entry = entries.get(key)?;
        (now.saturating_duration_since(entry.read_at) <= max_age).then(|| entry.state.clone())
    }

    /// Remembers the state that a real login for `key` showed at `read_at`.
    pub fn insert(&self, key: K, state: State, read_at: Instant) {
        let mut entries = self.entries.write();
        if entries.len() >= self.capacity && !entries.contains_key(&key) {
            let oldest = entries
                .iter()
                .min_by_key(|(_, entry)| entry.read_at)
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                entries.remove(&oldest);
            }
        }
        entries.insert(key, Entry { state, read_at });
    }

    /// Forgets the entry of one key.
    pub fn drop_one(&self, key: &K) {
        self.entries.write().remove(key);
    }

    /// Forgets everything: a global variable changed, and what logins show now is not known.
    pub fn drop_all(&self) {
        self.entries.write().clear();
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.read().len()
    }

    /// True if nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.read().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::state::testing;

    #[test]
    fn entries_age_and_are_dropped_together() {
        let state = testing::first_state();
        let baselines = Baselines::new(2);
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        baselines.insert("a", state.clone(), start);
        assert_eq!(
            baselines.get(&"a", start + minute, minute),
            Some(state.clone())
        );
        assert_eq!(baselines.get(&"a", start + minute * 2, minute), None);
        assert_eq!(baselines.get(&"b", start, minute), None);
        baselines.insert("b", state.clone(), start + minute);
        baselines.insert("c", state, start + minute * 2);
        assert_eq!(baselines.len(), 2);
        assert!(
            baselines.get(&"a", start, minute).is_none(),
            "the oldest made room"
        );
        baselines.drop_all();
        assert!(baselines.is_empty());
    }
}
