//! The words of [`super::ResponseTracker`]: framing, packets of an answer, and what is against the protocol.

use crate::protocol::reply::{EofPacket, ErrPacket, Malformed, OkPacket, PrepareOk};

/// The two capabilities that decide how an answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Framing {
    /// `CLIENT_DEPRECATE_EOF`: no EOF after definitions, OK with header 0xfe instead of the last one.
    pub deprecate_eof: bool,
    /// `CLIENT_SESSION_TRACK`: OK packets may carry tracking data.
    pub session_track: bool,
}

impl Framing {
    /// What Sidepool negotiates with a backend wherever it can.
    pub const MODERN: Self = Self {
        deprecate_eof: true,
        session_track: true,
    };
    /// What most drivers negotiate.
    pub const CLASSIC: Self = Self {
        deprecate_eof: false,
        session_track: false,
    };
}

/// What the sender did that the protocol does not allow. The connection cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A sequence id does not follow.
    #[error("packet out of order: expected sequence id {expected}, got {got}")]
    OutOfOrder {
        /// The id that had to come.
        expected: u8,
        /// The id that came.
        got: u8,
    },
    /// A packet that has no place here.
    #[error(
        "unexpected packet of {len} bytes beginning with {first:#04x} while waiting for {wanted}"
    )]
    Unexpected {
        /// Its first byte; 0 for an empty packet.
        first: u8,
        /// Payload bytes.
        len: usize,
        /// What could have come.
        wanted: &'static str,
    },
    /// A packet that does not parse.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A packet that must be seen whole is larger than allowed.
    #[error("packet of {len} bytes is larger than the {max} allowed here")]
    TooLarge {
        /// Payload bytes.
        len: usize,
        /// The bound.
        max: usize,
    },
}

/// What one packet of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Belongs to the packet before it, whose payload reached 16 MB.
    Continuation,
    /// A row of the result set.
    Row,
    /// A column definition; `last` when all announced ones are there.
    Column {
        /// Nothing but the end of the definitions or a row follows.
        last: bool,
    },
    /// Begins a result set of so many columns.
    ColumnCount(u64),
    /// Ends the column definitions (classic framing only).
    ColumnsEnd(EofPacket),
    /// OK of a statement without a result set.
    Ok(OkPacket<'a>),
    /// Ends a result set, a cursor's definitions or a field list; answers `COM_SET_OPTION`, `COM_DEBUG`.
    /// Under `DEPRECATE_EOF`.
    EndOk(OkPacket<'a>),
    /// The same in classic framing.
    EndEof(EofPacket),
    /// Ends the answer.
    Err(ErrPacket<'a>),
    /// ERR of sequence id 0 before anything else: sent before the command was read.
    Notice(ErrPacket<'a>),
    /// The client shall send a local file; go on with [`super::ResponseTracker::file_sent`].
    LocalInfile,
    /// Begins the answer to `COM_STMT_PREPARE`.
    PrepareOk(PrepareOk),
    /// A definition in that answer; `last` of its block.
    Definition {
        /// The block is complete.
        last: bool,
    },
    /// Ends a block of definitions in that answer (classic framing only).
    DefinitionsEnd(EofPacket),
    /// `COM_STATISTICS`' line.
    Text,
}

/// What the tracker makes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// It is this; the tracker has moved on.
    Packet(Packet<'a>),
    /// Its first payload byte is needed; nothing has changed.
    NeedFirstByte,
    /// All of its payload is needed; nothing has changed.
    NeedWhole,
}
