//! What comes where a login should: other protocols, garbage, nothing, half a login, too much.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::support::clients::on_every_server;
use crate::support::eventually;
use crate::support::servers::Server;
use crate::support::wire::parse_err;

on_every_server! {
    other_protocols_are_told_and_counted => other_protocols;
    random_bytes_do_no_harm => random_bytes;
    a_login_cut_short_anywhere_does_no_harm => cut_short;
    a_login_out_of_turn_is_refused => out_of_turn;
    silence_within_the_exchange_is_cut => silence;
    a_flood_of_headers_costs_no_memory => large_headers;
}

const BAD_HANDSHAKE: u16 = 1043;
const TOO_LARGE: u16 = 1153;
const OUT_OF_ORDER: u16 = 1156;

/// Connects, sends that, and ends its side if it is to; the code of the error at the end, if any.
async fn say(sidepool: &Sidepool, bytes: &[u8], end: bool) -> Option<u16> {
    let mut stream = TcpStream::connect(sidepool.address()).await.unwrap();
    // It may have been refused before it had said everything.
    let _ = stream.write_all(bytes).await;
    if end {
        let _ = stream.shutdown().await;
    }
    let packets = packets_to_the_end(&mut stream).await;
    let (greeting, rest) = packets.split_first().expect("a greeting");
    assert_eq!((greeting.0, greeting.1[0]), (0, 10));
    match rest {
        [(_, last)] | [_, (_, last)] if last[0] == 0xff => Some(parse_err(last).code),
        // A login may have got as far as a switch of plugins.
        [] | [_] => None,
        more => panic!("{more:?}"),
    }
}

async fn other_protocols(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    let hello = [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        &[7; 506],
    ]
    .concat();
    let mut wrong = 0.0;
    for (bytes, code) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], OUT_OF_ORDER),
        (&hello, OUT_OF_ORDER),
        (b"SSH-2.0-OpenSSH_9.2\r\n", OUT_OF_ORDER),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", BAD_HANDSHAKE),
        (&[0xff; 64], OUT_OF_ORDER),
        (b"\xff\xff\xff\x01", TOO_LARGE),
        (b"\0\0\0\x01", BAD_HANDSHAKE),
        (b"\x01\0\0\x01\0", BAD_HANDSHAKE),
        (&packet(1, &[0; 32]), BAD_HANDSHAKE),
        (&packet(1, &[0xff; 4000]), BAD_HANDSHAKE),
    ] {
        let got = say(&sidepool, bytes, false).await;
        let postgres = bytes.starts_with(b"\0\0\0\x08");
        let code = if postgres { OUT_OF_ORDER } else { code };
        assert_eq!(got, Some(code), "{bytes:?}");
        wrong += 1.0;
    }
    assert_eq!(say(&sidepool, b"", true).await, None);
    assert_eq!(say(&sidepool, b"\x20\0", true).await, None);
    eventually("all are counted", async || {
        sidepool.metric(REJECTED, "\"protocol_error\"") == wrong
            && sidepool.metric(REJECTED, "\"client_gone\"") == 2.0
    })
    .await;
    assert_serves(&sidepool).await;
}

async fn random_bytes(server: &Server) {
    let limit = ("SIDEPOOL_CLIENT__HANDSHAKE_TIMEOUT", "2s");
    let sidepool = Sidepool::start(server, &[limit]);
    let mut numbers = Numbers(1);
    for _ in 0..60 {
        let len = 1 + numbers.below(3000);
        let mut bytes = numbers.bytes(len);
        if len > 4 && numbers.below(2) == 0 {
            // A header that is right, so that what follows is looked at.
            bytes = packet(1, &bytes[4..]);
        }
        say(&sidepool, &bytes, true).await;
    }
    assert_serves(&sidepool).await;
}

async fn cut_short(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    let whole = |at: usize| login(&format!("nobody{at:03}"), "mysql_native_password", &[9; 20]);
    let mut refused = 0;
    for len in 0..whole(0).len() {
        // Somebody else each time, since failed logins are slowed down.
        let whole = whole(len);
        // The packet says that there is more to come, and nothing comes.
        let sent = &packet(1, &whole)[..len + 4];
        assert_eq!(say(&sidepool, sent, true).await, None, "{len}");
        // The packet says that this is all.
        let code = say(&sidepool, &packet(1, &whole[..len]), true).await;
        refused += usize::from(code == Some(BAD_HANDSHAKE));
    }
    // Whatever ends before the answer to the nonce is no login.
    assert!(refused > 32 + "nobody000".len() + 20, "{refused}");
    assert_serves(&sidepool).await;
}

async fn out_of_turn(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    let whole = login("t_nobody", "mysql_native_password", &[9; 20]);
    for seq in [0, 2, 255] {
        let code = say(&sidepool, &packet(seq, &whole), false).await;
        assert_eq!(code, Some(OUT_OF_ORDER));
    }
    eventually("all are counted", async || {
        sidepool.metric(REJECTED, "\"protocol_error\"") == 3.0
    })
    .await;
    assert_serves(&sidepool).await;
}

async fn silence(server: &Server) {
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_CLIENT__HANDSHAKE_TIMEOUT", "500ms")]);
    // Asked for TLS, or asked for an answer by another plugin, and then nothing.
    let mut tls = login("t_nobody", "", &[])[..32].to_vec();
    tls[1] |= 8;
    for first in [tls, login("t_nobody", "unheard_of", &[9; 20])] {
        let mut stream = TcpStream::connect(sidepool.address()).await.unwrap();
        let began = Instant::now();
        stream.write_all(&packet(1, &first)).await.unwrap();
        packets_to_the_end(&mut stream).await;
        assert!(began.elapsed() < Duration::from_secs(4));
    }
    eventually("both are counted", async || {
        sidepool.metric(REJECTED, "\"handshake_timeout\"") == 2.0
    })
    .await;
    assert_serves(&sidepool).await;
}

async fn large_headers(server: &Server) {
    let sidepool = Sidepool::start(server, &[]);
    assert_serves(&sidepool).await;
    let before = sidepool.resident_kb();
    let mut streams = Vec::new();
    for i in 0..200 {
        let mut stream = TcpStream::connect(sidepool.address()).await.unwrap();
        let mut greeting = [0; 64];
        assert!(stream.read(&mut greeting).await.unwrap() > 0);
        let header: &[u8] = match i % 2 {
            0 => b"\xff\xff\xff\x01",
            _ => b"\0\0\x01\x01",
        };
        stream.write_all(header).await.unwrap();
        streams.push(stream);
    }
    eventually("half of them are refused", async || {
        sidepool.metric(REJECTED, "\"protocol_error\"") == 100.0
    })
    .await;
    let used = sidepool.resident_kb().saturating_sub(before);
    assert!(used < 40_000, "{used} kB for 200 headers");
    drop(streams);
    assert_serves(&sidepool).await;
}
