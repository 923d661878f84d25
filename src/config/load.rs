//! Loading: one TOML file below, the environment above it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use ::config::{Config, ConfigError, File, FileFormat, ValueKind};
use serde_json::Value;

use super::Settings;
use super::problem::Problems;
use super::schema::{self, Node};

/// Read when no file is named and this one exists.
pub const DEFAULT_FILE: &str = "/etc/sidepool/sidepool.toml";

const PREFIX: &str = "SIDEPOOL_";
/// Variables of scripts and tests, which are no settings.
const NOT_SETTINGS: [&str; 3] = ["SIDEPOOL_TEST_", "SIDEPOOL_QUICKSTART_", "SIDEPOOL_BIN"];
/// More tables in a list than this are a typing error; `config` would fill the gap.
pub(super) const MAX_INDEX: usize = 999;

/// Environment variables, of this process or made up.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// Those of this process, as of now.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(vars: I) -> Self {
        Self(
            vars.into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

/// Loads and validates the settings: the file, and over it the environment's
/// `SIDEPOOL_SECTION__KEY`. Without a file [`DEFAULT_FILE`] is read where it exists.
///
/// # Errors
/// Everything found wrong in the file and the environment; if those are well-formed, everything
/// that does not fit together.
pub fn load(file: Option<&Path>, env: &Environment) -> Result<Settings, Problems> {
    load_or(file, Path::new(DEFAULT_FILE), env)
}

fn load_or(file: Option<&Path>, default: &Path, env: &Environment) -> Result<Settings, Problems> {
    let (path, text) = read(file, default)?;
    let (base, mut problems) = parse(&path, &text);
    let overrides = overrides(env, &base, &mut problems);
    problems.into_result()?;
    let tree = layer(&text, overrides).map_err(|e| Problems::one("settings", e.to_string()))?;
    from_tree(tree)
}

/// Settings from a whole tree of keys, validated.
pub(super) fn from_tree(tree: Value) -> Result<Settings, Problems> {
    schema::check(&tree, "").into_result()?;
    let settings: Settings =
        serde_json::from_value(tree).map_err(|e| Problems::one("settings", e.to_string()))?;
    settings.validate()?;
    Ok(settings)
}

/// The tree of a TOML text with some paths (`client.rule[0].user`) set over it.
pub(super) fn layer(toml: &str, overrides: Vec<(String, Value)>) -> Result<Value, ConfigError> {
    let mut builder = Config::builder().add_source(File::from_str(toml, FileFormat::Toml));
    for (path, value) in overrides {
        builder = builder.set_override(path, plain(value))?;
    }
    builder.build()?.try_deserialize()
}

fn read(file: Option<&Path>, default: &Path) -> Result<(PathBuf, String), Problems> {
    let path = file.unwrap_or(default);
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((path.to_owned(), text)),
        Err(e) if file.is_none() && e.kind() == io::ErrorKind::NotFound => {
            Ok((path.to_owned(), String::new()))
        }
        Err(e) => Err(Problems::one(
            path.display().to_string(),
            format!("cannot be read: {e}"),
        )),
    }
}

/// The file's tree and what is wrong with it.
fn parse(path: &Path, text: &str) -> (Value, Problems) {
    let path = path.display();
    let table: toml::Table = match toml::from_str(text) {
        Ok(table) => table,
        Err(e) => {
            let start = e.span().map_or(0, |span| span.start);
            let line = 1 + text[..start].matches('\n').count();
            let problems = Problems::one(path.to_string(), format!("line {line}: {}", e.message()));
            return (Value::Null, problems);
        }
    };
    // A TOML tree is a JSON tree but for dates, which become tables that no key expects.
    let tree = serde_json::to_value(table).unwrap_or_default();
    let problems = schema::check(&tree, &format!(" (in {path})"));
    (tree, problems)
}

/// The paths that the environment sets, with their values typed.
fn overrides(env: &Environment, base: &Value, problems: &mut Problems) -> Vec<(String, Value)> {
    let mut overrides = Vec::new();
    let mut unknown = Vec::new();
    let settings = env
        .0
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?, value)));
    for (name, value) in settings.filter(|(name, _)| is_setting(name)) {
        let Some((path, kind)) = known(name) else {
            unknown.push(name);
            continue;
        };
        let text = value.to_str().ok_or_else(|| "UTF-8".to_owned());
        match text.and_then(|text| kind.read(text)) {
            Ok(value) => overrides.push((path, value)),
            Err(expected) => {
                let found = schema::shown(&Value::from(value.to_string_lossy()));
                problems.push(name, format!("expected {expected}, found {found}"));
            }
        }
    }
    // A password's variable may well be called SIDEPOOL_APP_PASSWORD.
    let passwords = password_variables(base, &overrides);
    for name in unknown
        .into_iter()
        .filter(|name| !passwords.iter().any(|p| p == name))
    {
        let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        let nearest = schema::nearest(&key, false);
        let variable = nearest
            .replace("[].", "__0__")
            .replace('.', "__")
            .to_ascii_uppercase();
        problems.push(
            name,
            format!("unknown key; the nearest known one is {PREFIX}{variable} ({nearest})"),
        );
    }
    overrides
}

/// Whether a variable is meant for Sidepool's settings.
fn is_setting(name: &str) -> bool {
    name.starts_with(PREFIX)
        && !NOT_SETTINGS.iter().any(|prefix| name.starts_with(prefix))
        && !is_service_link(name)
}

/// Whether Kubernetes sets this variable in every pod beside a service called `sidepool` or
/// `sidepool-…`: `SIDEPOOL_SERVICE_HOST`, `SIDEPOOL_PORT_3306_TCP_ADDR`. No setting looks like these.
fn is_service_link(name: &str) -> bool {
    let words: Vec<_> = name.split('_').collect();
    let service = |i: usize| {
        words[i] == "SERVICE"
            && words
                .get(i + 1)
                .is_some_and(|w| matches!(*w, "HOST" | "PORT"))
    };
    let port = |i: usize| {
        words[i] == "PORT"
            && words.get(i + 1).is_none_or(|w| w.parse::<u16>().is_ok())
            && words
                .get(i + 2)
                .is_none_or(|w| matches!(*w, "TCP" | "UDP" | "SCTP"))
    };
    !name.contains("__") && (1..words.len()).any(|i| service(i) || port(i))
}

/// The path and kind of the key that a variable sets: `SIDEPOOL_CLIENT__RULE__0__USER` is
/// `client.rule[0].user`.
fn known(name: &str) -> Option<(String, schema::Kind)> {
    let mut path = String::new();
    for part in name[PREFIX.len()..].split("__") {
        match part.parse::<usize>() {
            // `01` and `+1` would be second names of the same item.
            Ok(index) if index <= MAX_INDEX && index.to_string() == part => {
                path.push_str(&format!("[{part}]"));
            }
            _ if part.bytes().any(|b| b.is_ascii_lowercase()) => return None,
            _ => {
                let dot = if path.is_empty() { "" } else { "." };
                path.push_str(dot);
                path.push_str(&part.to_ascii_lowercase());
            }
        }
    }
    match schema::node(&schema::without_indexes(&path)) {
        Node::Leaf(key) => Some((path, key.kind)),
        _ => None,
    }
}

/// The variables that a `password_env` names, in the file or the environment.
fn password_variables<'a>(base: &'a Value, overrides: &'a [(String, Value)]) -> Vec<&'a str> {
    let in_base = ["/auth/user", "/console/user"]
        .into_iter()
        .filter_map(|list| base.pointer(list)?.as_array());
    let in_base = in_base
        .flatten()
        .filter_map(|user| user.get("password_env")?.as_str());
    let set = overrides
        .iter()
        .filter(|(path, _)| path.ends_with(".password_env"));
    in_base
        .chain(set.filter_map(|(_, value)| value.as_str()))
        .collect()
}

/// A value of the kinds that [`schema::Kind::read`] makes, as `config` takes it.
fn plain(value: Value) -> ValueKind {
    match value {
        Value::Bool(flag) => flag.into(),
        Value::Number(number) => number.as_u64().into(),
        Value::String(text) => text.into(),
        Value::Array(items) => items.into_iter().map(plain).collect::<Vec<_>>().into(),
        Value::Null | Value::Object(_) => ValueKind::Nil,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_is_read_only_where_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let default = dir.path().join("default.toml");
        let env: Environment = [("SIDEPOOL_BACKEND__ADDRESSES", "db:3306")]
            .into_iter()
            .collect();
        let none = Environment::default();
        let workers = |file, env| load_or(file, &default, env).map(|s| s.server.worker_threads);

        assert_eq!(workers(None, &env), Ok(0));
        let problems = workers(None, &none).unwrap_err();
        assert_eq!(problems.0[0].subject, "backend.addresses");

        std::fs::write(&default, "[server]\nworker_threads = 3").unwrap();
        assert_eq!(workers(None, &env), Ok(3));
        let named = dir.path().join("named.toml");
        std::fs::write(&named, "[server]\nworker_threads = 4").unwrap();
        assert_eq!(workers(Some(&named), &env), Ok(4));

        std::fs::write(&default, [0xff]).unwrap();
        assert_eq!(
            workers(None, &env).unwrap_err().0[0].subject,
            default.display().to_string()
        );
    }

    #[test]
    fn only_variables_of_services_pass_as_such() {
        for (name, is_link) in [
            ("SIDEPOOL_PORT", true),
            ("SIDEPOOL_PORT_3306_TCP_PORT", true),
            ("SIDEPOOL_A_B_SERVICE_PORT_MYSQL", true),
            ("SIDEPOOL_PORTS", false),
            ("SIDEPOOL_PORT_MAX", false),
            ("SIDEPOOL_SERVICE", false),
            ("SIDEPOOL_BACKEND__PORT", false),
        ] {
            assert_eq!(is_service_link(name), is_link, "{name}");
        }
    }
}
