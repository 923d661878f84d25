//! Commands that change who or what the session is: `COM_CHANGE_USER`, `COM_RESET_CONNECTION`,
//! `COM_SET_OPTION`; and pins that the operator forbids.

use bytes::{Buf, BytesMut};
use tokio::time::Instant;
use tracing::warn;

use super::context::Login;
use super::plan::Plan;
use super::settle::{RoleAfter, read_after_reset, select_again};
use super::work::Work;
use super::{Flow, Session, carried, own_timeouts, patience};
use crate::backend::connection::StatementError;
use crate::backend::key::PoolKey;
use crate::backend::state::{IdleTimeouts, State, replay};
use crate::config::OnPin;
use crate::protocol::capability::{self, Capabilities};
use crate::protocol::command::Command;
use crate::protocol::packet::HEADER_LEN;
use crate::reason::{CloseReason, PinReason, RetireReason};
use crate::relay::End;

/// After so many refused changes of user MariaDB takes no further one on that connection (10.11.19), so that
/// passwords are not tried out this way.
const MAX_REFUSED: u8 = 3;
const ACCESS_DENIED: u16 = 1045;

impl Session {
    /// A fresh login on the same connection. No backend connection moves between accounts, so the
    /// one held is left as at the end of a session.
    pub(super) async fn change_user(&mut self, packet: BytesMut) -> Flow {
        self.leave().await;
        self.statements.clear();
        self.ticket = None;
        if self.refused_changes >= MAX_REFUSED && self.is_mariadb() {
            self.stay_as_logged_in();
            let message = "Unknown command";
            return self.answer_sidepool(1047, *b"08S01", message).await;
        }
        let payload = packet.freeze().slice(HEADER_LEN + 1..);
        let readmission = self.context.readmission.clone();
        let (seq, result) = readmission
            .change_user(&mut self.client, &self.login, payload, 0)
            .await;
        self.first_seq = seq;
        match result {
            Ok(login) => {
                self.carried = carried(&login);
                self.client.patience = Some(patience(&login.state));
                self.carried.timeouts = self.timeouts_anew(&login);
                self.me.set_identity(login.identity.clone());
                self.me.set_database(login.state.schema().cloned());
                self.login = login;
                self.placed_by_login();
                self.rules = None;
                self.answer_ok().await
            }
            Err(error) if error.code == ACCESS_DENIED && self.is_mariadb() => {
                self.refused_changes += 1;
                self.stay_as_logged_in();
                self.answer_error(&error).await
            }
            // MySQL ends a connection whose change of user is refused.
            Err(error) => {
                self.answer_error(&error).await;
                Flow::Close(CloseReason::AuthRevoked)
            }
        }
    }

    /// What MariaDB leaves of a session whose change of user was refused: the account, the database, and variables
    /// as at the login but for the character set, which is the server's.
    fn stay_as_logged_in(&mut self) {
        const FROM: [(&str, &str); 4] = [
            ("character_set_client", "character_set_server"),
            ("character_set_results", "character_set_server"),
            ("character_set_connection", "character_set_server"),
            ("collation_connection", "collation_server"),
        ];
        let schema = self.carried.state.schema().cloned();
        self.carried = carried(&self.login);
        self.carried.timeouts = self.timeouts_anew(&self.login);
        let state = self.login.state.with_schema(schema.as_deref());
        let catalog = state.catalog();
        let changes = FROM.iter().filter_map(|(name, server)| {
            let (id, server) = (catalog.id(name)?, catalog.id(server)?);
            Some((id, state.get(server).clone()))
        });
        self.set_state(state.with(&changes.collect::<Vec<_>>()));
    }

    /// Forwarded, so that the server itself decides what a reset session is; what it decided is read
    /// back.
    pub(super) async fn reset_connection(&mut self, packet: BytesMut, began: Instant) -> Flow {
        let mut work = Work::plain(Command::ResetConnection, packet, began);
        match self.exchange(&mut work).await {
            Ok(answer) if answer.end == End::Ok => {
                self.carried
                    .set_status(answer.status.unwrap_or(self.carried.status));
            }
            Ok(_) => return self.give_back_if_free().await,
            Err(trouble) => return self.in_trouble(trouble).await,
        }
        let Some(hold) = &mut self.hold else {
            return Flow::Continue;
        };
        let role = match read_after_reset(&mut hold.lease).await {
            Ok(role) => role,
            Err(error) => {
                warn!(client = self.me.id(), %error, "session state could not be read after a reset");
                self.let_go(RetireReason::Broken);
                return Flow::Close(CloseReason::BackendLost);
            }
        };
        let xa = hold.pending.xa;
        hold.pending = super::pending::Pending::default();
        let server = hold.lease.state.clone();
        let state = self.after_reset(&server);
        self.forget_all(state, role);
        if xa {
            self.let_go(RetireReason::Dirty);
            return Flow::Continue;
        }
        if let Err(error) = self.bring_over(&server).await {
            warn!(client = self.me.id(), %error, "session state could not be set after a reset");
            self.let_go(RetireReason::Broken);
            return Flow::Close(CloseReason::BackendLost);
        }
        if let Some(hold) = &mut self.hold
            && select_again(&mut hold.lease).await.is_err()
        {
            // Gone or denied by now: not what others expect of a connection.
            self.let_go(RetireReason::Dirty);
        }
        self.give_back_if_free().await
    }

    /// The session's own part of a reset that led to `state`.
    fn forget_all(&mut self, state: State, role: RoleAfter) {
        self.carried.last_insert_id = 0;
        self.carried.row_count = 0;
        self.carried.found_rows = None;
        self.carried.next_transaction = None;
        self.carried.timeouts = self.timeouts_anew(&self.login);
        self.carried.diagnostics = None;
        self.set_state(state);
        self.statements.clear();
        *self.carried.names = Default::default();
        self.pinned.odd_variables = false;
        let lasting = self.pinned.open.as_ref();
        if lasting.is_none_or(|open| !open.outlives_reset()) {
            self.pinned.open = None;
        }
        for reason in self.pinned.pins.ended_by_reset() {
            if self.pinned.open.is_none() || reason != PinReason::Lock {
                self.unpin(reason);
            }
        }
        // A routine has set it; a dedicated connection would keep it too.
        if role == RoleAfter::Another {
            self.pin(PinReason::Role, b"");
        }
    }

    /// `CLIENT_INTERACTIVE` counts again after a reset and a change of user on MySQL, and not on MariaDB (measured).
    fn timeouts_anew(&self, login: &Login) -> Option<IdleTimeouts> {
        match self.is_mariadb() {
            true => None,
            false => own_timeouts(login),
        }
    }

    /// The state after a reset that showed `server` on a connection which logged in for another
    /// client: MariaDB keeps the charset of the handshake, so each client keeps its own; MySQL goes
    /// to the server's default (hazard 7).
    fn after_reset(&self, server: &State) -> State {
        const HANDSHAKE: [&str; 4] = [
            "character_set_client",
            "character_set_results",
            "character_set_connection",
            "collation_connection",
        ];
        if !self.is_mariadb() {
            return server.clone();
        }
        let catalog = server.catalog();
        let first = &self.login.first;
        let changes = HANDSHAKE.iter().filter_map(|name| {
            let id = catalog.id(name)?;
            Some((id, first.get(id).clone()))
        });
        server.with(&changes.collect::<Vec<_>>())
    }

    /// Brings the held connection from `from` into the session's state.
    async fn bring_over(&mut self, from: &State) -> Result<(), StatementError> {
        let Some(hold) = &mut self.hold else {
            return Ok(());
        };
        if let Ok(replay) = replay(from, &self.carried.state)
            && let Some(sql) = &replay.set_sql
        {
            hold.lease.put_query(sql);
            hold.lease.send().await?;
            hold.lease.read_ok().await?;
        }
        hold.lease.state = self.carried.state.clone();
        Ok(())
    }

    /// `COM_SET_OPTION` changes whether the server takes several statements at once, which is part
    /// of the key: the session moves to the other key, and the connection is put back.
    pub(super) async fn set_option(&mut self, packet: BytesMut, began: Instant) -> Flow {
        let option = packet
            .get(HEADER_LEN + 1..HEADER_LEN + 3)
            .map(|mut raw| raw.get_u16_le());
        let mut work = Work::plain(Command::SetOption, packet, began);
        // MySQL's answer counts the warnings of the statement before, which may be Sidepool's own.
        work.plan.before.empty_diagnostics = true;
        let answer = match self.exchange(&mut work).await {
            Ok(answer) => answer,
            Err(trouble) => return self.in_trouble(trouble).await,
        };
        if answer.error().is_none()
            && let Some(option @ 0..=1) = option
        {
            self.switch_multi_statements(option == 0).await;
        }
        self.give_back_if_free().await
    }

    async fn switch_multi_statements(&mut self, on: bool) {
        let now = self.login.key.bits().capabilities();
        let bits = match on {
            true => now.with(Capabilities::MULTI_STATEMENTS),
            false => now.without(Capabilities::MULTI_STATEMENTS),
        };
        if bits == now {
            return;
        }
        let credentials = self.login.key.credentials().clone();
        self.login.key = PoolKey::new(credentials, capability::pool_key(bits));
        if let Some(hold) = &mut self.hold {
            // It is of the other key now; put back as it was, it would be lent to the wrong one
            // only if this failed, so failing closes it. Switched a second time, it is as it was.
            let before = hold.pending.option.take();
            hold.pending.option = before.is_none().then_some(on);
        }
    }

    /// Refuses a statement that would pin where the operator said so.
    pub(super) async fn refuse_pin(&mut self, plan: &Plan) -> Option<Flow> {
        if !plan.pins.any() {
            return None;
        }
        let settings = self.effective();
        let fresh = plan
            .pins
            .iter()
            .find(|&reason| !self.pinned.pins.has(reason))?;
        match settings.on_pin {
            OnPin::Allow | OnPin::Warn => None,
            OnPin::Error => {
                let message = format!(
                    "Sidepool refuses this statement because it would pin the session to its backend \
                     connection ({fresh}, client.on_pin = \"error\"): {}",
                    fresh.advice()
                );
                Some(self.answer_sidepool(1235, *b"42000", &message).await)
            }
        }
    }
}
