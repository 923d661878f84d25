//! `PREPARE`, `EXECUTE` and `DEALLOCATE PREPARE`: which statement is meant, and what its text is.
//!
//! Only what is read with certainty is told; the caller pins for anything else.

use super::lexer::{CharsetFamily, LexMode, Lexer, Token};

/// A statement about prepared statements, alone in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextCommand {
    /// `PREPARE name FROM …`
    Prepare {
        /// The name.
        name: Name,
        /// What is prepared.
        source: Source,
    },
    /// `EXECUTE name [USING …]`
    Execute {
        /// The name.
        name: Name,
        /// What it is given.
        using: Using,
    },
    /// `DEALLOCATE PREPARE name`, `DROP PREPARE name`
    Deallocate {
        /// The name.
        name: Name,
    },
    /// `EXECUTE IMMEDIATE 'text' [USING …]`, MariaDB's.
    Immediate {
        /// The text that is run.
        text: Box<[u8]>,
        /// What it is given.
        using: Using,
    },
}

/// The parameters of an `EXECUTE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Using {
    /// None.
    Nothing,
    /// User variables, which are only read.
    Variables,
    /// Expressions, which MariaDB takes.
    Expressions,
}

/// What a `PREPARE` prepares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A literal; its text, decoded.
    Literal(Box<[u8]>),
    /// Several that stand side by side, which MariaDB joins and MySQL refuses.
    Joined(Box<[u8]>),
    /// A user variable, by its name without sign and quotes.
    Variable(Box<[u8]>),
    /// Another expression.
    Unknown,
}

/// The name of a statement: printable ASCII, in lower case, since servers compare it so.
///
/// Of other names MariaDB 10.11 and MySQL 9.7 think differently: for MySQL `é` is `e`, `ß` is `s`, and a
/// space at the end does not count; for MariaDB all that matters (measured). They are never a `Name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Longer names than any client has, bytes.
const NAME_MAX: usize = 256;

impl Name {
    fn new(name: &[u8]) -> Option<Self> {
        let plain = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'`' | b'"' | b'\'' | b'\\');
        let usable = !name.is_empty() && name.len() <= NAME_MAX && name.iter().all(plain);
        usable.then(|| Self(name.to_ascii_lowercase().into()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TextCommand {
    /// Reads a statement; `None`: it is none of these, or not certain to be.
    pub fn parse(sql: &[u8], mode: LexMode) -> Option<Self> {
        let mut reader = Reader {
            lexer: Lexer::new(sql, mode),
            mode,
            joined: false,
        };
        let command = reader.command()?;
        (!reader.lexer.is_in_doubt()).then_some(command)
    }

    /// Whether nothing has happened where the server calls this a syntax error: a single `EXECUTE` or
    /// `DEALLOCATE` that [`parse`](Self::parse) could not read, since what these run was read before.
    pub fn is_nothing_if_misspelt(sql: &[u8], mode: LexMode) -> bool {
        let mut lexer = Lexer::new(sql, mode);
        let mut words = Vec::new();
        let mut ended = false;
        while let Some(token) = lexer.next() {
            if lexer.is_behind_edge() || ended && token != Token::Punct(b';') {
                return false;
            }
            ended |= token == Token::Punct(b';');
            if words.len() < 2 {
                words.push(lexer.written().to_ascii_lowercase());
            }
        }
        let is = |at: usize, word: &[u8]| words.get(at).is_some_and(|found| found == word);
        let runs_text = is(0, b"execute") && is(1, b"immediate");
        !lexer.is_in_doubt()
            && !runs_text
            && (is(0, b"execute") || is(0, b"deallocate") || is(0, b"drop"))
    }
}

/// The text of literals side by side, and the token behind them.
type Joined<'a> = (Option<Box<[u8]>>, Option<Token<'a>>);

struct Reader<'a> {
    lexer: Lexer<'a>,
    mode: LexMode,
    /// Literals were joined.
    joined: bool,
}

impl<'a> Reader<'a> {
    /// The next token; `Err`: what the server sees here is not certain.
    fn next(&mut self) -> Result<Option<Token<'a>>, ()> {
        let token = self.lexer.next();
        match self.lexer.is_behind_edge() {
            true => Err(()),
            false => Ok(token),
        }
    }

    fn word(&mut self) -> Option<&'a [u8]> {
        match self.next().ok()?? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn keyword(&mut self, keyword: &str) -> Option<()> {
        let word = self.word()?;
        word.eq_ignore_ascii_case(keyword.as_bytes()).then_some(())
    }

    fn name(&mut self) -> Option<Name> {
        match self.next().ok()?? {
            Token::Word(name) | Token::Quoted(name) => Name::new(name),
            _ => None,
        }
    }

    fn command(&mut self) -> Option<TextCommand> {
        match &self.word()?.to_ascii_lowercase()[..] {
            b"prepare" => self.prepare(),
            b"execute" => self.execute(),
            b"deallocate" | b"drop" => {
                self.keyword("prepare")?;
                let name = self.name()?;
                let token = self.next().ok()?;
                self.end(token)?;
                Some(TextCommand::Deallocate { name })
            }
            _ => None,
        }
    }

    fn prepare(&mut self) -> Option<TextCommand> {
        let name = self.name()?;
        self.keyword("from")?;
        let source = match self.next().ok()?? {
            Token::Str => match self.literals()? {
                (Some(text), None) => match self.joined {
                    true => Source::Joined(text),
                    false => Source::Literal(text),
                },
                (_, token) => self.unknown(token)?,
            },
            Token::Punct(b';') => return None,
            Token::UserVariable(variable) => match self.next().ok()? {
                None => Source::Variable(variable.into()),
                Some(Token::Punct(b';')) => {
                    self.end(Some(Token::Punct(b';')))?;
                    Source::Variable(variable.into())
                }
                token => self.unknown(token)?,
            },
            token => self.unknown(Some(token))?,
        };
        Some(TextCommand::Prepare { name, source })
    }

    /// An expression of any kind, up to the statement's end.
    fn unknown(&mut self, mut token: Option<Token<'a>>) -> Option<Source> {
        while let Some(next) = token {
            if next == Token::Punct(b';') {
                self.end(token)?;
                break;
            }
            token = self.next().ok()?;
        }
        Some(Source::Unknown)
    }

    fn execute(&mut self) -> Option<TextCommand> {
        let quoted = match self.next().ok()?? {
            Token::Word(word) => Ok(word),
            Token::Quoted(name) => Err(name),
            _ => return None,
        };
        let token = self.next().ok()?;
        let is_immediate = quoted.is_ok_and(|word| word.eq_ignore_ascii_case(b"immediate"));
        if is_immediate && token == Some(Token::Str) {
            let (text, token) = self.literals()?;
            let (text, using) = (text?, self.using(token)?);
            return Some(TextCommand::Immediate { text, using });
        }
        let name = Name::new(quoted.unwrap_or_else(|name| name))?;
        let using = self.using(token)?;
        Some(TextCommand::Execute { name, using })
    }

    fn using(&mut self, token: Option<Token<'a>>) -> Option<Using> {
        match token {
            Some(Token::Word(using)) if using.eq_ignore_ascii_case(b"using") => {}
            token => return self.end(token).map(|()| Using::Nothing),
        }
        loop {
            match self.next().ok()?? {
                Token::UserVariable(_) => {}
                token => {
                    self.unknown(Some(token))?;
                    return Some(Using::Expressions);
                }
            }
            match self.next().ok()? {
                Some(Token::Punct(b',')) => {}
                None => return Some(Using::Variables),
                token @ Some(Token::Punct(b';')) => {
                    return self.end(token).map(|()| Using::Variables);
                }
                token => {
                    self.unknown(token)?;
                    return Some(Using::Expressions);
                }
            }
        }
    }

    /// Whether nothing follows but semicolons.
    fn end(&mut self, mut token: Option<Token<'a>>) -> Option<()> {
        while let Some(next) = token {
            if next != Token::Punct(b';') {
                return None;
            }
            token = self.next().ok()?;
        }
        Some(())
    }

    /// The literal just read with those that follow it, which MariaDB joins, and the token behind them if
    /// there is one besides the end. No text: it is not certain how the server reads it.
    fn literals(&mut self) -> Option<Joined<'a>> {
        let mut text = Vec::new();
        let mut certain = true;
        loop {
            certain &= decode(self.lexer.written(), self.mode, &mut text);
            match self.next().ok()? {
                Some(Token::Str) => self.joined = true,
                token @ Some(Token::Punct(b';')) => {
                    self.end(token)?;
                    return Some((certain.then(|| text.into()), None));
                }
                token => return Some((certain.then(|| text.into()), token)),
            }
        }
    }
}

/// Appends what a literal says, quotes and escapes undone as servers do. `false`: it is not closed, or in a
/// charset in which the server may read its text otherwise than it was sent.
fn decode(written: &[u8], mode: LexMode, out: &mut Vec<u8>) -> bool {
    let [quote, inner @ .., last] = written else {
        return false;
    };
    let mut rest = inner;
    while let [byte, more @ ..] = rest {
        rest = more;
        if mode.charset.is_lead(*byte) {
            return false;
        }
        let next = more.first();
        if *byte == *quote {
            // Doubled, or this would be the end.
            rest = more.get(1..).unwrap_or_default();
            out.push(*byte);
        } else if *byte == b'\\' && !mode.no_backslash_escapes {
            let Some(&escaped) = next else { return false };
            rest = &more[1..];
            match escaped {
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'r' => out.push(b'\r'),
                b'b' => out.push(8),
                b'0' => out.push(0),
                b'Z' => out.push(26),
                // For patterns these stay as they are.
                b'%' | b'_' => out.extend_from_slice(&[b'\\', escaped]),
                other => out.push(other),
            }
        } else {
            out.push(*byte);
        }
    }
    last == quote && (mode.charset == CharsetFamily::AsciiSafe || out.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(sql: &str) -> Option<TextCommand> {
        TextCommand::parse(sql.as_bytes(), LexMode::default())
    }

    fn name(name: &str) -> Name {
        Name::new(name.as_bytes()).unwrap()
    }

    fn literal(sql: &str, mode: LexMode) -> Option<String> {
        match TextCommand::parse(sql.as_bytes(), mode)? {
            TextCommand::Prepare {
                source: Source::Literal(text) | Source::Joined(text),
                ..
            }
            | TextCommand::Immediate { text, .. } => {
                Some(String::from_utf8_lossy(&text).into_owned())
            }
            _ => None,
        }
    }

    #[test]
    fn the_four_statements_are_read() {
        let s = name("s");
        let prepare = TextCommand::Prepare {
            name: s.clone(),
            source: Source::Literal(b"SELECT 1".as_slice().into()),
        };
        for sql in [
            "PREPARE s FROM 'SELECT 1'",
            "prepare `S` from \"SELECT 1\" ;",
            "/* a */ PREPARE s -- b\n FROM 'SELECT 1';; ",
        ] {
            assert_eq!(parse(sql).as_ref(), Some(&prepare), "{sql}");
        }
        let joined = TextCommand::Prepare {
            name: s.clone(),
            source: Source::Joined(b"SELECT 1".as_slice().into()),
        };
        assert_eq!(parse("PREPARE s FROM 'SELECT' ' 1'"), Some(joined));
        for sql in ["DEALLOCATE PREPARE s", "drop prepare `s`;"] {
            let expected = TextCommand::Deallocate { name: s.clone() };
            assert_eq!(parse(sql), Some(expected), "{sql}");
        }
        let execute = |using| TextCommand::Execute {
            name: s.clone(),
            using,
        };
        assert_eq!(parse("EXECUTE S"), Some(execute(Using::Nothing)));
        let variables = Some(execute(Using::Variables));
        assert_eq!(parse("EXECUTE s using @a"), variables);
        assert_eq!(parse("EXECUTE `s` USING @a, @`b`;"), variables);
        let expressions = Some(execute(Using::Expressions));
        assert_eq!(parse("EXECUTE s USING 1 + 2, f(3)"), expressions);
        assert_eq!(parse("EXECUTE s USING @a + 1"), expressions);
        assert_eq!(parse("EXECUTE s USING @a, (@b := 2)"), expressions);
        let immediate = TextCommand::Immediate {
            text: b"DO ?".as_slice().into(),
            using: Using::Expressions,
        };
        assert_eq!(parse("EXECUTE IMMEDIATE 'DO ?' USING 5"), Some(immediate));
        let called_so = TextCommand::Execute {
            name: name("immediate"),
            using: Using::Nothing,
        };
        assert_eq!(parse("EXECUTE immediate"), Some(called_so));
    }

    #[test]
    fn other_sources_are_told_apart_from_what_cannot_be_read() {
        for sql in ["PREPARE s FROM @a", "PREPARE s FROM @`a`;"] {
            let expected = TextCommand::Prepare {
                name: name("s"),
                source: Source::Variable(b"a".as_slice().into()),
            };
            assert_eq!(parse(sql), Some(expected), "{sql}");
        }
        for sql in [
            "PREPARE s FROM @a + 1",
            "PREPARE s FROM CONCAT('SELECT', ' 1');",
            "PREPARE s FROM _utf8mb4'SELECT 1'",
            "PREPARE s FROM N'SELECT 1'",
            "PREPARE s FROM 'SELECT 1' COLLATE utf8mb4_bin",
        ] {
            let expected = TextCommand::Prepare {
                name: name("s"),
                source: Source::Unknown,
            };
            assert_eq!(parse(sql), Some(expected), "{sql}");
        }
        for sql in [
            "PREPARE s FROM",
            "PREPARE s FROM ;",
            "PREPARE 's' FROM 'SELECT 1'",
            "PREPARE é FROM 'SELECT 1'",
            "PREPARE `s ` FROM 'SELECT 1'",
            "PREPARE `` FROM 'SELECT 1'",
            "PREPARE `a``b` FROM 'SELECT 1'",
            "PREPARE a.b FROM 'SELECT 1'",
            "PREPARE s FROM 'SELECT 1'; SELECT 2",
            "PREPARE s FROM @a; SELECT 2",
            "EXECUTE s; SELECT 2",
            "EXECUTE s USING @a; SELECT 2",
            "EXECUTE s USING",
            "EXECUTE s @a",
            "EXECUTE IMMEDIATE @a",
            "EXECUTE IMMEDIATE CONCAT('DO', ' 1')",
            "EXECUTE IMMEDIATE 'SELECT 1' x",
            "/*!50000 PREPARE s FROM 'SELECT 1' */",
            "PREPARE /*!50000 s */ FROM 'SELECT 1'",
            "PREPARE s FROM 'SELECT 1' /*! ; SELECT 2 */",
            "EXECUTE s /*!50000 USING @a */",
            "DEALLOCATE PREPARE s s",
            "DROP TABLE s",
            "SELECT 1",
            "",
        ] {
            assert_eq!(parse(sql), None, "{sql}");
        }
    }

    /// As MariaDB 10.11.19 and MySQL 9.7.4 read them.
    #[test]
    fn literals_are_decoded_as_servers_do() {
        let mode = LexMode::default();
        for (sql, expected) in [
            ("PREPARE s FROM 'SELECT ''it''''s'''", "SELECT 'it''s'"),
            ("PREPARE s FROM \"SELECT 'a\"\"b'\"", "SELECT 'a\"b'"),
            (r"PREPARE s FROM 'SELECT \'a\\\'b\''", r"SELECT 'a\'b'"),
            (
                r"PREPARE s FROM '\%\_\n\t\r\b\Z\0\x'",
                "\\%\\_\n\t\r\x08\x1a\0x",
            ),
            ("PREPARE s FROM 'a' /* b */ 'c'", "ac"),
            ("EXECUTE IMMEDIATE 'a' 'c' USING @a", "ac"),
        ] {
            assert_eq!(literal(sql, mode).as_deref(), Some(expected), "{sql}");
        }
        let verbatim = LexMode {
            no_backslash_escapes: true,
            ..mode
        };
        let sql = r"PREPARE s FROM 'SELECT ''\n'''";
        assert_eq!(literal(sql, verbatim).as_deref(), Some(r"SELECT '\n'"));
        let ansi = LexMode {
            ansi_quotes: true,
            ..mode
        };
        assert_eq!(
            literal("PREPARE \"s\" FROM 'x'", ansi).as_deref(),
            Some("x")
        );
        assert_eq!(literal("PREPARE s FROM \"x\"", ansi), None, "a column");
        assert_eq!(literal("PREPARE s FROM 'unclosed", mode), None);
        assert_eq!(literal(r"PREPARE s FROM 'unclosed\'", mode), None);
    }

    #[test]
    fn a_misspelt_execute_does_nothing() {
        let harmless =
            |sql: &str| TextCommand::is_nothing_if_misspelt(sql.as_bytes(), LexMode::default());
        for sql in [
            "EXECUTE 's'",
            "execute;",
            "DEALLOCATE PREPARE",
            "DROP PREPARE s s;;",
        ] {
            assert!(harmless(sql), "{sql}");
        }
        for sql in [
            "EXECUTE s; SELECT",
            "EXECUTE IMMEDIATE @a",
            "PREPARE 's' FROM 'x'",
            "/*!50000 EXECUTE */ 's'",
            "",
        ] {
            assert!(!harmless(sql), "{sql}");
        }
    }

    #[test]
    fn text_of_double_bytes_is_not_decoded() {
        let gbk = LexMode {
            charset: CharsetFamily::Gbk,
            ..LexMode::default()
        };
        let expected = TextCommand::Prepare {
            name: name("s"),
            source: Source::Unknown,
        };
        assert_eq!(
            TextCommand::parse(b"PREPARE s FROM 'a\xbf\\'", gbk),
            Some(expected)
        );
        assert_eq!(
            literal("PREPARE s FROM 'SELECT 1'", gbk).as_deref(),
            Some("SELECT 1")
        );
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(sql: Vec<u8>, no_backslash_escapes: bool, gbk: bool) {
            let charset = if gbk { CharsetFamily::Gbk } else { CharsetFamily::AsciiSafe };
            let mode = LexMode { no_backslash_escapes, charset, ..LexMode::default() };
            for head in [&b"PREPARE s FROM '"[..], b"EXECUTE IMMEDIATE '", b"EXECUTE s USING "] {
                TextCommand::parse(&[head, &sql[..]].concat(), mode);
            }
        }
    }
}
