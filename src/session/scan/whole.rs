//! Statements that are nothing but something Sidepool answers or routes itself.

use super::Whole;
use super::lexer::Token;

/// What the statement is as a whole.
pub(super) fn classify_whole(tokens: &[Token<'_>]) -> Whole {
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
