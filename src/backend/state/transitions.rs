//! Known transitions: which state a statement led to from a state, so that it need not be read again.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use super::store::State;

/// Statements longer than this are not remembered, bytes.
const MAX_TEXT: usize = 1024;

/// Outcomes of plain `SET` statements of literals, by state and exact text; least recently used go first.
///
/// The caller offers only statements whose outcome depends on nothing but the state before, and that ended without
/// a warning: the scan says which. `SET CHARACTER SET` is none (MariaDB 10.11.19 sets `character_set_connection`
/// to the database's charset, which can be altered), nor is anything with `DEFAULT`. To be cleared when a global variable changes, because servers clamp values to global limits.
#[derive(Debug)]
pub struct KnownTransitions(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    outcomes: LruCache<Box<[u8]>, State>,
    /// The key of a lookup is put together here, so that a lookup allocates nothing.
    scratch: Vec<u8>,
}

impl KnownTransitions {
    /// At most `capacity` outcomes; 0 counts as 1.
    pub fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(Inner {
            outcomes: LruCache::new(capacity),
            scratch: Vec::new(),
        }))
    }

    /// Where `text` led to from `from` before.
    pub fn get(&self, from: &State, text: &[u8]) -> Option<State> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let mut inner = self.0.lock();
        let Inner { outcomes, scratch } = &mut *inner;
        put_key(scratch, from, text);
        outcomes.get(scratch.as_slice()).cloned()
    }

    /// Remembers that `text` led from `from` to `to`.
    pub fn insert(&self, from: &State, text: &[u8], to: State) {
        if text.len() > MAX_TEXT {
            return;
        }
        let mut key = Vec::with_capacity(8 + text.len());
        put_key(&mut key, from, text);
        // The state that is pushed out must not be dropped under the lock.
        let pushed_out = self.0.lock().outcomes.push(key.into(), to);
        drop(pushed_out);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.0.lock().outcomes.clear();
    }
}

fn put_key(key: &mut Vec<u8>, from: &State, text: &[u8]) {
    key.clear();
    key.extend_from_slice(&from.id().to_le_bytes());
    key.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::state::{Value, testing};

    #[test]
    fn an_outcome_holds_for_its_state_and_text_only() {
        let first = testing::first_state();
        let id = first.catalog().id("time_zone").unwrap();
        let other = first.with(&[(id, Value::text("+01:00"))]);
        let known = KnownTransitions::new(2);
        known.insert(&first, b"SET time_zone='+01:00'", other.clone());
        assert_eq!(
            known.get(&first, b"SET time_zone='+01:00'"),
            Some(other.clone())
        );
        assert_eq!(known.get(&other, b"SET time_zone='+01:00'"), None);
        assert_eq!(known.get(&first, b"SET time_zone='+01:00' "), None);
        known.insert(&first, b"a", first.clone());
        known.get(&first, b"SET time_zone='+01:00'");
        known.insert(&first, b"b", first.clone());
        assert_eq!(
            known.get(&first, b"a"),
            None,
            "the least recently used went"
        );
        assert_eq!(known.get(&first, b"SET time_zone='+01:00'"), Some(other));
        let long = vec![b'x'; MAX_TEXT + 1];
        known.insert(&first, &long, first.clone());
        assert_eq!(known.get(&first, &long), None);
        known.clear();
        assert_eq!(known.get(&first, b"b"), None);
    }
}
