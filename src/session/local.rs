//! What Sidepool answers itself, in the client's own framing, and the errors it gives.

use bytes::{BufMut, Bytes, BytesMut};

use super::scan::Whole;
use super::{Flow, Session};
use crate::backend::state::Value;
use crate::metrics::{ErrorSource, LocalAnswer};
use crate::protocol::capability::Capabilities;
use crate::protocol::command::Command;
use crate::protocol::packet::{put_lenenc_int, put_lenenc_str, put_packet};
use crate::protocol::reply::{StatusFlags, put_eof, put_err, put_ok};
use crate::protocol::response::Framing;
use crate::reason::CloseReason;
use crate::relay::ErrorInfo;
use crate::relay::own::{OwnColumn, OwnResultSet};

impl Session {
    /// OK without a word.
    pub(super) async fn answer_ok(&mut self) -> Flow {
        self.carried.row_count = 0;
        let status = self.carried.status;
        put_ok(&mut self.client.output, self.first_seq, status, 0, 0);
        self.send().await
    }

    /// The rows that the last statement left in the diagnostics area; `None` when it left nothing
    /// that was saved.
    pub(super) async fn answer_diagnostics(&mut self, form: Whole) -> Option<Flow> {
        let saved = self.carried.readable_diagnostics()?;
        let set = match form {
            Whole::ShowWarnings => &saved.warnings,
            Whole::ShowErrors => &saved.errors,
            Whole::CountWarnings => &saved.warning_count,
            Whole::CountErrors => &saved.error_count,
            Whole::Ordinary | Whole::RowCount | Whole::Kill { .. } => return None,
        };
        let framing = self.client_framing();
        let status = self.carried.status;
        put_result_set(
            &mut self.client.output,
            self.first_seq,
            framing,
            status,
            set,
        );
        self.context
            .metrics
            .sessions
            .local_answers
            .inc(LocalAnswer::Warnings);
        self.carried.row_count = -1;
        Some(self.send().await)
    }

    /// `SELECT ROW_COUNT()`: the number is known from the last answer, and on the connection that the
    /// statement ran on Sidepool's own may have run since. `None` if it cannot be told what a server
    /// would call the column.
    pub(super) async fn answer_row_count(&mut self, sql: &[u8]) -> Option<Flow> {
        let extended = self
            .login
            .capabilities
            .contains(Capabilities::MARIADB_EXTENDED_METADATA);
        let column = row_count_column(row_count_name(sql)?, extended);
        let value = self.carried.row_count.to_string();
        let limit = self.carried.state.get_named("sql_select_limit");
        let rows = match limit.and_then(Value::as_bytes) {
            Some(b"0") => Vec::new(),
            _ => vec![vec![Some(value.into())]],
        };
        let set = OwnResultSet {
            columns: vec![column],
            rows,
            ..OwnResultSet::default()
        };
        let (framing, status) = (self.client_framing(), self.carried.status);
        put_result_set(
            &mut self.client.output,
            self.first_seq,
            framing,
            status,
            &set,
        );
        self.context
            .metrics
            .sessions
            .local_answers
            .inc(LocalAnswer::RowCount);
        self.carried.row_count = -1;
        // FOUND_ROWS() would be another now, and no connection has it.
        self.ticket = None;
        // Without a table, only MySQL empties the diagnostics area.
        if !self.is_mariadb() {
            self.carried.diagnostics = None;
        }
        Some(self.send().await)
    }

    /// The error of a database, as it is.
    pub(super) async fn answer_error(&mut self, error: &ErrorInfo) -> Flow {
        self.context
            .metrics
            .queries
            .errors
            .inc(ErrorSource::Database);
        self.carried.row_count = -1;
        let message = String::from_utf8_lossy(&error.message);
        put_err(
            &mut self.client.output,
            self.first_seq,
            error.code,
            error.sqlstate,
            &message,
        );
        self.send().await
    }

    /// An error of Sidepool's own.
    pub(super) async fn answer_sidepool(
        &mut self,
        code: u16,
        sqlstate: [u8; 5],
        message: &str,
    ) -> Flow {
        self.context
            .metrics
            .queries
            .errors
            .inc(ErrorSource::Sidepool);
        self.carried.row_count = -1;
        put_err(
            &mut self.client.output,
            self.first_seq,
            code,
            sqlstate,
            message,
        );
        self.send().await
    }

    /// What MySQL and MariaDB say to a command they do not know.
    pub(super) async fn answer_unknown(&mut self) -> Flow {
        self.answer_sidepool(1047, *b"08S01", "Unknown command")
            .await
    }

    /// A command that is never answered, cut short: MySQL answers it after all, MariaDB does not (captured).
    /// It is not sent on, where an answer that nobody waits for would be taken for the next one's.
    pub(super) async fn answer_truncated(&mut self) -> Flow {
        if self.is_mariadb() {
            return Flow::Continue;
        }
        self.answer_malformed().await
    }

    /// MySQL's words for a command cut short.
    pub(super) async fn answer_malformed(&mut self) -> Flow {
        self.answer_sidepool(1835, *b"HY000", "Malformed communication packet.")
            .await
    }

    /// Whether somebody who sends this wants to replicate. What servers keep to themselves, and what
    /// the other make invented, they do not know from a client, either (captured).
    pub(super) fn is_replication(&self, command: Command) -> bool {
        match command {
            Command::BinlogDump
            | Command::BinlogDumpGtid
            | Command::TableDump
            | Command::ConnectOut
            | Command::RegisterSlave => true,
            Command::Clone | Command::SubscribeGroupReplication => !self.is_mariadb(),
            _ => false,
        }
    }

    pub(super) async fn answer_replication(&mut self, command: Command) -> Flow {
        let message = format!(
            "Sidepool does not carry the command '{}'; connect to the database itself for replication",
            command.as_str()
        );
        self.answer_sidepool(1235, *b"42000", &message).await
    }

    /// No connection came free in time; the client's own connection stays usable.
    pub(super) async fn answer_borrow_timeout(&mut self) -> Flow {
        let message = "Timed-out waiting to acquire database connection";
        self.answer_sidepool(9501, *b"HY000", message).await
    }

    /// A command whose first packet is not number 0: nothing that follows can be trusted.
    pub(super) async fn answer_out_of_order(&mut self) -> Flow {
        self.first_seq = 1;
        self.answer_sidepool(1156, *b"08S01", "Got packets out of order")
            .await;
        Flow::Close(CloseReason::ProtocolError)
    }

    /// Sends what is in the client's output.
    pub(super) async fn send(&mut self) -> Flow {
        match self.client.send().await {
            Ok(()) => Flow::Continue,
            Err(_) => Flow::Close(CloseReason::ClientGone),
        }
    }
}

/// What the servers call the column: the function as it is written. `None` unless the text is plain
/// enough to be sure.
fn row_count_name(sql: &[u8]) -> Option<&[u8]> {
    const FUNCTION: &[u8] = b"row_count";
    let mut places = sql
        .windows(FUNCTION.len())
        .enumerate()
        .filter(|(_, word)| word.eq_ignore_ascii_case(FUNCTION));
    let (Some((begin, _)), None) = (places.next(), places.next()) else {
        return None;
    };
    let end = sql.iter().rposition(|&byte| byte == b')')?;
    let name = sql.get(begin..=end)?;
    let plain = name[FUNCTION.len()..]
        .iter()
        .all(|&byte| matches!(byte, b'(' | b')' | b' '));
    let comments = [&b"/*!"[..], b"/*M!"];
    let code_in_comments = comments
        .iter()
        .any(|begin| sql.windows(begin.len()).any(|part| part == *begin));
    (plain && !code_in_comments).then_some(name)
}

/// The column's definition, the same on both servers but for the place of MariaDB's extended metadata.
fn row_count_column(name: &[u8], extended: bool) -> OwnColumn {
    const BINARY: u16 = 63;
    const BIGINT: u8 = 8;
    const NOT_NULL_BINARY: u16 = 0x81;
    let mut payload = BytesMut::new();
    for text in [&b"def"[..], b"", b"", b"", name, b""] {
        put_lenenc_str(&mut payload, text);
    }
    if extended {
        put_lenenc_str(&mut payload, b"");
    }
    payload.put_u8(0x0c);
    payload.put_u16_le(BINARY);
    payload.put_u32_le(21);
    payload.put_u8(BIGINT);
    payload.put_u16_le(NOT_NULL_BINARY);
    payload.put_bytes(0, 3);
    OwnColumn {
        name: Bytes::copy_from_slice(name),
        payload: payload.freeze(),
        collation: BINARY,
        kind: BIGINT,
        flags: NOT_NULL_BINARY,
    }
}

/// Writes a text result set that a server sent before, in this client's framing.
fn put_result_set(
    out: &mut BytesMut,
    first_seq: u8,
    framing: Framing,
    status: StatusFlags,
    set: &OwnResultSet,
) {
    let mut payload = BytesMut::new();
    put_lenenc_int(&mut payload, set.columns.len() as u64);
    let mut seq = put_packet(out, first_seq, &payload);
    for column in &set.columns {
        seq = put_packet(out, seq, &column.payload);
    }
    if !framing.deprecate_eof {
        seq = put_eof(out, seq, false, status, 0);
    }
    for row in &set.rows {
        payload.clear();
        for value in row {
            match value {
                Some(value) => put_lenenc_str(&mut payload, value),
                None => payload.extend_from_slice(&[0xfb]),
            }
        }
        seq = put_packet(out, seq, &payload);
    }
    put_eof(out, seq, framing.deprecate_eof, status, 0);
}

#[cfg(test)]
mod tests {
    use super::row_count_name;

    #[test]
    fn the_column_is_called_as_the_function_is_written() {
        let cases: &[(&[u8], Option<&[u8]>)] = &[
            (b"SELECT ROW_COUNT()", Some(b"ROW_COUNT()")),
            (
                b" select /* why */  row_count ( ) ; -- so",
                Some(b"row_count ( )"),
            ),
            (b"SELECT row_count() -- row_count()", None),
            (b"SELECT row_count() # (so)", None),
            (b"SELECT row_count/**/()", None),
            (b"SELECT row_count(\n)", None),
            (b"SELECT /*! row_count() */", None),
            (b"SELECT /*M! row_count() */", None),
        ];
        for (sql, name) in cases {
            assert_eq!(row_count_name(sql), *name, "{}", sql.escape_ascii());
        }
    }
}
