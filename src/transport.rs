//! Byte streams of both sides: a TCP or Unix socket, in clear or under TLS, as one type.
//!
//! Clients and backend connections use the same [`Stream`], so that everything above it is written
//! once. It owns the socket and nothing else: no buffers, no protocol.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A connected socket in clear.
#[derive(Debug)]
pub enum Socket {
    /// TCP, with `TCP_NODELAY` set by whoever connected or accepted it.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

/// A connected socket, in clear or under TLS.
#[derive(Debug)]
pub enum Stream {
    /// In clear.
    Plain(Socket),
    /// Under TLS, as client or as server. Boxed: the TLS state is large and most streams have none.
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// The socket below, whatever is spoken on it.
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Whether TLS is spoken on this stream.
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether the socket is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.socket(), Socket::Unix(_))
    }

    /// Whether a password may cross this stream in clear: TLS, or a Unix socket that nobody can tap.
    pub fn is_secure(&self) -> bool {
        self.is_tls() || self.is_unix()
    }

    /// Reads what is there without waiting. `None`: nothing to read and the peer is still there;
    /// `Some(Ok(0))`: end of stream.
    ///
    /// It costs a system call only if the runtime knows that something has come. Nothing is missed by
    /// that: the kernel reports sockets in the order in which things came to them, so an end that came
    /// before the bytes that the caller has just been woken by is known here.
    ///
    /// A pending reader's waker is replaced, so this is only for a stream nobody is reading.
    pub fn try_read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut read_buf = ReadBuf::new(buf);
        match Pin::new(self).poll_read(&mut cx, &mut read_buf) {
            Poll::Pending => None,
            Poll::Ready(Ok(())) => Some(Ok(read_buf.filled().len())),
            Poll::Ready(Err(error)) => Some(Err(error)),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(Socket::Tcp(socket))
    }
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Self::Plain(Socket::Unix(socket))
    }
}

/// Forwards the five methods of [`AsyncRead`] and [`AsyncWrite`] to whichever variant is there.
macro_rules! forward_io {
    ($type:ty, $first:ident, $second:ident) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(s) => Pin::new(s).poll_read(cx, buf),
                    Self::$second(s) => Pin::new(s).poll_read(cx, buf),
                }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::$first(s) => Pin::new(s).poll_write(cx, buf),
                    Self::$second(s) => Pin::new(s).poll_write(cx, buf),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::$first(s) => Pin::new(s).poll_write_vectored(cx, bufs),
                    Self::$second(s) => Pin::new(s).poll_write_vectored(cx, bufs),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    Self::$first(s) => s.is_write_vectored(),
                    Self::$second(s) => s.is_write_vectored(),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(s) => Pin::new(s).poll_flush(cx),
                    Self::$second(s) => Pin::new(s).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(s) => Pin::new(s).poll_shutdown(cx),
                    Self::$second(s) => Pin::new(s).poll_shutdown(cx),
                }
            }
        }
    };
}

forward_io!(Socket, Tcp, Unix);
forward_io!(Stream, Plain, Tls);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn try_read_tells_silence_bytes_and_end_apart() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut near = Stream::from(near);
        let mut buf = [0; 8];
        assert!(near.try_read(&mut buf).is_none());
        far.write_all(b"abc").await.unwrap();
        near.socket_readable().await;
        assert_eq!(near.try_read(&mut buf).unwrap().unwrap(), 3);
        drop(far);
        near.socket_readable().await;
        assert_eq!(near.try_read(&mut buf).unwrap().unwrap(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_end_that_came_before_another_sockets_bytes_is_seen_without_waiting() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for round in 0..500 {
            let connect = || async {
                let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
                (Stream::from(near.unwrap()), far.unwrap().0)
            };
            let ((mut backend, server), (mut client, application)) =
                (connect().await, connect().await);
            let mut buf = [0; 8];
            // Nobody waits for either; what was known of them is used up.
            assert!(backend.try_read(&mut buf).is_none());
            assert!(client.try_read(&mut buf).is_none());
            let other = std::thread::spawn(move || {
                drop(server);
                application.try_write(b"query").unwrap();
                application
            });
            client.socket_readable().await;
            let end = backend.try_read(&mut buf);
            assert!(matches!(end, Some(Ok(0))), "round {round}: {end:?}");
            drop(other.join().unwrap());
        }
    }

    impl Stream {
        async fn socket_readable(&self) {
            match self.socket() {
                Socket::Tcp(s) => s.readable().await.unwrap(),
                Socket::Unix(s) => s.readable().await.unwrap(),
            }
        }
    }
}
