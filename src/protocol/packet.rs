//! Packets: the 4-byte header, the split at 16 MB, and length-encoded numbers and strings.
//!
//! A *packet* is one header with its payload; a *logical packet* is what the peer meant: payloads of
//! [`MAX_PAYLOAD`] bytes are continued by the next packet until a shorter one ends them.
//! Source: MySQL Internals, "Protocol Basics" (packets, length-encoded integers and strings).

use bytes::{Buf, BufMut, BytesMut};

/// Bytes of a packet header: three of length, one of sequence id.
pub const HEADER_LEN: usize = 4;

/// Payload bytes of a full packet; one exactly this long is continued by the next.
pub const MAX_PAYLOAD: usize = 0x00ff_ffff;

/// A packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Payload bytes that follow the header, at most [`MAX_PAYLOAD`].
    pub len: usize,
    /// Sequence id, counted from 0 within a command and wrapping at 256.
    pub seq: u8,
}

impl Header {
    /// Reads the header at the start of `buf`; `None` when fewer than four bytes are there.
    pub fn peek(buf: &[u8]) -> Option<Self> {
        let &[a, b, c, seq] = buf.first_chunk::<HEADER_LEN>()?;
        Some(Self {
            len: usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16,
            seq,
        })
    }

    /// The header's four bytes. `len` above [`MAX_PAYLOAD`] is a caller's mistake and is cut.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        debug_assert!(self.len <= MAX_PAYLOAD);
        let [a, b, c, _] = (self.len as u32).to_le_bytes();
        [a, b, c, self.seq]
    }
}

/// Appends `payload` as one logical packet, split at 16 MB, starting with sequence id `seq`.
/// Returns the sequence id that comes next.
pub fn put_packet(out: &mut BytesMut, mut seq: u8, payload: &[u8]) -> u8 {
    let mut rest = payload;
    loop {
        let part = &rest[..rest.len().min(MAX_PAYLOAD)];
        out.reserve(HEADER_LEN + part.len());
        out.put_slice(
            &Header {
                len: part.len(),
                seq,
            }
            .to_bytes(),
        );
        out.put_slice(part);
        seq = seq.wrapping_add(1);
        rest = &rest[part.len()..];
        // A payload that fills its last packet exactly is ended by an empty one.
        if part.len() < MAX_PAYLOAD {
            return seq;
        }
    }
}

/// A logical packet taken out of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct LogicalPacket {
    /// The payload, joined over its packets.
    pub payload: BytesMut,
    /// Sequence id of the first packet.
    pub first_seq: u8,
    /// Sequence id of the last packet.
    pub last_seq: u8,
}

/// Why a logical packet could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// The payload is longer than the caller allows.
    #[error("packet of {len} bytes is larger than the {max} allowed here")]
    TooLarge {
        /// Bytes announced so far.
        len: usize,
        /// The caller's bound.
        max: usize,
    },
    /// A continuation's sequence id does not follow its predecessor's.
    #[error("packet out of order: expected sequence id {expected}, got {got}")]
    OutOfOrder {
        /// The id that had to come.
        expected: u8,
        /// The id that came.
        got: u8,
    },
}

/// Takes one whole logical packet from the front of `buf`. `Ok(None)`: not all of it is there yet;
/// `buf` is then unchanged.
///
/// # Errors
/// [`TakeError`], as soon as the headers show it; `buf` is then unchanged.
pub fn take_packet(buf: &mut BytesMut, max: usize) -> Result<Option<LogicalPacket>, TakeError> {
    let Some(first) = Header::peek(buf) else {
        return Ok(None);
    };
    if first.len > max {
        return Err(TakeError::TooLarge {
            len: first.len,
            max,
        });
    }
    if first.len < MAX_PAYLOAD {
        if buf.len() < HEADER_LEN + first.len {
            return Ok(None);
        }
        buf.advance(HEADER_LEN);
        let payload = buf.split_to(first.len);
        return Ok(Some(LogicalPacket {
            payload,
            first_seq: first.seq,
            last_seq: first.seq,
        }));
    }
    take_split_packet(buf, first, max)
}

fn take_split_packet(
    buf: &mut BytesMut,
    first: Header,
    max: usize,
) -> Result<Option<LogicalPacket>, TakeError> {
    let (mut at, mut total, mut header) = (0, 0, first);
    loop {
        total += header.len;
        if total > max {
            return Err(TakeError::TooLarge { len: total, max });
        }
        at += HEADER_LEN + header.len;
        if header.len < MAX_PAYLOAD {
            break;
        }
        let expected = header.seq.wrapping_add(1);
        match buf.get(at..).and_then(Header::peek) {
            None => return Ok(None),
            Some(next) if next.seq != expected => {
                return Err(TakeError::OutOfOrder {
                    expected,
                    got: next.seq,
                });
            }
            Some(next) => header = next,
        }
    }
    if buf.len() < at {
        return Ok(None);
    }
    let mut raw = buf.split_to(at);
    let mut payload = BytesMut::with_capacity(total);
    while let Some(part) = Header::peek(&raw) {
        raw.advance(HEADER_LEN);
        payload.put(raw.split_to(part.len));
    }
    Ok(Some(LogicalPacket {
        payload,
        first_seq: first.seq,
        last_seq: header.seq,
    }))
}

/// Reads a length-encoded integer from the front of `buf`, advancing it. `None` when it is cut short
/// or begins with `0xfb` (NULL) or `0xff` (not an integer).
pub fn take_lenenc_int(buf: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = buf.split_first()?;
    let width = match first {
        0..=0xfa => {
            *buf = rest;
            return Some(u64::from(first));
        }
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    let bytes = rest.get(..width)?;
    *buf = &rest[width..];
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)),
    )
}

/// Reads a length-encoded string from the front of `buf`, advancing it. `None` when it is cut short.
pub fn take_lenenc_str<'a>(buf: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = *buf;
    let len = usize::try_from(take_lenenc_int(&mut rest)?).ok()?;
    let value = rest.get(..len)?;
    *buf = &rest[len..];
    Some(value)
}

/// Appends a length-encoded integer.
pub fn put_lenenc_int(out: &mut impl BufMut, value: u64) {
    match value {
        0..=0xfa => out.put_u8(value as u8),
        0xfb..=0xffff => {
            out.put_u8(0xfc);
            out.put_u16_le(value as u16);
        }
        0x1_0000..=0xff_ffff => {
            out.put_u8(0xfd);
            out.put_uint_le(value, 3);
        }
        _ => {
            out.put_u8(0xfe);
            out.put_u64_le(value);
        }
    }
}

/// Appends a length-encoded string.
pub fn put_lenenc_str(out: &mut impl BufMut, value: &[u8]) {
    put_lenenc_int(out, value.len() as u64);
    out.put_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn incomplete_packets_wait_and_leave_the_buffer_alone() {
        let mut buf = BytesMut::from(&b"\x03\x00\x00\x07ab"[..]);
        assert_eq!(take_packet(&mut buf, 100), Ok(None));
        assert_eq!(&buf[..], b"\x03\x00\x00\x07ab");
        buf.put_slice(b"cX");
        let packet = take_packet(&mut buf, 100).unwrap().unwrap();
        assert_eq!((&packet.payload[..], packet.first_seq), (&b"abc"[..], 7));
        assert_eq!(&buf[..], b"X");
    }

    #[test]
    fn a_payload_of_exactly_16_mb_is_ended_by_an_empty_packet() {
        let payload = vec![7; MAX_PAYLOAD];
        let mut buf = BytesMut::new();
        assert_eq!(put_packet(&mut buf, 255, &payload), 1);
        assert_eq!(buf.len(), MAX_PAYLOAD + 2 * HEADER_LEN);
        let packet = take_packet(&mut buf, MAX_PAYLOAD).unwrap().unwrap();
        assert_eq!(
            (packet.payload.len(), packet.first_seq, packet.last_seq),
            (MAX_PAYLOAD, 255, 0)
        );
        assert!(buf.is_empty());
    }

    #[test]
    fn too_large_is_told_from_the_header_alone() {
        let mut buf = BytesMut::from(&b"\x00\x00\x10\x00"[..]);
        let expected = TakeError::TooLarge {
            len: 0x10_0000,
            max: 1024,
        };
        assert_eq!(take_packet(&mut buf, 1024), Err(expected));
    }

    proptest! {
        #[test]
        fn lenenc_round_trips(value: u64, text: Vec<u8>) {
            let mut out = Vec::new();
            put_lenenc_int(&mut out, value);
            put_lenenc_str(&mut out, &text);
            let mut rest = &out[..];
            prop_assert_eq!(take_lenenc_int(&mut rest), Some(value));
            prop_assert_eq!(take_lenenc_str(&mut rest), Some(&text[..]));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn cut_lenenc_never_panics(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while take_lenenc_str(&mut rest).is_some() {}
        }
    }
}
