//! `COM_CHANGE_USER`: a client of a session logs in again as somebody else.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::accounts::Logins;
use super::failure::{Failure, server_error};
use super::front::{Beginning, begin};
use crate::backend::route::Route;
use crate::client::authenticate::Judge;
use crate::client::change_user::Unsent;
use crate::client::connection::ClientFacts;
use crate::config::Live;
use crate::metrics::Metrics;
use crate::protocol::command::Command;
use crate::reason::RejectReason;
use crate::relay::{Conn, ErrorInfo};
use crate::session::context::{Boxed, Login, Readmission};

/// Logs clients of one role in again.
pub(super) struct Changes {
    pub(super) judge: Judge,
    pub(super) route: Route,
    pub(super) logins: Arc<Logins>,
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
}

impl Readmission for Changes {
    fn change_user<'a>(
        &'a self,
        client: &'a mut Conn,
        current: &'a Login,
        payload: Bytes,
        seq: u8,
    ) -> Boxed<'a, (u8, Result<Login, ErrorInfo>)> {
        Box::pin(self.change(client, current, payload, seq))
    }
}

impl Changes {
    /// The new session, where the role is served now.
    async fn begin_again(
        &self,
        current: &Login,
        facts: &ClientFacts,
    ) -> Result<Beginning, Failure> {
        let until = Instant::now() + self.live.load().pool.borrow_timeout;
        let placement = match self.route.is_current(&current.placement) {
            true => Some(current.placement.clone()),
            false => self.route.pick_by(until).await,
        };
        let placement = placement.ok_or_else(Failure::borrow_timeout)?;
        begin(placement, &self.logins, facts, current.identity.tls).await
    }

    async fn change(
        &self,
        client: &mut Conn,
        current: &Login,
        payload: Bytes,
        seq: u8,
    ) -> (u8, Result<Login, ErrorInfo>) {
        if seq != 0 {
            let error = server_error(1156, *b"08S01", "Got packets out of order");
            let reason = RejectReason::ProtocolError;
            return (
                seq.wrapping_add(1),
                Err(Failure { error, reason }.into_info()),
            );
        }
        let mut command = BytesMut::with_capacity(1 + payload.len());
        command.put_u8(Command::ChangeUser as u8);
        command.put_slice(&payload);
        let early = client.input.split();
        let limit = self.live.load().client.handshake_timeout;
        let facts = &current.client;
        let judged = self
            .judge
            .judge_change(&mut client.stream, early, &command, facts, limit);
        let (unsent, outcome) = match judged.await {
            Ok(changing) => {
                let (unsent, facts) = changing.leave();
                (unsent, self.begin_again(current, &facts).await)
            }
            Err(refusing) => {
                let (unsent, answer, rejected) = refusing.leave(facts);
                rejected.log();
                let gone = || {
                    server_error(
                        1158,
                        *b"08S01",
                        "Got an error reading communication packets",
                    )
                };
                let error = answer.unwrap_or_else(gone);
                (
                    unsent,
                    Err(Failure {
                        error,
                        reason: rejected.reason,
                    }),
                )
            }
        };
        let Unsent { ahead, seq, early } = unsent;
        client.input = early;
        match outcome {
            Ok(Beginning { login, .. }) => {
                client.output.extend_from_slice(&ahead);
                self.metrics.clients.logins.inc(login.client.path);
                (seq, Ok(login))
            }
            Err(failure) => (seq, Err(failure.into_info())),
        }
    }
}
