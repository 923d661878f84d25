//! Session-tracking data behind an OK packet: what changed in the session, item by item.
//!
//! Source: MySQL "OK_Packet", `SERVER_SESSION_STATE_CHANGED`; MariaDB "OK_Packet", which may put several
//! name/value pairs into one item of type 0.

use bytes::BufMut;

use super::Malformed;
use crate::protocol::packet::{put_lenenc_int, put_lenenc_str, take_lenenc_str};

/// One change. Texts are as the server sent them, in the session's character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionChange<'a> {
    /// A system variable was assigned. The value is a hint, never the session's value (DESIGN 7.1).
    Variable {
        /// Its name.
        name: &'a [u8],
        /// What the server says it became.
        value: &'a [u8],
    },
    /// The current database; empty when there is none any more.
    Schema(&'a [u8]),
    /// Something in the session changed that no other item names.
    State,
    /// GTIDs, behind their encoding byte.
    Gtids(&'a [u8]),
    /// The statements that restore the transaction's characteristics; empty when they are the default.
    Characteristics(&'a [u8]),
    /// Eight characters such as `T_R_W_S_`.
    Transaction([u8; 8]),
    /// A type not known here.
    Other(u8),
}

const VARIABLES: u8 = 0;
const SCHEMA: u8 = 1;
const STATE: u8 = 2;
const GTIDS: u8 = 3;
const CHARACTERISTICS: u8 = 4;
const TRANSACTION: u8 = 5;

/// Iterates the changes in the session-tracking data of an OK packet. After an error it is at its end.
#[derive(Debug, Clone)]
pub struct SessionChanges<'a> {
    items: &'a [u8],
    variables: &'a [u8],
}

impl<'a> SessionChanges<'a> {
    /// Over the data behind its total length, as in `OkPacket::session_state`.
    pub const fn new(items: &'a [u8]) -> Self {
        Self {
            items,
            variables: &[],
        }
    }

    fn advance(&mut self) -> Result<Option<SessionChange<'a>>, Malformed> {
        loop {
            if !self.variables.is_empty() {
                let name = take_lenenc_str(&mut self.variables).ok_or(Malformed::SessionState)?;
                let value = take_lenenc_str(&mut self.variables).ok_or(Malformed::SessionState)?;
                return Ok(Some(SessionChange::Variable { name, value }));
            }
            let Some((&kind, rest)) = self.items.split_first() else {
                return Ok(None);
            };
            self.items = rest;
            let mut data = take_lenenc_str(&mut self.items).ok_or(Malformed::SessionState)?;
            if kind == VARIABLES {
                self.variables = data;
                continue;
            }
            return decode(kind, &mut data).map(Some);
        }
    }
}

impl<'a> Iterator for SessionChanges<'a> {
    type Item = Result<SessionChange<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance();
        if item.is_err() {
            (self.items, self.variables) = (&[], &[]);
        }
        item.transpose()
    }
}

fn decode<'a>(kind: u8, data: &mut &'a [u8]) -> Result<SessionChange<'a>, Malformed> {
    let mut text = || take_lenenc_str(data).ok_or(Malformed::SessionState);
    Ok(match kind {
        SCHEMA => SessionChange::Schema(text()?),
        STATE => SessionChange::State,
        GTIDS => SessionChange::Gtids(data),
        CHARACTERISTICS => SessionChange::Characteristics(text()?),
        TRANSACTION => {
            let state = text()?.try_into().map_err(|_| Malformed::SessionState)?;
            SessionChange::Transaction(state)
        }
        other => SessionChange::Other(other),
    })
}

/// Appends the item that reports one change; the inverse of [`SessionChanges`].
/// [`SessionChange::Other`] has no known form and appends nothing.
pub fn put_session_change(out: &mut Vec<u8>, change: &SessionChange<'_>) {
    let mut data = Vec::new();
    let kind = match *change {
        SessionChange::Variable { name, value } => {
            put_lenenc_str(&mut data, name);
            put_lenenc_str(&mut data, value);
            VARIABLES
        }
        SessionChange::Schema(name) => {
            put_lenenc_str(&mut data, name);
            SCHEMA
        }
        SessionChange::State => {
            data.put_u8(b'1');
            STATE
        }
        SessionChange::Gtids(gtids) => {
            data.put_slice(gtids);
            GTIDS
        }
        SessionChange::Characteristics(text) => {
            put_lenenc_str(&mut data, text);
            CHARACTERISTICS
        }
        SessionChange::Transaction(state) => {
            put_lenenc_str(&mut data, &state);
            TRANSACTION
        }
        SessionChange::Other(_) => return,
    };
    out.push(kind);
    put_lenenc_int(out, data.len() as u64);
    out.extend_from_slice(&data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(items: &[u8]) -> Result<Vec<SessionChange<'_>>, Malformed> {
        SessionChanges::new(items).collect()
    }

    #[test]
    fn each_type_is_read() {
        let changes = [
            SessionChange::Variable {
                name: b"time_zone",
                value: b"+01:00",
            },
            SessionChange::Schema(b"shop"),
            SessionChange::State,
            SessionChange::Gtids(b"\x00\x03a:1"),
            SessionChange::Characteristics(b"SET TRANSACTION READ ONLY;"),
            SessionChange::Transaction(*b"T_R_W_S_"),
        ];
        let mut items = Vec::new();
        for change in &changes {
            put_session_change(&mut items, change);
        }
        assert_eq!(all(&items).unwrap(), changes);
    }

    #[test]
    fn several_pairs_in_one_item() {
        let items = b"\x00\x08\x01a\x011\x01b\x012\x02\x011";
        let pair = |name, value| SessionChange::Variable { name, value };
        assert_eq!(
            all(items).unwrap(),
            [pair(b"a", b"1"), pair(b"b", b"2"), SessionChange::State]
        );
    }

    #[test]
    fn an_unknown_type_is_passed_over() {
        assert_eq!(
            all(b"\x63\x02xy\x02\x011").unwrap(),
            [SessionChange::Other(0x63), SessionChange::State]
        );
    }

    #[test]
    fn cut_data_is_an_error_once() {
        let items = b"\x00\x04\x01a\x011";
        for cut in 1..items.len() {
            assert_eq!(all(&items[..cut]), Err(Malformed::SessionState), "{cut}");
        }
        assert_eq!(all(b"\x05\x03\x02ab"), Err(Malformed::SessionState));
        let mut changes = SessionChanges::new(b"\x01\xff");
        assert!(changes.next().unwrap().is_err());
        assert!(changes.next().is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_end(items: Vec<u8>) {
            prop_assert!(SessionChanges::new(&items).count() <= items.len());
        }
    }
}
