//! Statements that are nothing but something Sidepool answers or routes itself.

use super::lexer::Token;
use super::{Part, Whole};

/// What the statement is as a whole.
pub(super) fn classify_whole(tokens: &[Token<'_>]) -> Whole {
    let Some((Token::Word(first), rest)) = tokens.split_first() else {
        return Whole::Ordinary;
    };
    match &first.to_ascii_lowercase()[..] {
        b"show" => classify_show(rest),
        b"select" => classify_select(rest),
        b"call" => Whole::Call,
        b"kill" => classify_kill(rest),
        _ => Whole::Ordinary,
    }
}

fn classify_show(tokens: &[Token<'_>]) -> Whole {
    let lower = |word: &[u8]| word.to_ascii_lowercase();
    match tokens {
        [Token::Word(what)] => match &lower(what)[..] {
            b"warnings" => Whole::ShowWarnings,
            b"errors" => Whole::ShowErrors,
            _ => Whole::Ordinary,
        },
        [
            Token::Word(count),
            Token::Punct(b'('),
            Token::Punct(b'*'),
            Token::Punct(b')'),
            Token::Word(what),
        ] if count.eq_ignore_ascii_case(b"count") => match &lower(what)[..] {
            b"warnings" => Whole::CountWarnings,
            b"errors" => Whole::CountErrors,
            _ => Whole::Ordinary,
        },
        [Token::Word(what), Token::Word(limit), part @ ..]
            if limit.eq_ignore_ascii_case(b"limit") =>
        {
            match (&lower(what)[..], limited(part)) {
                (b"warnings", Some(part)) => Whole::SomeWarnings(part),
                (b"errors", Some(part)) => Whole::SomeErrors(part),
                _ => Whole::Ordinary,
            }
        }
        _ => Whole::Ordinary,
    }
}

/// `count`, `skip, count`, `count OFFSET skip`
fn limited(tokens: &[Token<'_>]) -> Option<Part> {
    let number = |token: &Token<'_>| match token {
        Token::Number(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    };
    let (skip, count) = match tokens {
        [count] => (0, number(count)?),
        [skip, Token::Punct(b','), count] => (number(skip)?, number(count)?),
        [count, Token::Word(offset), skip] if offset.eq_ignore_ascii_case(b"offset") => {
            (number(skip)?, number(count)?)
        }
        _ => return None,
    };
    Some(Part { skip, count })
}

fn classify_select(tokens: &[Token<'_>]) -> Whole {
    match tokens {
        [
            Token::Word(function),
            Token::Punct(b'('),
            Token::Punct(b')'),
            name @ ..,
        ] if name.is_empty() || alias(name).is_some() => match &function.to_ascii_lowercase()[..] {
            b"row_count" => Whole::RowCount,
            b"found_rows" => Whole::FoundRows,
            b"connection_id" => Whole::ConnectionId,
            _ => Whole::Ordinary,
        },
        [
            Token::SystemVariable,
            Token::Word(scope),
            Token::Punct(b'.'),
            rest @ ..,
        ] if ["session", "local"]
            .iter()
            .any(|s| scope.eq_ignore_ascii_case(s.as_bytes())) =>
        {
            classify_variable(rest)
        }
        [Token::SystemVariable, rest @ ..] => classify_variable(rest),
        _ => Whole::Ordinary,
    }
}

fn classify_variable(tokens: &[Token<'_>]) -> Whole {
    match tokens {
        [Token::Word(variable), name @ ..] if name.is_empty() || alias(name).is_some() => {
            match &variable.to_ascii_lowercase()[..] {
                b"warning_count" => Whole::WarningCount,
                b"error_count" => Whole::ErrorCount,
                b"pseudo_thread_id" => Whole::ThreadId,
                _ => Whole::Ordinary,
            }
        }
        _ => Whole::Ordinary,
    }
}

/// The name that ends a selected expression, if the servers take it as it is written: a plain one in
/// backticks, or one of a few words that no server reserves.
pub fn alias<'a>(tokens: &[Token<'a>]) -> Option<&'a [u8]> {
    const WORDS: &[&str] = &[
        "id",
        "cid",
        "conn_id",
        "connection_id",
        "connectionid",
        "thread_id",
        "threadid",
        "pid",
        "n",
        "cnt",
        "total",
        "row_count",
        "found_rows",
        "warning_count",
        "error_count",
        "found",
    ];
    let name = match tokens {
        [Token::Word(word), name] if word.eq_ignore_ascii_case(b"as") => name,
        [name] => name,
        _ => return None,
    };
    match name {
        Token::Word(word) => {
            let known = |known: &&str| word.eq_ignore_ascii_case(known.as_bytes());
            WORDS.iter().any(known).then_some(*word)
        }
        Token::Quoted(name) if !name.ends_with(b" ") && !name.starts_with(b" ") => {
            super::deeds::plain(name)
        }
        _ => None,
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
    let number = |digits| std::str::from_utf8(digits).ok()?.parse().ok();
    let id = match rest {
        [Token::Number(digits)] => number(digits),
        // Drivers that keep the greeting's id in a signed number of 32 bits (MariaDB Connector/J 2.7.6) cancel
        // with what they took it for.
        [Token::Punct(b'-'), Token::Number(digits)] => number(digits)
            .and_then(|id: u64| i32::try_from(id.wrapping_neg().cast_signed()).ok())
            .map(|id| u64::from(id.cast_unsigned())),
        _ => None,
    };
    id.map_or(Whole::Ordinary, |id| Whole::Kill { id, query })
}
