//! Connecting to a backend address: names resolved, every answer tried, socket options set.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use crate::transport::Stream;

/// Silence after which the kernel asks whether the backend is still there, so that a pooled connection whose
/// peer vanished (a failover, a NAT that forgot) is found dead before it is borrowed.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// Between two such questions.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// Unanswered questions after which the connection is dead.
const KEEPALIVE_PROBES: u32 = 3;

/// Where a backend listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A host name or IP address (IPv6 without brackets), and a port.
    Tcp {
        /// Resolved anew at every dial, so that a failover by DNS is followed.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket's path.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Connects to `address` until `deadline`. A name with several addresses has each tried in the resolver's
/// order; each gets an equal part of the time that is left, so that one that does not answer does not use it up.
///
/// Cancel-safe: nothing was sent. But a server counts a connection that is dropped without a login, see
/// [`login`](super::login::login).
///
/// # Errors
/// The last address's error; [`io::ErrorKind::TimedOut`] when it did not answer in time.
pub async fn connect(address: &Address, deadline: Instant) -> io::Result<Stream> {
    match address {
        Address::Unix(path) => {
            let socket = timeout_at(deadline, UnixStream::connect(path)).await??;
            Ok(socket.into())
        }
        Address::Tcp { host, port } => {
            let resolved = timeout_at(deadline, lookup_host((host.as_str(), *port))).await??;
            connect_any(&resolved.collect::<Vec<_>>(), deadline).await
        }
    }
}

async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> io::Result<Stream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let untried = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let until = Instant::now() + left / untried;
        match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                set_options(&socket)?;
                return Ok(socket.into());
            }
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = elapsed.into(),
        }
    }
    Err(last)
}

fn set_options(socket: &TcpStream) -> io::Result<()> {
    // Commands are small and each is waited for.
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Socket;
    use tokio::net::TcpListener;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn addresses_are_shown_as_they_are_configured() {
        let tcp = |host: &str| Address::Tcp {
            host: host.to_owned(),
            port: 3306,
        };
        assert_eq!(tcp("db.example").to_string(), "db.example:3306");
        assert_eq!(tcp("::1").to_string(), "[::1]:3306");
        assert_eq!(Address::Unix("/run/s".into()).to_string(), "unix:/run/s");
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead_address = dead.local_addr().unwrap();
        drop(dead);
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [dead_address, alive.local_addr().unwrap()];
        let stream = connect_any(&addresses, soon()).await.unwrap();
        let Socket::Tcp(socket) = stream.socket() else {
            panic!("not TCP")
        };
        assert!(socket.nodelay().unwrap());
        assert!(SockRef::from(socket).keepalive().unwrap());
        let error = connect_any(&addresses[..1], soon()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn names_and_unix_paths_are_dialled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp {
            host: "localhost".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        assert!(!connect(&address, soon()).await.unwrap().is_unix());

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let missing = connect(&Address::Unix(path.clone()), soon()).await;
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert!(
            connect(&Address::Unix(path), soon())
                .await
                .unwrap()
                .is_unix()
        );
    }
}
