//! What stands within a statement besides its words: calls of functions, variables in odd places.

use super::lexer::{LexMode, Lexer, Token};
use super::statement::{has_word, is_word, word_at};

/// Whether the statement reads and shows, and calls no function that is not known to do just that.
pub(super) fn only_reads(tokens: &[Token<'_>]) -> bool {
    let first = word_at(tokens, 0).unwrap_or_default();
    let reads = [&b"select"[..], b"show"]
        .iter()
        .any(|head| first.eq_ignore_ascii_case(head));
    reads && !calls_unknown(tokens) && !has_word(tokens, b"into")
}

/// Whether the text may call a stored function.
pub fn may_call(sql: &[u8], mode: LexMode) -> bool {
    let mut last = [Token::Punct(b';'); 3];
    Lexer::new(sql, mode).any(|token| {
        last = [last[1], last[2], token];
        is_unknown_call(last)
    })
}

/// Whether a statement calls what is not known to be the server's own function, or hides a call in quotes.
pub(super) fn calls_unknown(tokens: &[Token<'_>]) -> bool {
    let mut last = [Token::Punct(b';'); 3];
    tokens.iter().any(|&token| {
        last = [last[1], last[2], token];
        is_unknown_call(last)
    })
}

/// Whether the last of three tokens opens such a call. `app.now()` is the database's.
fn is_unknown_call(last: [Token<'_>; 3]) -> bool {
    match last {
        [before, Token::Word(word), Token::Punct(b'(')] => {
            before == Token::Punct(b'.') || !is_harmless_call(word)
        }
        [_, Token::Quoted(_), Token::Punct(b'(')] => true,
        _ => false,
    }
}

/// Keywords that a parenthesis may follow, and functions of both servers that change nothing but what is
/// looked after elsewhere.
const HARMLESS: &str = "\
    select from join on using where in and or xor not like any some all exists by having between when \
    then else case limit as over partition union except intersect values row into set distinct \
    unsigned signed char binary decimal interval mod div is regexp rlike abs ascii avg bin bit_and \
    bit_count bit_length bit_or cast ceil ceiling char_length character_length charset coalesce \
    coercibility collation concat concat_ws conv convert cos count crc32 curdate current_date \
    current_role current_time current_timestamp current_user curtime database date date_add \
    date_format date_sub datediff day dayname dayofmonth dayofweek dayofyear elt exp export_set \
    extract field find_in_set floor format from_base64 from_days from_unixtime greatest group_concat \
    hex hour if ifnull inet_aton inet_ntoa instr isnull json_array json_arrayagg json_contains \
    json_extract json_keys json_length json_merge_patch json_object json_objectagg json_quote \
    json_remove json_replace json_search json_set json_type json_unquote json_valid json_value \
    last_day lcase least left length ln localtime localtimestamp locate log log10 log2 lower lpad \
    ltrim make_set makedate maketime max md5 microsecond mid min minute month monthname now nullif oct \
    octet_length ord password period_add period_diff pi position pow power quarter quote radians rand \
    repeat replace reverse right round row_number rpad rtrim schema sec_to_time second session_user \
    sha sha1 sha2 sign sin sleep soundex space sqrt std stddev str_to_date strcmp subdate substr \
    substring substring_index subtime sum sysdate system_user tan time time_format time_to_sec \
    timediff timestamp timestampadd timestampdiff to_base64 to_days to_seconds trim truncate ucase \
    unhex unix_timestamp upper user utc_date utc_time utc_timestamp uuid uuid_short version week \
    weekday weekofyear year yearweek addtime adddate found_rows row_count last_insert_id connection_id \
    point acos aes_decrypt aes_encrypt asin atan atan2 bin_to_uuid bit_xor compress convert_tz cot \
    cume_dist degrees dense_rank first_value inet6_aton inet6_ntoa is_uuid json_array_append \
    json_array_insert json_contains_path json_depth json_insert json_overlaps json_pretty lag \
    last_value lead nth_value ntile percent_rank random_bytes rank regexp_instr regexp_replace \
    regexp_substr stddev_pop stddev_samp uncompress uuid_to_bin var_pop var_samp variance \
    weight_string";

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
