//! What Sidepool answers itself, in the client's own framing, and the errors it gives.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use super::scan::{Flags, Part, Whole};
use super::{Flow, Session};
use crate::metrics::{ErrorSource, LocalAnswer};
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
        self.told_here(0);
        let status = self.carried.status;
        put_ok(&mut self.client.output, self.first_seq, status, 0, 0);
        self.send().await
    }

    /// The rows that the last statement left in the diagnostics area; `None` when it left nothing
    /// that was saved.
    pub(super) async fn answer_diagnostics(
        &mut self,
        form: Whole,
        sql: &[u8],
        rows: Rows,
    ) -> Option<Flow> {
        let saved = self.carried.readable_diagnostics()?;
        let part_of = |set: &OwnResultSet, part: Part| {
            let rows = set.rows.iter().skip(part.skip).take(part.count);
            Cow::Owned(OwnResultSet {
                columns: set.columns.clone(),
                rows: rows.cloned().collect(),
                ..OwnResultSet::default()
            })
        };
        let set = match form {
            Whole::ShowWarnings => Cow::Borrowed(&saved.warnings),
            Whole::ShowErrors => Cow::Borrowed(&saved.errors),
            Whole::SomeWarnings(part) => part_of(&saved.warnings, part),
            Whole::SomeErrors(part) => part_of(&saved.errors, part),
            Whole::CountWarnings => Cow::Borrowed(&saved.warning_count),
            Whole::CountErrors => Cow::Borrowed(&saved.error_count),
            Whole::WarningCount | Whole::ErrorCount if rows == Rows::Text => {
                return self.answer_count(form, sql).await;
            }
            _ => return None,
        };
        if rows == Rows::Binary && !set.columns.iter().all(is_known) {
            return None;
        }
        let framing = self.client_framing();
        let status = self.carried.status;
        put_result_set(
            &mut self.client.output,
            self.first_seq,
            framing,
            status,
            &set,
            rows,
        );
        self.context
            .metrics
            .sessions
            .local_answers
            .inc(LocalAnswer::Warnings);
        self.told_here(-1);
        if matches!(form, Whole::CountWarnings | Whole::CountErrors) {
            self.carried.found_rows = None;
            self.forget_counts(Flags::FOUND_ROWS);
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
        self.told_here(-1);
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
        self.told_here(-1);
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

/// How the values of rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// For a statement sent as text.
    Text,
    /// For the execution of a prepared one.
    Binary,
}

const LONG: u8 = 3;
const LONGLONG: u8 = 8;
const VAR_STRING: u8 = 253;
const STRING: u8 = 254;

/// Whether the column's values can be written in both ways.
const fn is_known(column: &OwnColumn) -> bool {
    matches!(column.kind, LONG | LONGLONG | VAR_STRING | STRING)
}

/// Writes a text result set in this client's framing.
pub(super) fn put_result_set(
    out: &mut BytesMut,
    first_seq: u8,
    framing: Framing,
    status: StatusFlags,
    set: &OwnResultSet,
    rows: Rows,
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
        match rows {
            Rows::Text => put_text(&mut payload, row),
            Rows::Binary => put_binary(&mut payload, &set.columns, row),
        }
        seq = put_packet(out, seq, &payload);
    }
    put_eof(out, seq, framing.deprecate_eof, status, 0);
}

fn put_text(out: &mut BytesMut, row: &[Option<Bytes>]) {
    for value in row {
        match value {
            Some(value) => put_lenenc_str(out, value),
            None => out.put_u8(0xfb),
        }
    }
}

/// A header, a bit for each NULL (the first two are not used), and the other values by their types.
fn put_binary(out: &mut BytesMut, columns: &[OwnColumn], row: &[Option<Bytes>]) {
    out.put_u8(0);
    let nulls = out.len();
    out.put_bytes(0, (row.len() + 2).div_ceil(8));
    for (index, (column, value)) in columns.iter().zip(row).enumerate() {
        let Some(value) = value else {
            out[nulls + (index + 2) / 8] |= 1 << ((index + 2) % 8);
            continue;
        };
        let number = || std::str::from_utf8(value).ok()?.parse().ok();
        match column.kind {
            LONG => out.put_u32_le(number().unwrap_or_default()),
            LONGLONG => out.put_u64_le(number().map_or(0, u64::from)),
            _ => put_lenenc_str(out, value),
        }
    }
}
