//! Where the sessions of one role borrow now, and how they learn that it has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::target::Target;
use crate::config::Role;

/// The backends that sessions of one role borrow from. Cheap to clone; clones share one state.
#[derive(Debug, Clone)]
pub struct Route(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    role: Role,
    /// Counts the changes.
    epoch: AtomicU64,
    targets: watch::Sender<Vec<Target>>,
    turn: AtomicUsize,
}

/// The backend that serves a session, and the state of the route when it was chosen.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The backend.
    pub target: Target,
    epoch: u64,
}

impl Route {
    /// A route to these, none or several.
    pub fn new(role: Role, targets: Vec<Target>) -> Self {
        Self(Arc::new(Inner {
            role,
            epoch: AtomicU64::new(0),
            targets: watch::Sender::new(targets),
            turn: AtomicUsize::new(0),
        }))
    }

    /// Sends everybody to these from now on; whether that is a change.
    pub fn set(&self, targets: Vec<Target>) -> bool {
        self.0.targets.send_if_modified(|now| {
            let same = now.len() == targets.len() && now.iter().zip(&targets).all(|(a, b)| a.is(b));
            if !same {
                *now = targets;
                self.0.epoch.fetch_add(1, Ordering::Release);
            }
            !same
        })
    }

    /// Whether nothing has changed since the placement. One load, for every borrow.
    pub fn is_current(&self, placement: &Placement) -> bool {
        self.0.epoch.load(Ordering::Acquire) == placement.epoch
    }

    /// Whether the session that was placed so may borrow there now.
    pub fn holds(&self, placement: &Placement) -> bool {
        self.is_current(placement) || self.serves(&placement.target)
    }

    /// Whether sessions may borrow from that backend now.
    pub fn serves(&self, target: &Target) -> bool {
        self.0.targets.borrow().iter().any(|one| one.is(target))
    }

    /// Whether what a session holds at that backend is of no use any more: writes go to another one.
    pub fn has_left(&self, placement: &Placement) -> bool {
        !self.is_current(placement)
            && self.0.role == Role::Writer
            && !self.0.targets.borrow().is_empty()
            && !self.serves(&placement.target)
    }

    /// The least loaded of the backends: fewest leased, then fewest waiting, then in turns.
    pub fn pick(&self) -> Option<Placement> {
        let targets = self.0.targets.borrow();
        // Read under the lock under which it is written.
        let epoch = self.0.epoch.load(Ordering::Acquire);
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let count = targets.len();
        let load = |at: usize| {
            let counts = targets[at].pool().counts();
            (counts.borrowed + counts.dialing, counts.waiters)
        };
        let least = match count {
            0 => None,
            1 => Some(0),
            _ => (0..count)
                .map(|ahead| turn.wrapping_add(ahead) % count)
                .min_by_key(|&at| load(at)),
        };
        let target = targets[least?].clone();
        Some(Placement { target, epoch })
    }

    /// The same, waiting until there is one or the deadline has come. Cancel safe.
    pub async fn pick_by(&self, deadline: Instant) -> Option<Placement> {
        let picked = async {
            let mut targets = self.0.targets.subscribe();
            loop {
                targets.borrow_and_update();
                if let Some(placement) = self.pick() {
                    return Some(placement);
                }
                targets.changed().await.ok()?;
            }
        };
        timeout_at(deadline, picked).await.ok().flatten()
    }

    /// Ends when that backend serves no more. Cancel safe.
    pub async fn left(&self, target: &Target) {
        let mut targets = self.0.targets.subscribe();
        let gone = |targets: &Vec<Target>| !targets.iter().any(|one| one.is(target));
        if targets.wait_for(gone).await.is_err() {
            // Without a sender nothing changes any more; but the sender is in this route.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::dial::Address;
    use crate::backend::dialer::Dialer;
    use crate::backend::state::StateIds;
    use crate::backend::tls::BackendTls;
    use crate::config::{Live, Settings};
    use crate::pool::NoEvents;
    use std::time::Duration;

    fn target(name: &str) -> Target {
        let live = Arc::new(Live::new(Settings::default()));
        let address = Address::Unix(name.into());
        let dialer = Dialer::new(
            address,
            BackendTls::off(),
            Arc::clone(&live),
            StateIds::default(),
        );
        Target::new(dialer, live, Arc::new(NoEvents))
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_loaded_is_picked_and_equals_take_turns() {
        let (a, b) = (target("a"), target("b"));
        let route = Route::new(Role::Reader, vec![a.clone(), b.clone()]);
        let picked: Vec<_> = (0..4).filter_map(|_| route.pick()).collect();
        assert!(picked[0].target.is(&a) && picked[1].target.is(&b));
        assert!(picked[2].target.is(&a) && picked[3].target.is(&b));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_by_who_waits_and_by_who_was_placed_before() {
        let (a, b) = (target("a"), target("b"));
        let route = Route::new(Role::Writer, vec![a.clone()]);
        let placement = route.pick().unwrap();
        assert!(!route.set(vec![a.clone()]), "no change");
        assert!(route.is_current(&placement));

        assert!(route.set(Vec::new()));
        assert!(!route.is_current(&placement));
        assert!(!route.has_left(&placement), "there is no other yet");
        route.left(&a).await;
        let soon = Instant::now() + Duration::from_secs(1);
        assert!(route.pick_by(soon).await.is_none());

        let waiting = tokio::spawn({
            let route = route.clone();
            async move {
                route
                    .pick_by(Instant::now() + Duration::from_secs(60))
                    .await
            }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        route.set(vec![b.clone()]);
        let moved = waiting.await.unwrap().unwrap();
        assert!(moved.target.is(&b) && route.is_current(&moved));
        assert!(route.has_left(&placement) && !route.has_left(&moved));
        // A replica that others are preferred to keeps who holds something there.
        let readers = Route::new(Role::Reader, vec![a]);
        let placement = readers.pick().unwrap();
        readers.set(vec![b]);
        assert!(!readers.has_left(&placement));
    }
}
