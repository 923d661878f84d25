//! Logging in to a backend: the connection phase as a client, from the dial to the final OK.
//!
//! Measured on both servers: a connection dropped, quit or garbled before its login has ended counts to
//! `max_connect_errors`, after which the server blocks the whole host; a login that is refused does not, and one
//! that succeeds sets MySQL's count back to zero. So whatever is begun here is brought to its end.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

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

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The server answered with an ERR, which is for the client to see.
    #[error("{0}")]
    Refused(ServerError),
    /// No connection could be made.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// The backend.
        address: Address,
        /// The last attempt's error.
        source: io::Error,
    },
    /// The connection broke before the login had ended.
    #[error("connection to {address} lost while logging in: {source}")]
    Lost {
        /// The backend.
        address: Address,
        /// What happened to it.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {address} failed: {source}")]
    Tls {
        /// The backend.
        address: Address,
        /// The handshake's error.
        source: io::Error,
    },
    /// TLS is demanded and the server has none.
    #[error("{0} offers no TLS, which backend.tls.mode demands")]
    TlsNotOffered(Address),
    /// `backend.connect_timeout` passed.
    #[error("login to {address} took longer than {after:?}")]
    Timeout {
        /// The backend.
        address: Address,
        /// The time it was given.
        after: Duration,
    },
    /// The server sent what is no MySQL, or not in its place.
    #[error("{address} broke the protocol while logging in: {reason}")]
    Protocol {
        /// The backend.
        address: Address,
        /// What was wrong.
        reason: String,
    },
    /// The password may not be sent the way the account wants it, or the plugin is not known. The message says
    /// which setting helps.
    #[error("{0}")]
    Declined(AuthError),
    /// The server let the account in without looking at the secret, so letting the client in would let anybody in.
    #[error(
        "the account can log in without its password (an authentication plugin like unix_socket), \
         so a login through it proves nothing"
    )]
    NotProof,
}

/// What a server denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// User, host or password: the secret is no longer good.
    Credentials,
    /// The account may not log in now, whatever the password: locked, expired, blocked, TLS demanded of it.
    Account,
    /// The database: the credentials were good.
    Database,
}

/// Dials `address` and logs in.
///
/// Not to be cancelled: dropping the future breaks the handshake off, and a server that counts
/// `max_connect_errors` of those blocks the host. Run it in a task of its own that ends by itself.
///
/// # Errors
/// [`LoginError`]. After [`LoginError::Timeout`], [`Lost`](LoginError::Lost), [`Tls`](LoginError::Tls),
/// [`TlsNotOffered`](LoginError::TlsNotOffered) and [`Protocol`](LoginError::Protocol) the server may have counted a
/// broken handshake.
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
    let params = LoginParams {
        user: Bytes::from_static(NOBODY),
        secret: Secret::new(b""),
        database: None,
        collation: 0,
        wanted: Capabilities::EMPTY,
        attributes: Attributes::new(),
        tls: BackendTls::off(),
        timeout,
        allow_public_key_retrieval: false,
        proof: ProofDemand::Required,
    };
    let work = async {
        let (wire, greeting) = Wire::open(address, deadline).await?;
        match wire.log_in(greeting.clone(), &params).await {
            // There is an anonymous account.
            Ok(logged_in) => quit(logged_in.stream).await,
            Err(LoginError::Refused(_) | LoginError::Declined(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(greeting)
    };
    timeout_at(deadline, work)
        .await
        .map_err(|_| timed_out(address, timeout))?
}

impl LoginError {
    /// Whether the server has no room now (1040, 1203, 1226): wait and try again, do not fail.
    pub const fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Refused(ServerError {
                code: 1040 | 1203 | 1226,
                ..
            })
        )
    }

    /// Whether the server said no to who asked: [`Denial`] tells what.
    pub const fn is_access_denied(&self) -> bool {
        self.denial().is_some()
    }

    /// What the server denied, if that is what it did. Codes: MySQL's and MariaDB's server error references.
    pub const fn denial(&self) -> Option<Denial> {
        let Self::Refused(error) = self else {
            return None;
        };
        match error.code {
            // Access denied; the same without a password; host not allowed.
            1045 | 1698 | 1130 => Some(Denial::Credentials),
            1044 | 1049 => Some(Denial::Database),
            // Password expired (in the sandbox, at login); account locked (MySQL, MariaDB); locked after failed
            // logins (MySQL, MariaDB); TLS required by the server.
            1820 | 1862 | 3118 | 3159 | 3955 | 4150 | 4151 => Some(Denial::Account),
            _ => None,
        }
    }

    /// The server's ERR, to be shown to the client.
    pub const fn server_error(&self) -> Option<&ServerError> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
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
        if self.wants_tls(&greeting, params.tls.mode())? {
            request.capabilities |= Capabilities::SSL;
            self = self.start_tls(&request, &params.tls).await?;
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
        self.send_login(&request).await?;
        let (mut proof, ok) = self.exchange(&mut auth).await?;
        let Some(status) = status_of(&ok) else {
            return Err(self.protocol("malformed OK".to_owned()));
        };
        if params.proof == ProofDemand::Required
            && self.stream.is_unix()
            && greeting.capabilities.is_mariadb()
            && self.has_socket_plugin(request.capabilities).await?
        {
            proof = Proof::NotProof;
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

    fn wants_tls(&self, greeting: &Greeting, mode: TlsMode) -> Result<bool, LoginError> {
        let offered = greeting.capabilities.contains(Capabilities::SSL);
        match mode {
            TlsMode::Off => Ok(false),
            TlsMode::Preferred => Ok(offered && !self.stream.is_unix()),
            _ if offered => Ok(true),
            _ => Err(LoginError::TlsNotOffered(self.address.clone())),
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
        self.send(&payload).await?;
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

    async fn send_login(&mut self, request: &LoginRequest) -> Result<(), LoginError> {
        // Holds no password: every plugin that sends one does so after a switch or on request.
        let mut payload = BytesMut::new();
        request.encode(&mut payload);
        self.send(&payload).await
    }

    /// Goes through the exchange; the proof and the final OK.
    async fn exchange(&mut self, auth: &mut ClientAuth) -> Result<(Proof, Bytes), LoginError> {
        loop {
            let payload = self.read().await?;
            match auth.on_packet(&payload) {
                Ok(Step::Send(answer)) => self.send(&answer).await?,
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
        self.send(b"\x03SHOW CREATE USER").await?;
        let mut ends = if capabilities.contains(Capabilities::DEPRECATE_EOF) {
            1
        } else {
            2
        };
        let mut found = false;
        while ends > 0 {
            let payload = self.read().await?;
            match payload.first() {
                // Not to be told, so doubt: an account that may only change its password, for one.
                Some(0xff) => return Ok(true),
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

    async fn send(&mut self, payload: &[u8]) -> Result<(), LoginError> {
        // Nothing here is near the split at 16 MB, and what may hold a password is wiped.
        let mut packet = Zeroizing::new(Vec::with_capacity(HEADER_LEN + payload.len()));
        let header = Header {
            len: payload.len(),
            seq: self.seq,
        };
        packet.put_slice(&header.to_bytes());
        packet.put_slice(payload);
        let written = self.stream.write_all(&packet).await;
        match written.and(self.stream.flush().await) {
            Ok(()) => Ok(()),
            // A server that refuses at once may have closed already; its ERR is what there is to tell.
            Err(_) if !self.input.is_empty() => Ok(()),
            Err(error) => Err(self.lost(error)),
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
    if params.database.is_some() {
        capabilities |= Capabilities::CONNECT_WITH_DB;
    }
    LoginRequest {
        capabilities,
        max_packet: MAX_CLIENT_PACKET,
        collation: params.collation,
        user: params.user.clone(),
        auth_response: Bytes::new(),
        database: params.database.clone(),
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
