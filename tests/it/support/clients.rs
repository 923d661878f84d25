//! Clients in a line, and the server's own view of who is connected.

use super::servers::{Make, PASSWORD, Server};
use super::sidepool::Sidepool;
use super::wire::{Login, ServerError, Wire};

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
pub async fn client(sidepool: &Sidepool) -> Wire {
    client_as(sidepool, super::servers::USER).await
}

/// A client of an account made by [`account`].
pub async fn client_as(sidepool: &Sidepool, user: &str) -> Wire {
    let address = sidepool.address();
    Wire::connect(&Login {
        user,
        ..Login::to(&address)
    })
    .await
    .unwrap()
}

/// A client with that password, or the error that its login ends with.
pub async fn connect(sidepool: &Sidepool, user: &str, password: &str) -> Result<Wire, ServerError> {
    let address = sidepool.address();
    Wire::connect(&Login {
        user,
        password,
        ..Login::to(&address)
    })
    .await
}

/// A client of an account made by [`account`], in a database.
pub async fn client_in(sidepool: &Sidepool, user: &str, database: &str) -> Wire {
    let address = sidepool.address();
    let login = Login {
        user,
        database: Some(database),
        ..Login::to(&address)
    };
    Wire::connect(&login).await.unwrap()
}

/// Creates an account like the usual one, with the usual password.
pub fn account(server: &Server, user: &str) {
    server.root(&format!(
        "DROP USER IF EXISTS '{user}'@'%'; CREATE USER '{user}'@'%' IDENTIFIED BY '{PASSWORD}'; \
         GRANT ALL ON `t\\_%`.* TO '{user}'@'%'"
    ));
}

/// The first column of the first row, `NULL` for NULL.
pub async fn value(wire: &mut Wire, sql: &str) -> String {
    match wire.query(sql).await.rows()[0][0].clone() {
        Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        None => "NULL".to_owned(),
    }
}

/// A connection of root's to the server itself, for looking without starting a process each time.
pub async fn root(server: &Server) -> Wire {
    let socket = server.socket();
    let login = Login {
        user: "root",
        password: "",
        ..Login::to(socket.to_str().unwrap())
    };
    Wire::connect(&login).await.unwrap()
}

/// How many connections of that account the server has.
pub async fn connections(root: &mut Wire, user: &str) -> usize {
    let sql = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{user}'");
    value(root, &sql).await.parse().unwrap()
}

/// How many statements the server runs that begin with this text.
pub async fn running(root: &mut Wire, text: &str) -> usize {
    let sql =
        format!("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '{text}%'");
    value(root, &sql).await.parse().unwrap()
}

/// Whether the server is a MariaDB.
pub fn is_mariadb(server: &Server) -> bool {
    server.make == Make::MariaDb
}
