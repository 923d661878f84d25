//! Answers to Sidepool's own statements, read whole: replays, read-backs, re-prepares.
//!
//! Several commands may have been written at once; their answers are read one after the other, by as many
//! calls. After [`OwnError::Server`] the connection is in step and the next answer can be read.

use std::io;

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::answer::{Answer, End, ErrorInfo};
use super::conn::Conn;
use crate::protocol::command::ResponseShape;
use crate::protocol::packet::{Header, MAX_PAYLOAD, TakeError, take_lenenc_str, take_packet};
use crate::protocol::reply::{Malformed, PrepareOk};
use crate::protocol::response::{Framing, Packet, ResponseTracker, Step, Violation};

/// Why the answer to an own statement is not there.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The server refused the statement; the connection is in step.
    #[error("{0}")]
    Server(ErrorInfo),
    /// The server said goodbye before it read the statement (ERR of sequence id 0).
    #[error("backend is leaving: {0}")]
    Notice(ErrorInfo),
    /// The connection ended; `None` for an end of stream.
    #[error("backend went away")]
    Gone(#[source] Option<io::Error>),
    /// The backend does not speak the protocol, or the answer is not of the kind expected or too large.
    #[error("protocol violation: {0}")]
    Protocol(#[from] Violation),
}

impl From<Malformed> for OwnError {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.into())
    }
}

/// A column of an own result set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnColumn {
    /// Its name.
    pub name: Bytes,
    /// Collation id; 63 for binary and numbers.
    pub collation: u16,
    /// Type byte.
    pub kind: u8,
    /// Column flags.
    pub flags: u16,
}

/// A text result set, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnResultSet {
    /// Its columns; none when the statement returned OK.
    pub columns: Vec<OwnColumn>,
    /// Its rows; `None` is NULL.
    pub rows: Vec<Vec<Option<Bytes>>>,
    /// Status flags, warnings and trackers of its end.
    pub answer: Answer,
}

/// Reads the answer to one own command that returns OK: its status, and its trackers, which are the
/// backend's and no session's.
///
/// Not cancel-safe.
///
/// # Errors
/// [`OwnError`].
pub async fn read_own_ok<B: AsyncRead + Unpin>(
    backend: &mut Conn<B>,
    framing: Framing,
) -> Result<Answer, OwnError> {
    let mut reader = Reader::new(backend, ResponseShape::Single, framing, MAX_PAYLOAD - 1);
    while reader.next(|_, _| Ok(())).await? {}
    Ok(reader.answer)
}

/// Reads the answer to one own `COM_QUERY`, of at most `max` bytes.
///
/// Not cancel-safe.
///
/// # Errors
/// [`OwnError`].
pub async fn read_own_result_set<B: AsyncRead + Unpin>(
    backend: &mut Conn<B>,
    framing: Framing,
    max: usize,
) -> Result<OwnResultSet, OwnError> {
    let mut reader = Reader::new(backend, ResponseShape::Query, framing, max);
    let mut set = OwnResultSet::default();
    let mut take = |packet: Seen, payload: Bytes| {
        match packet {
            Seen::Column => set.columns.push(column(&payload)?),
            Seen::Row => set.rows.push(row(&payload, set.columns.len())?),
        }
        Ok(())
    };
    while reader.next(&mut take).await? {}
    set.answer = reader.answer;
    Ok(set)
}

/// Reads the answer to one own `COM_STMT_PREPARE`; definitions are dropped.
///
/// Not cancel-safe.
///
/// # Errors
/// [`OwnError`].
pub async fn read_own_prepared<B: AsyncRead + Unpin>(
    backend: &mut Conn<B>,
    framing: Framing,
) -> Result<PrepareOk, OwnError> {
    let mut reader = Reader::new(backend, ResponseShape::Prepare, framing, MAX_PAYLOAD - 1);
    while reader.next(|_, _| Ok(())).await? {}
    match reader.answer.end {
        End::Prepared(ok) => Ok(ok),
        _ => Err(Malformed::PrepareOk.into()),
    }
}

/// What the caller of [`Reader::next`] gets to see.
#[derive(Debug, Clone, Copy)]
enum Seen {
    Column,
    Row,
}

struct Reader<'b, B> {
    backend: &'b mut Conn<B>,
    tracker: ResponseTracker,
    answer: Answer,
    /// Payload bytes that may still come.
    left: usize,
}

impl<'b, B: AsyncRead + Unpin> Reader<'b, B> {
    fn new(backend: &'b mut Conn<B>, shape: ResponseShape, framing: Framing, max: usize) -> Self {
        Self {
            backend,
            tracker: ResponseTracker::new(shape, framing, 1),
            answer: Answer::default(),
            left: max,
        }
    }

    /// Reads one packet; `false` when it was the last.
    async fn next(
        &mut self,
        mut take: impl FnMut(Seen, Bytes) -> Result<(), Malformed>,
    ) -> Result<bool, OwnError> {
        let (header, payload) = self.packet().await?;
        self.left -= header.len;
        self.answer.bytes += header.len as u64;
        let packet = match self.tracker.next(header, &payload)? {
            Step::Packet(packet) => packet,
            Step::NeedFirstByte | Step::NeedWhole => return Err(Malformed::Ok.into()),
        };
        match packet {
            Packet::Ok(ok) => self.answer.note_ok(&ok, End::Ok)?,
            Packet::EndOk(ok) => self.answer.note_ok(&ok, End::Rows)?,
            Packet::EndEof(eof) => self.answer.note_eof(eof),
            Packet::PrepareOk(ok) => self.answer.end = End::Prepared(ok),
            Packet::Notice(error) => return Err(OwnError::Notice(ErrorInfo::new(&error))),
            Packet::Err(error) => {
                let error = ErrorInfo::new(&error);
                self.backend.release();
                return Err(OwnError::Server(error));
            }
            Packet::Column { .. } => take(Seen::Column, payload)?,
            Packet::Row => {
                self.answer.rows += 1;
                take(Seen::Row, payload)?;
            }
            _ => {}
        }
        if self.tracker.awaits_file() {
            return Err(OwnError::Protocol(Violation::Unexpected {
                first: 0xfb,
                len: header.len,
                wanted: "an answer that needs no file",
            }));
        }
        if self.tracker.is_over() {
            self.backend.release();
            return Ok(false);
        }
        Ok(true)
    }

    /// Reads one packet whole.
    async fn packet(&mut self) -> Result<(Header, Bytes), OwnError> {
        let max = self.left.min(MAX_PAYLOAD - 1);
        loop {
            match take_packet(&mut self.backend.input, max) {
                Ok(Some(packet)) => {
                    let header = Header {
                        len: packet.payload.len(),
                        seq: packet.first_seq,
                    };
                    return Ok((header, packet.payload.freeze()));
                }
                Ok(None) => {}
                Err(TakeError::TooLarge { len, max }) => {
                    return Err(Violation::TooLarge { len, max }.into());
                }
                Err(TakeError::OutOfOrder { expected, got }) => {
                    return Err(Violation::OutOfOrder { expected, got }.into());
                }
            }
            match self.backend.read_more().await {
                Ok(0) => return Err(OwnError::Gone(None)),
                Ok(_) => {}
                Err(error) => return Err(OwnError::Gone(Some(error))),
            }
        }
    }
}

/// Reads a column definition. Its fixed part is found from the end, because MariaDB's extended metadata
/// stands in front of it where that was negotiated.
fn column(payload: &Bytes) -> Result<OwnColumn, Malformed> {
    let mut rest = &payload[..];
    for _ in 0..4 {
        take_lenenc_str(&mut rest).ok_or(Malformed::Column)?;
    }
    let name = take_lenenc_str(&mut rest).ok_or(Malformed::Column)?;
    match *rest.last_chunk().ok_or(Malformed::Column)? {
        [0x0c, c0, c1, _, _, _, _, kind, f0, f1, _, _, _] => Ok(OwnColumn {
            name: payload.slice_ref(name),
            collation: u16::from_le_bytes([c0, c1]),
            kind,
            flags: u16::from_le_bytes([f0, f1]),
        }),
        _ => Err(Malformed::Column),
    }
}

fn row(payload: &Bytes, columns: usize) -> Result<Vec<Option<Bytes>>, Malformed> {
    let mut rest = &payload[..];
    let mut values = Vec::with_capacity(columns);
    for _ in 0..columns {
        values.push(match rest {
            [0xfb, behind @ ..] => {
                rest = behind;
                None
            }
            _ => {
                let value = take_lenenc_str(&mut rest).ok_or(Malformed::Row)?;
                Some(payload.slice_ref(value))
            }
        });
    }
    if rest.is_empty() {
        Ok(values)
    } else {
        Err(Malformed::Row)
    }
}
