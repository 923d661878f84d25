//! Answers made up from a model: every command × every legal reply × both framings × sizes, and at random.
//! The model renders itself in either framing by the table of DESIGN 7.9, so that translation can be
//! compared without a server.

use bytes::BytesMut;
use proptest::prelude::*;

use super::translation::{request, translate};
use crate::protocol::command::{Command, ResponseShape};
use crate::protocol::packet::{Header, put_lenenc_str, put_packet};
use crate::protocol::reply::{
    SessionChange, StatusFlags, TextColumn, TextResultSet, put_eof, put_err, put_session_change,
};
use crate::protocol::response::Framing;
use crate::relay::TrackerFilter;

const FRAMINGS: [Framing; 4] = [
    Framing::MODERN,
    Framing::CLASSIC,
    Framing {
        deprecate_eof: true,
        session_track: false,
    },
    Framing {
        deprecate_eof: false,
        session_track: true,
    },
];

/// One result within an answer.
#[derive(Debug, Clone)]
enum Reply {
    Ok {
        info: bool,
        tracked: bool,
    },
    /// OK with header 0xfe.
    Eof,
    Err,
    Rows {
        columns: u8,
        rows: Vec<u16>,
        tracked: bool,
    },
    /// Column definitions, some rows, ERR.
    BrokenRows {
        columns: u8,
        rows: u8,
    },
    Cursor {
        columns: u8,
    },
    Fetched {
        rows: u8,
    },
    Fields {
        columns: u8,
    },
    Prepared {
        params: u8,
        columns: u8,
    },
    Text,
}

/// Writes an answer.
struct Pen {
    out: BytesMut,
    seq: u8,
    framing: Framing,
}

impl Pen {
    fn put(&mut self, payload: &[u8]) {
        self.seq = put_packet(&mut self.out, self.seq, payload);
    }

    fn eof(&mut self, flags: u16) {
        self.seq = put_eof(&mut self.out, self.seq, false, StatusFlags(flags), 0);
    }

    fn columns(&mut self, count: u8) {
        let mut set = BytesMut::new();
        let columns = vec![TextColumn::text("some_name"); usize::from(count)];
        TextResultSet::begin(&mut set, 0, true, StatusFlags(0), &columns);
        let mut rest = &set[5..];
        while let Some(header) = Header::peek(rest) {
            self.put(&rest[4..4 + header.len]);
            rest = &rest[4 + header.len..];
        }
    }

    /// An OK packet, or the EOF that stands for it.
    fn ok(&mut self, header: u8, flags: u16, info: bool, tracked: bool) {
        if header == 0xfe && !self.framing.deprecate_eof {
            return self.eof(flags);
        }
        let tracked = tracked && self.framing.session_track;
        let flags = if tracked { flags | 0x4000 } else { flags };
        let mut payload = vec![header, 0, 0];
        payload.extend_from_slice(&flags.to_le_bytes());
        payload.extend_from_slice(&[0, 0]);
        if info || tracked {
            put_lenenc_str(&mut payload, if info { b"Records: 1" } else { b"" });
        }
        if tracked {
            let mut items = Vec::new();
            put_session_change(&mut items, &SessionChange::Schema(b"shop"));
            put_lenenc_str(&mut payload, &items);
        }
        self.put(&payload);
    }

    fn err(&mut self) {
        self.seq = put_err(&mut self.out, self.seq, 1146, *b"42S02", "no such table");
    }

    fn reply(&mut self, reply: &Reply, more: bool) {
        let classic = !self.framing.deprecate_eof;
        let flags = if more { 0x000a } else { 0x0002 };
        match reply {
            Reply::Ok { info, tracked } => self.ok(0, flags, *info, *tracked),
            Reply::Eof => self.ok(0xfe, flags, false, false),
            Reply::Err => self.err(),
            Reply::Text => self.put(b"Uptime: 7"),
            Reply::Rows {
                columns,
                rows,
                tracked,
            } => {
                self.put(&[*columns]);
                self.columns(*columns);
                if classic {
                    self.eof(flags);
                }
                for len in rows {
                    self.put(&vec![b' '; usize::from(*len) + 1]);
                }
                self.ok(0xfe, flags, false, *tracked);
            }
            Reply::BrokenRows { columns, rows } => {
                self.put(&[*columns]);
                self.columns(*columns);
                if classic {
                    self.eof(0x0002);
                }
                for _ in 0..*rows {
                    self.put(b"\x01a");
                }
                self.err();
            }
            Reply::Cursor { columns } => {
                self.put(&[*columns]);
                self.columns(*columns);
                self.ok(0xfe, flags | 0x40, false, false);
            }
            Reply::Fetched { rows } => {
                for _ in 0..*rows {
                    self.put(b"\0\0\x01\0\0\0");
                }
                self.ok(0xfe, 0x82, false, false);
            }
            Reply::Fields { columns } => {
                self.columns(*columns);
                self.ok(0xfe, flags, false, false);
            }
            Reply::Prepared { params, columns } => {
                self.put(&[0, 1, 0, 0, 0, *columns, 0, *params, 0, 0, 0, 0]);
                for count in [*params, *columns] {
                    self.columns(count);
                    if classic && count > 0 {
                        self.eof(0x0002);
                    }
                }
            }
        }
    }
}

fn render(replies: &[Reply], framing: Framing) -> BytesMut {
    let mut pen = Pen {
        out: BytesMut::new(),
        seq: 1,
        framing,
    };
    for (index, reply) in replies.iter().enumerate() {
        pen.reply(reply, index + 1 < replies.len());
    }
    pen.out
}

/// Every legal answer of this shape, in sizes.
fn legal(shape: ResponseShape) -> Vec<Vec<Reply>> {
    let oks = [(false, false), (true, false), (false, true), (true, true)]
        .map(|(info, tracked)| Reply::Ok { info, tracked });
    let sizes = |columns| {
        [vec![], vec![0], vec![1, 2, 300], vec![0; 300]]
            .into_iter()
            .map(move |rows| Reply::Rows {
                columns,
                tracked: rows.len() == 1,
                rows,
            })
    };
    let single = |replies: Vec<Reply>| replies.into_iter().map(|reply| vec![reply]).collect();
    let mut answers: Vec<Vec<Reply>> = match shape {
        ResponseShape::Single => single([&oks[..], &[Reply::Eof]].concat()),
        ResponseShape::Text => single(vec![Reply::Text]),
        ResponseShape::Fetch => single([0, 1, 3].map(|rows| Reply::Fetched { rows }).into()),
        ResponseShape::FieldList => {
            single([0, 1, 9].map(|columns| Reply::Fields { columns }).into())
        }
        ResponseShape::Prepare => [(0, 0), (1, 0), (3, 0), (0, 1), (0, 3), (1, 1), (3, 9)]
            .map(|(params, columns)| vec![Reply::Prepared { params, columns }])
            .into(),
        ResponseShape::Query | ResponseShape::Execute => {
            let mut results = oks.to_vec();
            results.extend(sizes(1).chain(sizes(40)));
            let mut last = results.clone();
            last.push(Reply::Err);
            last.extend([0, 1, 3].map(|rows| Reply::BrokenRows { columns: 2, rows }));
            if shape == ResponseShape::Execute {
                last.extend([1, 5].map(|columns| Reply::Cursor { columns }));
            }
            let pairs = results
                .iter()
                .flat_map(|a| last.iter().map(move |b| vec![a.clone(), b.clone()]));
            pairs
                .chain(last.iter().map(|reply| vec![reply.clone()]))
                .collect()
        }
        ResponseShape::None | ResponseShape::Login | ResponseShape::Refused => Vec::new(),
    };
    if !answers.is_empty() {
        answers.push(vec![Reply::Err]);
    }
    answers
}

fn check(shape: ResponseShape, replies: &[Reply], chunks: &[usize]) {
    for backend in FRAMINGS {
        let input = render(replies, backend);
        for client in FRAMINGS {
            // What the backend never tracked cannot appear.
            if client.session_track && !backend.session_track {
                continue;
            }
            // Nor what an EOF packet left out.
            if client.deprecate_eof && !backend.deprecate_eof && client.session_track {
                continue;
            }
            let expected = render(replies, client);
            let default = TrackerFilter::default();
            for &chunk in chunks {
                let request = request(shape, backend, client, &default);
                let got = translate(&input, chunk, false, &request).unwrap();
                assert!(
                    got.bytes == expected[..],
                    "{shape:?} {replies:?} {backend:?} -> {client:?} by {chunk}\n got {:02x?}\nwant {:02x?}",
                    got.bytes,
                    &expected[..]
                );
            }
        }
    }
}

#[test]
fn every_command_with_every_legal_answer_in_every_framing_and_size() {
    let mut shapes = Vec::new();
    for command in Command::ALL {
        if !shapes.contains(&command.shape()) {
            shapes.push(command.shape());
        }
    }
    let mut count = 0;
    for shape in shapes {
        for replies in legal(shape) {
            check(shape, &replies, &[usize::MAX, 7, 1]);
            count += 1;
        }
    }
    assert!(count > 300, "{count} answers");
}

fn any_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        (any::<bool>(), any::<bool>()).prop_map(|(info, tracked)| Reply::Ok { info, tracked }),
        (
            1_u8..30,
            prop::collection::vec(0_u16..600, 0..30),
            any::<bool>()
        )
            .prop_map(|(columns, rows, tracked)| Reply::Rows {
                columns,
                rows,
                tracked
            }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_of_any_answer_gives_the_same(
        replies in prop::collection::vec(any_reply(), 1..6),
        chunk in 1_usize..200,
    ) {
        check(ResponseShape::Query, &replies, &[chunk]);
    }

    #[test]
    fn any_bytes_are_survived_in_any_cut(
        shape in prop::sample::select(
            Command::ALL.iter().map(|c| c.shape()).collect::<Vec<_>>()
        ),
        modern: bool,
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 0..12),
        chunk in 1_usize..20,
    ) {
        let backend = if modern { Framing::MODERN } else { Framing::CLASSIC };
        let mut input = BytesMut::new();
        let mut seq = 1;
        for packet in &packets {
            seq = put_packet(&mut input, seq, packet);
        }
        let filter = TrackerFilter::default();
        for client in FRAMINGS {
            let request = request(shape, backend, client, &filter);
            let whole = super::translation::try_translate(&input, usize::MAX, &request);
            let cut = super::translation::try_translate(&input, chunk, &request);
            prop_assert_eq!(whole, cut);
        }
    }
}
