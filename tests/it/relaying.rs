//! What passes through is what a dedicated connection would show: every type, every size, every
//! command, in order, and in bounded memory.

mod commands;
mod large;
mod prepared;
mod results;
mod streams;
mod tape;
mod types;

use crate::support::clients::{client, is_mariadb, on_every_server, value};
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Wire};

/// Fills `database`.t with as many rows, of about 30 bytes each.
fn numbers(server: &Server, database: &str, rows: u32) {
    server.database(database);
    server.root(&format!(
        "CREATE TABLE {database}.d (n INT); INSERT INTO {database}.d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9); \
         CREATE TABLE {database}.t (id INT PRIMARY KEY, v VARCHAR(70), w DOUBLE); \
         INSERT INTO {database}.t SELECT id, IF(id % 7 = 0, NULL, SHA2(id, 256)), id / 3 FROM \
         (SELECT a.n + 10*b.n + 100*c.n + 1000*d.n + 10000*e.n + 100000*f.n AS id FROM {database}.d a, {database}.d b, \
         {database}.d c, {database}.d d, {database}.d e, {database}.d f) x WHERE id < {rows}"
    ));
}
