//! Packets across, both ways, in bounded memory: the hot path.
//!
//! [`relay`] moves one answer from a backend to a client, [`upload`] one large command the other way, and
//! [`own`] reads the answers to Sidepool's own statements. All work on [`Conn`]s, after login. Nothing here
//! knows of pools, sessions or metrics; what the session needs to know of an answer is in [`Answer`].

mod answer;
mod conn;
mod filter;
pub mod own;
mod pump;
mod rechunk;
mod translate;

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

pub use answer::{Answer, End, ErrorInfo, Trackers};
pub use conn::Conn;
pub use filter::{TrackedVariables, TrackerFilter, TrackerSelection, TransactionInfo};
use pump::{Pump, Stop};
pub use pump::{UploadError, Uploaded, upload};
use translate::{Flow, Translator};

use crate::protocol::command::ResponseShape;
use crate::protocol::packet::{HEADER_LEN, Header};
use crate::protocol::reply::{EOF, ERR, ErrPacket, Malformed, OK, StatusFlags};
use crate::protocol::response::{Framing, Violation};

/// Bytes for the client beyond which they are sent without looking whether more is there to join them.
const SEND_AT: usize = 8 * 1024;
/// Payload bytes of an own command's answer.
const OWN_MAX: usize = 1 << 20;

/// An answer to be relayed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What the client's command is answered with.
    pub shape: ResponseShape,
    /// Own commands written in front of the client's. Each must be answered with one OK, which is not
    /// forwarded and whose trackers are not looked at.
    pub own: u16,
    /// What the client negotiated.
    pub client: Framing,
    /// What was negotiated with the backend.
    pub backend: Framing,
    /// Which tracking data the client gets to see.
    pub filter: &'a TrackerFilter,
    /// Sequence id of the answer's first packet to the client: its last one plus 1.
    pub first_seq: u8,
    /// The session's status flags before the command.
    pub status: StatusFlags,
    /// The id under which the client gets to know the statement it prepares.
    pub statement: Option<u32>,
    /// Packets of the command that the backend got beyond the client's.
    pub ahead: u8,
}

/// Why an answer was not relayed to its end. The backend connection is of no more use in any case; whether
/// the client's is, each variant says.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The backend ended the connection before the first byte of the client's answer. The client has got
    /// nothing. The command may have run, except with a notice of 4031, 1053 or 1927, which was sent before
    /// the command was read.
    #[error("backend went away before answering")]
    BackendGone {
        /// An ERR of sequence id 0 that announced it.
        notice: Option<ErrorInfo>,
        /// What the socket said; `None` for an end of stream.
        #[source]
        cause: Option<io::Error>,
    },
    /// The backend ended the connection within the answer.
    #[error("backend went away within its answer")]
    BackendLost {
        /// Whether the client has got a part of the answer.
        forwarded: bool,
        /// What the socket said; `None` for an end of stream.
        #[source]
        cause: Option<io::Error>,
    },
    /// The client went away; the backend may still be busy with its command.
    #[error("client went away within its command")]
    ClientGone(#[source] io::Error),
    /// One of Sidepool's own commands failed. The client has got nothing; its command may have run in the
    /// wrong state.
    #[error("own command {index} failed: {error}")]
    ReplayFailed {
        /// Which one, counted from 0.
        index: u16,
        /// The server's error.
        error: ErrorInfo,
    },
    /// The backend does not speak the protocol.
    #[error("protocol violation: {violation}")]
    Protocol {
        /// What it did.
        violation: Violation,
        /// Whether the client has got a part of the answer.
        forwarded: bool,
    },
}

/// Moves the answer to a command that has been written to `backend` on to `client`, and waits until the
/// client's socket has taken all of it. While waiting for the backend the client is watched: what it sends
/// ahead is kept in its input, its end is an error.
///
/// Both connections' buffers are given back when nothing is left in them. After an error the client's output
/// is empty, so that it can be told; if nothing was forwarded, in a packet of `first_seq`. Memory is bounded, whatever the
/// size of the answer: a slow client slows the backend down.
///
/// Not cancel-safe: dropped half-way, both connections are of no more use.
///
/// # Errors
/// [`RelayError`].
pub async fn relay<C, B>(
    client: &mut Conn<C>,
    backend: &mut Conn<B>,
    request: Request<'_>,
) -> Result<Answer, RelayError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    skip_own(client, backend, request.own).await?;
    let mut transfer = Transfer {
        client,
        backend,
        translator: Translator::new(&request),
        forwarded: false,
    };
    let result = transfer.run().await;
    let answer = transfer.translator.answer;
    match result {
        Ok(()) => backend.release(),
        // What had gathered for the client must not stand in front of what the caller tells it.
        Err(_) => client.output.clear(),
    }
    client.release();
    result.map(|()| answer)
}

/// One answer on its way.
struct Transfer<'t, 'f, C, B> {
    client: &'t mut Conn<C>,
    backend: &'t mut Conn<B>,
    translator: Translator<'f>,
    forwarded: bool,
}

impl<C, B> Transfer<'_, '_, C, B>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    async fn run(&mut self) -> Result<(), RelayError> {
        if !self.translator.is_over() {
            // There is nothing to translate before something has come.
            if self.backend.input.is_empty() {
                self.wait().await?;
            }
            self.translator.answer.begun = Some(Instant::now());
        }
        loop {
            match self.step().await? {
                Flow::Over => return Ok(()),
                Flow::Notice(notice) => {
                    return Err(RelayError::BackendGone {
                        notice: Some(notice),
                        cause: None,
                    });
                }
                Flow::File => Box::pin(self.file()).await?,
                Flow::More => self.wait().await?,
            }
        }
    }

    /// Translates what is there, and sends it when the answer is over or much has gathered.
    async fn step(&mut self) -> Result<Flow, RelayError> {
        if self.client.output.capacity() == 0 {
            // Once for a small answer and the EOF packets put into it.
            let piece = self.backend.input.len().min(SEND_AT);
            self.client.output.reserve(piece + 64);
        }
        let fed = self
            .translator
            .feed(&mut self.backend.input, &mut self.client.output)
            .map_err(|violation| RelayError::Protocol {
                violation,
                forwarded: self.forwarded,
            })?;
        self.translator.answer.bytes += fed.consumed as u64;
        let tail = &self.backend.input[fed.tail];
        if fed.flow == Flow::More && self.client.output.len() + tail.len() < SEND_AT {
            self.client.output.extend_from_slice(tail);
        } else {
            self.client
                .send_with(tail)
                .await
                .map_err(RelayError::ClientGone)?;
            self.translator.sent();
            self.forwarded = true;
        }
        self.backend.input.advance(fed.consumed);
        Ok(fed.flow)
    }

    /// Reads more from the backend. What has gathered for the client is sent as soon as there is nothing
    /// to read right now.
    async fn wait(&mut self) -> Result<(), RelayError> {
        loop {
            let may_send = !self.client.output.is_empty() && !self.translator.would_rather_wait();
            match wait_backend(self.client, self.backend, may_send).await {
                Woken::Read => return Ok(()),
                Woken::NothingToRead => {
                    self.client.send().await.map_err(RelayError::ClientGone)?;
                    self.translator.sent();
                    self.forwarded = true;
                }
                Woken::ClientGone(error) => return Err(RelayError::ClientGone(error)),
                Woken::BackendGone(cause) => {
                    let begun = self.translator.answer.bytes > 0 || !self.backend.input.is_empty();
                    return Err(if begun {
                        RelayError::BackendLost {
                            forwarded: self.forwarded,
                            cause,
                        }
                    } else {
                        RelayError::BackendGone {
                            notice: None,
                            cause,
                        }
                    });
                }
            }
        }
    }

    /// Passes the client's local file on.
    async fn file(&mut self) -> Result<(), RelayError> {
        let mut pump = Pump::file(self.translator.shift());
        pump.run(self.client, self.backend, |_| false, |_| ())
            .await
            .map_err(|stop| match stop {
                Stop::ClientGone(error) => RelayError::ClientGone(error),
                Stop::BackendGone(cause) => RelayError::BackendLost {
                    forwarded: true,
                    cause,
                },
                Stop::Early => RelayError::BackendLost {
                    forwarded: true,
                    cause: None,
                },
            })?;
        self.translator.file_sent(pump.next_seq());
        Ok(())
    }
}

/// Why waiting for the backend ended.
enum Woken {
    /// Something was read.
    Read,
    /// There is nothing to read right now.
    NothingToRead,
    ClientGone(io::Error),
    BackendGone(Option<io::Error>),
}

/// Waits for bytes from the backend, watching the client meanwhile; if `or_nothing`, does not wait.
/// The client is only looked at when there is nothing to read, and its read costs no system call unless
/// the runtime knows that something has come.
async fn wait_backend<C, B>(client: &mut Conn<C>, backend: &mut Conn<B>, or_nothing: bool) -> Woken
where
    C: AsyncRead + Unpin,
    B: AsyncRead + Unpin,
{
    poll_fn(|cx| match backend.poll_read_more(cx) {
        Poll::Ready(Ok(0)) => Poll::Ready(Woken::BackendGone(None)),
        Poll::Ready(Ok(_)) => Poll::Ready(Woken::Read),
        Poll::Ready(Err(error)) => Poll::Ready(Woken::BackendGone(Some(error))),
        Poll::Pending if or_nothing => Poll::Ready(Woken::NothingToRead),
        Poll::Pending => client.poll_gone(cx).map(Woken::ClientGone),
    })
    .await
}

/// Reads the answers to Sidepool's own commands in front of the client's.
async fn skip_own<C, B>(
    client: &mut Conn<C>,
    backend: &mut Conn<B>,
    own: u16,
) -> Result<(), RelayError>
where
    C: AsyncRead + Unpin,
    B: AsyncRead + Unpin,
{
    for index in 0..own {
        let len = loop {
            if let Some(len) = own_ok(&backend.input, index)? {
                break len;
            }
            match wait_backend(client, backend, false).await {
                Woken::Read | Woken::NothingToRead => {}
                Woken::ClientGone(error) => return Err(RelayError::ClientGone(error)),
                Woken::BackendGone(cause) => {
                    return Err(RelayError::BackendGone {
                        notice: None,
                        cause,
                    });
                }
            }
        };
        backend.input.advance(len);
    }
    Ok(())
}

/// Length of the packet in front of `input` if it is a whole OK; `None` when it is not all there.
fn own_ok(input: &[u8], index: u16) -> Result<Option<usize>, RelayError> {
    let violation = |violation| RelayError::Protocol {
        violation,
        forwarded: false,
    };
    let Some(header) = Header::peek(input) else {
        return Ok(None);
    };
    if header.len > OWN_MAX {
        return Err(violation(Violation::TooLarge {
            len: header.len,
            max: OWN_MAX,
        }));
    }
    let end = HEADER_LEN + header.len;
    let Some(payload) = input.get(HEADER_LEN..end) else {
        return Ok(None);
    };
    match (payload.first(), header.seq) {
        (Some(&(OK | EOF)), 1) => Ok(Some(end)),
        (Some(&ERR), seq) => {
            let error = ErrPacket::parse(payload).map_err(|e| violation(e.into()))?;
            let error = ErrorInfo::new(&error);
            Err(match seq {
                0 => RelayError::BackendGone {
                    notice: Some(error),
                    cause: None,
                },
                _ => RelayError::ReplayFailed { index, error },
            })
        }
        (Some(&first), 1) => Err(violation(Violation::Unexpected {
            first,
            len: header.len,
            wanted: "OK of an own command",
        })),
        (None, 1) => Err(violation(Malformed::Ok.into())),
        (_, got) => Err(violation(Violation::OutOfOrder { expected: 1, got })),
    }
}

#[cfg(test)]
mod tests;
