//! The table of all keys: what each may hold and whether a change takes effect while running.
//!
//! Loading finds unknown keys and wrong values with it, environment values are typed by it, live
//! changes are admitted by it, and a test holds `config/sidepool.toml` against it.

use std::str::FromStr;

use serde_json::Value;

use super::problem::{Problem, Problems};
use super::text::{parse_cidr, parse_duration, pin_reasons};
use super::{
    AuthMode, BackendAddress, BackendTlsMode, ByteSize, ClientTlsMode, CloseNotice, IdleMode,
    Keepalive, ListenAddress, LogFormat, LogLevel, OnPin, Pattern, PingMode, Role,
};

/// One key of the settings.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As in `client.rule[].user`; `[]` marks a list of tables.
    pub path: &'static str,
    /// What it may hold.
    pub(super) kind: Kind,
    /// Whether a change takes effect while running.
    pub liveness: Liveness,
}

/// Whether a change of a key takes effect while running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// At once, or for connections from then on.
    Live,
    /// After a restart.
    Restart,
}

use Liveness::{Live, Restart};

/// What a key may hold. A `Parse` says what is expected if it is not that.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Flag,
    Whole { min: u64, max: u64 },
    Text(Parse),
    List(Parse),
}

type Parse = fn(&str) -> Result<(), String>;

const FLAG: Kind = Kind::Flag;
const FREE: Kind = Kind::Text(|_| Ok(()));
const DURATION: Kind = Kind::Text(|text| parse_duration(text).map(drop));
const CIDR: Kind = Kind::Text(|text| parse_cidr(text).map(drop));
const PATTERN: Kind = Kind::Text(is::<Pattern>);
/// MySQL's and MariaDB's own upper limit of `max_connections`.
const CONNECTIONS: Kind = whole(0, 100_000);

/// Every key, in the order of the sections.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("server.worker_threads", whole(0, 1024), Restart),
    key("server.drain_timeout", DURATION, Restart),

    key("listener[].address", Kind::Text(is::<ListenAddress>), Restart),
    key("listener[].role", Kind::Text(is::<Role>), Restart),
    key("listener[].max_clients", whole(1, 10_000_000), Restart),
    key("listener[].proxy_protocol_from", Kind::List(|text| parse_cidr(text).map(drop)), Restart),
    key("listener[].tls.mode", Kind::Text(is::<ClientTlsMode>), Restart),
    key("listener[].tls.certificate", FREE, Live),
    key("listener[].tls.private_key", FREE, Live),

    key("client.handshake_timeout", DURATION, Restart),
    key("client.idle_timeout", Kind::Text(idle_timeout), Live),
    key("client.idle_transaction_timeout", DURATION, Live),
    key("client.pinned_idle_timeout", DURATION, Live),
    key("client.max_lifetime", DURATION, Live),
    key("client.idle_mode", Kind::Text(is::<IdleMode>), Live),
    key("client.close_notice", Kind::Text(is::<CloseNotice>), Live),
    key("client.ping", Kind::Text(is::<PingMode>), Live),
    key("client.ping_is_activity", FLAG, Live),
    key("client.on_pin", Kind::Text(is::<OnPin>), Live),
    key("client.trust_routines", FLAG, Live),
    key("client.keepalive", Kind::Text(is::<Keepalive>), Restart),
    key("client.stale_watch", DURATION, Restart),
    key("client.stale_watch_sockets", whole(0, 1_000_000), Restart),
    key("client.auto.target_per_day", whole(0, 1_000_000), Restart),
    key("client.auto.memory", Kind::Text(is::<ByteSize>), Restart),
    key("client.rule[].user", PATTERN, Live),
    key("client.rule[].database", PATTERN, Live),
    key("client.rule[].program_name", PATTERN, Live),
    key("client.rule[].source", CIDR, Live),
    key("client.rule[].idle_timeout", Kind::Text(idle_timeout), Live),
    key("client.rule[].idle_transaction_timeout", DURATION, Live),
    key("client.rule[].pinned_idle_timeout", DURATION, Live),
    key("client.rule[].max_lifetime", DURATION, Live),
    key("client.rule[].idle_mode", Kind::Text(is::<IdleMode>), Live),
    key("client.rule[].close_notice", Kind::Text(is::<CloseNotice>), Live),
    key("client.rule[].ping", Kind::Text(is::<PingMode>), Live),
    key("client.rule[].ping_is_activity", FLAG, Live),
    key("client.rule[].on_pin", Kind::Text(is::<OnPin>), Live),
    key("client.rule[].trust_routines", FLAG, Live),

    key("backend.addresses", Kind::List(is::<BackendAddress>), Restart),
    key("backend.monitor_user", FREE, Restart),
    key("backend.monitor_password_file", FREE, Restart),
    key("backend.connect_timeout", DURATION, Restart),
    key("backend.max_dials", whole(1, 1000), Restart),
    key("backend.probe_interval", DURATION, Restart),
    key("backend.allow_public_key_retrieval", FLAG, Restart),
    key("backend.tls.mode", Kind::Text(is::<BackendTlsMode>), Restart),
    key("backend.tls.ca", FREE, Restart),

    key("pool.max_connections", CONNECTIONS, Live),
    key("pool.max_connections_percent", whole(1, 100), Live),
    key("pool.max_idle_percent", whole(0, 100), Live),
    key("pool.min_idle", CONNECTIONS, Live),
    key("pool.idle_timeout", DURATION, Live),
    key("pool.max_lifetime", DURATION, Live),
    key("pool.borrow_timeout", DURATION, Live),
    key("pool.init_query", FREE, Restart),
    key("pool.pinning_filters", Kind::List(|text| pin_reasons::parse(text).map(drop)), Restart),

    key("auth.mode", Kind::Text(is::<AuthMode>), Restart),
    key("auth.recheck", DURATION, Live),
    key("auth.allow[].user", PATTERN, Live),
    key("auth.allow[].source", CIDR, Live),
    key("auth.allow[].require_tls", FLAG, Live),
    key("auth.user[].name", FREE, Live),
    key("auth.user[].password_file", FREE, Live),
    key("auth.user[].password_env", FREE, Live),

    key("admin.address", Kind::Text(is_or_empty::<ListenAddress>), Restart),
    key("admin.metrics_address", Kind::Text(is_or_empty::<ListenAddress>), Restart),
    key("admin.token_file", FREE, Restart),

    key("console.address", Kind::Text(is_or_empty::<ListenAddress>), Restart),
    key("console.user[].name", FREE, Restart),
    key("console.user[].password_file", FREE, Restart),
    key("console.user[].password_env", FREE, Restart),

    key("log.level", Kind::Text(is::<LogLevel>), Live),
    key("log.format", Kind::Text(is::<LogFormat>), Restart),
];

/// What stands at a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    /// A value.
    Leaf(&'static Key),
    /// A table with keys of its own.
    Table,
    /// A list of tables.
    Tables,
    /// No such key.
    Unknown,
}

/// What stands at a path such as `client.rule[].user`.
pub(super) fn node(path: &str) -> Node {
    for key in KEYS {
        match key.path.strip_prefix(path) {
            Some("") => return Node::Leaf(key),
            Some(rest) if path.is_empty() || rest.starts_with('.') => return Node::Table,
            Some(rest) if rest.starts_with("[]") => return Node::Tables,
            _ => {}
        }
    }
    Node::Unknown
}

/// Whether all keys at and below a path are live, all are not, or some are (`None`).
pub(super) fn liveness(path: &str) -> Option<Liveness> {
    let mut found = KEYS
        .iter()
        .filter(|key| is_at_or_below(key.path, path))
        .map(|key| key.liveness);
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// The known key (or, for a table, section) whose path is the nearest to one that is not known.
pub(super) fn nearest(path: &str, is_table: bool) -> &'static str {
    let candidates = KEYS.iter().flat_map(|key| {
        let tables = key
            .path
            .match_indices(['.', '['])
            .map(|(end, _)| &key.path[..end]);
        let leaf = (!is_table).then_some(key.path);
        leaf.into_iter().chain(tables.filter(move |_| is_table))
    });
    let last = |path: &'_ str| {
        path.rsplit('.')
            .next()
            .map(str::to_owned)
            .unwrap_or_default()
    };
    let likeness = |candidate: &str| {
        2.0 * strsim::normalized_damerau_levenshtein(candidate, path)
            + strsim::normalized_damerau_levenshtein(&last(candidate), &last(path))
    };
    candidates
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .unwrap_or_default()
}

/// All unknown keys and wrong values of a tree; `place` is what to put behind a key, such as
/// ` (in FILE)`.
pub(super) fn check(tree: &Value, place: &str) -> Problems {
    let mut problems = Problems::default();
    check_node(tree, &mut String::new(), place, &mut problems);
    problems
}

fn check_node(value: &Value, path: &mut String, place: &str, problems: &mut Problems) {
    let schema_path = without_indexes(path);
    let subject = if path.is_empty() {
        format!("settings{place}")
    } else {
        format!("{path}{place}")
    };
    let wrong = |expected: &str| {
        Problem::new(
            &subject,
            format!("expected {expected}, found {}", shown(value)),
        )
    };
    match (node(&schema_path), value) {
        (Node::Leaf(key), _) => {
            if let Err(expected) = key.kind.check(value) {
                problems.0.push(wrong(&expected));
            }
        }
        (Node::Table, Value::Object(table)) => {
            for (name, child) in table {
                let dot = if path.is_empty() { "" } else { "." };
                under(path, &format!("{dot}{name}"), |path| {
                    check_node(child, path, place, problems)
                });
            }
        }
        (Node::Table, _) => problems.0.push(wrong("a table with keys of its own")),
        (Node::Tables, Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                under(path, &format!("[{index}]"), |path| {
                    check_item(item, path, place, problems)
                });
            }
        }
        (Node::Tables, _) => {
            problems.0.push(wrong(&format!(
                "a list of tables, written [[{schema_path}]]"
            )));
        }
        (Node::Unknown, _) => {
            let nearest = nearest(&schema_path, value.is_object());
            problems.push(
                subject,
                format!("unknown key; the nearest known one is {nearest}"),
            );
        }
    }
}

fn check_item(item: &Value, path: &mut String, place: &str, problems: &mut Problems) {
    if item.is_null() {
        let message = "not set, although a later one is; indexes count from 0 without a gap";
        problems.push(format!("{path}{place}"), message);
    } else {
        check_node(item, path, place, problems);
    }
}

/// Runs with the path made longer for a while.
fn under(path: &mut String, part: &str, run: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push_str(part);
    run(path);
    path.truncate(length);
}

impl Kind {
    /// Whether the value is one for this key; else what is expected.
    fn check(self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (Self::Flag, Value::Bool(_)) => Ok(()),
            (Self::Whole { min, max }, Value::Number(n))
                if n.as_u64().is_some_and(|n| (min..=max).contains(&n)) =>
            {
                Ok(())
            }
            (Self::Text(parse), Value::String(text)) => parse(text),
            (Self::List(parse), Value::Array(items)) => items
                .iter()
                .try_for_each(|item| item.as_str().ok_or_else(|| self.expected()).and_then(parse)),
            _ => Err(self.expected()),
        }
    }

    /// A value from text that has no types: an environment variable, a console's `SET`.
    ///
    /// # Errors
    /// What is expected.
    pub(super) fn read(self, text: &str) -> Result<Value, String> {
        let value = match self {
            Self::Flag => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Value::Bool(true),
                "false" | "0" | "no" | "off" => Value::Bool(false),
                _ => return Err(self.expected()),
            },
            Self::Whole { .. } => Value::from(text.parse::<u64>().map_err(|_| self.expected())?),
            Self::Text(_) => Value::from(text),
            Self::List(_) if text.trim().is_empty() => Value::Array(Vec::new()),
            Self::List(_) => text
                .split(',')
                .map(|item| Value::from(item.trim()))
                .collect(),
        };
        self.check(&value).map(|()| value)
    }

    fn expected(self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Self::Text(parse) => {
                // Whoever can say what is expected of a text says it about one that none can be.
                let expected = parse("\0").err();
                expected.map_or_else(|| "text".to_owned(), |e| format!("text: {e}"))
            }
            Self::List(_) => "a list of texts".to_owned(),
        }
    }
}

/// `client.rule[0].user` → `client.rule[].user`.
pub(super) fn without_indexes(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|c| {
            inside = (inside || *c == '[') && *c != ']';
            !inside || *c == '['
        })
        .collect()
}

/// A value as it is quoted in a message, shortened.
pub(super) fn shown(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn is_at_or_below(key: &str, path: &str) -> bool {
    key.strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

const fn key(path: &'static str, kind: Kind, liveness: Liveness) -> Key {
    Key {
        path,
        kind,
        liveness,
    }
}

const fn whole(min: u64, max: u64) -> Kind {
    Kind::Whole { min, max }
}

fn is<T: FromStr<Err = String>>(text: &str) -> Result<(), String> {
    T::from_str(text).map(drop)
}

fn is_or_empty<T: FromStr<Err = String>>(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Ok(())
    } else {
        is::<T>(text)
    }
}

fn idle_timeout(text: &str) -> Result<(), String> {
    match text {
        "auto" => Err("a duration such as \"30m\" (\"auto\" is not available yet)".to_owned()),
        _ => parse_duration(text).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_keys() {
        for (path, is_table, expected) in [
            ("client.idle_tiemout", false, "client.idle_timeout"),
            ("client.rule[].usr", false, "client.rule[].user"),
            ("client.borrow_timeout", false, "pool.borrow_timeout"),
            ("backend.adresses", false, "backend.addresses"),
            ("backend.address", false, "backend.addresses"),
            ("pool.max_connection", false, "pool.max_connections"),
            ("clients", true, "client"),
            ("listner", true, "listener"),
            ("listener[].ssl", true, "listener[].tls"),
            ("", false, nearest("", false)),
        ] {
            assert_eq!(nearest(path, is_table), expected, "{path}");
        }
    }

    #[test]
    fn paths_without_indexes() {
        assert_eq!(
            without_indexes("client.rule[12].user"),
            "client.rule[].user"
        );
        assert_eq!(without_indexes("listener[0]"), "listener[]");
        assert_eq!(without_indexes("log.level"), "log.level");
    }

    #[test]
    fn liveness_of_a_branch() {
        assert_eq!(liveness("client.rule"), Some(Live));
        assert_eq!(liveness("listener"), None);
        assert_eq!(liveness("admin"), Some(Restart));
        assert_eq!(liveness("nothing"), None);
    }

    #[test]
    fn text_becomes_the_type_of_its_key() {
        let read = |path: &str, text: &str| match node(path) {
            Node::Leaf(key) => key.kind.read(text),
            other => panic!("{path} is {other:?}"),
        };
        for (path, text, value) in [
            ("pool.max_connections", "12", Ok(Value::from(12))),
            (
                "pool.max_connections",
                "-1",
                Err("a whole number from 0 to 100000"),
            ),
            (
                "pool.max_idle_percent",
                "101",
                Err("a whole number from 0 to 100"),
            ),
            ("client.ping_is_activity", "Off", Ok(Value::from(false))),
            ("client.ping_is_activity", "maybe", Err("true or false")),
            ("auth.user[].name", "123", Ok(Value::from("123"))),
            ("auth.user[].name", "true", Ok(Value::from("true"))),
            (
                "backend.addresses",
                "a:1, b:2",
                Ok(serde_json::json!(["a:1", "b:2"])),
            ),
            ("backend.addresses", "", Ok(serde_json::json!([]))),
            ("log.format", "xml", Err("one of \"text\", \"json\"")),
        ] {
            assert_eq!(
                read(path, text),
                value.map_err(str::to_owned),
                "{path} {text}"
            );
        }
    }
}
