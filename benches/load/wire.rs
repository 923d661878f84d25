//! A MySQL client that does as little as a load needs: log in, send a text command, skip over its answer.
//! It is no part of Sidepool and shares no code with it, so that a mistake is not made on both sides.

use std::io::{self, Error, ErrorKind};
use std::path::Path;

use mysql_common::scramble::{scramble_native, scramble_sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

const CONNECT_WITH_DB: u32 = 1 << 3;
const DEPRECATE_EOF: u32 = 1 << 24;
/// LONG_PASSWORD, LONG_FLAG, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, MULTI_STATEMENTS, MULTI_RESULTS,
/// PS_MULTI_RESULTS, PLUGIN_AUTH: what drivers usually ask for.
const USUAL: u32 = 1 | 1 << 2 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19;

pub(crate) const COM_QUIT: u8 = 1;
pub(crate) const COM_QUERY: u8 = 3;
pub(crate) const COM_PING: u8 = 14;

const SMALL_BUFFER: usize = 4 << 10;
const LARGE_BUFFER: usize = 256 << 10;

/// How the end of rows is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Framing {
    /// EOF packets, as most drivers want them.
    Classic,
    /// As Connector/J and the shells of MySQL 8 and 9 want it.
    DeprecateEof,
}

/// Where to log in and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// `host:port`, or the path of a Unix socket.
    pub(crate) address: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
    pub(crate) framing: Framing,
}

/// What came back for one command.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answer {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A logged-in connection.
pub(crate) struct Connection {
    stream: Box<dyn Io>,
    framing: Framing,
    buf: Vec<u8>,
    /// The unread part of `buf`.
    from: usize,
    to: usize,
    out: Vec<u8>,
}

impl Connection {
    /// Connects and logs in. An ERR of the server is an error of kind `Other` with its text.
    pub(crate) async fn open(login: &Login) -> io::Result<Self> {
        let local = login.address.starts_with('/');
        let stream: Box<dyn Io> = if local {
            Box::new(UnixStream::connect(Path::new(&login.address)).await?)
        } else {
            let stream = TcpStream::connect(&login.address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        };
        let mut connection = Self {
            stream,
            framing: login.framing,
            buf: vec![0; SMALL_BUFFER],
            from: 0,
            to: 0,
            out: Vec::new(),
        };
        connection.log_in(login, local).await?;
        Ok(connection)
    }

    /// Sends a command and reads all of its answer.
    pub(crate) async fn command(&mut self, command: u8, argument: &[u8]) -> io::Result<Answer> {
        self.send(0, &[&[command], argument]).await?;
        let mut answer = Answer::default();
        let first = self.packet().await?;
        answer.bytes += 4 + first.len() as u64;
        let columns = match first.first() {
            Some(0x00) => return Ok(answer),
            Some(0xff) => return Err(refused(first)),
            Some(&count @ 1..=250) => count,
            _ => return Err(unexpected("first packet of an answer")),
        };
        // The EOF behind the column definitions is one packet more.
        let skipped = u64::from(columns) + u64::from(self.framing == Framing::Classic);
        for _ in 0..skipped {
            answer.bytes += 4 + self.packet().await?.len() as u64;
        }
        loop {
            let framing = self.framing;
            let packet = self.packet().await?;
            answer.bytes += 4 + packet.len() as u64;
            match (packet.first(), framing) {
                (Some(0xff), _) => return Err(refused(packet)),
                (Some(0xfe), Framing::Classic) if packet.len() == 5 => return Ok(answer),
                (Some(0xfe), Framing::DeprecateEof) if (7..0xff_ffff).contains(&packet.len()) => {
                    return Ok(answer);
                }
                (Some(_), _) => answer.rows += 1,
                (None, _) => return Err(unexpected("row without a byte")),
            }
        }
    }

    /// Says goodbye and closes, as drivers do, without waiting for the other side.
    pub(crate) async fn quit(mut self) -> io::Result<()> {
        self.send(0, &[&[COM_QUIT]]).await
    }

    async fn log_in(&mut self, login: &Login, local: bool) -> io::Result<()> {
        let greeting = Greeting::parse(self.packet().await?)?;
        let needed = match login.framing {
            Framing::Classic => CONNECT_WITH_DB,
            Framing::DeprecateEof => CONNECT_WITH_DB | DEPRECATE_EOF,
        };
        if greeting.capabilities & needed != needed {
            return Err(unexpected("capabilities of the server"));
        }
        let wanted = (USUAL & greeting.capabilities) | needed;
        let proof = scramble(&greeting.plugin, &greeting.nonce, &login.password)?;
        let length = [u8::try_from(proof.len()).unwrap_or(0)];
        let fixed = [
            &wanted.to_le_bytes()[..],
            &(1u32 << 30).to_le_bytes(),
            &[45],
            &[0; 23],
        ]
        .concat();
        let parts: [&[u8]; 9] = [
            &fixed,
            login.user.as_bytes(),
            &[0],
            &length,
            &proof,
            login.database.as_bytes(),
            &[0],
            greeting.plugin.as_bytes(),
            &[0],
        ];
        self.send(1, &parts).await?;
        let mut sequence = 3;
        loop {
            let packet = self.packet().await?;
            let reply = match packet {
                [0x00, ..] => return Ok(()),
                [0xff, ..] => return Err(refused(packet)),
                [0xfe, switch @ ..] => {
                    let (plugin, nonce) = split_zero(switch);
                    let plugin = String::from_utf8_lossy(plugin).into_owned();
                    scramble(
                        &plugin,
                        nonce.strip_suffix(&[0]).unwrap_or(nonce),
                        &login.password,
                    )?
                }
                // caching_sha2_password: "known to me"; the OK follows.
                [0x01, 0x03] => continue,
                // "Not known to me": wants the password itself.
                [0x01, 0x04] if local => [login.password.as_bytes(), &[0]].concat(),
                [0x01, 0x04] => {
                    return Err(Error::other(
                        "the account must first log in over a Unix socket or TLS",
                    ));
                }
                _ => return Err(unexpected("packet while logging in")),
            };
            self.send(sequence, &[&reply]).await?;
            sequence += 2;
        }
    }

    async fn send(&mut self, sequence: u8, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let Ok(length @ 0..0xff_ffff) = u32::try_from(length) else {
            return Err(unexpected("length of a command"));
        };
        self.out.clear();
        self.out.extend_from_slice(&length.to_le_bytes()[..3]);
        self.out.push(sequence);
        for part in parts {
            self.out.extend_from_slice(part);
        }
        self.stream.write_all(&self.out).await
    }

    /// The payload of the next packet.
    async fn packet(&mut self) -> io::Result<&[u8]> {
        loop {
            let have = self.to - self.from;
            let mut whole = SMALL_BUFFER;
            if have >= 4 {
                let head = &self.buf[self.from..self.from + 4];
                whole = 4
                    + (usize::from(head[0])
                        | usize::from(head[1]) << 8
                        | usize::from(head[2]) << 16);
                if have >= whole {
                    let payload = self.from + 4..self.from + whole;
                    self.from = payload.end;
                    return Ok(&self.buf[payload]);
                }
            }
            self.fill(whole).await?;
        }
    }

    /// Reads more, into room for a packet of `whole` bytes.
    async fn fill(&mut self, whole: usize) -> io::Result<()> {
        self.buf.copy_within(self.from..self.to, 0);
        self.to -= self.from;
        self.from = 0;
        if self.buf.len() < whole {
            self.buf.resize(whole, 0);
        }
        let read = self.stream.read(&mut self.buf[self.to..]).await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.to += read;
        // Full to the brim: a large answer, worth fewer and larger reads.
        if self.to == self.buf.len() && self.buf.len() < LARGE_BUFFER {
            self.buf.resize(self.buf.len() * 4, 0);
        }
        Ok(())
    }
}

struct Greeting {
    capabilities: u32,
    nonce: Vec<u8>,
    plugin: String,
}

impl Greeting {
    fn parse(packet: &[u8]) -> io::Result<Self> {
        if packet.first() == Some(&0xff) {
            return Err(refused(packet));
        }
        let (_, rest) = split_zero(packet);
        // Behind the version: thread id 4, nonce 8, zero 1, capabilities 2, charset 1, status 2, capabilities 2,
        // length of the nonce 1, unused 10, nonce 12, zero 1, plugin.
        if rest.len() < 45 {
            return Err(unexpected("length of the greeting"));
        }
        let (plugin, _) = split_zero(&rest[44..]);
        Ok(Self {
            capabilities: u32::from_le_bytes([rest[13], rest[14], rest[18], rest[19]]),
            nonce: [&rest[4..12], &rest[31..43]].concat(),
            plugin: String::from_utf8_lossy(plugin).into_owned(),
        })
    }
}

fn scramble(plugin: &str, nonce: &[u8], password: &str) -> io::Result<Vec<u8>> {
    let proof = match plugin {
        _ if password.is_empty() => Some(Vec::new()),
        "mysql_native_password" => {
            scramble_native(nonce, password.as_bytes()).map(|proof| proof.to_vec())
        }
        "caching_sha2_password" => {
            scramble_sha256(nonce, password.as_bytes()).map(|proof| proof.to_vec())
        }
        _ => None,
    };
    proof.ok_or_else(|| Error::other(format!("cannot log in with {plugin}")))
}

/// What is before the first zero byte, and what is behind it.
fn split_zero(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|&byte| byte == 0);
    let at = at.unwrap_or(bytes.len());
    (&bytes[..at], bytes.get(at + 1..).unwrap_or_default())
}

fn refused(packet: &[u8]) -> Error {
    let code = packet
        .get(1..3)
        .map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
    let text = String::from_utf8_lossy(packet.get(3..).unwrap_or_default());
    Error::other(format!("{code} {text}"))
}

fn unexpected(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("unexpected {what}"))
}
