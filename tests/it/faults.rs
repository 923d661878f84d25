//! What breaks: the database stopped, frozen or restarted, connections killed, clients that vanish,
//! and the end of Sidepool itself.

mod cable;
mod drains;
mod gone;
mod kills;
mod restarts;
mod retries;

use std::net::TcpStream;
use std::process::Command;
use std::sync::OnceLock;

use tokio::sync::{Mutex, MutexGuard};

use crate::support::servers::{Make, Server};
use crate::support::sidepool::Sidepool;
use crate::support::wire::Wire;

const CLOSED: &str = "sidepool_client_connections_closed_total";
const RETIRED: &str = "sidepool_pool_retired_total";
const RETRIES: &str = "sidepool_query_retries_total";

/// A server that a test may stop, freeze and reconfigure; one test at a time has it.
async fn private(make: Make) -> MutexGuard<'static, Server> {
    static MARIADB: OnceLock<Mutex<Server>> = OnceLock::new();
    static MYSQL: OnceLock<Mutex<Server>> = OnceLock::new();
    let cell = match make {
        Make::MariaDb => &MARIADB,
        Make::MySql => &MYSQL,
    };
    let server = cell
        .get_or_init(|| Mutex::new(Server::start(make, &[])))
        .lock()
        .await;
    // The test before may have failed half-way.
    let _ = kill("CONT", &pid(&server));
    if TcpStream::connect(("127.0.0.1", server.port)).is_err() {
        server.restart(&[]);
    }
    server
}

/// Runs a case on every make, on a server that the case may stop.
macro_rules! on_every_private_server {
    ($($name:ident => $case:ident;)+) => {
        $(mod $name {
            use crate::support::servers::{Make, makes};

            #[tokio::test]
            async fn mariadb() {
                super::$case(&*crate::faults::private(Make::MariaDb).await).await;
            }

            #[tokio::test]
            async fn mysql() {
                if makes().contains(&Make::MySql) {
                    super::$case(&*crate::faults::private(Make::MySql).await).await;
                }
            }
        })+
    };
}
use on_every_private_server;

/// The server's process id.
fn pid(server: &Server) -> String {
    let text = std::fs::read_to_string(server.dir.join("pid")).unwrap();
    text.trim().to_owned()
}

/// Sends a signal by name; whether there was somebody to send it to.
fn kill(signal: &str, pid: &str) -> bool {
    let status = Command::new("sh")
        .args(["-c", r#"kill "$0" "$1""#, &format!("-{signal}"), pid])
        .stderr(std::process::Stdio::null())
        .status();
    status.unwrap().success()
}

/// Reads until the connection ends; the code of the last error in it, if there was one.
async fn last_words(wire: &mut Wire) -> Option<u16> {
    let mut code = None;
    while let Ok((_, packet)) = wire.read_packet().await {
        assert_eq!(packet[0], 0xff, "only an error may come before the end");
        code = Some(crate::support::wire::parse_err(&packet).code);
    }
    code
}

/// It has never lost its head.
fn assert_calm(sidepool: &Sidepool) {
    let log = sidepool.log();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(sidepool.metric(CLOSED, "\"internal\""), 0.0);
}
