//! A lexer for MySQL's and MariaDB's SQL, exact where quoting decides what is code and what is data.
//!
//! It yields words, variables and punctuation; the contents of strings, quoted identifiers and
//! comments are skipped. Executable comments (`/*! … */`, `/*M! … */`) are code: their markers are
//! skipped and their contents yielded. Whether the server's version would run them is not decided
//! here: what might be code is read as code, and the lexer says where it was in doubt.
//! Source: MySQL Reference Manual, "Lexical Structure"; MariaDB Knowledge Base, "Comment Syntax".

/// What changes where a token ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LexMode {
    /// `sql_mode` has `ANSI_QUOTES`: `"` quotes an identifier.
    pub ansi_quotes: bool,
    /// `sql_mode` has `NO_BACKSLASH_ESCAPES`: `\` is an ordinary character.
    pub no_backslash_escapes: bool,
    /// How the client's character set may hide a quote or backslash in a second byte.
    pub charset: CharsetFamily,
}

/// Character sets by whether a byte below 0x80 can be the second half of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CharsetFamily {
    /// ASCII bytes are always ASCII characters: utf8, latin1, euc and most others.
    #[default]
    AsciiSafe,
    /// gbk, gb18030, big5: lead bytes 0x81–0xfe.
    Gbk,
    /// sjis, cp932: lead bytes 0x81–0x9f and 0xe0–0xfc.
    Sjis,
}

impl CharsetFamily {
    /// The family of a value of `character_set_client`.
    pub fn of(charset: &[u8]) -> Self {
        match charset {
            b"gbk" | b"gb18030" | b"big5" => Self::Gbk,
            b"sjis" | b"cp932" => Self::Sjis,
            _ => Self::AsciiSafe,
        }
    }

    /// Whether `byte` begins a character of two.
    pub(super) const fn is_lead(self, byte: u8) -> bool {
        match self {
            Self::AsciiSafe => false,
            Self::Gbk => matches!(byte, 0x81..=0xfe),
            Self::Sjis => matches!(byte, 0x81..=0x9f | 0xe0..=0xfc),
        }
    }
}

/// One token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// An unquoted word: keyword, identifier or function name.
    Word(&'a [u8]),
    /// A quoted identifier, without its quotes.
    Quoted(&'a [u8]),
    /// A string literal.
    Str,
    /// A number.
    Number(&'a [u8]),
    /// `@name`, `` @`name` `` or `@'name'`: a user variable, its name without quotes.
    UserVariable(&'a [u8]),
    /// `@@`, in front of a system variable's words.
    SystemVariable,
    /// `:=`
    Assign,
    /// Any other single byte: punctuation and operators.
    Punct(u8),
}

/// Iterates over the tokens of a statement. Never fails: what cannot be read is a [`Token::Punct`].
#[derive(Debug)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    mode: LexMode,
    /// Inside an executable comment, whose end marker is then not code.
    in_comment: bool,
    /// Where the last token begins.
    start: usize,
    /// Behind a marker of an executable comment since the last token.
    edge: bool,
    /// Something ends elsewhere if the server skips the executable comment it stands in.
    doubt: bool,
}

impl<'a> Lexer<'a> {
    /// A lexer at the start of `sql`.
    pub const fn new(sql: &'a [u8], mode: LexMode) -> Self {
        Self {
            sql,
            at: 0,
            mode,
            in_comment: false,
            start: 0,
            edge: false,
            doubt: false,
        }
    }

    /// The last token as it is written, quotes and all.
    pub fn written(&self) -> &'a [u8] {
        self.sql.get(self.start..self.at).unwrap_or_default()
    }

    /// Whether a marker of an executable comment stood in front of the last token: if the server skips
    /// the comment, it reads on from another token.
    pub const fn is_behind_edge(&self) -> bool {
        self.edge
    }

    /// Whether the server may see other tokens than were yielded.
    pub const fn is_in_doubt(&self) -> bool {
        self.doubt
    }

    /// Where the last token ended.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &'a [u8] {
        &self.sql[self.at.min(self.sql.len())..]
    }

    /// Skips white space, comments and the markers of executable comments.
    fn skip_blank(&mut self) {
        while let Some(byte) = self.peek(0) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0 => self.at += 1,
                b'#' => self.skip_line(),
                b'-' if self.is_dash_comment() => self.skip_line(),
                b'/' if self.peek(1) == Some(b'*') => self.enter_comment(),
                b'*' if self.in_comment && self.peek(1) == Some(b'/') => {
                    self.in_comment = false;
                    self.edge = true;
                    self.at += 2;
                }
                _ => return,
            }
        }
    }

    /// `--` begins a comment only in front of white space, a control character or the end.
    fn is_dash_comment(&self) -> bool {
        self.peek(1) == Some(b'-') && self.peek(2).is_none_or(|b| b <= b' ' || b == 0x7f)
    }

    fn skip_line(&mut self) {
        let rest = self.rest();
        let len = memchr::memchr(b'\n', rest).map_or(rest.len(), |n| n + 1);
        self.suspect(&rest[..len]);
        self.at += len;
    }

    /// Notes that `skipped`, which is no code if the comment around it is, holds the comment's end.
    fn suspect(&mut self, skipped: &[u8]) {
        self.doubt |= self.in_comment && memchr::memmem::find(skipped, b"*/").is_some();
    }

    fn enter_comment(&mut self) {
        let marker = match (self.peek(2), self.peek(3)) {
            (Some(b'!'), _) => 3,
            (Some(b'M' | b'm'), Some(b'!')) => 4,
            _ => {
                self.at += 2;
                let end = memchr::memmem::find(self.rest(), b"*/");
                self.at += end.map_or(self.rest().len(), |n| n + 2);
                return;
            }
        };
        self.at += marker;
        // A version number of five or six digits belongs to the marker.
        let digits = self
            .rest()
            .iter()
            .take(6)
            .take_while(|b| b.is_ascii_digit())
            .count();
        self.at += if digits >= 5 { digits } else { 0 };
        self.in_comment = true;
        self.edge = true;
    }

    /// The end of a quoted run whose opening quote is at `self.at`; steps behind the closing quote.
    fn skip_quoted(&mut self, quote: u8, escapes: bool) -> &'a [u8] {
        let start = self.at + 1;
        let mut at = start;
        while let Some(&byte) = self.sql.get(at) {
            if self.mode.charset.is_lead(byte) || (escapes && byte == b'\\') {
                at += 2;
            } else if byte != quote {
                at += 1;
            } else if self.sql.get(at + 1) == Some(&quote) {
                at += 2;
            } else {
                self.at = at + 1;
                self.suspect(&self.sql[start..at]);
                return &self.sql[start..at];
            }
        }
        self.at = self.sql.len();
        self.suspect(&self.sql[start.min(self.at)..]);
        &self.sql[start.min(self.at)..]
    }

    fn skip_string(&mut self, quote: u8) {
        self.skip_quoted(quote, !self.mode.no_backslash_escapes);
    }

    fn take_word(&mut self) -> &'a [u8] {
        let start = self.at;
        while let Some(byte) = self.peek(0) {
            if self.mode.charset.is_lead(byte) {
                self.at = (self.at + 2).min(self.sql.len());
            } else if is_word(byte) {
                self.at += 1;
            } else {
                break;
            }
        }
        &self.sql[start..self.at]
    }

    fn at_sign(&mut self) -> Token<'a> {
        // `user@host` in DDL: the sign directly behind a name or a string may be no variable.
        let host = self.at > 0 && is_name_end(self.sql[self.at - 1]);
        self.at += 1;
        let escapes = !self.mode.no_backslash_escapes;
        let name = match self.peek(0) {
            Some(b'@') => {
                self.at += 1;
                return Token::SystemVariable;
            }
            Some(b'"') if self.mode.ansi_quotes => self.skip_quoted(b'"', false),
            Some(quote @ (b'\'' | b'"')) => self.skip_quoted(quote, escapes),
            Some(b'`') => self.skip_quoted(b'`', false),
            _ => {
                let start = self.at;
                while self.peek(0).is_some_and(|b| is_word(b) || b == b'.') {
                    self.at += 1;
                }
                &self.sql[start..self.at]
            }
        };
        if host {
            Token::Punct(b'@')
        } else {
            Token::UserVariable(name)
        }
    }

    fn number_or_word(&mut self) -> Token<'a> {
        let start = self.at;
        let word = self.take_word();
        if word.iter().all(u8::is_ascii_digit) {
            return Token::Number(&self.sql[start..self.at]);
        }
        // 0x…, 0b… and 1e5 are numbers; anything else that begins with a digit is an identifier.
        let hex = matches!(word, [b'0', b'x' | b'b', rest @ ..] if rest.iter().all(u8::is_ascii_hexdigit));
        let exponent = word
            .split(|b| matches!(b, b'e' | b'E'))
            .all(|part| part.iter().all(u8::is_ascii_digit));
        if hex || exponent {
            Token::Number(word)
        } else {
            Token::Word(word)
        }
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.edge = false;
        self.skip_blank();
        self.start = self.at;
        let byte = self.peek(0)?;
        Some(match byte {
            b'\'' => {
                self.skip_string(b'\'');
                Token::Str
            }
            b'"' if self.mode.ansi_quotes => Token::Quoted(self.skip_quoted(b'"', false)),
            b'"' => {
                self.skip_string(b'"');
                Token::Str
            }
            b'`' => Token::Quoted(self.skip_quoted(b'`', false)),
            b'@' => self.at_sign(),
            b':' if self.peek(1) == Some(b'=') => {
                self.at += 2;
                Token::Assign
            }
            b'0'..=b'9' => self.number_or_word(),
            _ if is_word(byte) => Token::Word(self.take_word()),
            _ => {
                self.at += 1;
                Token::Punct(byte)
            }
        })
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

const fn is_name_end(byte: u8) -> bool {
    is_word(byte) || matches!(byte, b'`' | b'\'' | b'"')
}
