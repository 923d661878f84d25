//! Listeners: bound sockets, the accept loop, the limit on clients.
//!
//! Owns the listening sockets and the permits that `max_clients` stands for. Every accepted
//! connection is given to a [`Handler`] in a task of its own; what is spoken on it is not known here.
//! Over the limit a client is told error 1040, as a server would, instead of hanging in the backlog.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::config::{Keepalive, ListenAddress};
use crate::reason::RejectReason;
use crate::transport::{Socket, Stream};

/// Connections that the kernel completes ahead of `accept`. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Pause after an accept error that a retry at once would only repeat (no descriptors, no memory).
const BACK_OFF: Duration = Duration::from_millis(100);

/// Time between keepalive probes, and how many may go unanswered before the client is given up.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// How many refused clients are waited for at a time, so that their error arrives.
const POLITE_REFUSALS: usize = 64;

/// How long a refused client is waited for.
const LINGER: Duration = Duration::from_secs(1);

/// The packet that servers answer over their limit, captured from both: sequence id 0, error 1040, no
/// SQLSTATE because no capabilities are agreed on yet.
const TOO_MANY_CONNECTIONS: &[u8] = b"\x17\x00\x00\x00\xff\x10\x04Too many connections";

/// What a listener is told.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// Clients served at a time, over all sockets of the listener.
    pub max_clients: usize,
    /// TCP keepalive toward clients.
    pub keepalive: Keepalive,
}

/// Who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client, or the one that a PROXY header named.
    Tcp(SocketAddr),
    /// A process on this machine, through a Unix socket.
    Unix,
}

/// A connection as it was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: Stream,
    /// Who is at its other end.
    pub peer: Peer,
    /// One of `max_clients`; free again when dropped.
    pub permit: OwnedSemaphorePermit,
}

/// What serves accepted connections.
pub trait Handler: Send + Sync + 'static {
    /// Serves one connection to its end. The future runs in a task of its own.
    fn serve(self: Arc<Self>, accepted: Accepted) -> impl Future<Output = ()> + Send;

    /// A client was turned away before it was served. For counting; must not block.
    fn rejected(&self, reason: RejectReason);
}

/// Why a listener could not be bound. One clear line each.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host name has no address.
    #[error("cannot listen on {address}: {source}")]
    Resolve {
        /// As configured.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Another process listens there.
    #[error("cannot listen on {address}: it is already in use by another process")]
    InUse {
        /// As configured.
        address: String,
    },
    /// A file that is no socket is in the way of a Unix socket.
    #[error("cannot listen on {address}: a file that is not a socket is there")]
    NotASocket {
        /// As configured.
        address: String,
    },
    /// Anything else: no permission, no such address on this machine.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// As configured.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Bound sockets of one `[[listener]]`. Dropping it closes them and removes a Unix socket's file.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Bound>,
    options: ListenOptions,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix {
        socket: UnixListener,
        _file: OwnFile,
    },
}

/// A Unix socket's file that this process made; removed when dropped if it is still the same.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl Listener {
    /// Binds `address`. A host name with several addresses is bound on each.
    ///
    /// # Errors
    /// [`BindError`]; nothing stays bound then.
    pub async fn bind(address: &ListenAddress, options: ListenOptions) -> Result<Self, BindError> {
        let sockets = match address {
            ListenAddress::Tcp { host, port } => bind_tcp(address, host, *port).await?,
            ListenAddress::Unix(path) => vec![bind_unix(address, path)?],
        };
        let permits = Arc::new(Semaphore::new(
            options.max_clients.min(Semaphore::MAX_PERMITS),
        ));
        Ok(Self {
            sockets,
            options,
            permits,
        })
    }

    /// The TCP addresses bound, for logs and for tests that bind port 0.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let tcp = self.sockets.iter().filter_map(|bound| match bound {
            Bound::Tcp(socket) => socket.local_addr().ok(),
            Bound::Unix { .. } => None,
        });
        tcp.collect()
    }

    /// Clients being served now.
    pub fn clients(&self) -> usize {
        self.options.max_clients - self.permits.available_permits()
    }

    /// Accepts until `cancel` fires, then closes the listening sockets. Tasks of connections go to
    /// `tasks` and are not waited for here.
    pub async fn run<H: Handler>(
        self,
        handler: Arc<H>,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) {
        let door = Arc::new(Door {
            handler,
            options: self.options,
            permits: self.permits,
            polite: Arc::new(Semaphore::new(POLITE_REFUSALS)),
            tasks,
        });
        let mut loops = tokio::task::JoinSet::new();
        for bound in self.sockets {
            let (door, cancel) = (Arc::clone(&door), cancel.clone());
            loops.spawn(async move { door.accept_loop(bound, cancel).await });
        }
        while loops.join_next().await.is_some() {}
    }
}

impl Peer {
    /// The address that rules and throttles go by; IPv4 in IPv6's clothing is taken out of it. `None`: local.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }

    /// What stands behind the `@` in a server's "Access denied" message. Servers resolve names, which
    /// this does not, but for the one name that every machine has.
    pub fn host(&self) -> String {
        match self.ip() {
            Some(ip) if !ip.is_loopback() => ip.to_string(),
            _ => "localhost".to_owned(),
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// What the accept loops of one listener share.
struct Door<H> {
    handler: Arc<H>,
    options: ListenOptions,
    permits: Arc<Semaphore>,
    polite: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl<H: Handler> Door<H> {
    async fn accept_loop(&self, bound: Bound, cancel: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => return,
                accepted = bound.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if is_of_one_connection(&error) => {
                    debug!(%error, "a client was gone before it was accepted");
                }
                Err(error) => {
                    warn!(%error, "accepting clients failed, trying again");
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(BACK_OFF) => {}
                    }
                }
            }
        }
    }

    fn admit(&self, stream: Stream, peer: Peer) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return self.refuse(stream, peer);
        };
        if let Err(error) = set_options(&stream, self.options.keepalive) {
            debug!(%error, %peer, "client gone before its socket was set up");
            self.handler.rejected(RejectReason::ClientGone);
            return;
        }
        let accepted = Accepted {
            stream,
            peer,
            permit,
        };
        self.tasks.spawn(Arc::clone(&self.handler).serve(accepted));
    }

    fn refuse(&self, mut stream: Stream, peer: Peer) {
        let reason = RejectReason::TooManyClients;
        debug!(%reason, %peer, max_clients = self.options.max_clients, "client refused");
        self.handler.rejected(reason);
        // Beyond a handful the packet is not worth a task: the socket is closed at once.
        if let Ok(slot) = Arc::clone(&self.polite).try_acquire_owned() {
            self.tasks.spawn(async move {
                let _ = tokio::time::timeout(LINGER, async {
                    stream.write_all(TOO_MANY_CONNECTIONS).await?;
                    super::drain_to_end(&mut stream).await
                })
                .await;
                drop(slot);
            });
        }
    }
}

impl Bound {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((stream.into(), Peer::Tcp(peer)))
            }
            Self::Unix { socket, .. } => Ok((socket.accept().await?.0.into(), Peer::Unix)),
        }
    }
}

/// Errors that `accept` passes on from the connection it would have returned (accept(2), "Error handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

fn set_options(stream: &Stream, keepalive: Keepalive) -> io::Result<()> {
    let Socket::Tcp(socket) = stream.socket() else {
        return Ok(());
    };
    socket.set_nodelay(true)?;
    if let Keepalive::After(idle) = keepalive {
        let times = TcpKeepalive::new()
            .with_time(idle)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        SockRef::from(socket).set_tcp_keepalive(&times)?;
    }
    Ok(())
}

async fn bind_tcp(address: &ListenAddress, host: &str, port: u16) -> Result<Vec<Bound>, BindError> {
    let resolve_error = |source| BindError::Resolve {
        address: address.to_string(),
        source,
    };
    let mut addresses: Vec<_> = tokio::net::lookup_host((host, port))
        .await
        .map_err(resolve_error)?
        .collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        let source = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(resolve_error(source));
    }
    let bind = |socket| listen_tcp(socket).map_err(|source| bind_error(address, source));
    addresses.into_iter().map(bind).collect()
}

fn listen_tcp(address: SocketAddr) -> io::Result<Bound> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // Else a restart would wait for the old process's connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 too, whatever the system's default.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Bound::Tcp(TcpListener::from_std(socket.into())?))
}

fn bind_unix(address: &ListenAddress, path: &Path) -> Result<Bound, BindError> {
    let io_error = |source| bind_error(address, source);
    remove_stale_socket(address, path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).map_err(io_error)?;
    socket.set_nonblocking(true).map_err(io_error)?;
    let name = SockAddr::unix(path).map_err(io_error)?;
    socket.bind(&name).map_err(io_error)?;
    let file = OwnFile::of(path);
    socket.listen(BACKLOG).map_err(io_error)?;
    let socket = UnixListener::from_std(socket.into()).map_err(io_error)?;
    Ok(Bound::Unix {
        socket,
        _file: file,
    })
}

/// Removes the file of a process that is gone: a socket that nobody listens on.
fn remove_stale_socket(address: &ListenAddress, path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    let address = address.to_string();
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket { address });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| BindError::Io { address, source })
        }
        // A full backlog answers WouldBlock: somebody listens there.
        _ => Err(BindError::InUse { address }),
    }
}

fn bind_error(address: &ListenAddress, source: io::Error) -> BindError {
    let address = address.to_string();
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        _ => BindError::Io { address, source },
    }
}

impl OwnFile {
    fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            inode: inode(path),
        }
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // A successor may have put its own socket there already.
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(std::fs::symlink_metadata(path).ok()?.ino())
}

#[cfg(test)]
mod tests;
