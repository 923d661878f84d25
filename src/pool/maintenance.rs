//! The background task: idle timeout, lifetime, the server's own idle limit, and warm connections.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::Connector;
use super::inner::{Doomed, Inner, Later, Phase};
use super::pool::Pool;
use crate::reason::RetireReason;

/// The longest time between two rounds: how late a changed limit takes effect, and how late a
/// connection that became idle since the last round may be found due. Half of it is what even a
/// `wait_timeout` of 1 s leaves.
const ROUND: Duration = Duration::from_millis(250);
/// The shortest, so that connections due one after the other are closed in one round.
const SHORTEST_ROUND: Duration = Duration::from_millis(50);

/// How long a connection beyond `max_idle` must have been unused before it is closed. Under load the
/// number of idle ones passes the cap many times a second, and each login would be for nothing
/// (386 in 3 s were seen, with 16 clients on 16 connections and a cap of 8).
const SURPLUS: Duration = Duration::from_secs(10);

impl<C: Connector> Pool<C> {
    /// Runs until `shutdown`: retires idle connections that are idle too long, too old, or would
    /// soon pass the server's `wait_timeout`, and keeps `min_idle` of them warm.
    ///
    /// Warm means: the `min_idle` most recently used idle connections are exempt from the idle timeout,
    /// and if there are fewer, connections of the key borrowed last are opened while there is room and
    /// nobody waits. A failed login pauses that for 1 s, doubling up to 1 min.
    pub async fn maintain(self, shutdown: CancellationToken) {
        loop {
            let now = Instant::now();
            let due = self.shared.with(|inner, later| {
                let due = inner.sweep(now, later);
                inner.keep_warm(now, later);
                due
            });
            let latest = now + ROUND;
            let next = due.map_or(latest, |due| due.clamp(now + SHORTEST_ROUND, latest));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep_until(next) => {}
            }
        }
    }
}

impl<C: Connector> Inner<C> {
    /// Retires what is due; returns when the next idle connection will be.
    fn sweep(&mut self, now: Instant, later: &mut Later<C>) -> Option<Instant> {
        let limits = self.limits;
        let surplus = self.shelves.idle_len().saturating_sub(limits.max_idle);
        let exempt_from = self.shelves.idle_len().saturating_sub(limits.min_idle);
        let mut next: Option<Instant> = None;
        let mut due = Vec::new();
        for (rank, (sequence, _, entry)) in self.shelves.idle().enumerate() {
            let idle_end = if rank < exempt_from {
                entry.idle_end(limits.idle_timeout)
            } else {
                None
            };
            let ends = [
                (
                    entry.lifetime_end(limits.max_lifetime),
                    RetireReason::MaxLifetime,
                ),
                (entry.server_end(), RetireReason::WaitTimeout),
                (idle_end, RetireReason::IdleTimeout),
                (
                    entry.idle_end(SURPLUS).filter(|_| rank < surplus),
                    RetireReason::IdleCap,
                ),
            ];
            let first = ends
                .into_iter()
                .filter_map(|(at, reason)| Some((at?, reason)))
                .min_by_key(|end| end.0);
            match first {
                Some((at, reason)) if at <= now => due.push((sequence, entry.shelf, reason)),
                Some((at, _)) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        for (sequence, shelf, reason) in due {
            if let Some(entry) = self.shelves.take(shelf, sequence) {
                self.end(Doomed { entry, reason }, later);
                self.tidy(shelf);
            }
        }
        next
    }

    fn keep_warm(&mut self, now: Instant, later: &mut Later<C>) {
        let Some(shelf) = self.recent.filter(|_| self.phase == Phase::Open) else {
            return;
        };
        if !self.warm.expire(now) {
            return;
        }
        let wanted = self.limits.min_idle.min(self.limits.max_idle);
        while self.has_room() && self.slots.dialing < self.limits.max_dials {
            let lane = &self.shelves.at(shelf).lane;
            let spare = lane.pending.saturating_sub(lane.len());
            if lane.backoff.is_pausing() || self.shelves.idle_len() + spare >= wanted {
                return;
            }
            self.dial_spare(shelf, later);
        }
    }
}
