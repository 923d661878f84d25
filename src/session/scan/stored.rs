//! `CREATE PROCEDURE` and its like: a body that is stored and not run.

use super::lexer::Token;
use super::statement::{is_word, word_at};

/// Words that name what is created, as far as it has a body.
const WITH_BODY: [&[u8]; 5] = [b"procedure", b"function", b"trigger", b"event", b"package"];
/// The others that may stand in that place.
const WITHOUT_BODY: [&[u8]; 14] = [
    b"table",
    b"view",
    b"database",
    b"schema",
    b"user",
    b"role",
    b"index",
    b"server",
    b"sequence",
    b"temporary",
    b"unique",
    b"fulltext",
    b"spatial",
    b"tablespace",
];
/// What the end of a block is followed by if the block did not begin with `BEGIN` or `CASE`.
const OTHER_BLOCKS: [&[u8]; 5] = [b"if", b"loop", b"while", b"repeat", b"for"];

/// How many tokens from the front define a routine, trigger or event. `None` if they do not, or if it is not
/// certain where the body ends.
pub(super) fn stored(tokens: &[Token<'_>]) -> Option<usize> {
    if !is_word(tokens, 0, b"create") || !has_body(tokens) {
        return None;
    }
    let end = |from: usize| {
        let rest = tokens[from..].iter();
        rest.take_while(|token| **token != Token::Punct(b';'))
            .count()
            + from
    };
    let single = end(0);
    match (0..single).find(|&at| is_word(tokens, at, b"begin")) {
        None => Some(single),
        Some(begin) => block_end(tokens, begin).map(end),
    }
}

fn has_body(tokens: &[Token<'_>]) -> bool {
    let is_one_of =
        |words: &[&[u8]], word: &[u8]| words.iter().any(|w| word.eq_ignore_ascii_case(w));
    let words = tokens.iter().filter_map(|token| match token {
        Token::Word(word) => Some(*word),
        _ => None,
    });
    words
        .map(|word| (is_one_of(&WITH_BODY, word), is_one_of(&WITHOUT_BODY, word)))
        .find(|(with, without)| *with || *without)
        .is_some_and(|(with, _)| with)
}

/// Behind the `END` of the block that begins there.
fn block_end(tokens: &[Token<'_>], begin: usize) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, begin);
    while at < tokens.len() {
        if is_word(tokens, at, b"begin") || is_word(tokens, at, b"case") {
            depth += 1;
        } else if is_word(tokens, at, b"end") {
            let next = word_at(tokens, at + 1).unwrap_or_default();
            if OTHER_BLOCKS.iter().any(|w| next.eq_ignore_ascii_case(w)) {
                at += 2;
                continue;
            }
            if next.eq_ignore_ascii_case(b"case") {
                at += 1;
            }
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(at + 1);
            }
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::{Flags, LexMode, Scanner};

    fn flags(sql: &str) -> Flags {
        Scanner::default()
            .scan(sql.as_bytes(), LexMode::default())
            .flags
    }

    const STATE: [Flags; 5] = [
        Flags::ROUTINE,
        Flags::USER_VARIABLE,
        Flags::LOCK,
        Flags::DIAGNOSTICS,
        Flags::ROW_COUNT,
    ];

    #[test]
    fn what_is_stored_is_not_run() {
        for sql in [
            "CREATE PROCEDURE p() BEGIN DECLARE a INT DEFAULT 0; SET @x = 1; SELECT GET_LOCK('a', 1); END",
            "create or replace definer=`a`@`b` function f() returns int begin if 1 then set @a = 1; end if; \
             case when 1 then begin end; end case; return case @a when 1 then 2 end; end",
            "CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW SET @a := NEW.a",
            "CREATE DEFINER=root@localhost PROCEDURE p() l: LOOP LEAVE l; END LOOP",
            "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO CALL p()",
            "CREATE PROCEDURE p() x: BEGIN WHILE 0 DO GET DIAGNOSTICS @n = ROW_COUNT; END WHILE; END x",
        ] {
            for flag in STATE {
                assert!(!flags(sql).any(flag), "{sql}: {flag:?}");
            }
            assert!(flags(sql).any(Flags::WRITE), "{sql}");
        }
    }

    #[test]
    fn what_stands_behind_or_is_no_definition_is() {
        for sql in [
            "CREATE PROCEDURE p() BEGIN SELECT 1; END; CALL p()",
            "CREATE PROCEDURE p() SELECT 1; CALL p()",
            "CREATE TABLE function (a INT); CALL p()",
            "CREATE PROCEDURE p() BEGIN SELECT begin FROM t; END; CALL p()",
            "CREATE PROCEDURE p() BEGIN SELECT start, end FROM t; CALL p(); END",
            "CREATE TABLE event AS SELECT 1; BEGIN NOT ATOMIC SELECT 1; END",
        ] {
            assert!(flags(sql).any(Flags::ROUTINE), "{sql}");
        }
        assert!(flags("CREATE TABLE t AS SELECT @a := 1").any(Flags::USER_VARIABLE));
        assert!(flags("CREATE TEMPORARY TABLE t AS SELECT 1").any(Flags::TEMPORARY));
    }
}
