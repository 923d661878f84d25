//! The diagnostics area: which statements empty it.

use super::calls::may_call;
use super::lexer::{LexMode, Lexer, Token};

/// Whether a statement that went well emptied the diagnostics area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptied {
    /// It did.
    Yes,
    /// What was there is there still.
    No,
    /// That depends on what its text does not show.
    Perhaps,
}

/// What a statement does to the diagnostics area on MariaDB, where only one that uses a table empties it
/// (measured on 10.11).
pub fn empties(sql: &[u8], mode: LexMode) -> Emptied {
    let (mut lexer, mut start) = (Lexer::new(sql, mode), 0);
    while let Some(token) = lexer.next() {
        if lexer.is_behind_edge() {
            return Emptied::Perhaps;
        }
        if token == Token::Punct(b';') {
            match one_empties(&sql[start..lexer.position() - 1], mode) {
                Emptied::No => start = lexer.position(),
                decided => return decided,
            }
        }
    }
    one_empties(&sql[start..], mode)
}

fn one_empties(sql: &[u8], mode: LexMode) -> Emptied {
    let mut tokens = Lexer::new(sql, mode).filter(|token| *token != Token::Punct(b'('));
    let first = match tokens.next() {
        Some(Token::Word(first)) => first,
        // Nothing behind the last `;`.
        None => return Emptied::No,
        Some(_) => return Emptied::Perhaps,
    };
    let second = tokens.next();
    let is = |words: &[&str]| match second {
        Some(Token::Word(word)) => words
            .iter()
            .any(|w| word.eq_ignore_ascii_case(w.as_bytes())),
        _ => false,
    };
    match &first.to_ascii_lowercase()[..] {
        // Functions, routines and prepared texts may use tables.
        b"call" | b"execute" | b"prepare" | b"declare" | b"for" | b"if" | b"case" | b"while"
        | b"loop" | b"repeat" => Emptied::Perhaps,
        b"begin" if second.is_some() && !is(&["work"]) => Emptied::Perhaps,
        b"create" | b"alter" | b"drop"
            if is(&[
                "function",
                "procedure",
                "event",
                "trigger",
                "user",
                "role",
                "server",
                "or",
                "definer",
                "aggregate",
                "package",
                "if",
            ]) =>
        {
            Emptied::Perhaps
        }
        b"grant" | b"revoke" | b"rename" | b"install" | b"uninstall" | b"flush" | b"reset"
        | b"change" | b"stop" | b"purge" | b"shutdown" | b"backup" | b"binlog" | b"get"
        | b"signal" | b"resignal" => Emptied::Perhaps,
        _ if uses_tables(sql, mode) => Emptied::Yes,
        _ if may_call(sql, mode) => Emptied::Perhaps,
        _ => Emptied::No,
    }
}

/// Whether any of the statements drops a database, whose warnings MariaDB's OK does not count.
pub fn drops_database(sql: &[u8], mode: LexMode) -> bool {
    let (mut place, mut found) = (0, false);
    for token in Lexer::new(sql, mode) {
        let is = |words: &[&str]| match token {
            Token::Word(word) => words
                .iter()
                .any(|w| word.eq_ignore_ascii_case(w.as_bytes())),
            _ => false,
        };
        place = match (place, token) {
            (_, Token::Punct(b';')) => 0,
            (0, _) if is(&["drop"]) => 1,
            (1, _) if is(&["database", "schema"]) => {
                found = true;
                2
            }
            _ => 2,
        };
        // Most texts are of one statement, and need not be read to their end.
        if found || place == 2 && memchr::memchr(b';', sql).is_none() {
            break;
        }
    }
    found
}

/// Whether a statement may use a table.
fn uses_tables(sql: &[u8], mode: LexMode) -> bool {
    let mut tokens = Lexer::new(sql, mode).filter(|token| *token != Token::Punct(b'('));
    let Some(Token::Word(first)) = tokens.next() else {
        return true;
    };
    let is = |token: &Token<'_>, words: &[&str]| match token {
        Token::Word(word) => words
            .iter()
            .any(|w| word.eq_ignore_ascii_case(w.as_bytes())),
        _ => false,
    };
    match &first.to_ascii_lowercase()[..] {
        b"select" | b"do" | b"set" | b"values" | b"with" | b"explain" => loop {
            // DUAL is no table.
            match tokens.next() {
                None => return false,
                Some(token) if is(&token, &["into", "insert", "update", "replace"]) => return true,
                Some(token) if is(&token, &["from"]) => {
                    if !tokens.next().is_some_and(|next| is(&next, &["dual"])) {
                        return true;
                    }
                }
                Some(_) => {}
            }
        },
        b"show" => {
            let mut what = tokens.next();
            if what.is_some_and(|t| is(&t, &["full"])) {
                what = tokens.next();
            }
            match what {
                Some(what) if is(&what, &["create"]) => !tokens
                    .next()
                    .is_some_and(|t| is(&t, &["database", "schema"])),
                Some(what) => !is(
                    &what,
                    &[
                        "processlist",
                        "grants",
                        "privileges",
                        "profiles",
                        "profile",
                        "warnings",
                        "errors",
                        "count",
                    ],
                ),
                None => true,
            }
        }
        b"create" | b"alter" | b"drop" => !tokens
            .next()
            .is_some_and(|t| is(&t, &["database", "schema"])),
        b"use" | b"begin" | b"start" | b"commit" | b"rollback" | b"savepoint" | b"release"
        | b"xa" | b"unlock" | b"help" | b"prepare" | b"deallocate" | b"kill" => false,
        _ => true,
    }
}
