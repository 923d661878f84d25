use proptest::prelude::*;

use super::*;
use crate::protocol::command::{Command, ResponseShape as Shape};

const CLASSIC: Framing = Framing::CLASSIC;
const MODERN: Framing = Framing::MODERN;

const OK_LAST: &[u8] = b"\0\0\0\x02\0\0\0";
const OK_MORE: &[u8] = b"\0\0\0\x0a\0\0\0";
const ERR_PACKET: &[u8] = b"\xff\x7a\x04#42S02gone";
const COLUMN: &[u8] = b"\x03def\0\0\0\x01a\0\x0c\x3f\0\x02\0\0\0\x08\x81\0\0\0\0";
const EOF_LAST: &[u8] = b"\xfe\0\0\x02\0";
const EOF_MORE: &[u8] = b"\xfe\0\0\x0a\0";
const EOF_CURSOR: &[u8] = b"\xfe\0\0\x42\0";
const END_LAST: &[u8] = b"\xfe\0\0\x02\0\0\0";
const END_MORE: &[u8] = b"\xfe\0\0\x0a\0\0\0";
const END_CURSOR: &[u8] = b"\xfe\0\0\x42\0\0\0";
const ROW: &[u8] = b"\x01a";
const NULL_ROW: &[u8] = b"\xfb";
const BINARY_ROW: &[u8] = b"\0\0\x01\0\0\0";

/// A letter for each kind of packet, so that a whole answer reads as a word.
fn letter(packet: &Packet<'_>) -> char {
    match packet {
        Packet::Continuation => '+',
        Packet::Row => 'r',
        Packet::Column { last: false } => 'c',
        Packet::Column { last: true } => 'C',
        Packet::ColumnCount(_) => '#',
        Packet::ColumnsEnd(_) => '|',
        Packet::Ok(_) => 'O',
        Packet::EndOk(_) => 'E',
        Packet::EndEof(_) => 'e',
        Packet::Err(_) => 'X',
        Packet::Notice(_) => 'N',
        Packet::LocalInfile => 'F',
        Packet::PrepareOk(_) => 'P',
        Packet::Definition { last: false } => 'd',
        Packet::Definition { last: true } => 'D',
        Packet::DefinitionsEnd(_) => ']',
        Packet::Text => 't',
    }
}

/// Feeds whole packets and spells what they are. A packet is offered byte by byte first: with too little
/// of it the tracker must ask for more or already know.
fn spell(shape: Shape, framing: Framing, packets: &[&[u8]]) -> Result<String, Violation> {
    let mut tracker = ResponseTracker::new(shape, framing, 1);
    let (mut word, mut seq) = (String::new(), 1);
    for payload in packets {
        assert!(!tracker.is_over(), "over after {word}");
        let header = Header {
            len: payload.len(),
            seq,
        };
        let mut early = None;
        for there in 0..payload.len() {
            let mut probe = tracker.clone();
            match probe.next(header, &payload[..there])? {
                Step::Packet(packet) => early = early.or(Some(letter(&packet))),
                Step::NeedFirstByte => assert_eq!(there, 0),
                Step::NeedWhole => assert!(there > 0 && early.is_none()),
            }
        }
        match tracker.next(header, payload)? {
            Step::Packet(packet) => {
                word.push(letter(&packet));
                assert!(early.is_none_or(|early| early == letter(&packet)));
            }
            step => panic!("{step:?} for a whole packet after {word}"),
        }
        if tracker.awaits_file() {
            seq += 2;
            tracker.file_sent(seq + 1);
        }
        seq += 1;
        assert_eq!(tracker.next_seq(), seq);
    }
    assert!(tracker.is_over(), "not over after {word}");
    Ok(word)
}

/// An answer's shape, its packets, and what they are.
type Case = (Shape, &'static [&'static [u8]], &'static str);

/// The first packet of a PREPARE answer.
const fn prepare(params: u8, columns: u8) -> [u8; 12] {
    [0, 1, 0, 0, 0, columns, 0, params, 0, 0, 0, 0]
}

const MODERN_ANSWERS: &[Case] = &[
    (Shape::Query, &[OK_LAST], "O"),
    (Shape::Query, &[ERR_PACKET], "X"),
    (Shape::Query, &[OK_MORE, OK_MORE, OK_LAST], "OOO"),
    (Shape::Query, &[OK_MORE, ERR_PACKET], "OX"),
    (Shape::Query, &[&[1], COLUMN, END_LAST], "#CE"),
    (Shape::Query, &[&[1], COLUMN, ROW, END_LAST], "#CrE"),
    (
        Shape::Query,
        &[&[2], COLUMN, COLUMN, ROW, NULL_ROW, ROW, END_LAST],
        "#cCrrrE",
    ),
    (Shape::Query, &[&[1], COLUMN, ROW, ERR_PACKET], "#CrX"),
    (Shape::Query, &[&[1], COLUMN, ERR_PACKET], "#CX"),
    (Shape::Query, &[&[1], ERR_PACKET], "#X"),
    (
        Shape::Query,
        &[&[1], COLUMN, ROW, END_MORE, OK_LAST],
        "#CrEO",
    ),
    (
        Shape::Query,
        &[&[1], COLUMN, END_MORE, &[1], COLUMN, ROW, END_LAST],
        "#CE#CrE",
    ),
    (Shape::Query, &[b"\xfbx.csv", OK_LAST], "FO"),
    (Shape::Query, &[b"\xfbx.csv", ERR_PACKET], "FX"),
    (
        Shape::Query,
        &[OK_MORE, b"\xfbx.csv", OK_MORE, OK_LAST],
        "OFOO",
    ),
    (Shape::Execute, &[OK_LAST], "O"),
    (
        Shape::Execute,
        &[&[1], COLUMN, BINARY_ROW, END_LAST],
        "#CrE",
    ),
    (Shape::Execute, &[&[1], COLUMN, END_CURSOR], "#CE"),
    (
        Shape::Execute,
        &[&[1], COLUMN, BINARY_ROW, END_MORE, OK_LAST],
        "#CrEO",
    ),
    (Shape::Fetch, &[END_LAST], "E"),
    (Shape::Fetch, &[BINARY_ROW, BINARY_ROW, END_CURSOR], "rrE"),
    (Shape::Fetch, &[ERR_PACKET], "X"),
    (Shape::Fetch, &[BINARY_ROW, ERR_PACKET], "rX"),
    (Shape::FieldList, &[END_LAST], "E"),
    (Shape::FieldList, &[COLUMN, COLUMN, END_LAST], "ccE"),
    (Shape::FieldList, &[ERR_PACKET], "X"),
    (Shape::Single, &[OK_LAST], "O"),
    (Shape::Single, &[ERR_PACKET], "X"),
    (Shape::Single, &[END_LAST], "E"),
    (Shape::Single, &[EOF_LAST], "e"),
    (Shape::Single, &[OK_MORE], "O"),
    (Shape::Text, &[b"Uptime: 1"], "t"),
    (Shape::Text, &[b""], "t"),
    (Shape::Text, &[ERR_PACKET], "X"),
    (Shape::Prepare, &[ERR_PACKET], "X"),
    (Shape::Prepare, &[&prepare(0, 0)], "P"),
    (Shape::Prepare, &[&prepare(2, 0), COLUMN, COLUMN], "PdD"),
    (Shape::Prepare, &[&prepare(0, 1), COLUMN], "PD"),
    (
        Shape::Prepare,
        &[&prepare(1, 2), COLUMN, COLUMN, COLUMN],
        "PDdD",
    ),
    (Shape::Prepare, &[&prepare(1, 2), COLUMN, ERR_PACKET], "PDX"),
];

#[test]
fn answers_of_every_shape_in_modern_framing() {
    for (shape, packets, expected) in MODERN_ANSWERS {
        let word = spell(*shape, MODERN, packets);
        assert_eq!(word.as_deref(), Ok(*expected), "{shape:?} {packets:x?}");
    }
}

const OUT_PARAMS_EOF: &[u8] = b"\xfe\0\0\x0a\x10";
const LONG_FE: &[u8] = b"\xfe\0\0\0\0\x01\0\0\0";
const CLASSIC_ANSWERS: &[Case] = &[
    (Shape::Query, &[OK_LAST], "O"),
    (Shape::Query, &[&[1], COLUMN, EOF_LAST, EOF_LAST], "#C|e"),
    (
        Shape::Query,
        &[&[1], COLUMN, EOF_LAST, ROW, EOF_LAST],
        "#C|re",
    ),
    (
        Shape::Query,
        &[&[1], COLUMN, EOF_LAST, LONG_FE, EOF_LAST],
        "#C|re",
    ),
    (
        Shape::Query,
        &[&[1], COLUMN, EOF_LAST, ROW, ERR_PACKET],
        "#C|rX",
    ),
    (Shape::Query, &[&[1], COLUMN, ERR_PACKET], "#CX"),
    (
        Shape::Query,
        &[
            &[1],
            COLUMN,
            EOF_MORE,
            ROW,
            EOF_MORE,
            &[1],
            COLUMN,
            EOF_LAST,
            EOF_LAST,
        ],
        "#C|re#C|e",
    ),
    (Shape::Query, &[b"\xfbx.csv", OK_LAST], "FO"),
    (Shape::Execute, &[&[1], COLUMN, EOF_CURSOR], "#Ce"),
    (
        Shape::Execute,
        &[&[1], COLUMN, EOF_LAST, BINARY_ROW, EOF_LAST],
        "#C|re",
    ),
    // MySQL's OUT parameters: the second EOF says that nothing follows, and an OK does.
    (
        Shape::Execute,
        &[&[1], COLUMN, OUT_PARAMS_EOF, BINARY_ROW, EOF_LAST, OK_LAST],
        "#C|reO",
    ),
    (Shape::Fetch, &[BINARY_ROW, EOF_CURSOR], "re"),
    (Shape::Fetch, &[EOF_LAST], "e"),
    (Shape::FieldList, &[COLUMN, EOF_LAST], "ce"),
    (Shape::Single, &[EOF_LAST], "e"),
    (Shape::Single, &[OK_LAST], "O"),
    (Shape::Prepare, &[&prepare(0, 0)], "P"),
    (
        Shape::Prepare,
        &[&prepare(2, 0), COLUMN, COLUMN, EOF_LAST],
        "PdD]",
    ),
    (Shape::Prepare, &[&prepare(0, 1), COLUMN, EOF_LAST], "PD]"),
    (
        Shape::Prepare,
        &[&prepare(1, 1), COLUMN, EOF_LAST, COLUMN, EOF_LAST],
        "PD]D]",
    ),
];

#[test]
fn answers_of_every_shape_in_classic_framing() {
    for (shape, packets, expected) in CLASSIC_ANSWERS {
        let word = spell(*shape, CLASSIC, packets);
        assert_eq!(word.as_deref(), Ok(*expected), "{shape:?} {packets:x?}");
    }
}

#[test]
fn what_has_no_place_is_a_violation() {
    let table: &[(Shape, Framing, &[&[u8]])] = &[
        (Shape::Query, MODERN, &[b""]),
        (Shape::Query, MODERN, &[END_LAST]),
        (Shape::Query, MODERN, &[b"\0\0"]),
        (Shape::Query, MODERN, &[b"\xff\0"]),
        (Shape::Query, MODERN, &[b"\x01\x02"]),
        (Shape::Query, MODERN, &[&[1], b""]),
        (Shape::Query, MODERN, &[&[1], END_LAST]),
        (Shape::Query, MODERN, &[&[1], COLUMN, b""]),
        (Shape::Query, MODERN, &[&[1], COLUMN, EOF_LAST]),
        (Shape::Query, CLASSIC, &[&[1], COLUMN, ROW]),
        (Shape::Query, CLASSIC, &[&[1], COLUMN, b"\xfe\0\0"]),
        (Shape::Single, MODERN, &[&[1]]),
        (Shape::Single, MODERN, &[b"\xfbx.csv"]),
        (Shape::Single, MODERN, &[b""]),
        (Shape::Prepare, MODERN, &[&[1]]),
        (Shape::Prepare, MODERN, &[OK_LAST]),
        (Shape::FieldList, MODERN, &[b""]),
        (Shape::Fetch, MODERN, &[b""]),
    ];
    for (shape, framing, packets) in table {
        let word = spell(*shape, *framing, packets);
        assert!(word.is_err(), "{shape:?} {packets:x?}: {word:?}");
    }
}

#[test]
fn sequence_ids_must_follow() {
    for got in [0, 2, 255] {
        let mut tracker = ResponseTracker::new(Shape::Query, MODERN, 1);
        let header = Header { len: 7, seq: got };
        let expected = Violation::OutOfOrder { expected: 1, got };
        assert_eq!(tracker.next(header, OK_LAST), Err(expected));
    }
    let mut tracker = ResponseTracker::new(Shape::Fetch, MODERN, 255);
    let row = |seq| Header { len: 6, seq };
    assert_eq!(
        tracker.next(row(255), BINARY_ROW),
        Ok(Step::Packet(Packet::Row))
    );
    assert_eq!(
        tracker.next(row(0), BINARY_ROW),
        Ok(Step::Packet(Packet::Row))
    );
    assert!(tracker.next(row(3), BINARY_ROW).is_err());
}

#[test]
fn an_error_of_sequence_id_0_is_a_notice_only_in_front() {
    for shape in [Shape::Query, Shape::Fetch, Shape::FieldList, Shape::Prepare] {
        let mut tracker = ResponseTracker::new(shape, MODERN, 1);
        let header = Header {
            len: ERR_PACKET.len(),
            seq: 0,
        };
        assert_eq!(tracker.next(header, &ERR_PACKET[..3]), Ok(Step::NeedWhole));
        match tracker.next(header, ERR_PACKET) {
            Ok(Step::Packet(Packet::Notice(err))) => assert_eq!(err.code, 1146),
            other => panic!("{other:?}"),
        }
        assert!(tracker.is_over());
    }
    let mut tracker = ResponseTracker::new(Shape::Fetch, MODERN, 1);
    let row = Header { len: 6, seq: 1 };
    assert!(tracker.next(row, BINARY_ROW).is_ok());
    let err = Header {
        len: ERR_PACKET.len(),
        seq: 0,
    };
    assert!(tracker.next(err, ERR_PACKET).is_err());
}

#[test]
fn full_packets_are_continued() {
    let full = |seq| Header {
        len: MAX_PAYLOAD,
        seq,
    };
    for first in [0xfd, 0xfe] {
        let mut tracker = ResponseTracker::new(Shape::Fetch, MODERN, 1);
        assert_eq!(
            tracker.next(full(1), &[first]),
            Ok(Step::Packet(Packet::Row))
        );
        let more = tracker.next(full(2), &[0xfe]);
        assert_eq!(more, Ok(Step::Packet(Packet::Continuation)));
        let last = tracker.next(Header { len: 0, seq: 3 }, b"");
        assert_eq!(last, Ok(Step::Packet(Packet::Continuation)));
        let end = tracker.next(Header { len: 7, seq: 4 }, END_LAST);
        assert!(matches!(end, Ok(Step::Packet(Packet::EndOk(_)))));
        assert!(tracker.is_over());
    }
}

#[test]
fn every_command_has_a_tracker_that_fits_its_shape() {
    for command in Command::ALL {
        let tracker = ResponseTracker::new(command.shape(), MODERN, 1);
        let silent = matches!(command.shape(), Shape::None | Shape::Login | Shape::Refused);
        assert_eq!(tracker.is_over(), silent, "{command:?}");
    }
}

proptest! {
    #[test]
    fn any_packets_are_survived(
        shape in prop::sample::select(vec![
            Shape::Query, Shape::Execute, Shape::Fetch, Shape::FieldList,
            Shape::Prepare, Shape::Single, Shape::Text, Shape::None,
        ]),
        deprecate_eof: bool,
        session_track: bool,
        packets in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..20), 0_usize..25), 0..20
        ),
    ) {
        let framing = Framing { deprecate_eof, session_track };
        let mut tracker = ResponseTracker::new(shape, framing, 1);
        for (payload, len) in packets {
            let header = Header { len: len.max(payload.len()), seq: tracker.next_seq() };
            if tracker.next(header, &payload).is_err() {
                break;
            }
        }
    }
}
