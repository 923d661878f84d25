//! One client's claim to be somebody, judged: rules, brake, exchange, decision.
//!
//! What a login and a `COM_CHANGE_USER` have in common. Nothing is sent at the end: neither the OK, which is the
//! caller's to give, nor the error, which is returned.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use zeroize::Zeroize;

use super::accounts::{Accounts, Identity, Refusal};
use super::listener::Peer;
use super::throttle::Attempt;
use super::wire::{Wire, WireError, error};
use crate::config::Admission;
use crate::protocol::auth::Secret;
use crate::protocol::auth::server::{
    AuthFailure, CanSwitch, Channel, Nonce, ProvedBy, RsaKey, ServerAuth, Step, Verdict,
};
use crate::protocol::capability::Capabilities;
use crate::protocol::handshake::{ServerError, random_nonce};
use crate::reason::RejectReason;
use crate::transport::Stream;

/// The longest user name, bytes: MariaDB's 128 characters of at most 4. Longer ones are garbage.
const MAX_USER: usize = 512;

/// What claims are judged by.
#[derive(Debug, Clone)]
pub struct Judge {
    /// Who is known.
    pub accounts: Arc<Accounts>,
    /// The key pair for passwords over plain channels.
    pub rsa: Arc<RsaKey>,
}

/// Where a client comes from and by what way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) peer: Peer,
    pub(super) channel: Channel,
    pub(super) tls: bool,
}

/// Who a client says it is.
pub(super) struct Claim<'a> {
    pub(super) user: &'a Bytes,
    pub(super) plugin: Option<&'a [u8]>,
    pub(super) response: &'a [u8],
    /// The nonce that the response is for.
    pub(super) nonce: Nonce,
    /// As negotiated.
    pub(super) capabilities: Capabilities,
}

/// A claim that holds.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) identity: Identity,
    /// Goes ahead of the final OK.
    pub(super) prelude: Option<[u8; 2]>,
    /// The nonce that the client's next claim will be for.
    pub(super) nonce: Nonce,
    /// The password, where the final OK may prove that it is known here.
    pub(super) native: Option<Secret>,
}

/// Why a client goes no further, and what it is told.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) reason: RejectReason,
    pub(super) answer: Option<ServerError>,
    pub(super) detail: String,
}

impl Judge {
    pub(super) async fn judge<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
        origin: Origin,
        claim: Claim<'_>,
    ) -> Result<Proven, Stop> {
        if claim.user.len() > MAX_USER {
            return Err(Stop::bad_handshake("user name too long"));
        }
        let attempt = self.admit(wire, origin, &claim).await?;
        let candidates = self.accounts.lookup(claim.user);
        let (verdict, nonce) = self
            .exchange(wire, origin, &claim, candidates.secrets().to_vec())
            .await?;
        let decided = self
            .accounts
            .decide(claim.user, &candidates, &verdict)
            .await;
        let identity = match decided {
            Ok(identity) => identity,
            Err(Refusal::Unavailable(answer)) => {
                attempt.forgiven();
                let detail = answer.to_string();
                return Err(Stop::new(RejectReason::BackendUnavailable, answer, detail));
            }
            Err(refusal) => {
                let with_password = match &verdict {
                    Verdict::Cleartext(secret) => !secret.is_empty(),
                    Verdict::Known(_) | Verdict::Failed(_) => claim.has_password(),
                };
                let denied = access_denied(claim.user, origin.peer, with_password);
                return Err(denial(refusal, &verdict, denied));
            }
        };
        attempt.succeeded();
        let plugin = match &verdict {
            Verdict::Known(known) => Some((known.index, known.plugin)),
            _ => None,
        };
        Ok(Proven {
            identity,
            prelude: plugin.and_then(|(_, plugin)| plugin.prelude()),
            nonce,
            native: match plugin {
                Some((index, ProvedBy::Native)) => candidates.secrets().get(index).cloned(),
                _ => None,
            },
        })
    }

    /// Whether the claim may be looked at: `[[auth.allow]]`, then the brake.
    async fn admit<S>(
        &self,
        wire: &mut Wire<S>,
        origin: Origin,
        claim: &Claim<'_>,
    ) -> Result<Attempt, Stop> {
        let answer = || access_denied(claim.user, origin.peer, claim.has_password());
        let source = origin.peer.ip();
        let settings = self.accounts.settings();
        let detail = match settings.allows(claim.user, source, origin.tls) {
            Admission::Allowed => None,
            Admission::Denied => Some("auth.allow does not admit this user from there"),
            Admission::NeedsTls => Some("auth.allow admits this user from there over TLS only"),
        };
        if let Some(detail) = detail {
            return Err(Stop::new(RejectReason::NotAllowed, answer(), detail));
        }
        let before = Instant::now();
        let attempt = self.accounts.throttle().admit(claim.user, source).await;
        // The time that Sidepool made it wait is not the client's.
        wire.deadline += before.elapsed();
        attempt.map_err(|throttled| {
            Stop::new(RejectReason::Throttled, answer(), throttled.to_string())
        })
    }

    /// Leads the exchange to its verdict. Also returns the nonce that the client answered to last.
    async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
        origin: Origin,
        claim: &Claim<'_>,
        candidates: Vec<Secret>,
    ) -> Result<(Verdict, Nonce), Stop> {
        let can_switch = claim.capabilities.contains(Capabilities::PLUGIN_AUTH);
        let auth = ServerAuth {
            nonce: claim.nonce,
            switch_nonce: random_nonce(),
            channel: origin.channel,
            can_switch: if can_switch {
                CanSwitch::Yes
            } else {
                CanSwitch::No
            },
            rsa: Arc::clone(&self.rsa),
            candidates,
        };
        let mut nonce = claim.nonce;
        let mut step = auth.start(claim.plugin, claim.response);
        loop {
            match step {
                Step::Done(verdict) => return Ok((verdict, nonce)),
                Step::Send(exchange, payload) => {
                    nonce = exchange.nonce();
                    wire.send(&payload).await?;
                    let mut packet = wire.read().await.map_err(|error| left(error, origin))?;
                    step = exchange.next(&packet);
                    // It may have been the password.
                    packet.as_mut().zeroize();
                }
            }
        }
    }
}

impl Claim<'_> {
    fn has_password(&self) -> bool {
        !matches!(self.response, [] | [0])
    }
}

impl Origin {
    pub(super) fn of(stream: &Stream, peer: Peer) -> Self {
        Self {
            peer,
            channel: if stream.is_secure() {
                Channel::Secure
            } else {
                Channel::Plain
            },
            tls: stream.is_tls(),
        }
    }
}

impl Stop {
    pub(super) fn new(
        reason: RejectReason,
        answer: ServerError,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            answer: Some(answer),
            detail: detail.into(),
        }
    }

    /// A packet that makes no sense, answered as servers do.
    pub(super) fn bad_handshake(detail: impl ToString) -> Self {
        let answer = error(1043, b"08S01", "Bad handshake");
        Self::new(RejectReason::ProtocolError, answer, detail.to_string())
    }
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Self {
            reason: match error {
                WireError::Io(_) => RejectReason::ClientGone,
                WireError::Timeout => RejectReason::HandshakeTimeout,
                WireError::OutOfOrder { .. } | WireError::TooLarge(_) => {
                    RejectReason::ProtocolError
                }
            },
            answer: error.answer(),
            detail: error.to_string(),
        }
    }
}

/// A client that leaves when it is asked for its password has usually a reason, and its own message
/// seldom tells it.
fn left(error: WireError, origin: Origin) -> Stop {
    let mut stop = Stop::from(error);
    if stop.reason == RejectReason::ClientGone {
        stop.detail.push_str(match (origin.channel, origin.tls) {
            (Channel::Plain, _) => {
                "; it was asked for its password by caching_sha2_password: without TLS it must allow public key \
                 retrieval, or preload the account in [[auth.user]]"
            }
            (Channel::Secure, true) => {
                "; it was asked for its password by caching_sha2_password: MariaDB's clients from 11.4 on then \
                 refuse a self-signed certificate, set listener.tls.certificate or preload the account in \
                 [[auth.user]]"
            }
            (Channel::Secure, false) => {
                "; it was asked for its password by caching_sha2_password, which it may not support: preload the \
                 account in [[auth.user]]"
            }
        });
    }
    stop
}

fn denial(refusal: Refusal, verdict: &Verdict, access_denied: ServerError) -> Stop {
    let reason = RejectReason::AccessDenied;
    match (refusal, verdict) {
        (_, Verdict::Failed(AuthFailure::CannotSwitch)) => {
            let text = "Client does not support authentication protocol requested by server; \
                        consider upgrading MySQL client";
            let detail = AuthFailure::CannotSwitch.to_string();
            Stop::new(reason, error(1251, b"08004", text), detail)
        }
        (_, Verdict::Failed(failure)) => Stop::new(reason, access_denied, failure.to_string()),
        (Refusal::Denied(answer), _) => {
            let detail = answer.to_string();
            Stop::new(reason, answer, detail)
        }
        _ => Stop::new(reason, access_denied, "wrong user or password"),
    }
}

fn access_denied(user: &[u8], peer: Peer, with_password: bool) -> ServerError {
    let user = String::from_utf8_lossy(user);
    let host = peer.host();
    let yes = if with_password { "YES" } else { "NO" };
    let text = format!("Access denied for user '{user}'@'{host}' (using password: {yes})");
    error(1045, b"28000", text)
}
