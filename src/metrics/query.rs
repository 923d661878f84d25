//! Metrics of what clients ask and how long the answers take.

use super::handle::{Counter, Counters, Histogram, LATENCY, Maker};
use super::label::{CommandName, Direction, ErrorSource, Tls};

/// Commands, their latencies and their bytes; updated once per command.
#[derive(Debug)]
pub struct QueryMetrics {
    /// Queries received: `COM_QUERY`, `COM_STMT_EXECUTE` and `COM_STMT_BULK_EXECUTE`, each counted once
    /// however many statements it holds.
    pub requests: Counters<Tls>,
    /// From the first byte of a query to the last byte of its answer written to the client.
    pub response: Histogram,
    /// From a query's last byte written to the database to the first byte of its answer.
    pub database: Histogram,
    /// Payload and packet headers relayed, without TLS.
    pub bytes: Counters<Direction>,
    /// Every command, also those answered locally.
    pub commands: Counters<CommandName>,
    /// Errors that clients received.
    pub errors: Counters<ErrorSource>,
    /// Commands sent a second time because the first backend connection was already dead.
    pub retries: Counter,
}

impl QueryMetrics {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            requests: maker.counters((
                "sidepool_query_requests_total",
                "Queries and executions of prepared statements received, by whether the client's connection is encrypted.",
            ), "tls"),
            response: maker.histogram((
                "sidepool_query_response_seconds",
                "Time from receiving a query to the end of its answer, including the wait for a backend connection.",
            ), LATENCY),
            database: maker.histogram((
                "sidepool_query_database_seconds",
                "Time from sending a query to the database to the first byte of its answer.",
            ), LATENCY),
            bytes: maker.counters((
                "sidepool_query_bytes_total",
                "Bytes relayed between clients and databases, by direction, before encryption.",
            ), "direction"),
            commands: maker.counters((
                "sidepool_commands_total",
                "Commands received from clients, by the name of the command.",
            ), "command"),
            errors: maker.counters((
                "sidepool_query_errors_total",
                "Errors that clients received in answer to a command, by who wrote them.",
            ), "source"),
            retries: maker.counter((
                "sidepool_query_retries_total",
                "Commands sent again on another backend connection because the first was dead before it read them.",
            )),
        }
    }
}
