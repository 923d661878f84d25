//! Following the route: borrowing where the session's role is served now, and taking the session's
//! state along when that is another server than before.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use super::Session;
use super::exchange::Trouble;
use crate::backend::connection::StatementError;
use crate::backend::dialer::{DialError, Dialer};
use crate::backend::login::LoginError;
use crate::backend::route::{Placement, Route};
use crate::backend::state::replay;
use crate::backend::target::{Target, TargetError};
use crate::metrics::Outcome;
use crate::pool::{BorrowError, Connector, Lease};
use crate::reason::RetireReason;
use crate::relay::ErrorInfo;
use crate::relay::own::OwnError;

/// `ER_UNKNOWN_ERROR`
const UNKNOWN: u16 = 1105;

/// Pause between two attempts to reach a backend that is down.
const DIAL_AGAIN: Duration = Duration::from_millis(200);

/// Whether the server that serves the session has accepted its values before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// It showed them itself.
    Accepted,
    /// They come from another server, so that setting them may fail.
    Untried,
}

/// Why the session could not move.
enum Unmoved {
    /// Its first state there could not be read.
    Borrow(TargetError),
    /// Nobody waits for it any more.
    ClientGone,
    /// It has a variable that does not exist there.
    Variable,
}

impl Session {
    /// The server that serves the session, or did last.
    pub(super) const fn target(&self) -> &Target {
        &self.login.placement.target
    }

    /// One attempt to borrow where the session's role is served now. `None`: another attempt may help.
    pub(super) async fn borrow_once(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<Lease<Dialer>>, Trouble> {
        if !self.context.route.is_current(&self.login.placement) {
            match Box::pin(self.follow(deadline)).await {
                Ok(()) => {}
                Err(Unmoved::Borrow(error)) => {
                    Box::pin(self.borrow_failed(error, deadline)).await?;
                    return Ok(None);
                }
                Err(Unmoved::ClientGone) => return Err(Trouble::ClientGone),
                Err(Unmoved::Variable) => return Err(not_movable()),
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let client = &mut self.client;
        let target = &self.login.placement.target;
        let borrowed = target
            .pool()
            .borrow(&self.login.key, &self.carried.state, left);
        let moved = moved_on(&self.context.route, target, left.is_zero());
        let borrowed = tokio::select! {
            biased;
            borrowed = borrowed => borrowed,
            () = moved => return Ok(None),
            // Or the queue would fill with statements of clients that no longer wait for them.
            _ = poll_fn(|cx| client.poll_gone(cx)) => return Err(Trouble::ClientGone),
        };
        match borrowed {
            Ok(lease) => Ok(Some(lease)),
            Err(error) => {
                Box::pin(self.borrow_failed(error, deadline)).await?;
                Ok(None)
            }
        }
    }

    /// Waits a little if trying again may help.
    async fn borrow_failed(
        &mut self,
        error: BorrowError<DialError>,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let cause = match error {
            BorrowError::Timeout { .. } => return Err(Trouble::BorrowTimeout),
            BorrowError::Closed => return Err(Trouble::Closing),
            BorrowError::Connect(cause) => cause,
        };
        let refused = match &*cause {
            DialError::Login(error) => error.server_error(),
            DialError::SetUp(_) | DialError::NoSecret | DialError::NoBaseline => None,
        };
        match refused {
            Some(error) if Dialer::is_denied(&cause) => Err(Trouble::Denied(error_info(error))),
            Some(error) => Err(Trouble::Refused(error_info(error))),
            None if Dialer::is_denied(&cause) => Err(Trouble::Denied(access_denied())),
            // Settings are wrong, and will not be right in a moment.
            None if is_lasting(&cause) => Err(Trouble::Refused(own_error(&cause.to_string()))),
            None if Instant::now() + DIAL_AGAIN < deadline => {
                debug!(error = %cause, "backend not reached; trying again");
                tokio::time::sleep(DIAL_AGAIN).await;
                Ok(())
            }
            None => Err(Trouble::BorrowTimeout),
        }
    }

    /// Whether what the session holds is of no use any more: outside a transaction, at a server that writes no
    /// longer go to.
    pub(super) fn is_stranded(&self) -> bool {
        let Some(hold) = &self.hold else { return false };
        self.context.route.has_left(&self.login.placement)
            && !hold.pending.in_transaction(self.carried.status)
            && !self.statements.hold()
    }

    /// Makes sure that the session's state is one of the server that serves it now.
    async fn follow(&mut self, deadline: Instant) -> Result<(), Unmoved> {
        let waiting_since = Instant::now();
        let client = &mut self.client;
        let picked = tokio::select! {
            biased;
            picked = self.context.route.pick_by(deadline) => picked,
            _ = poll_fn(|cx| client.poll_gone(cx)) => return Err(Unmoved::ClientGone),
        };
        let Some(placement) = picked else {
            let waited = waiting_since.elapsed();
            return Err(Unmoved::Borrow(BorrowError::Timeout { waited, ahead: 0 }));
        };
        if placement.target.is(self.target()) {
            self.login.placement = placement;
            return Ok(());
        }
        self.move_to(placement, deadline).await
    }

    async fn move_to(&mut self, placement: Placement, deadline: Instant) -> Result<(), Unmoved> {
        // Ids above 255 cannot be asked for in a login.
        let collation = u8::try_from(self.login.client.collation).unwrap_or_default();
        let began = Instant::now();
        let reading = placement.target.first_state(&self.login.key, collation);
        let first = match timeout_at(deadline, reading).await {
            Ok(first) => first.map_err(Unmoved::Borrow)?,
            Err(_) => {
                let waited = began.elapsed();
                return Err(Unmoved::Borrow(BorrowError::Timeout { waited, ahead: 0 }));
            }
        };
        let state = self.carried.state.rebase(&self.login.first, &first);
        let Some(state) = state else {
            return Err(Unmoved::Variable);
        };
        let moved = self.move_statements(&first);
        moved.ok_or(Unmoved::Variable)?;
        debug!(
            client = self.me.id(),
            from = %self.target().dialer().address(),
            to = %placement.target.dialer().address(),
            "session moves to another server"
        );
        self.ticket = None;
        self.values = Values::Untried;
        self.login.first = first;
        self.me.set_target(&placement.target);
        self.login.placement = placement;
        self.set_state(state);
        Ok(())
    }

    /// Sets values that this server has not accepted before, and waits for its OK: in one write with the client's
    /// command, that command would run without them if they were refused. `false`: another connection is needed.
    pub(super) async fn try_values(&mut self) -> Result<bool, Trouble> {
        if self.values == Values::Accepted {
            return Ok(true);
        }
        let Some(hold) = &mut self.hold else {
            return Ok(false);
        };
        let lease = &mut hold.lease;
        let Ok(replay) = replay(&lease.state, &self.carried.state) else {
            return Ok(true);
        };
        let Some(sql) = &replay.set_sql else {
            // What the connection has, the server accepted.
            self.values = Values::Accepted;
            return Ok(true);
        };
        lease.put_query(sql);
        let answered = async {
            lease.send().await?;
            lease.read_ok().await
        };
        match answered.await {
            Ok(_) => {
                let schema = lease.state.schema().cloned();
                lease.state = self.carried.state.with_schema(schema.as_deref());
                self.values = Values::Accepted;
                self.context.metrics.sessions.replays.inc(Outcome::Ok);
                Ok(true)
            }
            Err(StatementError::Own(OwnError::Server(error))) => {
                info!(client = self.me.id(), %error, "session state is not accepted by the new server");
                self.context.metrics.sessions.replays.inc(Outcome::Failed);
                self.let_go(RetireReason::ReplayFailed);
                Err(Trouble::ReplayFailed(error))
            }
            Err(error) => {
                debug!(%error, "backend connection failed in a replay");
                self.let_go(RetireReason::Broken);
                Ok(false)
            }
        }
    }

    /// Whether the server that serves the session has not accepted its values yet.
    pub(super) fn has_untried_values(&self) -> bool {
        self.values == Values::Untried
    }

    /// The session's values are no longer known to be accepted.
    pub(super) const fn untry_values(&mut self) {
        self.values = Values::Untried;
    }

    /// The session begins anew, in the state of its login.
    pub(super) fn placed_by_login(&mut self) {
        self.values = Values::Accepted;
        self.me.set_target(&self.login.placement.target);
    }
}

/// Ends when the session should look elsewhere; never for one that does not wait.
async fn moved_on(route: &Route, target: &Target, at_once: bool) {
    match at_once {
        true => std::future::pending().await,
        false => route.left(target).await,
    }
}

/// Whether trying again would end in the same error.
fn is_lasting(error: &DialError) -> bool {
    match error {
        DialError::Login(LoginError::Declined(_) | LoginError::TlsNotOffered(_)) => true,
        // What is wrong with the certificate, not a connection that broke.
        DialError::Login(LoginError::Tls { source, .. }) => {
            source.kind() == std::io::ErrorKind::InvalidData
        }
        _ => false,
    }
}

fn not_movable() -> Trouble {
    Trouble::ReplayFailed(own_error(
        "this session cannot go on at the server that serves it now, which lacks a variable that the session has set",
    ))
}

fn own_error(message: &str) -> ErrorInfo {
    ErrorInfo {
        code: UNKNOWN,
        sqlstate: *b"HY000",
        message: format!("Sidepool: {message}").into_bytes().into(),
    }
}

fn error_info(error: &crate::protocol::handshake::ServerError) -> ErrorInfo {
    ErrorInfo {
        code: error.code,
        sqlstate: error.sqlstate.0,
        message: error.message.to_vec().into_boxed_slice(),
    }
}

fn access_denied() -> ErrorInfo {
    ErrorInfo {
        code: 1045,
        sqlstate: *b"28000",
        message: b"Access denied: the database no longer accepts this account's password"
            .to_vec()
            .into_boxed_slice(),
    }
}
