//! `SET`: what it may change, and whether the same text on the same state gives the same state.

use super::Flags;
use super::lexer::{LexMode, Lexer, Token};
use super::statement::{head_flags, is_word, word_at};

pub(super) fn set_flags(tokens: &[Token<'_>]) -> Flags {
    let mut flags = Flags::SET;
    if sets_globals(tokens) {
        flags |= Flags::GLOBAL;
    }
    if without_scope(tokens).next().is_some() {
        flags |= Flags::UNTRACKED;
    }
    flags
        | match &word_at(tokens, 1).unwrap_or_default().to_ascii_lowercase()[..] {
            b"role" => Flags::ROLE,
            b"default" if is_word(tokens, 2, b"role") => Flags::ROLE,
            b"session" if is_word(tokens, 2, b"authorization") => Flags::ROLE,
            b"resource" => Flags::LOCK,
            b"password" => Flags::NONE,
            // MariaDB's SET STATEMENT … FOR stmt: the statement proper begins behind FOR.
            b"statement" => {
                let is_for =
                    |t: &Token<'_>| matches!(t, Token::Word(w) if w.eq_ignore_ascii_case(b"for"));
                let inner = tokens
                    .iter()
                    .position(is_for)
                    .map_or(&[][..], |at| &tokens[at + 1..]);
                head_flags(inner).without(Flags::PLAIN_SET)
            }
            _ if is_plain_set(&tokens[1..]) => Flags::PLAIN_SET,
            // An expression may call a function that inserts.
            _ => Flags::WRITE | Flags::INSERT,
        }
}

/// The variables that the text sets as `@@name`, without a scope, in lower case. MariaDB 10.11.19 does not report them.
pub fn set_without_scope(sql: &[u8], mode: LexMode) -> Vec<Box<[u8]>> {
    let tokens: Vec<_> = Lexer::new(sql, mode).collect();
    let names = without_scope(&tokens);
    names.map(|name| name.to_ascii_lowercase().into()).collect()
}

fn without_scope<'t>(tokens: &'t [Token<'_>]) -> impl Iterator<Item = &'t [u8]> {
    tokens.windows(3).filter_map(|three| match three {
        [
            Token::SystemVariable,
            Token::Word(name) | Token::Quoted(name),
            Token::Punct(b'=') | Token::Assign,
        ] => Some(*name),
        _ => None,
    })
}

/// Whether a `SET` of these tokens changes variables of the server.
fn sets_globals(tokens: &[Token<'_>]) -> bool {
    tokens.iter().any(|token| match token {
        Token::Word(word) => ["global", "persist", "persist_only"]
            .iter()
            .any(|scope| word.eq_ignore_ascii_case(scope.as_bytes())),
        _ => false,
    })
}

/// Whether `text` contains `word` (lower case) in any case.
pub(super) fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len())
        .any(|window| window.eq_ignore_ascii_case(word))
}

/// Whether the text behind `SET` only assigns literals to session variables.
fn is_plain_set(tokens: &[Token<'_>]) -> bool {
    tokens
        .split(|token| *token == Token::Punct(b','))
        .all(is_plain_assignment)
}

fn is_plain_assignment(tokens: &[Token<'_>]) -> bool {
    let mut rest = tokens;
    if is_word(rest, 0, b"names") {
        let collated = rest.len() == 4 && is_word(rest, 2, b"collate") && is_literal(&rest[3..]);
        return is_literal(rest.get(1..2).unwrap_or_default()) && (rest.len() == 2 || collated);
    }
    if rest.first() == Some(&Token::SystemVariable) {
        rest = &rest[1..];
        match rest {
            [Token::Word(scope), Token::Punct(b'.'), name @ ..] if is_session_scope(scope) => {
                rest = name
            }
            [Token::Word(_), Token::Punct(b'.'), ..] => return false,
            _ => {}
        }
    } else if let [Token::Word(scope), name @ ..] = rest
        && is_session_scope(scope)
    {
        rest = name;
    }
    match rest {
        [
            Token::Word(_),
            Token::Punct(b'=') | Token::Assign,
            value @ ..,
        ] => is_literal(value),
        _ => false,
    }
}

fn is_session_scope(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"session") || word.eq_ignore_ascii_case(b"local")
}

/// A value that is the same whenever it is assigned; `DEFAULT` is not: it is today's global.
fn is_literal(tokens: &[Token<'_>]) -> bool {
    match tokens {
        [Token::Str | Token::Number(_)] => true,
        [Token::Punct(b'-'), Token::Number(_)] => true,
        [Token::Number(_), Token::Punct(b'.'), Token::Number(_)] => true,
        [Token::Word(word)] => !word.eq_ignore_ascii_case(b"default"),
        _ => false,
    }
}
