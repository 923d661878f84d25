//! What stands within a statement besides its words: calls of functions, variables in odd places.

use super::lexer::{LexMode, Lexer, Token};
use super::statement::{has_word, is_word, word_at};

/// Whether the statement reads and shows, and calls no function that is not known to do just that.
pub(super) fn only_reads(tokens: &[Token<'_>]) -> bool {
    let first = word_at(tokens, 0).unwrap_or_default();
    let reads = [&b"select"[..], b"show"]
        .iter()
        .any(|head| first.eq_ignore_ascii_case(head));
    let calls = tokens
        .windows(2)
        .any(|pair| calls_unknown(pair[0], pair[1]));
    reads && !calls && !has_word(tokens, b"into")
}

/// Whether the text may call a stored function.
pub fn may_call(sql: &[u8], mode: LexMode) -> bool {
    let mut last = Token::Punct(b';');
    Lexer::new(sql, mode).any(|token| calls_unknown(std::mem::replace(&mut last, token), token))
}

fn calls_unknown(name: Token<'_>, next: Token<'_>) -> bool {
    match (name, next) {
        (Token::Word(word), Token::Punct(b'(')) => !is_harmless_call(word),
        (Token::Quoted(_), Token::Punct(b'(')) => true,
        _ => false,
    }
}

/// Keywords that a parenthesis may follow, and functions of both servers without effects.
const HARMLESS: &str = "\
    select where in and or not like on as from any all exists by when then else values concat \
    concat_ws lower upper lcase ucase cast convert count min max if ifnull nullif coalesce \
    substring substr left right replace length char_length hex version database schema user \
    current_user now trim find_in_set group_concat json_object json_array sum avg date year month \
    day round floor abs unix_timestamp from_unixtime date_format date_add date_sub distinct between \
    join using over partition union";

pub(super) fn is_harmless_call(word: &[u8]) -> bool {
    let mut words = HARMLESS.split_ascii_whitespace();
    words.any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
}

/// Whether a sign directly behind a name or string, as in `SELECT@a`, is a user variable's. In
/// statements about accounts it is so behind a keyword only.
pub(super) fn has_adjacent_variable(tokens: &[Token<'_>]) -> bool {
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
