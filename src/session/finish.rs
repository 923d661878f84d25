//! After a command: what its answer means for the session, and whether the backend connection goes
//! back.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::directory::Activity;
use super::exchange::{Hold, Trouble};
use super::pins::{Cleaning, Pins};
use super::plan::{Plan, Shown};
use super::scan::{digest, set_without_scope};
use super::settle::clean_up;
use super::work::{Body, Work};
use super::{Flow, Left, Session};
use crate::backend::connection::StatementError;
use crate::backend::state::Family;
use crate::config::OnPin;
use crate::metrics::ErrorSource;
use crate::protocol::command::Command;
use crate::reason::{CloseReason, PinReason, RetireReason};
use crate::relay::Answer;

/// An error that the parser finds before anything has run.
pub(super) const PARSE_ERROR: u16 = 1064;
/// Variables that decide how the session's next statement is to be read.
const LEXICAL: [&[u8]; 2] = [b"sql_mode", b"character_set_client"];
/// Time that a connection whose client has left gets to be made fit for others.
const CLEAN_UP: Duration = Duration::from_secs(5);

impl Session {
    /// Carries a command out on a backend connection, and answers the client whatever happens.
    pub(super) async fn carry_out(&mut self, mut work: Work) -> Flow {
        if let Some(flow) = self.refuse_pin(&work.plan).await {
            return flow;
        }
        self.me.set_activity(Activity::Active);
        // From before the statement until all is noted: a login that follows the client's answer at
        // once must see what it changed.
        let _changing =
            (work.plan.after.globals).then(|| self.target().dialer().changing_globals());
        if work.plan.after.privileges {
            self.target().forget_privileges();
        }
        let answered = self.exchange(&mut work).await;
        if work.plan.after.privileges {
            // Once more for those that logged in meanwhile.
            self.target().forget_privileges();
        }
        match answered {
            Ok(answer) => {
                self.count_bytes(work.len(), answer.bytes);
                self.answered(&answer, &work).await
            }
            Err(trouble) => Box::pin(self.in_trouble(trouble)).await,
        }
    }

    /// Notes what the answer told, and gives the backend connection back if nothing keeps it.
    async fn answered(&mut self, answer: &Answer, work: &Work) -> Flow {
        if let Some(status) = answer.status {
            self.carried.set_status(status);
        }
        self.note_counts(answer, work);
        self.note_found_rows(answer, work);
        if let Some(error) = answer.error() {
            self.context
                .metrics
                .queries
                .errors
                .inc(ErrorSource::Database);
            debug!(code = error.code, "the database answered with an error");
        }
        self.note_statement(answer, work);
        let alone = self.is_alone();
        self.note_diagnostics(answer, work);
        let Some(hold) = &mut self.hold else {
            return Flow::Continue;
        };
        let unexplained = hold.pending.note(answer, &work.plan) && !work.explains_state();
        if work.plan.after.untracked {
            for name in set_without_scope(work.text(), work.lex(self.carried.lex)) {
                hold.pending.note_variable(&name);
            }
        }
        let unexplained = self.note_variables(answer, work, unexplained);
        self.pin_for(answer, work, unexplained);
        if work.may_use_names() {
            self.note_named(answer, work);
        }
        if alone && answer.error().is_none() && answer.warnings == 0 {
            self.take_known_transition(work);
        }
        let settled = answer.error().is_none() && answer.warnings == 0;
        let learn = alone && settled && work.plan.after.plain_set;
        let before = learn.then(|| self.carried.state.clone());
        let flow = self.give_back_if_free().await;
        if let (Some(before), None) = (before, &self.hold)
            && before != self.carried.state
        {
            let known = self.target().transitions();
            let began = work.began.into_std();
            known.insert(&before, work.text(), self.carried.state.clone(), began);
        }
        flow
    }

    /// Whether the session's state was wholly known before this command.
    fn is_alone(&self) -> bool {
        self.hold
            .as_ref()
            .is_some_and(|hold| hold.pending.is_settled())
    }

    /// A plain `SET` whose effect on this very state is known needs no read-back.
    fn take_known_transition(&mut self, work: &Work) {
        if !work.plan.after.plain_set || self.pinned.pins.any() {
            return;
        }
        let target = self.target();
        let age = self.context.settings.load().auth.recheck;
        let known = target
            .transitions()
            .get(&self.carried.state, work.text(), age);
        if let (Some(state), Some(hold)) = (known, &mut self.hold) {
            hold.pending.names.clear();
            hold.lease.state = state.clone();
            self.context.metrics.sessions.known_transitions.inc();
            self.set_state(state);
        }
    }

    pub(super) fn is_mariadb(&self) -> bool {
        self.login.first.catalog().family() == Family::MariaDb
    }

    /// Adds and removes reasons to be pinned, by what the statement was and what the server said.
    fn pin_for(&mut self, answer: &Answer, work: &Work, unexplained: bool) {
        let Some(hold) = &mut self.hold else { return };
        let (plan, learned) = (&work.plan, self.carried.learned);
        let large = is_statement(work) && self.pinned.streamed.is_none();
        let quiet = !plan.pins.any() && !large && !unexplained && hold.pending.names.is_empty();
        if quiet && self.pinned.is_plain() && !learned.any() && hold.lease.facts().trackers {
            if hold.pending.tables_locked() {
                self.pin(PinReason::LockTables, work.text());
            }
            return;
        }
        // Behind a result it is the error of a later statement.
        let parse_error = answer.status.is_none()
            && answer
                .error()
                .is_some_and(|error| error.code == PARSE_ERROR);
        let mut pins = if parse_error { Pins::NONE } else { plan.pins };
        if large && !parse_error {
            pins.add(PinReason::LargeStatement);
        }
        let facts = hold.lease.facts();
        if !facts.trackers {
            pins.add(PinReason::NoTrackers);
        }
        let found = facts
            .catalog
            .resolve(hold.pending.names.iter().map(|name| &**name));
        hold.pending.insert_id |= found.last_insert_id;
        if let Some(reason) = found.pin.filter(|&r| r != PinReason::SessionVariable) {
            pins.add(reason);
        }
        if found.virtuals.iter().any(|v| v.is_tracker()) && hold.pending.shown != Shown::All {
            pins.add(PinReason::SessionTrack);
        }
        if hold.pending.tables_locked() {
            pins.add(PinReason::LockTables);
        }
        if learned.row_count && self.carried.found_rows.is_none() {
            pins.add(PinReason::RowCount);
        }
        if learned.diagnostics && hold.pending.diagnostics {
            pins.add(PinReason::Diagnostics);
        }
        let explained = self.pinned.pins.any() || plan.pins.any() || !found.virtuals.is_empty();
        let locked = hold.pending.tables_locked();
        if !found.vars.is_empty() {
            let digest = digest(work.text(), work.lex(self.carried.lex));
            self.pinned.named_by = Some(digest.into());
        }
        self.note_open(answer, work, &mut pins, unexplained);
        if unexplained && !explained && !pins.any() && !self.only_drops(work) {
            pins.add(PinReason::UnknownState);
        }
        self.unpin_after(plan, pins, locked);
        for reason in pins.iter() {
            self.pin(reason, work.text());
        }
    }

    /// Removes the reasons that end with the next statement, or by what the server reports.
    fn unpin_after(&mut self, plan: &Plan, now: Pins, locked: bool) {
        for reason in [PinReason::RowCount, PinReason::Diagnostics] {
            let kept = reason == PinReason::RowCount && plan.after.keeps_counts;
            if !now.has(reason) && !plan.after.looks_back && !kept {
                self.unpin(reason);
            }
        }
        if !locked {
            self.unpin(PinReason::LockTables);
        }
    }

    /// Pins the session for that reason, unless the operator said not to.
    pub(super) fn pin(&mut self, reason: PinReason, text: &[u8]) {
        let mode = self.carried.lex;
        self.pin_by(reason, || digest(text, mode));
    }

    /// Pins the session because of the statement with that digest.
    fn pin_by(&mut self, reason: PinReason, digest: impl FnOnce() -> String) {
        if self
            .context
            .settings
            .load()
            .pool
            .pinning_filters
            .contains(&reason)
        {
            return;
        }
        if !self.pinned.pins.add(reason) {
            return;
        }
        self.context.metrics.sessions.pins.inc(reason);
        if self.pinned.gauge.is_none() {
            self.pinned.gauge = Some(self.context.metrics.sessions.pinned.guard());
        }
        self.me.set_pin(self.pinned.pins.iter().next());
        let (client, digest, advice) = (self.me.id(), digest(), reason.advice());
        match self.effective().on_pin {
            OnPin::Allow => {
                info!(client, %reason, %digest, advice, "session pinned to its backend connection");
            }
            // With `error`, only the statement's answer showed it.
            OnPin::Warn | OnPin::Error => {
                warn!(client, %reason, %digest, advice, "session pinned to its backend connection");
            }
        }
    }

    pub(super) fn unpin(&mut self, reason: PinReason) {
        if self.pinned.pins.remove(reason) && !self.pinned.pins.any() {
            self.pinned.gauge = None;
            self.context.metrics.sessions.unpins.inc();
        }
        self.me.set_pin(self.pinned.pins.iter().next());
    }

    /// Gives the held connection back unless a transaction or a pin keeps it.
    pub(super) async fn give_back_if_free(&mut self) -> Flow {
        let again = self.may_carry_variables_again();
        let Some(hold) = &mut self.hold else {
            return Flow::Continue;
        };
        let in_transaction =
            hold.pending.in_transaction(self.carried.status) || self.statements.hold();
        if !in_transaction
            && !again
            && self.pinned.pins.any()
            && let Err(error) = Box::pin(self.review_pins()).await
        {
            return self.state_lost(&error).await;
        }
        let Some(hold) = &mut self.hold else {
            return Flow::Continue;
        };
        if in_transaction || self.pinned.pins.any() && !again {
            let lexical = hold.pending.everything || hold.pending.names_any(&LEXICAL);
            let shown = hold.pending.shown != Shown::None;
            self.count_transaction(in_transaction);
            // A SET that changes how text is read must be known before the next statement is, and
            // Sidepool's own trackers must not stay off for longer than one statement.
            if (lexical || shown) && !self.pinned.pins.has(PinReason::SessionTrack) {
                return self.settle_or_close().await;
            }
            return Flow::Continue;
        }
        self.count_transaction(false);
        if let Flow::Close(reason) = self.settle_or_close().await {
            return Flow::Close(reason);
        }
        let Some(hold) = &self.hold else {
            return Flow::Continue;
        };
        if hold.pending.in_transaction(self.carried.status) {
            self.count_transaction(true);
            return Flow::Continue;
        }
        if let Some(reason) = self.carried.state.pin_reason(&self.login.first) {
            let digest = self.pinned.named_by.take().unwrap_or_default();
            self.pin_by(reason, || digest.into());
            return Flow::Continue;
        }
        if !self.pinned.odd_variables {
            self.unpin(PinReason::UserVariable);
        }
        if self.pinned.pins.any() {
            return Flow::Continue;
        }
        self.pinned.open = None;
        self.give_back();
        Flow::Continue
    }

    pub(super) async fn settle_or_close(&mut self) -> Flow {
        match Box::pin(self.settle()).await {
            Ok(()) => Flow::Continue,
            Err(error) => self.state_lost(&error).await,
        }
    }

    async fn state_lost(&mut self, error: &StatementError) -> Flow {
        warn!(client = self.me.id(), %error, "session state could not be read back");
        self.let_go(RetireReason::Broken);
        Box::pin(self.farewell_lost()).await
    }

    fn count_transaction(&mut self, in_transaction: bool) {
        if !in_transaction {
            self.pinned.in_transaction = None;
        } else if self.pinned.in_transaction.is_none() {
            let gauge = &self.context.metrics.sessions.in_transaction;
            self.pinned.in_transaction = Some(gauge.guard());
        }
    }

    /// Returns the held connection to the pool. Its state must be known.
    pub(super) fn give_back(&mut self) {
        let Some(Hold { lease, pending, .. }) = self.hold.take() else {
            return;
        };
        self.own = 0;
        if self.me.clear_backend_thread() {
            let entry = self.me.entry();
            tokio::spawn(async move {
                entry.kills_returned().await;
                lease.give_back();
            });
        } else {
            let (ticket, told) = (lease.give_back(), pending.told);
            self.ticket = Some(Left { ticket, told });
        }
    }

    /// Closes the held connection.
    pub(super) fn let_go(&mut self, reason: RetireReason) {
        if let Some(hold) = self.hold.take() {
            self.me.set_backend_thread(0);
            self.own = 0;
            self.pinned.in_transaction = None;
            self.statements.drop_alone();
            hold.lease.retire(reason);
        }
    }

    /// What must happen to the held connection when the session leaves it.
    fn cleaning(&self) -> Cleaning {
        let Some(hold) = &self.hold else {
            return Cleaning::None;
        };
        let open = hold.pending.in_transaction(self.carried.status) || !hold.pending.is_settled();
        if open && hold.pending.xa {
            return Cleaning::Close;
        }
        let lasting = self.pinned.open.as_ref();
        if lasting.is_some_and(|open| open.outlives_reset()) {
            return Cleaning::Close;
        }
        match self.pinned.pins.cleaning() {
            Cleaning::None if open => Cleaning::Reset,
            cleaning => cleaning,
        }
    }

    /// Leaves the held connection as the session ends or becomes somebody else's.
    pub(super) async fn leave(&mut self) {
        let cleaning = self.cleaning();
        let Some(mut hold) = self.hold.take() else {
            return;
        };
        for id in self.statements.drop_alone() {
            hold.lease.statements.close(id);
        }
        self.me.clear_backend_thread();
        self.pinned = super::Pinned::default();
        let init_query = self
            .context
            .settings
            .load()
            .pool
            .init_query
            .clone()
            .unwrap_or_default();
        // Dropped on timeout, the lease is retired.
        let cleaned = async {
            self.me.kills_returned().await;
            clean_up(hold, cleaning, &init_query).await;
        };
        if tokio::time::timeout(CLEAN_UP, cleaned).await.is_err() {
            debug!("a backend connection took too long to be reset and was closed");
        }
    }

    /// Tells the client what went wrong.
    pub(super) async fn in_trouble(&mut self, trouble: Trouble) -> Flow {
        match trouble {
            Trouble::BorrowTimeout => self.answer_borrow_timeout().await,
            Trouble::Refused(error) => self.answer_error(&error).await,
            Trouble::Unprepared(error) => self.answer_unprepared(&error).await,
            Trouble::NotKept(reason) => match self.answer_not_kept(reason).await {
                // It was borrowed, and a statement prepared on it for the next time.
                Flow::Continue => self.give_back_if_free().await,
                flow => flow,
            },
            Trouble::Denied(error) => {
                self.answer_error(&error).await;
                Flow::Close(CloseReason::AuthRevoked)
            }
            Trouble::Closing => {
                self.answer_sidepool(1053, *b"08S01", "Server shutdown in progress")
                    .await;
                Flow::Close(CloseReason::Drain)
            }
            Trouble::BackendLost { forwarded: true } => Flow::Close(CloseReason::BackendLost),
            Trouble::BackendLost { forwarded: false } => self.farewell_lost().await,
            Trouble::ReplayFailed(error) => {
                warn!(client = self.me.id(), %error, "replay failed; client closed");
                self.answer_error(&error).await;
                Flow::Close(CloseReason::ReplayFailed)
            }
            Trouble::TooLarge(error) => {
                self.answer_error(&error).await;
                Flow::Close(CloseReason::BackendLost)
            }
            Trouble::ClientGone => {
                self.abandon();
                Flow::Close(CloseReason::ClientGone)
            }
        }
    }

    /// Learns from a statement that came too late, and says so once.
    async fn answer_not_kept(&mut self, reason: PinReason) -> Flow {
        let what = match reason {
            PinReason::RowCount | PinReason::Lock => {
                self.carried.learned.row_count = true;
                "ROW_COUNT(), FOUND_ROWS() and LASTVAL()"
            }
            _ => {
                self.carried.learned.diagnostics = true;
                "the diagnostics area"
            }
        };
        let message = format!(
            "Sidepool had already shared the connection that the previous statement ran on, so {what} \
             cannot be told; from now on it is kept for this session ({reason})"
        );
        self.answer_sidepool(1235, *b"42000", &message).await
    }
}

/// Whether it is a statement that was streamed.
const fn is_statement(work: &Work) -> bool {
    matches!(work.body, Body::Streamed)
        && matches!(work.command, Command::Query | Command::StmtPrepare)
}
