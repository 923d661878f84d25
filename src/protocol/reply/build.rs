//! OK, ERR, EOF and text result sets, written for a client of either framing.

use bytes::{BufMut, BytesMut};

use super::{EOF, ERR, OK, StatusFlags};
use crate::protocol::packet::{put_lenenc_int, put_lenenc_str, put_packet};

/// Appends an OK packet without info and tracking data. Returns the sequence id that comes next.
pub fn put_ok(
    out: &mut BytesMut,
    seq: u8,
    status: StatusFlags,
    affected_rows: u64,
    last_insert_id: u64,
) -> u8 {
    put_packet(
        out,
        seq,
        &ok_payload(OK, status, 0, affected_rows, last_insert_id),
    )
}

/// Appends what ends a result set, or answers `COM_SET_OPTION` and `COM_DEBUG`: an OK packet with header
/// 0xfe under `DEPRECATE_EOF`, else an EOF packet. Returns the sequence id that comes next.
pub fn put_eof(
    out: &mut BytesMut,
    seq: u8,
    deprecate_eof: bool,
    status: StatusFlags,
    warnings: u16,
) -> u8 {
    if deprecate_eof {
        return put_packet(out, seq, &ok_payload(EOF, status, warnings, 0, 0));
    }
    let [w0, w1] = warnings.to_le_bytes();
    let [s0, s1] = status.0.to_le_bytes();
    put_packet(out, seq, &[EOF, w0, w1, s0, s1])
}

/// Appends an ERR packet. Returns the sequence id that comes next.
pub fn put_err(out: &mut BytesMut, seq: u8, code: u16, sqlstate: [u8; 5], message: &str) -> u8 {
    let mut payload = Vec::with_capacity(9 + message.len());
    payload.put_u8(ERR);
    payload.put_u16_le(code);
    payload.put_u8(b'#');
    payload.put_slice(&sqlstate);
    payload.put_slice(message.as_bytes());
    put_packet(out, seq, &payload)
}

fn ok_payload(
    header: u8,
    status: StatusFlags,
    warnings: u16,
    affected_rows: u64,
    last_insert_id: u64,
) -> Vec<u8> {
    let mut payload = Vec::with_capacity(23);
    payload.put_u8(header);
    put_lenenc_int(&mut payload, affected_rows);
    put_lenenc_int(&mut payload, last_insert_id);
    payload.put_u16_le(status.0);
    payload.put_u16_le(warnings);
    payload
}

/// A column of a result set made here. The whole definition is the caller's, because a client must not
/// see other metadata than the server would have sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextColumn<'a> {
    /// Name, and nothing for schema, table and their originals.
    pub name: &'a str,
    /// Collation id; 63 for numbers.
    pub collation: u16,
    /// Display length in bytes.
    pub length: u32,
    /// Type byte, such as 0xfd for a string.
    pub kind: u8,
    /// Column flags.
    pub flags: u16,
    /// Decimals; 0x27 (MariaDB) or 0x1f (MySQL) for a string.
    pub decimals: u8,
}

impl<'a> TextColumn<'a> {
    /// A NOT NULL `VARCHAR` of `utf8mb4` with room for 255 characters.
    pub const fn text(name: &'a str) -> Self {
        Self {
            name,
            collation: 45,
            length: 255 * 4,
            kind: 0xfd,
            flags: 1,
            decimals: 0,
        }
    }

    /// A NOT NULL unsigned `BIGINT`.
    pub const fn unsigned(name: &'a str) -> Self {
        Self {
            name,
            collation: 63,
            length: 20,
            kind: 0x08,
            flags: 0x00a1,
            decimals: 0,
        }
    }

    /// A NOT NULL signed `BIGINT`.
    pub const fn signed(name: &'a str) -> Self {
        Self {
            name,
            collation: 63,
            length: 20,
            kind: 0x08,
            flags: 0x0081,
            decimals: 0,
        }
    }

    fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(24 + self.name.len());
        put_lenenc_str(&mut payload, b"def");
        for text in ["", "", "", self.name, ""] {
            put_lenenc_str(&mut payload, text.as_bytes());
        }
        payload.put_u8(0x0c);
        payload.put_u16_le(self.collation);
        payload.put_u32_le(self.length);
        payload.put_u8(self.kind);
        payload.put_u16_le(self.flags);
        payload.put_u8(self.decimals);
        payload.put_u16_le(0);
        payload
    }
}

/// Writes a text result set row by row. Each step appends whole packets, so that a caller may send what
/// is there at any time.
#[derive(Debug)]
pub struct TextResultSet {
    seq: u8,
    deprecate_eof: bool,
    status: StatusFlags,
    columns: usize,
}

impl TextResultSet {
    /// Writes the column definitions. `seq` is the sequence id of the first packet.
    pub fn begin(
        out: &mut BytesMut,
        seq: u8,
        deprecate_eof: bool,
        status: StatusFlags,
        columns: &[TextColumn<'_>],
    ) -> Self {
        let mut count = Vec::with_capacity(9);
        put_lenenc_int(&mut count, columns.len() as u64);
        let mut seq = put_packet(out, seq, &count);
        for column in columns {
            seq = put_packet(out, seq, &column.payload());
        }
        if !deprecate_eof {
            seq = put_eof(out, seq, false, status, 0);
        }
        Self {
            seq,
            deprecate_eof,
            status,
            columns: columns.len(),
        }
    }

    /// Writes one row; `None` is NULL. There must be as many values as columns.
    pub fn row<'v>(
        &mut self,
        out: &mut BytesMut,
        values: impl IntoIterator<Item = Option<&'v [u8]>>,
    ) {
        let (mut payload, mut count) = (Vec::new(), 0);
        for value in values {
            match value {
                None => payload.put_u8(0xfb),
                Some(text) => put_lenenc_str(&mut payload, text),
            }
            count += 1;
        }
        debug_assert_eq!(count, self.columns, "a value for each column");
        self.seq = put_packet(out, self.seq, &payload);
    }

    /// Writes the end. Returns the sequence id that comes next.
    pub fn end(self, out: &mut BytesMut, warnings: u16) -> u8 {
        put_eof(out, self.seq, self.deprecate_eof, self.status, warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::reply::{EofPacket, ErrPacket, OkPacket};

    #[test]
    fn ok_is_read_back() {
        let mut out = BytesMut::new();
        assert_eq!(put_ok(&mut out, 1, StatusFlags(2), 300, 7), 2);
        let ok = OkPacket::parse(&out[4..], true).unwrap();
        assert_eq!((ok.affected_rows, ok.last_insert_id), (300, 7));
        assert_eq!(ok.status, StatusFlags(2));
    }

    #[test]
    fn err_is_read_back() {
        let mut out = BytesMut::new();
        put_err(&mut out, 3, 9501, *b"HY000", "no connection");
        assert_eq!(out[3], 3);
        let err = ErrPacket::parse(&out[4..]).unwrap();
        assert_eq!((err.code, err.message), (9501, &b"no connection"[..]));
    }

    #[test]
    fn eof_is_what_servers_send() {
        let mut out = BytesMut::new();
        assert_eq!(put_eof(&mut out, 1, false, StatusFlags(0x22), 1), 2);
        assert_eq!(&out[..], b"\x05\0\0\x01\xfe\x01\0\x22\0");
        assert_eq!(EofPacket::parse(&out[4..]).unwrap().warnings, 1);
        out.clear();
        put_eof(&mut out, 255, true, StatusFlags(2), 0);
        assert_eq!(&out[..], b"\x07\0\0\xff\xfe\0\0\x02\0\0\0");
    }

    #[test]
    fn result_set_is_what_mysql_sends_for_select_1() {
        let column = TextColumn {
            name: "1",
            collation: 63,
            length: 2,
            kind: 8,
            flags: 0x81,
            decimals: 0,
        };
        let head =
            b"\x01\0\0\x01\x01\x17\0\0\x02\x03def\0\0\0\x011\0\x0c\x3f\0\x02\0\0\0\x08\x81\0\0\0\0";
        for (deprecate_eof, tail) in [
            (
                true,
                &b"\x02\0\0\x03\x011\x07\0\0\x04\xfe\0\0\x02\0\0\0"[..],
            ),
            (
                false,
                b"\x05\0\0\x03\xfe\0\0\x02\0\x02\0\0\x04\x011\x05\0\0\x05\xfe\0\0\x02\0",
            ),
        ] {
            let mut out = BytesMut::new();
            let columns = std::slice::from_ref(&column);
            let mut set = TextResultSet::begin(&mut out, 1, deprecate_eof, StatusFlags(2), columns);
            set.row(&mut out, [Some(&b"1"[..])]);
            set.end(&mut out, 0);
            assert_eq!(&out[..], [&head[..], tail].concat());
        }
    }

    #[test]
    fn null_is_one_byte() {
        let mut out = BytesMut::new();
        let columns = [TextColumn::text("a"), TextColumn::unsigned("b")];
        let mut set = TextResultSet::begin(&mut out, 1, true, StatusFlags(2), &columns);
        out.clear();
        set.row(&mut out, [None, Some(&b"12"[..])]);
        assert_eq!(&out[..], b"\x04\0\0\x04\xfb\x0212");
    }
}
