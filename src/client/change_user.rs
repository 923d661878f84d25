//! `COM_CHANGE_USER`, the server's side: a logged-in client asks to be somebody else.
//!
//! The claim is judged as in a login. Nothing moves between accounts here: what comes back is a description of
//! the client as it now is, for a session that begins anew on backend connections of the new account.

use bytes::{Bytes, BytesMut};
use tokio::time::{Duration, Instant};

use super::authenticate::{Claim, Judge, Origin, Stop};
use super::connection::{ClientFacts, LINGER, LoginOk, Rejected};
use super::wire::{Wire, WireError, err_payload};
use crate::protocol::handshake::{ChangeUser, ServerError};
use crate::reason::RejectReason;
use crate::transport::Stream;

/// A client that has proved who it wants to be, and waits for its OK.
#[derive(Debug)]
pub struct Changing<'a> {
    wire: Wire<&'a mut Stream>,
    facts: ClientFacts,
    prelude: Option<[u8; 2]>,
}

/// A change of user that was refused.
#[derive(Debug)]
pub struct ChangeRefused {
    /// What there is to be logged and counted.
    pub rejected: Rejected,
    /// What is left of the connection.
    pub connection: Connection,
    /// Bytes of the client that were read ahead and not used.
    pub early: BytesMut,
}

/// A change of user that is refused, and the client not told yet.
#[derive(Debug)]
pub struct Refusing<'a> {
    wire: Wire<&'a mut Stream>,
    user: Option<Bytes>,
    stop: Stop,
}

/// Where the exchange stands when its last packet is left to the caller.
#[derive(Debug)]
pub struct Unsent {
    /// Packets that go ahead of the last one; often none.
    pub ahead: BytesMut,
    /// Sequence id of the last packet.
    pub seq: u8,
    /// Bytes of the client that were read ahead and not used.
    pub early: BytesMut,
}

/// What is left of a connection after a refused change of user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// The client was told and waits; it may go on as who it was, or be closed.
    Whole,
    /// The client has left, or nobody knows whose turn it is: to be closed.
    Broken,
}

impl Judge {
    /// Judges a `COM_CHANGE_USER` whose `payload` (command byte included) the session has read from `stream`, with
    /// sequence id 0. `early` is what it read behind it. Not cancel-safe.
    ///
    /// The client's `facts` say who it was until now; attributes not sent anew stay.
    ///
    /// # Errors
    /// [`ChangeRefused`], after the client was told. Servers close such a connection or leave it as it was; that is the
    /// caller's to do.
    pub async fn change_user<'a>(
        &self,
        stream: &'a mut Stream,
        early: BytesMut,
        payload: &[u8],
        facts: &ClientFacts,
        handshake_timeout: Duration,
    ) -> Result<Changing<'a>, ChangeRefused> {
        let judged = self.judge_change(stream, early, payload, facts, handshake_timeout);
        match judged.await {
            Ok(changing) => Ok(changing),
            Err(refusing) => {
                let Refusing { wire, user, stop } = refusing;
                Err(refuse(wire, facts, user, stop).await)
            }
        }
    }

    /// The same, but a refusal is the caller's to tell.
    ///
    /// # Errors
    /// [`Refusing`].
    pub async fn judge_change<'a>(
        &self,
        stream: &'a mut Stream,
        early: BytesMut,
        payload: &[u8],
        facts: &ClientFacts,
        handshake_timeout: Duration,
    ) -> Result<Changing<'a>, Refusing<'a>> {
        let origin = Origin::of(stream, facts.peer);
        let mut wire = Wire::new(stream, 1, Instant::now() + handshake_timeout);
        wire.early = early;
        let change = match ChangeUser::parse(payload, facts.capabilities) {
            Ok(change) => change,
            Err(error) => {
                let stop = Stop::bad_handshake(error);
                return Err(Refusing {
                    wire,
                    user: None,
                    stop,
                });
            }
        };
        let claim = Claim {
            user: &change.user,
            plugin: change.auth_plugin.as_deref(),
            response: &change.auth_response,
            nonce: facts.nonce,
            capabilities: facts.capabilities,
        };
        match self.judge(&mut wire, origin, claim).await {
            Ok(proven) => Ok(Changing {
                wire,
                facts: ClientFacts {
                    peer: facts.peer,
                    account: proven.identity.account,
                    secret: proven.identity.secret,
                    path: proven.identity.path,
                    capabilities: facts.capabilities,
                    collation: change.collation.unwrap_or(facts.collation),
                    database: change.database,
                    attributes: if change.attributes.is_empty() {
                        facts.attributes.clone()
                    } else {
                        change.attributes
                    },
                    max_packet: facts.max_packet,
                    nonce: proven.nonce,
                },
                prelude: proven.prelude,
            }),
            Err(stop) => Err(Refusing {
                wire,
                user: Some(change.user),
                stop,
            }),
        }
    }
}

impl Refusing<'_> {
    /// Leaves the last packet to the caller: where the exchange stands, what the client is to be told (`None`: nothing
    /// any more), and what there is to be logged and counted.
    pub fn leave(self, facts: &ClientFacts) -> (Unsent, Option<ServerError>, Rejected) {
        let Self { wire, user, stop } = self;
        let answer = stop.answer.clone();
        let unsent = Unsent {
            ahead: BytesMut::new(),
            seq: wire.seq,
            early: wire.early,
        };
        (unsent, answer, Rejected::of(stop, facts.peer, user))
    }
}

impl Changing<'_> {
    /// The client as it will be.
    pub const fn facts(&self) -> &ClientFacts {
        &self.facts
    }

    /// Leaves the last packet, an OK or an ERR, to the caller.
    pub fn leave(mut self) -> (Unsent, ClientFacts) {
        let mut ahead = BytesMut::new();
        if let Some(prelude) = self.prelude {
            self.wire.put(&mut ahead, &prelude);
        }
        let unsent = Unsent {
            ahead,
            seq: self.wire.seq,
            early: self.wire.early,
        };
        (unsent, self.facts)
    }

    /// Sends the OK. Returns the client as it now is, and what was read ahead of its next command.
    ///
    /// # Errors
    /// [`ChangeRefused`] when the client has left.
    pub async fn accept(mut self, ok: &LoginOk) -> Result<(ClientFacts, BytesMut), ChangeRefused> {
        let mut out = BytesMut::with_capacity(64);
        if let Some(prelude) = self.prelude {
            self.wire.put(&mut out, &prelude);
        }
        let payload = ok.payload(self.facts.capabilities, &[]);
        self.wire.put(&mut out, &payload);
        self.wire.deadline = Instant::now() + LINGER;
        match self.wire.send_raw(&out).await {
            Ok(()) => Ok((self.facts, self.wire.early)),
            Err(error) => Err(broken(self.wire, &self.facts, error)),
        }
    }

    /// Tells the client `answer` instead. The connection is left open.
    pub async fn refuse(self, reason: RejectReason, answer: ServerError) -> ChangeRefused {
        let user = Some(self.facts.account.user().clone());
        let detail = answer.to_string();
        refuse(
            self.wire,
            &self.facts,
            user,
            Stop::new(reason, answer, detail),
        )
        .await
    }
}

async fn refuse(
    mut wire: Wire<&mut Stream>,
    facts: &ClientFacts,
    user: Option<Bytes>,
    stop: Stop,
) -> ChangeRefused {
    wire.deadline = Instant::now() + LINGER;
    let told = match &stop.answer {
        Some(answer) => wire.send(&err_payload(answer)).await.is_ok(),
        None => false,
    };
    let in_turn = !matches!(
        stop.reason,
        RejectReason::ProtocolError | RejectReason::HandshakeTimeout | RejectReason::ClientGone
    );
    ChangeRefused {
        rejected: Rejected::of(stop, facts.peer, user),
        connection: if told && in_turn {
            Connection::Whole
        } else {
            Connection::Broken
        },
        early: wire.early,
    }
}

fn broken(wire: Wire<&mut Stream>, facts: &ClientFacts, error: WireError) -> ChangeRefused {
    let user = Some(facts.account.user().clone());
    ChangeRefused {
        rejected: Rejected::of(error.into(), facts.peer, user),
        connection: Connection::Broken,
        early: wire.early,
    }
}
