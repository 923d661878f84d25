//! Packets of the connection phase: one at a time, in turn, small.
//!
//! Reads exactly one packet and never a byte beyond it, so that nothing which a client sent in clear can be
//! taken for something it sent under TLS, and nothing of its first command is lost.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use crate::protocol::handshake::{ServerError, SqlState};
use crate::protocol::packet::{HEADER_LEN, put_packet};

/// The longest packet of a client that is not logged in, bytes: 64 KiB of attributes, which is what clients
/// limit themselves to, and room for the names.
pub(super) const MAX_PACKET: usize = 96 * 1024;

/// A stream in the connection phase, and whose turn it is.
#[derive(Debug)]
pub(super) struct Wire<S> {
    pub(super) stream: S,
    /// Bytes that were read before this phase began; empty in a login.
    pub(super) early: BytesMut,
    /// Sequence id of the next packet, whoever sends it.
    pub(super) seq: u8,
    /// When waiting for the client ends.
    pub(super) deadline: Instant,
}

/// Why no packet came or went.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The client ended the connection.
    #[error("the client closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
    /// The deadline passed.
    #[error("the client took too long")]
    Timeout,
    /// A sequence id out of turn; also what most other protocols look like.
    #[error("packet out of order: expected sequence id {expected}, got {got}")]
    OutOfOrder {
        /// The id that had to come.
        expected: u8,
        /// The id that came.
        got: u8,
    },
    /// Longer than [`MAX_PACKET`].
    #[error("packet of {0} bytes before the login")]
    TooLarge(usize),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, seq: u8, deadline: Instant) -> Self {
        Self {
            stream,
            early: BytesMut::new(),
            seq,
            deadline,
        }
    }

    /// Reads the client's next packet. Not cancel-safe.
    pub(super) async fn read(&mut self) -> Result<BytesMut, WireError> {
        let mut header = [0; HEADER_LEN];
        self.fill(&mut header).await?;
        let [a, b, c, got] = header;
        let len = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
        if got != self.seq {
            let expected = self.seq;
            return Err(WireError::OutOfOrder { expected, got });
        }
        // Counted before it is refused: the answer is the packet behind it.
        self.seq = self.seq.wrapping_add(1);
        if len > MAX_PACKET {
            return Err(WireError::TooLarge(len));
        }
        let mut payload = BytesMut::zeroed(len);
        self.fill(&mut payload).await?;
        Ok(payload)
    }

    /// Sends one packet and flushes.
    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<(), WireError> {
        let mut out = BytesMut::with_capacity(HEADER_LEN + payload.len());
        self.put(&mut out, payload);
        self.send_raw(&out).await
    }

    /// Appends one packet to `out`, to be sent with others.
    pub(super) fn put(&mut self, out: &mut BytesMut, payload: &[u8]) {
        self.seq = put_packet(out, self.seq, payload);
    }

    /// Sends packets that were [`put`](Self::put).
    pub(super) async fn send_raw(&mut self, packets: &[u8]) -> Result<(), WireError> {
        let work = async {
            self.stream.write_all(packets).await?;
            // Under TLS bytes may wait for more.
            self.stream.flush().await
        };
        Ok(timeout_at(self.deadline, work).await??)
    }

    async fn fill(&mut self, into: &mut [u8]) -> Result<(), WireError> {
        let early = self.early.len().min(into.len());
        self.early.copy_to_slice(&mut into[..early]);
        let rest = self.stream.read_exact(&mut into[early..]);
        timeout_at(self.deadline, rest).await??;
        Ok(())
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl From<Elapsed> for WireError {
    fn from(_: Elapsed) -> Self {
        Self::Timeout
    }
}

impl WireError {
    /// What servers say to it, captured (1159 from MySQL, MariaDB resets the connection).
    pub(super) fn answer(&self) -> Option<ServerError> {
        match self {
            Self::Closed | Self::Io(_) => None,
            Self::Timeout => Some(error(
                1159,
                b"08S01",
                "Got timeout reading communication packets",
            )),
            Self::OutOfOrder { .. } => Some(error(1156, b"08S01", "Got packets out of order")),
            Self::TooLarge(_) => Some(error(
                1153,
                b"08S01",
                "Got a packet bigger than 'max_allowed_packet' bytes",
            )),
        }
    }
}

/// An error packet's content.
pub(super) fn error(code: u16, sqlstate: &[u8; 5], message: impl Into<String>) -> ServerError {
    ServerError {
        code,
        sqlstate: SqlState(*sqlstate),
        message: Bytes::from(message.into()),
    }
}

/// An ERR packet's payload, with SQLSTATE: as servers send it once a login was read.
pub(super) fn err_payload(error: &ServerError) -> BytesMut {
    let mut out = BytesMut::with_capacity(9 + error.message.len());
    out.extend_from_slice(&[0xff]);
    out.extend_from_slice(&error.code.to_le_bytes());
    out.extend_from_slice(b"#");
    out.extend_from_slice(&error.sqlstate.0);
    out.extend_from_slice(&error.message);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + std::time::Duration::from_secs(10)
    }

    #[tokio::test]
    async fn reads_one_packet_and_nothing_behind_it() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut wire = Wire::new(near, 4, soon());
        wire.early.extend_from_slice(b"\x03\0\0\x04xy");
        far.write_all(b"zREST").await.unwrap();
        assert_eq!(&wire.read().await.unwrap()[..], b"xyz");
        assert_eq!(wire.seq, 5);
        let mut rest = [0; 4];
        wire.stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"REST");
    }

    #[tokio::test]
    async fn refuses_by_the_header_alone() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut wire = Wire::new(near, 1, soon());
        far.write_all(b"GET \x01\x80\x01\x01").await.unwrap();
        let refused = wire.read().await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "packet out of order: expected sequence id 1, got 32"
        );
        assert_eq!(refused.answer().unwrap().code, 1156);
        let refused = wire.read().await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "packet of 98305 bytes before the login"
        );
        assert_eq!(refused.answer().unwrap().code, 1153);
        drop(far);
        assert!(wire.read().await.unwrap_err().answer().is_none());
    }

    #[test]
    fn err_packets() {
        let error = error(1043, b"08S01", "Bad handshake");
        assert_eq!(&err_payload(&error)[..], b"\xff\x13\x04#08S01Bad handshake");
    }
}
