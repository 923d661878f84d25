//! Name patterns as in MySQL's `LIKE`.

use std::fmt;
use std::str::FromStr;

use super::text::serde_as_text;

/// A name pattern: `%` stands for any characters, `_` for one (an UTF-8 sequence counts as one),
/// `\` takes the next character as it is. Case counts, as it does in MySQL's user names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: String,
    tokens: Box<[Token]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Token {
    Byte(u8),
    One,
    Many,
}

impl Pattern {
    /// The pattern `%`, which matches every name.
    pub fn any() -> Self {
        Self {
            text: "%".to_owned(),
            tokens: Box::new([Token::Many]),
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole name matches. Takes at most pattern length × name length steps.
    pub fn matches(&self, name: &[u8]) -> bool {
        let (mut token, mut at) = (0, 0);
        // Where to go on after a mismatch: behind the last `%`, one character further in the name.
        // An earlier `%` need not be tried again, because the last one can take over what it would.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.tokens.get(token) {
                Some(Token::Many) => {
                    token += 1;
                    retry = Some((token, at));
                    continue;
                }
                Some(Token::One) if at < name.len() => {
                    token += 1;
                    at = next_char(name, at);
                    continue;
                }
                Some(Token::Byte(byte)) if name.get(at) == Some(byte) => {
                    token += 1;
                    at += 1;
                    continue;
                }
                None if at == name.len() => return true,
                _ => {}
            }
            match retry {
                Some((after, from)) if from < name.len() => {
                    let from = next_char(name, from);
                    retry = Some((after, from));
                    (token, at) = (after, from);
                }
                _ => return false,
            }
        }
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self::any()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::with_capacity(text.len());
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            tokens.push(match byte {
                b'%' => Token::Many,
                b'_' => Token::One,
                b'\\' => Token::Byte(bytes.next().ok_or("a character after the last \"\\\"")?),
                byte => Token::Byte(byte),
            });
        }
        Ok(Self {
            text: text.to_owned(),
            tokens: tokens.into(),
        })
    }
}

serde_as_text!(Pattern);

/// The start of the character after the one at `at`; stray bytes count as characters.
fn next_char(name: &[u8], at: usize) -> usize {
    let is_continuation = |byte: &&u8| **byte & 0xc0 == 0x80;
    at + 1 + name[at + 1..].iter().take_while(is_continuation).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn like_in_mysql() {
        for (pattern, name, matches) in [
            ("%", "", true),
            ("%", "anyone", true),
            ("", "", true),
            ("", "x", false),
            ("report%", "report", true),
            ("report%", "reports", true),
            ("report%", "xreport", false),
            ("%_ro", "app_ro", true),
            ("%\\_ro", "apparo", false),
            ("app_1", "app-1", true),
            ("app_1", "app1", false),
            ("a%b%c", "axxbyybzc", true),
            ("a%b%c", "axxbyyb", false),
            ("_", "é", true),
            ("__", "é", false),
            ("App", "app", false),
            ("100\\%", "100%", true),
            ("100\\%", "1000", false),
        ] {
            let parsed: Pattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(name.as_bytes()), matches, "{pattern} {name}");
        }
        assert!("x\\".parse::<Pattern>().is_err());
        assert!("_".parse::<Pattern>().unwrap().matches(b"\xff"));
    }

    #[test]
    fn many_wildcards_take_no_long_time() {
        let pattern: Pattern = "%a".repeat(200).parse().unwrap();
        assert!(!pattern.matches("a".repeat(199).as_bytes()));
        let pattern: Pattern = format!("{}b", "%a".repeat(200)).parse().unwrap();
        assert!(!pattern.matches("a".repeat(100_000).as_bytes()));
    }

    /// The definition, by recursion.
    fn like(tokens: &[Token], name: &[u8]) -> bool {
        match tokens.split_first() {
            None => name.is_empty(),
            Some((Token::Byte(b), rest)) => name.first() == Some(b) && like(rest, &name[1..]),
            Some((Token::One, rest)) => !name.is_empty() && like(rest, &name[next_char(name, 0)..]),
            Some((Token::Many, rest)) => {
                like(rest, name) || (!name.is_empty() && like(tokens, &name[next_char(name, 0)..]))
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab%_é]{0,8}", name in "[abé]{0,8}") {
            let parsed: Pattern = pattern.parse().unwrap();
            prop_assert_eq!(parsed.matches(name.as_bytes()), like(&parsed.tokens, name.as_bytes()));
        }
    }
}
