//! The translator against what real servers sent: from the backend's capture each client's must come out,
//! however the bytes are cut.

use bytes::{Buf, BytesMut};

use super::captures::{Capture, MARIADB, MYSQL, Packets, SAME};
use crate::protocol::command::ResponseShape;
use crate::protocol::packet::{HEADER_LEN, Header};
use crate::protocol::reply::{OkPacket, StatusFlags};
use crate::protocol::response::{Framing, Violation};
use crate::relay::translate::{Flow, Translator};
use crate::relay::{Answer, Request, TrackerFilter};

const BOTH: Framing = Framing::MODERN;
const DEPRECATE: Framing = Framing {
    deprecate_eof: true,
    session_track: false,
};
const TRACK: Framing = Framing {
    deprecate_eof: false,
    session_track: true,
};
const CLASSIC: Framing = Framing::CLASSIC;

/// What came out of the translator.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) bytes: Vec<u8>,
    pub(super) answer: Answer,
}

/// Feeds `input` in pieces of `chunk` bytes; `flush` after each piece as if nothing else had come.
pub(super) fn translate(
    input: &[u8],
    chunk: usize,
    flush: bool,
    request: &Request<'_>,
) -> Result<Outcome, Violation> {
    let mut translator = Translator::new(request);
    let (mut read, mut out, mut bytes) = (BytesMut::new(), BytesMut::new(), Vec::new());
    let mut pieces = input.chunks(chunk);
    loop {
        let fed = translator.feed(&mut read, &mut out)?;
        out.extend_from_slice(&read[fed.tail.clone()]);
        assert!(fed.tail.end <= fed.consumed);
        read.advance(fed.consumed);
        if flush && !out.is_empty() && !translator.would_rather_wait() {
            bytes.extend_from_slice(&out.split());
            translator.sent();
        }
        match fed.flow {
            Flow::Over | Flow::Notice(_) => break,
            Flow::More => {}
            Flow::File => {
                // The captures hold what the server sent after the file: its next header tells the id.
                while read.len() < HEADER_LEN {
                    read.extend_from_slice(pieces.next().unwrap());
                }
                translator.file_sent(Header::peek(&read).unwrap().seq);
                continue;
            }
        }
        match pieces.next() {
            Some(piece) => read.extend_from_slice(piece),
            None => panic!("the answer does not end: {:?}", &read[..]),
        }
    }
    assert!(
        read.is_empty() && pieces.next().is_none(),
        "bytes are left over"
    );
    bytes.extend_from_slice(&out);
    Ok(Outcome {
        bytes,
        answer: translator.answer,
    })
}

/// Feeds bytes that need not be an answer: what came out, how it ended, and how much was taken.
pub(super) fn try_translate(
    input: &[u8],
    chunk: usize,
    request: &Request<'_>,
) -> (Vec<u8>, String) {
    let mut translator = Translator::new(request);
    let (mut read, mut out, mut taken) = (BytesMut::new(), BytesMut::new(), 0);
    let mut pieces = input.chunks(chunk);
    loop {
        let fed = match translator.feed(&mut read, &mut out) {
            Ok(fed) => fed,
            // How much was taken before a violation depends on the cut.
            Err(violation) => return (Vec::new(), violation.to_string()),
        };
        out.extend_from_slice(&read[fed.tail.clone()]);
        read.advance(fed.consumed);
        taken += fed.consumed;
        match (fed.flow, pieces.next()) {
            (Flow::More, Some(piece)) => read.extend_from_slice(piece),
            (flow, _) => return (out.to_vec(), format!("{flow:?} after {taken}")),
        }
    }
}

pub(super) fn request<'a>(
    shape: ResponseShape,
    backend: Framing,
    client: Framing,
    filter: &'a TrackerFilter,
) -> Request<'a> {
    Request {
        shape,
        own: 0,
        client,
        backend,
        filter,
        first_seq: 1,
        status: StatusFlags(2),
        statement: None,
        ahead: 0,
    }
}

/// The five byte streams of a capture.
struct Streams {
    backend: Vec<u8>,
    both: Vec<u8>,
    deprecate: Vec<u8>,
    track: Vec<u8>,
    classic: Vec<u8>,
}

impl Streams {
    fn of(capture: &Capture) -> Self {
        let mut before = capture.backend;
        let mut resolve = |packets: Packets| {
            if packets != SAME {
                before = packets;
            }
            before.concat()
        };
        Self {
            backend: resolve(capture.backend),
            both: resolve(capture.both),
            deprecate: resolve(capture.deprecate),
            track: resolve(capture.track),
            classic: resolve(capture.classic),
        }
    }
}

/// Packets with the tracking data of OK packets sorted: MariaDB reports variables in the order of a hash
/// table that differs between lists.
fn sorted_trackers(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<String>)> {
    let mut rest = bytes;
    let mut packets = Vec::new();
    while let Some(header) = Header::peek(rest) {
        let (packet, behind) = rest.split_at(HEADER_LEN + header.len);
        rest = behind;
        let payload = &packet[HEADER_LEN..];
        packets.push(match OkPacket::parse(payload, true) {
            Ok(ok) if payload[0] == 0 && !ok.session_state.is_empty() => {
                let mut changes: Vec<_> = ok
                    .session_changes()
                    .map(|change| format!("{:?}", change.unwrap()))
                    .collect();
                changes.sort();
                (packet[..HEADER_LEN + ok.info_at].to_vec(), changes)
            }
            _ => (packet.to_vec(), Vec::new()),
        });
    }
    packets
}

/// Flags of the session before the command, where they were not the usual ones.
fn status_before(name: &str) -> StatusFlags {
    StatusFlags(match name {
        "select_in_transaction" => 3,
        "select_autocommit_off" => 0,
        _ => 2,
    })
}

/// Where a dedicated connection shows something else, and why that is let be.
fn is_exempt(server: &str, name: &str, client: Framing) -> bool {
    match name {
        // MySQL 9.7 reports the transaction's state for BEGIN and COMMIT although
        // session_track_transaction_info is OFF.
        "begin" | "commit" => server == "mysql" && client.session_track,
        // MySQL clears MORE_RESULTS in the second EOF of OUT parameters, in classic framing only.
        "execute_call_out" => server == "mysql" && !client.deprecate_eof,
        _ => false,
    }
}

fn check(server: &str, capture: &Capture) {
    let streams = Streams::of(capture);
    let Streams {
        backend,
        both,
        deprecate,
        track,
        classic,
    } = &streams;
    let default = TrackerFilter::default();
    let all = TrackerFilter::All;
    let cases = [
        (backend, BOTH, BOTH, &default, both),
        (backend, BOTH, DEPRECATE, &default, deprecate),
        (backend, BOTH, TRACK, &default, track),
        (backend, BOTH, CLASSIC, &default, classic),
        (backend, BOTH, BOTH, &all, backend),
        (deprecate, DEPRECATE, DEPRECATE, &default, deprecate),
        (deprecate, DEPRECATE, CLASSIC, &default, classic),
        (track, TRACK, TRACK, &all, track),
        (track, TRACK, BOTH, &all, both),
        (classic, CLASSIC, CLASSIC, &default, classic),
        (classic, CLASSIC, DEPRECATE, &default, deprecate),
    ];
    for (input, from, to, filter, expected) in cases {
        let mut request = request(capture.command.shape(), from, to, filter);
        request.status = status_before(capture.name);
        let what = format!("{server} {} {from:?} -> {to:?}", capture.name);
        let whole = translate(input, usize::MAX, false, &request)
            .unwrap_or_else(|violation| panic!("{what}: {violation}"));
        if !is_exempt(server, capture.name, to) {
            assert_eq!(
                sorted_trackers(&whole.bytes),
                sorted_trackers(expected),
                "{what}"
            );
        }
        check_cuts(&what, input, &request, &whole);
    }
}

/// However the bytes come, the same goes out.
fn check_cuts(what: &str, input: &[u8], request: &Request<'_>, whole: &Outcome) {
    for chunk in [1, 2, 3, 7] {
        let cut = translate(input, chunk, false, request).unwrap();
        assert_eq!(&cut, whole, "{what} in pieces of {chunk}");
        // Sent piece by piece only the guessed flags of a first EOF may differ.
        let sent = translate(input, chunk, true, request).unwrap();
        assert_eq!(sent.answer, whole.answer, "{what} in pieces of {chunk}");
        assert_eq!(
            without_eof_flags(&sent.bytes),
            without_eof_flags(&whole.bytes),
            "{what} in pieces of {chunk}, sent"
        );
    }
}

/// The bytes with the flags of every 5-byte EOF made zero.
fn without_eof_flags(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(header) = bytes.get(at..).and_then(Header::peek) {
        let body = at + HEADER_LEN;
        if header.len == 5 && bytes[body] == 0xfe {
            bytes[body + 3..body + 5].fill(0);
        }
        at = body + header.len;
    }
    bytes
}

#[test]
fn each_capture_translates_to_what_a_dedicated_client_gets() {
    for capture in MARIADB {
        check("mariadb", capture);
    }
    for capture in MYSQL {
        check("mysql", capture);
    }
    assert!(MARIADB.len() > 55 && MYSQL.len() > 55);
}
