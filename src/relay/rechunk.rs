//! A command of several packets that has grown on its way: cut anew, because all packets but the last
//! must be of the largest size.

use bytes::{Buf, BytesMut};

use crate::protocol::packet::{HEADER_LEN, Header, MAX_PAYLOAD};

/// Cuts one command anew. What is in the client's input may be longer than its first header says.
#[derive(Debug)]
pub(super) struct Rechunk {
    /// Bytes by which the first packet has grown.
    more: usize,
    /// Payload bytes, of packets whose headers were seen, that still come.
    coming: usize,
    /// No packet of the client's comes any more.
    last: bool,
    /// Payload bytes that the packet being sent still lacks.
    lacking: usize,
    /// The packet being sent is the last.
    closing: bool,
    /// Sequence id of the next packet sent.
    seq: u8,
    /// The same on the client's side.
    client_seq: u8,
}

impl Rechunk {
    pub(super) const fn new(more: usize) -> Self {
        Self {
            more,
            coming: 0,
            last: false,
            lacking: 0,
            closing: false,
            seq: 0,
            client_seq: 0,
        }
    }

    /// Whether all has been moved.
    pub(super) const fn is_over(&self) -> bool {
        self.closing && self.lacking == 0
    }

    /// The client's sequence id behind its last packet.
    pub(super) const fn client_seq(&self) -> u8 {
        self.client_seq
    }

    /// Packets sent beyond the client's.
    pub(super) const fn ahead(&self) -> u8 {
        self.seq.wrapping_sub(self.client_seq)
    }

    /// Moves what can be moved from the client's input to the backend's output; how many bytes were put there.
    pub(super) fn take(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> usize {
        let before = output.len();
        while !self.is_over() {
            if self.lacking == 0 && !self.begin(input, output) {
                break;
            }
            let moved = self.lacking.min(input.len());
            output.extend_from_slice(&input[..moved]);
            input.advance(moved);
            self.lacking -= moved;
            self.coming -= moved;
            if self.lacking > 0 {
                break;
            }
        }
        output.len() - before
    }

    /// Begins the next packet; `false` when its length is not known yet.
    fn begin(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> bool {
        while self.coming < MAX_PAYLOAD && !self.last {
            if !self.read_header(input) {
                return false;
            }
        }
        let len = self.coming.min(MAX_PAYLOAD);
        self.closing = len < MAX_PAYLOAD;
        self.lacking = len;
        let seq = self.seq;
        output.extend_from_slice(&Header { len, seq }.to_bytes());
        self.seq = seq.wrapping_add(1);
        true
    }

    /// Takes the client's next header out of the input, where it stands behind the few bytes that still come of the
    /// packet before it.
    fn read_header(&mut self, input: &mut BytesMut) -> bool {
        let Some(header) = input.get(self.coming..).and_then(Header::peek) else {
            return false;
        };
        input.copy_within(..self.coming, HEADER_LEN);
        input.advance(HEADER_LEN);
        self.coming += header.len + std::mem::take(&mut self.more);
        self.last = header.len < MAX_PAYLOAD;
        self.client_seq = header.seq.wrapping_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::packet::{put_packet, take_packet};

    #[test]
    fn what_has_grown_is_cut_where_servers_expect_it() {
        for rest in [
            0,
            1,
            7,
            MAX_PAYLOAD - 8,
            MAX_PAYLOAD - 7,
            MAX_PAYLOAD - 1,
            MAX_PAYLOAD,
        ] {
            let mut payload: Vec<u8> = (0..MAX_PAYLOAD + rest).map(|i| i as u8).collect();
            let mut sent = BytesMut::new();
            let client_seq = put_packet(&mut sent, 0, &payload);
            let grown = [1, 2, 3, 4, 5, 6, 7];
            let at = 10;
            let tail = sent.split_off(HEADER_LEN + at);
            sent.extend_from_slice(&grown);
            sent.unsplit(tail);
            payload.splice(at..at, grown);
            sent.extend_from_slice(b"\x01\0\0\0\x0e");
            for piece in [usize::MAX, 1 << 20, 3_000_001] {
                let mut rechunk = Rechunk::new(grown.len());
                let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
                for piece in sent.chunks(piece) {
                    input.extend_from_slice(piece);
                    rechunk.take(&mut input, &mut output);
                }
                assert!(rechunk.is_over(), "{rest} by {piece}");
                assert_eq!(input[..], b"\x01\0\0\0\x0e"[..], "{rest} by {piece}");
                assert_eq!(rechunk.client_seq(), client_seq);
                let mut expected = BytesMut::new();
                let seq = put_packet(&mut expected, 0, &payload);
                assert!(output == expected, "{rest} by {piece}");
                assert_eq!(rechunk.ahead(), seq.wrapping_sub(client_seq));
                let whole = take_packet(&mut output, usize::MAX).unwrap().unwrap();
                assert!(whole.payload == payload);
            }
        }
    }
}
