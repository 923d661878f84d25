//! What stands within a statement besides its words: calls of functions, variables in odd places.

use super::lexer::Token;
use super::statement::{has_word, is_word, word_at};

/// Whether the statement reads and shows, and calls no function that is not known to do just that.
pub(super) fn only_reads(tokens: &[Token<'_>]) -> bool {
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
