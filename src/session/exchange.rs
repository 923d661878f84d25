//! One command on a backend connection: borrow, replay, send, relay.
//!
//! What may be run again and what may not is decided here, by the rule of DESIGN 9: only a command
//! of which it is certain that the server never read it is sent a second time.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::diagnostics::{kept, not_kept, put_diagnostics};
use super::directory::Activity;
use super::pending::Pending;
use super::plan::{Place, Shown};
use super::reach::Replayed;
use super::scan::{Flags, StreamScan, may_call};
use super::statements::Ready;
use super::statements::text::Readied;
use super::work::{Body, Work};
use super::{Left, Session, patience};
use crate::backend::dialer::Dialer;
use crate::backend::state::State;
use crate::metrics::Outcome;
use crate::pool::{Lease, PooledConnection};
use crate::protocol::capability::Capabilities;
use crate::protocol::command::ResponseShape;
use crate::protocol::response::Framing;
use crate::reason::{PinReason, RetireReason};
use crate::relay::{
    self, Answer, End, ErrorInfo, RelayError, Request, TrackerFilter, UploadError, Uploaded,
};

/// Notices that a server sends before it reads a command: idle too long, shutdown, killed.
const NOT_READ: [u16; 3] = [4031, 1053, 1927];
/// Times that one command may meet a connection that died idle.
const RETRIES: usize = 8;

/// A backend connection that the session holds.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) lease: Lease<Dialer>,
    pub(super) pending: Pending,
    /// No command of the session has run on it in this borrow.
    pub(super) fresh: bool,
    /// What has become of the session's state that it was borrowed for.
    pub(super) replay: Replaying,
}

/// A replay of session state onto a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaying {
    /// None was needed, or its answers have come.
    Over,
    /// It goes in front of the client's command.
    Unanswered,
}

/// Why a command was not answered by the server.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No backend connection came free in time.
    BorrowTimeout,
    /// The database refuses the account.
    Denied(ErrorInfo),
    /// The database refuses a connection for another reason.
    Refused(ErrorInfo),
    /// Sidepool is shutting down.
    Closing,
    /// The statement needs the connection that the previous one ran on, which was not kept.
    NotKept(PinReason),
    /// The backend connection was lost with a transaction, a pin or a command in flight.
    BackendLost {
        /// The client has got a part of the answer.
        forwarded: bool,
    },
    /// A replay that cannot fail failed.
    ReplayFailed(ErrorInfo),
    /// A statement of the client's could not be prepared where it was to be executed.
    Unprepared(ErrorInfo),
    /// The server refused a command before it had all of it, and closed.
    TooLarge(ErrorInfo),
    /// The client went away; its statement may still run.
    ClientGone,
}

impl Session {
    /// Gets an answer from the server for the command, and sends it to the client.
    pub(super) async fn exchange(&mut self, work: &mut Work) -> Result<Answer, Trouble> {
        for _ in 0..RETRIES {
            self.acquire(work).await?;
            match self.ready(work).await? {
                Ready::Yes => {}
                Ready::Again => continue,
                Ready::Refused(answer) => return Ok(answer),
            }
            if work.may_use_names() && Box::pin(self.ready_names(work)).await? == Readied::Again {
                continue;
            }
            match self.attempt(work).await {
                Attempt::Answered(answer) => {
                    // It is on the connection now, and its answers tell what becomes of it.
                    self.carried.next_transaction = None;
                    return Ok(answer);
                }
                Attempt::NotRead => self.context.metrics.queries.retries.inc(),
                Attempt::Failed(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::BackendLost { forwarded: false })
    }

    /// Makes sure that the session holds a backend connection in its own state.
    async fn acquire(&mut self, work: &Work) -> Result<(), Trouble> {
        let plan = &work.plan;
        if self.is_stranded() {
            return Err(self.lost(RetireReason::TargetLost, false));
        }
        if let Some(hold) = &mut self.hold {
            // A transaction or a pin is lost with its connection; nothing can bring it back.
            if !hold.lease.is_silent() {
                return Err(self.lost(RetireReason::ServerClosed, false));
            }
            let lacking = match plan.place {
                Place::Previous(needs) => hold.pending.lacks(needs),
                Place::Anywhere => Flags::NONE,
            };
            return kept(lacking);
        }
        if let Place::Previous(needs) = plan.place {
            let left = self.ticket.take();
            let told = left.as_ref().map_or(Flags::NONE, |left| left.told);
            kept(needs.without(told | Flags::LASTVAL))?;
            let lease = left.and_then(|left| self.target().pool().reborrow(left.ticket));
            self.take(lease.ok_or_else(|| not_kept(needs))?, told);
            return Ok(());
        }
        // Where it was prepared, or executed the last time.
        if work.is_prepared()
            && self.context.route.is_current(&self.login.placement)
            && let Some(Left { ticket, told }) = self.ticket.take()
            && let Some(lease) = self.target().pool().reborrow(ticket)
        {
            self.take(lease, told);
            return Ok(());
        }
        self.borrow(work.began).await
    }

    async fn borrow(&mut self, began: Instant) -> Result<(), Trouble> {
        let deadline = began + self.context.settings.load().pool.borrow_timeout;
        self.me.set_activity(Activity::Waiting);
        let mut misfits = 0;
        loop {
            if let Some(lease) = self.borrow_once(deadline).await? {
                self.take(lease, Flags::NONE);
                self.me.set_activity(Activity::Active);
                match self.replay().await? {
                    Replayed::Ready => return Ok(()),
                    Replayed::Again => {}
                    Replayed::Unreachable => {
                        misfits += 1;
                        Box::pin(self.begin_anew(misfits)).await?;
                    }
                }
            }
        }
    }

    fn take(&mut self, lease: Lease<Dialer>, told: Flags) {
        self.ticket = None;
        self.me.set_backend_thread(lease.thread_id().into());
        let mut pending = Pending::default();
        pending.told = told;
        if !lease.facts().trackers {
            pending.everything = true;
        }
        self.hold = Some(Hold {
            lease,
            pending,
            fresh: true,
            replay: Replaying::Over,
        });
    }

    /// Sends the command with what goes in front of it, and relays the answer.
    async fn attempt(&mut self, work: &Work) -> Attempt {
        let plan = &work.plan;
        self.put_before(work);
        let own = std::mem::take(&mut self.own);
        let client = self.client_framing();
        let mut first_seq = self.first_seq;
        if matches!(work.body, Body::Streamed) {
            self.client.stall = self.stall();
        }
        let Some(hold) = &mut self.hold else {
            return Attempt::Failed(Trouble::BackendLost { forwarded: false });
        };
        let fresh = std::mem::replace(&mut hold.fresh, false);
        let (more, mut ahead) = work.grown();
        let statement = work.prepares().then(|| self.statements.next_id());
        // What was streamed is gone; it cannot be sent a second time.
        let repeatable = fresh && matches!(work.body, Body::Whole(_));
        let backend = hold.lease.framing();
        match &work.body {
            Body::Whole(packet) => {
                // What the server said before it went away is still to be read: relay does.
                let _ = hold.lease.conn.send_with(packet).await;
            }
            Body::Streamed => match Box::pin(self.stream(own, more)).await {
                Ok(uploaded) => (first_seq, ahead) = (uploaded.next_seq, uploaded.ahead),
                Err(error) => return Attempt::Failed(self.upload_failed(error)),
            },
        }
        let (shape, Some(hold)) = (work.command.shape(), &mut self.hold) else {
            return Attempt::Failed(Trouble::BackendLost { forwarded: false });
        };
        // Without an answer of its own, what went in front of it still has one.
        if shape == ResponseShape::None && own == 0 {
            return Attempt::Answered(Answer::default());
        }
        let everything = TrackerFilter::All;
        let own_eyes = [self.pinned.pins, plan.pins].map(|pins| pins.has(PinReason::SessionTrack));
        let request = Request {
            shape,
            own,
            client,
            backend,
            // The client has its own trackers on the connection; what they send is meant for it.
            filter: if own_eyes.contains(&true) {
                &everything
            } else {
                &self.carried.filter
            },
            first_seq,
            status: self.carried.status,
            statement,
            ahead,
        };
        let sent = Instant::now();
        match relay::relay(&mut self.client, &mut hold.lease.conn, request).await {
            Ok(answer) => {
                self.count_answer(&answer, sent, work.began);
                Attempt::Answered(answer)
            }
            Err(error) => self.relay_failed(error, repeatable),
        }
    }

    /// Sends a command of several packets, and looks at its text as it passes.
    async fn stream(&mut self, own: u16, more: usize) -> Result<Uploaded, UploadError> {
        let Some(hold) = &mut self.hold else {
            return Err(UploadError::BackendGone {
                notice: None,
                cause: None,
            });
        };
        let context = Arc::clone(&self.context);
        let mut scan = StreamScan::of_query(&context.scanner, self.login.capabilities);
        let (conn, watch) = (&mut hold.lease.conn, |piece: &[u8]| scan.see(piece));
        let uploaded = relay::upload(&mut self.client, conn, own, more, watch).await;
        self.pinned.streamed = scan.verdict(self.carried.lex);
        uploaded
    }

    /// Counts what an answer that is over took, and the replay that was answered in front of it.
    fn count_answer(&mut self, answer: &Answer, sent: Instant, began: Instant) {
        let metrics = &self.context.metrics;
        if let Some(begun) = answer.begun {
            let took = begun.saturating_duration_since(sent);
            metrics.queries.database.observe(took);
        }
        if answer.end != End::Nothing {
            let now = Instant::now();
            let took = now.saturating_duration_since(began);
            metrics.queries.response.observe(took);
            self.clock.answered = Some(now);
        }
        if let Some(hold) = &mut self.hold
            && std::mem::replace(&mut hold.replay, Replaying::Over) == Replaying::Unanswered
        {
            metrics.sessions.replays.inc(Outcome::Ok);
        }
    }

    /// Appends what the plan wants in front of the command.
    fn put_before(&mut self, work: &Work) {
        // On MariaDB it may leave the area as it is, which is another session's.
        let unseen = self.is_mariadb() && self.leaves_unseen(work);
        let plan = &work.plan;
        let Some(hold) = &mut self.hold else { return };
        let (lease, before) = (&mut hold.lease, plan.before);
        lease.put_closes();
        if let Some(statements) = &self.carried.next_transaction {
            for sql in statements.split(|&b| b == b';').map(<[u8]>::trim_ascii) {
                if !sql.is_empty() {
                    lease.put_query(sql);
                    self.own += 1;
                }
            }
            hold.pending.set_next_transaction(Some(statements));
        }
        // Nothing may come between the client's statement and the one before it on this connection.
        if plan.place == Place::Anywhere {
            // With a question open, the connection's is the session's own.
            if !hold.pending.insert_id
                && lease.last_insert_id != self.carried.last_insert_id
                // A function may read it, which no scan of this text shows.
                && (before.last_insert_id || may_call(work.text(), work.lex(self.carried.lex)))
            {
                let sql = format!(
                    "SET @@session.last_insert_id={}",
                    self.carried.last_insert_id
                );
                lease.put_query(sql.as_bytes());
                lease.last_insert_id = self.carried.last_insert_id;
                self.own += 1;
            }
            if (before.empty_diagnostics || unseen)
                && hold.pending.lacks(Flags::DIAGNOSTICS) != Flags::NONE
            {
                let marked = unseen && self.carried.has_diagnostics();
                self.own += put_diagnostics(lease, marked, &self.carried.state);
            }
        }
        if before.virtuals > hold.pending.shown {
            if before.virtuals == Shown::All
                && let Some(sql) = lease.virtuals().trackers_sql()
            {
                lease.put_query(sql.as_bytes());
                self.own += 1;
            }
            if let Some(timeouts) = self.carried.timeouts {
                lease.put_query(timeouts.set_sql().as_bytes());
                self.own += 1;
            }
            hold.pending.shown = before.virtuals;
        }
        if self.own > 0 {
            hold.pending.asked();
        }
    }

    fn relay_failed(&mut self, error: RelayError, repeatable: bool) -> Attempt {
        debug!(%error, "relay ended early");
        match error {
            RelayError::BackendGone {
                notice: Some(notice),
                ..
            } if repeatable && NOT_READ.contains(&notice.code) => {
                self.let_go(RetireReason::ServerClosed);
                Attempt::NotRead
            }
            RelayError::BackendGone { .. } => {
                Attempt::Failed(self.lost(RetireReason::Broken, false))
            }
            RelayError::BackendLost { forwarded, .. } | RelayError::Protocol { forwarded, .. } => {
                Attempt::Failed(self.lost(RetireReason::Broken, forwarded))
            }
            RelayError::ClientGone(_) => Attempt::Failed(Trouble::ClientGone),
            RelayError::ReplayFailed { error, .. } => {
                self.context.metrics.sessions.replays.inc(Outcome::Failed);
                self.let_go(RetireReason::ReplayFailed);
                Attempt::Failed(Trouble::ReplayFailed(error))
            }
        }
    }

    fn upload_failed(&mut self, error: UploadError) -> Trouble {
        debug!(%error, "upload ended early");
        match error {
            UploadError::ClientGone(_) => Trouble::ClientGone,
            UploadError::BackendGone { .. } | UploadError::Protocol(_) => {
                self.lost(RetireReason::Broken, false)
            }
            UploadError::Refused { error, seq } => {
                self.let_go(RetireReason::Broken);
                self.first_seq = seq;
                Trouble::TooLarge(error)
            }
            UploadError::ReplayFailed { error, .. } => {
                self.context.metrics.sessions.replays.inc(Outcome::Failed);
                self.let_go(RetireReason::ReplayFailed);
                Trouble::ReplayFailed(error)
            }
        }
    }

    pub(super) fn lost(&mut self, reason: RetireReason, forwarded: bool) -> Trouble {
        self.let_go(reason);
        Trouble::BackendLost { forwarded }
    }

    /// The session's state is another from now on.
    pub(super) fn set_state(&mut self, state: State) {
        if state.schema_id() != self.carried.state.schema_id() {
            self.me.set_database(state.schema().cloned());
        }
        self.client.patience = Some(patience(&state));
        self.carried.set_state(state);
    }

    pub(super) fn client_framing(&self) -> Framing {
        let has = |bit| self.login.capabilities.contains(bit);
        Framing {
            deprecate_eof: has(Capabilities::DEPRECATE_EOF),
            session_track: has(Capabilities::SESSION_TRACK),
        }
    }
}

/// How one attempt ended.
enum Attempt {
    Answered(Answer),
    /// The server never read the command.
    NotRead,
    Failed(Trouble),
}
