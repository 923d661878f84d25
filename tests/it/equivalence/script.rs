//! Scripts: what several clients do in turn, as values and as text.
//!
//! The text is what a failure prints and what `found/` keeps: a line `connections N`, a line
//! `client CHARSET DATABASE TRAITS` for each client, and then a line for each step, which begins with
//! the client's number. Bytes that are no printable ASCII, and the backslash, are written `\xNN`.

use std::fmt::{self, Display, Formatter};

use crate::support::wire::{DEPRECATE_EOF, FOUND_ROWS, MULTI_STATEMENTS, SESSION_TRACK};

/// What one run is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Script {
    /// `pool.max_connections`.
    pub(super) connections: usize,
    pub(super) clients: Vec<Client>,
    pub(super) steps: Vec<Step>,
}

/// How a client logs in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Client {
    pub(super) charset: u8,
    pub(super) database: Option<String>,
    pub(super) traits: Vec<Trait>,
}

/// Capabilities in which clients differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trait {
    /// No DEPRECATE_EOF.
    Classic,
    /// SESSION_TRACK.
    Track,
    /// Affected rows are those found.
    FoundRows,
    /// A space may follow the name of a function.
    IgnoreSpace,
    /// No MULTI_STATEMENTS.
    Single,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) client: usize,
    pub(super) action: Action,
}

/// What a client does. In SQL, `$L` stands for a name of a lock that no other run, client or
/// connection uses.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Query(Vec<u8>),
    /// A statement that the dedicated connection alone is given, to see that it is noticed.
    Twin(Vec<u8>),
    InitDb(Vec<u8>),
    FieldList(Vec<u8>),
    Ping,
    SetOption(u8),
    Reset,
    ChangeUser(String),
    /// Says `COM_QUIT` and logs in again.
    Reconnect,
    /// Compares `SHOW SESSION VARIABLES`.
    Variables,
    Prepare(usize, Vec<u8>),
    Execute {
        slot: usize,
        cursor: bool,
        /// Types are sent with the values. Without them, the values of the last time are sent again.
        bound: bool,
        values: Vec<Value>,
    },
    LongData(usize, u16, Vec<u8>),
    Fetch(usize, u32),
    ResetStatement(usize),
    Close(usize),
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Tiny(i8),
    Int(i32),
    Long(i64),
    Unsigned(u64),
    Double(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
    /// Year, month and day.
    Date(u16, u8, u8),
}

impl Client {
    /// The capability bits beyond the usual ones, and those left out.
    pub(super) fn capabilities(&self) -> (u32, u32) {
        const IGNORE_SPACE: u32 = 1 << 8;
        let (mut with, mut without) = (0, 0);
        for one in &self.traits {
            match one {
                Trait::Classic => without |= DEPRECATE_EOF,
                Trait::Track => with |= SESSION_TRACK,
                Trait::FoundRows => with |= FOUND_ROWS,
                Trait::IgnoreSpace => with |= IGNORE_SPACE,
                Trait::Single => without |= MULTI_STATEMENTS,
            }
        }
        (with, without)
    }
}

impl Trait {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Classic, "classic"),
        (Self::Track, "track"),
        (Self::FoundRows, "found_rows"),
        (Self::IgnoreSpace, "ignore_space"),
        (Self::Single, "single"),
    ];
}

impl Value {
    /// Its type as `COM_STMT_EXECUTE` names it.
    pub(super) fn type_code(&self) -> [u8; 2] {
        match self {
            Self::Null => [6, 0],
            Self::Tiny(_) => [1, 0],
            Self::Int(_) => [3, 0],
            Self::Long(_) => [8, 0],
            Self::Unsigned(_) => [8, 0x80],
            Self::Double(_) => [5, 0],
            Self::Text(_) => [253, 0],
            Self::Blob(_) => [252, 0],
            Self::Date(..) => [10, 0],
        }
    }

    /// Appends it as `COM_STMT_EXECUTE` sends it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Tiny(v) => out.extend(v.to_le_bytes()),
            Self::Int(v) => out.extend(v.to_le_bytes()),
            Self::Long(v) => out.extend(v.to_le_bytes()),
            Self::Unsigned(v) => out.extend(v.to_le_bytes()),
            Self::Double(v) => out.extend(v.to_le_bytes()),
            Self::Text(v) | Self::Blob(v) => {
                let len = u16::try_from(v.len()).expect("short");
                out.push(0xfc);
                out.extend(len.to_le_bytes());
                out.extend_from_slice(v);
            }
            Self::Date(year, month, day) => {
                out.push(4);
                out.extend(year.to_le_bytes());
                out.extend([*month, *day]);
            }
        }
    }
}

/// Bytes as a script shows them.
struct Shown<'a>(&'a [u8]);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'\\' | 0..0x20 | 0x7f.. => write!(f, "\\x{byte:02x}")?,
                _ => write!(f, "{}", byte as char)?,
            }
        }
        Ok(())
    }
}

impl Display for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "connections {}", self.connections)?;
        for client in &self.clients {
            let database = client.database.as_deref().unwrap_or("-");
            write!(f, "client {} {database}", client.charset)?;
            for one in &client.traits {
                let (_, name) = Trait::ALL.iter().find(|(t, _)| t == one).expect("listed");
                write!(f, " {name}")?;
            }
            writeln!(f)?;
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.client, self.action)
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(sql) => write!(f, "query {}", Shown(sql)),
            Self::Twin(sql) => write!(f, "twin {}", Shown(sql)),
            Self::InitDb(name) => write!(f, "init_db {}", Shown(name)),
            Self::FieldList(table) => write!(f, "field_list {}", Shown(table)),
            Self::Ping => f.write_str("ping"),
            Self::SetOption(option) => write!(f, "set_option {option}"),
            Self::Reset => f.write_str("reset"),
            Self::ChangeUser(user) => write!(f, "change_user {user}"),
            Self::Reconnect => f.write_str("reconnect"),
            Self::Variables => f.write_str("variables"),
            Self::Prepare(slot, sql) => write!(f, "prepare {slot} {}", Shown(sql)),
            Self::Execute {
                slot,
                cursor,
                bound,
                values,
            } => {
                let cursor = if *cursor { " cursor" } else { "" };
                let bound = if *bound { "" } else { " unbound" };
                write!(f, "execute {slot}{cursor}{bound}")?;
                values.iter().try_for_each(|value| write!(f, " {value}"))
            }
            Self::LongData(slot, at, data) => write!(f, "long_data {slot} {at} {}", Shown(data)),
            Self::Fetch(slot, rows) => write!(f, "fetch {slot} {rows}"),
            Self::ResetStatement(slot) => write!(f, "stmt_reset {slot}"),
            Self::Close(slot) => write!(f, "close {slot}"),
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Values stand side by side, so a blank in one is written as a number.
        let bytes = |v: &[u8]| Shown(v).to_string().replace(' ', "\\x20");
        match self {
            Self::Null => f.write_str("null"),
            Self::Tiny(v) => write!(f, "tiny:{v}"),
            Self::Int(v) => write!(f, "int:{v}"),
            Self::Long(v) => write!(f, "long:{v}"),
            Self::Unsigned(v) => write!(f, "unsigned:{v}"),
            Self::Double(v) => write!(f, "double:{v:?}"),
            Self::Text(v) => write!(f, "text:{}", bytes(v)),
            Self::Blob(v) => write!(f, "blob:{}", bytes(v)),
            Self::Date(year, month, day) => write!(f, "date:{year}-{month}-{day}"),
        }
    }
}

/// Reads what [`Script`]'s `Display` writes; empty lines and lines that begin with `#` say nothing.
impl std::str::FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut script = Self {
            connections: 1,
            clients: Vec::new(),
            steps: Vec::new(),
        };
        for line in text.lines().map(str::trim_start) {
            let wrong = || format!("not a line of a script: {line}");
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "" => {}
                _ if word.starts_with('#') => {}
                "connections" => script.connections = rest.parse().map_err(|_| wrong())?,
                "client" => script.clients.push(read_client(rest).ok_or_else(wrong)?),
                _ => script.steps.push(Step {
                    client: word.parse().map_err(|_| wrong())?,
                    action: read_action(rest).ok_or_else(wrong)?,
                }),
            }
        }
        match script
            .steps
            .iter()
            .any(|s| s.client >= script.clients.len())
        {
            true => Err("a step of a client that is not there".to_owned()),
            false => Ok(script),
        }
    }
}

fn read_client(rest: &str) -> Option<Client> {
    let mut words = rest.split_whitespace();
    let charset = words.next()?.parse().ok()?;
    let database = words.next().filter(|&name| name != "-").map(str::to_owned);
    let read = |word| Trait::ALL.iter().find(|(_, name)| *name == word);
    let traits = words.map(|word| read(word).map(|(one, _)| *one));
    Some(Client {
        charset,
        database,
        traits: traits.collect::<Option<_>>()?,
    })
}

fn read_action(line: &str) -> Option<Action> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let number = |rest: &str| rest.split(' ').next()?.parse::<u32>().ok();
    let slot = || number(rest)?.try_into().ok();
    let second = || rest.split_once(' ').map(|(_, rest)| rest);
    Some(match word {
        "query" => Action::Query(bytes(rest)?),
        "twin" => Action::Twin(bytes(rest)?),
        "init_db" => Action::InitDb(bytes(rest)?),
        "field_list" => Action::FieldList(bytes(rest)?),
        "ping" => Action::Ping,
        "set_option" => Action::SetOption(rest.parse().ok()?),
        "reset" => Action::Reset,
        "change_user" => Action::ChangeUser(rest.to_owned()),
        "reconnect" => Action::Reconnect,
        "variables" => Action::Variables,
        "prepare" => Action::Prepare(slot()?, bytes(second()?)?),
        "execute" => {
            let mut words = second().unwrap_or("").split(' ').peekable();
            Action::Execute {
                slot: slot()?,
                cursor: words.next_if_eq(&"cursor").is_some(),
                bound: words.next_if_eq(&"unbound").is_none(),
                values: words
                    .filter(|word| !word.is_empty())
                    .map(read_value)
                    .collect::<Option<_>>()?,
            }
        }
        "long_data" => {
            let (at, data) = second()?.split_once(' ')?;
            Action::LongData(slot()?, at.parse().ok()?, bytes(data)?)
        }
        "fetch" => Action::Fetch(slot()?, number(second()?)?),
        "stmt_reset" => Action::ResetStatement(slot()?),
        "close" => Action::Close(slot()?),
        _ => return None,
    })
}

fn read_value(word: &str) -> Option<Value> {
    let (kind, rest) = word.split_once(':').unwrap_or((word, ""));
    Some(match kind {
        "null" => Value::Null,
        "tiny" => Value::Tiny(rest.parse().ok()?),
        "int" => Value::Int(rest.parse().ok()?),
        "long" => Value::Long(rest.parse().ok()?),
        "unsigned" => Value::Unsigned(rest.parse().ok()?),
        "double" => Value::Double(rest.parse().ok()?),
        "text" => Value::Text(bytes(rest)?),
        "blob" => Value::Blob(bytes(rest)?),
        "date" => {
            let mut parts = rest.split('-');
            Value::Date(
                parts.next()?.parse().ok()?,
                parts.next()?.parse().ok()?,
                parts.next()?.parse().ok()?,
            )
        }
        _ => return None,
    })
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once("\\x") {
        out.extend_from_slice(plain.as_bytes());
        out.push(u8::from_str_radix(escaped.get(..2)?, 16).ok()?);
        rest = &escaped[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}
