//! The other direction: a client's large command, or its local file, streamed to the backend.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::answer::ErrorInfo;
use super::conn::Conn;
use super::rechunk::Rechunk;
use crate::protocol::packet::{HEADER_LEN, Header, MAX_PAYLOAD};
use crate::protocol::reply::{EOF, ERR, ErrPacket, OK};
use crate::protocol::response::Violation;

/// Bytes a backend may send while it is being sent to.
const EARLY_MAX: usize = 64 * 1024;

/// What [`upload`] moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded {
    /// Sequence id of the answer's first packet to the client.
    pub next_seq: u8,
    /// Packets that the backend got beyond the client's.
    pub ahead: u8,
    /// Bytes of the command, headers included.
    pub bytes: u64,
}

/// Why a command was not uploaded to its end. The backend has got a part of it and is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The client went away, or sent nothing for as long as [`Conn::stall`] says.
    #[error("client went away within its command")]
    ClientGone(#[source] io::Error),
    /// The backend ended the connection.
    #[error("backend went away within the command")]
    BackendGone {
        /// An ERR of sequence id 0 that announced it.
        notice: Option<ErrorInfo>,
        /// What the socket said; `None` for an end of stream.
        #[source]
        cause: Option<io::Error>,
    },
    /// The server refused the command before it had all of it: it is too large. Both servers then close.
    /// The client may still be sending.
    #[error("backend refused the command: {error}")]
    Refused {
        /// What it said.
        error: ErrorInfo,
        /// Under which sequence id: it counts the packets that the server has read.
        seq: u8,
    },
    /// One of Sidepool's own commands failed. The client's was not sent whole and has not run.
    #[error("own command {index} failed: {error}")]
    ReplayFailed {
        /// Which one, counted from 0.
        index: u16,
        /// The server's error.
        error: ErrorInfo,
    },
    /// The backend does not speak the protocol.
    #[error("protocol violation: {0}")]
    Protocol(#[from] Violation),
}

/// Streams one command (one logical packet, of any size) from the front of the client's input, and from
/// its stream, to the backend. What is in `backend.output`, `own` commands of Sidepool's, is written in
/// front of it. Memory is bounded. While it goes on, the backend is listened to. `more` bytes have been put into the
/// first packet, which is in the client's input, beyond what its header says. `watch` sees each piece of the command,
/// packet headers and all, unless there are more.
///
/// Not cancel-safe: dropped half-way, both connections are of no more use.
///
/// # Errors
/// [`UploadError`].
pub async fn upload<C, B>(
    client: &mut Conn<C>,
    backend: &mut Conn<B>,
    own: u16,
    more: usize,
    watch: impl FnMut(&[u8]),
) -> Result<Uploaded, UploadError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut pump = Pump::command(more);
    let goes_on = |input: &[u8]| matches!(judge(input, own), Ok(Verdict::GoOn));
    let early = |input: &[u8]| !goes_on(input);
    let stop = match pump.run(client, backend, early, watch).await {
        Ok(()) => {
            return Ok(Uploaded {
                next_seq: pump.next_seq(),
                ahead: pump.ahead(),
                bytes: pump.bytes,
            });
        }
        Err(stop) => stop,
    };
    let mut cause = match stop {
        Stop::ClientGone(error) => return Err(UploadError::ClientGone(error)),
        Stop::BackendGone(cause) => cause,
        Stop::Early => None,
    };
    while let Verdict::Incomplete = judge(&backend.input, own)? {
        match backend.read_more().await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                cause = Some(error);
                break;
            }
        }
    }
    Err(UploadError::BackendGone {
        notice: None,
        cause,
    })
}

/// What to make of what the backend has said while it was being sent to.
enum Verdict {
    /// It has answered own commands with OK, if anything.
    GoOn,
    /// It has begun to say something else.
    Incomplete,
}

fn judge(input: &[u8], own: u16) -> Result<Verdict, UploadError> {
    let mut rest = input;
    for index in 0..=own {
        let Some(header) = Header::peek(rest) else {
            return Ok(match rest.len() {
                1.. if index == own => Verdict::Incomplete,
                _ => Verdict::GoOn,
            });
        };
        let first = rest.get(HEADER_LEN).copied();
        let is_ok = index < own && matches!(first, Some(OK | EOF) | None);
        let Some(payload) = rest.get(HEADER_LEN..HEADER_LEN + header.len) else {
            return Ok(match is_ok {
                true => Verdict::GoOn,
                false => Verdict::Incomplete,
            });
        };
        rest = &rest[HEADER_LEN + header.len..];
        if is_ok {
            continue;
        }
        if first != Some(ERR) || payload.is_empty() {
            return Err(UploadError::Protocol(Violation::Unexpected {
                first: first.unwrap_or_default(),
                len: header.len,
                wanted: "nothing: the command is not complete",
            }));
        }
        let error = ErrorInfo::new(&ErrPacket::parse(payload).map_err(Violation::from)?);
        return Err(match header.seq {
            0 => UploadError::BackendGone {
                notice: Some(error),
                cause: None,
            },
            _ if index < own => UploadError::ReplayFailed { index, error },
            seq => UploadError::Refused { error, seq },
        });
    }
    Ok(Verdict::GoOn)
}

/// Why a pump stopped before its end.
pub(super) enum Stop {
    ClientGone(io::Error),
    BackendGone(Option<io::Error>),
    /// What the backend said meanwhile ends it.
    Early,
}

/// What a pump moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// One logical packet.
    Command,
    /// Packets up to an empty one.
    File,
}

/// Moves whole packets from the client to the backend, as they come.
#[derive(Debug)]
pub(super) struct Pump {
    load: Load,
    /// Taken from the client's sequence ids.
    shift: u8,
    /// Bytes of the current packet still to come.
    passing: usize,
    /// Whether the next packet continues the one before it.
    continued: bool,
    /// Whether the current packet is the last.
    last: bool,
    /// Sequence id the other side uses next.
    next_seq: u8,
    bytes: u64,
    /// For a command that has grown; then nothing above but `bytes` counts.
    rechunk: Option<Rechunk>,
}

impl Pump {
    const fn command(more: usize) -> Self {
        let mut pump = Self::new(Load::Command, 0);
        if more > 0 {
            pump.rechunk = Some(Rechunk::new(more));
        }
        pump
    }

    /// A file for a backend whose sequence ids are `shift` behind the client's.
    pub(super) const fn file(shift: u8) -> Self {
        Self::new(Load::File, shift)
    }

    const fn new(load: Load, shift: u8) -> Self {
        Self {
            load,
            shift,
            passing: 0,
            continued: false,
            last: false,
            next_seq: 0,
            bytes: 0,
            rechunk: None,
        }
    }

    /// The backend's sequence id behind the last packet.
    pub(super) const fn next_seq(&self) -> u8 {
        match &self.rechunk {
            Some(rechunk) => rechunk.client_seq(),
            None => self.next_seq,
        }
    }

    fn ahead(&self) -> u8 {
        self.rechunk.as_ref().map_or(0, Rechunk::ahead)
    }

    fn is_over(&self) -> bool {
        match &self.rechunk {
            Some(rechunk) => rechunk.is_over(),
            None => self.last && self.passing == 0,
        }
    }

    /// Moves everything. `early` judges what the backend has sent meanwhile, `watch` sees what is moved.
    pub(super) async fn run<C, B>(
        &mut self,
        client: &mut Conn<C>,
        backend: &mut Conn<B>,
        early: impl Fn(&[u8]) -> bool,
        mut watch: impl FnMut(&[u8]),
    ) -> Result<(), Stop>
    where
        C: AsyncRead + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            // Own commands in front go out together with the first piece.
            self.take(&mut client.input, &mut backend.output, &mut watch);
            write_listening(backend, &early).await?;
            if self.is_over() {
                return Ok(());
            }
            let stall = client.stall;
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = client.poll_read_more(cx) {
                    return Poll::Ready(match read {
                        Ok(0) => Err(Stop::ClientGone(io::ErrorKind::UnexpectedEof.into())),
                        Ok(_) => Ok(()),
                        Err(error) => Err(Stop::ClientGone(error)),
                    });
                }
                listen(backend, cx, &early).map(Err)
            });
            match stall {
                None => read.await?,
                Some(stall) => timeout(stall, read)
                    .await
                    .unwrap_or_else(|_| Err(Stop::ClientGone(io::ErrorKind::TimedOut.into())))?,
            }
        }
    }

    fn take(&mut self, input: &mut BytesMut, output: &mut BytesMut, mut watch: impl FnMut(&[u8])) {
        let moved = match &mut self.rechunk {
            Some(rechunk) => rechunk.take(input, output),
            None => {
                let moved = self.scan(input);
                watch(&input[..moved]);
                output.extend_from_slice(&input[..moved]);
                input.advance(moved);
                moved
            }
        };
        self.bytes += moved as u64;
    }

    /// Bytes at the front of `input` that belong to the load; their sequence ids are made the backend's.
    fn scan(&mut self, input: &mut [u8]) -> usize {
        let mut at = self.passing.min(input.len());
        self.passing -= at;
        while self.passing == 0 && !self.last {
            let Some(header) = input.get(at..).and_then(Header::peek) else {
                break;
            };
            let seq = header.seq.wrapping_sub(self.shift);
            input[at + HEADER_LEN - 1] = seq;
            self.next_seq = seq.wrapping_add(1);
            self.last = match self.load {
                Load::Command => header.len < MAX_PAYLOAD,
                // An empty packet that completes one of 16 MB does not end the file.
                Load::File => header.len == 0 && !self.continued,
            };
            self.continued = header.len == MAX_PAYLOAD;
            at += HEADER_LEN;
            let have = header.len.min(input.len() - at);
            at += have;
            self.passing = header.len - have;
        }
        at
    }
}

/// Writes the backend's output, listening to it while it does not take any.
async fn write_listening<B>(
    backend: &mut Conn<B>,
    early: &impl Fn(&[u8]) -> bool,
) -> Result<(), Stop>
where
    B: AsyncRead + AsyncWrite + Unpin,
{
    while !backend.output.is_empty() {
        let written = poll_fn(|cx| {
            match Pin::new(&mut backend.stream).poll_write(cx, &backend.output) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => Poll::Ready(written),
                Poll::Pending => return listen(backend, cx, early).map(Err),
            }
            .map_err(|error| Stop::BackendGone(Some(error)))
        })
        .await;
        match written {
            Ok(written) => backend.output.advance(written),
            Err(stop) => return Err(last_words(backend, stop).await),
        }
    }
    if let Err(error) = backend.stream.flush().await {
        return Err(last_words(backend, Stop::BackendGone(Some(error))).await);
    }
    Ok(())
}

/// Looks at what the backend says. Ready when that ends the pump.
fn listen<B: AsyncRead + Unpin>(
    backend: &mut Conn<B>,
    cx: &mut Context<'_>,
    early: &impl Fn(&[u8]) -> bool,
) -> Poll<Stop> {
    while backend.input.len() < EARLY_MAX {
        match backend.poll_read_more(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => return Poll::Ready(Stop::BackendGone(None)),
            Poll::Ready(Err(error)) => return Poll::Ready(Stop::BackendGone(Some(error))),
            Poll::Ready(Ok(_)) if early(&backend.input) => return Poll::Ready(Stop::Early),
            Poll::Ready(Ok(_)) => {}
        }
    }
    Poll::Pending
}

/// A backend that takes no more bytes may have said why: takes what is there to be read.
async fn last_words<B: AsyncRead + Unpin>(backend: &mut Conn<B>, stop: Stop) -> Stop {
    poll_fn(|cx| {
        while backend.input.len() < EARLY_MAX
            && matches!(backend.poll_read_more(cx), Poll::Ready(Ok(1..)))
        {}
        Poll::Ready(())
    })
    .await;
    stop
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::packet::put_packet;

    #[test]
    fn an_empty_packet_that_completes_one_of_16_mb_does_not_end_a_file() {
        let mut sent = BytesMut::new();
        let seq = put_packet(&mut sent, 7, &vec![b'1'; MAX_PAYLOAD]);
        let seq = put_packet(&mut sent, seq, b"2\n");
        put_packet(&mut sent, seq, b"");
        let file_len = sent.len();
        put_packet(&mut sent, 0, b"\x0e");
        for chunk in [usize::MAX, 1 << 20, 5_000_011] {
            let mut pump = Pump::file(2);
            let (mut input, mut moved) = (BytesMut::new(), 0);
            for piece in sent.chunks(chunk) {
                input.extend_from_slice(piece);
                let len = pump.scan(&mut input);
                input.advance(len);
                moved += len;
            }
            assert_eq!(moved, file_len, "by {chunk}");
            assert_eq!(pump.next_seq(), 9);
            assert_eq!(&input[..], b"\x01\0\0\0\x0e");
        }
    }
}
