//! The commands of prepared statements, and what their answers mean.

use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};
use tokio::time::Instant;

use super::Text;
use super::binary::{Bound, Errand, Why};
use super::here::{NOBODY, TOO_MANY};
use super::packet::{
    BULK_HEAD, EXECUTE_HEAD, ID_AT, Layout, Types, fill, reframe, types, wants_cursor,
};
use crate::backend::statements::Use;
use crate::protocol::capability::Capabilities;
use crate::protocol::command::Command;
use crate::protocol::packet::HEADER_LEN;
use crate::relay::End;
use crate::session::exchange::Trouble;
use crate::session::plan::Plan;
use crate::session::scan::{Findings, Whole};
use crate::session::work::Work;
use crate::session::{Flow, Session};

/// Bytes of `COM_STMT_SEND_LONG_DATA` without any data: command, statement id, parameter.
const LONG_DATA_HEAD: usize = 7;
/// Bytes of `COM_STMT_FETCH`.
const FETCH_LEN: usize = 9;
/// Bytes of the other commands: command and statement id.
const ID_LEN: usize = 5;
/// Bytes of a packet of 16 MB in which the types of its parameters must be found, unless they have names without end.
const TYPES_WITHIN: usize = 1 << 20;
/// Open statements of one client, whatever the server allows.
const MOST: u64 = 1 << 20;

impl Session {
    /// `COM_STMT_PREPARE`, which is always the server's to answer. The client gets an id of Sidepool's.
    pub(in crate::session) async fn prepare(&mut self, packet: BytesMut, began: Instant) -> Flow {
        if let Some(flow) = self.too_many().await {
            return flow;
        }
        let sql = &packet[HEADER_LEN + 1..];
        let findings = self.context.scanner.scan(sql, self.carried.lex);
        let work = Work {
            plan: Plan::PREPARE,
            text: Text::At(HEADER_LEN + 1),
            errand: Some(Errand::Prepare(findings)),
            ..Work::plain(Command::StmtPrepare, packet, began)
        };
        self.carry_out(work).await
    }

    /// Refuses what the server would as well, if all its connections' statements were this client's.
    async fn too_many(&mut self) -> Option<Flow> {
        let open = self.statements.len() as u64;
        if open == 0 {
            return None;
        }
        let max = self.target().max_prepared();
        if open < max.clamp(1, MOST) {
            return None;
        }
        let message = format!(
            "Can't create more than max_prepared_stmt_count statements (current value: {max})"
        );
        Some(self.answer_sidepool(TOO_MANY, *b"42000", &message).await)
    }

    /// `COM_STMT_EXECUTE` and `COM_STMT_BULK_EXECUTE`.
    pub(in crate::session) async fn execute(
        &mut self,
        command: Command,
        mut packet: Option<BytesMut>,
        began: Instant,
    ) -> Flow {
        self.count_query();
        let layout = self.layout(command);
        let head = match layout {
            Layout::Bulk => BULK_HEAD,
            _ => EXECUTE_HEAD,
        };
        if packet.is_none()
            && let Err(flow) = self.gather(HEADER_LEN + head).await
        {
            return flow;
        }
        let id = match self.named(packet.as_deref(), head) {
            Some(id) => id,
            None => {
                let packet = packet.unwrap_or_default();
                return Box::pin(self.cut_short(command, packet, began)).await;
            }
        };
        let Some(own) = self.statements.resolve(id, self.is_mariadb()) else {
            return Box::pin(self.stranger(command, packet, id, began)).await;
        };
        if packet.is_none()
            && let Err(flow) = Box::pin(self.gather_types(layout, own)).await
        {
            return flow;
        }
        let Some(statement) = self.statements.get(own) else {
            return Flow::Continue;
        };
        if let Some(error) = &statement.error {
            let error = (**error).clone();
            return Box::pin(self.answer_error(&error)).await;
        }
        let text = Text::Of(Arc::clone(&statement.key), statement.lex);
        let findings = statement.findings;
        if let Some(flow) = self.answer_execution(&findings, began).await {
            return flow;
        }
        let errand = self.bind(layout, own, packet.as_mut());
        let work = Work {
            plan: self.plan_execution(&findings, &text),
            text,
            errand: Some(errand),
            ..Work::of(command, packet, began)
        };
        self.carry_out(work).await
    }

    /// As for the same statement sent as text.
    fn plan_execution(&mut self, findings: &Findings, text: &Text) -> Plan {
        if let Text::Of(key, _) = text
            && key.text().is_empty()
        {
            return Plan::unread();
        }
        let mut memory = self.memory();
        memory.routines_leave_no_trace = findings.whole == Whole::Call && self.watches_routines();
        let mut plan = Plan::of(findings, memory);
        plan.after.plain_set = false;
        plan
    }

    /// Remembers the types that come with an execution, or puts them where the client relies on earlier ones:
    /// the server's statement may know another session's.
    fn bind(&mut self, layout: Layout, own: u32, packet: Option<&mut BytesMut>) -> Errand {
        let streamed = packet.is_none();
        let packet = match packet {
            Some(packet) => packet,
            None => &mut self.client.input,
        };
        let payload = &packet[HEADER_LEN..];
        let usage = match wants_cursor(layout, payload) {
            true => Use::Cursor,
            false => Use::Rows,
        };
        let mut bound = Bound::None;
        let (mut more, mut ahead) = (0, 0);
        if let Some(statement) = self.statements.get(own) {
            match types(layout, payload, usize::from(statement.params)) {
                Types::None => {}
                Types::Sent(sent) => {
                    bound = Bound::Known;
                    if !statement
                        .types
                        .as_deref()
                        .is_some_and(|known| sent.are(known))
                    {
                        let earlier = statement.types.replace(sent.to_boxed());
                        if let (Some(_), Some(alone)) = (earlier, &mut statement.alone) {
                            alone.mixed = true;
                        }
                    }
                }
                Types::Earlier(gap) => match &statement.types {
                    Some(known) => {
                        bound = Bound::Known;
                        more = fill(packet, gap, known);
                    }
                    None => bound = Bound::Unknown,
                },
                // Too many names to look at.
                Types::Incomplete if streamed => {
                    bound = Bound::Unknown;
                    statement.types = None;
                }
                Types::Incomplete | Types::Odd => bound = Bound::Unknown,
            }
        }
        if !streamed && more > 0 {
            ahead = reframe(packet);
            more = 0;
        }
        Errand::Execute {
            own,
            usage,
            bound,
            more,
            ahead,
        }
    }

    /// Parameter data of a statement, which is never answered: what goes wrong is told when it is executed.
    pub(in crate::session) async fn long_data(
        &mut self,
        packet: Option<BytesMut>,
        began: Instant,
    ) -> Flow {
        if packet.is_none()
            && let Err(flow) = self.gather(HEADER_LEN + LONG_DATA_HEAD).await
        {
            return flow;
        }
        let Some(id) = self.named(packet.as_deref(), LONG_DATA_HEAD) else {
            return self.answer_truncated().await;
        };
        let head = packet.as_deref().unwrap_or(&self.client.input);
        let param = head
            .get(ID_AT + 4..ID_AT + 6)
            .map(|mut raw| raw.get_u16_le());
        let own = self.statements.resolve(id, self.is_mariadb());
        let errand = match (own, param) {
            (Some(own), Some(param)) => Errand::LongData { own, param },
            // Servers say nothing to it.
            _ if packet.is_some() => return Flow::Continue,
            _ => Errand::Stranger(id),
        };
        let mut work = Work {
            errand: Some(errand),
            ..Work::of(Command::StmtSendLongData, packet, began)
        };
        let failed = match self.exchange(&mut work).await {
            Ok(answer) => match answer.end {
                End::Error(error) => Some(error),
                _ => None,
            },
            Err(Trouble::Refused(error)) => Some(error),
            Err(Trouble::BorrowTimeout) => Some(borrow_timeout()),
            Err(trouble) => return self.in_trouble(trouble).await,
        };
        if let (Some(error), Some(own)) = (failed, own)
            && let Some(statement) = self.statements.get(own)
        {
            statement.error = Some(Box::new(error));
        }
        self.give_back_if_free().await
    }

    /// `COM_STMT_RESET`. A statement that has nothing on a connection has nothing to be reset.
    pub(in crate::session) async fn reset_statement(
        &mut self,
        packet: BytesMut,
        began: Instant,
    ) -> Flow {
        let Some(id) = self.named(Some(&packet), ID_LEN) else {
            return self.cut_short(Command::StmtReset, packet, began).await;
        };
        let Some(own) = self.statements.resolve(id, self.is_mariadb()) else {
            return self
                .stranger(Command::StmtReset, Some(packet), id, began)
                .await;
        };
        let Some(statement) = self.statements.get(own) else {
            return Flow::Continue;
        };
        statement.error = None;
        if self.hold.is_none() {
            // ROW_COUNT() is another from now on, and no connection has it.
            self.ticket = None;
            return self.answer_ok().await;
        }
        let work = Work {
            errand: Some(Errand::Reset { own }),
            ..Work::plain(Command::StmtReset, packet, began)
        };
        self.carry_out(work).await
    }

    /// `COM_STMT_FETCH`.
    pub(in crate::session) async fn fetch(&mut self, packet: BytesMut, began: Instant) -> Flow {
        let Some(id) = self.named(Some(&packet), FETCH_LEN) else {
            return self.cut_short(Command::StmtFetch, packet, began).await;
        };
        let Some(own) = self.statements.resolve(id, self.is_mariadb()) else {
            return self
                .stranger(Command::StmtFetch, Some(packet), id, began)
                .await;
        };
        let alone = self.statements.get(own).and_then(|s| s.alone);
        if alone.is_none_or(|alone| alone.why != Why::Cursor) {
            return self.answer_no_cursor(id).await;
        }
        let work = Work {
            errand: Some(Errand::Fetch { own }),
            ..Work::plain(Command::StmtFetch, packet, began)
        };
        self.carry_out(work).await
    }

    async fn answer_no_cursor(&mut self, id: u32) -> Flow {
        let dot = if self.is_mariadb() { "" } else { "." };
        let message = format!("The statement ({id}) has no open cursor{dot}");
        self.answer_sidepool(1421, *b"HY000", &message).await
    }

    /// `COM_STMT_CLOSE`, which is never answered. What is prepared stays for others.
    pub(in crate::session) async fn close_statement(&mut self, packet: BytesMut) -> Flow {
        let Some(id) = self.named(Some(&packet), ID_LEN) else {
            return self.answer_truncated().await;
        };
        let own = self.statements.resolve(id, self.is_mariadb());
        let Some(statement) = own.and_then(|own| self.statements.close(own)) else {
            return Flow::Continue;
        };
        let (Some(alone), Some(hold)) = (statement.alone, &mut self.hold) else {
            return Flow::Continue;
        };
        hold.lease.statements.close(alone.id);
        self.give_back_if_free().await
    }

    /// A command about a statement that there is not: the server's own words, with the number in them.
    async fn stranger(
        &mut self,
        command: Command,
        packet: Option<BytesMut>,
        id: u32,
        began: Instant,
    ) -> Flow {
        let mut work = Work {
            errand: Some(Errand::Stranger(id)),
            ..Work::of(command, packet, began)
        };
        // MySQL adds its error to those of the statement before, which may be another session's.
        work.plan.before.empty_diagnostics = true;
        self.carry_out(work).await
    }

    /// A command without a whole id: the server's own words. MariaDB does not look whether it is whole where nothing
    /// but an id and a count belong, and would take the missing bytes from what another client's command has left.
    async fn cut_short(&mut self, command: Command, mut packet: BytesMut, began: Instant) -> Flow {
        if self.is_mariadb() && matches!(command, Command::StmtReset | Command::StmtFetch) {
            let id = packet.get(ID_AT..ID_AT + 4).map(|mut id| id.get_u32_le());
            let id = id.filter(|&id| self.statements.resolve(id, true).is_none());
            packet.truncate(ID_AT);
            packet.put_u32_le(id.unwrap_or(NOBODY));
            packet.put_u32_le(1);
            reframe(&mut packet);
            let id = id.unwrap_or(NOBODY);
            return self.stranger(command, Some(packet), id, began).await;
        }
        let mut work = Work::plain(command, packet, began);
        work.plan.before.empty_diagnostics = true;
        self.carry_out(work).await
    }

    /// The id in the command, if it is not cut short.
    fn named(&self, packet: Option<&[u8]>, len: usize) -> Option<u32> {
        let packet = packet.unwrap_or(&self.client.input);
        if packet.len() < HEADER_LEN + len {
            return None;
        }
        packet.get(ID_AT..ID_AT + 4).map(|mut id| id.get_u32_le())
    }

    fn layout(&self, command: Command) -> Layout {
        match command {
            Command::StmtBulkExecute => Layout::Bulk,
            _ if self
                .login
                .capabilities
                .contains(Capabilities::QUERY_ATTRIBUTES) =>
            {
                Layout::Attributes
            }
            _ => Layout::Plain,
        }
    }

    /// Waits until so much of a command of several packets is there.
    async fn gather(&mut self, len: usize) -> Result<(), Flow> {
        while self.client.input.len() < len {
            self.more_of_command().await?;
        }
        Ok(())
    }

    /// Waits until the types of the parameters are there.
    async fn gather_types(&mut self, layout: Layout, own: u32) -> Result<(), Flow> {
        let params = self.statements.get(own).map_or(0, |s| s.params);
        loop {
            let payload = &self.client.input[HEADER_LEN..];
            let found = types(layout, payload, usize::from(params));
            if found != Types::Incomplete || payload.len() > TYPES_WITHIN {
                return Ok(());
            }
            self.more_of_command().await?;
        }
    }
}

fn borrow_timeout() -> crate::relay::ErrorInfo {
    crate::relay::ErrorInfo {
        code: 9501,
        sqlstate: *b"HY000",
        message: b"Timed-out waiting to acquire database connection"
            .to_vec()
            .into_boxed_slice(),
    }
}
