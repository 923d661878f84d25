//! The packets of prepared statements: where ids and the types of parameters stand in them.
//!
//! Sources: MySQL Internals "COM_STMT_EXECUTE"; MariaDB "COM_STMT_BULK_EXECUTE". Measured on MySQL 9.7.4: with
//! `CLIENT_QUERY_ATTRIBUTES` the count of parameters is sent for every statement that has some, whatever
//! the flags say; names are for attributes, values go by position.

use bytes::{BufMut, BytesMut};

use crate::protocol::packet::{HEADER_LEN, Header, MAX_PAYLOAD, take_lenenc_int, take_lenenc_str};

/// Where a statement's id stands in a packet, header included.
pub(crate) const ID_AT: usize = HEADER_LEN + 1;
/// Payload bytes of a `COM_STMT_EXECUTE` in front of its parameters.
pub(crate) const EXECUTE_HEAD: usize = 10;
/// The same of a `COM_STMT_BULK_EXECUTE`.
pub(crate) const BULK_HEAD: usize = 7;
/// Bulk flag: types are sent.
const BULK_TYPES: u8 = 0x80;
/// Flags that ask for a cursor.
const CURSOR: u8 = 0x07;

/// How executions are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `COM_STMT_EXECUTE`.
    Plain,
    /// `COM_STMT_EXECUTE` with `CLIENT_QUERY_ATTRIBUTES`.
    Attributes,
    /// `COM_STMT_BULK_EXECUTE`.
    Bulk,
}

/// What an execution says of its parameters' types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Types<'p> {
    /// There are no parameters.
    None,
    /// It brings them.
    Sent(SentTypes<'p>),
    /// It relies on those that were sent before.
    Earlier(Gap),
    /// The packet goes on behind what is there.
    Incomplete,
    /// It does not fit the statement: the server will say so.
    Odd,
}

/// Types as they stand in a packet, those of the statement's own parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentTypes<'p> {
    section: &'p [u8],
    params: usize,
    named: bool,
}

/// Where types that were left out belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The byte that says they are left out, by its place in the payload.
    flag_at: usize,
    /// What it becomes.
    flag: u8,
    /// Where they go.
    at: usize,
    named: bool,
}

impl SentTypes<'_> {
    /// Two bytes for each parameter.
    fn each(&self) -> impl Iterator<Item = [u8; 2]> {
        let mut rest = self.section;
        let named = self.named;
        (0..self.params).map_while(move |_| {
            let (kind, behind) = rest.split_first_chunk()?;
            rest = behind;
            if named {
                take_lenenc_str(&mut rest)?;
            }
            Some(*kind)
        })
    }

    /// Whether they are those.
    pub(crate) fn are(&self, known: &[u8]) -> bool {
        match self.named {
            false => self.section == known,
            true => {
                known.len() == 2 * self.params
                    && self
                        .each()
                        .eq(known.chunks(2).map(|kind| [kind[0], kind[1]]))
            }
        }
    }

    /// To be kept.
    pub(crate) fn to_boxed(self) -> Box<[u8]> {
        self.each().flatten().collect()
    }
}

/// Whether an execution asks for a cursor.
pub(crate) fn wants_cursor(layout: Layout, payload: &[u8]) -> bool {
    layout != Layout::Bulk && payload.get(5).is_some_and(|flags| flags & CURSOR != 0)
}

/// What the execution of a statement with so many parameters says of their types. `payload` may be cut
/// behind them.
pub(crate) fn types(layout: Layout, payload: &[u8], params: usize) -> Types<'_> {
    if params == 0 {
        return Types::None;
    }
    let found = match layout {
        Layout::Bulk => bulk_types(payload, params),
        Layout::Plain => execute_types(payload, params, EXECUTE_HEAD, params, false),
        Layout::Attributes => {
            let Some(mut rest) = payload.get(EXECUTE_HEAD..) else {
                return Types::Incomplete;
            };
            let Some(count) = take_lenenc_int(&mut rest) else {
                return Types::Incomplete;
            };
            match usize::try_from(count) {
                Ok(count) if (params..=usize::from(u16::MAX)).contains(&count) => {
                    execute_types(payload, params, payload.len() - rest.len(), count, true)
                }
                _ => Some(Types::Odd),
            }
        }
    };
    found.unwrap_or(Types::Incomplete)
}

fn bulk_types(payload: &[u8], params: usize) -> Option<Types<'_>> {
    const FLAG_AT: usize = 5;
    let flag = *payload.get(FLAG_AT)?;
    if flag & BULK_TYPES == 0 {
        return Some(Types::Earlier(Gap {
            flag_at: FLAG_AT,
            flag: flag | BULK_TYPES,
            at: BULK_HEAD,
            named: false,
        }));
    }
    let section = payload.get(BULK_HEAD..BULK_HEAD + 2 * params)?;
    Some(Types::Sent(SentTypes {
        section,
        params,
        named: false,
    }))
}

/// `at` is where the NULL bitmap begins, of `count` values.
fn execute_types(
    payload: &[u8],
    params: usize,
    at: usize,
    count: usize,
    named: bool,
) -> Option<Types<'_>> {
    let flag_at = at + count.div_ceil(8);
    let flag = *payload.get(flag_at)?;
    let at = flag_at + 1;
    if flag == 0 {
        // Nobody remembers the types of attributes.
        return Some(match count == params {
            true => Types::Earlier(Gap {
                flag_at,
                flag: 1,
                at,
                named,
            }),
            false => Types::Odd,
        });
    }
    let mut rest = payload.get(at..)?;
    if !named {
        let section = rest.get(..2 * params)?;
        return Some(Types::Sent(SentTypes {
            section,
            params,
            named,
        }));
    }
    let begin = rest;
    for _ in 0..params {
        rest = rest.get(2..)?;
        take_lenenc_str(&mut rest)?;
    }
    Some(Types::Sent(SentTypes {
        section: &begin[..begin.len() - rest.len()],
        params,
        named,
    }))
}

/// Puts the statement's id for the server into a packet, header included.
pub(crate) fn put_id(packet: &mut [u8], id: u32) {
    if let Some(place) = packet.get_mut(ID_AT..ID_AT + 4) {
        place.copy_from_slice(&id.to_le_bytes());
    }
}

/// Puts types where they were left out, in a packet whose header is left as it is; how many bytes.
pub(crate) fn fill(packet: &mut BytesMut, gap: Gap, types: &[u8]) -> usize {
    let at = HEADER_LEN + gap.at;
    let behind = packet.split_off(at);
    let before = packet.len();
    packet.reserve(behind.len() + types.len() * 2);
    for kind in types.chunks(2) {
        packet.put_slice(kind);
        if gap.named {
            packet.put_u8(0);
        }
    }
    let more = packet.len() - before;
    packet.put_slice(&behind);
    if let Some(flag) = packet.get_mut(HEADER_LEN + gap.flag_at) {
        *flag = gap.flag;
    }
    more
}

/// Makes the header of a single packet that has grown fit it; if it has become too large for one, it is made two. How
/// many packets more than one.
pub(crate) fn reframe(packet: &mut BytesMut) -> u8 {
    let payload = packet.len() - HEADER_LEN;
    let len = payload.min(MAX_PAYLOAD);
    packet[..HEADER_LEN].copy_from_slice(&Header { len, seq: 0 }.to_bytes());
    if payload < MAX_PAYLOAD {
        return 0;
    }
    let rest = packet.split_off(HEADER_LEN + MAX_PAYLOAD);
    let header = Header {
        len: rest.len(),
        seq: 1,
    };
    packet.put_slice(&header.to_bytes());
    packet.put_slice(&rest);
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::packet::{put_packet, take_packet};

    const LONGLONG_AND_STRING: &[u8] = &[8, 0, 0xfd, 0];

    fn whole(payload: &[u8]) -> BytesMut {
        let mut packet = BytesMut::new();
        put_packet(&mut packet, 0, payload);
        packet
    }

    fn gap(layout: Layout, payload: &[u8], params: usize) -> Gap {
        match types(layout, payload, params) {
            Types::Earlier(gap) => gap,
            other => panic!("{other:?}"),
        }
    }

    fn sent(layout: Layout, payload: &[u8], params: usize) -> SentTypes<'_> {
        match types(layout, payload, params) {
            Types::Sent(sent) => sent,
            other => panic!("{other:?}"),
        }
    }

    /// Sent with and without types, every layout must come out the same.
    fn filled(layout: Layout, without: &[u8], with: &[u8]) {
        let mut packet = whole(without);
        let more = fill(&mut packet, gap(layout, without, 2), LONGLONG_AND_STRING);
        assert_eq!(more, with.len() - without.len());
        assert_eq!(reframe(&mut packet), 0);
        assert_eq!(packet, whole(with), "{layout:?}");
        let types = sent(layout, with, 2);
        assert!(types.are(LONGLONG_AND_STRING) && !types.are(b"\x08\0\x08\0"));
        assert!(!types.are(b"\x08\0") && !types.are(b""));
        assert_eq!(types.to_boxed()[..], *LONGLONG_AND_STRING);
        put_id(&mut packet, 0x0403_0201);
        assert_eq!(packet[4..9], [with[0], 1, 2, 3, 4]);
        assert_eq!(packet[9..], with[5..]);
    }

    #[test]
    fn types_are_filled_in_where_they_were_left_out() {
        filled(
            Layout::Plain,
            b"\x17\x05\0\0\0\x00\x01\0\0\0\x00\x00\x07\0\0\0\0\0\0\0\x01x",
            b"\x17\x05\0\0\0\x00\x01\0\0\0\x00\x01\x08\0\xfd\0\x07\0\0\0\0\0\0\0\x01x",
        );
        filled(
            Layout::Attributes,
            b"\x17\x05\0\0\0\x08\x01\0\0\0\x02\x00\x00\x07\0\0\0\0\0\0\0\x01x",
            b"\x17\x05\0\0\0\x08\x01\0\0\0\x02\x00\x01\x08\0\0\xfd\0\0\x07\0\0\0\0\0\0\0\x01x",
        );
        filled(
            Layout::Bulk,
            b"\xfa\x05\0\0\0\x40\0\x00\x07\0\0\0\0\0\0\0\x00\x01x",
            b"\xfa\x05\0\0\0\xc0\0\x08\0\xfd\0\x00\x07\0\0\0\0\0\0\0\x00\x01x",
        );
    }

    #[test]
    fn attributes_behind_the_parameters_are_not_the_statement_s() {
        let payload =
            b"\x17\x05\0\0\0\x08\x01\0\0\0\x03\x00\x01\x08\0\x01a\xfd\0\0\x03\0\x02zz\x07";
        let types_sent = sent(Layout::Attributes, payload, 2);
        assert_eq!(types_sent.to_boxed()[..], *LONGLONG_AND_STRING);
        assert!(types_sent.are(LONGLONG_AND_STRING));
        let untyped = b"\x17\x05\0\0\0\x08\x01\0\0\0\x03\x00\x00\x07";
        assert_eq!(types(Layout::Attributes, untyped, 2), Types::Odd);
        let too_few = b"\x17\x05\0\0\0\x08\x01\0\0\0\x01\x00\x00\x07";
        assert_eq!(types(Layout::Attributes, too_few, 2), Types::Odd);
        assert_eq!(types(Layout::Attributes, too_few, 0), Types::None);
    }

    #[test]
    fn what_is_cut_is_incomplete_at_every_byte_up_to_the_types() {
        let plain = b"\x17\x05\0\0\0\x00\x01\0\0\0\x00\x01\x08\0\xfd\0";
        let named = b"\x17\x05\0\0\0\x00\x01\0\0\0\x02\x00\x01\x08\0\x01a\xfd\0\0";
        let bulk = b"\xfa\x05\0\0\0\xc0\0\x08\0\xfd\0";
        let cases: [(Layout, &[u8]); 3] = [
            (Layout::Plain, plain),
            (Layout::Attributes, named),
            (Layout::Bulk, bulk),
        ];
        for (layout, payload) in cases {
            for cut in 0..payload.len() {
                let types = types(layout, &payload[..cut], 2);
                assert_eq!(types, Types::Incomplete, "{layout:?} cut at {cut}");
            }
            assert!(matches!(types(layout, payload, 2), Types::Sent(_)));
        }
    }

    #[test]
    fn a_cursor_is_asked_for_by_flags() {
        assert!(wants_cursor(Layout::Plain, b"\x17\x05\0\0\0\x01"));
        assert!(!wants_cursor(Layout::Plain, b"\x17\x05\0\0\0\x08"));
        assert!(!wants_cursor(Layout::Bulk, b"\xfa\x05\0\0\0\xc1"));
    }

    #[test]
    fn a_packet_that_grows_too_large_becomes_two() {
        for over in [0, 1, 3] {
            let mut payload = b"\x17\x05\0\0\0\x00\x01\0\0\0\x00\x00".to_vec();
            payload.resize(MAX_PAYLOAD - 4 + over, 7);
            let mut packet = whole(&payload);
            let gap = gap(Layout::Plain, &payload, 2);
            fill(&mut packet, gap, LONGLONG_AND_STRING);
            assert_eq!(reframe(&mut packet), 1);
            payload[11] = 1;
            payload.splice(12..12, LONGLONG_AND_STRING.iter().copied());
            let taken = take_packet(&mut packet, usize::MAX).unwrap().unwrap();
            assert!(taken.payload == payload && packet.is_empty());
        }
    }
}
