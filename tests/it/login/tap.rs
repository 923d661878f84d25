//! A wire between two programs that can be looked at: it forwards TCP connections and remembers what passed.
//!
//! In threads of its own, because tests block their runtime while they wait for Sidepool.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::BytesMut;
use sidepool::protocol::packet::take_packet;

/// Forwards what is connected to it.
pub struct Tap {
    pub port: u16,
    seen: Arc<Mutex<Vec<Passed>>>,
}

/// What passed on one connection.
#[derive(Debug, Default, Clone)]
pub struct Passed {
    /// From who connected to who was connected to.
    pub up: Vec<u8>,
    /// The other way.
    pub down: Vec<u8>,
}

impl Tap {
    /// Connections go to `address`; `preface` goes ahead on each.
    pub fn to(address: String, preface: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(mut far) = TcpStream::connect(&address) else {
                    continue;
                };
                // A peer that has refused the connection shows at the next read.
                let _ = far.write_all(&preface);
                let at = {
                    let mut seen = sink.lock().unwrap();
                    seen.push(Passed::default());
                    seen.len() - 1
                };
                let up = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let (up_sink, down_sink) = (Arc::clone(&sink), Arc::clone(&sink));
                thread::spawn(move || {
                    forward(up.0, up.1, |bytes| {
                        up_sink.lock().unwrap()[at].up.extend_from_slice(bytes);
                    });
                });
                thread::spawn(move || {
                    forward(far, near, |bytes| {
                        down_sink.lock().unwrap()[at].down.extend_from_slice(bytes);
                    });
                });
            }
        });
        Self { port, seen }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What has passed so far, by connection.
    pub fn passed(&self) -> Vec<Passed> {
        self.seen.lock().unwrap().clone()
    }

    /// Bytes that have passed so far, both ways, and connections.
    pub fn total(&self) -> (usize, usize) {
        let passed = self.passed();
        let bytes = passed.iter().map(|one| one.up.len() + one.down.len()).sum();
        (bytes, passed.len())
    }

    /// The packets of the last connection that came down.
    pub fn last_down(&self) -> Vec<Vec<u8>> {
        packets(&self.passed().last().unwrap().down)
    }
}

fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut left = BytesMut::from(bytes);
    let mut packets = Vec::new();
    while let Ok(Some(packet)) = take_packet(&mut left, 1 << 24) {
        packets.push(packet.payload.to_vec());
    }
    packets
}

fn forward(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(&[u8])) {
    let mut buf = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        // Noted first: who receives it may look at once.
        note(&buf[..n]);
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
