//! Statements prepared by SQL text, shared: whatever is run through Sidepool must be answered as on a
//! connection of the session's own, although all sessions take turns on few backend connections.

mod inner;
mod moving;
mod names;
mod parameters;

use crate::support::clients::{is_mariadb, on_every_server};
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Login, Reply, Wire};

/// A session through Sidepool, and one that has a connection of its own.
struct Both {
    direct: Wire,
    through: Wire,
}

impl Both {
    async fn connect(server: &Server, sidepool: &Sidepool, database: Option<&str>) -> Self {
        let to = async |address: &str| {
            let login = Login {
                database,
                ..Login::to(address)
            };
            Wire::connect(&login).await.unwrap()
        };
        Self {
            direct: to(&server.address()).await,
            through: to(&sidepool.address()).await,
        }
    }

    /// Runs a text on both; all its answers must be the same.
    async fn same(&mut self, sql: &str) -> Vec<Reply> {
        let direct = self.direct.query_all(sql).await;
        let through = self.through.query_all(sql).await;
        assert_eq!(through, direct, "{sql}");
        through
    }

    /// The same for a text that succeeds.
    async fn run(&mut self, sql: &str) -> Vec<Reply> {
        let replies = self.same(sql).await;
        if let Some(Reply::Err(error)) = replies.last() {
            panic!("{sql}: {error:?}");
        }
        replies
    }

    /// The first column of the first row.
    async fn text(&mut self, sql: &str) -> String {
        self.run(sql).await.swap_remove(0).text()
    }

    /// The code of the error that it ends with.
    async fn code(&mut self, sql: &str) -> u16 {
        self.same(sql).await.pop().unwrap().err().code
    }

    async fn command(&mut self, command: u8) {
        for wire in [&mut self.direct, &mut self.through] {
            wire.command(command, b"").await;
            wire.read_reply().await.ok();
        }
    }
}

/// Pins so far, of that reason.
fn pins(sidepool: &Sidepool, reason: &str) -> f64 {
    let labels = match reason {
        "" => String::new(),
        reason => format!("reason=\"{reason}\""),
    };
    sidepool.metric("sidepool_session_pins_total", &labels)
}

/// Waits until there were so many; a pin is counted behind the answer that shows it.
fn wait_pins(sidepool: &Sidepool, reason: &str, count: f64) {
    sidepool.wait("pinned", |sidepool| pins(sidepool, reason) == count);
}

/// Waits until so many sessions are pinned.
fn wait_pinned(sidepool: &Sidepool, count: f64) {
    sidepool.wait("pinned or not", |sidepool| pinned(sidepool) == count);
}

/// Sessions that are pinned now.
fn pinned(sidepool: &Sidepool) -> f64 {
    sidepool.metric("sidepool_sessions_pinned", "")
}
