//! Tables of what is alive elsewhere, for interning.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// A hash table of weak references. What it holds takes no lock when it is dropped, so that an entry may lose
/// its last owner under the lock that protects the table.
#[derive(Debug)]
pub(in crate::backend) struct WeakTable<T> {
    entries: HashMap<u64, Vec<Weak<T>>>,
    pub(super) count: usize,
    sweep_at: usize,
}

pub(super) const FIRST_SWEEP: usize = 64;

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
    pub(in crate::backend) fn find(&self, hash: u64, same: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        self.entries
            .get(&hash)?
            .iter()
            .filter_map(Weak::upgrade)
            .find(|found| same(found))
    }

    pub(in crate::backend) fn find_or(
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

    pub(in crate::backend) fn insert(&mut self, hash: u64, made: &Arc<T>) {
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

    pub(in crate::backend) fn live(&self) -> usize {
        self.entries
            .values()
            .flatten()
            .filter(|weak| weak.strong_count() > 0)
            .count()
    }
}
