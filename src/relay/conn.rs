//! One side of the relay: a stream with its input and output buffers.
//!
//! Buffers hold memory only while a command is in flight: [`Conn::release`] gives it back, so that an
//! idle client or backend connection costs nothing but its socket.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

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
    /// What the stream says.
    pub async fn send(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            self.output.clear();
            self.stream.flush().await?;
        }
        Ok(())
    }

    /// Writes the output and then `tail`, in as few writes as the stream allows, and flushes.
    pub(crate) async fn send_with(&mut self, tail: &[u8]) -> io::Result<()> {
        const COPY_MAX: usize = 4 * 1024;
        if self.output.is_empty() {
            self.stream.write_all(tail).await?;
        } else if tail.len() <= COPY_MAX || !self.stream.is_write_vectored() {
            self.output.extend_from_slice(tail);
            self.stream.write_all(&self.output).await?;
        } else {
            let mut tail = tail;
            while !self.output.is_empty() {
                let slices = [IoSlice::new(&self.output), IoSlice::new(tail)];
                let stream = &mut self.stream;
                let written =
                    poll_fn(|cx| Pin::new(&mut *stream).poll_write_vectored(cx, &slices)).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                let of_output = written.min(self.output.len());
                self.output.advance(of_output);
                tail = &tail[written - of_output..];
            }
            self.stream.write_all(tail).await?;
        }
        self.output.clear();
        self.stream.flush().await
    }
}
