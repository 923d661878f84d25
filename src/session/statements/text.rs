//! Statements prepared by SQL text: `PREPARE s FROM '…'`, `EXECUTE s`, `DEALLOCATE PREPARE s`.
//!
//! The session remembers what it prepared under which name; each backend connection remembers what it
//! has under which ([`NamedStatements`]). Where the two differ,
//! the statement is prepared again, read as it was read first (hazard 14), before the client's `EXECUTE`
//! is sent. What cannot be prepared again pins.

mod ready;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::Instant;

use super::Text;
use crate::backend::named::{Bound, MOST_NAMES, NamedStatement, NamedStatements};
use crate::backend::state::{State, UserValue};
use crate::protocol::command::Command;
use crate::reason::PinReason;
use crate::relay::{Answer, ErrorInfo};
use crate::session::plan::Plan;
use crate::session::scan::{
    CharsetFamily, Findings, Flags, LexMode, Lexer, Name, Source, TextCommand, Token, Using, Whole,
};
use crate::session::work::Work;
use crate::session::{Flow, Session};

pub(in crate::session) use ready::Readied;

/// Bytes of a `PREPARE` that is carried.
const LONGEST: usize = 64 * 1024;
/// `ER_PARSE_ERROR`
const PARSE_ERROR: u16 = 1064;
/// `ER_UNKNOWN_STMT_HANDLER`
const UNKNOWN_STATEMENT: u16 = 1243;

/// What a session has prepared by name.
#[derive(Debug, Default)]
pub struct TextStatements {
    entries: HashMap<Name, Entry>,
    /// Something was prepared or deallocated and nobody knows what: all names are where they are.
    unknown: bool,
}

/// A statement that a session has prepared.
#[derive(Debug, Clone)]
pub(in crate::session) struct Entry {
    /// How to prepare it elsewhere; `None`: it is only where it was prepared.
    carried: Option<Arc<NamedStatement>>,
    /// What it does; `None`: nobody knows.
    inner: Option<Inner>,
    /// How often it was executed with parameters.
    executions: u64,
}

/// The text of a prepared statement.
#[derive(Debug, Clone)]
struct Inner {
    text: Arc<[u8]>,
    lex: LexMode,
    flags: Flags,
}

/// What a command does to named statements.
#[derive(Debug)]
pub(in crate::session) struct NamesWork(Deed);

#[derive(Debug)]
enum Deed {
    /// `PREPARE`
    Prepare {
        name: Name,
        entry: Entry,
        /// It has no syntax error of its own, but for the text in it.
        sure: bool,
    },
    /// `EXECUTE`
    Execute {
        name: Name,
        /// It is not what a new one would be from then on: MySQL 9.7.4 keeps the types of parameters, so
        /// that a string given behind a number is made one (measured; MariaDB 10.11.19 does not).
        binds: bool,
    },
    /// `DEALLOCATE PREPARE`
    Deallocate(Name),
    /// `EXECUTE IMMEDIATE`
    Nothing,
    /// Any of these to any name.
    Anything {
        /// Nothing, if it is a syntax error.
        may_be_nothing: bool,
    },
}

/// What is done, and what is executed or prepared, if that is known.
type Planned = (Plan, Deed, Option<Inner>);

impl TextStatements {
    /// Whether something is only where it was prepared.
    fn is_bound(&self) -> bool {
        self.unknown || self.entries.values().any(|entry| entry.carried.is_none())
    }

    /// Something may have been prepared that nobody saw.
    pub(in crate::session) const fn lose_track(&mut self) {
        self.unknown = true;
    }

    /// The session goes on in other states: `then` is the one for each in which something was prepared.
    pub(in crate::session) fn rebase(
        &mut self,
        then: impl Fn(&State) -> Option<State>,
    ) -> Option<()> {
        for entry in self.entries.values_mut() {
            if let Some(statement) = &mut entry.carried {
                *statement = Arc::new(NamedStatement {
                    sql: statement.sql.clone(),
                    state: then(&statement.state)?.with_user(statement.state.user().clone()),
                    reads_user: statement.reads_user,
                });
            }
        }
        Some(())
    }
}

impl Work {
    /// Whether it uses named statements, or runs code that may.
    pub(in crate::session) fn may_use_names(&self) -> bool {
        self.names.is_some() || self.runs_routine()
    }

    fn runs_routine(&self) -> bool {
        self.plan.pins.has(PinReason::Routine) || self.plan.after.routine
    }

    /// Whether it is known what of the session's state changed: servers report a `PREPARE` and a
    /// `DEALLOCATE` as a change without a name.
    pub(in crate::session) fn explains_state(&self) -> bool {
        let deed = self.names.as_ref().map(|names| &names.0);
        matches!(deed, Some(Deed::Prepare { .. } | Deed::Deallocate(_)))
    }
}

impl Session {
    /// A statement about prepared statements.
    pub(in crate::session) async fn text_command(
        &mut self,
        packet: BytesMut,
        text_at: usize,
        findings: &Findings,
        began: Instant,
    ) -> Flow {
        let command = TextCommand::parse(&packet[text_at..], self.carried.lex);
        // It will have to be read as it is now.
        if let Some(TextCommand::Prepare { .. }) = &command
            && let Some(hold) = &self.hold
            && !hold.pending.knows_state()
            // With the client's own trackers on, the connection stays its own.
            && !self.pinned.pins.has(PinReason::SessionTrack)
            && let Flow::Close(reason) = self.settle_or_close().await
        {
            return Flow::Close(reason);
        }
        let (plan, deed, inner) = self.plan_text(command, &packet[text_at..], findings);
        let text = match (inner, &deed) {
            (Some(inner), _) => Text::Inner(inner.text, inner.lex),
            // However it is written.
            (None, Deed::Deallocate(_)) => Text::Inner(b"DEALLOCATE"[..].into(), self.carried.lex),
            (None, _) => Text::At(text_at),
        };
        self.carry_out(Work {
            plan,
            text,
            names: Some(Box::new(NamesWork(deed))),
            ..Work::plain(Command::Query, packet, began)
        })
        .await
    }

    fn plan_text(&self, command: Option<TextCommand>, sql: &[u8], findings: &Findings) -> Planned {
        let around = around(findings);
        let names = &self.carried.names;
        match command {
            Some(command) if !names.unknown => match command {
                TextCommand::Prepare { name, source } => {
                    self.plan_prepare(name, &source, sql, around)
                }
                TextCommand::Execute { name, using } => {
                    self.plan_execute(name, using, sql, findings)
                }
                TextCommand::Deallocate { name } => {
                    (self.plan_of(around), Deed::Deallocate(name), None)
                }
                TextCommand::Immediate { text, using } => {
                    let inner = self.inner(&text);
                    let sets = using == Using::Expressions && around.any(Flags::USER_VARIABLE);
                    match sets || inner.flags.any(Flags::PREPARE | Flags::MULTI) {
                        true => self.plan_anything(sql, findings),
                        false => self.plan_inner(inner, given(using, around), Deed::Nothing),
                    }
                }
            },
            _ => self.plan_anything(sql, findings),
        }
    }

    fn plan_prepare(&self, name: Name, source: &Source, sql: &[u8], around: Flags) -> Planned {
        let mut plan = self.plan_of(around);
        let names = &self.carried.names;
        let inner = match source {
            Source::Literal(text) | Source::Joined(text) => Some(self.inner(text)),
            Source::Variable(variable) => self.value(variable).map(|text| self.inner(text)),
            Source::Unknown => None,
        };
        let fits = sql.len() <= LONGEST
            && (names.entries.contains_key(&name) || names.entries.len() < MOST_NAMES);
        let carried = inner
            .as_ref()
            .filter(|inner| fits && self.is_carried(inner));
        let carried = carried.map(|inner| {
            let names_some = inner.flags.any(Flags::USER_VARIABLE) && !self.is_mariadb();
            Arc::new(NamedStatement {
                sql: sql.into(),
                state: self.carried.state.clone(),
                reads_user: names_some || matches!(source, Source::Variable(_)),
            })
        });
        if carried.is_none() {
            plan.pins.add(PinReason::PreparedStatement);
        }
        let deed = Deed::Prepare {
            name,
            entry: Entry {
                carried,
                inner: inner.clone(),
                executions: 0,
            },
            sure: matches!(source, Source::Literal(_) | Source::Variable(_)),
        };
        (plan, deed, inner)
    }

    fn plan_execute(&self, name: Name, using: Using, sql: &[u8], findings: &Findings) -> Planned {
        // MySQL takes nothing but variables.
        let binds = using == Using::Variables && !self.is_mariadb();
        let around = around(findings);
        if using == Using::Expressions && around.any(Flags::USER_VARIABLE) {
            // They may set it.
            return self.plan_anything(sql, findings);
        }
        let Some(entry) = self.carried.names.entries.get(&name) else {
            // The server says that there is none.
            return (
                self.plan_of(around),
                Deed::Execute { name, binds: false },
                None,
            );
        };
        let Some(inner) = entry.inner.clone() else {
            return self.plan_anything(sql, findings);
        };
        let deed = Deed::Execute { name, binds };
        self.plan_inner(inner, given(using, around), deed)
    }

    /// The plan for executing that.
    fn plan_inner(&self, inner: Inner, around: Flags, deed: Deed) -> Planned {
        // The text is the same for whatever it executes: its effect is never remembered.
        let flags = (inner.flags | around).without(Flags::PLAIN_SET);
        (self.plan_of(flags), deed, Some(inner))
    }

    fn plan_anything(&self, sql: &[u8], findings: &Findings) -> Planned {
        let mut plan = Plan::of(findings, self.memory());
        plan.pins.add(PinReason::PreparedStatement);
        let may_be_nothing = TextCommand::is_nothing_if_misspelt(sql, self.carried.lex);
        (plan, Deed::Anything { may_be_nothing }, None)
    }

    fn plan_of(&self, flags: Flags) -> Plan {
        let whole = Whole::Ordinary;
        Plan::of(&Findings { flags, whole }, self.memory())
    }

    /// The text in a user variable, if it is read as it stands there.
    fn value(&self, variable: &[u8]) -> Option<&[u8]> {
        let value = self.carried.state.user().get(variable)?;
        let text = value.as_bytes()?;
        let plain = text.is_ascii() && self.carried.lex.charset == CharsetFamily::AsciiSafe;
        let is_text =
            |charset: &str| ["utf8mb4", "utf8mb3", "utf8", "latin1", "ascii"].contains(&charset);
        match value {
            UserValue::Text { charset, .. } => (plain && is_text(charset)).then_some(text),
            _ => None,
        }
    }

    fn inner(&self, text: &[u8]) -> Inner {
        let lex = self.carried.lex;
        Inner {
            text: text.into(),
            lex,
            flags: self.context.scanner.scan(text, lex).flags,
        }
    }

    /// Whether a statement can be prepared on another connection, in front of its execution.
    fn is_carried(&self, inner: &Inner) -> bool {
        // What the statement before left behind, would be what its own preparing left.
        let looks_back = Flags::ROW_COUNT
            | Flags::FOUND_ROWS
            | Flags::LASTVAL
            | Flags::DIAGNOSTICS
            | Flags::LOOKS_BACK;
        !inner.flags.any(looks_back | Flags::PREPARE | Flags::MULTI)
            && (self.carried.state.schema().is_some() || needs_no_database(inner))
    }

    /// Notes what an answer told about named statements.
    pub(in crate::session) fn note_named(&mut self, answer: &Answer, work: &Work) {
        let deed = work.names.as_ref().map(|names| &names.0);
        if let Some(deed) = deed {
            self.note_deed(deed, answer.error().map(|error| error.code));
        }
        let names = &mut self.carried.names;
        let matters = work.plan.pins.has(PinReason::Routine) || !names.entries.is_empty();
        if work.runs_routine() && matters && !matches!(deed, Some(Deed::Anything { .. })) {
            // What it prepares and deallocates is reported as a change. What one prepares that is watched
            // is counted besides.
            names.unknown |= answer.error().is_some() || answer.trackers.state_changed();
        }
        match names.is_bound() {
            true => self.pin(PinReason::PreparedStatement, work.text()),
            false => self.unpin(PinReason::PreparedStatement),
        }
    }

    fn note_deed(&mut self, deed: &Deed, error: Option<u16>) {
        let mariadb = self.is_mariadb();
        let client = self.me.id();
        let Some(hold) = &mut self.hold else { return };
        match (deed, error) {
            (Deed::Prepare { .. }, None) => hold.lease.count_prepared(),
            // Whether it counts, shows the next count.
            (Deed::Prepare { .. } | Deed::Nothing, _) => hold.pending.user.recount |= mariadb,
            _ => {}
        }
        let (here, names) = (&mut hold.lease.named, &mut self.carried.names);
        match (deed, error) {
            (Deed::Prepare { name, entry, .. }, None) => {
                here.put(name.as_bytes(), entry.carried.clone());
                names.entries.insert(name.clone(), entry.clone());
            }
            // One that fails deallocates what had the name before (measured on both servers).
            (
                Deed::Prepare {
                    name, sure: true, ..
                },
                Some(_),
            ) => forget(name, here, names),
            // Unless it fails before that: MySQL takes literals and variables alone, and MariaDB sometimes
            // looks at an expression first.
            (Deed::Prepare { name, .. }, Some(_)) => {
                here.doubt(name.as_bytes());
                names.unknown |= mariadb && names.entries.contains_key(name);
            }
            (Deed::Execute { name, .. } | Deed::Deallocate(name), Some(UNKNOWN_STATEMENT))
            | (Deed::Deallocate(name), None) => forget(name, here, names),
            (Deed::Execute { name, binds: true }, _) => {
                if let Some(entry) = names.entries.get_mut(name) {
                    entry.executions += 1;
                    let executions = entry.executions;
                    here.bind(name.as_bytes(), Bound { client, executions });
                }
            }
            (Deed::Anything { may_be_nothing }, error) => {
                names.unknown |= !(*may_be_nothing && error == Some(PARSE_ERROR));
            }
            (Deed::Execute { .. } | Deed::Deallocate(_) | Deed::Nothing, _) => {}
        }
    }

    /// The server refused to prepare a statement again: it would have refused to execute it.
    pub(in crate::session) async fn answer_unprepared(&mut self, error: &ErrorInfo) -> Flow {
        self.carried.diagnostics = None;
        if let Some(hold) = &mut self.hold {
            hold.pending.diagnostics = true;
            hold.pending.unsettled = true;
        }
        match self.answer_error(error).await {
            Flow::Continue => self.give_back_if_free().await,
            flow => flow,
        }
    }
}

/// What stands around the name: what the statement's first word tells is known better.
fn around(findings: &Findings) -> Flags {
    let head = Flags::PREPARE | Flags::ROUTINE | Flags::WRITE | Flags::INSERT;
    findings.flags.without(head)
}

fn forget(name: &Name, here: &mut NamedStatements, names: &mut TextStatements) {
    here.remove(name.as_bytes());
    names.entries.remove(name);
}

/// What the parameters of an `EXECUTE` may do: expressions may call functions.
fn given(using: Using, around: Flags) -> Flags {
    match using {
        Using::Nothing | Using::Variables => around,
        Using::Expressions => around | Flags::WRITE | Flags::INSERT,
    }
}

/// Whether a statement that was prepared without a database means the same in any. Names of tables are
/// complete then, or it could not have been prepared.
fn needs_no_database(inner: &Inner) -> bool {
    const HEADS: [&str; 8] = [
        "select", "insert", "update", "delete", "replace", "do", "set", "values",
    ];
    let is_one = |word: &[u8], of: &[&str]| {
        of.iter()
            .any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
    };
    let mut tokens = Lexer::new(&inner.text, inner.lex);
    matches!(tokens.next(), Some(Token::Word(head)) if is_one(head, &HEADS))
        && !tokens.any(|token| match token {
            Token::Word(word) | Token::Quoted(word) => is_one(word, &["database", "schema"]),
            _ => false,
        })
}
