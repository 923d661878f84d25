//! The monitor's connection by `mysql_async`.
//!
//! Its TLS is rustls with aws-lc-rs as ours is, but it makes a configuration of its own and cannot take the one of
//! [`tls`](crate::backend::tls). Measured with 0.37.1: `verify_ca` checks the name as well (its switch looks for an
//! older wording of rustls), X.509 version 1 is refused, a Unix socket has no TLS. And it lets any server have the
//! password encrypted with whatever key that server sends. So [`suits`] says where it keeps what `[backend]` promises.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, IoError, Opts, OptsBuilder, Row, SslOpts, Value};
use tokio_rustls::rustls::{self, RootCertStore};

use super::condition::ProbeError;
use super::link::{Asked, Table, WAIT_TIMEOUT, Way, of_server};
use crate::backend::dial::Address;
use crate::backend::state::Family;
use crate::config::BackendTlsMode;
use crate::protocol::capability::Capabilities;

/// Silence after which the kernel asks whether the server is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Rows are small; told to the driver so that it need not ask.
const MAX_PACKET: usize = 4 << 20;

/// Why the driver could not log in.
#[derive(Debug)]
pub(super) enum Failed {
    /// Its TLS did not come about; ours may.
    Tls,
    /// For a reason that would stop anybody.
    Otherwise(ProbeError),
}

/// Whether the driver does here what the settings promise.
pub(super) fn suits(way: &Way) -> bool {
    let offered = way.greeted.capabilities.contains(Capabilities::SSL);
    let mode = way.backend.tls.mode;
    let demanded = !matches!(mode, BackendTlsMode::Off | BackendTlsMode::Preferred);
    if matches!(way.address, Address::Unix(_)) {
        return !demanded;
    }
    let clear = mode == BackendTlsMode::Off || !offered;
    let may_need_rsa = clear && way.greeted.family() == Family::MySql;
    mode != BackendTlsMode::VerifyCa
        && (offered || !demanded)
        && (!may_need_rsa || way.backend.allow_public_key_retrieval)
        && std::str::from_utf8(way.password.expose()).is_ok()
}

/// Logs in. Not to be cancelled: see [`login`](crate::backend::login).
pub(super) async fn open(way: &Way) -> Result<Conn, Failed> {
    let opened = Conn::new(options(way)).await;
    opened.map_err(|error| of_login(&error))
}

/// Asks one question.
pub(super) async fn ask(conn: &mut Conn, sql: &str) -> Result<Table, Asked> {
    let rows: Vec<Row> = conn.query(sql).await.map_err(|error| match error {
        mysql_async::Error::Server(error) => Asked::Server(error.code, error.to_string()),
        other => Asked::Lost(other.to_string()),
    })?;
    let columns = rows.first().map(|row| {
        let columns = row.columns_ref().iter();
        columns
            .map(|column| column.name_str().into_owned())
            .collect()
    });
    let cells = |row: &Row| {
        (0..row.len())
            .map(|at| row.as_ref(at).and_then(text))
            .collect()
    };
    Ok(Table {
        columns: columns.unwrap_or_default(),
        rows: rows.iter().map(cells).collect(),
    })
}

fn options(way: &Way) -> Opts {
    let password = String::from_utf8_lossy(way.password.expose());
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
        Address::Unix(path) => return builder.socket(Some(path.display().to_string())).into(),
        Address::Tcp { host, port } => (host, port),
    };
    let offered = way.greeted.capabilities.contains(Capabilities::SSL);
    let tls = match way.backend.tls.mode {
        BackendTlsMode::Off => None,
        mode => offered.then(|| tls_options(mode, way)),
    };
    let builder = builder.ip_or_hostname(host.clone()).tcp_port(*port);
    builder.ssl_opts(tls).into()
}

fn tls_options(mode: BackendTlsMode, way: &Way) -> SslOpts {
    let options = SslOpts::default();
    let verifying = match mode {
        BackendTlsMode::VerifyCa | BackendTlsMode::VerifyIdentity => {
            options.with_disable_built_in_roots(true)
        }
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

fn of_login(error: &mysql_async::Error) -> Failed {
    use mysql_async::Error;
    let text = error.to_string();
    Failed::Otherwise(match error {
        Error::Server(error) => of_server(error.code, text),
        Error::Io(IoError::Tls(_)) => return Failed::Tls,
        Error::Io(IoError::Io(error)) => match error.get_ref() {
            Some(inner) if inner.is::<rustls::Error>() => return Failed::Tls,
            _ => ProbeError::Unreachable(text),
        },
        Error::Driver(DriverError::ConnectionClosed) => ProbeError::Lost(text),
        Error::Driver(_) | Error::Other(_) | Error::Url(_) => ProbeError::Query(text),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::facts::Greeted;
    use crate::config::{BackendSettings, Secret};

    fn way(address: Address, capabilities: Capabilities, version: &str) -> Way {
        Way {
            address,
            user: "probe".into(),
            password: Secret::new(b"pw"),
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
    fn the_driver_is_used_where_it_keeps_what_the_settings_promise() {
        let (plain, tls) = (Capabilities::EMPTY, Capabilities::SSL);
        let mut preferred = way(tcp("::1"), tls, "9.7.4");
        let opts = options(&preferred);
        assert!(suits(&preferred));
        assert_eq!((opts.ip_or_hostname(), opts.tcp_port()), ("::1", 3307));
        assert!(opts.ssl_opts().unwrap().accept_invalid_certs());
        assert!(!opts.prefer_socket() && !opts.enable_cleartext_plugin());

        preferred.backend.tls.mode = BackendTlsMode::VerifyIdentity;
        let opts = options(&preferred);
        let ssl = opts.ssl_opts().unwrap();
        assert!(ssl.disable_built_in_roots() && !ssl.accept_invalid_certs());
        assert!(!ssl.skip_domain_validation() && suits(&preferred));
        preferred.greeted.capabilities = plain;
        assert!(!suits(&preferred), "TLS is demanded");
        preferred.greeted.capabilities = tls;
        preferred.backend.tls.mode = BackendTlsMode::VerifyCa;
        assert!(!suits(&preferred));

        let maria = way(tcp("db"), plain, "10.11.19-MariaDB");
        assert!(suits(&maria) && options(&maria).ssl_opts().is_none());
        let mut mysql = way(tcp("db"), plain, "9.7.4");
        assert!(!suits(&mysql), "it would send the password by RSA");
        mysql.backend.allow_public_key_retrieval = true;
        assert!(suits(&mysql));
        mysql.password = Secret::new(b"\xff");
        assert!(!suits(&mysql));
        let mut socket = way(Address::Unix("/run/s".into()), tls, "9.7.4");
        let opts = options(&socket);
        assert!(suits(&socket) && opts.ssl_opts().is_none());
        assert_eq!(opts.socket(), Some("/run/s"));
        socket.backend.tls.mode = BackendTlsMode::Required;
        assert!(!suits(&socket));
    }
}
