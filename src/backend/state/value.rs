//! Values of session variables: as read, and as the literal that sets them again.
//!
//! A value is read by `SELECT @@…` in the text protocol and set by `SET @@session.x = literal`. The
//! literal must mean the same under every `sql_mode` and client charset, so only text of harmless
//! ASCII is ever written; anything else cannot be replayed and pins the session that has it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

/// The value of a session variable, as `SELECT @@…` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// SQL NULL; `character_set_results` and the engine and directory variables can have it.
    Null,
    /// The text of a column of numeric type. Written unquoted: a quoted number is error 1232.
    Number(Arc<[u8]>),
    /// The bytes of a column of any other type.
    Text(Arc<[u8]>),
}

impl Value {
    /// A number, from its text.
    pub fn number(text: impl AsRef<[u8]>) -> Self {
        Self::Number(text.as_ref().into())
    }

    /// A text, from its bytes.
    pub fn text(bytes: impl AsRef<[u8]>) -> Self {
        Self::Text(bytes.as_ref().into())
    }

    /// The value of one column of a text-protocol row; `None` is SQL NULL.
    pub fn from_column(column: Option<&[u8]>, kind: ColumnKind) -> Self {
        match (column.map(narrow), kind) {
            (None, _) => Self::Null,
            (Some(text), ColumnKind::Number) => Self::number(text),
            (Some(bytes), ColumnKind::Text) => Self::text(bytes),
        }
    }

    /// The bytes as read; `None` for NULL.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Null => None,
            Self::Number(bytes) | Self::Text(bytes) => Some(bytes),
        }
    }

    /// True if `put_literal` writes something that sets exactly this value.
    ///
    /// Not so for text that is anything but harmless ASCII, nor for a number that does not look like
    /// one.
    pub fn is_replayable(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Number(text) => is_number(text),
            Self::Text(bytes) => bytes.iter().copied().all(is_harmless),
        }
    }

    /// Appends the literal. Only meaningful where [`is_replayable`](Self::is_replayable).
    pub(super) fn put_literal(&self, out: &mut BytesMut, quoting: Quoting) {
        match self {
            Self::Null => out.put_slice(b"NULL"),
            Self::Number(text) => out.put_slice(text),
            // Single quotes delimit a string under ANSI_QUOTES too; what stands between them has
            // neither a quote nor a backslash, so NO_BACKSLASH_ESCAPES makes no difference.
            Self::Text(bytes) => {
                out.put_slice(match quoting {
                    Quoting::Plain => b"'",
                    Quoting::Introduced => b"_latin1'",
                });
                out.put_slice(bytes);
                out.put_u8(b'\'');
            }
        }
    }
}

/// ASCII text out of whichever charset it came in. With `character_set_results` at `utf16`, `utf16le`,
/// `ucs2` or `utf32`, which MariaDB 10.11 and MySQL 9.7 allow, rows arrive with zero bytes around each
/// letter. Text that is no ASCII is left as it is.
pub fn narrow(text: &[u8]) -> Cow<'_, [u8]> {
    let zeros = text.iter().filter(|&&byte| byte == 0).count();
    let letters = text.len() - zeros;
    let wide = zeros > 0 && (zeros == letters || zeros == 3 * letters) && text.is_ascii();
    match wide {
        true => text.iter().copied().filter(|&byte| byte != 0).collect(),
        false => text.into(),
    }
}

/// How text is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoting {
    /// `'text'`.
    Plain,
    /// `_latin1'text'`, for a connection charset that is no superset of ASCII.
    Introduced,
}

/// How a column's type makes its text a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// An integer, decimal, float, year or bit type: written unquoted.
    Number,
    /// Everything else: written quoted.
    Text,
}

impl ColumnKind {
    /// From the type byte of a column definition (`enum_field_types` of the MySQL protocol).
    pub const fn from_type(column_type: u8) -> Self {
        match column_type {
            // DECIMAL TINY SHORT LONG FLOAT DOUBLE, LONGLONG INT24, YEAR, BIT, NEWDECIMAL.
            0..=5 | 8 | 9 | 13 | 16 | 246 => Self::Number,
            _ => Self::Text,
        }
    }
}

/// Optional sign, digits, optional fraction, optional exponent; at least one digit at the front.
pub(super) fn is_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let mut parts = mantissa.splitn(2, |&b| b == b'.');
    let whole = parts.next().unwrap_or_default();
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    digits(whole)
        && parts.next().is_none_or(digits)
        && exponent
            .is_none_or(|e| digits(e.strip_prefix(b"-").or(e.strip_prefix(b"+")).unwrap_or(e)))
}

/// Printable ASCII that is the same character in every client charset and ends no string.
///
/// `swe7`, the one client charset of both servers that is not a superset of ASCII, has letters where
/// ASCII has `@ [ \ ] ^ _ { | } ~` and the backtick; the underscore alone is needed (in charset and
/// collation names) and is handled by sending the charsets first.
pub(super) const fn is_harmless(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
        && !matches!(
            byte,
            b'\'' | b'"' | b'\\' | b'`' | b'@' | b'[' | b']' | b'^' | b'{' | b'|' | b'}' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(value: &Value) -> String {
        let mut out = BytesMut::new();
        value.put_literal(&mut out, Quoting::Plain);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn literals_are_null_bare_or_single_quoted() {
        assert_eq!(literal(&Value::Null), "NULL");
        assert_eq!(
            literal(&Value::number("18446744073709551615")),
            "18446744073709551615"
        );
        assert_eq!(literal(&Value::text("+02:00")), "'+02:00'");
        assert_eq!(literal(&Value::text("")), "''");
    }

    #[test]
    fn only_harmless_text_and_real_numbers_are_replayed() {
        for good in [
            "",
            "ANSI_QUOTES,ORACLE",
            "+02:00",
            "a=on,b=off",
            "2020-01-01 00:00:00.000000",
        ] {
            assert!(Value::text(good).is_replayable(), "{good}");
        }
        for bad in ["'", "\"", "\\", "a`b", "\0u", "é", "a\nb", "x@y", "\x7f"] {
            assert!(!Value::text(bad).is_replayable(), "{bad}");
        }
        for good in [
            "0",
            "-1",
            "10.000000",
            "1e100",
            "1.5e-7",
            "18446744073709551615",
        ] {
            assert!(Value::number(good).is_replayable(), "{good}");
        }
        for bad in [
            "", "-", ".5", "1.", "\x001", "1 ", "0x10", "1;2", "nan", "1e",
        ] {
            assert!(!Value::number(bad).is_replayable(), "{bad}");
        }
    }

    #[test]
    fn wide_charsets_are_undone() {
        let number = |text: &[u8]| Value::from_column(Some(text), ColumnKind::Number);
        assert_eq!(number(b"\x001\x002"), Value::number("12"));
        assert_eq!(number(b"1\x002\x00"), Value::number("12"));
        assert_eq!(number(b"\0\0\x001"), Value::number("1"));
        assert_eq!(narrow(b"\0u\0t\0f\x001\x006"), &b"utf16"[..]);
        for text in [&b"a\0b"[..], b"\0\xe9", b"", b"abc"] {
            assert_eq!(narrow(text), text);
        }
    }

    #[test]
    fn types_as_both_servers_send_them() {
        // MariaDB 10.11.19 and MySQL 9.7.4 send 8 for integers and booleans, 5 for doubles, 253 else.
        assert_eq!(ColumnKind::from_type(8), ColumnKind::Number);
        assert_eq!(ColumnKind::from_type(5), ColumnKind::Number);
        assert_eq!(ColumnKind::from_type(253), ColumnKind::Text);
    }
}
