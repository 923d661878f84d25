//! Logging in to a backend: the connection phase as a client, from the dial to the final OK.
//!
//! Measured on both servers: a connection dropped, quit or garbled before its login has ended counts to
//! `max_connect_errors`, after which the server blocks the whole host; a login that is refused does not, and one
//! that succeeds sets MySQL's count back to zero. So whatever is begun here is brought to its end. What cannot be is a
//! TLS handshake whose certificate is not accepted: that counts on both, so callers should wait before they try again.

mod error;

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

pub use self::error::{Denial, LoginError};
pub(super) use self::error::{denial, is_full};
use super::dial::{self, Address};
use super::tls::{BackendTls, TlsMode};
use crate::protocol::auth::Secret;
use crate::protocol::auth::client::{AuthError, Channel, ClientAuth, Proof, ProofDemand, Step};
use crate::protocol::capability::{self, Capabilities};
use crate::protocol::handshake::{Attributes, Greeting, HandshakeError, LoginRequest, ServerError};
use crate::protocol::packet::{HEADER_LEN, Header, take_lenenc_int, take_packet};
use crate::transport::Stream;

/// Payload bytes of the largest packet taken while logging in; real ones are below 2 KiB.
const MAX_LOGIN_PACKET: usize = 256 * 1024;

/// The largest packet Sidepool says it takes: the protocol's bound for rows.
const MAX_CLIENT_PACKET: u32 = 1 << 30;

/// A name that no account has, for [`read_greeting`].
const NOBODY: &[u8] = b"sidepool-greeting";

/// Whom to log in as, and how.
#[derive(Debug, Clone)]
pub struct LoginParams {
    /// The account's user name.
    pub user: Bytes,
    /// Its password.
    pub secret: Secret,
    /// The database to begin in; `None` leaves the connection without one.
    pub database: Option<Bytes>,
    /// The collation's id, which sets the session's character set.
    pub collation: u8,
    /// What the client negotiated; cut to what is forwarded, and to what the server has.
    pub wanted: Capabilities,
    /// Connection attributes.
    pub attributes: Attributes,
    /// TLS.
    pub tls: BackendTls,
    /// For everything from the name's resolution to the final OK.
    pub timeout: Duration,
    /// `backend.allow_public_key_retrieval`.
    pub allow_public_key_retrieval: bool,
    /// Whether the login is to prove the secret. If so, one that does not is [`LoginError::NotProof`].
    pub proof: ProofDemand,
}

/// A backend connection, logged in and with nothing in flight.
#[derive(Debug)]
pub struct LoggedIn {
    /// The stream.
    pub stream: Stream,
    /// Bytes read beyond the final OK; normally none.
    pub read_buffer: BytesMut,
    /// What the server said of itself: version, connection id, capabilities, collation, plugin.
    pub greeting: Greeting,
    /// What was agreed on: the server can do it and Sidepool asked for it.
    pub capabilities: Capabilities,
    /// Status flags of the final OK.
    pub status: u16,
    /// The final OK's payload: it may hold session state, such as the database.
    pub ok: Bytes,
    /// Whether the secret was proved.
    pub proof: Proof,
}

/// Dials `address` and logs in.
///
/// Not to be cancelled: dropping the future breaks the handshake off, and a server that counts
/// `max_connect_errors` of those blocks the host. Run it in a task of its own that ends by itself.
///
/// # Errors
/// [`LoginError`]. After [`LoginError::Timeout`], [`Lost`](LoginError::Lost), [`Tls`](LoginError::Tls) and
/// [`Protocol`](LoginError::Protocol) the server may have counted a broken handshake.
pub async fn login(address: &Address, params: &LoginParams) -> Result<LoggedIn, LoginError> {
    let deadline = Instant::now() + params.timeout;
    let work = async {
        let (wire, greeting) = Wire::open(address, deadline).await?;
        wire.log_in(greeting, params).await
    };
    let logged_in = timeout_at(deadline, work)
        .await
        .map_err(|_| timed_out(address, params.timeout))??;
    if params.proof == ProofDemand::Required && logged_in.proof == Proof::NotProof {
        quit(logged_in.stream).await;
        return Err(LoginError::NotProof);
    }
    Ok(logged_in)
}

/// Learns what a server greets with, without credentials, and without a handshake that breaks off: a login is
/// tried as a user that does not exist, in clear and without a password, and its refusal awaited. Measured, this
/// is what counts to no limit on either server; it leaves one line `Access denied for user` in a log that has them.
///
/// Not to be cancelled, as [`login`].
///
/// # Errors
/// As [`login`], except that a refused login is what is expected; an ERR in the greeting's place is
/// [`LoginError::Refused`].
pub async fn read_greeting(address: &Address, timeout: Duration) -> Result<Greeting, LoginError> {
    let deadline = Instant::now() + timeout;
    let work = async {
        let (wire, greeting) = Wire::open(address, deadline).await?;
        wire.be_refused(&greeting).await?;
        Ok(greeting)
    };
    timeout_at(deadline, work)
        .await
        .map_err(|_| timed_out(address, timeout))?
}

/// What comes between greeting and login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TlsPlan {
    None,
    Start,
    NotOffered,
}

/// A connection whose login is under way.
struct Wire<'a> {
    address: &'a Address,
    stream: Stream,
    input: BytesMut,
    /// Sequence id of the next packet to be sent.
    seq: u8,
}

impl<'a> Wire<'a> {
    /// Connects and reads the greeting.
    async fn open(address: &'a Address, deadline: Instant) -> Result<(Self, Greeting), LoginError> {
        let stream =
            dial::connect(address, deadline)
                .await
                .map_err(|source| LoginError::Unreachable {
                    address: address.clone(),
                    source,
                })?;
        let mut wire = Self {
            address,
            stream,
            input: BytesMut::with_capacity(1024),
            seq: 0,
        };
        let payload = wire.read().await?;
        match Greeting::parse(&payload) {
            Ok(greeting) => Ok((wire, greeting)),
            Err(HandshakeError::Refused(error)) => Err(LoginError::Refused(error)),
            Err(error) => Err(wire.protocol(error.to_string())),
        }
    }

    async fn log_in(
        mut self,
        greeting: Greeting,
        params: &LoginParams,
    ) -> Result<LoggedIn, LoginError> {
        let mut request = login_request(&greeting, params);
        match self.tls_plan(&greeting, params.tls.mode()) {
            TlsPlan::None => {}
            TlsPlan::Start => {
                request.capabilities |= Capabilities::SSL;
                self = self.start_tls(&request, &params.tls).await?;
            }
            TlsPlan::NotOffered => {
                let address = self.address.clone();
                self.be_refused(&greeting).await?;
                return Err(LoginError::TlsNotOffered(address));
            }
        }
        let channel = match &self.stream {
            Stream::Tls(_) if params.tls.verifies() => Channel::TlsVerified,
            stream if stream.is_unix() => Channel::UnixSocket,
            Stream::Tls(_) => Channel::TlsUnverified,
            Stream::Plain(_) => Channel::Plain,
        };
        let mut auth = ClientAuth::new(
            params.secret.clone(),
            channel,
            params.allow_public_key_retrieval,
        );
        let (plugin, response) = auth.first_response(&greeting, params.proof);
        request.auth_plugin = Some(Bytes::from_static(plugin.as_bytes()));
        request.auth_response = Bytes::from_owner(response);
        self.send_login(&request).await;
        let (mut proof, ok) = self.exchange(&mut auth).await?;
        let Some(status) = status_of(&ok) else {
            return Err(self.protocol("malformed OK".to_owned()));
        };
        if self.stream.is_unix() && greeting.capabilities.is_mariadb() {
            let doubtful = match params.proof {
                ProofDemand::Required => self.has_socket_plugin(request.capabilities).await?,
                // Not worth a round trip.
                ProofDemand::NotNeeded => true,
            };
            if doubtful {
                proof = Proof::NotProof;
            }
        }
        Ok(LoggedIn {
            stream: self.stream,
            read_buffer: self.input,
            greeting,
            capabilities: request.capabilities,
            status,
            ok,
            proof,
        })
    }

    /// Ends a handshake that is not to become a login, by one that the server refuses. Nothing secret is sent.
    async fn be_refused(mut self, greeting: &Greeting) -> Result<(), LoginError> {
        let mut auth = ClientAuth::new(Secret::new(b""), Channel::Plain, false);
        let (plugin, response) = auth.first_response(greeting, ProofDemand::Required);
        self.send_login(&LoginRequest {
            capabilities: capability::for_backend(Capabilities::EMPTY, greeting.capabilities),
            max_packet: MAX_CLIENT_PACKET,
            collation: greeting.collation,
            user: Bytes::from_static(NOBODY),
            auth_response: Bytes::from_owner(response),
            database: None,
            auth_plugin: Some(Bytes::from_static(plugin.as_bytes())),
            attributes: Attributes::new(),
        })
        .await;
        match self.exchange(&mut auth).await {
            // There is an anonymous account.
            Ok(_) => quit(self.stream).await,
            Err(LoginError::Refused(_) | LoginError::Declined(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn tls_plan(&self, greeting: &Greeting, mode: TlsMode) -> TlsPlan {
        let offered = greeting.capabilities.contains(Capabilities::SSL);
        match mode {
            TlsMode::Off => TlsPlan::None,
            TlsMode::Preferred if !offered || self.stream.is_unix() => TlsPlan::None,
            _ if offered => TlsPlan::Start,
            _ => TlsPlan::NotOffered,
        }
    }

    async fn start_tls(
        mut self,
        request: &LoginRequest,
        tls: &BackendTls,
    ) -> Result<Self, LoginError> {
        // Anything here came in clear and would be read as if it had come under TLS.
        if !self.input.is_empty() {
            return Err(self.protocol("bytes in clear behind the greeting".to_owned()));
        }
        let mut payload = BytesMut::new();
        request.tls_request().encode(&mut payload);
        self.send(&payload).await;
        let stream = match self.stream {
            Stream::Plain(socket) => tls.connect(socket, self.address).await,
            already @ Stream::Tls(_) => Ok(already),
        };
        self.stream = stream.map_err(|source| LoginError::Tls {
            address: self.address.clone(),
            source,
        })?;
        Ok(self)
    }

    async fn send_login(&mut self, request: &LoginRequest) {
        // Holds no password: every plugin that sends one does so after a switch or on request.
        let mut payload = BytesMut::new();
        request.encode(&mut payload);
        self.send(&payload).await;
    }

    /// Goes through the exchange; the proof and the final OK.
    async fn exchange(&mut self, auth: &mut ClientAuth) -> Result<(Proof, Bytes), LoginError> {
        loop {
            let payload = self.read().await?;
            match auth.on_packet(&payload) {
                Ok(Step::Send(answer)) => self.send(&answer).await,
                Ok(Step::Wait) => {}
                Ok(Step::Done(proof)) => return Ok((proof, payload)),
                Err(AuthError::Refused(error)) => return Err(LoginError::Refused(error)),
                Err(AuthError::Protocol(reason)) => return Err(self.protocol(reason.to_owned())),
                Err(error) => return Err(LoginError::Declined(error)),
            }
        }
    }

    /// Whether the account lets its owner in by who owns the process at the other end of the Unix socket. MariaDB
    /// accounts can have several plugins; one that refused the secret may be followed, unseen on the wire, by
    /// `unix_socket`, which does not look at it.
    async fn has_socket_plugin(&mut self, capabilities: Capabilities) -> Result<bool, LoginError> {
        self.seq = 0;
        self.send(b"\x03SHOW CREATE USER").await;
        let mut ends = if capabilities.contains(Capabilities::DEPRECATE_EOF) {
            1
        } else {
            2
        };
        let mut found = false;
        while ends > 0 {
            let payload = self.read().await?;
            match payload.first() {
                // Doubt, and the client may as well know why: 1820, if the password has expired.
                Some(0xff) => {
                    let error = ServerError::parse(&payload);
                    return Err(error.map_or_else(
                        |error| self.protocol(error.to_string()),
                        LoginError::Refused,
                    ));
                }
                Some(0xfe) => ends -= 1,
                _ => found |= memchr::memmem::find(&payload, b"unix_socket").is_some(),
            }
        }
        Ok(found)
    }

    async fn read(&mut self) -> Result<Bytes, LoginError> {
        loop {
            match take_packet(&mut self.input, MAX_LOGIN_PACKET) {
                Ok(Some(packet)) => {
                    self.seq = packet.last_seq.wrapping_add(1);
                    return Ok(packet.payload.freeze());
                }
                Ok(None) => {}
                Err(error) => return Err(self.protocol(error.to_string())),
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
    }

    async fn send(&mut self, payload: &[u8]) {
        // Nothing here is near the split at 16 MB, and what may hold a password is wiped.
        let mut packet = Zeroizing::new(Vec::with_capacity(HEADER_LEN + payload.len()));
        let header = Header {
            len: payload.len(),
            seq: self.seq,
        };
        packet.put_slice(&header.to_bytes());
        packet.put_slice(payload);
        self.seq = self.seq.wrapping_add(1);
        // A server that refuses before it has read may be gone already. The read that follows every packet
        // sent here brings its ERR, or the loss.
        if self.stream.write_all(&packet).await.is_ok() {
            self.stream.flush().await.ok();
        }
    }

    fn lost(&self, source: io::Error) -> LoginError {
        LoginError::Lost {
            address: self.address.clone(),
            source,
        }
    }

    fn protocol(&self, reason: String) -> LoginError {
        LoginError::Protocol {
            address: self.address.clone(),
            reason,
        }
    }
}

fn login_request(greeting: &Greeting, params: &LoginParams) -> LoginRequest {
    let mut capabilities = capability::for_backend(params.wanted, greeting.capabilities);
    // An empty name is none.
    let database = params.database.clone().filter(|name| !name.is_empty());
    if database.is_some() {
        capabilities |= Capabilities::CONNECT_WITH_DB;
    }
    LoginRequest {
        capabilities,
        max_packet: MAX_CLIENT_PACKET,
        collation: params.collation,
        user: params.user.clone(),
        auth_response: Bytes::new(),
        database,
        auth_plugin: None,
        attributes: params.attributes.clone(),
    }
}

/// Status flags of an OK packet: header, affected rows, insert id, flags.
fn status_of(ok: &[u8]) -> Option<u16> {
    let mut rest = ok.get(1..)?;
    take_lenenc_int(&mut rest)?;
    take_lenenc_int(&mut rest)?;
    rest.first_chunk().copied().map(u16::from_le_bytes)
}

/// Ends a connection that is logged in, so that the server does not count it as aborted.
async fn quit(mut stream: Stream) {
    // The connection is given up either way.
    let _ = stream.write_all(b"\x01\0\0\0\x01").await;
    let _ = stream.shutdown().await;
}

fn timed_out(address: &Address, after: Duration) -> LoginError {
    LoginError::Timeout {
        address: address.clone(),
        after,
    }
}

#[cfg(test)]
mod tests;
