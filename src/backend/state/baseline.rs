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
    /// What was read before that is not to be relied on.
    stale_before: RwLock<Option<Instant>>,
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
            stale_before: RwLock::new(None),
        }
    }

    /// The first state for `key`, unless it is older than `max_age` at `now`, out of date or was never
    /// read.
    pub fn get(&self, key: &K, now: Instant, max_age: Duration) -> Option<State> {
        let entries = self.entries.read();
        let entry = entries.get(key)?;
        let young = now.saturating_duration_since(entry.read_at) <= max_age;
        let stale = self.stale_before.read().is_some_and(|t| entry.read_at < t);
        (young && !stale).then(|| entry.state.clone())
    }

    /// The state for `key` that a login begun at `began` or later has shown, out of date or not: it is
    /// the caller's own.
    pub fn since(&self, key: &K, began: Instant) -> Option<State> {
        let entries = self.entries.read();
        let entry = entries.get(key)?;
        (entry.read_at >= began).then(|| entry.state.clone())
    }

    /// The state that the last login for `key` showed, however long ago.
    pub fn last(&self, key: &K) -> Option<State> {
        Some(self.entries.read().get(key)?.state.clone())
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

    /// A global variable changed: what logins begun before `when` showed is out of date.
    pub fn expire(&self, when: Instant) {
        let mut stale_before = self.stale_before.write();
        *stale_before = (*stale_before).max(Some(when));
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
    fn entries_age_and_go_out_of_date_together() {
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
        assert_eq!(baselines.last(&"a"), Some(state.clone()));
        assert_eq!(baselines.get(&"b", start, minute), None);
        baselines.insert("b", state.clone(), start + minute);
        baselines.insert("c", state, start + minute * 2);
        assert_eq!(baselines.len(), 2);
        assert!(
            baselines.get(&"a", start, minute).is_none(),
            "the oldest made room"
        );
        let later = start + minute * 2;
        baselines.expire(later);
        assert!(baselines.get(&"c", later, minute).is_some());
        assert!(baselines.get(&"b", later, minute).is_none(), "out of date");
        assert!(baselines.since(&"b", start + minute).is_some());
        assert!(baselines.since(&"b", later).is_none());
        baselines.expire(start);
        assert!(baselines.get(&"b", later, minute).is_none());
    }
}
