//! When an idle client is closed, and for which reason: arithmetic only, no clock of its own.

use std::time::Duration;

use tokio::time::Instant;

use crate::reason::CloseReason;

/// What a waiting session holds; it decides which limit applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Situation {
    /// No backend connection.
    Free,
    /// A backend connection inside a transaction.
    InTransaction,
    /// A backend connection by a pin.
    Pinned,
}

/// The limits that hold for one client. `None`: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdleLimits {
    /// `client.idle_timeout`, lowered by the client's own `wait_timeout`.
    pub idle: Option<Duration>,
    /// `client.idle_transaction_timeout`
    pub in_transaction: Option<Duration>,
    /// `client.pinned_idle_timeout`
    pub pinned: Option<Duration>,
}

/// A moment at which the client is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// The limit that is reached then.
    pub reason: CloseReason,
}

impl IdleLimits {
    /// The idle limit for the situation. The general limit also holds for a pinned client; inside a
    /// transaction only the transaction's own does, as an idle transaction is never "just idle".
    pub fn idle_deadline(&self, situation: Situation, idle_since: Instant) -> Option<Deadline> {
        let general = self.idle.map(|limit| (limit, CloseReason::IdleTimeout));
        let chosen = match situation {
            Situation::Free => general,
            Situation::InTransaction => self
                .in_transaction
                .map(|limit| (limit, CloseReason::IdleTransactionTimeout)),
            Situation::Pinned => {
                let pinned = self
                    .pinned
                    .map(|limit| (limit, CloseReason::PinnedIdleTimeout));
                [general, pinned]
                    .into_iter()
                    .flatten()
                    .min_by_key(|&(limit, _)| limit)
            }
        };
        chosen.and_then(|(limit, reason)| {
            idle_since
                .checked_add(limit)
                .map(|at| Deadline { at, reason })
        })
    }
}

/// The earlier of the idle limit and the end of the client's lifetime; the latter waits for the end
/// of a transaction.
pub fn next_deadline(
    limits: &IdleLimits,
    situation: Situation,
    idle_since: Instant,
    lifetime_end: Option<Instant>,
) -> Option<Deadline> {
    let lifetime = lifetime_end
        .filter(|_| situation != Situation::InTransaction)
        .map(|at| Deadline {
            at,
            reason: CloseReason::MaxLifetime,
        });
    let idle = limits.idle_deadline(situation, idle_since);
    [idle, lifetime]
        .into_iter()
        .flatten()
        .min_by_key(|deadline| deadline.at)
}

/// A lifetime shortened by up to a tenth, so that clients that came together do not leave together.
/// `roll` is uniform in 0..1.
pub fn jittered(lifetime: Duration, roll: f64) -> Duration {
    lifetime.mul_f64(1.0 - 0.1 * roll.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: IdleLimits = IdleLimits {
        idle: Some(Duration::from_secs(30)),
        in_transaction: Some(Duration::from_secs(10)),
        pinned: Some(Duration::from_secs(20)),
    };

    #[test]
    fn each_situation_has_its_own_limit() {
        let now = Instant::now();
        let cases = [
            (Situation::Free, 30, CloseReason::IdleTimeout),
            (
                Situation::InTransaction,
                10,
                CloseReason::IdleTransactionTimeout,
            ),
            (Situation::Pinned, 20, CloseReason::PinnedIdleTimeout),
        ];
        for (situation, secs, reason) in cases {
            let expected = Deadline {
                at: now + Duration::from_secs(secs),
                reason,
            };
            assert_eq!(LIMITS.idle_deadline(situation, now), Some(expected));
        }
    }

    #[test]
    fn a_pinned_client_is_not_kept_longer_than_a_free_one() {
        let limits = IdleLimits {
            idle: Some(Duration::from_secs(5)),
            ..LIMITS
        };
        let deadline = limits
            .idle_deadline(Situation::Pinned, Instant::now())
            .unwrap();
        assert_eq!(deadline.reason, CloseReason::IdleTimeout);
    }

    #[test]
    fn lifetime_ends_between_commands_but_not_inside_a_transaction() {
        let now = Instant::now();
        let soon = Some(now + Duration::from_secs(1));
        let free = next_deadline(&LIMITS, Situation::Free, now, soon).unwrap();
        assert_eq!(free.reason, CloseReason::MaxLifetime);
        let inside = next_deadline(&LIMITS, Situation::InTransaction, now, soon).unwrap();
        assert_eq!(inside.reason, CloseReason::IdleTransactionTimeout);
        assert_eq!(
            next_deadline(&IdleLimits::default(), Situation::Free, now, None),
            None
        );
    }

    #[test]
    fn jitter_only_shortens() {
        let hour = Duration::from_secs(3600);
        assert_eq!(jittered(hour, 0.0), hour);
        assert_eq!(jittered(hour, 1.0), hour.mul_f64(0.9));
    }
}
