//! The listener's loop and the life of one HTTP connection; every wait in it has an end.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::{AdminContext, Scope, route};

/// Connections served at once on one listener; more wait in the listener's backlog.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// How long a request's head may take, which also bounds how long a kept-alive connection may idle.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// After this age a connection ends with its present request, so that a reader that never reads cannot
/// hold one of the [`MAX_CONNECTIONS`].
pub(super) const MAX_AGE: Duration = Duration::from_secs(300);

/// How long the present request may then still take, and at shutdown.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a request's head.
const HEAD_LIMIT: usize = 16 * 1024;

/// Serves HTTP on `listener` until `shutdown`, then lets requests in flight finish for some seconds.
///
/// `/ready` must still be asked while Sidepool drains, so `shutdown` is the end of the process and not the
/// begin of the drain. Never fails: accept errors back off. Dropping the future closes the listener but leaves
/// connections to end by themselves.
pub async fn serve(
    listener: TcpListener,
    ctx: Arc<AdminContext>,
    scope: Scope,
    shutdown: CancellationToken,
) {
    // An address that cannot be told is treated as one that everybody reaches.
    let address = listener
        .local_addr()
        .unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let local = address.ip();
    info!(%address, ?scope, "admin listener serves");
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let accept = async {
        let mut pause = Backoff::new();
        // The semaphore is never closed.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    pause = Backoff::new();
                    let served =
                        connection(stream, Arc::clone(&ctx), scope, local, shutdown.clone());
                    connections.spawn(async move {
                        served.await;
                        drop(slot);
                    });
                }
                Err(err) => pause.after(&err).await,
            }
        }
    };
    shutdown.run_until_cancelled(accept).await;
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves one connection to its end.
async fn connection(
    stream: TcpStream,
    ctx: Arc<AdminContext>,
    scope: Scope,
    local: IpAddr,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |request| {
        let ctx = Arc::clone(&ctx);
        async move { Ok::<_, Infallible>(route::answer(request, ctx, scope, local).await) }
    });
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = shutdown.cancelled() => None,
        () = sleep(MAX_AGE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            timeout(FINISH_TIMEOUT, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(err) = ended {
        debug!(error = %err, "admin connection ended");
    }
}

/// Grows from 10 ms to 1 s while accepting keeps failing, as it does without free descriptors.
struct Backoff(Duration);

impl Backoff {
    const LIMIT: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self(Duration::from_millis(10))
    }

    async fn after(&mut self, err: &io::Error) {
        // The peer's own affair; the next accept can succeed at once.
        if matches!(
            err.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
        ) {
            return;
        }
        warn!(error = %err, pause_ms = self.0.as_millis(), "admin listener cannot accept");
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(Self::LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn accept_errors_pause_longer_and_longer_up_to_a_second() {
        let mut pause = Backoff::new();
        let full = io::Error::from_raw_os_error(24);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let begun = tokio::time::Instant::now();
            pause.after(&full).await;
            waits.push(begun.elapsed().as_millis());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);

        let begun = tokio::time::Instant::now();
        pause.after(&io::ErrorKind::ConnectionAborted.into()).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
