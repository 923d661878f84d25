//! Metrics of clients' connections, logins, and idleness.

use super::handle::{
    Counter, Counters, Gauge, Gauges, Histogram, IDLE_GAP, LATENCY, LIFETIME, Maker,
};
use super::label::{IdleRule, LoginPath, Outcome, Tls, WatchEnding};
use crate::reason::{CloseReason, RejectReason};

/// Clients' connections from accept to close.
///
/// `received` = `setup_succeeded` + `setup_failed` + `handshakes` (now), and
/// `setup_succeeded` = `closed` + `connections` (now): whoever updates them keeps both true.
#[derive(Debug)]
pub struct ClientMetrics {
    /// Logged-in clients now, by TLS.
    pub connections: Gauges<Tls>,
    /// Accepted connections that have not logged in yet.
    pub handshakes: Gauge,
    /// Connections accepted from the operating system.
    pub received: Counter,
    /// Connections that got a session.
    pub setup_succeeded: Counter,
    /// Connections that never got a session, by reason.
    pub setup_failed: Counters<RejectReason>,
    /// Sessions that ended, by reason.
    pub closed: Counters<CloseReason>,
    /// Age of a session at its end.
    pub lifetime: Histogram,
    /// From accept to the final OK of the login.
    pub handshake: Histogram,
    /// Successful logins by what proved them.
    pub logins: Counters<LoginPath>,
    /// TLS handshakes with clients.
    pub tls_handshakes: Counters<Outcome>,
}

impl ClientMetrics {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            connections: maker.gauges((
                "sidepool_client_connections",
                "Clients that are logged in now, by whether their connection is encrypted.",
            ), "tls"),
            handshakes: maker.gauge((
                "sidepool_client_handshakes",
                "Client connections that are accepted but not logged in yet.",
            )),
            received: maker.counter((
                "sidepool_client_connections_received_total",
                "Client connections accepted on any listener, whatever became of them.",
            )),
            setup_succeeded: maker.counter((
                "sidepool_client_connections_setup_succeeded_total",
                "Client connections that logged in and got a session.",
            )),
            setup_failed: maker.counters((
                "sidepool_client_connections_setup_failed_total",
                "Client connections that never got a session, by the reason for it.",
            ), "reason"),
            closed: maker.counters((
                "sidepool_client_connections_closed_total",
                "Logged-in client connections that ended, by the reason for it.",
            ), "reason"),
            lifetime: maker.histogram((
                "sidepool_client_connection_lifetime_seconds",
                "Age that a logged-in client connection had reached when it ended.",
            ), LIFETIME),
            handshake: maker.histogram((
                "sidepool_client_handshake_seconds",
                "Time from accepting a client connection to the end of a successful login.",
            ), LATENCY),
            logins: maker.counters((
                "sidepool_client_logins_total",
                "Successful client logins (also by COM_CHANGE_USER), by what proved the password.",
            ), "path"),
            tls_handshakes: maker.counters((
                "sidepool_client_tls_handshakes_total",
                "TLS handshakes with clients, by how they ended.",
            ), "result"),
        }
    }
}

/// The study of the application-versus-proxy timeout mismatch.
#[derive(Debug)]
pub struct IdleMetrics {
    /// From the end of an answer to the same client's next command.
    pub gap: Histogram,
    /// Clients that observe mode left open.
    pub would_have_closed: Counters<IdleRule>,
    /// Commands sent on connections already closed for idleness.
    pub stale_uses: Counter,
    /// Closed clients whose sockets are watched now.
    pub watched: Gauge,
    /// How watches ended.
    pub watch_endings: Counters<WatchEnding>,
}

impl IdleMetrics {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            gap: maker.histogram((
                "sidepool_client_idle_gap_seconds",
                "Time between the end of one command's answer and the same client's next command.",
            ), IDLE_GAP),
            would_have_closed: maker.counters((
                "sidepool_clients_would_have_closed_total",
                "Clients that a timeout would have closed had client.idle_mode been enforce, by timeout.",
            ), "rule"),
            stale_uses: maker.counter((
                "sidepool_stale_uses_total",
                "Commands that arrived on a client connection already closed for idleness: each is a failure that an application saw.",
            )),
            watched: maker.gauge((
                "sidepool_stale_watch_sockets",
                "Sockets of clients closed for idleness that are watched now for a stale use.",
            )),
            watch_endings: maker.counters((
                "sidepool_stale_watch_endings_total",
                "Watches of closed clients' sockets that ended, by what was seen on the socket.",
            ), "ending"),
        }
    }

    /// Counts a watch that ended, and the stale use if that is how it ended.
    pub fn watch_ended(&self, ending: WatchEnding) {
        self.watch_endings.inc(ending);
        if ending == WatchEnding::StaleUse {
            self.stale_uses.inc();
        }
    }
}
