//! Who is served next, and what is begun for those who wait.

use tokio::time::Instant;

use super::connection::{Connector, Wish};
use super::inner::{Dial, Doomed, Inner, Job, Later, Start};
use super::waiters::{Delivered, Lane, LaneId, Left, Waiter};
use crate::reason::RetireReason;

impl<C: Connector> Inner<C> {
    /// The lane, if it is still there.
    pub(super) fn lane(&mut self, lane: LaneId) -> Option<&mut Lane<Wish<C>>> {
        match lane {
            LaneId::Shelf(shelf) => self.shelves.get(shelf).map(|shelf| &mut shelf.lane),
            LaneId::Logins => Some(&mut self.queues.logins),
            LaneId::Guards => Some(&mut self.queues.guards),
        }
    }

    /// Changes a lane, and the heads with it.
    pub(super) fn change<R>(
        &mut self,
        id: LaneId,
        change: impl FnOnce(&mut Lane<Wish<C>>) -> R,
    ) -> R {
        let lane = match id {
            LaneId::Shelf(shelf) => &mut self.shelves.at(shelf).lane,
            LaneId::Logins => &mut self.queues.logins,
            LaneId::Guards => &mut self.queues.guards,
        };
        let result = change(lane);
        lane.publish(id, &mut self.queues.heads);
        result
    }

    /// The oldest waiter that needs something that may be begun now.
    pub(super) fn neediest(&self) -> Option<(u64, LaneId)> {
        if self.slots.dialing < self.limits.max_dials {
            return self
                .queues
                .heads
                .first_key_value()
                .map(|(&number, &lane)| (number, lane));
        }
        self.queues
            .guards
            .head()
            .map(|number| (number, LaneId::Guards))
    }

    /// Begins what the waiters need, oldest first, as far as the limits and the idle connections,
    /// least recently used first, allow. None of these fits a waiter of its own key, or it would
    /// have been given to it.
    pub(super) fn schedule(&mut self, later: &mut Later<C>) {
        while let Some((_, lane)) = self.neediest() {
            if self.has_room() {
                self.start(lane, None, later);
            } else if self.total() == self.limits.max_connections
                && let Some(entry) = self.shelves.take_oldest()
            {
                let shelf = entry.shelf;
                self.start(
                    lane,
                    Some(Doomed {
                        entry,
                        reason: RetireReason::MadeRoom,
                    }),
                    later,
                );
                self.tidy(shelf);
            } else {
                break;
            }
        }
    }

    /// Begins a login, or clears a slot, for the first uncovered waiter of a lane. The slot is a
    /// free one or that of the connection to close.
    pub(super) fn start(&mut self, lane: LaneId, after: Option<Doomed<C>>, later: &mut Later<C>) {
        match lane {
            LaneId::Shelf(_) | LaneId::Logins => self.slots.dialing += 1,
            LaneId::Guards => self.slots.reserved += 1,
        }
        self.change(lane, |lane| lane.pending += 1);
        match lane {
            LaneId::Shelf(shelf) => {
                let key = self.shelves.at(shelf).key.clone();
                let job = Job::Dial(Dial {
                    shelf,
                    key,
                    generation: self.generation,
                });
                later.starts.push(Start { job, after });
            }
            LaneId::Logins | LaneId::Guards if after.is_some() => {
                later.starts.push(Start {
                    job: Job::Grant(lane),
                    after,
                });
            }
            LaneId::Logins | LaneId::Guards => self.granted(lane, later),
        }
    }

    /// A slot is clear: it goes to the first of its lane, or is free if all have left.
    pub(super) fn granted(&mut self, lane: LaneId, later: &mut Later<C>) {
        let first = self.change(lane, |lane| {
            lane.pending -= 1;
            lane.first()
        });
        match first {
            Some(number) => self.deliver(lane, number, Delivered::Slot, later),
            None => self.free_slot(lane, later),
        }
    }

    /// Gives up a slot that was delivered.
    pub(super) fn free_slot(&mut self, lane: LaneId, later: &mut Later<C>) {
        match lane {
            LaneId::Shelf(_) | LaneId::Logins => self.slots.dialing -= 1,
            LaneId::Guards => self.slots.reserved -= 1,
        }
        self.schedule(later);
    }

    pub(super) fn deliver(
        &mut self,
        lane: LaneId,
        number: u64,
        delivered: Delivered<C>,
        later: &mut Later<C>,
    ) {
        if let Some(waiter) = self.change(lane, |lane| lane.remove(number)) {
            self.queues.waiting -= 1;
            self.queues.delivered.insert(number, delivered);
            later.woken.push(waiter);
        }
    }

    /// A waiter leaves, with what it was given if anything.
    pub(super) fn leave(&mut self, lane: LaneId, number: u64, later: &mut Later<C>) -> Left<C> {
        if let Some(delivered) = self.queues.delivered.remove(&number) {
            return Left::Late(delivered);
        }
        let (ahead, waiter) =
            self.change(lane, |lane| (lane.ahead_of(number), lane.remove(number)));
        if let Some(waiter) = waiter {
            self.queues.waiting -= 1;
            // Only so that it is dropped outside the lock.
            later.woken.push(Waiter {
                waker: None,
                ..waiter
            });
        }
        if let LaneId::Shelf(shelf) = lane {
            self.tidy(shelf);
        }
        Left::Empty { ahead }
    }

    /// What was delivered to one that left goes on to the next.
    pub(super) fn pass_on(
        &mut self,
        lane: LaneId,
        delivered: Delivered<C>,
        now: Instant,
        later: &mut Later<C>,
    ) {
        match delivered {
            Delivered::Connection(entry, _) => {
                self.give_back(entry, now, later);
            }
            Delivered::Slot => self.free_slot(lane, later),
            Delivered::Failed(_) | Delivered::Closed => {}
        }
    }

    /// Fails every waiter of a lane.
    pub(super) fn fail_lane(
        &mut self,
        lane: LaneId,
        failure: impl Fn() -> Delivered<C>,
        later: &mut Later<C>,
    ) -> usize {
        let numbers = self
            .lane(lane)
            .map(|lane| lane.numbers())
            .unwrap_or_default();
        for &number in &numbers {
            self.deliver(lane, number, failure(), later);
        }
        numbers.len()
    }
}
