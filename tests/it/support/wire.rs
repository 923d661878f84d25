//! A small MySQL client at packet level: every capability bit is the test's choice, every packet
//! can be looked at.

use std::io;
use std::path::Path;

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use bytes::{Buf, BytesMut};
use mysql_common::scramble::{scramble_native, scramble_sha256};
use sidepool::protocol::packet::{put_packet, take_lenenc_int, take_lenenc_str, take_packet};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::servers::{PASSWORD, USER};
use super::tls;

pub const FOUND_ROWS: u32 = 1 << 1;
pub const CONNECT_WITH_DB: u32 = 1 << 3;
pub const LOCAL_FILES: u32 = 1 << 7;
pub const PROTOCOL_41: u32 = 1 << 9;
pub const SSL: u32 = 1 << 11;
pub const TRANSACTIONS: u32 = 1 << 13;
pub const SECURE_CONNECTION: u32 = 1 << 15;
pub const MULTI_STATEMENTS: u32 = 1 << 16;
pub const MULTI_RESULTS: u32 = 1 << 17;
pub const PS_MULTI_RESULTS: u32 = 1 << 18;
pub const PLUGIN_AUTH: u32 = 1 << 19;
pub const CONNECT_ATTRS: u32 = 1 << 20;
pub const SESSION_TRACK: u32 = 1 << 23;
pub const DEPRECATE_EOF: u32 = 1 << 24;

/// What most drivers negotiate, and DEPRECATE_EOF.
pub const USUAL: u32 = 1
    | 1 << 2
    | PROTOCOL_41
    | TRANSACTIONS
    | SECURE_CONNECTION
    | MULTI_STATEMENTS
    | MULTI_RESULTS
    | PS_MULTI_RESULTS
    | PLUGIN_AUTH
    | CONNECT_ATTRS
    | DEPRECATE_EOF;

/// How to log in.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    /// `host:port`, or the path of a Unix socket.
    pub address: &'a str,
    pub user: &'a str,
    pub password: &'a str,
    pub database: Option<&'a str>,
    /// Capability bits beyond [`USUAL`].
    pub with: u32,
    /// Capability bits of [`USUAL`] left out.
    pub without: u32,
    pub charset: u8,
    pub program: &'a str,
    /// Whether to ask for TLS; any certificate will do.
    pub tls: bool,
    /// The plugin that the client begins with; `None`: the greeting's.
    pub plugin: Option<&'a str>,
}

impl<'a> Login<'a> {
    /// The usual account at that address.
    pub fn to(address: &'a str) -> Self {
        Self {
            address,
            user: USER,
            password: PASSWORD,
            database: None,
            with: 0,
            without: 0,
            charset: 45,
            program: "wire-test",
            tls: false,
            plugin: None,
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A logged-in connection.
pub struct Wire {
    stream: Box<dyn Io>,
    buf: BytesMut,
    pub capabilities: u32,
    pub thread_id: u32,
    pub server_version: String,
    /// The final OK of the login.
    pub login_ok: Vec<u8>,
    secure: bool,
    nonce: Vec<u8>,
    plugin: String,
}

/// An ERR packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    pub code: u16,
    pub state: String,
    pub message: String,
}

/// An OK packet, or the end of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OkFields {
    pub affected: u64,
    pub insert_id: u64,
    pub status: u16,
    pub warnings: u16,
    /// What follows the fixed fields: info, and trackers where negotiated.
    pub rest: Vec<u8>,
}

pub type Row = Vec<Option<Vec<u8>>>;

/// One whole result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Ok(OkFields),
    Err(ServerError),
    Rows {
        columns: Vec<Vec<u8>>,
        rows: Vec<Row>,
        end: OkFields,
    },
    /// The server asks for a file.
    LocalInfile(String),
}

impl Reply {
    pub fn rows(self) -> Vec<Row> {
        match self {
            Self::Rows { rows, .. } => rows,
            other => panic!("rows expected, got {other:?}"),
        }
    }

    /// The first column of the first row, as text.
    pub fn text(self) -> String {
        let rows = self.rows();
        String::from_utf8(rows[0][0].clone().expect("not NULL")).unwrap()
    }

    pub fn ok(self) -> OkFields {
        match self {
            Self::Ok(ok) => ok,
            other => panic!("OK expected, got {other:?}"),
        }
    }

    pub fn err(self) -> ServerError {
        match self {
            Self::Err(error) => error,
            other => panic!("ERR expected, got {other:?}"),
        }
    }

    pub fn status(&self) -> u16 {
        match self {
            Self::Ok(ok) => ok.status,
            Self::Rows { end, .. } => end.status,
            _ => 0,
        }
    }
}

impl Wire {
    /// Connects and logs in.
    pub async fn connect(login: &Login<'_>) -> Result<Self, ServerError> {
        let secure = login.address.starts_with('/');
        let stream: Box<dyn Io> = if secure {
            let stream = UnixStream::connect(Path::new(login.address)).await;
            Box::new(stream.map_err(lost)?)
        } else {
            let stream = TcpStream::connect(login.address).await.map_err(lost)?;
            stream.set_nodelay(true).unwrap();
            Box::new(stream)
        };
        let mut wire = Self {
            stream,
            buf: BytesMut::new(),
            capabilities: 0,
            thread_id: 0,
            server_version: String::new(),
            login_ok: Vec::new(),
            secure,
            nonce: Vec::new(),
            plugin: String::new(),
        };
        wire.log_in(login).await?;
        Ok(wire)
    }

    async fn log_in(&mut self, login: &Login<'_>) -> Result<(), ServerError> {
        let (_, greeting) = self.read_packet().await.map_err(lost)?;
        if greeting[0] == 0xff {
            return Err(parse_err(&greeting));
        }
        let (server, nonce, plugin) = self.parse_greeting(&greeting);
        let mut wanted = (USUAL | login.with) & !login.without;
        wanted |= if login.database.is_some() {
            CONNECT_WITH_DB
        } else {
            0
        };
        self.capabilities = wanted & server;
        let mut out = Vec::new();
        let mut seq = 1;
        if login.tls {
            assert!(server & SSL != 0, "the server offers no TLS");
            self.capabilities |= SSL;
        }
        out.extend_from_slice(&self.capabilities.to_le_bytes());
        out.extend_from_slice(&(1u32 << 30).to_le_bytes());
        out.push(login.charset);
        out.extend_from_slice(&[0; 23]);
        if login.tls {
            self.send(seq, &out).await;
            seq += 1;
            self.start_tls().await;
        }
        let plugin = login.plugin.map_or(plugin, str::to_owned);
        out.extend_from_slice(login.user.as_bytes());
        out.push(0);
        let scramble = scramble(&plugin, &nonce, login.password);
        out.push(scramble.len() as u8);
        out.extend_from_slice(&scramble);
        if let Some(database) = login.database.filter(|_| self.has(CONNECT_WITH_DB)) {
            out.extend_from_slice(database.as_bytes());
            out.push(0);
        }
        out.extend_from_slice(plugin.as_bytes());
        out.push(0);
        if self.has(CONNECT_ATTRS) {
            let mut attributes = vec![12];
            attributes.extend_from_slice(b"program_name");
            attributes.push(login.program.len() as u8);
            attributes.extend_from_slice(login.program.as_bytes());
            out.push(attributes.len() as u8);
            out.extend_from_slice(&attributes);
        }
        self.send(seq, &out).await;
        (self.nonce, self.plugin) = (nonce.clone(), plugin);
        self.finish_auth(nonce, login.password).await
    }

    async fn start_tls(&mut self) {
        let (placeholder, _) = tokio::io::duplex(1);
        let plain = std::mem::replace(&mut self.stream, Box::new(placeholder));
        self.stream = Box::new(tls::connect(plain).await);
        self.secure = true;
    }

    /// `COM_CHANGE_USER` to no database.
    pub async fn change_user(&mut self, user: &str, password: &str) -> Result<(), ServerError> {
        let scramble = scramble(&self.plugin, &self.nonce, password);
        let mut out = vec![0x11];
        out.extend_from_slice(user.as_bytes());
        out.extend_from_slice(&[0, scramble.len() as u8]);
        out.extend_from_slice(&scramble);
        out.extend_from_slice(&[0, 45, 0]);
        out.extend_from_slice(self.plugin.as_bytes());
        // No connection attributes.
        out.extend_from_slice(&[0, 0]);
        self.send(0, &out).await;
        self.finish_auth(self.nonce.clone(), password).await
    }

    fn parse_greeting(&mut self, greeting: &[u8]) -> (u32, Vec<u8>, String) {
        let mut rest = &greeting[1..];
        let end = rest.iter().position(|&b| b == 0).unwrap();
        self.server_version = String::from_utf8(rest[..end].to_vec()).unwrap();
        rest.advance(end + 1);
        self.thread_id = rest.get_u32_le();
        let mut nonce = rest[..8].to_vec();
        rest.advance(9);
        let low = u32::from(rest.get_u16_le());
        rest.advance(3);
        let high = u32::from(rest.get_u16_le());
        rest.advance(11);
        nonce.extend_from_slice(&rest[..12]);
        rest.advance(13);
        let plugin = rest.split(|&b| b == 0).next().unwrap();
        (
            low | high << 16,
            nonce,
            String::from_utf8(plugin.to_vec()).unwrap(),
        )
    }

    async fn finish_auth(&mut self, mut nonce: Vec<u8>, password: &str) -> Result<(), ServerError> {
        loop {
            let (seq, packet) = self.read_packet().await.map_err(lost)?;
            match packet[0] {
                0 => {
                    self.login_ok = packet;
                    return Ok(());
                }
                0xff => return Err(parse_err(&packet)),
                0xfe => {
                    let mut parts = packet[1..].splitn(2, |&b| b == 0);
                    let plugin = String::from_utf8(parts.next().unwrap().to_vec()).unwrap();
                    nonce = parts.next().unwrap()[..20].to_vec();
                    let answer = scramble(&plugin, &nonce, password);
                    self.send(seq + 1, &answer).await;
                }
                1 if packet[1..] == [3] => {}
                1 if packet[1..] == [4] && self.secure => {
                    self.send(seq + 1, &[password.as_bytes(), &[0]].concat())
                        .await;
                }
                1 if packet[1..] == [4] => self.send(seq + 1, &[2]).await,
                1 => {
                    let key = std::str::from_utf8(&packet[1..]).unwrap();
                    let encrypted = rsa_encrypt(key, &nonce, password);
                    self.send(seq + 1, &encrypted).await;
                }
                other => panic!("unexpected packet {other:#x} in the login"),
            }
        }
    }

    pub fn has(&self, capability: u32) -> bool {
        self.capabilities & capability != 0
    }

    /// Writes one packet.
    pub async fn send(&mut self, seq: u8, payload: &[u8]) {
        let mut out = BytesMut::new();
        put_packet(&mut out, seq, payload);
        self.send_raw(&out).await.unwrap();
    }

    /// Writes raw bytes.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        // Under TLS the last of it may still wait for the socket.
        self.stream.flush().await
    }

    /// Writes a command.
    pub async fn command(&mut self, command: u8, payload: &[u8]) {
        self.send(0, &[&[command], payload].concat()).await;
    }

    /// Says `COM_QUIT` and waits for the end of the stream.
    pub async fn quit(mut self) {
        self.command(1, b"").await;
        assert!(self.read_packet().await.is_err(), "an answer to COM_QUIT");
    }

    /// Reads at most `limit` bytes of whatever comes and forgets them; 0 at the end of the stream.
    pub async fn discard(&mut self, limit: usize) -> io::Result<usize> {
        if !self.buf.is_empty() {
            let n = self.buf.len().min(limit);
            self.buf.advance(n);
            return Ok(n);
        }
        let mut space = vec![0; limit];
        self.stream.read(&mut space).await
    }

    /// Reads one result of either protocol without keeping any of it in memory: how many rows and how
    /// many bytes, headers included.
    pub async fn skip_result(&mut self) -> (usize, usize) {
        let mut columns = self.skip_packet().await.unwrap().1[0];
        assert!(!matches!(columns, 0 | 0xfb | 0xff), "rows expected");
        if !self.has(DEPRECATE_EOF) {
            columns += 1;
        }
        for _ in 0..columns {
            self.skip_packet().await.unwrap();
        }
        let (mut rows, mut bytes) = (0, 0);
        loop {
            let (len, first) = self.skip_packet().await.unwrap();
            match first[0] {
                0xff => panic!("an error behind {rows} rows"),
                0xfe if len < 9 => return (rows, bytes),
                _ => {
                    rows += 1;
                    bytes += len;
                }
            }
        }
    }

    /// Reads a packet and forgets all but its first byte.
    async fn skip_packet(&mut self) -> io::Result<(usize, [u8; 1])> {
        let (mut total, mut first) = (0, None);
        loop {
            self.fill(4).await?;
            let len = self.buf.get_uint_le(3) as usize;
            self.buf.advance(1);
            if first.is_none() && len > 0 {
                self.fill(1).await?;
                first = Some([self.buf[0]]);
            }
            let mut left = len;
            while left > 0 {
                self.fill(1).await?;
                let n = self.buf.len().min(left);
                self.buf.advance(n);
                left -= n;
            }
            total += len;
            if len < 0xff_ffff {
                return Ok((total, first.unwrap_or_default()));
            }
        }
    }

    async fn fill(&mut self, len: usize) -> io::Result<()> {
        while self.buf.len() < len {
            if self.buf.is_empty() {
                self.buf.clear();
            }
            self.buf.reserve(1 << 16);
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Reads one packet: sequence id and payload. Fails at the end of the stream.
    pub async fn read_packet(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some(packet) = take_packet(&mut self.buf, 1 << 30).unwrap() {
                return Ok((packet.last_seq, packet.payload.to_vec()));
            }
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Runs a statement and reads its first result; further ones by [`Self::read_reply`].
    pub async fn query(&mut self, sql: &str) -> Reply {
        self.query_bytes(sql.as_bytes()).await
    }

    pub async fn query_bytes(&mut self, sql: &[u8]) -> Reply {
        self.command(3, sql).await;
        self.read_reply().await
    }

    /// Runs a statement and reads all its results.
    pub async fn query_all(&mut self, sql: &str) -> Vec<Reply> {
        self.command(3, sql.as_bytes()).await;
        let mut replies = Vec::new();
        loop {
            let reply = self.read_reply().await;
            let more = reply.status() & 8 != 0;
            replies.push(reply);
            if !more {
                return replies;
            }
        }
    }

    /// Runs statements of any bytes and reads all their results.
    pub async fn query_each(&mut self, sql: &[u8]) {
        let mut reply = self.query_bytes(sql).await;
        while reply.status() & 8 != 0 {
            reply = self.read_reply().await;
        }
    }

    /// Runs a statement that must succeed.
    pub async fn run(&mut self, sql: &str) -> Reply {
        let reply = self.query(sql).await;
        if let Reply::Err(error) = &reply {
            panic!("{sql}: {error:?}");
        }
        reply
    }

    /// Reads one result of either protocol packet by packet, without keeping it: how many rows, how
    /// many bytes of them, and a checksum over all packets that depends on their order.
    pub async fn read_digest(&mut self) -> Digest {
        let (_, first) = self.read_packet().await.unwrap();
        if first[0] == 0xff {
            panic!("{:?}", parse_err(&first));
        }
        assert!(!matches!(first[0], 0 | 0xfb), "rows expected");
        let columns = take_lenenc_int(&mut &first[..]).unwrap();
        let mut digest = Digest::default();
        for _ in 0..columns {
            digest.note(&self.read_packet().await.unwrap().1);
        }
        if !self.has(DEPRECATE_EOF) {
            self.read_packet().await.unwrap();
        }
        loop {
            let (_, packet) = self.read_packet().await.unwrap();
            let short = if self.has(DEPRECATE_EOF) {
                0xff_ffff
            } else {
                9
            };
            match packet[0] {
                0xff => panic!("{:?} behind {digest:?}", parse_err(&packet)),
                0xfe if packet.len() < short => return digest,
                _ => {
                    digest.rows += 1;
                    digest.bytes += packet.len();
                    digest.note(&packet);
                }
            }
        }
    }

    /// Reads one result of the text protocol. A lost connection is error 2013.
    pub async fn read_reply(&mut self) -> Reply {
        match self.try_read_reply().await {
            Ok(reply) => reply,
            Err(error) => Reply::Err(lost(error)),
        }
    }

    async fn try_read_reply(&mut self) -> io::Result<Reply> {
        let (_, first) = self.read_packet().await?;
        match first[0] {
            0 => return Ok(Reply::Ok(parse_ok(&first))),
            0xff => return Ok(Reply::Err(parse_err(&first))),
            0xfb => {
                return Ok(Reply::LocalInfile(
                    String::from_utf8_lossy(&first[1..]).into_owned(),
                ));
            }
            _ => {}
        }
        let count = take_lenenc_int(&mut &first[..]).unwrap();
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(self.read_packet().await?.1);
        }
        if !self.has(DEPRECATE_EOF) {
            let (_, eof) = self.read_packet().await?;
            assert_eq!((eof[0], eof.len()), (0xfe, 5), "EOF behind the columns");
        }
        let mut rows = Vec::new();
        loop {
            let (_, packet) = self.read_packet().await?;
            match packet[0] {
                0xff => return Ok(Reply::Err(parse_err(&packet))),
                0xfe if packet.len() < 0xff_ffff && self.has(DEPRECATE_EOF) => {
                    return Ok(Reply::Rows {
                        columns,
                        rows,
                        end: parse_ok(&packet),
                    });
                }
                0xfe if packet.len() < 9 && !self.has(DEPRECATE_EOF) => {
                    return Ok(Reply::Rows {
                        columns,
                        rows,
                        end: parse_eof(&packet),
                    });
                }
                _ => rows.push(parse_row(&packet, count)),
            }
        }
    }
}

/// What is remembered of a result too large to keep.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Digest {
    pub rows: usize,
    pub bytes: usize,
    pub checksum: u64,
}

impl Digest {
    fn note(&mut self, packet: &[u8]) {
        use std::hash::Hasher;
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(self.checksum);
        hasher.write(packet);
        self.checksum = hasher.finish();
    }
}

fn lost(error: io::Error) -> ServerError {
    ServerError {
        code: 2013,
        state: "HY000".into(),
        message: format!("lost connection: {error}"),
    }
}

fn scramble(plugin: &str, nonce: &[u8], password: &str) -> Vec<u8> {
    match plugin {
        _ if password.is_empty() => Vec::new(),
        "caching_sha2_password" => scramble_sha256(nonce, password.as_bytes())
            .unwrap()
            .to_vec(),
        "mysql_native_password" => scramble_native(nonce, password.as_bytes())
            .unwrap()
            .to_vec(),
        "mysql_clear_password" => [password.as_bytes(), &[0]].concat(),
        other => panic!("the test client does not know {other}"),
    }
}

fn rsa_encrypt(pem: &str, nonce: &[u8], password: &str) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key =
        OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(der.as_ref()).unwrap()).unwrap();
    let mut clear = [password.as_bytes(), &[0]].concat();
    for (byte, mask) in clear.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= mask;
    }
    let mut out = vec![0; key.ciphertext_size()];
    let len = key
        .encrypt(&OAEP_SHA1_MGF1SHA1, &clear, &mut out, None)
        .unwrap()
        .len();
    out.truncate(len);
    out
}

fn parse_row(packet: &[u8], count: u64) -> Row {
    let mut rest = packet;
    let mut row = Vec::new();
    for _ in 0..count {
        if rest[0] == 0xfb {
            rest.advance(1);
            row.push(None);
        } else {
            row.push(Some(take_lenenc_str(&mut rest).unwrap().to_vec()));
        }
    }
    assert!(rest.is_empty(), "bytes behind the last column");
    row
}

pub fn parse_ok(packet: &[u8]) -> OkFields {
    let mut rest = &packet[1..];
    let affected = take_lenenc_int(&mut rest).unwrap();
    let insert_id = take_lenenc_int(&mut rest).unwrap();
    let status = rest.get_u16_le();
    let warnings = rest.get_u16_le();
    OkFields {
        affected,
        insert_id,
        status,
        warnings,
        rest: rest.to_vec(),
    }
}

fn parse_eof(packet: &[u8]) -> OkFields {
    let mut rest = &packet[1..];
    let warnings = rest.get_u16_le();
    OkFields {
        warnings,
        status: rest.get_u16_le(),
        ..OkFields::default()
    }
}

pub fn parse_err(packet: &[u8]) -> ServerError {
    let code = u16::from_le_bytes([packet[1], packet[2]]);
    let (state, message) = match packet[3..].strip_prefix(b"#") {
        Some(rest) => (String::from_utf8_lossy(&rest[..5]).into_owned(), &rest[5..]),
        None => (String::new(), &packet[3..]),
    };
    ServerError {
        code,
        state,
        message: String::from_utf8_lossy(message).into_owned(),
    }
}
