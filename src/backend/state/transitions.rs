//! Known transitions: which state a statement led to from a state, so that it need not be read again.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use super::store::State;
use super::user::UserVariables;

/// Statements longer than this are not remembered, bytes.
const MAX_TEXT: usize = 1024;

/// Outcomes of plain `SET` statements of literals, by state and exact text; least recently used go first.
///
/// The caller offers only statements whose outcome depends on nothing but the state before, and that ended without
/// a warning: the scan says which. `SET CHARACTER SET` is none (MariaDB 10.11.19 sets `character_set_connection`
/// to the database's charset, which can be altered), nor is anything with `DEFAULT`. Cleared when a global variable is seen to
/// have changed, because servers clamp values to global limits; an outcome is of no use when it is older than such a
/// change may go unseen.
#[derive(Debug)]
pub struct KnownTransitions(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    outcomes: LruCache<Box<[u8]>, (State, Instant)>,
    /// What statements begun before that led to is not to be relied on.
    cleared_at: Option<Instant>,
    /// The key of a lookup is put together here, so that a lookup allocates nothing.
    scratch: Vec<u8>,
}

impl KnownTransitions {
    /// At most `capacity` outcomes; 0 counts as 1.
    pub fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(Inner {
            outcomes: LruCache::new(capacity),
            cleared_at: None,
            scratch: Vec::new(),
        }))
    }

    /// Where `text` led to from `from`, at most `max_age` ago.
    pub fn get(&self, from: &State, text: &[u8], max_age: Duration) -> Option<State> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let bare = from.with_user(UserVariables::default());
        let mut inner = self.0.lock();
        let Inner {
            outcomes, scratch, ..
        } = &mut *inner;
        put_key(scratch, &bare, text);
        let (state, learnt_at) = outcomes.get(scratch.as_slice())?;
        let known = (learnt_at.elapsed() <= max_age).then(|| state.clone());
        drop(inner);
        Some(known?.with_user_of(from))
    }

    /// Remembers that `text`, sent at `began`, led from `from` to `to`.
    pub fn insert(&self, from: &State, text: &[u8], to: State, began: Instant) {
        if text.len() > MAX_TEXT {
            return;
        }
        // User variables have no part in it.
        let (bare, to) = (
            from.with_user(UserVariables::default()),
            to.with_user(UserVariables::default()),
        );
        let mut key = Vec::with_capacity(8 + text.len());
        put_key(&mut key, &bare, text);
        let mut inner = self.0.lock();
        if inner.cleared_at.is_some_and(|cleared| began < cleared) {
            return;
        }
        // The state that is pushed out must not be dropped under the lock.
        let pushed_out = inner.outcomes.push(key.into(), (to, began));
        drop(inner);
        drop(pushed_out);
    }

    /// Forgets everything, and what statements that run now lead to.
    pub fn clear(&self) {
        let mut inner = self.0.lock();
        inner.outcomes.clear();
        inner.cleared_at = Some(Instant::now());
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
    use crate::backend::state::{NumberKind, UserValue, Value, testing};

    fn other_state(state: &State) -> State {
        let id = state.catalog().id("time_zone").unwrap();
        state.with(&[(id, Value::text("+05:00"))])
    }

    #[test]
    fn an_outcome_holds_for_its_state_and_text_only() {
        let first = testing::first_state();
        let id = first.catalog().id("time_zone").unwrap();
        let other = first.with(&[(id, Value::text("+01:00"))]);
        let known = KnownTransitions::new(2);
        let age = Duration::from_secs(3600);
        let began = Instant::now();
        known.insert(&first, b"SET time_zone='+01:00'", other.clone(), began);
        assert_eq!(
            known.get(&first, b"SET time_zone='+01:00'", age),
            Some(other.clone())
        );
        assert_eq!(known.get(&other, b"SET time_zone='+01:00'", age), None);
        assert_eq!(known.get(&first, b"SET time_zone='+01:00' ", age), None);
        known.insert(&first, b"a", first.clone(), began);
        known.get(&first, b"SET time_zone='+01:00'", age);
        known.insert(&first, b"b", first.clone(), began);
        assert_eq!(
            known.get(&first, b"a", age),
            None,
            "the least recently used went"
        );
        assert_eq!(
            known.get(&first, b"SET time_zone='+01:00'", age),
            Some(other)
        );
        let long = vec![b'x'; MAX_TEXT + 1];
        known.insert(&first, &long, first.clone(), began);
        assert_eq!(known.get(&first, &long, age), None);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(known.get(&first, b"b", Duration::from_millis(1)), None);
        let value = UserValue::Number(NumberKind::Signed, Some(b"1"[..].into()));
        let user: UserVariables = [(Box::from(&b"a"[..]), value)].into_iter().collect();
        let with_user = first.with_user(user.clone());
        assert_eq!(known.get(&with_user, b"b", age), Some(with_user.clone()));
        known.insert(&with_user, b"c", other_state(&with_user), Instant::now());
        assert_eq!(known.get(&first, b"c", age), Some(other_state(&first)));
        known.clear();
        assert_eq!(known.get(&first, b"b", age), None);
        known.insert(&first, b"b", first.clone(), began);
        assert_eq!(known.get(&first, b"b", age), None, "begun too early");
        known.insert(&first, b"b", first.clone(), Instant::now());
        assert!(known.get(&first, b"b", age).is_some());
    }
}
