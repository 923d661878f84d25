//! Clients closed for idleness, whose half-closed sockets are watched: bytes that still come are a stale use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics::WatchEnding;
use crate::protocol::command::Command;
use crate::protocol::packet::HEADER_LEN;
use crate::relay::Conn;

/// The sockets being watched, at most `sockets` of them, each for at most `period`.
#[derive(Debug)]
pub struct StaleWatch {
    period: Duration,
    sockets: usize,
    watched: Mutex<Watched>,
}

/// What lets go of each, by the order in which they came.
#[derive(Debug, Default)]
struct Watched {
    next: u64,
    tokens: BTreeMap<u64, DropGuard>,
}

impl StaleWatch {
    /// Watches nothing yet. With a `period` or a number of 0 nothing ever is.
    pub fn new(period: Duration, sockets: usize) -> Arc<Self> {
        Arc::new(Self {
            period,
            sockets,
            watched: Mutex::default(),
        })
    }

    /// Whether sockets are watched at all.
    pub const fn is_on(&self) -> bool {
        self.sockets > 0 && !self.period.is_zero()
    }

    /// Watches one socket to its end, or until its time is up or newer ones need its place. Cancel safe.
    pub async fn watch(&self, client: Conn) -> WatchEnding {
        let (id, token) = self.enter();
        let ending = tokio::select! {
            ending = listen(client) => ending,
            () = token.cancelled() => WatchEnding::Unknown,
            () = tokio::time::sleep(self.period) => WatchEnding::Unknown,
        };
        self.watched.lock().tokens.remove(&id);
        ending
    }

    /// Enters a socket; the oldest is let go if there are too many.
    fn enter(&self) -> (u64, CancellationToken) {
        let token = CancellationToken::new();
        let mut watched = self.watched.lock();
        let id = watched.next;
        watched.next += 1;
        watched.tokens.insert(id, token.clone().drop_guard());
        let oldest = (watched.tokens.len() > self.sockets)
            .then(|| watched.tokens.pop_first())
            .flatten();
        // Wakes a task, so not under the lock.
        drop(watched);
        drop(oldest);
        (id, token)
    }
}

/// Waits for the client's end, or for a command that comes too late.
async fn listen(mut client: Conn) -> WatchEnding {
    loop {
        match client.read_more().await {
            Ok(0) => return WatchEnding::Clean,
            Err(_) => return WatchEnding::Unknown,
            Ok(_) => {}
        }
        match client.input.get(HEADER_LEN) {
            // A driver that closes its side says so first.
            Some(&command) if command == Command::Quit as u8 => client.input.clear(),
            Some(_) => return WatchEnding::StaleUse,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::transport::{Socket, Stream};

    async fn pair() -> (TcpStream, Conn) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (theirs, _) = listener.accept().await.unwrap();
        (ours.unwrap(), Conn::new(Stream::Plain(Socket::Tcp(theirs))))
    }

    fn watching(watch: &Arc<StaleWatch>, conn: Conn) -> tokio::task::JoinHandle<WatchEnding> {
        let watch = Arc::clone(watch);
        tokio::spawn(async move { watch.watch(conn).await })
    }

    #[tokio::test]
    async fn an_end_is_clean_and_a_command_is_stale() {
        let watch = StaleWatch::new(Duration::from_secs(3600), 10);
        assert!(watch.is_on());
        let (client, conn) = pair().await;
        let clean = watching(&watch, conn);
        drop(client);
        assert_eq!(clean.await.unwrap(), WatchEnding::Clean);
        let (mut client, conn) = pair().await;
        let quit = watching(&watch, conn);
        client.write_all(b"\x01\0\0\0\x01").await.unwrap();
        drop(client);
        assert_eq!(quit.await.unwrap(), WatchEnding::Clean);
        let (mut client, conn) = pair().await;
        let stale = watching(&watch, conn);
        client.write_all(b"\x09\0\0\0\x03SELECT 1").await.unwrap();
        assert_eq!(stale.await.unwrap(), WatchEnding::StaleUse);
        assert!(watch.watched.lock().tokens.is_empty());
    }

    #[tokio::test]
    async fn the_oldest_makes_room_and_nobody_knows_how_it_ends() {
        let watch = StaleWatch::new(Duration::from_secs(3600), 2);
        let mut clients = Vec::new();
        let mut endings = Vec::new();
        for n in 1..=3_usize {
            let (client, conn) = pair().await;
            clients.push(client);
            endings.push(watching(&watch, conn));
            while watch.watched.lock().next < n as u64 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(endings.remove(0).await.unwrap(), WatchEnding::Unknown);
        assert_eq!(watch.watched.lock().tokens.len(), 2);
        drop(clients);
        for ending in endings {
            assert_eq!(ending.await.unwrap(), WatchEnding::Clean);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_with_its_time() {
        let watch = StaleWatch::new(Duration::from_secs(3600), 2);
        let (_client, conn) = pair().await;
        let began = tokio::time::Instant::now();
        assert_eq!(watch.watch(conn).await, WatchEnding::Unknown);
        assert_eq!(began.elapsed(), Duration::from_secs(3600));
        assert!(!StaleWatch::new(Duration::ZERO, 2).is_on());
        assert!(!StaleWatch::new(Duration::from_secs(1), 0).is_on());
    }
}
