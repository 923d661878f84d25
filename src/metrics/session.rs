//! Metrics of sessions: pins and the work that avoids them.

use super::handle::{Counter, Counters, Gauge, Maker};
use super::label::{LocalAnswer, Outcome};
use crate::reason::PinReason;

/// What keeping session state exact costs.
#[derive(Debug)]
pub struct SessionMetrics {
    /// Sessions pinned now, each counted once however many causes it has.
    pub pinned: Gauge,
    /// Sessions in a transaction now.
    pub in_transaction: Gauge,
    /// Causes that pinned a session.
    pub pins: Counters<PinReason>,
    /// Sessions whose last cause of a pin ended while they went on.
    pub unpins: Counter,
    /// Replays of session state onto a borrowed backend connection.
    pub replays: Counters<Outcome>,
    /// Read-backs of changed variables.
    pub readbacks: Counter,
    /// Changes whose result was already known, so that no read-back was needed.
    pub known_transitions: Counter,
    /// Flushes of unsettled backend connections after an ERR.
    pub error_flushes: Counter,
    /// Prepared statements prepared again on another backend connection.
    pub reprepares: Counter,
    /// Executions of statements that the backend connection had already.
    pub statement_hits: Counter,
    /// Statements closed on a backend connection to make room.
    pub statement_evictions: Counter,
    /// Commands answered without a backend connection.
    pub local_answers: Counters<LocalAnswer>,
}

impl SessionMetrics {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            pinned: maker.gauge((
                "sidepool_sessions_pinned",
                "Sessions that are pinned now: each keeps a backend connection that nobody else can borrow.",
            )),
            in_transaction: maker.gauge((
                "sidepool_sessions_in_transaction",
                "Sessions that are in a transaction now and hold a backend connection until it ends.",
            )),
            pins: maker.counters((
                "sidepool_session_pins_total",
                "Pins of sessions to their backend connection, by cause.",
            ), "reason"),
            unpins: maker.counter((
                "sidepool_session_unpins_total",
                "Pinned sessions that became free to share again because every cause of the pin ended.",
            )),
            replays: maker.counters((
                "sidepool_session_replays_total",
                "Times that session state was replayed onto a borrowed backend connection, by how it ended; failed closes the client.",
            ), "result"),
            readbacks: maker.counter((
                "sidepool_session_readbacks_total",
                "Queries that read changed session variables back before a backend connection was shared again.",
            )),
            known_transitions: maker.counter((
                "sidepool_session_known_transitions_total",
                "Changes of session state that needed no read-back because their result was already known.",
            )),
            error_flushes: maker.counter((
                "sidepool_session_error_flushes_total",
                "Statements sent after an error to bring out state changes that the server had not reported yet.",
            )),
            reprepares: maker.counter((
                "sidepool_session_statement_reprepares_total",
                "Prepared statements that were prepared again because their session moved to another backend connection.",
            )),
            statement_hits: maker.counter((
                "sidepool_session_statement_hits_total",
                "Executions of prepared statements that the borrowed backend connection had prepared already.",
            )),
            statement_evictions: maker.counter((
                "sidepool_session_statement_evictions_total",
                "Prepared statements that were closed on a backend connection to make room for others.",
            )),
            local_answers: maker.counters((
                "sidepool_session_local_answers_total",
                "Commands that Sidepool answered itself without borrowing a backend connection, by kind.",
            ), "kind"),
        }
    }
}
