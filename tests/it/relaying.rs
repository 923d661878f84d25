//! What passes through is what a dedicated connection would show: every type, every size, every
//! command, in order, and in bounded memory.

mod commands;
mod large;
mod prepared;
mod results;
mod shared;
mod streams;
mod tape;
mod types;

use crate::support::clients::{client, is_mariadb, on_every_server, value};
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Wire};

/// Fills `database`.t with `10^digits` rows, of about 80 bytes each.
fn numbers(server: &Server, database: &str, digits: usize) {
    server.database(database);
    let id = (0..digits)
        .map(|n| format!("n{n}.n * 1e{n}"))
        .collect::<Vec<_>>()
        .join(" + ");
    let tables = (0..digits)
        .map(|n| format!("{database}.d n{n}"))
        .collect::<Vec<_>>()
        .join(", ");
    server.root(&format!(
        "CREATE TABLE {database}.d (n INT); INSERT INTO {database}.d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9); \
         CREATE TABLE {database}.t (id INT PRIMARY KEY, v VARCHAR(70), w DOUBLE); \
         INSERT INTO {database}.t SELECT id, IF(id % 7 = 0, NULL, SHA2(id, 256)), id / 3 FROM (SELECT {id} AS id FROM {tables}) x"
    ));
}
