//! A statement too large to be held, looked at while it passes.

use super::lexer::{Lexer, Token};
use super::{Flags, LexMode, Scanner, statement};
use crate::protocol::capability::Capabilities;
use crate::protocol::packet::{HEADER_LEN, Header};

/// Bytes kept of the beginning, to find the first word behind comments.
const HEAD: usize = 256;
/// Bytes kept between two pieces: longer than any alarm.
const OVERLAP: usize = 32;

/// Looks for alarms in the text of a command of several packets. Memory is bounded.
#[derive(Debug)]
pub struct StreamScan<'s> {
    scanner: &'s Scanner,
    /// What stands in front of the text in the first packet, as it must be.
    prefix: &'static [u8],
    /// Bytes of `prefix` seen.
    prefix_seen: usize,
    header: Vec<u8>,
    /// Bytes of the current packet still to come.
    left: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
    alarmed: bool,
}

impl<'s> StreamScan<'s> {
    /// A scan of a `COM_QUERY`, packet headers and all. With query attributes the text begins behind them;
    /// it is only read where there are none.
    pub fn of_query(scanner: &'s Scanner, capabilities: Capabilities) -> Self {
        let attributes = capabilities.contains(Capabilities::QUERY_ATTRIBUTES);
        Self {
            scanner,
            prefix: if attributes { b"\x03\0\x01" } else { b"\x03" },
            prefix_seen: 0,
            header: Vec::with_capacity(HEADER_LEN),
            left: 0,
            head: Vec::with_capacity(HEAD),
            tail: Vec::with_capacity(2 * OVERLAP),
            alarmed: false,
        }
    }

    /// Looks at the next piece of the command.
    pub fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.alarmed {
            if self.left == 0 {
                let (header, rest) =
                    bytes.split_at(bytes.len().min(HEADER_LEN - self.header.len()));
                self.header.extend_from_slice(header);
                bytes = rest;
                if self.header.len() == HEADER_LEN {
                    self.left = Header::peek(&self.header).map_or(0, |header| header.len);
                    self.header.clear();
                }
                continue;
            }
            let (text, rest) = bytes.split_at(bytes.len().min(self.left));
            self.left -= text.len();
            bytes = rest;
            self.see_text(text);
        }
    }

    /// What the statement may do, if its first word tells everything; `None`: anything.
    pub fn verdict(&self, mode: LexMode) -> Option<Flags> {
        if self.alarmed || self.prefix_seen < self.prefix.len() {
            return None;
        }
        let mut lexer = Lexer::new(&self.head, mode);
        let first = lexer.next();
        match first {
            Some(Token::Word(word)) if lexer.position() < self.head.len() => {
                statement::plain_kind(word)
            }
            _ => None,
        }
    }

    fn see_text(&mut self, mut text: &[u8]) {
        while let (Some(&expected), Some((&byte, rest))) =
            (self.prefix.get(self.prefix_seen), text.split_first())
        {
            self.alarmed |= byte != expected;
            self.prefix_seen += 1;
            text = rest;
        }
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&text[..text.len().min(room)]);
        // An alarm may stand across the border.
        self.tail
            .extend_from_slice(&text[..text.len().min(OVERLAP)]);
        self.alarmed |=
            self.scanner.prefilter.is_match(&self.tail) || self.scanner.prefilter.is_match(text);
        let rest = &text[text.len().min(OVERLAP)..];
        self.tail
            .extend_from_slice(&rest[rest.len().saturating_sub(OVERLAP)..]);
        let excess = self.tail.len().saturating_sub(OVERLAP);
        self.tail.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::ALARMS;
    use super::*;
    use crate::protocol::packet::put_packet;

    fn verdict(command: &[u8], attributes: bool, piece: usize) -> Option<Flags> {
        let scanner = Scanner::default();
        let capabilities = match attributes {
            true => Capabilities::QUERY_ATTRIBUTES,
            false => Capabilities::default(),
        };
        let mut scan = StreamScan::of_query(&scanner, capabilities);
        let mut packets = BytesMut::new();
        // In packets of 100 bytes, which is as good as 16 MB here.
        for (seq, part) in command.chunks(100).enumerate() {
            put_packet(&mut packets, u8::try_from(seq).unwrap(), part);
        }
        for piece in packets.chunks(piece) {
            scan.see(piece);
        }
        scan.verdict(LexMode::default())
    }

    #[test]
    fn a_plain_statement_without_an_alarm_is_told_by_its_first_word() {
        let insert = format!("\x03/* x */ INSERT INTO t VALUES ('{}')", "a".repeat(1000));
        let select = format!("\x03SELECT '{}'", "a".repeat(1000));
        for piece in [1, 7, 64, 10_000] {
            let expected = Some(Flags::WRITE | Flags::INSERT);
            assert_eq!(verdict(insert.as_bytes(), false, piece), expected);
            assert_eq!(verdict(select.as_bytes(), false, piece), Some(Flags::NONE));
        }
    }

    #[test]
    fn an_alarm_anywhere_is_found() {
        for alarm in ALARMS {
            for (before, piece) in [(90, 1), (97, 7), (99, 64), (500, 33), (40, 10_000)] {
                let (a, b) = ("a".repeat(before), "b".repeat(300));
                let sql = format!("\x03SELECT '{a} {alarm} {b}'");
                assert_eq!(
                    verdict(sql.as_bytes(), false, piece),
                    None,
                    "{alarm} {piece}"
                );
            }
        }
        let set = format!("\x03SET NAMES '{}'", "a".repeat(300));
        assert_eq!(verdict(set.as_bytes(), false, 64), None);
    }

    #[test]
    fn attributes_are_not_read() {
        let none = format!("\x03\0\x01SELECT '{}'", "a".repeat(300));
        assert_eq!(verdict(none.as_bytes(), true, 9), Some(Flags::NONE));
        let some = format!("\x03\x01\x01SELECT '{}'", "a".repeat(300));
        assert_eq!(verdict(some.as_bytes(), true, 9), None);
    }
}
