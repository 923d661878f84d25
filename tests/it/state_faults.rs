//! Session state that once went astray, each case with its servers.

mod diagnostics;
mod globals;
mod leaks;
mod own_statements;

use crate::support::clients::on_every_server;
use crate::support::clients::{client, is_mariadb, value};
use crate::support::servers::{Make, Server};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Reply, Wire};
