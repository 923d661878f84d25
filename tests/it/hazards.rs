//! The measured ways for a proxy to be wrong, each with the statement that goes wrong without the
//! remedy. The pool is as small as the case allows, so that sharing is certain.

mod clients_eyes;
mod framing;
mod identity;
mod state;
mod writes;

use crate::support::servers::{self, Make, Server};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Wire};

/// Runs a case on every server there is.
macro_rules! on_every_server {
    ($($name:ident => $case:ident;)+) => {
        $(mod $name {
            #[tokio::test]
            async fn mariadb() {
                super::$case($crate::support::servers::shared($crate::support::servers::Make::MariaDb)).await;
            }

            #[tokio::test]
            async fn mysql() {
                if $crate::support::servers::makes().contains(&$crate::support::servers::Make::MySql) {
                    super::$case($crate::support::servers::shared($crate::support::servers::Make::MySql)).await;
                }
            }
        })+
    };
}
pub(crate) use on_every_server;

/// A client of the usual account.
async fn client(sidepool: &Sidepool) -> Wire {
    Wire::connect(&Login::to(&sidepool.address()))
        .await
        .unwrap()
}

/// A client of the usual account in a database.
async fn client_in(sidepool: &Sidepool, database: &str) -> Wire {
    let address = sidepool.address();
    let login = Login {
        database: Some(database),
        ..Login::to(&address)
    };
    Wire::connect(&login).await.unwrap()
}

/// Sidepool with one backend connection, and two clients that must take turns on it.
async fn two_on_one(server: &Server) -> (Sidepool, Wire, Wire) {
    let sidepool = Sidepool::sharing(server, 1);
    let (a, b) = (client(&sidepool).await, client(&sidepool).await);
    (sidepool, a, b)
}

/// The first column of the first row, `NULL` for NULL.
async fn value(wire: &mut Wire, sql: &str) -> String {
    match wire.query(sql).await.rows()[0][0].clone() {
        Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        None => "NULL".to_owned(),
    }
}

fn is_mariadb(server: &Server) -> bool {
    server.make == Make::MariaDb
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
