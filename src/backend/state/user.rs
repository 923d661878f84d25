//! User variables: as read back from one backend connection, and as literals that set them on another.
//!
//! What a client can see of a variable is its type, charset, collation and value; a literal must bring
//! back all four, under every `sql_mode` and charset, and must not fail. Measured on MariaDB 10.11.19
//! and MySQL 9.7.4: the kinds below are all there are (temporal, JSON, bit and spatial values become
//! strings; on MariaDB spatial ones stay what they are), `@x = NULL` keeps the type that `@x` had, and `_utf8mb4 x'ff'` is error 1300.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::catalog::Family;
use super::read::{ReadError, unhex};
use super::value::{is_harmless, is_number, narrow};

/// More variables than this are not carried.
pub const MOST_VARIABLES: usize = 200;
/// Bytes of the assignments that bring them all back; twice the values' own.
const MOST_SQL: usize = 128 * 1024;
/// Bytes of a statement that a server must take; where it does not, user variables are not carried.
pub const LEAST_PACKET: u64 = 4 * MOST_SQL as u64;
/// Bytes of one value that are read.
const MOST_VALUE: usize = 64 * 1024;
/// Bytes of all values that are read, but for [`LEAST_VALUE`] of each.
const MOST_READ: usize = 96 * 1024;
const LEAST_VALUE: usize = 2 * 1024;
/// Characters of a name. MySQL refuses more (3061), MariaDB 10.11 does not.
const MOST_NAME: usize = 64;

/// The user variables of a session or of a backend connection, by name in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct UserVariables(BTreeMap<Box<[u8]>, UserValue>);

/// The value of a user variable, and its type, which a NULL has as well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UserValue {
    /// A number: its text, `None` for NULL.
    Number(NumberKind, Option<Arc<[u8]>>),
    /// A string in a character set, with its collation; `None` for NULL.
    Text {
        /// Its character set.
        charset: Arc<str>,
        /// Its collation.
        collation: Arc<str>,
        /// Its bytes in that character set.
        bytes: Option<Arc<[u8]>>,
    },
    /// Too large to be read, or of a type that no literal has: so many bytes.
    Opaque(u64),
}

/// The types of numbers that user variables can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumberKind {
    /// A signed integer of 64 bits.
    Signed,
    /// An unsigned one.
    Unsigned,
    /// A fixed-point number; its scale is part of its text.
    Decimal,
    /// A floating-point number.
    Double,
}

/// What a read-back of user variables showed: `None` for one that was never set.
pub type UserReading = Vec<(Box<[u8]>, Option<UserValue>)>;

/// One `SELECT` of user variables.
#[derive(Debug, Clone)]
pub struct UserQuery {
    sql: Bytes,
    names: Vec<Box<[u8]>>,
}

/// Lists the names of all user variables of the connection that are not NULL, in hexadecimal. MariaDB only.
pub const LIST_SQL: &[u8] = b"SELECT HEX(VARIABLE_NAME) FROM information_schema.user_variables \
    WHERE VARIABLE_VALUE IS NOT NULL LIMIT 1000";

/// Whether a variable of that name can be written under every client charset and `sql_mode`.
pub fn is_plain_name(name: &[u8]) -> bool {
    let is_short = (1..=MOST_NAME).contains(&name.len());
    // MySQL refuses a blank at the end (3061), even to read such a variable.
    is_short && !name.ends_with(b" ") && name.iter().copied().all(is_harmless)
}

impl UserVariables {
    /// Number of variables.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if none is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, in lower case.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.keys().map(|name| &**name)
    }

    /// The variable of that name, in any case of ASCII; `None`: it was never set.
    pub fn get(&self, name: &[u8]) -> Option<&UserValue> {
        self.0.get(&*name.to_ascii_lowercase())
    }

    /// These with what a read-back showed.
    #[must_use]
    pub fn with_reading(&self, reading: UserReading) -> Self {
        let mut variables = self.clone();
        for (name, value) in reading {
            match value {
                Some(value) => variables.0.insert(name, value),
                None => variables.0.remove(&name),
            };
        }
        variables
    }

    /// Whether they can be set on another connection.
    pub(super) fn are_replayable(&self) -> bool {
        self.0.len() <= MOST_VARIABLES
            && self.0.values().all(UserValue::is_replayable)
            && self.0.iter().map(|(n, v)| weight(n, v)).sum::<usize>() <= MOST_SQL
    }

    /// Appends the assignments that lead from these to `to`, each with a separator in front of it.
    pub(super) fn put_assignments(
        &self,
        to: &Self,
        out: &mut BytesMut,
        mut separator: impl FnMut(&mut BytesMut),
    ) {
        let mut assign = |out: &mut BytesMut, name: &[u8], put: &dyn Fn(&mut BytesMut)| {
            separator(out);
            out.put_slice(b"@`");
            out.put_slice(name);
            out.put_slice(b"`=");
            put(out);
        };
        let null = |out: &mut BytesMut| out.put_slice(b"NULL");
        for (name, value) in &self.0 {
            // What was never set looks like a NULL of type string.
            if !to.0.contains_key(name) && !value.is_plain_null() {
                assign(out, name, &|out| out.put_slice(b"_binary x''"));
                assign(out, name, &null);
            }
        }
        for (name, value) in &to.0 {
            if self.0.get(name) == Some(value) {
                continue;
            }
            assign(out, name, &|out| value.put_literal(out));
            if value.is_null() {
                assign(out, name, &null);
            }
        }
    }
}

impl FromIterator<(Box<[u8]>, UserValue)> for UserVariables {
    fn from_iter<I: IntoIterator<Item = (Box<[u8]>, UserValue)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// Bytes of an assignment, at most.
fn weight(name: &[u8], value: &UserValue) -> usize {
    const AROUND: usize = 160;
    AROUND
        + name.len() * 2
        + match value {
            UserValue::Number(_, text) => text.as_ref().map_or(0, |text| text.len()),
            UserValue::Text { bytes, .. } => bytes.as_ref().map_or(0, |bytes| bytes.len() * 2),
            UserValue::Opaque(_) => MOST_SQL,
        }
}

impl UserValue {
    /// Its text: of a number, or the bytes of a string in its own character set; `None` for NULL and for
    /// what is too large.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Number(_, text) => text.as_deref(),
            Self::Text { bytes, .. } => bytes.as_deref(),
            Self::Opaque(_) => None,
        }
    }

    const fn is_null(&self) -> bool {
        matches!(self, Self::Number(_, None) | Self::Text { bytes: None, .. })
    }

    /// A NULL that never had another type.
    fn is_plain_null(&self) -> bool {
        matches!(self, Self::Text { charset, bytes: None, .. } if &**charset == "binary")
    }

    /// True if the literal sets exactly this value and cannot fail.
    fn is_replayable(&self) -> bool {
        match self {
            Self::Number(_, text) => text.as_ref().is_none_or(|text| is_number(text)),
            Self::Text {
                charset,
                collation,
                bytes,
            } => {
                is_word(charset)
                    && is_word(collation)
                    && bytes.as_ref().is_none_or(|bytes| is_sound(charset, bytes))
            }
            Self::Opaque(_) => false,
        }
    }

    /// Appends the literal; of a NULL, one of its type.
    fn put_literal(&self, out: &mut BytesMut) {
        match self {
            Self::Number(kind, text) => kind.put_literal(text.as_deref().unwrap_or(b"0"), out),
            Self::Text {
                charset,
                collation,
                bytes,
            } => {
                out.put_u8(b'_');
                out.put_slice(charset.as_bytes());
                out.put_slice(b" x'");
                put_hex(bytes.as_deref().unwrap_or_default(), out);
                out.put_u8(b'\'');
                if &**charset != "binary" {
                    out.put_slice(b" COLLATE ");
                    out.put_slice(collation.as_bytes());
                }
            }
            Self::Opaque(_) => out.put_slice(b"NULL"),
        }
    }
}

impl NumberKind {
    fn put_literal(self, text: &[u8], out: &mut BytesMut) {
        let has = |bytes: &[u8]| text.iter().any(|b| bytes.contains(b));
        match self {
            Self::Signed => out.put_slice(text),
            Self::Unsigned => {
                out.put_slice(b"CAST(");
                out.put_slice(text);
                out.put_slice(b" AS UNSIGNED)");
            }
            Self::Decimal => {
                out.put_slice(text);
                out.put_slice(if has(b".") { b"" } else { b"." });
            }
            Self::Double => {
                out.put_slice(text);
                out.put_slice(if has(b"eE") { b"" } else { b"e0" });
            }
        }
    }
}

impl UserQuery {
    /// Reads these, which must be plain; names in lower case.
    pub fn new(names: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        let names: Vec<_> = names.into_iter().collect();
        let most = (MOST_READ / names.len().max(1)).clamp(LEAST_VALUE, MOST_VALUE);
        let mut sql = String::from("SELECT ");
        for (at, name) in names.iter().enumerate() {
            let name = String::from_utf8_lossy(name);
            let separator = if at == 0 { "" } else { "," };
            // The first column tells the type, and the value of a double: on MySQL a CAST rounds it. The
            // last has all others; in the first, MariaDB gives a decimal more digits than it has.
            // OCTET_LENGTH, because LENGTH counts characters in MariaDB's Oracle mode.
            let _ = write!(
                sql,
                "{separator}IF(OCTET_LENGTH(@`{name}`)<=400,@`{name}`,NULL),OCTET_LENGTH(@`{name}`),\
                 CHARSET(@`{name}`),COLLATION(@`{name}`),\
                 IF(OCTET_LENGTH(@`{name}`)<={most},HEX(CAST(@`{name}` AS BINARY)),NULL)"
            );
        }
        sql.push_str(" LIMIT 1");
        Self {
            sql: sql.into(),
            names,
        }
    }

    /// The statement, ASCII.
    pub fn sql(&self) -> &Bytes {
        &self.sql
    }

    /// Decodes the answer: column definitions, and the row.
    ///
    /// # Errors
    /// If it is not one to this query.
    pub fn decode(
        &self,
        definitions: &[&[u8]],
        row: &[Option<&[u8]>],
        family: Family,
    ) -> Result<UserReading, ReadError> {
        let expected = self.names.len() * COLUMNS;
        for got in [definitions.len(), row.len()] {
            if got != expected {
                return Err(ReadError::Columns { got, expected });
            }
        }
        let cells = row.chunks_exact(COLUMNS);
        let columns = definitions.chunks_exact(COLUMNS).zip(cells);
        self.names
            .iter()
            .zip(columns)
            .map(|(name, (definitions, cells))| {
                let column = Column::of(definitions[0]).ok_or(ReadError::Cut)?;
                Ok((name.clone(), value_of(column, cells, family)?))
            })
            .collect()
    }
}

const COLUMNS: usize = 5;
/// The type byte of spatial values.
const GEOMETRY: u8 = 255;

/// The end of a column definition (`Protocol::ColumnDefinition41`).
#[derive(Debug, Clone, Copy)]
struct Column {
    width: u32,
    kind: u8,
    unsigned: bool,
}

impl Column {
    fn of(definition: &[u8]) -> Option<Self> {
        const UNSIGNED: u8 = 0x20;
        match *definition.last_chunk::<13>()? {
            [12, _, _, w0, w1, w2, w3, kind, flags, ..] => Some(Self {
                width: u32::from_le_bytes([w0, w1, w2, w3]),
                kind,
                unsigned: flags & UNSIGNED != 0,
            }),
            _ => None,
        }
    }

    /// Whether a NULL of type string is one because the variable was never set. MariaDB 10.11.19 then
    /// announces one byte more than ever else, MySQL 9.7.4 a short string.
    const fn is_of_never_set(self, family: Family) -> bool {
        match family {
            Family::MariaDb => self.width == 1 << 24,
            Family::MySql => self.kind == 253,
        }
    }
}

fn value_of(
    column: Column,
    cells: &[Option<&[u8]>],
    family: Family,
) -> Result<Option<UserValue>, ReadError> {
    let [shown, length, charset, collation, hex] = *cells else {
        return Err(ReadError::Cut);
    };
    let whole = || hex.map(unhex).transpose();
    let number = |kind, text: Option<&[u8]>| {
        Ok(Some(UserValue::Number(
            kind,
            text.map(|text| narrow(text).as_ref().into()),
        )))
    };
    match column.kind {
        GEOMETRY => Ok(Some(UserValue::Opaque(count(length)?))),
        5 => number(NumberKind::Double, shown),
        0 | 246 => number(NumberKind::Decimal, whole()?.as_deref()),
        1..=3 | 8 | 9 if column.unsigned => number(NumberKind::Unsigned, whole()?.as_deref()),
        1..=3 | 8 | 9 => number(NumberKind::Signed, whole()?.as_deref()),
        _ => {
            let name = |cell: Option<&[u8]>| -> Arc<str> {
                String::from_utf8_lossy(&narrow(cell.unwrap_or_default())).into()
            };
            let bytes = match (length, whole()?) {
                (None, _) if &*name(charset) == "binary" && column.is_of_never_set(family) => {
                    return Ok(None);
                }
                (None, _) => None,
                (Some(_), Some(bytes)) => Some(Arc::from(&*bytes)),
                (Some(_), None) => return Ok(Some(UserValue::Opaque(count(length)?))),
            };
            Ok(Some(UserValue::Text {
                charset: name(charset),
                collation: name(collation),
                bytes,
            }))
        }
    }
}

/// The bytes of a value; 0 for NULL.
fn count(length: Option<&[u8]>) -> Result<u64, ReadError> {
    let length = narrow(length.unwrap_or(b"0"));
    let number = std::str::from_utf8(&length)
        .ok()
        .and_then(|length| length.parse().ok());
    number.ok_or(ReadError::Cut)
}

/// Whether `_charset x'…'` takes these bytes as they are. Not said of multi-byte charsets of which the
/// rules are not known here, unless the text is ASCII.
fn is_sound(charset: &str, bytes: &[u8]) -> bool {
    let units = |bytes: &[u8], little: bool| -> Vec<u16> {
        let unit = if little {
            u16::from_le_bytes
        } else {
            u16::from_be_bytes
        };
        bytes.as_chunks().0.iter().map(|pair| unit(*pair)).collect()
    };
    let utf16 = |little| {
        bytes.len().is_multiple_of(2)
            && char::decode_utf16(units(bytes, little)).all(|unit| unit.is_ok())
    };
    match charset {
        "utf8mb4" => std::str::from_utf8(bytes).is_ok(),
        "utf8mb3" | "utf8" => {
            std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(|c| c.len_utf8() < 4))
        }
        "ucs2" => bytes.len().is_multiple_of(2),
        "utf16" => utf16(false),
        "utf16le" => utf16(true),
        "utf32" => {
            let (letters, rest) = bytes.as_chunks();
            let is_char = |l: &[u8; 4]| char::from_u32(u32::from_be_bytes(*l)).is_some();
            rest.is_empty() && letters.iter().all(is_char)
        }
        "binary" | "latin1" | "latin2" | "latin5" | "latin7" | "cp1250" | "cp1251" | "cp1256"
        | "cp1257" | "koi8r" | "koi8u" | "cp850" | "cp852" | "cp866" | "greek" | "hebrew"
        | "hp8" | "dec8" | "macce" | "macroman" | "keybcs2" | "armscii8" | "geostd8" => true,
        _ => bytes.is_ascii(),
    }
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn put_hex(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        out.put_u8(DIGITS[usize::from(byte >> 4)]);
        out.put_u8(DIGITS[usize::from(byte & 15)]);
    }
}

#[cfg(test)]
mod tests;
