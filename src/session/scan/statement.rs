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
    let mut lexer = Lexer::new(sql, mode);
    let (mut tokens, mut edges) = (Vec::new(), Vec::new());
    while let Some(token) = lexer.next() {
        if lexer.is_behind_edge() {
            edges.push(tokens.len());
        }
        tokens.push(token);
    }
    let mut findings = classify_all(sql, &tokens);
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

fn classify_all(sql: &[u8], tokens: &[Token<'_>]) -> Findings {
    let mut statements = tokens
        .split(|token| *token == Token::Punct(b';'))
        .filter(|statement| !statement.is_empty());
    let Some(first) = statements.next() else {
        return Findings::default();
    };
    let mut flags = classify_one(first);
    let mut whole = classify_whole(first);
    let mut selected = is_select(first);
    for statement in statements {
        // What these count is a statement in front of theirs, which runs where they do.
        let mut counted = Flags::ROW_COUNT;
        if selected {
            counted |= Flags::FOUND_ROWS;
        }
        selected |= is_select(statement);
        let later = classify_one(statement).without(Flags::PLAIN_SET | counted);
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
        b"alter" => !tokens
            .next()
            .is_some_and(|t| is(&t, &["database", "schema"])),
        b"use" | b"begin" | b"start" | b"commit" | b"rollback" | b"savepoint" | b"release"
        | b"xa" | b"unlock" | b"help" | b"prepare" | b"deallocate" | b"kill" => false,
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

fn is_select(tokens: &[Token<'_>]) -> bool {
    matches!(tokens, [Token::Word(word), ..] if word.eq_ignore_ascii_case(b"select"))
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
    if has_adjacent_variable(tokens) {
        flags |= Flags::USER_VARIABLE;
    }
    let head = head_flags(tokens);
    if flags != Flags::NONE {
        return flags | head.without(Flags::PLAIN_SET);
    }
    head
}

/// Whether a sign directly behind a name or string, as in `SELECT@a`, is a user variable's. In
/// statements about accounts it is so behind a keyword only.
fn has_adjacent_variable(tokens: &[Token<'_>]) -> bool {
    const KEYWORDS: &[&str] = &[
        "select", "set", "where", "and", "or", "xor", "not", "in", "by", "having", "on", "then",
        "when", "else", "case", "between", "like", "regexp", "rlike", "is", "as", "into", "values",
        "value", "limit", "offset", "distinct", "all", "return", "using", "div", "mod", "binary",
        "from", "interval", "do", "call",
    ];
    let of_accounts = match word_at(tokens, 0).unwrap_or_default().to_ascii_lowercase()[..] {
        [] => false,
        ref head => match head {
            b"create" | b"alter" | b"drop" | b"grant" | b"revoke" | b"rename" | b"show"
            | b"kill" => true,
            b"set" => is_word(tokens, 1, b"password") || is_word(tokens, 1, b"default"),
            _ => false,
        },
    };
    tokens.windows(2).any(|pair| match pair {
        [Token::Word(word), Token::Punct(b'@')] => {
            let keyword = KEYWORDS
                .iter()
                .any(|known| word.eq_ignore_ascii_case(known.as_bytes()));
            keyword || !of_accounts
        }
        [_, Token::Punct(b'@')] => !of_accounts,
        _ => false,
    })
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

/// What a statement may do that is not known to be harmless.
const ANYTHING: Flags = Flags(Flags::WRITE.0 | Flags::INSERT.0);

/// What the statement's first words tell.
fn head_flags(tokens: &[Token<'_>]) -> Flags {
    let Some(first) = word_at(tokens, 0) else {
        return ANYTHING;
    };
    match &first.to_ascii_lowercase()[..] {
        b"select" | b"table" | b"values" | b"desc" | b"describe" | b"explain" | b"use"
        | b"start" | b"release" | b"help" | b"unlock" => Flags::NONE,
        b"xa" => Flags::XA,
        b"commit" => Flags::END_TRANSACTION,
        b"rollback" if has_word(tokens, b"to") => Flags::NONE,
        b"rollback" => Flags::END_TRANSACTION,
        b"update" | b"delete" | b"truncate" | b"alter" | b"drop" | b"with" => Flags::WRITE,
        b"show" => show_flags(tokens),
        b"set" => set_flags(tokens),
        b"begin" if tokens.len() > 1 && is_word(tokens, 1, b"not") => Flags::ROUTINE | ANYTHING,
        b"begin" => Flags::NONE,
        b"binlog" | b"call" | b"if" | b"case" | b"loop" | b"while" | b"repeat" | b"for"
        | b"declare" => Flags::ROUTINE | ANYTHING,
        b"execute" => Flags::PREPARE | Flags::ROUTINE | ANYTHING,
        b"prepare" | b"deallocate" => Flags::PREPARE,
        b"create" if has_word(tokens, b"temporary") => Flags::TEMPORARY | ANYTHING,
        b"handler" => Flags::HANDLER,
        b"lock" if is_word(tokens, 1, b"instance") => Flags::LOCK,
        b"lock" => Flags::LOCK_TABLES,
        b"backup" => Flags::LOCK,
        b"flush" if has_word(tokens, b"lock") || has_word(tokens, b"export") => Flags::LOCK,
        b"get" => Flags::DIAGNOSTICS | Flags::LOOKS_BACK,
        b"savepoint" => Flags::SAVEPOINT,
        _ => ANYTHING,
    }
}

/// Whether the statement reads and shows, and calls no function that is not known to do just that.
fn only_reads(tokens: &[Token<'_>]) -> bool {
    let first = word_at(tokens, 0).unwrap_or_default();
    let reads = [&b"select"[..], b"show"]
        .iter()
        .any(|head| first.eq_ignore_ascii_case(head));
    let calls_unknown = tokens.windows(2).any(|pair| match pair {
        [Token::Word(word), Token::Punct(b'(')] => !is_harmless_call(word),
        [Token::Quoted(_), Token::Punct(b'(')] => true,
        _ => false,
    });
    reads && !calls_unknown && !has_word(tokens, b"into")
}

/// Keywords that a parenthesis may follow, and functions of both servers without effects.
fn is_harmless_call(word: &[u8]) -> bool {
    const WORDS: &[&str] = &[
        "select",
        "where",
        "in",
        "and",
        "or",
        "not",
        "like",
        "on",
        "as",
        "from",
        "any",
        "all",
        "exists",
        "by",
        "when",
        "then",
        "else",
        "values",
        "concat",
        "concat_ws",
        "lower",
        "upper",
        "lcase",
        "ucase",
        "cast",
        "convert",
        "count",
        "min",
        "max",
        "if",
        "ifnull",
        "nullif",
        "coalesce",
        "substring",
        "substr",
        "left",
        "right",
        "replace",
        "length",
        "char_length",
        "hex",
        "version",
        "database",
        "schema",
        "user",
        "current_user",
        "now",
        "trim",
        "find_in_set",
        "group_concat",
        "json_object",
        "json_array",
    ];
    WORDS
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
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

fn set_flags(tokens: &[Token<'_>]) -> Flags {
    let scope = match sets_globals(tokens) {
        true => Flags::SET | Flags::GLOBAL,
        false => Flags::SET,
    };
    scope
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
fn contains(text: &[u8], word: &[u8]) -> bool {
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
        [
            Token::Word(select),
            Token::Word(function),
            Token::Punct(b'('),
            Token::Punct(b')'),
        ] if select.eq_ignore_ascii_case(b"select")
            && function.eq_ignore_ascii_case(b"row_count") =>
        {
            Whole::RowCount
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
