//! Statements that ask for one number which Sidepool knows better than any backend connection: answered
//! as the servers would, with the columns captured from both.

use bytes::{BufMut, Bytes, BytesMut};

use super::local::{Rows, put_result_set};
use super::scan::{Counted, Flags, LexMode, Lexer, Token, Whole, alias, counted};
use super::work::Work;
use super::{Flow, Session};
use crate::backend::state::{Value, narrow};
use crate::metrics::LocalAnswer;
use crate::protocol::capability::Capabilities;
use crate::protocol::command::Command;
use crate::protocol::packet::put_lenenc_str;
use crate::relay::own::{OwnColumn, OwnResultSet};
use crate::relay::{Answer, End};

const LONG: u8 = 3;
const BIGINT: u8 = 8;
const NOT_NULL: u16 = 0x01;
const UNSIGNED: u16 = 0x20;
const BINARY: u16 = 0x80;

/// The column's type, length and flags.
#[derive(Debug, Clone, Copy)]
struct Kind {
    kind: u8,
    length: u32,
    flags: u16,
}

/// `ROW_COUNT()`, `FOUND_ROWS()`
const SIGNED: Kind = Kind {
    kind: BIGINT,
    length: 21,
    flags: BINARY | NOT_NULL,
};
/// `@@warning_count`, `@@error_count`, `@@pseudo_thread_id`
const VARIABLE: Kind = Kind {
    kind: BIGINT,
    length: 21,
    flags: BINARY | UNSIGNED,
};
const ID_MYSQL: Kind = Kind {
    kind: BIGINT,
    length: 21,
    flags: BINARY | UNSIGNED | NOT_NULL,
};
const ID_MARIADB: Kind = Kind {
    kind: LONG,
    length: 10,
    ..ID_MYSQL
};

impl Session {
    /// `SELECT ROW_COUNT()`: the number is known from the last answer, and on the connection that the
    /// statement ran on Sidepool's own may have run since. `None` if it cannot be told what a server
    /// would call the column.
    pub(super) async fn answer_row_count(&mut self, sql: &[u8]) -> Option<Flow> {
        let name = self.column_name(sql, Term::Call(b"row_count"))?;
        let value = self.carried.row_count.to_string();
        let counter = LocalAnswer::RowCount;
        Some(self.answer_number(name, SIGNED, value, counter).await)
    }

    /// `SELECT FOUND_ROWS()`, where it is certain. MySQL adds a warning to the answer, so that is left to
    /// MySQL.
    pub(super) async fn answer_found_rows(&mut self, sql: &[u8]) -> Option<Flow> {
        if !self.is_mariadb() {
            return None;
        }
        let found = self.carried.found_rows?.to_string();
        let name = self.column_name(sql, Term::Call(b"found_rows"))?;
        let counter = LocalAnswer::FoundRows;
        Some(self.answer_number(name, SIGNED, found, counter).await)
    }

    /// The id that the client was greeted with: it stays, whatever connection serves the client.
    pub(super) async fn answer_id(&mut self, form: Whole, sql: &[u8]) -> Option<Flow> {
        let (term, kind) = match form {
            Whole::ThreadId => (Term::Variable(b"pseudo_thread_id"), VARIABLE),
            _ if self.is_mariadb() => (Term::Call(b"connection_id"), ID_MARIADB),
            _ => (Term::Call(b"connection_id"), ID_MYSQL),
        };
        // The client has given itself another one.
        let open = self.pinned.open.as_ref();
        if open.is_some_and(|open| open.may_have_changed(b"pseudo_thread_id")) {
            return None;
        }
        let name = self.column_name(sql, term)?;
        let id = self.me.id().to_string();
        let counter = LocalAnswer::ConnectionId;
        Some(self.answer_number(name, kind, id, counter).await)
    }

    /// `SELECT @@warning_count`, `SELECT @@error_count`: what was saved.
    pub(super) async fn answer_count(&mut self, form: Whole, sql: &[u8]) -> Option<Flow> {
        let saved = self.carried.readable_diagnostics()?;
        let (set, term) = match form {
            Whole::ErrorCount => (&saved.error_count, Term::Variable(b"error_count")),
            _ => (&saved.warning_count, Term::Variable(b"warning_count")),
        };
        let count = narrow(set.rows.first()?.first()?.as_ref()?);
        let count = std::str::from_utf8(&count).ok()?.to_owned();
        let name = self.column_name(sql, term)?;
        let counter = LocalAnswer::Warnings;
        Some(self.answer_number(name, VARIABLE, count, counter).await)
    }

    /// What `FOUND_ROWS()` is now, for a session that asks for it.
    pub(super) fn note_found_rows(&mut self, answer: &Answer, work: &Work) {
        self.carried.found_rows = None;
        let counts = self.carried.learned.found_rows
            && work.command == Command::Query
            && answer.end == End::Rows;
        if !counts {
            return;
        }
        let known = match counted(work.text(), work.lex(self.carried.lex)) {
            Counted::Always => true,
            Counted::Several => answer.rows > 1,
            Counted::Never => false,
        };
        self.carried.found_rows = known.then_some(answer.rows);
    }

    async fn answer_number(
        &mut self,
        name: Bytes,
        kind: Kind,
        value: String,
        counter: LocalAnswer,
    ) -> Flow {
        let extended = self
            .login
            .capabilities
            .contains(Capabilities::MARIADB_EXTENDED_METADATA);
        let limit = self.carried.state.get_named("sql_select_limit");
        let rows = match limit.and_then(Value::as_bytes) {
            Some(b"0") => Vec::new(),
            _ => vec![vec![Some(value.into())]],
        };
        // What it counts itself is the next statement's.
        self.carried.found_rows = (!rows.is_empty()).then_some(1);
        let set = OwnResultSet {
            columns: vec![column(name, kind, extended)],
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
            Rows::Text,
        );
        self.context.metrics.sessions.local_answers.inc(counter);
        self.told_here(-1);
        // FOUND_ROWS() would be another now, and no connection has it.
        self.forget_counts(Flags::FOUND_ROWS);
        // Without a table, only MySQL empties the diagnostics area.
        if !self.is_mariadb() {
            self.carried.diagnostics = None;
            if let Some(hold) = &mut self.hold {
                hold.pending.diagnostics = false;
            }
        }
        self.send().await
    }

    /// Sidepool has answered something itself, behind which `ROW_COUNT()` is that number; no connection has it.
    pub(super) fn told_here(&mut self, row_count: i64) {
        self.carried.row_count = row_count;
        self.forget_counts(Flags::ROW_COUNT);
    }

    /// These are not to be asked for on the session's last connection any more.
    pub(super) fn forget_counts(&mut self, counts: Flags) {
        if let Some(left) = &mut self.ticket {
            left.told = left.told.without(counts);
        }
        if let Some(hold) = &mut self.hold {
            hold.pending.told = hold.pending.told.without(counts);
        }
    }

    /// What the servers call the column: its alias, or the expression as it is written. `None` unless the
    /// text is plain enough to be sure, and where column names are not sent as they are written.
    fn column_name(&self, sql: &[u8], term: Term) -> Option<Bytes> {
        let results = self.carried.state.get_named("character_set_results");
        let wide = [&b"ucs2"[..], b"utf16", b"utf16le", b"utf32"];
        if results
            .and_then(Value::as_bytes)
            .is_some_and(|charset| wide.contains(&charset))
        {
            return None;
        }
        column_name(sql, self.carried.lex, term).map(Bytes::copy_from_slice)
    }
}

/// What is selected.
#[derive(Debug, Clone, Copy)]
enum Term {
    /// A function without arguments.
    Call(&'static [u8]),
    /// A system variable.
    Variable(&'static [u8]),
}

fn column_name(sql: &[u8], mode: LexMode, term: Term) -> Option<&[u8]> {
    let comments = [&b"/*!"[..], b"/*M!"];
    let code_in_comments = comments
        .iter()
        .any(|begin| sql.windows(begin.len()).any(|part| part == *begin));
    if code_in_comments {
        return None;
    }
    let tokens: Vec<_> = Lexer::new(sql, mode)
        .filter(|token| *token != Token::Punct(b';'))
        .collect();
    let behind = match term {
        Term::Call(_) => tokens.get(4..),
        Term::Variable(_) if tokens.get(3) == Some(&Token::Punct(b'.')) => tokens.get(5..),
        Term::Variable(_) => tokens.get(3..),
    };
    match behind.unwrap_or_default() {
        [] => written(sql, term),
        named => alias(named),
    }
}

/// The expression as it is written.
fn written(sql: &[u8], term: Term) -> Option<&[u8]> {
    let (Term::Call(word) | Term::Variable(word)) = term;
    let mut places = sql
        .windows(word.len())
        .enumerate()
        .filter(|(_, found)| found.eq_ignore_ascii_case(word));
    let (Some((at, _)), None) = (places.next(), places.next()) else {
        return None;
    };
    match term {
        Term::Call(_) => {
            let end = sql.iter().rposition(|&byte| byte == b')')?;
            let name = sql.get(at..=end)?;
            let mut behind = name[word.len()..].iter();
            behind.all(|&byte| b"() ".contains(&byte)).then_some(name)
        }
        Term::Variable(_) => {
            let begin = sql[..at]
                .iter()
                .rposition(|&byte| byte == b'@')?
                .checked_sub(1)?;
            let scope = &sql[begin + 2..at];
            let plain = ["", "session.", "local."]
                .iter()
                .any(|known| scope.eq_ignore_ascii_case(known.as_bytes()));
            plain.then(|| &sql[begin..at + word.len()])
        }
    }
}

/// The column's definition, the same on both servers but for the place of MariaDB's extended metadata.
fn column(name: Bytes, kind: Kind, extended: bool) -> OwnColumn {
    const BINARY_COLLATION: u16 = 63;
    let mut payload = BytesMut::new();
    for text in [&b"def"[..], b"", b"", b"", &name, b""] {
        put_lenenc_str(&mut payload, text);
    }
    if extended {
        put_lenenc_str(&mut payload, b"");
    }
    payload.put_u8(0x0c);
    payload.put_u16_le(BINARY_COLLATION);
    payload.put_u32_le(kind.length);
    payload.put_u8(kind.kind);
    payload.put_u16_le(kind.flags);
    payload.put_bytes(0, 3);
    OwnColumn {
        name,
        payload: payload.freeze(),
        collation: BINARY_COLLATION,
        kind: kind.kind,
        flags: kind.flags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (b"SELECT row_count() AS n", Some(b"n")),
            (b"SELECT row_count() `my count`;", Some(b"my count")),
            (b"SELECT row_count() row_count", Some(b"row_count")),
        ];
        for (sql, name) in cases {
            let found = column_name(sql, LexMode::default(), Term::Call(b"row_count"));
            assert_eq!(found, *name, "{}", sql.escape_ascii());
        }
    }

    #[test]
    fn the_column_is_called_as_the_variable_is_written() {
        let cases: &[(&[u8], Option<&[u8]>)] = &[
            (b"SELECT @@warning_count", Some(b"@@warning_count")),
            (
                b"select @@SESSION.Warning_Count ;",
                Some(b"@@SESSION.Warning_Count"),
            ),
            (b"SELECT @@local.warning_count AS `n`", Some(b"n")),
            (b"SELECT @@session . warning_count", None),
            (b"SELECT @@warning_count -- @@warning_count", None),
        ];
        for (sql, name) in cases {
            let found = column_name(sql, LexMode::default(), Term::Variable(b"warning_count"));
            assert_eq!(found, *name, "{}", sql.escape_ascii());
        }
    }
}
