//! `FOUND_ROWS()`: behind which statements it is the number of rows that they sent.

use super::calls::is_harmless_call;
use super::lexer::{LexMode, Lexer, Token};

/// When `FOUND_ROWS()` is the number of rows that a statement sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Always.
    Always,
    /// If it sent two or more: an aggregate of no rows is one row that MariaDB may not count.
    Several,
    /// Nobody knows.
    Never,
}

/// Measured on MariaDB 10.11.19, with and without `sql_select_limit`. Left out are statements with an
/// offset (which counts), set operations, `SQL_CALC_FOUND_ROWS`, and all that is no plain `SELECT`.
pub fn counted(sql: &[u8], mode: LexMode) -> Counted {
    const OTHERWISE: &[&[u8]] = &[
        b"sql_calc_found_rows",
        b"union",
        b"except",
        b"minus",
        b"intersect",
        b"offset",
        b"into",
        b"procedure",
        b"fetch",
        b"rows",
        b"rownum",
    ];
    let mut lexer = Lexer::new(sql, mode);
    let Some(Token::Word(first)) = lexer.next() else {
        return Counted::Never;
    };
    if !first.eq_ignore_ascii_case(b"select") {
        return Counted::Never;
    }
    let mut counted = Counted::Always;
    let (mut before, mut limit) = (Token::Word(first), false);
    while let Some(token) = lexer.next() {
        if lexer.is_behind_edge() || lexer.is_in_doubt() {
            return Counted::Never;
        }
        match (before, token) {
            (_, Token::Punct(b';') | Token::UserVariable(_) | Token::Assign) => {
                return Counted::Never;
            }
            (_, Token::Punct(b',')) if limit => return Counted::Never,
            (Token::Word(word), Token::Punct(b'(')) if !is_harmless_keyword(word) => {
                counted = Counted::Several;
            }
            (Token::Quoted(_), Token::Punct(b'(')) => counted = Counted::Several,
            (_, Token::Word(word)) => {
                if OTHERWISE
                    .iter()
                    .any(|other| word.eq_ignore_ascii_case(other))
                {
                    return Counted::Never;
                }
                limit |= word.eq_ignore_ascii_case(b"limit");
            }
            _ => {}
        }
        before = token;
    }
    counted
}

/// Whether the text begins with a statement that sets `FOUND_ROWS()`: measured on both servers, on which some
/// others do and some do not.
pub fn selects(sql: &[u8], mode: LexMode) -> bool {
    let first = Lexer::new(sql, mode).find(|token| *token != Token::Punct(b'('));
    matches!(first, Some(Token::Word(word)) if word.eq_ignore_ascii_case(b"select"))
}

/// A keyword or a function of single values; no aggregate.
fn is_harmless_keyword(word: &[u8]) -> bool {
    const AGGREGATES: &[&[u8]] = &[
        b"count",
        b"min",
        b"max",
        b"sum",
        b"avg",
        b"group_concat",
        b"bit_and",
        b"bit_or",
        b"bit_xor",
        b"std",
        b"stddev",
        b"stddev_pop",
        b"stddev_samp",
        b"var_pop",
        b"var_samp",
        b"variance",
        b"json_arrayagg",
        b"json_objectagg",
    ];
    let aggregate = AGGREGATES
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name));
    !aggregate && is_harmless_call(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_selects_count_what_they_send() {
        for (sql, expected) in [
            ("SELECT 1", Counted::Always),
            (
                "SELECT a FROM t WHERE a IN (1, 2) ORDER BY b LIMIT 2",
                Counted::Always,
            ),
            ("SELECT a FROM t WHERE b = 'union' LIMIT ?", Counted::Always),
            ("SELECT CONCAT(a, 'x') FROM t", Counted::Always),
            ("SELECT MIN(a) FROM t", Counted::Several),
            ("SELECT f(a) FROM t", Counted::Several),
            ("SELECT STDDEV(a) FROM t", Counted::Several),
            ("SELECT a FROM t LIMIT 1, 2", Counted::Never),
            ("SELECT a FROM t LIMIT 1 OFFSET 2", Counted::Never),
            ("SELECT a FROM t UNION SELECT 1", Counted::Never),
            (
                "SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1",
                Counted::Never,
            ),
            ("SELECT a FROM t; SELECT 1", Counted::Never),
            ("SELECT a INTO @x FROM t", Counted::Never),
            (
                "SELECT /*! SQL_CALC_FOUND_ROWS */ a FROM t LIMIT 1",
                Counted::Never,
            ),
            ("(SELECT a FROM t LIMIT 2)", Counted::Never),
            ("VALUES (1), (2)", Counted::Never),
            ("SHOW TABLES", Counted::Never),
            ("INSERT INTO t SELECT 1", Counted::Never),
        ] {
            assert_eq!(
                counted(sql.as_bytes(), LexMode::default()),
                expected,
                "{sql}"
            );
        }
    }
}
