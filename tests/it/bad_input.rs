//! Input that no client should send, and settings that no operator should: each gets the server's own
//! error or one clear line, and nobody else notices.

mod before_login;
mod commands;
mod mutations;
mod refusals;
mod startup;

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::clients::client;
use crate::support::sidepool::Sidepool;

const CLOSED: &str = "sidepool_client_connections_closed_total";
const REJECTED: &str = "sidepool_client_connections_setup_failed_total";

/// Still there, for everybody else.
async fn assert_serves(sidepool: &Sidepool) {
    let mut wire = client(sidepool).await;
    assert_eq!(wire.query("SELECT 7").await.text(), "7");
    let log = sidepool.log();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(sidepool.metric(CLOSED, "\"internal\""), 0.0);
}

/// The packets that come until the end of the stream, which must be soon.
async fn packets_to_the_end(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await;
    // A reset is an end, too.
    let _ = read.expect("the connection is ended");
    let (mut packets, mut rest) = (Vec::new(), &bytes[..]);
    while let [a, b, c, seq, behind @ ..] = rest {
        let len = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
        packets.push((*seq, behind[..len].to_vec()));
        rest = &behind[len..];
    }
    assert!(rest.is_empty(), "half a packet: {rest:?}");
    packets
}

/// Numbers without any pattern, the same ones every time.
struct Numbers(u64);

impl Numbers {
    /// The next one, below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % bound as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// A login as drivers send it, without its header; `answer` answers the nonce.
fn login(user: &str, plugin: &str, answer: &[u8]) -> Vec<u8> {
    use crate::support::wire::{DEPRECATE_EOF, USUAL};
    let mut out = (USUAL & !DEPRECATE_EOF).to_le_bytes().to_vec();
    out.extend_from_slice(&(1u32 << 24).to_le_bytes());
    out.push(45);
    out.extend_from_slice(&[0; 23]);
    out.extend_from_slice(user.as_bytes());
    out.extend_from_slice(&[0, answer.len() as u8]);
    out.extend_from_slice(answer);
    out.extend_from_slice(plugin.as_bytes());
    out.push(0);
    out.extend_from_slice(b"\x13\x0cprogram_name\x05wrong");
    out
}

/// A packet.
fn packet(seq: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
    [&[a, b, c, seq], payload].concat()
}
