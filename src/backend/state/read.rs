//! Reading variables back: one `SELECT @@…` and the decoder of its one row.

use bytes::Bytes;

use super::catalog::{Catalog, VarId};
use super::value::{ColumnKind, Value, narrow};
use crate::protocol::packet::take_lenenc_str;

/// Whether the selected database is read as well, in a last column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaColumn {
    /// Read `DATABASE()`.
    Include,
    /// Only variables.
    Omit,
}

/// One `SELECT` and what its columns mean.
#[derive(Debug, Clone)]
pub struct ReadQuery {
    sql: Bytes,
    vars: Vec<VarId>,
    schema: SchemaColumn,
}

/// What a read showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Each variable that was asked for, in the order of the query.
    pub vars: Vec<(VarId, Value)>,
    /// The selected database, UTF-8, if it was asked for.
    pub schema: Option<Option<Bytes>>,
}

/// Why a row could not be decoded. The state of that backend connection is then unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another number of columns than was selected.
    #[error("read-back has {got} columns, expected {expected}")]
    Columns {
        /// Columns in the row or its metadata.
        got: usize,
        /// Columns selected.
        expected: usize,
    },
    /// A packet ended in the middle of a column.
    #[error("read-back is cut short")]
    Cut,
    /// The database's name did not arrive as hexadecimal digits.
    #[error("read-back of the database is not hexadecimal")]
    Schema,
}

impl ReadQuery {
    pub(super) fn new(catalog: &Catalog, vars: Vec<VarId>, schema: SchemaColumn) -> Self {
        let mut sql = String::from("SELECT ");
        for (i, &id) in vars.iter().enumerate() {
            sql.push_str(if i == 0 { "@@" } else { ",@@" });
            sql.push_str(catalog.name(id));
        }
        if schema == SchemaColumn::Include {
            // Hexadecimal, because the row comes in character_set_results whatever that is.
            sql.push_str(if vars.is_empty() { "" } else { "," });
            sql.push_str("HEX(CONVERT(DATABASE() USING utf8mb4))");
        }
        // An explicit LIMIT, or sql_select_limit=0 takes the row away (both servers).
        sql.push_str(" LIMIT 1");
        Self {
            sql: sql.into(),
            vars,
            schema,
        }
    }

    /// The statement, ASCII.
    pub fn sql(&self) -> &Bytes {
        &self.sql
    }

    /// The variables it reads, in the order of its columns.
    pub fn vars(&self) -> &[VarId] {
        &self.vars
    }

    /// Decodes the row from its columns; `kinds` are the columns' types.
    ///
    /// # Errors
    /// If the row is not one of this query's.
    pub fn decode(
        &self,
        row: &[Option<&[u8]>],
        kinds: &[ColumnKind],
    ) -> Result<Reading, ReadError> {
        let expected = self.columns();
        for got in [row.len(), kinds.len()] {
            if got != expected {
                return Err(ReadError::Columns { got, expected });
            }
        }
        let columns = self.vars.iter().zip(row).zip(kinds);
        let vars = columns
            .map(|((&id, column), &kind)| (id, Value::from_column(*column, kind)))
            .collect();
        let schema = match (self.schema, row.last()) {
            (SchemaColumn::Include, Some(column)) => Some(column.map(unhex).transpose()?),
            _ => None,
        };
        Ok(Reading { vars, schema })
    }

    /// Decodes payloads of packets: the column definitions and the row, text protocol.
    ///
    /// # Errors
    /// If they are not an answer to this query.
    pub fn decode_packets<'a>(
        &self,
        definitions: impl IntoIterator<Item = &'a [u8]>,
        row: &[u8],
    ) -> Result<Reading, ReadError> {
        let kinds: Option<Vec<ColumnKind>> =
            definitions.into_iter().map(kind_of_definition).collect();
        let columns = split_row(row).ok_or(ReadError::Cut)?;
        self.decode(&columns, &kinds.ok_or(ReadError::Cut)?)
    }

    fn columns(&self) -> usize {
        self.vars.len() + usize::from(self.schema == SchemaColumn::Include)
    }
}

/// The type in a column definition (`Protocol::ColumnDefinition41`), found from the end: its fixed part
/// is the length byte 12, charset (2), width (4), type, flags (2), decimals, filler (2). In front of it
/// MariaDB's EXTENDED_METADATA adds a string.
fn kind_of_definition(payload: &[u8]) -> Option<ColumnKind> {
    match *payload.last_chunk::<13>()? {
        [12, _, _, _, _, _, _, column_type, ..] => Some(ColumnKind::from_type(column_type)),
        _ => None,
    }
}

/// The columns of a text-protocol row: length-encoded strings, `0xfb` for NULL.
fn split_row(mut payload: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let mut columns = Vec::new();
    while let Some((&first, rest)) = payload.split_first() {
        if first == 0xfb {
            columns.push(None);
            payload = rest;
        } else {
            columns.push(Some(take_lenenc_str(&mut payload)?));
        }
    }
    Some(columns)
}

/// The bytes that hexadecimal digits stand for.
///
/// # Errors
/// [`ReadError::Schema`].
pub(in crate::backend) fn unhex(digits: &[u8]) -> Result<Bytes, ReadError> {
    let digits = &*narrow(digits);
    let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let byte = |pair: &[u8]| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    digits
        .chunks(2)
        .map(byte)
        .collect::<Option<Vec<u8>>>()
        .map(Bytes::from)
        .ok_or(ReadError::Schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_undone_and_anything_else_refused() {
        assert_eq!(unhex(b"617070").unwrap(), "app");
        assert_eq!(unhex(b"C3A9").unwrap(), "é");
        assert_eq!(unhex(b"617"), Err(ReadError::Schema));
        assert_eq!(unhex(b"\x006\x001").unwrap(), "a", "in utf16");
        assert_eq!(unhex(b"\x006\x0012"), Err(ReadError::Schema));
    }

    #[test]
    fn rows_are_split_and_never_read_past_the_end() {
        assert_eq!(
            split_row(b"\x01a\xfb\x00"),
            Some(vec![Some(&b"a"[..]), None, Some(b"")])
        );
        assert_eq!(split_row(b"\x05a"), None);
    }

    /// `SELECT @@autocommit,@@time_zone,@@character_set_results,@@long_query_time,HEX(…) LIMIT 1` after
    /// `SET character_set_results=NULL`, in the database `app`.
    #[test]
    fn packets_as_both_servers_send_them() {
        let maria: [&[u8]; 5] = [
            b"\x03def\x00\x00\x00\x0c@@autocommit\x00\x0c?\x00\x01\x00\x00\x00\x08\x80\x00\x00\x00\x00",
            b"\x03def\x00\x00\x00\x0b@@time_zone\x00\x0c!\x00\x12\x00\x00\x00\xfd\x00\x00'\x00\x00",
            b"\x03def\x00\x00\x00\x17@@character_set_results\x00\x0c!\x00\x00\x00\x00\x00\xfd\x00\x00'\x00\x00",
            b"\x03def\x00\x00\x00\x11@@long_query_time\x00\x0c?\x00\x15\x00\x00\x00\x05\x80\x00\x06\x00\x00",
            b"\x03def\x00\x00\x00&HEX(CONVERT(DATABASE() USING utf8mb4))\x00\x0c-\x00\x00\x08\x00\x00\xfd\x00\x00\x00\x00\x00",
        ];
        let mysql: [&[u8]; 5] = [
            b"\x03def\x00\x00\x00\x0c@@autocommit\x00\x0c?\x00\x01\x00\x00\x00\x08\x80\x00\x00\x00\x00",
            b"\x03def\x00\x00\x00\x0b@@time_zone\x00\x0c!\x00\xff\xff\x00\x00\xfd\x00\x00\x1f\x00\x00",
            b"\x03def\x00\x00\x00\x17@@character_set_results\x00\x0c!\x00\xff\xff\x00\x00\xfd\x00\x00\x1f\x00\x00",
            b"\x03def\x00\x00\x00\x11@@long_query_time\x00\x0c?\x00\x17\x00\x00\x00\x05\x80\x00\x06\x00\x00",
            b"\x03def\x00\x00\x00&HEX(CONVERT(DATABASE() USING utf8mb4))\x00\x0c\xff\x00\x00\x08\x00\x00\xfd\x00\x00\x1f\x00\x00",
        ];
        let row = b"\x011\x06SYSTEM\xfb\x0910.000000\x06617070";
        let query = ReadQuery {
            sql: Bytes::new(),
            vars: (0..4).map(VarId).collect(),
            schema: SchemaColumn::Include,
        };
        for definitions in [maria, mysql] {
            let reading = query.decode_packets(definitions, row).unwrap();
            let values: Vec<Value> = reading.vars.into_iter().map(|(_, value)| value).collect();
            let expected = [
                Value::number("1"),
                Value::text("SYSTEM"),
                Value::Null,
                Value::number("10.000000"),
            ];
            assert_eq!(values, expected);
            assert_eq!(reading.schema, Some(Some("app".into())));
            let short = query.decode_packets(definitions[1..].iter().copied(), row);
            assert_eq!(
                short,
                Err(ReadError::Columns {
                    got: 4,
                    expected: 5
                })
            );
        }
        assert_eq!(query.decode_packets(maria, b"\x05a"), Err(ReadError::Cut));
    }

    #[test]
    fn types_are_found_behind_any_number_of_names() {
        // With EXTENDED_METADATA one more string (here empty) stands in front of the fixed part.
        let extended =
            b"\x03def\x00\x00\x00\x01a\x00\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x80\x00\x00\x00\x00";
        assert_eq!(kind_of_definition(extended), Some(ColumnKind::Number));
        assert_eq!(kind_of_definition(&extended[..extended.len() - 1]), None);
        assert_eq!(kind_of_definition(b""), None);
    }
}
