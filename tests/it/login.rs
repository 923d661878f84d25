//! The connection phase with real servers: who gets in, by which exchange, as what, and what the database notices of it.

mod admission;
mod backends;
mod exchanges;
mod greeting;
mod passwords;
mod tap;
mod transport;

use std::time::Duration;

use tap::Tap;

use crate::support::clients::{connect, connections, is_mariadb, on_every_server, root, value};
use crate::support::eventually;
use crate::support::servers::{self, Make, Server};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{self, Login, ServerError, Wire};

const NATIVE: &str = "mysql_native_password";
const CACHING_SHA2: &str = "caching_sha2_password";

/// An hour: no proof grows old in a test.
const NEVER_RECHECKED: (&str, &str) = ("SIDEPOOL_AUTH__RECHECK", "1h");
/// Every login is proved at the database.
const ALWAYS_RECHECKED: (&str, &str) = ("SIDEPOOL_AUTH__RECHECK", "0s");

/// Backend connections are closed as soon as they are idle.
const SHORT_LIVED: (&str, &str) = ("SIDEPOOL_POOL__IDLE_TIMEOUT", "50ms");

/// Creates an account anew; `how` follows its name.
fn create(server: &Server, user: &str, how: &str) {
    server.root(&format!(
        "DROP USER IF EXISTS '{user}'@'%'; CREATE USER '{user}'@'%' {how}"
    ));
}

fn identified_by(password: &str) -> String {
    format!("IDENTIFIED BY '{password}'")
}

/// The error that a login ends with.
async fn refusal(sidepool: &Sidepool, user: &str, password: &str) -> ServerError {
    let refused = connect(sidepool, user, password).await.err();
    refused.unwrap_or_else(|| panic!("{user} got in with '{password}'"))
}

/// Waits until Sidepool has closed that client, whatever it says before.
async fn closed(client: &mut Wire) {
    let end = async { while client.read_packet().await.is_ok() {} };
    let end = tokio::time::timeout(Duration::from_secs(10), end).await;
    assert!(end.is_ok(), "not closed");
}

/// Waits until that many logins were proved by the database and by what is known of it. They are counted when
/// the client has its OK already.
fn logged_in(sidepool: &Sidepool, backend: u32, cached: u32) {
    let expected = (f64::from(backend), f64::from(cached));
    let seen = || (logins(sidepool, "backend"), logins(sidepool, "cached"));
    sidepool.wait(&format!("backend and cached: {expected:?}"), |_| {
        let (backend, cached) = seen();
        let sum = expected.0 + expected.1;
        assert!(backend + cached <= sum, "{:?} of {expected:?}", seen());
        (backend, cached) == expected
    });
}

/// Successful logins so far that were proved in that way.
fn logins(sidepool: &Sidepool, path: &str) -> f64 {
    let label = format!("path=\"{path}\"");
    sidepool.metric("sidepool_client_logins_total", &label)
}

/// Refused logins so far, for that reason.
fn rejected(sidepool: &Sidepool, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    sidepool.metric("sidepool_client_connections_setup_failed_total", &label)
}

/// Waits until Sidepool, started with [`SHORT_LIVED`], has no connection of that account. Killed ones would do as well,
/// were it known when Sidepool can see their end.
async fn no_connections(server: &Server, user: &str) {
    let mut root = root(server).await;
    eventually("no connections", async || {
        connections(&mut root, user).await == 0
    })
    .await;
}
