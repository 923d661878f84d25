//! One side of the relay: a stream with its input and output buffers.
//!
//! Buffers hold memory only while a command is in flight: [`Conn::release`] gives it back, so that an
//! idle client or backend connection costs nothing but its socket.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::transport::Stream;

/// Bytes a read asks for at first.
const READ_SMALL: usize = 16 * 1024;
/// Bytes a read asks for while a big answer flows.
const READ_LARGE: usize = 64 * 1024;
/// Bytes a client may send ahead while its command runs; beyond them its socket is not read.
const AHEAD_MAX: usize = 64 * 1024;

/// A client's or a backend's connection, after login.
#[derive(Debug)]
pub struct Conn<S = Stream> {
    /// The byte stream.
    pub stream: S,
    /// Bytes read and not yet taken.
    pub input: BytesMut,
    /// Bytes to be written by [`Conn::send`].
    pub output: BytesMut,
    /// How long the peer may take nothing of what is written; `None`: as long as it likes.
    pub patience: Option<Duration>,
    /// How long the peer may send nothing in the middle of what is streamed; `None`: as long as it likes.
    pub stall: Option<Duration>,
    /// Bytes the next read asks for.
    appetite: usize,
}

impl<S> Conn<S> {
    /// Without any memory for buffers.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            patience: None,
            stall: None,
            appetite: READ_SMALL,
        }
    }

    /// Gives the memory of empty buffers back. Call it when no command is in flight.
    pub fn release(&mut self) {
        for buf in [&mut self.input, &mut self.output] {
            if buf.is_empty() && buf.capacity() > 0 {
                *buf = BytesMut::new();
            }
        }
        self.appetite = READ_SMALL;
    }
}

impl<S: AsyncRead + Unpin> Conn<S> {
    /// Reads once, waiting for something to come, and appends it to the input. 0: end of stream.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn read_more(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read_more(cx)).await
    }

    /// Polls one read into the input.
    pub(crate) fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < self.appetite / 4 {
            self.input.reserve(self.appetite);
        }
        let read = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        if self.input.len() == self.input.capacity() {
            // It may have been cut short by the room it had: a big answer flows.
            self.appetite = READ_LARGE;
        }
        read
    }

    /// Whether the peer has gone, looked at while nothing is asked of it. What it sends ahead is kept,
    /// up to a bound. Never ready while it is there and silent.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.input.len() < AHEAD_MAX {
            // On the stack, so that a silent peer costs no buffer.
            let mut space = [const { MaybeUninit::<u8>::uninit() }; 2048];
            let mut ahead = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut ahead) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Ready(Ok(())) if ahead.filled().is_empty() => {
                    return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
                }
                Poll::Ready(Ok(())) => self.input.extend_from_slice(ahead.filled()),
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> Conn<S> {
    /// Writes the output and flushes. Not cancel-safe: a stream left in the middle of it is of no use.
    ///
    /// # Errors
    /// What the stream says; [`io::ErrorKind::TimedOut`] after [`patience`](Self::patience).
    pub async fn send(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            write_all(&mut self.stream, &self.output, self.patience).await?;
            self.output.clear();
            within(self.patience, self.stream.flush()).await?;
        }
        Ok(())
    }

    /// Writes the output and then `tail`, in as few writes as the stream allows, and flushes.
    pub(crate) async fn send_with(&mut self, tail: &[u8]) -> io::Result<()> {
        const COPY_MAX: usize = 4 * 1024;
        let patience = self.patience;
        if self.output.is_empty() {
            write_all(&mut self.stream, tail, patience).await?;
        } else if tail.len() <= COPY_MAX || !self.stream.is_write_vectored() {
            self.output.extend_from_slice(tail);
            write_all(&mut self.stream, &self.output, patience).await?;
        } else {
            let mut tail = tail;
            while !self.output.is_empty() {
                let slices = [IoSlice::new(&self.output), IoSlice::new(tail)];
                let stream = &mut self.stream;
                let write = poll_fn(|cx| Pin::new(&mut *stream).poll_write_vectored(cx, &slices));
                let written = within(patience, write).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                let of_output = written.min(self.output.len());
                self.output.advance(of_output);
                tail = &tail[written - of_output..];
            }
            write_all(&mut self.stream, tail, patience).await?;
        }
        self.output.clear();
        within(patience, self.stream.flush()).await
    }
}

/// Writes all of it; every byte that is taken makes the wait begin anew.
async fn write_all<S: AsyncWrite + Unpin>(
    stream: &mut S,
    mut bytes: &[u8],
    patience: Option<Duration>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = within(patience, stream.write(bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Waits no longer than that. What need not wait costs no timer.
async fn within<T>(
    patience: Option<Duration>,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut work = pin!(work);
    let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    match (first, patience) {
        (Poll::Ready(done), _) => done,
        (Poll::Pending, None) => work.await,
        (Poll::Pending, Some(patience)) => tokio::time::timeout(patience, work)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn patience_ends_with_a_peer_that_takes_nothing_and_not_with_a_slow_one() {
        const PATIENCE: Duration = Duration::from_secs(10);
        let (near, mut far) = tokio::io::duplex(8);
        let mut conn = Conn::new(near);
        conn.patience = Some(PATIENCE);
        conn.output.extend_from_slice(&[7; 64]);
        let slow = tokio::spawn(async move {
            let mut some = [0; 8];
            for _ in 0..8 {
                sleep(PATIENCE * 9 / 10).await;
                far.read_exact(&mut some).await.unwrap();
            }
            far
        });
        conn.send().await.unwrap();
        let _far = slow.await.unwrap();
        for tail in [64, 10_000] {
            let began = Instant::now();
            conn.output.extend_from_slice(&[7; 64]);
            let error = conn.send_with(&vec![7; tail]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(began.elapsed(), PATIENCE);
        }
    }
}
