//! What the answers to the commands of prepared statements mean.

use super::binary::{Alone, Bound, Errand, Statement, Why};
use crate::backend::statements::{StatementKey, Use};
use crate::protocol::reply::{PrepareOk, StatusFlags};
use crate::relay::{Answer, End};
use crate::session::Session;
use crate::session::scan::{Findings, LexMode, Lexer, Token};
use crate::session::work::{Body, Work};

impl Session {
    /// Notes what became of a statement.
    pub(in crate::session) fn note_statement(&mut self, answer: &Answer, work: &Work) {
        let Some(errand) = work.errand else { return };
        match (errand, &answer.end) {
            (Errand::Prepare(findings), End::Prepared(prepared)) => {
                self.prepared(findings, *prepared, work);
            }
            (Errand::Prepare(_), _) => self.statements.not_opened(),
            (
                Errand::Execute {
                    own, usage, bound, ..
                },
                _,
            ) => self.executed(own, usage, bound, answer),
            (Errand::Reset { own }, End::Ok) => self.after_use(own, true),
            (Errand::Fetch { own }, _) => {
                let over = answer
                    .status
                    .is_some_and(|status| status.has(StatusFlags::LAST_ROW_SENT));
                if over {
                    self.after_use(own, true);
                }
            }
            _ => {}
        }
    }

    fn prepared(&mut self, findings: Findings, prepared: PrepareOk, work: &Work) {
        let own = self.statements.next_id();
        let max = self.target().statements_per_connection();
        let state = &self.carried.state;
        let text = work.text();
        let Some(hold) = &mut self.hold else { return };
        let statements = &mut hold.lease.statements;
        let id = prepared.statement_id;
        let streamed = matches!(work.body, Body::Streamed);
        let key = match streamed {
            true => StatementKey::unshared(state),
            false => StatementKey::of(text, state),
        };
        let unrepeatable =
            streamed || state.schema().is_none() && asks_for_database(text, self.carried.lex);
        let alone = unrepeatable.then_some(Alone::new(id, Use::Rows, Why::Unrepeatable));
        match alone {
            Some(_) => statements.insert_alone(id),
            None => {
                let evicted = statements.insert(&key, id, max);
                let metrics = &self.context.metrics.sessions;
                metrics.statement_evictions.add(evicted as u64);
            }
        }
        let statement = Statement {
            key,
            findings,
            lex: self.carried.lex,
            params: prepared.params,
            types: None,
            alone,
            error: None,
        };
        self.statements.open(own, statement);
    }

    fn executed(&mut self, own: u32, usage: Use, bound: Bound, answer: &Answer) {
        let depends = !self.is_mariadb();
        let cursor = answer.status.is_some_and(StatusFlags::cursor_exists);
        let Some(statement) = self.statements.get(own) else {
            return;
        };
        let alone = statement.alone;
        if let Some(Alone {
            why: Why::Unrepeatable,
            ..
        }) = alone
        {
            return;
        }
        if cursor && answer.error().is_none() {
            let why = Why::Cursor;
            let binding = statement.binding(bound, depends);
            let Some(hold) = &mut self.hold else { return };
            let shared = &mut hold.lease.statements;
            let alone = match alone {
                Some(alone) => Some(Alone { why, ..alone }),
                None => shared.find(&statement.key, usage, binding).map(|id| {
                    shared.reserve(id);
                    Alone::new(id, usage, why)
                }),
            };
            self.statements.set_alone(own, alone);
            return;
        }
        match alone {
            None => {}
            // Only a reset brings it back.
            Some(alone) if alone.why == Why::Spoilt && answer.error().is_some() => {}
            Some(alone) => {
                self.after_use(own, answer.error().is_none() && alone.usage == usage);
            }
        }
    }

    /// A statement has no more on the held connection that is its own id's: it is shared again if it is as good as
    /// new, else closed.
    fn after_use(&mut self, own: u32, clean: bool) {
        let max = self.target().statements_per_connection();
        let depends = !self.is_mariadb();
        let (Some(statement), Some(hold)) = (self.statements.get(own), &mut self.hold) else {
            return;
        };
        let Some(alone) = statement.alone else { return };
        if alone.why == Why::Unrepeatable {
            return;
        }
        let types = match (&statement.types, depends) {
            (Some(types), true) => Some(&types[..]),
            (Some(_), false) => Some(&b""[..]),
            (None, _) => None,
        };
        let shared = &mut hold.lease.statements;
        if clean && !(alone.mixed && depends) {
            let evicted = shared.share(&statement.key, alone.id, (alone.usage, types), max);
            let metrics = &self.context.metrics.sessions;
            metrics.statement_evictions.add(evicted as u64);
        } else {
            shared.close(alone.id);
        }
        self.statements.set_alone(own, None);
    }
}

/// Whether the statement may show the database that is selected: executed, both servers select the one it was prepared
/// in, and none if there was none.
fn asks_for_database(text: &[u8], lex: LexMode) -> bool {
    let mut asks = false;
    for token in Lexer::new(text, lex) {
        match token {
            Token::Word(word) => {
                asks = [&b"database"[..], b"schema"]
                    .iter()
                    .any(|name| word.eq_ignore_ascii_case(name));
            }
            Token::Punct(b'(') if asks => return true,
            _ => asks = false,
        }
    }
    false
}
