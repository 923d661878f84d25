//! Pins end when their causes end: the one connection there is goes back, and a second client is served.

mod answers;
mod ends;
mod resets;

use crate::support::clients::{client_in, is_mariadb, on_every_server, value};
use crate::support::eventually;
use crate::support::servers::{Server, USER};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Reply, Wire};

const PINNED: &str = "sidepool_sessions_pinned";

/// A database with a table of three rows, and Sidepool with one connection.
fn prepared(server: &Server, database: &str) -> Sidepool {
    server.database(database);
    server.root(&format!(
        "CREATE TABLE {database}.t (a INT PRIMARY KEY, b INT); \
         INSERT INTO {database}.t VALUES (1, 1), (2, 2), (3, 3)"
    ));
    Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "1"),
            ("SIDEPOOL_POOL__BORROW_TIMEOUT", "100ms"),
        ],
    )
}

/// Whether a client gets the connection within the time to borrow.
async fn is_free(other: &mut Wire) -> bool {
    match other.query("SELECT 'free'").await {
        Reply::Err(error) => {
            assert_eq!(error.code, 9501, "{error:?}");
            false
        }
        _ => true,
    }
}

/// Runs the statements one by one. Behind those with `+` the session is pinned, behind those with `h` it keeps its
/// connection without a pin, and behind those with `-` its connection goes back. With `x` a statement fails; the
/// others must not.
async fn follow(sidepool: &Sidepool, wire: &mut Wire, other: &mut Wire, steps: &[(&str, &str)]) {
    for (sql, signs) in steps {
        let last = wire.query_all(sql).await.pop().unwrap();
        let failed = matches!(last, Reply::Err(_));
        assert_eq!(failed, signs.contains('x'), "{sql}: {last:?}");
        if signs.contains('-') {
            eventually(&format!("free behind {sql}"), async || is_free(other).await).await;
        } else {
            assert!(!is_free(other).await, "given back behind {sql}");
        }
        let pinned = f64::from(u8::from(signs.contains('+')));
        assert_eq!(sidepool.metric(PINNED, ""), pinned, "behind {sql}");
    }
}
