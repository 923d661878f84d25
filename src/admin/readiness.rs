//! Readiness by latches: ready when nobody holds one and no drain has begun.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// Whether Sidepool should be given new clients. Clones share one state.
///
/// Whatever must come first (binding, discovering the backend) holds a [`Latch`] while it is not done;
/// the same may be done later, for example while no backend is reachable.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Latches held, with a number each so that two may have one name.
    held: Vec<(u64, Cow<'static, str>)>,
    next: u64,
    draining: bool,
}

/// The names of what keeps Sidepool from being ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady(Vec<Cow<'static, str>>);

impl Readiness {
    /// Ready, until a latch is taken.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready from now until the latch is opened or dropped; `name` is what `/ready` then shows.
    #[must_use = "a latch opens when it is dropped"]
    pub fn latch(&self, name: impl Into<Cow<'static, str>>) -> Latch {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        state.held.push((number, name.into()));
        Latch {
            readiness: self.clone(),
            number,
        }
    }

    /// Not ready for good, so that no new clients are sent here before the listeners close.
    pub fn drain(&self) {
        self.0.lock().draining = true;
    }

    /// Whether Sidepool is ready, or what keeps it from that.
    pub fn check(&self) -> Result<(), NotReady> {
        let state = self.0.lock();
        let mut names: Vec<_> = state.held.iter().map(|(_, name)| name.clone()).collect();
        if state.draining {
            names.push(Cow::Borrowed("draining"));
        }
        if names.is_empty() {
            Ok(())
        } else {
            Err(NotReady(names))
        }
    }
}

/// Keeps [`Readiness`] red while it is held.
#[derive(Debug)]
#[must_use = "a latch opens when it is dropped"]
pub struct Latch {
    readiness: Readiness,
    number: u64,
}

impl Latch {
    /// Opens the latch; the same as dropping it, said aloud.
    pub fn open(self) {}
}

impl Drop for Latch {
    fn drop(&mut self) {
        let mut state = self.readiness.0.lock();
        state.held.retain(|(number, _)| *number != self.number);
    }
}

impl NotReady {
    /// The names, in the order in which the latches were taken; `draining` last.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not ready: ")?;
        for (i, name) in self.names().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latch_must_open_and_a_drain_is_for_good() {
        let readiness = Readiness::new();
        assert_eq!(readiness.check(), Ok(()));

        let listeners = readiness.latch("listener");
        let backend = readiness.latch(format!("backend {}", "db:3306"));
        let twin = readiness.latch("listener");
        let why = readiness.check().unwrap_err();
        assert_eq!(
            why.to_string(),
            "not ready: listener, backend db:3306, listener"
        );

        listeners.open();
        drop(backend);
        assert_eq!(
            readiness.check().unwrap_err().names().collect::<Vec<_>>(),
            ["listener"],
            "of two latches of one name the other still holds"
        );
        drop(twin);
        assert_eq!(readiness.check(), Ok(()));

        let late = readiness.latch("backend");
        readiness.clone().drain();
        drop(late);
        assert_eq!(
            readiness.check().unwrap_err().to_string(),
            "not ready: draining"
        );
    }
}
