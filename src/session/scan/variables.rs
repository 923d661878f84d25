//! User variables in a statement: which it names, and whether it may set them.
//!
//! Asked only where the scan has seen one, or where the session carries some, so that ordinary
//! statements pay nothing.

use super::calls::calls_unknown;
use super::lexer::{LexMode, Lexer, Token};
use super::statement::word_at;

/// What a text does with user variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Their names in lower case, quotes taken off, each once.
    pub names: Vec<Box<[u8]>>,
    /// It may set them.
    pub assigns: bool,
    /// It sets them and reads, and does nothing else that changes a session: no table is written, no
    /// function called that is not one of the server's.
    pub only_assigns: bool,
    /// There may be others, or names that cannot be read here.
    pub others: bool,
}

/// What a text does with the user variables it names.
pub fn mentions(sql: &[u8], mode: LexMode) -> Mentions {
    let mut lexer = Lexer::new(sql, mode);
    let (mut tokens, mut edges) = (Vec::new(), Vec::new());
    while let Some(token) = lexer.next() {
        if lexer.is_behind_edge() && token != Token::Punct(b';') {
            edges.push(tokens.len());
        }
        tokens.push(token);
    }
    let is_harmless = |&at: &usize| matches!(head(&tokens[at..]), Head::Read | Head::Set);
    let mut found = Mentions {
        // Any of them may be the first that the server sees.
        only_assigns: edges.iter().all(is_harmless),
        others: lexer.is_in_doubt(),
        ..Mentions::default()
    };
    for token in &tokens {
        match token {
            Token::UserVariable(name) => found.take(name),
            Token::Assign => found.assigns = true,
            _ => {}
        }
    }
    found.assigns |= !edges.is_empty() || tokens.windows(2).any(is_into);
    // `SELECT@a`: whose sign this is, and where its name ends, the lexer does not tell.
    found.others |= tokens.contains(&Token::Punct(b'@'));
    let statements = tokens.split(|token| *token == Token::Punct(b';'));
    for statement in statements.filter(|statement| !statement.is_empty()) {
        let head = head(statement);
        found.assigns |= head == Head::Other || head == Head::Set;
        found.only_assigns &= matches!(head, Head::Read | Head::Set) && !calls_unknown(statement);
    }
    found
}

/// Whether a text may run code of the database's own, such as triggers and functions, that sets user
/// variables it does not name.
pub fn runs_code(sql: &[u8], mode: LexMode) -> bool {
    let tokens: Vec<_> = Lexer::new(sql, mode).collect();
    tokens
        .split(|token| *token == Token::Punct(b';'))
        .filter(|statement| !statement.is_empty())
        .any(|statement| {
            !matches!(head(statement), Head::Read | Head::Set | Head::Control)
                || calls_unknown(statement)
        })
}

impl Mentions {
    fn take(&mut self, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        if !self.names.iter().any(|known| **known == *name) {
            self.names.push(name.into());
        }
    }
}

/// What a statement's first word tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Reads.
    Read,
    /// Writes tables, or defines something: sets no variable but by `:=` and `INTO`.
    Write,
    /// `SET`
    Set,
    /// Begins or ends transactions and the like.
    Control,
    /// May do anything with the variables it names.
    Other,
}

fn head(tokens: &[Token<'_>]) -> Head {
    let at = tokens.iter().position(|token| *token != Token::Punct(b'('));
    let word = at.and_then(|at| word_at(tokens, at)).unwrap_or_default();
    match &word.to_ascii_lowercase()[..] {
        b"select" | b"do" | b"values" | b"table" | b"show" | b"desc" | b"describe" | b"explain" => {
            Head::Read
        }
        b"insert" | b"replace" | b"update" | b"delete" | b"with" | b"truncate" | b"create"
        | b"alter" | b"drop" | b"analyze" | b"prepare" => Head::Write,
        b"set" => Head::Set,
        b"commit" | b"rollback" | b"start" | b"use" | b"savepoint" | b"release" | b"kill"
        | b"deallocate" => Head::Control,
        // Without more it begins a transaction, with more it is a block.
        b"begin" if tokens.len() <= 2 => Head::Control,
        _ => Head::Other,
    }
}

/// `INTO @a`, but for `INSERT INTO t`.
fn is_into(pair: &[Token<'_>]) -> bool {
    matches!(pair, [Token::Word(into), Token::UserVariable(_)] if into.eq_ignore_ascii_case(b"into"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sql: &str) -> Mentions {
        mentions(sql.as_bytes(), LexMode::default())
    }

    fn names(sql: &str) -> Vec<String> {
        let names = found(sql).names;
        names
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    #[test]
    fn names_lose_their_quotes_and_their_case() {
        assert_eq!(names("SET @A = 1, @a=2, @b.c$_1 := 3"), ["a", "b.c$_1"]);
        assert_eq!(names("SELECT @`x y`, @'s-1', @\"Q\""), ["x y", "s-1", "q"]);
        assert_eq!(
            names("SELECT @@session.a, '@b', `@c` /* @d */ -- @e"),
            [""; 0]
        );
    }

    #[test]
    fn what_may_set_variables_is_told_from_what_reads_them() {
        for sql in [
            "SET @a = 1",
            "SELECT @a := 2",
            "SELECT 1, 2 INTO @a, @b",
            "UPDATE t SET n = (@n := @n + 1)",
            "LOAD DATA INFILE 'x' INTO TABLE t (@a) SET b = @a",
            "CALL p(@a)",
            "EXECUTE s USING @a",
            "GET DIAGNOSTICS @n = NUMBER",
            "SELECT 1; SET @a = 1",
            "/*!50000 SET */ @a = 1",
            "BEGIN NOT ATOMIC SET @a = 1; END",
            "FETCH c INTO @a",
            "SET time_zone = @a",
            "INSERT INTO t SELECT @a := 1",
        ] {
            assert!(found(sql).assigns, "{sql}");
        }
        for sql in [
            "SELECT @a",
            "(SELECT @a)",
            "INSERT INTO t VALUES (@a)",
            "UPDATE t SET a = @a WHERE b = @b",
            "DELETE FROM t WHERE id = @a",
            "SELECT * FROM t WHERE @a = 1",
            "WITH x AS (SELECT @a) SELECT * FROM x",
            "PREPARE s FROM @sql",
            "DO SLEEP(@a)",
        ] {
            assert!(!found(sql).assigns, "{sql}");
        }
    }

    #[test]
    fn what_else_may_happen_is_not_only_an_assignment() {
        for sql in [
            "SET @a = 1, @b = NOW()",
            "SELECT COUNT(*) INTO @n FROM t WHERE (a IN (1, 2))",
            "SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO'",
            "/*!40101 SET @a = 1 */;",
        ] {
            assert!(found(sql).only_assigns, "{sql}");
        }
        for sql in [
            "SET @a = f(1)",
            "SET @a = app.now()",
            "SET @a = `f`(1)",
            "INSERT INTO t SELECT @a := 1",
            "SET @a = 1; DELETE FROM t",
            "/*!40101 SELECT */ CALL p(@a)",
            "/*!40101 SELECT */ HANDLER t OPEN",
            "CALL p(@a)",
        ] {
            assert!(!found(sql).only_assigns, "{sql}");
        }
        assert!(found("SELECT@a:=1").others && !found("SELECT @a:=1").others);
    }

    #[test]
    fn code_runs_in_writes_and_unknown_calls() {
        let runs = |sql: &str| runs_code(sql.as_bytes(), LexMode::default());
        for sql in [
            "INSERT INTO t VALUES (1)",
            "SELECT f(1)",
            "CALL p()",
            "SELECT 1; DELETE FROM t",
        ] {
            assert!(runs(sql), "{sql}");
        }
        for sql in [
            "SELECT COUNT(*) FROM t",
            "COMMIT",
            "BEGIN",
            "SET @a = 1",
            "SHOW TABLES",
        ] {
            assert!(!runs(sql), "{sql}");
        }
    }
}
