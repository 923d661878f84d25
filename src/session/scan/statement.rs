//! From tokens to findings, statement by statement.

use super::calls::{has_adjacent_variable, only_reads};
use super::lexer::{LexMode, Lexer, Token};
use super::set::{contains, set_flags};
use super::stored::stored;
use super::whole::classify_whole;
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
        b"update" | b"delete" | b"truncate" | b"with" => Some(Flags::WRITE),
        b"insert" | b"replace" | b"load" => Some(Flags::WRITE | Flags::INSERT),
        _ => None,
    }
}

/// Reads all of the text.
pub(super) fn classify(sql: &[u8], mode: LexMode) -> Findings {
    let mut lexer = Lexer::new(sql, mode);
    let (mut tokens, mut edges) = (Vec::new(), Vec::new());
    while let Some(token) = lexer.next() {
        if lexer.is_behind_edge() {
            edges.push(tokens.len());
        }
        tokens.push(token);
    }
    let calls = match edges.is_empty() {
        true => Calls::Shown,
        // What stands between a name and its parenthesis may not be there for the server.
        false => Calls::Doubtful,
    };
    let mut findings = classify_all(sql, &tokens, calls);
    if !edges.is_empty() {
        // Any of them may be the first that the server sees.
        for edge in edges {
            findings.flags |= head_behind_edge(&tokens[edge..]);
        }
        findings.flags = findings.flags.without(Flags::PLAIN_SET | Flags::LOOKS_BACK);
        findings.whole = Whole::Ordinary;
    }
    if lexer.is_in_doubt() {
        findings.flags |= Flags::ROUTINE | ANYTHING;
    }
    findings
}

/// What a statement that begins here tells, but for `/*!32312 IF NOT EXISTS*/` and the like.
fn head_behind_edge(tokens: &[Token<'_>]) -> Flags {
    if is_word(tokens, 0, b"if") && (is_word(tokens, 1, b"not") || is_word(tokens, 1, b"exists")) {
        return Flags::NONE;
    }
    head_flags(tokens)
}

/// Whether it is certain which names are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    /// Those with a parenthesis behind them.
    Shown,
    /// Perhaps any.
    Doubtful,
}

fn classify_all(sql: &[u8], tokens: &[Token<'_>], calls: Calls) -> Findings {
    if let Some(end) = stored(tokens) {
        let behind = classify_all(sql, &tokens[end..], calls);
        let mut flags = behind.flags.without(Flags::PLAIN_SET | Flags::LOOKS_BACK) | ANYTHING;
        if tokens[end..]
            .iter()
            .any(|token| *token != Token::Punct(b';'))
        {
            flags |= Flags::MULTI;
        }
        return Findings {
            flags,
            whole: Whole::Ordinary,
        };
    }
    let mut statements = tokens
        .split(|token| *token == Token::Punct(b';'))
        .filter(|statement| !statement.is_empty());
    let Some(first) = statements.next() else {
        return Findings::default();
    };
    let mut flags = classify_one(first, calls);
    let mut whole = classify_whole(first);
    let mut selected = is_select(first);
    for statement in statements {
        // What these count is a statement in front of theirs, which runs where they do.
        let mut counted = Flags::ROW_COUNT;
        if selected {
            counted |= Flags::FOUND_ROWS;
        }
        selected |= is_select(statement);
        let later = classify_one(statement, calls).without(Flags::PLAIN_SET | counted);
        flags = flags.without(Flags::PLAIN_SET) | later;
        flags |= Flags::MULTI;
        whole = Whole::Ordinary;
    }
    if flags.any(Flags::MULTI) {
        flags = flags.without(Flags::LOOKS_BACK);
    }
    // `optimizer_switch='default'` is today's global, as the keyword is.
    if flags.any(Flags::PLAIN_SET) && contains(sql, b"default") {
        flags = flags.without(Flags::PLAIN_SET);
    }
    if flags.any(Flags::SESSION_TRACK | Flags::ALL_VARIABLES)
        && (flags.any(Flags::MULTI) || !only_reads(first))
    {
        flags |= Flags::CODE;
    }
    Findings { flags, whole }
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
            Token::UserVariable(_) => out.push_str("@?"),
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

fn is_select(tokens: &[Token<'_>]) -> bool {
    matches!(tokens, [Token::Word(word), ..] if word.eq_ignore_ascii_case(b"select"))
}

fn classify_one(tokens: &[Token<'_>], calls: Calls) -> Flags {
    let mut flags = Flags::NONE;
    for (at, token) in tokens.iter().enumerate() {
        flags |= match token {
            Token::Word(word) | Token::Quoted(word) => {
                let found = word_flags(word);
                match found == Flags::NONE || calls == Calls::Doubtful {
                    true => found,
                    false => found.without(unmeant(tokens, at)),
                }
            }
            Token::UserVariable(_) => Flags::USER_VARIABLE,
            _ => Flags::NONE,
        };
    }
    if has_adjacent_variable(tokens) {
        flags |= Flags::USER_VARIABLE;
    }
    if changes_privileges(tokens) {
        flags |= Flags::PRIVILEGES;
    }
    let head = head_flags(tokens);
    if flags != Flags::NONE {
        return flags | head.without(Flags::PLAIN_SET);
    }
    head
}

/// Whether the statement may change accounts, roles or privileges: by statements of their own, or by
/// writing to the server's tables of them.
fn changes_privileges(tokens: &[Token<'_>]) -> bool {
    let first = word_at(tokens, 0).unwrap_or_default().to_ascii_lowercase();
    let about_accounts = || has_word(tokens, b"user") || has_word(tokens, b"role");
    match &first[..] {
        b"grant" | b"revoke" => true,
        b"create" | b"alter" | b"drop" | b"rename" => about_accounts(),
        b"set" => is_word(tokens, 1, b"password") || is_word(tokens, 2, b"role"),
        b"flush" => has_word(tokens, b"privileges"),
        b"select" | b"show" | b"desc" | b"describe" | b"explain" | b"use" => false,
        _ => tokens.windows(2).any(|pair| match pair {
            [Token::Word(name) | Token::Quoted(name), Token::Punct(b'.')] => {
                name.eq_ignore_ascii_case(b"mysql")
            }
            _ => false,
        }),
    }
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
        | b"version_tokens_lock_exclusive" => Flags::LOCK,
        b"lastval" | b"previous" => Flags::LOCK | Flags::LASTVAL,
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

/// What the word there does not tell, because it is a mere name: of a column, an alias.
fn unmeant(tokens: &[Token<'_>], at: usize) -> Flags {
    const CALLED: Flags =
        Flags(Flags::ROW_COUNT.0 | Flags::FOUND_ROWS.0 | Flags::LOCK.0 | Flags::LASTVAL.0);
    let is = |at: Option<usize>, token| at.is_some_and(|at| tokens.get(at) == Some(&token));
    let before = |steps| at.checked_sub(steps);
    // `@@name` or `@@session.name`.
    let variable = is(before(1), Token::SystemVariable)
        || is(before(1), Token::Punct(b'.')) && is(before(3), Token::SystemVariable);
    let called = is(Some(at + 1), Token::Punct(b'('))
        || has_word(tokens, b"diagnostics")
        || is_word(tokens, at, b"previous") && is_word(tokens, at + 1, b"value");
    let mut unmeant = Flags::NONE;
    if !called {
        unmeant |= CALLED;
        if !is_word(tokens, at, b"pseudo_thread_id") {
            unmeant |= Flags::CONNECTION_ID;
        }
    }
    if !variable {
        unmeant |= Flags::DIAGNOSTICS;
    }
    unmeant
}

/// What a statement may do that is not known to be harmless.
const ANYTHING: Flags = Flags(Flags::WRITE.0 | Flags::INSERT.0);

/// What the statement's first words tell.
pub(super) fn head_flags(tokens: &[Token<'_>]) -> Flags {
    let Some(first) = word_at(tokens, 0) else {
        // `<<label>>` of MariaDB's Oracle mode.
        return match tokens.first() {
            Some(Token::Punct(b'<')) => Flags::ROUTINE | ANYTHING,
            _ => ANYTHING,
        };
    };
    if tokens.get(1) == Some(&Token::Punct(b':')) {
        return Flags::ROUTINE | ANYTHING;
    }
    match &first.to_ascii_lowercase()[..] {
        b"select" | b"table" | b"values" | b"desc" | b"describe" | b"explain" | b"use"
        | b"start" | b"release" | b"help" | b"unlock" => Flags::NONE,
        b"xa" => Flags::XA,
        b"commit" => Flags::END_TRANSACTION,
        b"rollback" if has_word(tokens, b"to") => Flags::NONE,
        b"rollback" => Flags::END_TRANSACTION,
        b"drop" if is_word(tokens, 1, b"prepare") => Flags::PREPARE,
        b"update" | b"delete" | b"truncate" | b"alter" | b"drop" | b"with" => Flags::WRITE,
        b"show" => show_flags(tokens),
        b"set" => set_flags(tokens),
        // NOT ATOMIC, and anything else in MariaDB's Oracle mode.
        b"begin" if tokens.len() > 1 && !is_word(tokens, 1, b"work") => Flags::ROUTINE | ANYTHING,
        b"begin" => Flags::NONE,
        b"binlog" | b"call" | b"if" | b"case" | b"loop" | b"while" | b"repeat" | b"for"
        | b"declare" => Flags::ROUTINE | ANYTHING,
        b"execute" => Flags::PREPARE | Flags::ROUTINE | ANYTHING,
        b"prepare" | b"deallocate" => Flags::PREPARE,
        b"create" if has_word(tokens, b"temporary") => Flags::TEMPORARY | ANYTHING,
        b"handler" => Flags::HANDLER,
        b"lock" if is_word(tokens, 1, b"instance") || is_word(tokens, 1, b"binlog") => Flags::LOCK,
        // Percona's backup lock, which no tracker shows.
        b"lock" if is_word(tokens, 2, b"for") => Flags::LOCK | Flags::LOCK_TABLES,
        b"lock" => Flags::LOCK_TABLES,
        b"backup" => Flags::LOCK,
        b"flush" if has_word(tokens, b"lock") || has_word(tokens, b"export") => Flags::LOCK,
        // What assigns nothing is a syntax error, which is the server's to tell.
        b"get" if tokens.contains(&Token::Punct(b'=')) => Flags::DIAGNOSTICS | Flags::LOOKS_BACK,
        b"savepoint" => Flags::SAVEPOINT,
        _ => ANYTHING,
    }
}

fn show_flags(tokens: &[Token<'_>]) -> Flags {
    let mut flags = Flags::NONE;
    if [&b"warnings"[..], b"errors", b"count"]
        .iter()
        .any(|what| is_word(tokens, 1, what))
    {
        flags |= Flags::DIAGNOSTICS | Flags::LOOKS_BACK;
    }
    if has_word(tokens, b"variables") {
        flags |= Flags::ALL_VARIABLES;
    }
    flags
}

pub(super) fn word_at<'a>(tokens: &[Token<'a>], at: usize) -> Option<&'a [u8]> {
    match tokens.get(at) {
        Some(Token::Word(word)) => Some(word),
        _ => None,
    }
}

pub(super) fn is_word(tokens: &[Token<'_>], at: usize, word: &[u8]) -> bool {
    word_at(tokens, at).is_some_and(|found| found.eq_ignore_ascii_case(word))
}

pub(super) fn has_word(tokens: &[Token<'_>], word: &[u8]) -> bool {
    (0..tokens.len()).any(|at| is_word(tokens, at, word))
}
