//! The relay over streams: waiting, endings of either side, back-pressure, files, uploads.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::protocol::command::ResponseShape;
use crate::protocol::packet::{MAX_PAYLOAD, put_packet};
use crate::protocol::reply::{StatusFlags, put_eof, put_err, put_ok};
use crate::protocol::response::{Framing, Violation};
use crate::relay::own::{OwnError, read_own_ok, read_own_prepared, read_own_result_set};
use crate::relay::{
    Answer, Conn, End, RelayError, Request, TrackerFilter, UploadError, relay, upload,
};

const SELECT_1: &[u8] =
    b"\x01\0\0\x01\x01\x17\0\0\x02\x03def\0\0\0\x011\0\x0c\x3f\0\x02\0\0\0\x08\x81\0\0\0\0\
    \x02\0\0\x03\x011\x07\0\0\x04\xfe\0\0\x02\0\0\0";
const SELECT_1_CLASSIC: &[u8] =
    b"\x01\0\0\x01\x01\x17\0\0\x02\x03def\0\0\0\x011\0\x0c\x3f\0\x02\0\0\0\x08\x81\0\0\0\0\
    \x05\0\0\x03\xfe\0\0\x02\0\x02\0\0\x04\x011\x05\0\0\x05\xfe\0\0\x02\0";
const OK: &[u8] = b"\x07\0\0\x01\0\0\0\x02\0\0\0";

/// Both connections of a relay, and their far ends.
struct Wire {
    client: Conn<DuplexStream>,
    backend: Conn<DuplexStream>,
    application: DuplexStream,
    server: DuplexStream,
}

fn wire(capacity: usize) -> Wire {
    let (client, application) = duplex(capacity);
    let (backend, server) = duplex(capacity);
    Wire {
        client: Conn::new(client),
        backend: Conn::new(backend),
        application,
        server,
    }
}

pub(super) fn request(filter: &TrackerFilter, client: Framing) -> Request<'_> {
    Request {
        shape: ResponseShape::Query,
        own: 0,
        client,
        backend: Framing::MODERN,
        filter,
        first_seq: 1,
        status: StatusFlags(2),
        statement: None,
        ahead: 0,
    }
}

impl Wire {
    async fn relay(&mut self, client: Framing, own: u16) -> Result<Answer, RelayError> {
        let filter = TrackerFilter::default();
        let request = Request {
            own,
            ..request(&filter, client)
        };
        relay(&mut self.client, &mut self.backend, request).await
    }

    async fn received(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.application.read_exact(&mut bytes).await.unwrap();
        bytes
    }
}

#[tokio::test]
async fn a_small_answer_goes_through_and_leaves_no_memory_behind() {
    for (framing, expected) in [
        (Framing::MODERN, SELECT_1),
        (Framing::CLASSIC, SELECT_1_CLASSIC),
    ] {
        let mut wire = wire(4096);
        wire.server.write_all(SELECT_1).await.unwrap();
        let answer = wire.relay(framing, 0).await.unwrap();
        assert_eq!(wire.received(expected.len()).await, expected);
        assert_eq!((answer.rows, answer.end), (1, End::Rows));
        assert_eq!(answer.bytes, SELECT_1.len() as u64);
        assert_eq!(answer.status, Some(StatusFlags(2)));
        for conn in [&wire.client, &wire.backend] {
            assert_eq!(conn.input.capacity() + conn.output.capacity(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_begins_with_its_first_byte_and_not_with_that_of_own_commands() {
    let mut wire = wire(4096);
    let mut server = std::mem::replace(&mut wire.server, duplex(1).0);
    let began = tokio::time::Instant::now();
    let slow = async move {
        for piece in [OK, &SELECT_1[..7], &SELECT_1[7..]] {
            tokio::time::sleep(Duration::from_secs(10)).await;
            server.write_all(piece).await.unwrap();
        }
        server
    };
    let (answer, _server) = tokio::join!(wire.relay(Framing::CLASSIC, 1), slow);
    let begun = answer.unwrap().begun.unwrap();
    assert_eq!(begun - began, Duration::from_secs(20));
    assert_eq!(began.elapsed(), Duration::from_secs(30));
}

#[tokio::test]
async fn bytes_that_trickle_in_make_the_same_answer() {
    let mut wire = wire(4096);
    let mut server = std::mem::replace(&mut wire.server, duplex(1).0);
    let trickle = async move {
        for byte in SELECT_1 {
            server.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        server
    };
    let (answer, _server) = tokio::join!(wire.relay(Framing::CLASSIC, 0), trickle);
    assert_eq!(answer.unwrap().rows, 1);
    assert_eq!(
        wire.received(SELECT_1_CLASSIC.len()).await,
        SELECT_1_CLASSIC
    );
}

#[tokio::test]
async fn own_answers_are_not_forwarded() {
    let mut wire = wire(4096);
    let tracked = b"\x0c\0\0\x01\0\0\0\x02\x40\0\0\0\x03\x02\x01\x31";
    let answers = [OK, tracked, SELECT_1].concat();
    wire.server.write_all(&answers).await.unwrap();
    let answer = wire.relay(Framing::MODERN, 2).await.unwrap();
    assert_eq!(wire.received(SELECT_1.len()).await, SELECT_1);
    assert!(answer.trackers.is_empty());
}

#[tokio::test]
async fn an_own_command_that_fails_stops_everything() {
    let mut wire = wire(4096);
    let mut answers = BytesMut::from(OK);
    put_err(&mut answers, 1, 1049, *b"42000", "Unknown database");
    answers.extend_from_slice(SELECT_1);
    wire.server.write_all(&answers).await.unwrap();
    match wire.relay(Framing::MODERN, 2).await {
        Err(RelayError::ReplayFailed { index: 1, error }) => assert_eq!(error.code, 1049),
        other => panic!("{other:?}"),
    }
    drop(wire.client);
    let mut got = Vec::new();
    wire.application.read_to_end(&mut got).await.unwrap();
    assert!(got.is_empty(), "the client gets nothing");
}

#[tokio::test]
async fn a_goodbye_before_the_command_is_told_from_an_error() {
    for own in [0, 1] {
        let mut wire = wire(4096);
        let mut goodbye = BytesMut::new();
        put_err(&mut goodbye, 0, 4031, *b"HY000", "inactivity");
        wire.server.write_all(&goodbye).await.unwrap();
        match wire.relay(Framing::MODERN, own).await {
            Err(RelayError::BackendGone {
                notice: Some(notice),
                ..
            }) => assert_eq!(notice.code, 4031),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_end_before_the_answer_is_told_from_one_within_it() {
    for (sent, own) in [(&b""[..], 0), (b"", 1), (OK, 1)] {
        let mut wire = wire(4096);
        wire.server.write_all(sent).await.unwrap();
        drop(std::mem::replace(&mut wire.server, duplex(1).0));
        match wire.relay(Framing::MODERN, own).await {
            Err(RelayError::BackendGone {
                notice: None,
                cause: None,
            }) => {}
            other => panic!("{other:?}"),
        }
    }
    let small = BytesMut::from(SELECT_1);
    let large = result_set(&[b'x'; 1000], 20);
    for (sent, cut, expected) in [
        (&small, 3, false),
        (&small, 12, false),
        (&small, SELECT_1.len() - 1, false),
        (&large, 15_000, true),
    ] {
        let mut wire = wire(64 * 1024);
        wire.server.write_all(&sent[..cut]).await.unwrap();
        drop(std::mem::replace(&mut wire.server, duplex(1).0));
        match wire.relay(Framing::CLASSIC, 0).await {
            Err(RelayError::BackendLost {
                forwarded,
                cause: None,
            }) => assert_eq!(forwarded, expected, "cut at {cut}"),
            other => panic!("{other:?}"),
        }
        assert!(wire.client.output.is_empty(), "nothing is left to be sent");
    }
}

#[tokio::test]
async fn a_violation_is_reported_once() {
    let mut wire = wire(4096);
    wire.server.write_all(b"\x01\0\0\x05\x01").await.unwrap();
    match wire.relay(Framing::MODERN, 0).await {
        Err(RelayError::Protocol {
            violation:
                Violation::OutOfOrder {
                    expected: 1,
                    got: 5,
                },
            forwarded: false,
        }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_the_backend_works_is_noticed() {
    for own in [0, 1] {
        let mut wire = wire(4096);
        drop(std::mem::replace(&mut wire.application, duplex(1).0));
        match wire.relay(Framing::MODERN, own).await {
            Err(RelayError::ClientGone(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_a_client_sends_ahead_is_kept_and_bounded() {
    let mut wire = wire(1 << 20);
    let ahead = vec![7; 200_000];
    wire.application.write_all(&ahead).await.unwrap();
    let mut server = std::mem::replace(&mut wire.server, duplex(1).0);
    let late = async move {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        server.write_all(SELECT_1).await.unwrap();
        server
    };
    let (answer, _server) = tokio::join!(wire.relay(Framing::MODERN, 0), late);
    answer.unwrap();
    let kept = wire.client.input.len();
    assert!((64 * 1024..80 * 1024).contains(&kept), "{kept} bytes");
    assert!(wire.client.input.iter().all(|&byte| byte == 7));
}

/// Column count 1, a definition, `rows` rows of `row`, the end: as a backend sends it.
pub(super) fn result_set(row: &[u8], rows: usize) -> BytesMut {
    let mut out = BytesMut::from(&SELECT_1[..32]);
    let mut seq = 3;
    for _ in 0..rows {
        seq = put_packet(&mut out, seq, row);
    }
    put_eof(&mut out, seq, true, StatusFlags(0x22), 0);
    out
}

/// The same for a classic client.
pub(super) fn classic_result_set(row: &[u8], rows: usize, first_flags: u16) -> BytesMut {
    let mut out = BytesMut::from(&SELECT_1[..32]);
    let mut seq = put_eof(&mut out, 3, false, StatusFlags(first_flags), 0);
    for _ in 0..rows {
        seq = put_packet(&mut out, seq, row);
    }
    put_eof(&mut out, seq, false, StatusFlags(0x22), 0);
    out
}

#[tokio::test]
async fn a_slow_client_slows_the_backend_down() {
    let mut wire = wire(16 * 1024);
    let answer = result_set(&[b'x'; 1000], 40_000);
    let expected = classic_result_set(&[b'x'; 1000], 40_000, 2);
    let mut server = std::mem::replace(&mut wire.server, duplex(1).0);
    let mut application = std::mem::replace(&mut wire.application, duplex(1).0);
    let written = std::cell::Cell::new(0);
    let serve = async {
        for piece in answer.chunks(10_000) {
            server.write_all(piece).await.unwrap();
            written.set(written.get() + piece.len());
        }
    };
    let take = async {
        // Nobody reads until the backend cannot write any more.
        let mut before = usize::MAX;
        while before != written.get() {
            before = written.get();
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        assert!(
            before < 300_000,
            "{before} bytes are held for a client that does not read"
        );
        let mut got = vec![0; expected.len()];
        application.read_exact(&mut got).await.unwrap();
        got
    };
    let filter = TrackerFilter::default();
    let relayed = relay(
        &mut wire.client,
        &mut wire.backend,
        request(&filter, Framing::CLASSIC),
    );
    let (answer, (), got) = tokio::join!(relayed, serve, take);
    assert_eq!(answer.unwrap().rows, 40_000);
    assert!(got == expected);
}

#[tokio::test]
async fn rows_of_16_mb_and_more_pass_in_both_framings() {
    // A first column this long begins with 0xfe, as the end of the rows does.
    for len in [
        MAX_PAYLOAD - 1,
        MAX_PAYLOAD,
        MAX_PAYLOAD + 1,
        2 * MAX_PAYLOAD,
    ] {
        let mut row = vec![b'y'; len];
        row[0] = if len < MAX_PAYLOAD { 0xfd } else { 0xfe };
        let sent = result_set(&row, 2);
        for (framing, expected) in [
            (Framing::MODERN, sent.clone()),
            (Framing::CLASSIC, classic_result_set(&row, 2, 2)),
        ] {
            let mut wire = wire(1 << 20);
            let mut server = std::mem::replace(&mut wire.server, duplex(1).0);
            let mut application = std::mem::replace(&mut wire.application, duplex(1).0);
            let mut got = vec![0; expected.len()];
            let (answer, written, read) = tokio::join!(
                wire.relay(framing, 0),
                server.write_all(&sent),
                application.read_exact(&mut got)
            );
            written.unwrap();
            read.unwrap();
            assert_eq!(answer.unwrap().rows, 2);
            assert!(got == expected[..], "{len} bytes, {framing:?}");
        }
    }
}

#[tokio::test]
async fn a_local_file_is_passed_on_under_shifted_sequence_ids() {
    let mut wire = wire(4096);
    let mut before = BytesMut::from(&SELECT_1[..SELECT_1.len() - 11]);
    put_eof(&mut before, 4, true, StatusFlags(0x0a), 0);
    let seq = put_packet(&mut before, 5, b"\xfbx.csv");
    assert_eq!(seq, 6);
    wire.server.write_all(&before).await.unwrap();

    let mut server = std::mem::replace(&mut wire.server, duplex(1).0);
    let mut application = std::mem::replace(&mut wire.application, duplex(1).0);
    let serve = async {
        let mut file = vec![0; 14];
        server.read_exact(&mut file).await.unwrap();
        assert_eq!(file, b"\x06\0\0\x061\n2\n3\n\0\0\0\x07");
        let mut rest = BytesMut::new();
        put_ok(&mut rest, 8, StatusFlags(2), 3, 0);
        server.write_all(&rest).await.unwrap();
    };
    let load = async {
        let mut got = vec![0; SELECT_1_CLASSIC.len() + 10];
        application.read_exact(&mut got).await.unwrap();
        assert_eq!(got[got.len() - 7..], b"\x06\xfbx.csv"[..]);
        application
            .write_all(b"\x06\0\0\x071\n2\n3\n\0\0\0\x08\x01\0\0\0\x0e")
            .await
            .unwrap();
        let mut ok = [0; 11];
        application.read_exact(&mut ok).await.unwrap();
        assert_eq!(ok[3], 9);
    };
    let (answer, (), ()) = tokio::join!(wire.relay(Framing::CLASSIC, 0), serve, load);
    assert_eq!(answer.unwrap().affected_rows, 3);
    assert_eq!(
        &wire.client.input[..],
        b"\x01\0\0\0\x0e",
        "the next command stays"
    );
}

#[tokio::test]
async fn a_command_of_any_size_is_uploaded_without_being_held() {
    let mut command = vec![b'z'; MAX_PAYLOAD + 5];
    command[0] = 3;
    let mut sent = BytesMut::new();
    assert_eq!(put_packet(&mut sent, 0, &command), 2);
    let own = b"\x05\0\0\0\x03DO 1";
    let mut wire = wire(64 * 1024);
    wire.backend.output.extend_from_slice(own);
    wire.client.input.extend_from_slice(&sent[..1000]);
    let next = b"\x01\0\0\0\x0e";
    let mut got = vec![0; own.len() + sent.len()];
    let rest = [&sent[1000..], next].concat();
    let (uploaded, written, read) = tokio::join!(
        upload(&mut wire.client, &mut wire.backend, 1, 0, |_| ()),
        wire.application.write_all(&rest),
        async {
            wire.server.write_all(OK).await.unwrap();
            wire.server.read_exact(&mut got).await
        }
    );
    written.unwrap();
    read.unwrap();
    let uploaded = uploaded.unwrap();
    assert_eq!((uploaded.next_seq, uploaded.bytes), (2, sent.len() as u64));
    assert!(got[..own.len()] == own[..] && got[own.len()..] == sent[..]);
    assert!(wire.client.input.len() <= next.len());
    assert!(wire.backend.input.is_empty() || wire.backend.input[..] == *OK);
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_an_upload_stops_it() {
    // As MariaDB says it: the sequence id counts the packets it has read.
    let mut refusal = BytesMut::new();
    put_err(&mut refusal, 2, 1153, *b"08S01", "Got a packet bigger");
    for own in [0_u16, 1] {
        for closes in [false, true] {
            let mut wire = wire(16 * 1024);
            wire.client.input.extend_from_slice(b"\xff\xff\xff\0\x03");
            let mut server = std::mem::replace(&mut wire.server, duplex(1).0);
            let say = async {
                if own == 1 {
                    server.write_all(OK).await.unwrap();
                }
                for byte in &refusal {
                    server.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
                (!closes).then_some(server)
            };
            let (refused, _server) = tokio::join!(
                upload(&mut wire.client, &mut wire.backend, own, 0, |_| ()),
                say
            );
            match refused {
                Err(UploadError::Refused { error, seq: 2 }) => assert_eq!(error.code, 1153),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_own_error_stops_an_upload_before_the_command_is_whole() {
    for (seq, own) in [(1, 2), (0, 2), (0, 0)] {
        let mut wire = wire(16 * 1024);
        wire.client.input.extend_from_slice(b"\xff\xff\xff\0\x03");
        let mut said = BytesMut::new();
        if seq == 1 {
            said.extend_from_slice(OK);
        }
        put_err(&mut said, seq, 1049, *b"42000", "Unknown database");
        wire.server.write_all(&said).await.unwrap();
        match (
            upload(&mut wire.client, &mut wire.backend, own, 0, |_| ()).await,
            seq,
        ) {
            (Err(UploadError::ReplayFailed { index: 1, error }), 1) => {
                assert_eq!(error.code, 1049);
            }
            (Err(UploadError::BackendGone { notice, .. }), 0) => {
                assert_eq!(notice.unwrap().code, 1049);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn either_side_may_leave_in_the_middle_of_an_upload() {
    let mut wire_a = wire(4096);
    wire_a.client.input.extend_from_slice(b"\xff\xff\xff\0\x03");
    drop(wire_a.application);
    let left = upload(&mut wire_a.client, &mut wire_a.backend, 0, 0, |_| ()).await;
    assert!(matches!(left, Err(UploadError::ClientGone(_))), "{left:?}");

    let mut wire_b = wire(4096);
    wire_b.client.input.extend_from_slice(b"\xff\xff\xff\0\x03");
    drop(wire_b.server);
    let left = upload(&mut wire_b.client, &mut wire_b.backend, 0, 0, |_| ()).await;
    assert!(
        matches!(left, Err(UploadError::BackendGone { notice: None, .. })),
        "{left:?}"
    );
}

#[tokio::test]
async fn own_answers_are_read_one_after_the_other() {
    let mut wire = wire(4096);
    let mut said = BytesMut::from(&b"\x0c\0\0\x01\0\0\0\x02\x40\0\0\0\x03\x02\x01\x31"[..]);
    said.extend_from_slice(SELECT_1);
    put_err(&mut said, 1, 1193, *b"HY000", "Unknown system variable");
    put_packet(&mut said, 1, b"\0\x09\0\0\0\x01\0\x01\0\0\0\0");
    said.extend_from_slice(b"\x01\0\0\x02\x03\x01\0\0\x03\x03");
    wire.server.write_all(&said).await.unwrap();
    let (backend, framing) = (&mut wire.backend, Framing::MODERN);

    let answer = read_own_ok(backend, framing).await.unwrap();
    assert!(answer.trackers.state_changed());
    let set = read_own_result_set(backend, framing, 1000).await.unwrap();
    assert_eq!(
        (&set.columns[0].name[..], set.columns[0].kind),
        (&b"1"[..], 8)
    );
    assert_eq!(set.rows, [[Some(bytes::Bytes::from_static(b"1"))]]);
    match read_own_ok(backend, framing).await {
        Err(OwnError::Server(error)) => assert_eq!(error.code, 1193),
        other => panic!("{other:?}"),
    }
    let prepared = read_own_prepared(backend, framing).await.unwrap();
    assert_eq!((prepared.statement_id, prepared.params), (9, 1));
    assert_eq!(backend.input.capacity(), 0);
}

#[tokio::test]
async fn an_own_answer_has_a_bound_and_an_end() {
    let mut wire = wire(4096);
    wire.server.write_all(SELECT_1).await.unwrap();
    match read_own_result_set(&mut wire.backend, Framing::MODERN, 20).await {
        Err(OwnError::Protocol(Violation::TooLarge { .. })) => {}
        other => panic!("{other:?}"),
    }
    drop(wire.server);
    wire.backend.input.clear();
    let gone = read_own_ok(&mut wire.backend, Framing::MODERN).await;
    assert!(matches!(gone, Err(OwnError::Gone(None))), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn rows_are_not_held_back_while_the_backend_pauses() {
    let mut wire = wire(4096);
    let answer = result_set(b"\x01a", 3);
    let (now, later) = answer.split_at(32 + 12);
    wire.server.write_all(now).await.unwrap();
    let mut server = std::mem::replace(&mut wire.server, duplex(1).0);
    let mut application = std::mem::replace(&mut wire.application, duplex(1).0);
    let watch = async {
        let mut got = vec![0; 32 + 9 + 12];
        let early = application.read_exact(&mut got);
        tokio::time::timeout(Duration::from_secs(1), early)
            .await
            .expect("two rows are sent before the third is there")
            .unwrap();
        server.write_all(later).await.unwrap();
        let mut rest = vec![0; 6 + 9];
        application.read_exact(&mut rest).await.unwrap();
    };
    let (answer, ()) = tokio::join!(wire.relay(Framing::CLASSIC, 0), watch);
    assert_eq!(answer.unwrap().rows, 3);
}

#[test]
fn the_futures_can_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    let mut wire = wire(16);
    let filter = TrackerFilter::default();
    let request = request(&filter, Framing::CLASSIC);
    is_send(relay(&mut wire.client, &mut wire.backend, request));
    is_send(upload(&mut wire.client, &mut wire.backend, 0, 0, |_| ()));
    is_send(read_own_ok(&mut wire.backend, Framing::MODERN));
}
