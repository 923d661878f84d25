//! The connection phase: from the accepted socket to a client that is known.
//!
//! PROXY header, greeting, TLS, login, password exchange. The final OK is not sent here: an
//! [`Authenticated`] client waits for [`accept`](Authenticated::accept) or [`refuse`](Authenticated::refuse), since
//! its database and the session's first state must be had first. Limits and answers are those of servers.
//! Source: MySQL Internals, "Connection Phase"; the errors are captured from MySQL 9.7 and MariaDB 10.11.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::IpNet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::accounts::Account;
use super::accounts::SecretId;
use super::authenticate::{Claim, Judge, Origin, Proven, Stop};
use super::drain_to_end;
use super::listener::Peer;
use super::proxy_protocol::{ProxyHeader, ReadHeaderError, read_header};
use super::tls::{Material, ServerTls, TlsDemand};
use super::wire::{Wire, WireError, err_payload, error};
use crate::metrics::LoginPath;
use crate::protocol::auth::Plugin;
use crate::protocol::auth::server::{Channel, Nonce, tls_proof};
use crate::protocol::capability::{Capabilities, negotiated, offered_to_clients};
use crate::protocol::handshake::{
    Attributes, Greeting, HandshakeError, LoginRequest, ServerError, TlsRequest, random_nonce,
};
use crate::protocol::packet::{put_lenenc_int, put_lenenc_str};
use crate::reason::RejectReason;
use crate::transport::Stream;

/// How long a client may take to accept its last packet, and one that was told an error to close its side.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Bytes of a rejected client's user name that are kept.
const SHOWN_USER: usize = 128;

/// `SERVER_SESSION_STATE_CHANGED`: tracker data follows in the OK.
const SESSION_STATE_CHANGED: u16 = 0x4000;

/// One listener's connection phase.
#[derive(Debug)]
pub struct Door {
    /// Who may come in.
    pub judge: Judge,
    /// TLS, if it is on.
    pub tls: Option<Arc<ServerTls>>,
    /// Load balancers: peers that must, and alone may, send a PROXY header.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// What one connection is told and granted.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What the greeting says.
    pub greeting: GreetingFacts,
    /// The connection's id.
    pub connection_id: u32,
    /// How long the client may take, from the accepted socket to its last packet of the exchange. Waiting for
    /// the database is not in it.
    pub handshake_timeout: Duration,
}

/// What the greeting mirrors of the backends.
#[derive(Debug, Clone)]
pub struct GreetingFacts {
    /// The version, as the lowest backend writes it.
    pub server_version: Bytes,
    /// What all backends can; [`offered_to_clients`] takes from it what is offered.
    pub backend_capabilities: Capabilities,
    /// Low byte of the default collation's id.
    pub collation: u8,
    /// Status flags (autocommit).
    pub status: u16,
    /// The first plugin: what the backends' own clients expect, [`Plugin::CachingSha2`] for MySQL and
    /// [`Plugin::MysqlNative`] for MariaDB.
    pub auth_plugin: Plugin,
}

/// What is known of a client once it is logged in.
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// Where it comes from, by the PROXY header if there was one.
    pub peer: Peer,
    /// Who it is.
    pub account: Arc<Account>,
    /// The secret it came with.
    pub secret: SecretId,
    /// What proved it.
    pub path: LoginPath,
    /// What it asked for among what was offered.
    pub capabilities: Capabilities,
    /// The collation's id.
    pub collation: u16,
    /// The database it begins in.
    pub database: Option<Bytes>,
    /// Its attributes. Any bytes.
    pub attributes: Attributes,
    /// The largest packet it says it takes; servers do not act on it.
    pub max_packet: u32,
    /// The nonce that a `COM_CHANGE_USER` answers to.
    pub nonce: Nonce,
}

/// A client that has proved who it is and waits for its OK.
#[derive(Debug)]
pub struct Authenticated {
    wire: Wire<Stream>,
    facts: ClientFacts,
    prelude: Option<[u8; 2]>,
    info: Vec<u8>,
}

/// What the OK of a login says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginOk {
    /// Status flags of the session's first state.
    pub status: u16,
    /// Warnings.
    pub warnings: u16,
    /// Tracker data for clients with `SESSION_TRACK`; may be empty.
    pub session_state: Bytes,
}

/// A client that never got a session. It has been answered and its socket closed.
#[derive(Debug)]
pub struct Rejected {
    /// Why, as a metric knows it.
    pub reason: RejectReason,
    /// From where.
    pub peer: Peer,
    /// Who it said it was, if it came that far.
    pub user: Option<Bytes>,
    /// Why, for a person.
    pub detail: String,
}

enum First {
    Login(LoginRequest),
    Tls,
}

impl Door {
    /// Leads one connection to its login. Not cancel-safe: dropping the future closes the connection.
    ///
    /// # Errors
    /// [`Rejected`], after the client was told.
    pub async fn admit(
        &self,
        mut stream: Stream,
        peer: Peer,
        terms: &Terms,
    ) -> Result<Authenticated, Rejected> {
        let deadline = Instant::now() + terms.handshake_timeout;
        let peer = match self.real_peer(&mut stream, peer, deadline).await {
            Ok(peer) => peer,
            Err(stop) => return Err(Rejected::of(stop, peer, None)),
        };
        let nonce = random_nonce();
        let offered = offered_to_clients(terms.greeting.backend_capabilities, self.tls.is_some());
        let mut wire = Wire::new(stream, 0, deadline);
        let first = match self.greet(&mut wire, terms, offered, nonce).await {
            Ok(first) => first,
            Err(stop) => return Err(reject(wire, peer, None, stop).await),
        };
        let mut material = None;
        let login = match first {
            First::Login(login) => login,
            First::Tls => {
                let tls = self.tls.as_ref().map(|tls| tls.current());
                wire = match start_tls(wire, tls.as_deref()).await {
                    Ok(wire) => wire,
                    Err(stop) => return Err(Rejected::of(stop, peer, None)),
                };
                material = tls;
                match read_login(&mut wire).await {
                    Ok(login) => login,
                    Err(stop) => return Err(reject(wire, peer, None, stop).await),
                }
            }
        };
        let capabilities = negotiated(offered, login.capabilities);
        match self
            .log_in(&mut wire, peer, &login, capabilities, nonce)
            .await
        {
            Ok(proven) => Ok(authenticated(
                wire,
                peer,
                login,
                capabilities,
                (proven, material),
            )),
            Err(stop) => Err(reject(wire, peer, Some(login.user), stop).await),
        }
    }

    async fn real_peer(
        &self,
        stream: &mut Stream,
        peer: Peer,
        deadline: Instant,
    ) -> Result<Peer, Stop> {
        let from_balancer = |ip| self.proxy_protocol_from.iter().any(|net| net.contains(&ip));
        if !peer.ip().is_some_and(from_balancer) {
            return Ok(peer);
        }
        // No answer: a balancer is no MySQL client.
        let stop = |reason, detail: String| Stop {
            reason,
            answer: None,
            detail,
        };
        match timeout_at(deadline, read_header(stream)).await {
            Ok(Ok(ProxyHeader::Proxied { source, .. })) => Ok(Peer::Tcp(source)),
            Ok(Ok(ProxyHeader::Local)) => Ok(peer),
            Ok(Err(error @ ReadHeaderError::Io(_))) => {
                Err(stop(RejectReason::ClientGone, error.to_string()))
            }
            Ok(Err(error)) => Err(stop(RejectReason::ProxyProtocol, error.to_string())),
            Err(_) => {
                let detail = "no PROXY header came from a peer in listener.proxy_protocol_from";
                Err(stop(RejectReason::ProxyProtocol, detail.to_owned()))
            }
        }
    }

    async fn greet(
        &self,
        wire: &mut Wire<Stream>,
        terms: &Terms,
        offered: Capabilities,
        nonce: Nonce,
    ) -> Result<First, Stop> {
        let facts = &terms.greeting;
        let greeting = Greeting {
            server_version: facts.server_version.clone(),
            connection_id: terms.connection_id,
            nonce: Bytes::copy_from_slice(&nonce),
            capabilities: offered,
            collation: facts.collation,
            status: facts.status,
            auth_plugin: Bytes::from_static(facts.auth_plugin.name().as_bytes()),
        };
        let mut payload = BytesMut::with_capacity(128);
        greeting.encode(&mut payload);
        wire.send(&payload).await?;
        let packet = wire.read().await?;
        if TlsRequest::parse(&packet).map_err(refused)?.is_some() {
            return match &self.tls {
                Some(_) => Ok(First::Tls),
                None => Err(Stop::bad_handshake("TLS was asked for and not offered")),
            };
        }
        let login = LoginRequest::parse(&packet).map_err(refused)?;
        Ok(First::Login(login))
    }

    async fn log_in(
        &self,
        wire: &mut Wire<Stream>,
        peer: Peer,
        login: &LoginRequest,
        capabilities: Capabilities,
        nonce: Nonce,
    ) -> Result<Proven, Stop> {
        let origin = Origin::of(&wire.stream, peer);
        let demand = self.tls.as_ref().map(|tls| tls.demand());
        if demand == Some(TlsDemand::Required) && origin.channel == Channel::Plain {
            let text = "Connections using insecure transport are prohibited while \
                        --require_secure_transport=ON.";
            let answer = error(3159, b"HY000", text);
            let detail = "the listener requires TLS";
            return Err(Stop::new(RejectReason::TlsRequired, answer, detail));
        }
        let claim = Claim {
            user: &login.user,
            plugin: login.auth_plugin.as_deref(),
            response: &login.auth_response,
            nonce,
            capabilities,
        };
        self.judge.judge(wire, origin, claim).await
    }
}

impl Authenticated {
    /// What is known of the client.
    pub const fn facts(&self) -> &ClientFacts {
        &self.facts
    }

    /// Whether the client speaks TLS.
    pub const fn is_tls(&self) -> bool {
        self.wire.stream.is_tls()
    }

    /// Sends the OK. What comes next on the stream is the client's first command.
    ///
    /// # Errors
    /// [`Rejected`] when the client has left.
    pub async fn accept(mut self, ok: &LoginOk) -> Result<(Stream, ClientFacts), Rejected> {
        let mut out = BytesMut::with_capacity(64);
        if let Some(prelude) = self.prelude {
            self.wire.put(&mut out, &prelude);
        }
        let payload = ok.payload(self.facts.capabilities, &self.info);
        self.wire.put(&mut out, &payload);
        self.wire.deadline = Instant::now() + LINGER;
        match self.wire.send_raw(&out).await {
            Ok(()) => Ok((self.wire.stream, self.facts)),
            Err(error) => {
                let user = Some(self.facts.account.user().clone());
                Err(Rejected::of(error.into(), self.facts.peer, user))
            }
        }
    }

    /// Tells the client `answer` instead and closes. Returns what there is to be logged and counted.
    pub async fn refuse(self, reason: RejectReason, answer: ServerError) -> Rejected {
        let detail = answer.to_string();
        let user = Some(self.facts.account.user().clone());
        let stop = Stop::new(reason, answer, detail);
        reject(self.wire, self.facts.peer, user, stop).await
    }
}

impl LoginOk {
    /// The OK's payload. With nothing to say, servers leave the info out even under `SESSION_TRACK`
    /// (captured); with something they write it length-encoded, which is how clients read it.
    pub(super) fn payload(&self, capabilities: Capabilities, info: &[u8]) -> BytesMut {
        let tracked = capabilities.contains(Capabilities::SESSION_TRACK);
        let state = Some(&self.session_state).filter(|state| tracked && !state.is_empty());
        let changed = if state.is_some() {
            SESSION_STATE_CHANGED
        } else {
            0
        };
        let mut out = BytesMut::with_capacity(16 + info.len() + self.session_state.len());
        out.put_u8(0);
        put_lenenc_int(&mut out, 0);
        put_lenenc_int(&mut out, 0);
        out.put_u16_le(self.status & !SESSION_STATE_CHANGED | changed);
        out.put_u16_le(self.warnings);
        if !info.is_empty() || state.is_some() {
            put_lenenc_str(&mut out, info);
        }
        if let Some(state) = state {
            put_lenenc_str(&mut out, state);
        }
        out
    }
}

impl Rejected {
    pub(super) fn of(stop: Stop, peer: Peer, user: Option<Bytes>) -> Self {
        Self {
            reason: stop.reason,
            peer,
            user: user.map(|mut user| {
                user.truncate(SHOWN_USER);
                user
            }),
            detail: stop.detail,
        }
    }

    /// Writes the log line: for those who come and go (port scans, health checks) at debug level.
    pub fn log(&self) {
        let Self {
            reason,
            peer,
            detail,
            ..
        } = self;
        let user = self
            .user
            .as_ref()
            .map(|user| user.escape_ascii().to_string());
        let user = user.as_deref().unwrap_or_default();
        match (reason, self.user.is_some()) {
            (RejectReason::ClientGone, false) => debug!(%reason, %peer, detail, "client rejected"),
            (RejectReason::BackendUnavailable, _) => {
                warn!(%reason, %peer, user, detail, "client rejected");
            }
            _ => info!(%reason, %peer, user, detail, "client rejected"),
        }
    }
}

/// Speaks TLS from here on. What the client sent behind its request is still in the socket, so it cannot
/// be anything but TLS.
async fn start_tls(wire: Wire<Stream>, tls: Option<&Material>) -> Result<Wire<Stream>, Stop> {
    let failed = |reason, detail: String| Stop {
        reason,
        answer: None,
        detail,
    };
    let (Some(tls), Stream::Plain(socket)) = (tls, wire.stream) else {
        return Err(Stop::bad_handshake("TLS was asked for twice"));
    };
    let stream = match timeout_at(wire.deadline, tls.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(RejectReason::TlsFailed, error.to_string())),
        Err(_) => {
            let detail = WireError::Timeout.to_string();
            return Err(failed(RejectReason::HandshakeTimeout, detail));
        }
    };
    Ok(Wire::new(stream, wire.seq, wire.deadline))
}

async fn read_login(wire: &mut Wire<Stream>) -> Result<LoginRequest, Stop> {
    let packet = wire.read().await?;
    LoginRequest::parse(&packet).map_err(refused)
}

fn refused(error: HandshakeError) -> Stop {
    Stop::bad_handshake(error)
}

fn authenticated(
    wire: Wire<Stream>,
    peer: Peer,
    login: LoginRequest,
    capabilities: Capabilities,
    (proven, material): (Proven, Option<Arc<Material>>),
) -> Authenticated {
    let info = match (&proven.native, material) {
        (Some(secret), Some(material)) if wants_tls_proof(&login) => {
            tls_proof(secret, &proven.nonce, material.certificate_sha256())
        }
        _ => Vec::new(),
    };
    let facts = ClientFacts {
        peer,
        account: proven.identity.account,
        secret: proven.identity.secret,
        path: proven.identity.path,
        capabilities,
        collation: u16::from(login.collation),
        database: login.database,
        attributes: login.attributes,
        max_packet: login.max_packet,
        nonce: proven.nonce,
    };
    Authenticated {
        wire,
        facts,
        prelude: proven.prelude,
        info,
    }
}

/// Whether the client is one of MariaDB's, which look for the proof. Toward a MySQL greeting they do not say so
/// by bit 0, but their attributes do.
fn wants_tls_proof(login: &LoginRequest) -> bool {
    let by_name = |(name, value): &(Bytes, Bytes)| {
        name == &b"_client_name"[..]
            && (value.eq_ignore_ascii_case(b"libmariadb")
                || value.to_ascii_lowercase().starts_with(b"mariadb"))
    };
    login.capabilities.is_mariadb() || login.attributes.iter().any(by_name)
}

/// Tells the client why and closes, so that the telling arrives.
async fn reject(mut wire: Wire<Stream>, peer: Peer, user: Option<Bytes>, stop: Stop) -> Rejected {
    if let Some(answer) = &stop.answer {
        wire.deadline = Instant::now() + LINGER;
        let farewell = async {
            wire.send(&err_payload(answer)).await?;
            drain_to_end(&mut wire.stream).await?;
            Ok::<_, WireError>(())
        };
        // It is closed either way.
        let _ = timeout(LINGER, farewell).await;
    }
    Rejected::of(stop, peer, user)
}

#[cfg(test)]
mod tests;
