//! How a login ends, and what its failure means for those who wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connector;
use super::inner::{Arrival, Doomed, Inner, Later, Phase};
use super::shelves::Entry;
use super::waiters::{Delivered, LaneId};
use crate::reason::RetireReason;

/// First and longest pause of a key after the server said it is full.
const FULL_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// First and longest pause of warming up after a login for it failed.
const WARM_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How a login ended that opened nothing.
pub(super) enum DialFailure<E> {
    Failed(Arc<E>),
    Denied(Arc<E>),
    Full,
    /// Not begun, as nobody waited any more.
    Unwanted,
    /// Its task ended without a result (a defect).
    Lost,
}

impl<C: Connector> Inner<C> {
    /// `true` if a login not yet begun still has somebody to serve.
    pub(super) fn is_wanted(&mut self, shelf: usize) -> bool {
        let lane = &self.shelves.at(shelf).lane;
        self.phase == Phase::Open && lane.len() >= lane.pending
    }

    /// A login for the waiters of a key ended. `false` if it failed and nobody waited for it.
    pub(super) fn dial_ended(
        &mut self,
        (shelf, generation): (usize, u64),
        result: Result<C::Conn, DialFailure<C::Error>>,
        now: Instant,
        later: &mut Later<C>,
    ) -> bool {
        let lane = LaneId::Shelf(shelf);
        self.slots.dialing -= 1;
        self.change(lane, |lane| {
            lane.pending -= 1;
            if result.is_ok() {
                lane.backoff.clear();
            }
        });
        let told = match result {
            Ok(conn) => {
                self.warm.clear();
                let entry = Box::new(Entry::new(conn, shelf, generation, now));
                self.settle(entry, Arrival::Fresh, now, later);
                true
            }
            Err(failure) => self.dial_failed(shelf, failure, now, later),
        };
        self.schedule(later);
        self.tidy(shelf);
        told
    }

    fn dial_failed(
        &mut self,
        shelf: usize,
        failure: DialFailure<C::Error>,
        now: Instant,
        later: &mut Later<C>,
    ) -> bool {
        let lane = LaneId::Shelf(shelf);
        let queue = &self.shelves.at(shelf).lane;
        let waited_for = !queue.is_empty();
        // With as many logins still in flight as there are waiters, none has lost its chance.
        let for_whom = if queue.len() > queue.pending {
            queue.first()
        } else {
            None
        };
        match failure {
            DialFailure::Denied(error) => {
                let failed = self.fail_lane(lane, || Delivered::Failed(Arc::clone(&error)), later);
                self.pause_warming(now, failed > 0)
            }
            DialFailure::Failed(error) => {
                if let Some(number) = for_whom {
                    self.deliver(lane, number, Delivered::Failed(error), later);
                }
                self.pause_warming(now, waited_for)
            }
            DialFailure::Full => {
                self.pause(shelf, now, later);
                // The server counts other clients too: an idle connection of ours is the only room
                // we can make.
                if for_whom.is_some()
                    && let Some(entry) = self.shelves.take_oldest()
                {
                    let of = entry.shelf;
                    self.close_only(
                        Doomed {
                            entry,
                            reason: RetireReason::MadeRoom,
                        },
                        later,
                    );
                    if of != shelf {
                        self.tidy(of);
                    }
                }
                self.pause_warming(now, waited_for)
            }
            DialFailure::Lost => {
                self.pause(shelf, now, later);
                true
            }
            DialFailure::Unwanted => true,
        }
    }

    fn pause_warming(&mut self, now: Instant, told: bool) -> bool {
        if !told {
            self.warm.fail(now, WARM_PAUSE.0, WARM_PAUSE.1);
        }
        told
    }

    fn pause(&mut self, shelf: usize, now: Instant, later: &mut Later<C>) {
        let until = self.change(LaneId::Shelf(shelf), |lane| {
            lane.backoff.fail(now, FULL_PAUSE.0, FULL_PAUSE.1)
        });
        later.pauses.extend(until.map(|until| (shelf, until)));
    }

    /// A pause may be over.
    pub(super) fn unpause(&mut self, shelf: usize, now: Instant, later: &mut Later<C>) {
        if self.shelves.get(shelf).is_none() {
            return;
        }
        self.change(LaneId::Shelf(shelf), |lane| lane.backoff.expire(now));
        self.schedule(later);
        self.tidy(shelf);
    }

    /// Opens one connection of a key that nobody waits for.
    pub(super) fn dial_spare(&mut self, shelf: usize, later: &mut Later<C>) {
        self.start(LaneId::Shelf(shelf), None, later);
    }

    /// A login that brings its own dial begins, on a slot that was delivered.
    pub(super) fn login_begins(&mut self, key: &C::Key) -> (usize, u64) {
        let shelf = self.shelves.find_or_add(key);
        self.shelves.at(shelf).logins += 1;
        (shelf, self.generation)
    }

    /// It ended.
    pub(super) fn login_ended(
        &mut self,
        (shelf, generation): (usize, u64),
        conn: Option<C::Conn>,
        now: Instant,
        later: &mut Later<C>,
    ) {
        self.slots.dialing -= 1;
        self.shelves.at(shelf).logins -= 1;
        if let Some(conn) = conn {
            let entry = Box::new(Entry::new(conn, shelf, generation, now));
            self.settle(entry, Arrival::Fresh, now, later);
        }
        self.schedule(later);
        self.tidy(shelf);
    }
}
