//! From a backend's framing to a client's, in place: bytes in, bytes out, no I/O.
//!
//! What a packet is, [`ResponseTracker`] says. Rows and definitions stay where they are, in the buffer they
//! were read into, and only get their sequence ids shifted; what shrinks is rewritten where it is; what is
//! put in between goes to `out`, with what stands in front of it. So after [`Translator::feed`] the client's
//! bytes are `out` and behind it one piece of the input.
//!
//! Both servers' framing is captured in the tests. Two things cannot be exact: the flags of the EOF behind the
//! column definitions when the rows outgrow what can be held back, and the second EOF of OUT parameters, in
//! which MySQL clears flags in classic framing only (clients keep the first one's).

use std::ops::Range;

use bytes::BytesMut;

use super::Request;
use super::answer::{Answer, End, ErrorInfo};
use super::filter::{Filtered, TrackerFilter, filter};
use crate::protocol::packet::{HEADER_LEN, Header, put_lenenc_str, put_packet};
use crate::protocol::reply::{EOF, EofPacket, Malformed, OkPacket, StatusFlags, put_eof};
use crate::protocol::response::{Framing, Packet, ResponseTracker, Step, Violation};

/// Payload bytes of the largest packet that is held back to be seen whole.
const WHOLE_MAX: usize = 1 << 20;

/// Status flags that hold from one statement to the next; the others speak of one statement only.
const LASTING: u16 = 0x0001 | 0x0002 | 0x0100 | 0x0200 | 0x2000 | 0x8000;

/// What one call of [`Translator::feed`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fed {
    /// The piece of the input that the client gets behind `out`.
    pub(crate) tail: Range<usize>,
    /// Bytes of the input that are done with, at least up to the end of `tail`.
    pub(crate) consumed: usize,
    /// What is to be done next.
    pub(crate) flow: Flow,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flow {
    /// More bytes are needed.
    More,
    /// The client has to send its file.
    File,
    /// The answer is over.
    Over,
    /// There will be no answer: the backend said goodbye before it read the command. The client gets
    /// nothing of this.
    Notice(ErrorInfo),
}

/// The EOF that a classic client gets behind the column definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColumnsEof {
    /// None is owed.
    Settled,
    /// The definitions are through; what comes next decides.
    Owed,
    /// It is in `out`, its flags a guess until the end of the rows tells them; they are at this offset.
    Guessed { flags_at: usize },
}

/// Where the client's bytes are in the input during one feed.
struct Cursor {
    /// Begin of the piece not yet copied to `out`.
    run: usize,
    /// Its end.
    end: usize,
    /// Where the next packet begins.
    at: usize,
}

impl Cursor {
    /// Moves the piece to `out`; the next one begins at `from`.
    fn cut(&mut self, input: &[u8], out: &mut BytesMut, from: usize) {
        out.extend_from_slice(&input[self.run..self.end]);
        (self.run, self.end) = (from, from);
    }
}

/// Translates one answer.
#[derive(Debug)]
pub(crate) struct Translator<'f> {
    tracker: ResponseTracker,
    client: Framing,
    backend: Framing,
    filter: &'f TrackerFilter,
    /// The best known status flags, for an EOF whose own are not known yet.
    status: StatusFlags,
    /// Added to the backend's sequence ids.
    shift: u8,
    /// Bytes of the current packet that are still to come and pass as they are.
    passing: usize,
    columns_eof: ColumnsEof,
    notice: Option<ErrorInfo>,
    /// The statement's id for the client.
    statement: Option<u32>,
    /// What is known of the answer so far.
    pub(crate) answer: Answer,
}

impl<'f> Translator<'f> {
    pub(crate) fn new(request: &Request<'f>) -> Self {
        Self {
            tracker: ResponseTracker::new(
                request.shape,
                request.backend,
                request.first_seq.wrapping_add(request.ahead),
            ),
            client: request.client,
            backend: request.backend,
            filter: request.filter,
            status: StatusFlags(request.status.0 & LASTING),
            shift: request.ahead.wrapping_neg(),
            passing: 0,
            columns_eof: ColumnsEof::Settled,
            notice: None,
            statement: request.statement,
            answer: Answer::default(),
        }
    }

    /// Whether the answer is over; without having begun, for a command that has none.
    pub(crate) const fn is_over(&self) -> bool {
        self.tracker.is_over()
    }

    /// What is added to the backend's sequence ids to make them the client's.
    pub(crate) const fn shift(&self) -> u8 {
        self.shift
    }

    /// The client's file has been passed on.
    pub(crate) const fn file_sent(&mut self, next_seq: u8) {
        self.tracker.file_sent(next_seq);
    }

    /// Whether little is lost and exact flags are gained by not sending `out` yet: the first rows of a
    /// result set are there, and its end, which tells the flags of the EOF in front of them, may follow.
    pub(crate) const fn would_rather_wait(&self) -> bool {
        matches!(self.columns_eof, ColumnsEof::Guessed { .. }) && self.answer.rows <= 1
    }

    /// `out` has been sent; nothing in it can be changed any more.
    pub(crate) const fn sent(&mut self) {
        if matches!(self.columns_eof, ColumnsEof::Guessed { .. }) {
            self.columns_eof = ColumnsEof::Settled;
        }
    }

    /// Takes what has come from the backend.
    ///
    /// # Errors
    /// [`Violation`]: the backend connection is of no more use, the answer cannot be finished.
    pub(crate) fn feed(&mut self, input: &mut [u8], out: &mut BytesMut) -> Result<Fed, Violation> {
        let passed = self.passing.min(input.len());
        self.passing -= passed;
        let mut cursor = Cursor {
            run: 0,
            end: passed,
            at: passed,
        };
        let flow = loop {
            if self.passing > 0 {
                break Flow::More;
            }
            if self.tracker.is_over() {
                break self.notice.take().map_or(Flow::Over, Flow::Notice);
            }
            if self.tracker.awaits_file() {
                break Flow::File;
            }
            if !self.packet(input, out, &mut cursor)? {
                break Flow::More;
            }
        };
        Ok(Fed {
            tail: cursor.run..cursor.end,
            consumed: cursor.at,
            flow,
        })
    }

    /// Takes the packet at the cursor; `false` when more of it is needed.
    #[inline]
    fn packet(
        &mut self,
        input: &mut [u8],
        out: &mut BytesMut,
        cursor: &mut Cursor,
    ) -> Result<bool, Violation> {
        let Some(header) = input.get(cursor.at..).and_then(Header::peek) else {
            return Ok(false);
        };
        let body = cursor.at + HEADER_LEN;
        let have = header.len.min(input.len() - body);
        let packet = match self.tracker.next(header, &input[body..body + have])? {
            Step::Packet(packet) => packet,
            Step::NeedWhole if header.len > WHOLE_MAX => {
                return Err(Violation::TooLarge {
                    len: header.len,
                    max: WHOLE_MAX,
                });
            }
            Step::NeedFirstByte | Step::NeedWhole => return Ok(false),
        };
        match packet {
            Packet::Row if self.columns_eof != ColumnsEof::Owed => self.answer.rows += 1,
            Packet::Continuation => {}
            other => {
                let change = self.special(&other, header.len)?;
                self.apply(change, header, input, out, cursor);
                return Ok(true);
            }
        }
        self.pass(header, have, input, cursor);
        Ok(true)
    }

    /// Lets a packet pass where it is, under its new sequence id.
    #[inline]
    fn pass(&mut self, header: Header, have: usize, input: &mut [u8], cursor: &mut Cursor) {
        if self.shift != 0 {
            input[cursor.at + HEADER_LEN - 1] = header.seq.wrapping_add(self.shift);
        }
        cursor.at += HEADER_LEN + have;
        cursor.end = cursor.at;
        self.passing = header.len - have;
    }

    /// Notes what a packet says and decides what becomes of it.
    fn special(&mut self, packet: &Packet<'_>, len: usize) -> Result<Change, Violation> {
        let joins = self.client.deprecate_eof && !self.backend.deprecate_eof;
        let splits = self.backend.deprecate_eof && !self.client.deprecate_eof;
        Ok(match *packet {
            Packet::ColumnCount(_) => {
                self.answer.rows = 0;
                Change::Pass
            }
            Packet::Column { last } => {
                if last && splits {
                    self.columns_eof = ColumnsEof::Owed;
                }
                Change::Pass
            }
            Packet::Row => {
                self.answer.rows += 1;
                Change::EofBefore(self.status)
            }
            Packet::Ok(ref ok) => {
                self.answer.note_ok(ok, End::Ok)?;
                self.strip(ok, len)?
            }
            Packet::EndOk(ref ok) => {
                self.answer.note_ok(ok, End::Rows)?;
                if splits {
                    self.end_rows(ok)
                } else {
                    self.strip(ok, len)?
                }
            }
            Packet::EndEof(eof) => {
                self.answer.note_eof(eof);
                if joins { Change::Ok(eof) } else { Change::Pass }
            }
            Packet::Notice(ref err) => {
                self.notice = Some(ErrorInfo::new(err));
                Change::Drop
            }
            Packet::Err(ref err) => {
                self.answer.end = End::Error(ErrorInfo::new(err));
                match self.columns_eof {
                    ColumnsEof::Owed => Change::EofBefore(self.status),
                    _ => Change::Pass,
                }
            }
            Packet::PrepareOk(ok) => {
                self.answer.warnings = ok.warnings;
                self.answer.end = End::Prepared(ok);
                self.statement.map_or(Change::Pass, Change::Renamed)
            }
            Packet::Definition { last: true } if splits => Change::EofAfter(self.status),
            Packet::ColumnsEnd(_) | Packet::DefinitionsEnd(_) if joins => Change::Drop,
            Packet::Text => {
                self.answer.end = End::Text;
                Change::Pass
            }
            _ => Change::Pass,
        })
    }

    /// The end of a result set for a client that wants EOF packets.
    fn end_rows(&mut self, ok: &OkPacket<'_>) -> Change {
        let eof = EofPacket {
            warnings: ok.warnings,
            status: ok.status.without(StatusFlags::SESSION_STATE_CHANGED),
        };
        match std::mem::replace(&mut self.columns_eof, ColumnsEof::Settled) {
            // An opened cursor has no rows here: its one EOF is the end.
            ColumnsEof::Owed if !self.tracker.opened_cursor(eof.status) => Change::TwoEofs(eof),
            ColumnsEof::Guessed { flags_at } => Change::Eof {
                eof,
                flags_at: Some(flags_at),
            },
            _ => Change::Eof {
                eof,
                flags_at: None,
            },
        }
    }

    /// An OK packet without the tracking data that is not for this client.
    fn strip(&self, ok: &OkPacket<'_>, len: usize) -> Result<Change, Malformed> {
        if !self.backend.session_track || !ok.status.session_state_changed() {
            return Ok(Change::Pass);
        }
        let kept = match filter(self.filter, self.client.session_track, ok)? {
            Filtered::Unchanged => return Ok(Change::Pass),
            Filtered::Replaced(kept) => kept,
        };
        let info_len = ok.raw_info.len();
        if !kept.is_empty() {
            return Ok(Change::Tracking {
                from: ok.info_at + info_len,
                kept,
            });
        }
        // An info that is only there because tracking data follows goes with it.
        let info_len = if info_len == 1 { 0 } else { info_len };
        debug_assert!(ok.info_at + info_len <= len);
        Ok(Change::Cut {
            status: ok.status.without(StatusFlags::SESSION_STATE_CHANGED),
            status_at: ok.info_at - 4,
            len: ok.info_at + info_len,
        })
    }

    /// Does to the packet at the cursor, and to its surroundings, what was decided.
    fn apply(
        &mut self,
        change: Change,
        header: Header,
        input: &mut [u8],
        out: &mut BytesMut,
        cursor: &mut Cursor,
    ) {
        let have = header.len.min(input.len() - cursor.at - HEADER_LEN);
        let after = cursor.at + HEADER_LEN + have;
        match change {
            Change::Pass => self.pass(header, have, input, cursor),
            Change::Renamed(statement) => {
                let at = cursor.at + HEADER_LEN + 1;
                input[at..at + 4].copy_from_slice(&statement.to_le_bytes());
                self.pass(header, have, input, cursor);
            }
            Change::EofBefore(status) => {
                self.insert_eof(header.seq, status, input, out, cursor);
                self.columns_eof = ColumnsEof::Guessed {
                    flags_at: out.len() - 2,
                };
                self.pass(header, have, input, cursor);
            }
            Change::EofAfter(status) => {
                self.pass(header, have, input, cursor);
                self.insert_eof(header.seq.wrapping_add(1), status, input, out, cursor);
            }
            Change::Drop => {
                cursor.cut(input, out, after);
                cursor.at = after;
                self.shift = self.shift.wrapping_sub(1);
            }
            Change::TwoEofs(eof) => {
                self.insert_eof(header.seq, eof.status, input, out, cursor);
                self.shrink_to_eof(eof, header, input, out, cursor);
            }
            Change::Eof { eof, flags_at } => {
                if let Some(flags) = flags_at.and_then(|at| out.get_mut(at..at + 2)) {
                    flags.copy_from_slice(&eof.status.0.to_le_bytes());
                }
                self.shrink_to_eof(eof, header, input, out, cursor);
            }
            Change::Ok(eof) => {
                cursor.cut(input, out, after);
                cursor.at = after;
                let seq = header.seq.wrapping_add(self.shift);
                put_eof(out, seq, true, eof.status, eof.warnings);
            }
            Change::Cut {
                status,
                status_at,
                len,
            } => {
                let at = cursor.at + HEADER_LEN + status_at;
                input[at..at + 2].copy_from_slice(&status.0.to_le_bytes());
                self.shrink(len, header, input, out, cursor);
            }
            Change::Tracking { from, kept } => {
                let body = cursor.at + HEADER_LEN;
                let mut payload = input[body..body + from].to_vec();
                put_lenenc_str(&mut payload, &kept);
                cursor.cut(input, out, after);
                cursor.at = after;
                put_packet(out, header.seq.wrapping_add(self.shift), &payload);
            }
        }
    }

    /// Puts an EOF in front of the cursor, in the place of the packet with this sequence id.
    fn insert_eof(
        &mut self,
        seq: u8,
        status: StatusFlags,
        input: &[u8],
        out: &mut BytesMut,
        cursor: &mut Cursor,
    ) {
        cursor.cut(input, out, cursor.at);
        put_eof(out, seq.wrapping_add(self.shift), false, status, 0);
        self.shift = self.shift.wrapping_add(1);
    }

    /// Makes an EOF of the OK packet at the cursor.
    fn shrink_to_eof(
        &mut self,
        eof: EofPacket,
        header: Header,
        input: &mut [u8],
        out: &mut BytesMut,
        cursor: &mut Cursor,
    ) {
        let [w0, w1] = eof.warnings.to_le_bytes();
        let [s0, s1] = eof.status.0.to_le_bytes();
        let payload = [EOF, w0, w1, s0, s1];
        let body = cursor.at + HEADER_LEN;
        input[body..body + payload.len()].copy_from_slice(&payload);
        self.shrink(payload.len(), header, input, out, cursor);
    }

    /// Cuts the packet at the cursor, all of which is there, to `len` payload bytes.
    fn shrink(
        &mut self,
        len: usize,
        header: Header,
        input: &mut [u8],
        out: &mut BytesMut,
        cursor: &mut Cursor,
    ) {
        let body = cursor.at + HEADER_LEN;
        let seq = header.seq.wrapping_add(self.shift);
        input[cursor.at..body].copy_from_slice(&Header { len, seq }.to_bytes());
        cursor.end = body + len;
        cursor.at = body + header.len;
        // A gap may only be at the end of the piece.
        if !self.tracker.is_over() {
            cursor.cut(input, out, cursor.at);
        }
    }
}

/// What becomes of a packet.
#[derive(Debug)]
enum Change {
    /// It passes as it is.
    Pass,
    /// It passes with this id of a prepared statement.
    Renamed(u32),
    /// An EOF, whose flags are a guess, comes in front of it.
    EofBefore(StatusFlags),
    /// An EOF comes behind it. All of the packet is there.
    EofAfter(StatusFlags),
    /// It is left out.
    Drop,
    /// It becomes an EOF, and another one of the same flags comes in front of it.
    TwoEofs(EofPacket),
    /// It becomes an EOF; the flags at this offset of `out` are those of the same result set.
    Eof {
        eof: EofPacket,
        flags_at: Option<usize>,
    },
    /// This EOF becomes an OK packet with header 0xfe.
    Ok(EofPacket),
    /// It is cut to `len` payload bytes and gets these status flags.
    Cut {
        status: StatusFlags,
        status_at: usize,
        len: usize,
    },
    /// What begins at `from` in its payload becomes this tracking data.
    Tracking { from: usize, kept: Vec<u8> },
}
