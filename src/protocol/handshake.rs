//! Greeting, login, TLS request, `COM_CHANGE_USER`, and the ERR packet of the connection phase.
//!
//! Written by hand rather than with `mysql_common`'s structures: those drop unknown capability bits, put
//! attributes into a map (order and repeated names are lost) and know the collation's low byte only.
//!
//! Source: MySQL Internals, "Connection Phase Packets"; MariaDB KB, "Connection"; captures in the tests.

mod input;

use bytes::{BufMut, Bytes, BytesMut};

use self::input::Input;
use super::capability::Capabilities;
use super::packet::{put_lenenc_int, put_lenenc_str};

/// Bytes of the random nonce that a server sends and a client answers to.
pub const NONCE_LEN: usize = 20;

/// Command byte of `COM_CHANGE_USER`.
const COM_CHANGE_USER: u8 = 0x11;

/// A connection's attributes, in the order they were sent. Any bytes; repeated names are kept.
pub type Attributes = Vec<(Bytes, Bytes)>;

/// Why a packet of the connection phase could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The packet ends in the middle of a field, or a field has a value it cannot have.
    #[error("malformed {packet} packet: {field}")]
    Malformed {
        /// Which packet.
        packet: &'static str,
        /// Which field of it.
        field: &'static str,
    },
    /// A server that greets with another protocol version than 10 (MySQL before 3.21.0, or not MySQL).
    #[error("handshake protocol version {0} is not supported, only 10")]
    ProtocolVersion(u8),
    /// The peer speaks the protocol from before MySQL 4.1.
    #[error("the protocol from before MySQL 4.1 is not supported")]
    Pre41,
    /// A server that sent an ERR packet instead of its greeting (too many connections, host blocked).
    #[error("{0}")]
    Refused(ServerError),
}

/// An ERR packet, as a server sends it in the connection phase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} ({sqlstate}): {}", String::from_utf8_lossy(message))]
pub struct ServerError {
    /// The error number.
    pub code: u16,
    /// The SQLSTATE; `HY000` where the packet had none, as before the capabilities are agreed on.
    pub sqlstate: SqlState,
    /// The message, in whatever character set the server wrote it.
    pub message: Bytes,
}

/// Five characters of SQLSTATE.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

/// A server's first packet (protocol version 10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The version string, with MariaDB's `5.5.5-` in front where it was sent.
    pub server_version: Bytes,
    /// The connection id, as `CONNECTION_ID()` gives it (lower 32 bits).
    pub connection_id: u32,
    /// The nonce, without its closing NUL; [`NONCE_LEN`] bytes from every server with 4.1 authentication.
    pub nonce: Bytes,
    /// What the server can do.
    pub capabilities: Capabilities,
    /// Low byte of the default collation's id.
    pub collation: u8,
    /// Status flags of the session to be.
    pub status: u16,
    /// The plugin that the nonce is for; empty without `PLUGIN_AUTH`.
    pub auth_plugin: Bytes,
}

/// What a client sends to ask for TLS before its login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsRequest {
    /// What the client wants, `SSL` included.
    pub capabilities: Capabilities,
    /// The largest packet it says it takes, bytes.
    pub max_packet: u32,
    /// The collation's id; see [`LoginRequest::collation`].
    pub collation: u8,
}

/// A client's login: MySQL's `HandshakeResponse41`.
///
/// [`capabilities`](Self::capabilities) decides the layout; [`encode`](Self::encode) leaves out what they do not
/// allow for.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// What the client wants, as sent: not yet cut to what was offered.
    pub capabilities: Capabilities,
    /// The largest packet it says it takes, bytes.
    pub max_packet: u32,
    /// The collation's id, its low byte: measured, neither MariaDB 10.11 nor MySQL 9.7 reads the byte behind
    /// it, so collations above 255 are reached by `SET NAMES` or `COM_CHANGE_USER` only.
    pub collation: u8,
    /// The user name.
    pub user: Bytes,
    /// The first answer to the greeting's nonce, by [`auth_plugin`](Self::auth_plugin).
    pub auth_response: Bytes,
    /// The database to begin in; an empty name is none.
    pub database: Option<Bytes>,
    /// The plugin that made the auth response; `None` without `PLUGIN_AUTH`.
    pub auth_plugin: Option<Bytes>,
    /// Connection attributes.
    pub attributes: Attributes,
}

/// `COM_CHANGE_USER`, as a client sends it.
#[derive(Clone, PartialEq, Eq)]
pub struct ChangeUser {
    /// The user name.
    pub user: Bytes,
    /// The answer to the nonce of the connection's greeting, or empty.
    pub auth_response: Bytes,
    /// The database; an empty name is none.
    pub database: Option<Bytes>,
    /// The collation's id, here with both bytes; `None` when the packet ends before it.
    pub collation: Option<u16>,
    /// The plugin that made the auth response.
    pub auth_plugin: Option<Bytes>,
    /// Connection attributes.
    pub attributes: Attributes,
}

/// A fresh nonce: [`NONCE_LEN`] random bytes of 1..=127 except `$`, as servers make it, since it travels as a
/// NUL-terminated string and stored hashes are cut at `$`.
pub fn random_nonce() -> [u8; NONCE_LEN] {
    std::array::from_fn(|_| match rand::random_range(1..=126_u8) {
        b'$' => 127,
        byte => byte,
    })
}

impl Greeting {
    /// Reads a server's first packet.
    ///
    /// # Errors
    /// [`HandshakeError::Refused`] for an ERR in its place, the others for what is no greeting of protocol 10.
    pub fn parse(payload: &[u8]) -> Result<Self, HandshakeError> {
        let mut input = Input::new("greeting", payload);
        match input.u8("protocol version")? {
            10 => {}
            0xff => return Err(HandshakeError::Refused(ServerError::parse(payload)?)),
            version => return Err(HandshakeError::ProtocolVersion(version)),
        }
        let server_version = input.nul_str("server version")?;
        let connection_id = input.u32("connection id")?;
        let mut nonce = BytesMut::from(input.bytes(8, "nonce")?);
        input.bytes(1, "filler")?;
        let lower = input.u16("capabilities")?;
        // Servers before 4.1 may end here.
        let collation = input.u8("collation").map_err(|_| HandshakeError::Pre41)?;
        let status = input.u16("status flags")?;
        let upper = input.u16("upper capabilities")?;
        let nonce_len = usize::from(input.u8("nonce length")?);
        input.bytes(6, "filler")?;
        let extended = input.u32("extended capabilities")?;
        let capabilities =
            Capabilities::from_wire(u32::from(lower) | u32::from(upper) << 16, extended);
        if !capabilities.contains(Capabilities::PROTOCOL_41) {
            return Err(HandshakeError::Pre41);
        }
        if capabilities.contains(Capabilities::SECURE_CONNECTION) {
            // At least 13 bytes whatever the length says; the last is a NUL. Some servers that are none of
            // MySQL's end the packet early.
            let rest = nonce_len.saturating_sub(8).max(13).min(input.rest.len());
            let rest = input.bytes(rest, "nonce")?;
            nonce.put_slice(rest.strip_suffix(b"\0").unwrap_or(rest));
        }
        let auth_plugin = if capabilities.contains(Capabilities::PLUGIN_AUTH) {
            // MySQL 5.5.7–5.5.9 and 5.6.0–5.6.1 forget the closing NUL.
            input.nul_str_or_rest()
        } else {
            Bytes::new()
        };
        Ok(Self {
            server_version,
            connection_id,
            nonce: nonce.freeze(),
            capabilities,
            collation,
            status,
            auth_plugin,
        })
    }

    /// Appends the payload of this greeting, for Sidepool's own clients.
    pub fn encode(&self, out: &mut BytesMut) {
        let (head, tail) = self.nonce.split_at(self.nonce.len().min(8));
        out.put_u8(10);
        put_nul_str(out, &self.server_version);
        out.put_u32_le(self.connection_id);
        out.put_slice(head);
        out.put_bytes(0, 8 - head.len());
        out.put_u8(0);
        let lower = self.capabilities.lower();
        out.put_u16_le(lower as u16);
        out.put_u8(self.collation);
        out.put_u16_le(self.status);
        out.put_u16_le((lower >> 16) as u16);
        // Counts the NUL that ends the nonce.
        out.put_u8(u8::try_from(self.nonce.len() + 1).unwrap_or(u8::MAX));
        out.put_bytes(0, 6);
        out.put_u32_le(self.capabilities.extended());
        out.put_slice(tail);
        out.put_bytes(0, 13_usize.saturating_sub(tail.len()).max(1));
        if self.capabilities.contains(Capabilities::PLUGIN_AUTH) {
            put_nul_str(out, &self.auth_plugin);
        }
    }
}

impl TlsRequest {
    /// Reads a TLS request: the 32 bytes that a login begins with, and nothing more. `Ok(None)` when the packet
    /// is a login (longer, or without the `SSL` bit).
    ///
    /// # Errors
    /// A packet too short to be either, or from before 4.1.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, HandshakeError> {
        let (head, rest) = parse_login_head(payload)?;
        let is_request = rest.is_empty() && head.capabilities.contains(Capabilities::SSL);
        Ok(is_request.then_some(head))
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.capabilities.lower());
        out.put_u32_le(self.max_packet);
        out.put_u8(self.collation);
        out.put_bytes(0, 19);
        out.put_u32_le(self.capabilities.extended());
    }
}

impl LoginRequest {
    /// Reads a client's login.
    ///
    /// # Errors
    /// [`HandshakeError::Pre41`] for an old client, [`HandshakeError::Malformed`] otherwise.
    pub fn parse(payload: &[u8]) -> Result<Self, HandshakeError> {
        let (head, rest) = parse_login_head(payload)?;
        let has = |flag| head.capabilities.contains(flag);
        let mut input = Input::new("login", rest);
        let user = input.nul_str("user")?;
        let auth_response = if has(Capabilities::PLUGIN_AUTH_LENENC) {
            input.lenenc_str("auth response")?
        } else if has(Capabilities::SECURE_CONNECTION) {
            input.u8_str("auth response")?
        } else {
            input.nul_str_or_rest()
        };
        let database = if has(Capabilities::CONNECT_WITH_DB) {
            Some(input.nul_str_or_rest()).filter(|name| !name.is_empty())
        } else {
            None
        };
        let auth_plugin = has(Capabilities::PLUGIN_AUTH).then(|| input.nul_str_or_rest());
        let attributes = if has(Capabilities::CONNECT_ATTRS) {
            input.attributes()?
        } else {
            Attributes::new()
        };
        Ok(Self {
            capabilities: head.capabilities,
            max_packet: head.max_packet,
            collation: head.collation,
            user,
            auth_response,
            database,
            auth_plugin,
            attributes,
        })
    }

    /// Appends the payload. Without `PLUGIN_AUTH_LENENC` an auth response is cut at 255 bytes, its limit there.
    pub fn encode(&self, out: &mut BytesMut) {
        let has = |flag| self.capabilities.contains(flag);
        self.tls_request().encode(out);
        put_nul_str(out, &self.user);
        if has(Capabilities::PLUGIN_AUTH_LENENC) {
            put_lenenc_str(out, &self.auth_response);
        } else if has(Capabilities::SECURE_CONNECTION) {
            let len = self.auth_response.len().min(usize::from(u8::MAX));
            out.put_u8(len as u8);
            out.put_slice(&self.auth_response[..len]);
        } else {
            put_nul_str(out, &self.auth_response);
        }
        if has(Capabilities::CONNECT_WITH_DB) {
            put_nul_str(out, self.database.as_deref().unwrap_or_default());
        }
        if has(Capabilities::PLUGIN_AUTH) {
            put_nul_str(out, self.auth_plugin.as_deref().unwrap_or_default());
        }
        if has(Capabilities::CONNECT_ATTRS) {
            put_attributes(out, &self.attributes);
        }
    }

    /// The TLS request that goes ahead of this login; its capabilities hold `SSL` only if the login's do.
    pub fn tls_request(&self) -> TlsRequest {
        TlsRequest {
            capabilities: self.capabilities,
            max_packet: self.max_packet,
            collation: self.collation,
        }
    }
}

impl ChangeUser {
    /// Reads a `COM_CHANGE_USER` payload, command byte included. `capabilities` are those the client
    /// logged in with, for they decide the layout.
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`].
    pub fn parse(payload: &[u8], capabilities: Capabilities) -> Result<Self, HandshakeError> {
        let mut input = Input::new("change user", payload);
        if input.u8("command")? != COM_CHANGE_USER {
            return Err(input.malformed("command"));
        }
        let user = input.nul_str("user")?;
        let auth_response = if capabilities.contains(Capabilities::SECURE_CONNECTION) {
            input.u8_str("auth response")?
        } else {
            input.nul_str("auth response")?
        };
        let database = Some(input.nul_str_or_rest()).filter(|name| !name.is_empty());
        let mut change = Self {
            user,
            auth_response,
            database,
            collation: None,
            auth_plugin: None,
            attributes: Attributes::new(),
        };
        // Old clients end here, or after the collation.
        if input.rest.is_empty() {
            return Ok(change);
        }
        change.collation = Some(input.u16("collation")?);
        if capabilities.contains(Capabilities::PLUGIN_AUTH) && !input.rest.is_empty() {
            change.auth_plugin = Some(input.nul_str_or_rest());
        }
        if capabilities.contains(Capabilities::CONNECT_ATTRS) {
            change.attributes = input.attributes()?;
        }
        Ok(change)
    }
}

impl ServerError {
    /// Reads an ERR packet, with SQLSTATE or without.
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`] when it is none.
    pub fn parse(payload: &[u8]) -> Result<Self, HandshakeError> {
        let mut input = Input::new("ERR", payload);
        if input.u8("header")? != 0xff {
            return Err(input.malformed("header"));
        }
        let code = input.u16("error number")?;
        let mut error = Self {
            code,
            sqlstate: SqlState::HY000,
            message: Bytes::new(),
        };
        if let [b'#', sqlstate @ ..] = input.rest
            && let Some((state, rest)) = sqlstate.split_first_chunk::<5>()
        {
            error.sqlstate = SqlState(*state);
            input.rest = rest;
        }
        error.message = Bytes::copy_from_slice(input.rest);
        Ok(error)
    }
}

impl SqlState {
    /// General error.
    pub const HY000: Self = Self(*b"HY000");
}

impl std::fmt::Display for SqlState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl std::fmt::Debug for SqlState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

// By hand, because the auth response may be a password in clear.
impl std::fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginRequest")
            .field("capabilities", &self.capabilities)
            .field("collation", &self.collation)
            .field("user", &self.user)
            .field("auth_response_len", &self.auth_response.len())
            .field("database", &self.database)
            .field("auth_plugin", &self.auth_plugin)
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ChangeUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeUser")
            .field("user", &self.user)
            .field("auth_response_len", &self.auth_response.len())
            .field("database", &self.database)
            .field("collation", &self.collation)
            .field("auth_plugin", &self.auth_plugin)
            .finish_non_exhaustive()
    }
}

/// The fixed head that a TLS request is and a login begins with, and what comes behind it.
fn parse_login_head(payload: &[u8]) -> Result<(TlsRequest, &[u8]), HandshakeError> {
    let mut input = Input::new("login", payload);
    // Before 4.1 the capabilities had two bytes; this bit is in the lower half either way.
    let low = input.u16("capabilities")?;
    if !Capabilities::from_wire(u32::from(low), 0).contains(Capabilities::PROTOCOL_41) {
        return Err(HandshakeError::Pre41);
    }
    let upper = input.u16("capabilities")?;
    let max_packet = input.u32("maximal packet")?;
    let collation = input.u8("collation")?;
    input.bytes(19, "filler")?;
    let extended = input.u32("extended capabilities")?;
    let head = TlsRequest {
        capabilities: Capabilities::from_wire(u32::from(low) | u32::from(upper) << 16, extended),
        max_packet,
        collation,
    };
    Ok((head, input.rest))
}

fn put_nul_str(out: &mut BytesMut, value: &[u8]) {
    out.put_slice(value);
    out.put_u8(0);
}

fn put_attributes(out: &mut BytesMut, attributes: &Attributes) {
    let mut area = BytesMut::new();
    for (name, value) in attributes {
        put_lenenc_str(&mut area, name);
        put_lenenc_str(&mut area, value);
    }
    put_lenenc_int(out, area.len() as u64);
    out.put_slice(&area);
}

#[cfg(test)]
mod tests;
