//! What may come next in an answer, and whether it is over: the one state machine of the data path.
//!
//! It is fed each packet's header with as much of its payload as is there, and says what the packet is.
//! It does no I/O, keeps no bytes and knows only the framing of the sender.
//!
//! Source: MySQL Internals "Command Phase", and what MariaDB 10.11 and MySQL 9.7 sent (captures in the tests
//! of `relay`).

mod kinds;

pub use kinds::{Framing, Packet, Step, Violation};

use super::command::ResponseShape;
use super::packet::{Header, MAX_PAYLOAD, take_lenenc_int};
use super::reply::{
    EOF, ERR, EofPacket, ErrPacket, LOCAL_INFILE, Malformed, OK, OkPacket, PrepareOk, StatusFlags,
};

/// The flags of the EOF in front of a procedure's OUT parameters.
const OUT_PARAMS: u16 = StatusFlags::PS_OUT_PARAMS | StatusFlags::MORE_RESULTS;

/// More columns than any server sends; MariaDB 10.11.19 answers a query of 68,001 of them.
const MAX_COLUMNS: u64 = u32::MAX as u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first packet of the answer.
    First,
    /// The first packet of a further result.
    Next,
    Columns {
        left: u64,
    },
    ColumnsEnd,
    Rows,
    FieldList,
    Params {
        left: u16,
        columns: u16,
    },
    ParamsEnd {
        columns: u16,
    },
    PreparedColumns {
        left: u16,
    },
    PreparedColumnsEnd,
    File,
    Over,
}

/// Follows one answer, packet by packet.
#[derive(Debug, Clone)]
pub struct ResponseTracker {
    state: State,
    shape: ResponseShape,
    framing: Framing,
    seq: u8,
    continued: bool,
    set: ResultSet,
}

/// What is special about the current result set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResultSet {
    Plain,
    /// A procedure's OUT parameters in classic framing. MySQL sets MORE_RESULTS only in the EOF in front
    /// of the row, not in the one behind it, and sends another OK all the same.
    OutParams,
}

impl ResponseTracker {
    /// For an answer of this shape from a sender of this framing, whose first packet has sequence id
    /// `first_seq`. Shapes without an answer of one's own (`None`, `Login`, `Refused`) are over at once.
    pub const fn new(shape: ResponseShape, framing: Framing, first_seq: u8) -> Self {
        let state = match shape {
            ResponseShape::None | ResponseShape::Login | ResponseShape::Refused => State::Over,
            _ => State::First,
        };
        Self {
            state,
            shape,
            framing,
            seq: first_seq,
            continued: false,
            set: ResultSet::Plain,
        }
    }

    /// Whether the whole answer has been seen.
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over) && !self.continued
    }

    /// Whether the client's file has to be sent before the answer goes on.
    pub const fn awaits_file(&self) -> bool {
        matches!(self.state, State::File)
    }

    /// The sequence id that has to come next.
    pub const fn next_seq(&self) -> u8 {
        self.seq
    }

    /// The client's file has been sent; the answer goes on with this sequence id.
    pub const fn file_sent(&mut self, next_seq: u8) {
        self.state = State::Next;
        self.seq = next_seq;
    }

    /// Takes the next packet. `payload` is as much of it as is there, at most `header.len` bytes.
    ///
    /// # Errors
    /// [`Violation`]; the sender's connection is then of no more use.
    #[inline]
    pub fn next<'a>(&mut self, header: Header, payload: &'a [u8]) -> Result<Step<'a>, Violation> {
        if matches!(self.state, State::Rows) && header.seq == self.seq && !self.continued {
            // The hot path: a row that is neither an end nor an error.
            match payload.first() {
                Some(&(EOF | ERR)) => {}
                Some(_) => {
                    self.advance(header);
                    return Ok(Step::Packet(Packet::Row));
                }
                None if header.len > 0 => return Ok(Step::NeedFirstByte),
                None => {}
            }
        }
        self.next_cold(header, payload)
    }

    fn next_cold<'a>(&mut self, header: Header, payload: &'a [u8]) -> Result<Step<'a>, Violation> {
        if header.seq != self.seq && !(header.seq == 0 && self.is_fresh()) {
            return Err(Violation::OutOfOrder {
                expected: self.seq,
                got: header.seq,
            });
        }
        if self.continued {
            self.advance(header);
            return Ok(Step::Packet(Packet::Continuation));
        }
        let first = match payload.first() {
            Some(&first) => first,
            None if header.len > 0 => return Ok(Step::NeedFirstByte),
            None => 0,
        };
        let whole = payload.len() >= header.len;
        if first == ERR && header.len > 0 {
            return self.err(header, payload, whole);
        }
        if header.seq != self.seq {
            return Err(Violation::OutOfOrder {
                expected: self.seq,
                got: header.seq,
            });
        }
        if self.needs_whole(first, header.len) && !whole {
            return Ok(Step::NeedWhole);
        }
        let packet = self.classify(first, header.len, payload)?;
        self.advance(header);
        Ok(Step::Packet(packet))
    }

    /// Whether no packet of the answer has been seen.
    const fn is_fresh(&self) -> bool {
        matches!(self.state, State::First)
    }

    const fn advance(&mut self, header: Header) {
        self.seq = header.seq.wrapping_add(1);
        self.continued = header.len == MAX_PAYLOAD;
    }

    fn err<'a>(
        &mut self,
        header: Header,
        payload: &'a [u8],
        whole: bool,
    ) -> Result<Step<'a>, Violation> {
        if matches!(self.state, State::Over | State::File) {
            return Err(self.unexpected(ERR, header.len));
        }
        if !whole {
            return Ok(Step::NeedWhole);
        }
        let err = ErrPacket::parse(payload)?;
        let packet = if header.seq == self.seq {
            Packet::Err(err)
        } else {
            Packet::Notice(err)
        };
        self.state = State::Over;
        self.advance(header);
        Ok(Step::Packet(packet))
    }

    /// Whether a packet is looked into, as opposed to passed on. Rows and definitions are passed on,
    /// except the last definition of a block in a PREPARE answer, behind which something may be put.
    fn needs_whole(&self, first: u8, len: usize) -> bool {
        match self.state {
            State::Columns { .. } => false,
            State::Rows => self.is_end(first, len),
            State::FieldList => first == EOF,
            State::Params { left, .. } | State::PreparedColumns { left } => left == 1,
            State::First => match self.shape {
                ResponseShape::Text => false,
                ResponseShape::Fetch => self.is_end(first, len),
                ResponseShape::FieldList => first == EOF,
                _ => true,
            },
            _ => true,
        }
    }

    /// Whether a packet among rows ends them. A row may begin with 0xfe too: its first column is then
    /// of 16 MB or more, so that under `DEPRECATE_EOF` its packet is full, and in classic framing it is
    /// longer than any EOF.
    const fn is_end(&self, first: u8, len: usize) -> bool {
        first == EOF
            && if self.framing.deprecate_eof {
                len < MAX_PAYLOAD
            } else {
                len < 9
            }
    }

    fn classify<'a>(
        &mut self,
        first: u8,
        len: usize,
        payload: &'a [u8],
    ) -> Result<Packet<'a>, Violation> {
        match self.state {
            State::First | State::Next => self.begin(first, len, payload),
            State::Columns { left } if first != EOF && len > 0 => {
                let last = left == 1;
                self.state = match left {
                    1 if self.framing.deprecate_eof => State::Rows,
                    1 => State::ColumnsEnd,
                    _ => State::Columns { left: left - 1 },
                };
                Ok(Packet::Column { last })
            }
            State::ColumnsEnd if first == EOF && len < 9 => self.columns_end(payload),
            State::Rows if self.is_end(first, len) => self.end(payload),
            State::Rows if len > 0 => Ok(Packet::Row),
            State::FieldList if first == EOF => self.end(payload),
            State::FieldList if len > 0 => Ok(Packet::Column { last: false }),
            State::Params { .. } | State::PreparedColumns { .. } if first != EOF && len > 0 => {
                Ok(self.definition())
            }
            State::ParamsEnd { columns } if first == EOF => {
                self.state = Self::prepared_columns(columns);
                Ok(Packet::DefinitionsEnd(EofPacket::parse(payload)?))
            }
            State::PreparedColumnsEnd if first == EOF => {
                self.state = State::Over;
                Ok(Packet::DefinitionsEnd(EofPacket::parse(payload)?))
            }
            _ => Err(self.unexpected(first, len)),
        }
    }

    /// The first packet of a result.
    fn begin<'a>(
        &mut self,
        first: u8,
        len: usize,
        payload: &'a [u8],
    ) -> Result<Packet<'a>, Violation> {
        let unexpected = self.unexpected(first, len);
        match self.shape {
            ResponseShape::Text => {
                self.state = State::Over;
                Ok(Packet::Text)
            }
            ResponseShape::Fetch => {
                self.state = State::Rows;
                self.classify(first, len, payload)
            }
            ResponseShape::FieldList => {
                self.state = State::FieldList;
                self.classify(first, len, payload)
            }
            ResponseShape::Prepare if first == OK => self.prepare_ok(payload),
            ResponseShape::Single if first == EOF => self.end(payload),
            ResponseShape::Single | ResponseShape::Query | ResponseShape::Execute
                if first == OK && len > 0 =>
            {
                let ok = OkPacket::parse(payload, self.framing.session_track)?;
                self.result_over(ok.status.more_results());
                Ok(Packet::Ok(ok))
            }
            ResponseShape::Query | ResponseShape::Execute if first == LOCAL_INFILE => {
                self.state = State::File;
                Ok(Packet::LocalInfile)
            }
            ResponseShape::Query | ResponseShape::Execute if len > 0 => {
                let mut rest = payload;
                let columns = take_lenenc_int(&mut rest).ok_or(Malformed::ColumnCount)?;
                if columns == 0 || columns > MAX_COLUMNS || !rest.is_empty() {
                    return Err(Malformed::ColumnCount.into());
                }
                self.state = State::Columns { left: columns };
                Ok(Packet::ColumnCount(columns))
            }
            _ => Err(unexpected),
        }
    }

    /// Whether a result set that ends its columns with that status is a cursor that was opened. The flag alone
    /// does not say so: it is also set while a routine has a cursor of its own open (`DECLARE … CURSOR`), on every
    /// result set that the routine sends in the meantime (measured on MariaDB 10.11.19); none of these is the last.
    pub const fn opened_cursor(&self, status: StatusFlags) -> bool {
        matches!(self.shape, ResponseShape::Execute)
            && status.cursor_exists()
            && !status.more_results()
    }

    fn columns_end(&mut self, payload: &[u8]) -> Result<Packet<'static>, Violation> {
        let eof = EofPacket::parse(payload)?;
        // An opened cursor has no rows here: this EOF is the only one.
        if self.opened_cursor(eof.status) {
            self.result_over(eof.status.more_results());
            return Ok(Packet::EndEof(eof));
        }
        if eof.status.has(OUT_PARAMS) {
            self.set = ResultSet::OutParams;
        }
        self.state = State::Rows;
        Ok(Packet::ColumnsEnd(eof))
    }

    /// The packet that begins with 0xfe and ends a result.
    fn end<'a>(&mut self, payload: &'a [u8]) -> Result<Packet<'a>, Violation> {
        // Some servers answer COM_SHUTDOWN and the like by EOF whatever was negotiated.
        let is_ok = self.framing.deprecate_eof
            && !(matches!(self.shape, ResponseShape::Single) && payload.len() == 5);
        let (packet, status) = if is_ok {
            let ok = OkPacket::parse(payload, self.framing.session_track)?;
            (Packet::EndOk(ok), ok.status)
        } else {
            let mut eof = EofPacket::parse(payload)?;
            if std::mem::replace(&mut self.set, ResultSet::Plain) == ResultSet::OutParams {
                eof.status.0 |= OUT_PARAMS;
            }
            (Packet::EndEof(eof), eof.status)
        };
        self.result_over(status.more_results());
        Ok(packet)
    }

    const fn result_over(&mut self, more_results: bool) {
        let several = matches!(self.shape, ResponseShape::Query | ResponseShape::Execute);
        self.state = if more_results && several {
            State::Next
        } else {
            State::Over
        };
    }

    fn prepare_ok(&mut self, payload: &[u8]) -> Result<Packet<'static>, Violation> {
        let ok = PrepareOk::parse(payload)?;
        self.state = match ok.params {
            0 => Self::prepared_columns(ok.columns),
            left => State::Params {
                left,
                columns: ok.columns,
            },
        };
        Ok(Packet::PrepareOk(ok))
    }

    const fn prepared_columns(columns: u16) -> State {
        match columns {
            0 => State::Over,
            left => State::PreparedColumns { left },
        }
    }

    fn definition(&mut self) -> Packet<'static> {
        let modern = self.framing.deprecate_eof;
        let (state, last) = match self.state {
            State::Params { left: 1, columns } if modern => (Self::prepared_columns(columns), true),
            State::Params { left: 1, columns } => (State::ParamsEnd { columns }, true),
            State::Params { left, columns } => (
                State::Params {
                    left: left - 1,
                    columns,
                },
                false,
            ),
            State::PreparedColumns { left: 1 } if modern => (State::Over, true),
            State::PreparedColumns { left: 1 } => (State::PreparedColumnsEnd, true),
            State::PreparedColumns { left } => (State::PreparedColumns { left: left - 1 }, false),
            other => (other, false),
        };
        self.state = state;
        Packet::Definition { last }
    }

    const fn unexpected(&self, first: u8, len: usize) -> Violation {
        let wanted = match self.state {
            State::First | State::Next => "the beginning of a result",
            State::Columns { .. } => "a column definition",
            State::ColumnsEnd => "the end of the column definitions",
            State::Rows => "a row",
            State::FieldList => "a column of a field list",
            State::Params { .. } => "a parameter definition",
            State::ParamsEnd { .. } => "the end of the parameter definitions",
            State::PreparedColumns { .. } => "a column definition of a statement",
            State::PreparedColumnsEnd => "the end of a statement's column definitions",
            State::File => "nothing: the client's file comes first",
            State::Over => "nothing: the answer is over",
        };
        Violation::Unexpected { first, len, wanted }
    }
}

#[cfg(test)]
mod tests;
