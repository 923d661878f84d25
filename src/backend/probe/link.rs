//! The monitor's connection: `mysql_async`, from its options to what it reads.
//!
//! Its TLS is rustls with aws-lc-rs as ours is, but it makes its own configuration: it cannot take the one of
//! [`tls`](crate::backend::tls). So with `verify_ca` it checks the name as well (its switch for that looks for an
//! older wording of rustls), it refuses X.509 version 1, and it speaks no TLS on Unix sockets. It would also
//! ask any server for an RSA key to send a password with, which is why [`Link::open`] looks at the channel first.

use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, DriverError, IoError, Opts, OptsBuilder, Row, SslOpts, Value};
use tokio_rustls::rustls::RootCertStore;

use super::condition::{Observation, ProbeError, Replication};
use crate::backend::dial::Address;
use crate::backend::facts::Greeted;
use crate::backend::state::Family;
use crate::config::{BackendSettings, BackendTlsMode, Secret};
use crate::protocol::capability::Capabilities;

/// How long the server may find the connection idle: longer than any probe interval, so that only Sidepool
/// decides (a year, the most that MySQL takes).
const WAIT_TIMEOUT: &str = "SET SESSION wait_timeout = 31536000";
/// Silence after which the kernel asks whether the server is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Rows are small; told to the driver so that it need not ask.
const MAX_PACKET: usize = 4 << 20;

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

/// A logged-in connection of the monitor's.
#[derive(Debug)]
pub(super) struct Link {
    conn: Conn,
    asks: Asks,
}

/// What has turned out about the server's questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asks {
    super_read_only: bool,
    replication: Option<&'static str>,
}

impl Link {
    /// Logs in. Not to be cancelled: see [`login`](crate::backend::login).
    pub(super) async fn open(way: &Way) -> Result<Self, ProbeError> {
        let opts = options(way)?;
        let conn = Conn::new(opts).await.map_err(|error| of_login(&error))?;
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
        Ok(Self { conn, asks })
    }

    /// Reads everything that a probe is about. After an error the link is of no more use.
    pub(super) async fn read(&mut self) -> Result<Observation, ProbeError> {
        let (version, writable, limits) = self.variables().await?;
        let replication = self.replication().await?;
        Ok(Observation {
            version,
            writable,
            replication,
            max_connections: limits.0,
            wait_timeout: limits.1.map(Duration::from_secs),
        })
    }

    /// Says goodbye, so that the server logs no aborted connection.
    pub(super) async fn close(self) {
        // It is gone either way.
        let _ = self.conn.disconnect().await;
    }

    async fn variables(&mut self) -> Result<(String, bool, Limits), ProbeError> {
        let super_read_only = match self.asks.super_read_only {
            true => ",@@super_read_only",
            false => "",
        };
        let sql = format!(
            "SELECT @@version,@@max_connections,@@global.wait_timeout,@@read_only{super_read_only}"
        );
        let row = match self.first::<Row>(&sql).await {
            Err(Asked::Server(UNKNOWN_SYSTEM_VARIABLE, _)) if self.asks.super_read_only => {
                self.asks.super_read_only = false;
                return Box::pin(self.variables()).await;
            }
            Err(error) => return Err(error.into()),
            Ok(row) => row.ok_or_else(|| ProbeError::Query("no row".to_owned()))?,
        };
        let cell = |at: usize| row.as_ref(at).and_then(text);
        let number = |at: usize| cell(at).and_then(|text| text.parse().ok());
        let on = |at: usize| cell(at).is_some_and(|text| is_on(&text));
        Ok((
            cell(0).unwrap_or_default(),
            !on(3) && !on(4),
            (number(1), number(2)),
        ))
    }

    async fn replication(&mut self) -> Result<Replication, ProbeError> {
        let Some(sql) = self.asks.replication else {
            return Ok(Replication::Hidden);
        };
        match self.rows(sql).await {
            Ok(rows) => Ok(replication_of(&rows)),
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

    async fn first<T: FromRow + Send + 'static>(&mut self, sql: &str) -> Result<Option<T>, Asked> {
        self.conn.query_first(sql).await.map_err(Asked::from)
    }

    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Asked> {
        self.conn.query(sql).await.map_err(Asked::from)
    }
}

/// `@@max_connections`, `@@wait_timeout`.
type Limits = (Option<u64>, Option<u64>);

/// Why a question was not answered.
enum Asked {
    Server(u16, String),
    Lost(String),
}

impl From<mysql_async::Error> for Asked {
    fn from(error: mysql_async::Error) -> Self {
        match error {
            mysql_async::Error::Server(error) => Self::Server(error.code, error.to_string()),
            other => Self::Lost(other.to_string()),
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

fn options(way: &Way) -> Result<Opts, ProbeError> {
    let insecure = |text: String| ProbeError::Insecure(text);
    let password = std::str::from_utf8(way.password.expose()).map_err(|_| {
        insecure("the password in backend.monitor_password_file is not UTF-8".to_owned())
    })?;
    let builder = OptsBuilder::default()
        .user(Some(&*way.user))
        .pass(Some(password))
        .prefer_socket(false)
        .max_allowed_packet(Some(MAX_PACKET))
        .wait_timeout(Some(31_536_000))
        .stmt_cache_size(0)
        .tcp_keepalive(Some(KEEPALIVE))
        .connect_attribute("program_name", "sidepool-probe")
        .init(vec![WAIT_TIMEOUT]);
    let (host, port) = match &way.address {
        Address::Unix(path) => {
            return Ok(builder.socket(Some(path.display().to_string())).into());
        }
        Address::Tcp { host, port } => (host, port),
    };
    let builder = builder.ip_or_hostname(host.clone()).tcp_port(*port);
    let offered = way.greeted.capabilities.contains(Capabilities::SSL);
    let tls = match way.backend.tls.mode {
        BackendTlsMode::Off => None,
        BackendTlsMode::Preferred if !offered => None,
        _ if !offered => {
            let text = format!(
                "{} offers no TLS, which backend.tls.mode demands",
                way.address
            );
            return Err(insecure(text));
        }
        mode => Some(tls_options(mode, way)),
    };
    let may_need_rsa = tls.is_none() && way.greeted.family() == Family::MySql;
    if may_need_rsa && !way.backend.allow_public_key_retrieval {
        return Err(insecure(
            "the monitor's password might have to be sent by RSA over an unverified plain connection: \
             use TLS (backend.tls.mode), or set backend.allow_public_key_retrieval"
                .to_owned(),
        ));
    }
    Ok(builder.ssl_opts(tls).into())
}

fn tls_options(mode: BackendTlsMode, way: &Way) -> SslOpts {
    let options = SslOpts::default();
    let verifying = match mode {
        BackendTlsMode::VerifyCa | BackendTlsMode::VerifyIdentity => options
            .with_disable_built_in_roots(true)
            .with_danger_skip_domain_validation(mode == BackendTlsMode::VerifyCa),
        // The driver's own roots stay in: its verifier cannot be made without any.
        BackendTlsMode::Off | BackendTlsMode::Preferred | BackendTlsMode::Required => {
            return options.with_danger_accept_invalid_certs(true);
        }
    };
    match &way.backend.tls.ca {
        Some(ca) => verifying.with_root_certs(vec![ca.clone().into()]),
        None => verifying.with_root_certs(system_roots().map(Into::into).collect()),
    }
}

/// The system's roots without those that rustls does not read.
fn system_roots() -> impl Iterator<Item = Vec<u8>> {
    let roots = rustls_native_certs::load_native_certs().certs.into_iter();
    roots
        .filter(|root| RootCertStore::empty().add(root.clone()).is_ok())
        .map(|root| root.to_vec())
}

fn of_login(error: &mysql_async::Error) -> ProbeError {
    use mysql_async::Error;
    let text = error.to_string();
    match error {
        Error::Server(error) => match error.code {
            1040 | 1203 | 1226 => ProbeError::Full(text),
            1045 | 1044 | 1130 | 1129 | 1698 | 1820 | 1862 | 3118 | 3159 | 3955 | 4150 | 4151 => {
                ProbeError::Denied(text)
            }
            1053 | 1927 => ProbeError::Lost(text),
            _ => ProbeError::Query(text),
        },
        Error::Io(IoError::Tls(_)) => ProbeError::Insecure(text),
        Error::Io(IoError::Io(_)) => ProbeError::Unreachable(text),
        Error::Driver(DriverError::ConnectionClosed) => ProbeError::Lost(text),
        Error::Driver(_) | Error::Other(_) | Error::Url(_) => ProbeError::Query(text),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        other => Some(other.as_sql(true)),
    }
}

/// MariaDB from 12 on has words for several kinds of being read-only.
fn is_on(text: &str) -> bool {
    !matches!(text, "0" | "OFF" | "off" | "")
}

/// What the rows say, one for each source. Column names: MySQL since 8.0.22 has `Replica_…` and `…_Source`,
/// older ones and MariaDB (also for `SHOW REPLICA STATUS`) `Slave_…` and `…_Master`.
fn replication_of(rows: &[Row]) -> Replication {
    if rows.is_empty() {
        return Replication::None;
    }
    let cell = |row: &Row, names: [&str; 2]| {
        let columns = row.columns_ref();
        let named = |name: &str| columns.iter().position(|c| c.name_str() == name);
        let at = names.into_iter().find_map(named)?;
        row.as_ref(at).and_then(text)
    };
    // `Connecting` and the like are attempts: the source may be down, which is no fault of the replica's.
    let runs = |state: Option<String>| state.is_some_and(|state| state != "No");
    let running = |row: &Row| {
        runs(cell(row, ["Replica_IO_Running", "Slave_IO_Running"]))
            && runs(cell(row, ["Replica_SQL_Running", "Slave_SQL_Running"]))
    };
    if !rows.iter().all(running) {
        return Replication::Stopped;
    }
    let lags = rows.iter().map(|row| {
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

    fn way(address: Address, capabilities: Capabilities, version: &str) -> Way {
        Way {
            address,
            user: "probe".into(),
            password: Secret::new("pw"),
            greeted: Greeted {
                version: version.into(),
                capabilities,
                collation: 45,
                status: 2,
            },
            backend: BackendSettings::default(),
        }
    }

    fn tcp(host: &str) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port: 3307,
        }
    }

    #[test]
    fn the_channel_is_chosen_by_mode_and_greeting() {
        let (plain, tls) = (Capabilities::EMPTY, Capabilities::SSL);
        let mut preferred = way(tcp("::1"), tls, "9.7.4");
        let opts = options(&preferred).unwrap();
        assert_eq!((opts.ip_or_hostname(), opts.tcp_port()), ("::1", 3307));
        assert!(opts.ssl_opts().unwrap().accept_invalid_certs());
        assert!(!opts.prefer_socket() && !opts.enable_cleartext_plugin());

        preferred.backend.tls.mode = BackendTlsMode::VerifyIdentity;
        let ssl = options(&preferred).unwrap().ssl_opts().unwrap().clone();
        assert!(ssl.disable_built_in_roots() && !ssl.accept_invalid_certs());
        assert!(!ssl.skip_domain_validation());
        preferred.greeted.capabilities = plain;
        let error = options(&preferred).unwrap_err().to_string();
        assert!(error.contains("backend.tls.mode"), "{error}");

        let maria = way(tcp("db"), plain, "10.11.19-MariaDB");
        assert!(options(&maria).unwrap().ssl_opts().is_none());
        let mut mysql = way(tcp("db"), plain, "9.7.4");
        let error = options(&mysql).unwrap_err().to_string();
        assert!(error.contains("allow_public_key_retrieval"), "{error}");
        mysql.backend.allow_public_key_retrieval = true;
        assert!(options(&mysql).is_ok());
        let socket = way(Address::Unix("/run/s".into()), tls, "9.7.4");
        let opts = options(&socket).unwrap();
        assert_eq!(
            (opts.socket(), opts.ssl_opts().is_none()),
            (Some("/run/s"), true)
        );
    }

    #[test]
    fn a_server_error_at_login_says_what_it_is() {
        let of = |code| {
            of_login(&mysql_async::Error::Server(mysql_async::ServerError {
                code,
                message: "m".into(),
                state: "HY000".into(),
            }))
        };
        assert!(matches!(of(1045), ProbeError::Denied(_)));
        assert!(matches!(of(1040), ProbeError::Full(_)));
        assert!(matches!(of(1053), ProbeError::Lost(_)));
        assert!(matches!(of(1105), ProbeError::Query(_)));
        assert!(is_on("1") && is_on("ON") && is_on("NO_LOCK") && !is_on("0") && !is_on("OFF"));
    }
}
