//! The diagnostics area: which statements empty it.

use super::lexer::{LexMode, Lexer, Token};

/// Whether a statement may use a table; on MariaDB only such a statement empties the diagnostics
/// area (measured on 10.11).
pub fn uses_tables(sql: &[u8], mode: LexMode) -> bool {
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
        b"create" | b"alter" => !tokens
            .next()
            .is_some_and(|t| is(&t, &["database", "schema"])),
        b"use" | b"begin" | b"start" | b"commit" | b"rollback" | b"savepoint" | b"release"
        | b"xa" | b"unlock" | b"help" | b"prepare" | b"deallocate" | b"kill" => false,
        _ => true,
    }
}
