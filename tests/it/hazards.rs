//! The measured ways for a proxy to be wrong, each with the statement that goes wrong without the
//! remedy. The pool is as small as the case allows, so that sharing is certain.

mod clients_eyes;
mod framing;
mod identity;
mod state;
mod writes;

use crate::support::clients::{client, connect, is_mariadb, on_every_server, value};
use crate::support::servers::{self, Make, Server};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Wire};

/// A client of the usual account in a database.
async fn client_in(sidepool: &Sidepool, database: &str) -> Wire {
    crate::support::clients::client_in(sidepool, servers::USER, database).await
}

/// Sidepool with one backend connection, and two clients that must take turns on it.
async fn two_on_one(server: &Server) -> (Sidepool, Wire, Wire) {
    let sidepool = Sidepool::sharing(server, 1);
    let (a, b) = (client(&sidepool).await, client(&sidepool).await);
    (sidepool, a, b)
}

/// `@@transaction_isolation` by the name the server knows.
fn isolation_variable(server: &Server) -> &'static str {
    match server.make {
        Make::MariaDb => "@@tx_isolation",
        Make::MySql => "@@transaction_isolation",
    }
}

#[tokio::test]
async fn the_cases_run_on_both_makes_where_both_can_be_had() {
    assert!(!servers::makes().is_empty());
}
