//! What operators and events outside ask: retire, other limits, close.

use super::connection::Connector;
use super::inner::{Doomed, Inner, Later, Phase};
use super::limits::Limits;
use super::waiters::{Delivered, LaneId};
use crate::reason::RetireReason;

impl<C: Connector> Inner<C> {
    /// Retires the idle connections that `which` picks.
    pub(super) fn retire_idle(
        &mut self,
        which: impl Fn(&C::Key, &C::Conn) -> bool,
        reason: RetireReason,
        later: &mut Later<C>,
    ) -> usize {
        let picked: Vec<(u64, usize)> = self
            .shelves
            .idle()
            .filter(|(_, shelf, entry)| which(&shelf.key, &entry.conn))
            .map(|(sequence, _, entry)| (sequence, entry.shelf))
            .collect();
        for &(sequence, shelf) in &picked {
            if let Some(entry) = self.shelves.take(shelf, sequence) {
                self.end(Doomed { entry, reason }, later);
                self.tidy(shelf);
            }
        }
        picked.len()
    }

    /// Retires every connection of the keys that `which` picks: idle ones now, lent ones and those
    /// whose login has begun when they come back.
    pub(super) fn retire_keys(
        &mut self,
        which: impl Fn(&C::Key) -> bool,
        reason: RetireReason,
        later: &mut Later<C>,
    ) -> usize {
        self.generation += 1;
        let shelves: Vec<usize> = self
            .shelves
            .iter()
            .filter(|(_, shelf)| which(&shelf.key))
            .map(|(at, _)| at)
            .collect();
        for at in shelves {
            self.shelves.at(at).mark = Some((self.generation, reason));
        }
        self.retire_idle(|key, _| which(key), reason, later)
    }

    pub(super) fn set_limits(&mut self, limits: Limits, later: &mut Later<C>) {
        self.limits = limits.usable();
        while self.total() - self.slots.closing > self.limits.max_connections
            && let Some(entry) = self.shelves.take_oldest()
        {
            let shelf = entry.shelf;
            self.close_only(
                Doomed {
                    entry,
                    reason: RetireReason::Admin,
                },
                later,
            );
            self.tidy(shelf);
        }
        self.cap_idle(later);
        self.schedule(later);
        if let Some(recent) = self.recent {
            self.tidy(recent);
        }
    }

    /// Nothing is lent from now on.
    pub(super) fn close(&mut self, later: &mut Later<C>) {
        self.phase = Phase::Closed;
        let mut lanes = vec![LaneId::Logins, LaneId::Guards];
        lanes.extend(self.shelves.iter().map(|(at, _)| LaneId::Shelf(at)));
        for lane in lanes {
            self.fail_lane(lane, || Delivered::Closed, later);
        }
        self.retire_idle(|_, _| true, RetireReason::Drain, later);
    }
}
