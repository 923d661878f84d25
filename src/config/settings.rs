//! The settings as one tree, one struct per section, with every default.
//!
//! Sections `client` and `auth` have logic of their own and live in files of their own.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::auth::{AuthSettings, UserSettings};
use super::client::ClientSettings;
use super::text::{cidrs, duration, pin_reasons, some_path, unset_if_empty};
use super::{
    BackendAddress, BackendTlsMode, ClientTlsMode, ListenAddress, LogFormat, LogLevel, Role,
};
use crate::reason::PinReason;

/// All settings. The default is valid but for `backend.addresses`, which has none.
///
/// No secret is in here, only the names of files and variables that hold them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The process.
    pub server: ServerSettings,
    /// Where clients connect; never empty.
    pub listener: Vec<ListenerSettings>,
    /// Clients: timeouts and the rules that change them.
    pub client: ClientSettings,
    /// The database servers.
    pub backend: BackendSettings,
    /// Sharing of backend connections.
    pub pool: PoolSettings,
    /// Who may log in.
    pub auth: AuthSettings,
    /// HTTP: dashboard, API, metrics, health.
    pub admin: AdminSettings,
    /// SQL over the MySQL protocol, for operators.
    pub console: ConsoleSettings,
    /// Logging.
    pub log: LogSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server: ServerSettings::default(),
            listener: vec![ListenerSettings::default()],
            client: ClientSettings::default(),
            backend: BackendSettings::default(),
            pool: PoolSettings::default(),
            auth: AuthSettings::default(),
            admin: AdminSettings::default(),
            console: ConsoleSettings::default(),
            log: LogSettings::default(),
        }
    }
}

impl Settings {
    /// The effective settings as JSON, keys as in the file.
    pub fn to_json(&self) -> serde_json::Value {
        // Every key is a string and every value a plain one, so nothing can fail to be written.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The effective settings as TOML that loads back equal.
    pub fn to_toml(&self) -> String {
        // As above.
        toml::to_string(self).unwrap_or_default()
    }

    /// Twelve hexadecimal digits that differ where any setting differs.
    pub fn checksum(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.to_json().to_string().as_bytes());
        hash.as_ref()[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSettings {
    /// Threads of the runtime; 0: one per core.
    pub worker_threads: usize,
    /// How long a shutdown waits for transactions; zero: not at all.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            worker_threads: 0,
            drain_timeout: Duration::from_secs(25),
        }
    }
}

/// `[[listener]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerSettings {
    /// Where it listens.
    pub address: ListenAddress,
    /// Which backends its clients are served by.
    pub role: Role,
    /// Clients connected at once.
    pub max_clients: usize,
    /// Load balancers whose PROXY header is believed and required.
    #[serde(with = "cidrs")]
    pub proxy_protocol_from: Vec<IpNet>,
    /// TLS toward clients.
    pub tls: ListenerTls,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            address: ListenAddress::tcp("0.0.0.0", 3306),
            role: Role::Writer,
            max_clients: 10_000,
            proxy_protocol_from: Vec::new(),
            tls: ListenerTls::default(),
        }
    }
}

/// `listener.tls`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerTls {
    /// Whether clients may or must use it.
    pub mode: ClientTlsMode,
    /// PEM file, leaf first; with `private_key` unset: self-signed at start. Read again on a reload.
    #[serde(with = "some_path")]
    pub certificate: Option<PathBuf>,
    /// PEM file.
    #[serde(with = "some_path")]
    pub private_key: Option<PathBuf>,
}

/// `[backend]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendSettings {
    /// The servers; never empty in valid settings.
    pub addresses: Vec<BackendAddress>,
    /// Account for probes and KILL.
    #[serde(with = "unset_if_empty")]
    pub monitor_user: Option<String>,
    /// File with its password.
    #[serde(with = "some_path")]
    pub monitor_password_file: Option<PathBuf>,
    /// How long a connect and login may take.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Logins in flight per backend.
    pub max_dials: usize,
    /// Time between two probes of a backend.
    #[serde(with = "duration")]
    pub probe_interval: Duration,
    /// Send a secret by RSA over an unverified plain connection.
    pub allow_public_key_retrieval: bool,
    /// TLS toward backends.
    pub tls: BackendTls,
}

impl Default for BackendSettings {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            monitor_user: None,
            monitor_password_file: None,
            connect_timeout: Duration::from_secs(5),
            max_dials: 4,
            probe_interval: Duration::from_secs(2),
            allow_public_key_retrieval: false,
            tls: BackendTls::default(),
        }
    }
}

/// `backend.tls`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendTls {
    /// Whether it is used and what is verified.
    pub mode: BackendTlsMode,
    /// PEM file of trusted authorities; unset: the system's.
    #[serde(with = "some_path")]
    pub ca: Option<PathBuf>,
}

/// `[pool]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolSettings {
    /// Backend connections per backend; 0: by `max_connections_percent`.
    pub max_connections: usize,
    /// Share of the server's `@@max_connections`, 1 to 100.
    pub max_connections_percent: u8,
    /// Share of the limit that may be idle, 0 to 100.
    pub max_idle_percent: u8,
    /// Idle backend connections that are kept open in spite of `idle_timeout`.
    pub min_idle: usize,
    /// Idle backend connections are closed after this; zero: never.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Backend connections are closed at this age, with jitter; zero: never.
    #[serde(with = "duration")]
    pub max_lifetime: Duration,
    /// How long a client waits for a backend connection; zero: not at all.
    #[serde(with = "duration")]
    pub borrow_timeout: Duration,
    /// SQL run on every new and every reset backend connection.
    #[serde(with = "unset_if_empty")]
    pub init_query: Option<String>,
    /// Pin reasons to ignore, at the operator's risk.
    #[serde(with = "pin_reasons")]
    pub pinning_filters: Vec<PinReason>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_connections: 0,
            max_connections_percent: 100,
            max_idle_percent: 50,
            min_idle: 0,
            idle_timeout: Duration::from_secs(5 * 60),
            max_lifetime: Duration::from_secs(24 * 60 * 60),
            borrow_timeout: Duration::from_secs(120),
            init_query: None,
            pinning_filters: Vec::new(),
        }
    }
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminSettings {
    /// Dashboard, API, metrics and health; `None`: not served.
    #[serde(with = "unset_if_empty")]
    pub address: Option<ListenAddress>,
    /// Metrics and health alone; `None`: not served apart.
    #[serde(with = "unset_if_empty")]
    pub metrics_address: Option<ListenAddress>,
    /// File with the token that changes and lists of clients need.
    #[serde(with = "some_path")]
    pub token_file: Option<PathBuf>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            address: Some(ListenAddress::tcp("127.0.0.1", 9136)),
            metrics_address: None,
            token_file: None,
        }
    }
}

/// `[console]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSettings {
    /// Where it listens, if there is at least one user; `None`: not served.
    #[serde(with = "unset_if_empty")]
    pub address: Option<ListenAddress>,
    /// Who may use it.
    pub user: Vec<UserSettings>,
}

impl Default for ConsoleSettings {
    fn default() -> Self {
        Self {
            address: Some(ListenAddress::tcp("127.0.0.1", 6036)),
            user: Vec::new(),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSettings {
    /// What is logged.
    pub level: LogLevel,
    /// How it is written.
    pub format: LogFormat,
}

#[cfg(test)]
mod tests;
