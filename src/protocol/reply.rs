//! OK, ERR, EOF and small result sets: read and written.
//!
//! Reading borrows from the payload and copies nothing; it is on the hot path. Both servers write the
//! *info* of an OK packet as a length-encoded string whatever was negotiated (measured on MariaDB 10.11
//! and MySQL 9.7), so that an OK packet needs no translation but that of its tracking data.
//!
//! Source: MySQL Internals "Generic Response Packets".

mod build;
mod session_track;

pub use build::{TextColumn, TextResultSet, put_eof, put_err, put_ok};
pub use session_track::{SessionChange, SessionChanges, put_session_change};

use super::packet::{take_lenenc_int, take_lenenc_str};

/// First byte of an OK packet.
pub const OK: u8 = 0x00;
/// First byte of an EOF packet, and of the OK packet that ends a result set under `DEPRECATE_EOF`.
pub const EOF: u8 = 0xfe;
/// First byte of an ERR packet.
pub const ERR: u8 = 0xff;
/// First byte of a request for a local file.
pub const LOCAL_INFILE: u8 = 0xfb;

/// A packet that does not hold what its first byte promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// An OK packet.
    #[error("malformed OK packet")]
    Ok,
    /// An ERR packet.
    #[error("malformed ERR packet")]
    Err,
    /// An EOF packet.
    #[error("malformed EOF packet")]
    Eof,
    /// The session-tracking data of an OK packet.
    #[error("malformed session-tracking data")]
    SessionState,
    /// A column count.
    #[error("malformed column count")]
    ColumnCount,
    /// A column definition.
    #[error("malformed column definition")]
    Column,
    /// A row.
    #[error("malformed row")]
    Row,
    /// The answer to `COM_STMT_PREPARE`.
    #[error("malformed PREPARE_OK packet")]
    PrepareOk,
}

/// The server's status flags, unknown bits included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct StatusFlags(pub u16);

impl StatusFlags {
    /// `SERVER_STATUS_IN_TRANS`.
    pub const IN_TRANSACTION: u16 = 0x0001;
    /// `SERVER_STATUS_AUTOCOMMIT`.
    pub const AUTOCOMMIT: u16 = 0x0002;
    /// `SERVER_MORE_RESULTS_EXISTS`.
    pub const MORE_RESULTS: u16 = 0x0008;
    /// `SERVER_STATUS_CURSOR_EXISTS`.
    pub const CURSOR_EXISTS: u16 = 0x0040;
    /// `SERVER_STATUS_LAST_ROW_SENT`.
    pub const LAST_ROW_SENT: u16 = 0x0080;
    /// `SERVER_STATUS_NO_BACKSLASH_ESCAPES`.
    pub const NO_BACKSLASH_ESCAPES: u16 = 0x0200;
    /// `SERVER_STATUS_ANSI_QUOTES` (MariaDB).
    pub const ANSI_QUOTES: u16 = 0x8000;
    /// `SERVER_PS_OUT_PARAMS`.
    pub const PS_OUT_PARAMS: u16 = 0x1000;
    /// `SERVER_STATUS_IN_TRANS_READONLY`.
    pub const IN_TRANSACTION_READONLY: u16 = 0x2000;
    /// `SERVER_SESSION_STATE_CHANGED`.
    pub const SESSION_STATE_CHANGED: u16 = 0x4000;

    /// Whether all of these bits are set.
    pub const fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }

    /// Without these bits.
    #[must_use]
    pub const fn without(self, bits: u16) -> Self {
        Self(self.0 & !bits)
    }

    /// A transaction is open.
    pub const fn in_transaction(self) -> bool {
        self.has(Self::IN_TRANSACTION)
    }

    /// Autocommit is on.
    pub const fn autocommit(self) -> bool {
        self.has(Self::AUTOCOMMIT)
    }

    /// Another result of the same command follows.
    pub const fn more_results(self) -> bool {
        self.has(Self::MORE_RESULTS)
    }

    /// The execute opened a cursor; its rows come by `COM_STMT_FETCH`.
    pub const fn cursor_exists(self) -> bool {
        self.has(Self::CURSOR_EXISTS)
    }

    /// The OK packet carries tracking data.
    pub const fn session_state_changed(self) -> bool {
        self.has(Self::SESSION_STATE_CHANGED)
    }
}

/// An OK packet, of either header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OkPacket<'a> {
    /// Rows changed (or found, under `CLIENT_FOUND_ROWS`).
    pub affected_rows: u64,
    /// The id the statement reports; not always what `LAST_INSERT_ID()` returns.
    pub last_insert_id: u64,
    /// Status flags as sent.
    pub status: StatusFlags,
    /// Number of warnings.
    pub warnings: u16,
    /// Where `raw_info` begins in the payload.
    pub info_at: usize,
    /// What stands behind the warnings up to the tracking data, as sent: nothing, or the
    /// length-encoded info text.
    pub raw_info: &'a [u8],
    /// The tracking data, behind its total length; empty when there is none.
    pub session_state: &'a [u8],
}

impl<'a> OkPacket<'a> {
    /// Parses a payload that begins with 0x00 or 0xfe. `session_track` says whether that capability
    /// was negotiated with the sender: it decides whether tracking data can follow.
    ///
    /// # Errors
    /// [`Malformed::Ok`], [`Malformed::SessionState`].
    #[inline]
    pub fn parse(payload: &'a [u8], session_track: bool) -> Result<Self, Malformed> {
        // The common packet has one byte for either number.
        let (affected_rows, last_insert_id, rest) = match *payload {
            [_, affected @ 0..=0xfa, id @ 0..=0xfa, ref rest @ ..] => {
                (u64::from(affected), u64::from(id), rest)
            }
            [_, ref rest @ ..] => {
                let mut rest = rest;
                let affected = take_lenenc_int(&mut rest).ok_or(Malformed::Ok)?;
                let id = take_lenenc_int(&mut rest).ok_or(Malformed::Ok)?;
                (affected, id, rest)
            }
            [] => return Err(Malformed::Ok),
        };
        let (&[s0, s1, w0, w1], rest) = rest.split_first_chunk().ok_or(Malformed::Ok)?;
        let mut ok = Self {
            affected_rows,
            last_insert_id,
            status: StatusFlags(u16::from_le_bytes([s0, s1])),
            warnings: u16::from_le_bytes([w0, w1]),
            info_at: payload.len() - rest.len(),
            raw_info: rest,
            session_state: &[],
        };
        if session_track && ok.status.session_state_changed() {
            let mut behind = rest;
            take_lenenc_str(&mut behind).ok_or(Malformed::Ok)?;
            ok.raw_info = &rest[..rest.len() - behind.len()];
            ok.session_state = session_state(behind).ok_or(Malformed::SessionState)?;
        }
        Ok(ok)
    }

    /// The info text, such as `Rows matched: 1  Changed: 1  Warnings: 0`; empty when there is none.
    pub fn info(&self) -> &'a [u8] {
        let mut raw = self.raw_info;
        take_lenenc_str(&mut raw).unwrap_or_default()
    }

    /// What changed in the session.
    pub const fn session_changes(&self) -> SessionChanges<'a> {
        SessionChanges::new(self.session_state)
    }
}

/// The tracking data, which is all of `tail` but its total length.
///
/// MariaDB 10.11 builds it in a string of `collation_database`'s charset and reserves the length's
/// place with one character: under ucs2 and utf16 a zero byte stands in front of the length, under
/// utf32 three. The length itself and the items (but for the text of transaction characteristics) are
/// as ever. A length of 0 with bytes behind it means nothing else.
fn session_state(tail: &[u8]) -> Option<&[u8]> {
    let tail = match *tail {
        [0, 0, 0, first, ref rest @ ..] if first != 0 && !rest.is_empty() => &tail[3..],
        [0, first, ref rest @ ..] if first != 0 && !rest.is_empty() => &tail[1..],
        _ => tail,
    };
    let mut behind = tail;
    let data = take_lenenc_str(&mut behind)?;
    behind.is_empty().then_some(data)
}

/// An EOF packet: 0xfe, warnings, status flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EofPacket {
    /// Number of warnings.
    pub warnings: u16,
    /// Status flags.
    pub status: StatusFlags,
}

impl EofPacket {
    /// Parses a payload that begins with 0xfe.
    ///
    /// # Errors
    /// [`Malformed::Eof`].
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        match *payload {
            [_, w0, w1, s0, s1, ..] => Ok(Self {
                warnings: u16::from_le_bytes([w0, w1]),
                status: StatusFlags(u16::from_le_bytes([s0, s1])),
            }),
            _ => Err(Malformed::Eof),
        }
    }
}

/// An ERR packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrPacket<'a> {
    /// MySQL's error number.
    pub code: u16,
    /// SQLSTATE; `HY000` where the sender gave none (before the handshake is done).
    pub sqlstate: [u8; 5],
    /// The message, in the session's character set.
    pub message: &'a [u8],
}

impl<'a> ErrPacket<'a> {
    /// Parses a payload that begins with 0xff.
    ///
    /// # Errors
    /// [`Malformed::Err`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let (&[_, c0, c1], rest) = payload.split_first_chunk().ok_or(Malformed::Err)?;
        let (sqlstate, message) = match *rest {
            [b'#', a, b, c, d, e, ref message @ ..] => ([a, b, c, d, e], message),
            _ => (*b"HY000", rest),
        };
        Ok(Self {
            code: u16::from_le_bytes([c0, c1]),
            sqlstate,
            message,
        })
    }
}

/// The first packet of the answer to `COM_STMT_PREPARE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareOk {
    /// The server's id of the statement.
    pub statement_id: u32,
    /// Columns of its result set.
    pub columns: u16,
    /// Parameters.
    pub params: u16,
    /// Number of warnings.
    pub warnings: u16,
}

impl PrepareOk {
    /// Parses a payload that begins with 0x00.
    ///
    /// # Errors
    /// [`Malformed::PrepareOk`].
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        match *payload {
            [OK, i0, i1, i2, i3, c0, c1, p0, p1, _, w0, w1, ..] => Ok(Self {
                statement_id: u32::from_le_bytes([i0, i1, i2, i3]),
                columns: u16::from_le_bytes([c0, c1]),
                params: u16::from_le_bytes([p0, p1]),
                warnings: u16::from_le_bytes([w0, w1]),
            }),
            _ => Err(Malformed::PrepareOk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ok_with_info_and_no_tracking_data() {
        let payload = b"\x00\x01\x00\x02\x00\x00\x00\x28Rows matched: 1  Changed: 1  Warnings: 0";
        for track in [false, true] {
            let ok = OkPacket::parse(payload, track).unwrap();
            assert_eq!((ok.affected_rows, ok.status), (1, StatusFlags(2)));
            assert_eq!(ok.info(), b"Rows matched: 1  Changed: 1  Warnings: 0");
            assert!(ok.session_state.is_empty());
        }
    }

    #[test]
    fn ok_with_tracking_data() {
        let payload = b"\x00\x00\x00\x02\x40\x00\x00\x00\x0f\x01\x0a\x09relay_cap\x02\x01\x31";
        let ok = OkPacket::parse(payload, true).unwrap();
        assert_eq!(ok.info(), b"");
        let changes: Vec<_> = ok.session_changes().map(Result::unwrap).collect();
        assert_eq!(
            changes,
            [SessionChange::Schema(b"relay_cap"), SessionChange::State]
        );
    }

    /// From MariaDB 10.11.19, in databases of these charsets: `USE`, `BEGIN`, `COMMIT`.
    #[test]
    fn tracking_data_behind_the_padding_of_wide_database_charsets() {
        let changes = |payload: &'static [u8]| -> Vec<SessionChange<'static>> {
            let ok = OkPacket::parse(payload, true).unwrap();
            assert_eq!((ok.raw_info, ok.info()), (&b"\0"[..], &b""[..]));
            ok.session_changes().map(Result::unwrap).collect()
        };
        let selected = |name| [SessionChange::Schema(name), SessionChange::State];
        assert_eq!(
            changes(b"\0\0\0\x02\x40\0\0\0\0\x0e\x01\x09\x08wst_ucs2\x02\x011"),
            selected(b"wst_ucs2")
        );
        assert_eq!(
            changes(b"\0\0\0\x02\x40\0\0\0\0\x11\x01\x0c\x0bwst_utf16le\x02\x011"),
            selected(b"wst_utf16le")
        );
        assert_eq!(
            changes(b"\0\0\0\x02\x40\0\0\0\0\0\0\x0f\x01\x0a\x09wst_utf32\x02\x011"),
            selected(b"wst_utf32")
        );
        let begin = b"\0\0\0\x03\x40\0\0\0\0\x33\x05\x09\x08T_______\x04&%\0S\0T\0A\0R\0T\0 \
                      \0T\0R\0A\0N\0S\0A\0C\0T\0I\0O\0N\0;\0";
        assert_eq!(changes(begin)[0], SessionChange::Transaction(*b"T_______"));
        let commit: &[&'static [u8]] = &[
            b"\0\0\0\x02\x40\0\0\0\x0e\x05\x09\x08________\x04\x01\0",
            b"\0\0\0\x02\x40\0\0\0\0\x0e\x05\x09\x08________\x04\x01\0",
            b"\0\0\0\x02\x40\0\0\0\0\0\0\x0e\x05\x09\x08________\x04\x01\0",
        ];
        for payload in commit {
            assert_eq!(
                changes(payload),
                [
                    SessionChange::Transaction(*b"________"),
                    SessionChange::Characteristics(b"")
                ]
            );
        }
        // A length of more than one byte.
        let mut long = b"\0\0\0\x02\x40\0\0\0\0\0\0\xfc\x05\x01\x01\xfc\x01\x01\xff".to_vec();
        long.extend_from_slice(&[b'a'; 0xff]);
        long.extend_from_slice(b"b");
        assert!(OkPacket::parse(&long, true).is_ok());
        // Two zero bytes are the padding of no charset.
        assert!(OkPacket::parse(b"\0\0\0\x02\x40\0\0\0\0\0\x03\x02\x011", true).is_err());
    }

    #[test]
    fn ok_with_wide_numbers() {
        let payload = b"\x00\xfc\xe8\x03\xfe\x01\x02\x03\x04\x05\x06\x07\x08\x03\x00\x07\x00";
        let ok = OkPacket::parse(payload, true).unwrap();
        assert_eq!(ok.affected_rows, 1000);
        assert_eq!(ok.last_insert_id, 0x0807_0605_0403_0201);
        assert!(ok.status.in_transaction() && ok.status.autocommit());
        assert_eq!(ok.warnings, 7);
    }

    #[test]
    fn cut_ok_is_malformed() {
        let payload = b"\x00\x00\x00\x02\x40\x00\x00\x00\x03\x02\x01\x31";
        for cut in 0..payload.len() {
            assert!(
                OkPacket::parse(&payload[..cut], true).is_err(),
                "cut at {cut}"
            );
        }
        assert!(OkPacket::parse(&[&payload[..], b"x"].concat(), true).is_err());
    }

    #[test]
    fn err_with_and_without_sqlstate() {
        let err = ErrPacket::parse(b"\xff\x15\x04#28000Access denied").unwrap();
        assert_eq!((err.code, &err.sqlstate), (1045, b"28000"));
        assert_eq!(err.message, b"Access denied");
        let err = ErrPacket::parse(b"\xff\x10\x04Too many connections").unwrap();
        assert_eq!((err.code, &err.sqlstate), (1040, b"HY000"));
        assert_eq!(err.message, b"Too many connections");
        assert!(ErrPacket::parse(b"\xff\x10").is_err());
    }

    #[test]
    fn prepare_ok() {
        let ok = PrepareOk::parse(b"\x00\x05\x00\x00\x00\x02\x00\x01\x00\x00\x00\x00").unwrap();
        assert_eq!((ok.statement_id, ok.columns, ok.params), (5, 2, 1));
        assert!(PrepareOk::parse(b"\x00\x05\x00\x00\x00\x02\x00\x01\x00\x00\x00").is_err());
    }

    proptest! {
        #[test]
        fn any_payload_is_survived(payload: Vec<u8>, track: bool) {
            if let Ok(ok) = OkPacket::parse(&payload, track) {
                ok.session_changes().for_each(drop);
                let _ = ok.info();
            }
            let _ = ErrPacket::parse(&payload);
            let _ = EofPacket::parse(&payload);
            let _ = PrepareOk::parse(&payload);
        }
    }
}
