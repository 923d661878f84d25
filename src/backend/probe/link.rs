//! A logged-in connection of the monitor's: what is asked over it, and what the answers mean.

use std::time::Duration;

use mysql_async::Conn;

use super::condition::{Observation, ProbeError, Replication};
use super::driver::{self, Failed};
use super::own::Own;
use crate::backend::dial::Address;
use crate::backend::dialer::Dialer;
use crate::backend::facts::Greeted;
use crate::backend::login;
use crate::backend::state::Family;
use crate::config::{BackendSettings, Secret};

/// How long the server may find the connection idle: longer than any probe interval, so that only Sidepool
/// decides (a year, the most that MySQL takes).
pub(super) const WAIT_TIMEOUT: &str = "SET SESSION wait_timeout = 31536000";

const UNKNOWN_SYSTEM_VARIABLE: u16 = 1193;
const PARSE_ERROR: u16 = 1064;
/// Privileges: `ER_SPECIFIC_ACCESS_DENIED_ERROR`, `ER_TABLEACCESS_DENIED_ERROR`.
const NOT_ALLOWED: [u16; 2] = [1227, 1142];

/// Whom to ask, and how.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) address: Address,
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) greeted: Greeted,
    pub(super) backend: BackendSettings,
}

/// A logged-in connection.
#[derive(Debug)]
pub(super) struct Link {
    wire: Wire,
    asks: Asks,
}

#[derive(Debug)]
enum Wire {
    Driver(Conn),
    Own(Box<Own>),
}

/// A whole text result set.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Names; none where there are no rows.
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Option<String>>>,
}

/// Why a question was not answered.
#[derive(Debug)]
pub(super) enum Asked {
    Server(u16, String),
    Lost(String),
}

/// What has turned out about the server's questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asks {
    super_read_only: bool,
    replication: Option<&'static str>,
}

impl Link {
    /// Logs in. Not to be cancelled: see [`login`].
    pub(super) async fn open(way: &Way, dialer: &Dialer) -> Result<Self, ProbeError> {
        let by_driver = match driver::suits(way) {
            true => driver::open(way).await,
            false => Err(Failed::Tls),
        };
        let wire = match by_driver {
            Ok(conn) => Wire::Driver(conn),
            Err(Failed::Otherwise(error)) => return Err(error),
            Err(Failed::Tls) => Wire::Own(Box::new(Own::open(way, dialer).await?)),
        };
        let asks = match way.greeted.family() {
            Family::MariaDb => Asks {
                super_read_only: false,
                // Every channel, on every version since 10.0.
                replication: Some("SHOW ALL SLAVES STATUS"),
            },
            Family::MySql => Asks {
                super_read_only: true,
                replication: Some("SHOW REPLICA STATUS"),
            },
        };
        Ok(Self { wire, asks })
    }

    /// Reads everything that a probe is about. After an error the link is of no more use.
    pub(super) async fn read(&mut self) -> Result<Observation, ProbeError> {
        let mut seen = self.variables().await?;
        seen.replication = self.replication().await?;
        Ok(seen)
    }

    /// Says goodbye, so that the server logs no aborted connection.
    pub(super) async fn close(self) {
        match self.wire {
            Wire::Driver(conn) => {
                // It is gone either way.
                let _ = conn.disconnect().await;
            }
            Wire::Own(own) => own.close().await,
        }
    }

    async fn ask(&mut self, sql: &str) -> Result<Table, Asked> {
        match &mut self.wire {
            Wire::Driver(conn) => driver::ask(conn, sql).await,
            Wire::Own(own) => own.ask(sql).await,
        }
    }

    async fn variables(&mut self) -> Result<Observation, ProbeError> {
        let super_read_only = match self.asks.super_read_only {
            true => ",@@super_read_only",
            false => "",
        };
        let sql = format!(
            "SELECT @@version,@@max_connections,@@global.wait_timeout,@@read_only{super_read_only}"
        );
        let table = match self.ask(&sql).await {
            Err(Asked::Server(UNKNOWN_SYSTEM_VARIABLE, _)) if self.asks.super_read_only => {
                self.asks.super_read_only = false;
                return Box::pin(self.variables()).await;
            }
            answer => answer?,
        };
        let row = table.rows.first();
        let row = row.ok_or_else(|| ProbeError::Query("no row".to_owned()))?;
        let cell = |at: usize| row.get(at).and_then(Option::as_deref);
        let number = |at: usize| cell(at).and_then(|text| text.parse().ok());
        let on = |at: usize| cell(at).is_some_and(is_on);
        Ok(Observation {
            version: cell(0).unwrap_or_default().to_owned(),
            writable: !on(3) && !on(4),
            replication: Replication::Hidden,
            max_connections: number(1),
            wait_timeout: number(2).map(Duration::from_secs),
        })
    }

    async fn replication(&mut self) -> Result<Replication, ProbeError> {
        let Some(sql) = self.asks.replication else {
            return Ok(Replication::Hidden);
        };
        match self.ask(sql).await {
            Ok(table) => Ok(replication_of(&table)),
            // MySQL before 8.0.22.
            Err(Asked::Server(PARSE_ERROR, _)) if sql == "SHOW REPLICA STATUS" => {
                self.asks.replication = Some("SHOW SLAVE STATUS");
                Box::pin(self.replication()).await
            }
            Err(Asked::Server(code, _)) if NOT_ALLOWED.contains(&code) => {
                // Not asked again on this connection: servers count errors, and some log them.
                self.asks.replication = None;
                Ok(Replication::Hidden)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl From<Asked> for ProbeError {
    fn from(asked: Asked) -> Self {
        match asked {
            // Shutdown in progress; killed.
            Asked::Server(1053 | 1317 | 1927, text) | Asked::Lost(text) => Self::Lost(text),
            Asked::Server(_, text) => Self::Query(text),
        }
    }
}

/// What a server's error at login says of it.
pub(super) fn of_server(code: u16, text: String) -> ProbeError {
    /// `ER_HOST_IS_BLOCKED`
    const HOST_BLOCKED: u16 = 1129;
    match code {
        _ if login::is_full(code) => ProbeError::Full(text),
        _ if login::denial(code).is_some() => ProbeError::Denied(text),
        HOST_BLOCKED => ProbeError::Denied(text),
        1053 | 1927 => ProbeError::Lost(text),
        _ => ProbeError::Query(text),
    }
}

/// MariaDB from 12 on has words for several kinds of being read-only.
fn is_on(text: &str) -> bool {
    !matches!(text, "0" | "OFF" | "off" | "")
}

/// What the rows say, one for each source. Column names: MySQL since 8.0.22 has `Replica_…` and `…_Source`,
/// older ones and MariaDB (also for `SHOW REPLICA STATUS`) `Slave_…` and `…_Master`.
fn replication_of(table: &Table) -> Replication {
    if table.rows.is_empty() {
        return Replication::None;
    }
    let column = |names: [&str; 2]| {
        let named = |name: &str| table.columns.iter().position(|column| column == name);
        names.into_iter().find_map(named)
    };
    let cell = |row: &[Option<String>], names| row.get(column(names)?)?.clone();
    // `Connecting` and the like are attempts: the source may be down, which is no fault of the replica's.
    let runs = |state: Option<String>| state.is_some_and(|state| state != "No");
    let running = |row: &Vec<Option<String>>| {
        runs(cell(row, ["Replica_IO_Running", "Slave_IO_Running"]))
            && runs(cell(row, ["Replica_SQL_Running", "Slave_SQL_Running"]))
    };
    if !table.rows.iter().all(running) {
        return Replication::Stopped;
    }
    let lags = table.rows.iter().map(|row| {
        let lag = cell(row, ["Seconds_Behind_Source", "Seconds_Behind_Master"])?;
        Some(Duration::from_secs(lag.parse().ok()?))
    });
    let lags: Option<Vec<_>> = lags.collect();
    Replication::Running {
        lag: lags.and_then(|lags| lags.into_iter().max()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(names: [&str; 3], rows: &[[Option<&str>; 3]]) -> Replication {
        let row = |row: &[Option<&str>; 3]| row.iter().map(|c| c.map(str::to_owned)).collect();
        replication_of(&Table {
            columns: names.map(str::to_owned).to_vec(),
            rows: rows.iter().map(row).collect(),
        })
    }

    #[test]
    fn replication_runs_if_every_source_is_followed() {
        let maria = [
            "Slave_IO_Running",
            "Slave_SQL_Running",
            "Seconds_Behind_Master",
        ];
        let mysql = [
            "Replica_IO_Running",
            "Replica_SQL_Running",
            "Seconds_Behind_Source",
        ];
        let seconds = |s| Some(Duration::from_secs(s));
        let good = |lag| [Some("Yes"), Some("Yes"), Some(lag)];
        for names in [maria, mysql] {
            assert_eq!(status(names, &[]), Replication::None);
            let two = status(names, &[good("0"), good("7")]);
            assert_eq!(two, Replication::Running { lag: seconds(7) });
            let connecting = [Some("Connecting"), Some("Yes"), None];
            let unreached = status(names, &[good("0"), connecting]);
            assert_eq!(unreached, Replication::Running { lag: None });
            for stopped in [["No", "Yes"], ["Yes", "No"], ["No", "No"]] {
                let row = [Some(stopped[0]), Some(stopped[1]), None];
                assert_eq!(status(names, &[good("0"), row]), Replication::Stopped);
            }
        }
        assert_eq!(status(["a", "b", "c"], &[good("0")]), Replication::Stopped);
    }

    #[test]
    fn a_server_error_says_what_it_is() {
        let of = |code| of_server(code, "m".to_owned());
        assert!(matches!(of(1045), ProbeError::Denied(_)));
        assert!(matches!(of(1040), ProbeError::Full(_)));
        assert!(matches!(of(1053), ProbeError::Lost(_)));
        assert!(matches!(of(1105), ProbeError::Query(_)));
        assert!(is_on("1") && is_on("ON") && is_on("NO_LOCK") && !is_on("0") && !is_on("OFF"));
    }
}
