//! From tokens to findings, statement by statement.

use super::lexer::{LexMode, Lexer, Token};
use super::{Findings, Flags, Whole};

/// What a statement's first word tells when nothing alarming is in the text; `None` when the first
/// word alone is alarming or unknown.
pub(super) fn plain_kind(word: &[u8]) -> Option<Flags> {
    // The longest of these words has eight letters.
    let mut lower = [0; 8];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    match &*lower {
        b"select" | b"show" | b"begin" | b"use" | b"desc" | b"describe" | b"explain" => {
            Some(Flags::NONE)
        }
        b"commit" => Some(Flags::END_TRANSACTION),
        b"update" | b"delete" | b"truncate" | b"create" | b"alter" | b"drop" | b"with" => {
            Some(Flags::WRITE)
        }
        b"insert" | b"replace" | b"load" => Some(Flags::WRITE | Flags::INSERT),
        _ => None,
    }
}

/// Reads all of the text.
pub(super) fn classify(sql: &[u8], mode: LexMode) -> Findings {
    let tokens: Vec<Token<'_>> = Lexer::new(sql, mode).collect();
    let mut statements = tokens
        .split(|token| *token == Token::Punct(b';'))
        .filter(|statement| !statement.is_empty());
    let Some(first) = statements.next() else {
        return Findings::default();
    };
    let mut flags = classify_one(first);
    let mut whole = classify_whole(first);
    for statement in statements {
        flags = flags.without(Flags::PLAIN_SET) | classify_one(statement).without(Flags::PLAIN_SET);
        flags |= Flags::MULTI;
        whole = Whole::Ordinary;
    }
    Findings { flags, whole }
}

/// Whether a statement may use a table; on MariaDB only such a statement empties the diagnostics
/// area (measured on 10.11).
pub fn uses_tables(sql: &[u8], mode: LexMode) -> bool {
    let tokens: Vec<Token<'_>> = Lexer::new(sql, mode).collect();
    let first = word_at(&tokens, 0).unwrap_or_default().to_ascii_lowercase();
    match &first[..] {
        b"select" | b"do" | b"set" | b"values" => has_word(&tokens, b"from"),
        b"use" | b"begin" | b"start" | b"commit" | b"rollback" | b"savepoint" | b"release" => false,
        _ => true,
    }
}

/// The statement without its literals and comments, cut to 200 characters: fit for a log.
pub fn digest(sql: &[u8], mode: LexMode) -> String {
    const MAX: usize = 200;
    let mut out = String::new();
    for token in Lexer::new(sql, mode) {
        if !out.is_empty() {
            out.push(' ');
        }
        match token {
            Token::Word(word) => out.push_str(&String::from_utf8_lossy(word)),
            Token::Quoted(name) => {
                out.push('`');
                out.push_str(&String::from_utf8_lossy(name));
                out.push('`');
            }
            Token::Str | Token::Number(_) => out.push('?'),
            Token::UserVariable => out.push_str("@?"),
            Token::SystemVariable => out.push_str("@@"),
            Token::Assign => out.push_str(":="),
            Token::Punct(byte) => out.push(char::from(byte)),
        }
        if out.chars().count() > MAX {
            return out.chars().take(MAX).chain(['…']).collect();
        }
    }
    out
}

fn classify_one(tokens: &[Token<'_>]) -> Flags {
    let mut flags = Flags::NONE;
    for token in tokens {
        flags |= match token {
            Token::Word(word) | Token::Quoted(word) => word_flags(word),
            Token::UserVariable => Flags::USER_VARIABLE,
            _ => Flags::NONE,
        };
    }
    let head = head_flags(tokens);
    if flags != Flags::NONE {
        return flags | head.without(Flags::PLAIN_SET);
    }
    head
}

/// What a word tells wherever it stands.
fn word_flags(word: &[u8]) -> Flags {
    // The shortest word below has seven letters; most words of a statement end here.
    if word.len() < 7 {
        return Flags::NONE;
    }
    let lower = word.to_ascii_lowercase();
    match &lower[..] {
        b"get_lock"
        | b"service_get_read_locks"
        | b"service_get_write_locks"
        | b"version_tokens_lock_shared"
        | b"version_tokens_lock_exclusive"
        | b"lastval"
        | b"previous" => Flags::LOCK,
        b"row_count" => Flags::ROW_COUNT,
        b"found_rows" => Flags::FOUND_ROWS,
        b"sql_calc_found_rows" => Flags::CALC_FOUND_ROWS,
        b"last_insert_id" | b"identity" => Flags::LAST_INSERT_ID,
        b"connection_id" | b"pseudo_thread_id" => Flags::CONNECTION_ID,
        b"warning_count" | b"error_count" => Flags::DIAGNOSTICS,
        b"wait_timeout" | b"interactive_timeout" => Flags::TIMEOUT_VARIABLE,
        b"session_variables" | b"system_variables" | b"variables_by_thread" | b"variables_info" => {
            Flags::ALL_VARIABLES
        }
        _ if lower.starts_with(b"session_track") => Flags::SESSION_TRACK,
        _ => Flags::NONE,
    }
}

/// What a statement may do that is not known to be harmless.
const ANYTHING: Flags = Flags(Flags::WRITE.0 | Flags::INSERT.0);

/// What the statement's first words tell.
fn head_flags(tokens: &[Token<'_>]) -> Flags {
    let Some(first) = word_at(tokens, 0) else {
        return ANYTHING;
    };
    match &first.to_ascii_lowercase()[..] {
        b"select" | b"table" | b"values" | b"desc" | b"describe" | b"explain" | b"use"
        | b"start" | b"release" | b"help" | b"unlock" | b"xa" => Flags::NONE,
        b"commit" => Flags::END_TRANSACTION,
        b"rollback" if has_word(tokens, b"to") => Flags::NONE,
        b"rollback" => Flags::END_TRANSACTION,
        b"update" | b"delete" | b"truncate" | b"alter" | b"drop" | b"with" => Flags::WRITE,
        b"show" => show_flags(tokens),
        b"set" => set_flags(tokens),
        b"begin" if tokens.len() > 1 && is_word(tokens, 1, b"not") => Flags::ROUTINE | ANYTHING,
        b"begin" => Flags::NONE,
        b"call" | b"if" | b"case" | b"loop" | b"while" | b"repeat" | b"for" | b"declare" => {
            Flags::ROUTINE | ANYTHING
        }
        b"execute" => Flags::PREPARE | Flags::ROUTINE | ANYTHING,
        b"prepare" | b"deallocate" => Flags::PREPARE,
        b"create" if has_word(tokens, b"temporary") => Flags::TEMPORARY | ANYTHING,
        b"handler" => Flags::HANDLER,
        b"lock" if is_word(tokens, 1, b"instance") => Flags::LOCK,
        b"lock" => Flags::LOCK_TABLES,
        b"backup" => Flags::LOCK,
        b"flush" if has_word(tokens, b"lock") || has_word(tokens, b"export") => Flags::LOCK,
        b"get" => Flags::DIAGNOSTICS,
        b"savepoint" => Flags::SAVEPOINT,
        _ => ANYTHING,
    }
}

fn show_flags(tokens: &[Token<'_>]) -> Flags {
    let mut flags = Flags::NONE;
    if has_word(tokens, b"warnings") || has_word(tokens, b"errors") {
        flags |= Flags::DIAGNOSTICS;
    }
    if has_word(tokens, b"variables") {
        flags |= Flags::ALL_VARIABLES;
    }
    flags
}

fn set_flags(tokens: &[Token<'_>]) -> Flags {
    Flags::SET
        | match &word_at(tokens, 1).unwrap_or_default().to_ascii_lowercase()[..] {
            b"role" => Flags::ROLE,
            b"default" if is_word(tokens, 2, b"role") => Flags::ROLE,
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

/// What the statement is as a whole.
fn classify_whole(tokens: &[Token<'_>]) -> Whole {
    match tokens {
        [Token::Word(show), Token::Word(what)] if show.eq_ignore_ascii_case(b"show") => {
            if what.eq_ignore_ascii_case(b"warnings") {
                Whole::ShowWarnings
            } else if what.eq_ignore_ascii_case(b"errors") {
                Whole::ShowErrors
            } else {
                Whole::Ordinary
            }
        }
        [
            Token::Word(show),
            Token::Word(count),
            Token::Punct(b'('),
            Token::Punct(b'*'),
            Token::Punct(b')'),
            Token::Word(what),
        ] if show.eq_ignore_ascii_case(b"show") && count.eq_ignore_ascii_case(b"count") => {
            if what.eq_ignore_ascii_case(b"warnings") {
                Whole::CountWarnings
            } else if what.eq_ignore_ascii_case(b"errors") {
                Whole::CountErrors
            } else {
                Whole::Ordinary
            }
        }
        [Token::Word(kill), rest @ ..] if kill.eq_ignore_ascii_case(b"kill") => classify_kill(rest),
        _ => Whole::Ordinary,
    }
}

fn classify_kill(mut rest: &[Token<'_>]) -> Whole {
    let mut query = false;
    while let [Token::Word(word), more @ ..] = rest {
        query |= word.eq_ignore_ascii_case(b"query");
        let known = [&b"hard"[..], b"soft", b"connection", b"query"];
        if !known.iter().any(|k| word.eq_ignore_ascii_case(k)) {
            return Whole::Ordinary;
        }
        rest = more;
    }
    let [Token::Number(digits)] = rest else {
        return Whole::Ordinary;
    };
    match std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
    {
        Some(id) => Whole::Kill { id, query },
        None => Whole::Ordinary,
    }
}

fn word_at<'a>(tokens: &[Token<'a>], at: usize) -> Option<&'a [u8]> {
    match tokens.get(at) {
        Some(Token::Word(word)) => Some(word),
        _ => None,
    }
}

fn is_word(tokens: &[Token<'_>], at: usize, word: &[u8]) -> bool {
    word_at(tokens, at).is_some_and(|found| found.eq_ignore_ascii_case(word))
}

fn has_word(tokens: &[Token<'_>], word: &[u8]) -> bool {
    (0..tokens.len()).any(|at| is_word(tokens, at, word))
}
