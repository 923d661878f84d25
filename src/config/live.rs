//! Settings while running: read often, changed seldom, one change at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use super::Settings;
use super::load::{MAX_INDEX, from_tree, layer};
use super::problem::Problems;
use super::schema::{self, Liveness, Node};

/// The settings in force.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Settings>,
    /// Counts changes of `current`.
    generation: AtomicU64,
    /// Held from reading the old settings to storing the new, so that no change is lost.
    changing: Mutex<()>,
}

/// One key that differs after a change was asked for; for the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// As in `client.idle_timeout` or `listener[0].address`.
    pub key: String,
    /// What was in force.
    pub old: Value,
    /// What was asked for.
    pub new: Value,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is in force.
    Applied,
    /// The old value stays in force until a restart.
    NeedsRestart,
}

impl Live {
    /// Begins with these settings.
    pub fn new(settings: Settings) -> Self {
        Self {
            current: ArcSwap::from_pointee(settings),
            generation: AtomicU64::new(0),
            changing: Mutex::new(()),
        }
    }

    /// The settings in force, for a short look: hold it across no await.
    pub fn load(&self) -> Guard<Arc<Settings>> {
        self.current.load()
    }

    /// The settings in force, to keep.
    pub fn snapshot(&self) -> Arc<Settings> {
        self.current.load_full()
    }

    /// Another number after each change. Read it before what is derived from the settings: they may be newer,
    /// never older.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Takes over what may change while running; the rest keeps its value.
    ///
    /// # Errors
    /// What is wrong with the new settings, or with what they would be mixed with values that need a
    /// restart. Then nothing has changed.
    pub fn apply(&self, new: &Settings) -> Result<Vec<Change>, Problems> {
        let _changing = self.changing.lock();
        self.apply_locked(new)
    }

    /// Sets keys by their paths and text, as a console's `SET client.idle_timeout = '20m'` does.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply), and keys that are not known.
    pub fn set<'a>(
        &self,
        keys: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Vec<Change>, Problems> {
        let _changing = self.changing.lock();
        let mut problems = Problems::default();
        let mut overrides = Vec::new();
        for (path, text) in keys {
            match typed(path, text) {
                Ok(value) => overrides.push((path.to_owned(), value)),
                Err(message) => problems.push(path, message),
            }
        }
        problems.into_result()?;
        let tree = layer(&self.load().to_toml(), overrides)
            .map_err(|e| Problems::one("settings", e.to_string()))?;
        self.apply_locked(&from_tree(tree)?)
    }

    /// Changes the settings by a JSON merge patch (RFC 7396): tables are merged, lists replaced, and
    /// `null` gives a key its default.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn patch(&self, patch: &Value) -> Result<Vec<Change>, Problems> {
        let _changing = self.changing.lock();
        let mut tree = self.load().to_json();
        merge(&mut tree, patch);
        self.apply_locked(&from_tree(tree)?)
    }

    fn apply_locked(&self, new: &Settings) -> Result<Vec<Change>, Problems> {
        new.validate()?;
        let mut changes = Vec::new();
        let old = self.load().to_json();
        let mixed = reconcile("", &old, &new.to_json(), &mut changes);
        self.current.store(Arc::new(from_tree(mixed)?));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(changes)
    }
}

/// What is in force after the change at a path and below, with the differences noted.
fn reconcile(path: &str, old: &Value, new: &Value, changes: &mut Vec<Change>) -> Value {
    match (old, new) {
        _ if old == new => old.clone(),
        (Value::Object(old), Value::Object(new)) => {
            let dot = if path.is_empty() { "" } else { "." };
            let child = |(name, old): (&String, &Value)| {
                let new = new.get(name).unwrap_or(&Value::Null);
                (
                    name.clone(),
                    reconcile(&format!("{path}{dot}{name}"), old, new, changes),
                )
            };
            old.iter().map(child).collect()
        }
        (Value::Array(old), Value::Array(new)) if is_one_by_one(path, old, new) => {
            let items = old.iter().zip(new).enumerate();
            items
                .map(|(i, (old, new))| reconcile(&format!("{path}[{i}]"), old, new, changes))
                .collect()
        }
        _ => {
            let live = schema::liveness(&schema::without_indexes(path)) == Some(Liveness::Live);
            changes.push(Change {
                key: path.to_owned(),
                old: old.clone(),
                new: new.clone(),
                outcome: if live {
                    Outcome::Applied
                } else {
                    Outcome::NeedsRestart
                },
            });
            if live { new.clone() } else { old.clone() }
        }
    }
}

/// Whether a list's items change one by one: only listeners, of which some keys are live, and only
/// if the items are the same ones, lest one listener be given another's certificate.
fn is_one_by_one(path: &str, old: &[Value], new: &[Value]) -> bool {
    let addresses = |list: &[Value]| {
        list.iter()
            .map(|item| item.get("address").cloned())
            .collect::<Vec<_>>()
    };
    schema::liveness(path).is_none() && addresses(old) == addresses(new)
}

fn typed(path: &str, text: &str) -> Result<Value, String> {
    let schema_path = schema::without_indexes(path);
    match schema::node(&schema_path) {
        Node::Leaf(_) if !has_plain_indexes(path) => {
            Err(format!("an index is a whole number from 0 to {MAX_INDEX}"))
        }
        Node::Leaf(key) => key.kind.read(text).map_err(|expected| {
            format!(
                "expected {expected}, found {}",
                schema::shown(&Value::from(text))
            )
        }),
        _ => Err(format!(
            "unknown key; the nearest known one is {}",
            schema::nearest(&schema_path, false)
        )),
    }
}

/// `config` would count negative indexes from the end and make room for large ones.
fn has_plain_indexes(path: &str) -> bool {
    let indexes = path
        .split('[')
        .skip(1)
        .map(|rest| rest.split(']').next().unwrap_or_default());
    indexes.into_iter().all(|index| {
        index.bytes().all(|b| b.is_ascii_digit())
            && index.parse::<usize>().is_ok_and(|i| i <= MAX_INDEX)
    })
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests;
