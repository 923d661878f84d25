use super::*;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UnixStream};

/// Greets with one byte, then holds the connection until the client ends it.
#[derive(Default)]
struct Holder {
    rejected: Mutex<Vec<RejectReason>>,
}

impl Handler for Holder {
    async fn serve(self: Arc<Self>, mut accepted: Accepted) {
        let _ = accepted.stream.write_all(b"!").await;
        let _ = accepted.stream.read(&mut [0; 8]).await;
        drop(accepted.permit);
    }

    fn rejected(&self, reason: RejectReason) {
        self.rejected.lock().push(reason);
    }
}

struct Running {
    addresses: Vec<SocketAddr>,
    handler: Arc<Holder>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

fn options(max_clients: usize) -> ListenOptions {
    let keepalive = Keepalive::After(Duration::from_secs(60));
    ListenOptions {
        max_clients,
        keepalive,
    }
}

async fn start(address: &ListenAddress, max_clients: usize) -> Running {
    let listener = Listener::bind(address, options(max_clients)).await.unwrap();
    let addresses = listener.local_addrs();
    let (handler, tasks) = (Arc::new(Holder::default()), TaskTracker::new());
    let cancel = CancellationToken::new();
    let run = listener.run(Arc::clone(&handler), tasks.clone(), cancel.clone());
    Running {
        addresses,
        handler,
        tasks,
        cancel,
        done: tokio::spawn(run),
    }
}

fn any_port() -> ListenAddress {
    ListenAddress::tcp("127.0.0.1", 0)
}

async fn read_all(mut stream: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut out = Vec::new();
    stream.read_to_end(&mut out).await.unwrap();
    out
}

#[tokio::test]
async fn over_the_limit_the_client_gets_1040_and_is_closed() {
    let running = start(&any_port(), 1).await;
    let mut first = TcpStream::connect(running.addresses[0]).await.unwrap();
    assert_eq!(first.read_u8().await.unwrap(), b'!');
    let second = TcpStream::connect(running.addresses[0]).await.unwrap();
    assert_eq!(read_all(second).await, TOO_MANY_CONNECTIONS);
    assert_eq!(
        *running.handler.rejected.lock(),
        [RejectReason::TooManyClients]
    );
    // The permit comes back when the first client leaves.
    drop(first);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let mut third = TcpStream::connect(running.addresses[0]).await.unwrap();
        if third.read_u8().await.unwrap() == b'!' {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "never admitted");
    }
}

#[tokio::test]
async fn cancelling_ends_the_loop_and_closes_the_port_but_not_the_clients() {
    let running = start(&any_port(), 10).await;
    let mut client = TcpStream::connect(running.addresses[0]).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');
    running.cancel.cancel();
    running.done.await.unwrap();
    assert!(TcpStream::connect(running.addresses[0]).await.is_err());
    assert_eq!(running.tasks.len(), 1);
    running.tasks.close();
    drop(client);
    running.tasks.wait().await;
}

#[tokio::test]
async fn a_busy_port_is_one_clear_line() {
    let running = start(&any_port(), 10).await;
    let address = ListenAddress::tcp("127.0.0.1", running.addresses[0].port());
    let error = Listener::bind(&address, options(1)).await.unwrap_err();
    let expected = format!(
        "cannot listen on {}: it is already in use by another process",
        running.addresses[0]
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn names_are_resolved_and_unknown_ones_named() {
    let address = ListenAddress::tcp("localhost", 0);
    let listener = Listener::bind(&address, options(1)).await.unwrap();
    assert!(!listener.local_addrs().is_empty());
    let address = ListenAddress::tcp("no-such-host.invalid", 3306);
    let error = Listener::bind(&address, options(1)).await.unwrap_err();
    let start = "cannot listen on no-such-host.invalid:3306: ";
    assert!(error.to_string().starts_with(start), "{error}");
}

#[tokio::test]
async fn unix_sockets_are_served_and_their_file_goes_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let address = ListenAddress::Unix(path.clone());
    let running = start(&address, 1).await;
    let mut client = UnixStream::connect(&path).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');
    let error = Listener::bind(&address, options(1)).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    running.cancel.cancel();
    running.done.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_process_s_socket_is_replaced_and_other_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    // Dropping a listener leaves the file, as a killed process does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let address = ListenAddress::Unix(path.clone());
    drop(Listener::bind(&address, options(1)).await.unwrap());
    std::fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&address, options(1)).await.unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_successor_s_socket_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let address = ListenAddress::Unix(path.clone());
    let old = Listener::bind(&address, options(1)).await.unwrap();
    // Kept beside, so that its inode is not given out again.
    std::fs::rename(&path, dir.path().join("old.sock")).unwrap();
    let new = Listener::bind(&address, options(1)).await.unwrap();
    drop(old);
    assert!(path.exists());
    drop(new);
    assert!(!path.exists());
}

#[test]
fn hosts_as_servers_print_them() {
    let host = |text: &str| Peer::Tcp(text.parse().unwrap()).host();
    assert_eq!(host("10.1.2.3:5"), "10.1.2.3");
    assert_eq!(host("[::ffff:10.1.2.3]:5"), "10.1.2.3");
    assert_eq!(host("127.0.0.1:5"), "localhost");
    assert_eq!(Peer::Unix.host(), "localhost");
}
