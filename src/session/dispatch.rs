//! From the bytes of a command to what is done about it.
//!
//! What is rare is in boxes of its own here and in what follows, since the future of a command is
//! written anew for each.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, timeout};

use super::idle::Woken;
use super::local::Rows;
use super::plan::{Memory, Plan};
use super::scan::{Findings, Flags, Whole};
use super::statements::{Errand, Text};
use super::work::Work;
use super::{Flow, Session};
use crate::config::PingMode;
use crate::metrics::{CommandName, Direction, LocalAnswer, Tls};
use crate::protocol::capability::Capabilities;
use crate::protocol::command::{Command, ResponseShape, query_text};
use crate::protocol::packet::{HEADER_LEN, Header, MAX_PAYLOAD};
use crate::reason::CloseReason;

/// A client that sends nothing for so long in the middle of a command is treated as idle.
const PAUSE: Duration = Duration::from_millis(100);

impl Session {
    /// Reads one command and answers it.
    pub(super) async fn command(&mut self) -> Flow {
        let began = Instant::now();
        self.observe_gap(began);
        self.clock.answered = None;
        let packet = match self.read_command().await {
            Ok(packet) => packet,
            Err(flow) => return flow,
        };
        let byte = match &packet {
            Some(packet) => packet.get(HEADER_LEN).copied(),
            None => self.client.input.get(HEADER_LEN).copied(),
        };
        let Some(byte) = byte else {
            // A command of no bytes: what MySQL says to it.
            return self.answer_unknown().await;
        };
        self.me.command_began(began);
        self.context
            .metrics
            .queries
            .commands
            .inc(CommandName::of(byte));
        let flow = match Command::from_byte(byte) {
            Some(command) => self.dispatch(command, packet, began).await,
            None => self.answer_unknown().await,
        };
        if byte != Command::Ping as u8 || self.effective().ping_is_activity {
            self.now_idle();
        }
        flow
    }

    fn observe_gap(&self, now: Instant) {
        self.context
            .metrics
            .idle
            .gap
            .observe(now.saturating_duration_since(self.clock.idle_since));
    }

    /// Reads the whole packet; `None`: it is one of several, and is streamed.
    async fn read_command(&mut self) -> Result<Option<BytesMut>, Flow> {
        loop {
            if let Some(header) = Header::peek(&self.client.input) {
                if header.seq != 0 {
                    return Err(self.answer_out_of_order().await);
                }
                self.first_seq = 1;
                if header.len == MAX_PAYLOAD {
                    if self.client.input.len() > HEADER_LEN {
                        return Ok(None);
                    }
                } else if self.client.input.len() == HEADER_LEN + header.len {
                    // The buffer itself, which nearly always holds one command.
                    return Ok(Some(std::mem::take(&mut self.client.input)));
                } else if self.client.input.len() > HEADER_LEN + header.len {
                    return Ok(Some(self.client.input.split_to(HEADER_LEN + header.len)));
                } else {
                    let missing = HEADER_LEN + header.len - self.client.input.len();
                    self.client.input.reserve(missing);
                }
            }
            self.more_of_command().await?;
        }
    }

    /// Reads on in the middle of a command.
    pub(super) async fn more_of_command(&mut self) -> Result<(), Flow> {
        match timeout(PAUSE, self.client.read_more()).await {
            Ok(Ok(n)) if n > 0 => {}
            Ok(_) => return Err(Flow::Close(CloseReason::ClientGone)),
            Err(_) => {
                if let Woken::Close(reason) = Box::pin(self.stalled()).await {
                    Box::pin(self.say_farewell(reason)).await;
                    return Err(Flow::Close(reason));
                }
            }
        }
        Ok(())
    }

    async fn dispatch(
        &mut self,
        command: Command,
        packet: Option<BytesMut>,
        began: Instant,
    ) -> Flow {
        match (command, packet) {
            (Command::Quit, _) => Flow::Close(CloseReason::Quit),
            (Command::Query, Some(packet)) => self.query(packet, began).await,
            (Command::Query | Command::StmtPrepare, None) => {
                Box::pin(self.large(command, began)).await
            }
            (Command::StmtPrepare, Some(packet)) => self.prepare(packet, began).await,
            (Command::Ping, Some(packet)) => self.ping(packet, began).await,
            (Command::StmtClose, Some(packet)) => self.close_statement(packet).await,
            (Command::StmtSendLongData, packet) => Box::pin(self.long_data(packet, began)).await,
            (Command::StmtExecute | Command::StmtBulkExecute, packet) => {
                self.execute(command, packet, began).await
            }
            (Command::StmtReset, Some(packet)) => {
                Box::pin(self.reset_statement(packet, began)).await
            }
            (Command::StmtFetch, Some(packet)) => self.fetch(packet, began).await,
            (Command::ChangeUser, Some(packet)) => Box::pin(self.change_user(packet)).await,
            (Command::ResetConnection, Some(packet)) => {
                Box::pin(self.reset_connection(packet, began)).await
            }
            (Command::SetOption, Some(packet)) => Box::pin(self.set_option(packet, began)).await,
            (Command::ProcessKill, Some(packet)) => {
                Box::pin(self.process_kill(packet, began)).await
            }
            (command, packet) if command.shape() == ResponseShape::Refused => {
                drop(packet);
                match self.is_replication(command) {
                    true => Box::pin(self.answer_replication(command)).await,
                    false => self.answer_unknown().await,
                }
            }
            (command, packet) => {
                let mut work = Work::of(command, packet, began);
                // MySQL's OK counts the warnings of the statement before, which may be Sidepool's.
                work.plan.before.empty_diagnostics = true;
                self.carry_out(work).await
            }
        }
    }

    async fn query(&mut self, packet: BytesMut, began: Instant) -> Flow {
        self.count_query();
        let attributes = self
            .login
            .capabilities
            .contains(Capabilities::QUERY_ATTRIBUTES);
        let Some(sql) = query_text(&packet[HEADER_LEN..], attributes) else {
            // Malformed attributes: the server's own error is the right one, on any connection.
            return self
                .carry_out(Work::plain(Command::Query, packet, began))
                .await;
        };
        let findings = self.context.scanner.scan(sql, self.carried.lex);
        if let Some(flow) = self.answer_whole(&findings, sql, began).await {
            return flow;
        }
        let text_at = packet.len() - sql.len();
        if findings.flags.any(Flags::PREPARE) {
            return Box::pin(self.text_command(packet, text_at, &findings, began)).await;
        }
        let mut memory = self.memory();
        memory.routines_leave_no_trace = findings.whole == Whole::Call && self.watches_routines();
        let plan = Plan::of(&findings, memory);
        let work = Work {
            plan,
            text: Text::At(text_at),
            ..Work::plain(Command::Query, packet, began)
        };
        self.carry_out(work).await
    }

    /// Answers what is no affair of the server's.
    async fn answer_whole(
        &mut self,
        findings: &Findings,
        sql: &[u8],
        began: Instant,
    ) -> Option<Flow> {
        match findings.whole {
            Whole::Ordinary => None,
            Whole::Kill { id, query } => Box::pin(self.kill(id, query, began)).await,
            Whole::ConnectionId | Whole::ThreadId => {
                Box::pin(self.answer_id(findings.whole, sql)).await
            }
            Whole::FoundRows => {
                self.carried.learned.found_rows = self.is_mariadb();
                match self
                    .hold
                    .as_ref()
                    .is_some_and(|h| h.pending.lacks(Flags::FOUND_ROWS) == Flags::NONE)
                {
                    true => None,
                    false => Box::pin(self.answer_found_rows(sql)).await,
                }
            }
            // The server may not know it: answers of Sidepool's own count as well.
            Whole::RowCount => Box::pin(self.answer_row_count(sql)).await,
            // The server has them.
            _ if self.hold.as_ref().is_some_and(|h| h.pending.diagnostics) => None,
            form => Box::pin(self.answer_diagnostics(form, sql, Rows::Text)).await,
        }
    }

    /// The same for the execution of a prepared statement.
    pub(super) async fn answer_execution(
        &mut self,
        findings: &Findings,
        began: Instant,
    ) -> Option<Flow> {
        match findings.whole {
            Whole::Kill { id, query } => Box::pin(self.kill(id, query, began)).await,
            Whole::Ordinary => None,
            _ if self.hold.as_ref().is_some_and(|h| h.pending.diagnostics) => None,
            form => Box::pin(self.answer_diagnostics(form, b"", Rows::Binary)).await,
        }
    }

    /// A statement of 16 MB and more is not held to be read, but looked at while it passes. If its first
    /// word does not tell everything, the session is pinned, and its connection closed in the end.
    async fn large(&mut self, command: Command, began: Instant) -> Flow {
        let mut plan = Plan::PLAIN;
        plan.before.last_insert_id = true;
        plan.after.last_insert_id = true;
        self.count_query();
        self.pinned.streamed = None;
        self.carry_out(Work {
            plan,
            errand: (command == Command::StmtPrepare).then(|| Errand::Prepare(Findings::default())),
            ..Work::streamed(command, began)
        })
        .await
    }

    async fn ping(&mut self, packet: BytesMut, began: Instant) -> Flow {
        let healthy =
            self.target().is_reachable() && self.context.route.holds(&self.login.placement);
        if self.hold.is_none() && healthy && self.effective().ping == PingMode::Local {
            self.context
                .metrics
                .sessions
                .local_answers
                .inc(LocalAnswer::Ping);
            return self.answer_ok().await;
        }
        self.carry_out(Work::plain(Command::Ping, packet, began))
            .await
    }

    pub(super) fn memory(&self) -> Memory {
        Memory {
            holding: self.hold.is_some(),
            virtual_timeouts: self.carried.timeouts.is_some(),
            saved_diagnostics: self.carried.has_diagnostics(),
            routines_leave_no_trace: false,
        }
    }

    pub(super) fn count_query(&self) {
        let queries = &self.context.metrics.queries;
        queries.requests.inc(Tls::from(self.login.identity.tls));
    }

    pub(super) fn count_bytes(&self, to_database: usize, to_client: u64) {
        let bytes = &self.context.metrics.queries.bytes;
        bytes.get(Direction::ToDatabase).add(to_database as u64);
        bytes.get(Direction::ToClient).add(to_client);
    }
}
