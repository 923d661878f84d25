//! What can fail before the server runs: addresses, certificates, keys.

use std::io;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::front::{Front, Hall};
use crate::admin::{EmptyToken, Scope, Token};
use crate::backend::tls::TlsSetupError;
use crate::cli::EXIT_USAGE;
use crate::client::listener::{BindError, ListenOptions, Listener};
use crate::client::tls::{ServerTls, TlsError};
use crate::config::{ListenAddress, Secrets, Settings};
use crate::protocol::auth::server::RsaKeyError;

/// Connections that wait to be accepted on an HTTP address.
const ADMIN_BACKLOG: i32 = 128;

/// Why the server cannot start. One line each, naming the key.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A listener's address cannot be bound.
    #[error("listener[{at}].address: {source}")]
    Listener {
        /// The listener's place.
        at: usize,
        /// Why.
        source: BindError,
    },
    /// A listener's certificate cannot be used.
    #[error("listener[{at}].tls: {source}")]
    ListenerTls {
        /// The listener's place.
        at: usize,
        /// Why.
        source: TlsError,
    },
    /// An HTTP address cannot be bound.
    #[error("{key}: cannot listen on {address}: {source}")]
    Admin {
        /// The key.
        key: &'static str,
        /// As configured.
        address: ListenAddress,
        /// What the system said.
        source: io::Error,
    },
    /// The HTTP side knows no Unix sockets.
    #[error("{key}: {address} is a Unix socket; HTTP is served on TCP only")]
    AdminUnix {
        /// The key.
        key: &'static str,
        /// As configured.
        address: ListenAddress,
    },
    /// `backend.tls` cannot be used; its message names the key.
    #[error(transparent)]
    BackendTls(#[from] TlsSetupError),
    /// `admin.token_file` holds white space only.
    #[error("admin.token_file: {0}")]
    Token(#[from] EmptyToken),
    /// The key that protects passwords without TLS could not be made.
    #[error("the RSA key for logins cannot be made: {0}")]
    Rsa(#[from] RsaKeyError),
    /// The system does not let signals be caught.
    #[error("signals cannot be caught: {0}")]
    Signals(#[source] io::Error),
}

impl BuildError {
    /// How the process ends: 64 if only other settings can help, else 1.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::ListenerTls { .. }
            | Self::AdminUnix { .. }
            | Self::BackendTls(_)
            | Self::Token(_) => EXIT_USAGE,
            Self::Listener { .. } | Self::Admin { .. } | Self::Rsa(_) | Self::Signals(_) => 1,
        }
    }
}

pub(super) fn admin_token(secrets: &Secrets) -> Result<Option<Token>, BuildError> {
    let Some(secret) = &secrets.admin_token else {
        return Ok(None);
    };
    Ok(Some(Token::parse(&String::from_utf8_lossy(
        secret.expose(),
    ))?))
}

/// TLS of each listener, in order; `None` for those that have none.
pub(super) fn listeners_tls(
    settings: &Settings,
) -> Result<Vec<Option<Arc<ServerTls>>>, BuildError> {
    let listeners = settings.listener.iter().enumerate();
    let made = listeners.map(|(at, listener)| match ServerTls::new(&listener.tls) {
        Ok(tls) => Ok(tls.map(Arc::new)),
        Err(source) => Err(BuildError::ListenerTls { at, source }),
    });
    made.collect()
}

/// Binds each listener and makes what serves its clients.
pub(super) async fn fronts(
    hall: &Arc<Hall>,
    tls: &[Option<Arc<ServerTls>>],
) -> Result<Vec<(Listener, Arc<Front>)>, BuildError> {
    let settings = hall.live.snapshot();
    let mut fronts = Vec::with_capacity(settings.listener.len());
    for (at, (listener, tls)) in settings.listener.iter().zip(tls).enumerate() {
        let options = ListenOptions {
            max_clients: listener.max_clients,
            keepalive: settings.client.keepalive,
        };
        let bound = Listener::bind(&listener.address, options).await;
        let bound = bound.map_err(|source| BuildError::Listener { at, source })?;
        let front = Front::new(Arc::clone(hall), listener, tls.clone());
        fronts.push((bound, Arc::new(front)));
    }
    Ok(fronts)
}

/// Binds the HTTP addresses. A name with several addresses is bound on each.
pub(super) async fn admin_listeners(
    settings: &Settings,
) -> Result<Vec<(TcpListener, Scope)>, BuildError> {
    let addresses = [
        ("admin.address", &settings.admin.address, Scope::Full),
        (
            "admin.metrics_address",
            &settings.admin.metrics_address,
            Scope::MetricsOnly,
        ),
    ];
    let mut bound = Vec::new();
    for (key, address, scope) in addresses {
        let Some(address) = address else { continue };
        let ListenAddress::Tcp { host, port } = address else {
            return Err(BuildError::AdminUnix {
                key,
                address: address.clone(),
            });
        };
        let failed = |source| BuildError::Admin {
            key,
            address: address.clone(),
            source,
        };
        let resolved = tokio::net::lookup_host((host.as_str(), *port))
            .await
            .map_err(failed)?;
        for socket in resolved {
            bound.push((listen(socket).map_err(failed)?, scope));
        }
    }
    Ok(bound)
}

fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Else a restart would wait for the old process's connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 too, whatever the system's default.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(ADMIN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}
