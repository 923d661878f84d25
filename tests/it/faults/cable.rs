//! A cable between two parties of the MySQL protocol that a test can cut, hold and tamper with.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::support::sidepool::Sidepool;
use crate::support::wire::{SESSION_TRACK, SSL};

/// What is done to a command instead of carrying it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The far side never sees it; an ERR of sequence id 0 comes back, then the end.
    Notice(u16),
    /// The far side never sees it; the end comes, without a byte in answer.
    Close,
    /// The far side gets it and answers, and of the answer only the end arrives.
    SwallowAnswer,
}

/// A listener whose connections lead to another address. In a thread of its own, so that it carries
/// while the test waits for a process.
#[derive(Debug)]
pub struct Cable {
    pub address: String,
    control: Arc<Control>,
    _alive: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Control {
    far: String,
    /// Text in a command, and what happens to the next ones that hold it.
    tricks: Mutex<VecDeque<(&'static str, Act)>>,
    /// Capabilities that the far side's greeting loses.
    stripped: u32,
    /// New connections wait.
    held: watch::Sender<bool>,
    /// Counts the times that all connections were reset.
    resets: watch::Sender<u32>,
    /// Connections that wait.
    waiting: watch::Sender<usize>,
}

impl Cable {
    /// A cable to that address; without TLS, since it looks at packets.
    pub fn to(far: &str) -> Self {
        Self::without(far, SSL)
    }

    /// The same to a server that seems to have no session trackers.
    pub fn without_trackers(far: &str) -> Self {
        Self::without(far, SSL | SESSION_TRACK)
    }

    fn without(far: &str, stripped: u32) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let control = Arc::new(Control {
            far: far.to_owned(),
            tricks: Mutex::default(),
            stripped,
            held: watch::Sender::new(false),
            resets: watch::Sender::new(0),
            waiting: watch::Sender::new(0),
        });
        let (alive, dropped) = oneshot::channel::<()>();
        let of_thread = Arc::clone(&control);
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, of_thread) => {}
                    _ = dropped => {}
                }
            });
        });
        Self {
            address,
            control,
            _alive: alive,
        }
    }

    /// A Sidepool in front of the cable.
    pub fn sidepool(&self, settings: &[(&str, &str)]) -> Sidepool {
        let rsa = ("SIDEPOOL_BACKEND__ALLOW_PUBLIC_KEY_RETRIEVAL", "true");
        let settings = [settings, &[rsa]].concat();
        let sidepool = Sidepool::launch(&self.address, &settings);
        sidepool.wait_ready();
        sidepool
    }

    /// Does that to the next commands that hold the text, one after the other.
    pub fn trick(&self, text: &'static str, acts: &[Act]) {
        let mut tricks = self.control.tricks.lock().unwrap();
        tricks.extend(acts.iter().map(|&act| (text, act)));
    }

    /// How many tricks have not been played yet.
    pub fn tricks_left(&self) -> usize {
        self.control.tricks.lock().unwrap().len()
    }

    /// Keeps new connections waiting, or lets them through.
    pub fn hold(&self, held: bool) {
        self.control.held.send_replace(held);
    }

    /// How many connections wait to be let through.
    pub fn waiting(&self) -> usize {
        *self.control.waiting.borrow()
    }

    /// Resets all connections toward the far side, as a machine does that has lost its memory.
    pub fn reset(&self) {
        self.control.resets.send_modify(|times| *times += 1);
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let control = Arc::clone(&control);
        connections.spawn(async move {
            // Either side may end at any time.
            let _ = carry(near, &control).await;
        });
    }
}

async fn carry(near: TcpStream, control: &Control) -> io::Result<()> {
    let mut held = control.held.subscribe();
    control.waiting.send_modify(|waiting| *waiting += 1);
    let opened = held.wait_for(|held| !held).await.is_ok();
    control.waiting.send_modify(|waiting| *waiting -= 1);
    if !opened {
        return Ok(());
    }
    let far = TcpStream::connect(&control.far).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let mut link = Link {
        near,
        far,
        up: BytesMut::new(),
        down: BytesMut::new(),
        greeted: false,
        swallow: false,
    };
    let mut resets = control.resets.subscribe();
    tokio::select! {
        ended = link.run(control) => ended,
        _ = resets.changed() => SockRef::from(&link.far).set_linger(Some(Duration::ZERO)),
    }
}

struct Link {
    near: TcpStream,
    far: TcpStream,
    up: BytesMut,
    down: BytesMut,
    greeted: bool,
    swallow: bool,
}

impl Link {
    async fn run(&mut self, control: &Control) -> io::Result<()> {
        loop {
            let read = tokio::select! {
                read = self.near.read_buf(&mut self.up) => read,
                read = self.far.read_buf(&mut self.down) => read,
            };
            if read? == 0 {
                return Ok(());
            }
            while let Some(len) = packet(&self.up) {
                if !self.command(len, control).await? {
                    return Ok(());
                }
            }
            if !self.greeted && packet(&self.down).is_some() {
                strip(&mut self.down, control.stripped);
                self.greeted = true;
            }
            if self.swallow && !self.down.is_empty() {
                return Ok(());
            }
            if self.greeted {
                self.near.write_all_buf(&mut self.down).await?;
            }
        }
    }

    /// Carries one packet toward the far side; `false`: the connection ends.
    async fn command(&mut self, len: usize, control: &Control) -> io::Result<bool> {
        let act = {
            let mut tricks = control.tricks.lock().unwrap();
            let held = |text: &str| {
                self.up[..len]
                    .windows(text.len())
                    .any(|part| part == text.as_bytes())
            };
            match tricks.front() {
                Some((text, _)) if held(text) => tricks.pop_front().map(|(_, act)| act),
                _ => None,
            }
        };
        match act {
            Some(Act::Close) => return Ok(false),
            Some(Act::Notice(code)) => {
                let mut notice = b"\xff\0\0#HY000from the cable".to_vec();
                notice[1..3].copy_from_slice(&code.to_le_bytes());
                let header = [notice.len() as u8, 0, 0, 0];
                self.near
                    .write_all(&[&header[..], &notice].concat())
                    .await?;
                return Ok(false);
            }
            Some(Act::SwallowAnswer) => self.swallow = true,
            None => {}
        }
        self.far.write_all(&self.up[..len]).await?;
        self.up.advance(len);
        Ok(true)
    }
}

/// Length of the packet in front, if it is all there.
fn packet(bytes: &[u8]) -> Option<usize> {
    let &[a, b, c, _] = bytes.first_chunk()?;
    let len = 4 + usize::from(a) + (usize::from(b) << 8) + (usize::from(c) << 16);
    (bytes.len() >= len).then_some(len)
}

/// Takes capabilities out of a greeting.
fn strip(greeting: &mut [u8], bits: u32) {
    let version = 5;
    let end = version + greeting[version..].iter().position(|&b| b == 0).unwrap();
    let (low, high) = (end + 14, end + 19);
    for (at, bits) in [(low, bits as u16), (high, (bits >> 16) as u16)] {
        let [a, b] = bits.to_le_bytes();
        greeting[at] &= !a;
        greeting[at + 1] &= !b;
    }
}
