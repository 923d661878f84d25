//! Loading settings from real files and made-up environments, and `config/sidepool.toml` itself.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not tests to clippy"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use sidepool::config::{
    self, BackendAddress, ClientTlsMode, Environment, KEYS, ListenAddress, Liveness, Role, Secret,
    Settings,
};

/// A settings file in a directory of its own.
struct File {
    dir: tempfile::TempDir,
}

impl File {
    fn with(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sidepool.toml"), text).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("sidepool.toml")
    }
}

fn load(toml: &str, env: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
    let file = File::with(toml);
    let env: Environment = env.iter().copied().collect();
    config::load(Some(&file.path()), &env).map_err(|problems| {
        let place = file.path().display().to_string();
        problems
            .0
            .iter()
            .map(|p| p.to_string().replace(&place, "FILE"))
            .collect()
    })
}

const BACKEND: &str = "[backend]\naddresses = ['db:3306']\n";

fn default_with_backend() -> Settings {
    let mut settings = Settings::default();
    settings.backend.addresses = vec![BackendAddress::tcp("db", 3306)];
    settings
}

#[test]
fn one_setting_is_enough() {
    assert_eq!(load(BACKEND, &[]), Ok(default_with_backend()));
    assert_eq!(
        load("", &[("SIDEPOOL_BACKEND__ADDRESSES", "db:3306")]),
        Ok(default_with_backend())
    );
}

#[test]
fn the_environment_wins_over_the_file_item_by_item() {
    let toml = "
        [[listener]]
        address = '127.0.0.1:3306'
        max_clients = 7
        [[listener]]
        address = '127.0.0.1:3307'
        role = 'reader'
        [backend]
        addresses = ['old:3306']
        monitor_user = 'm'
        [[client.rule]]
        user = 'a'
        idle_timeout = '1h'
    ";
    let settings = load(
        toml,
        &[
            ("SIDEPOOL_LISTENER__0__ADDRESS", "unix:/run/x.sock"),
            ("SIDEPOOL_LISTENER__0__TLS__MODE", "off"),
            ("SIDEPOOL_LISTENER__2__ADDRESS", "[::1]:3308"),
            ("SIDEPOOL_BACKEND__ADDRESSES", "a:1, unix:/b"),
            ("SIDEPOOL_CLIENT__RULE__0__USER", "123"),
            ("SIDEPOOL_CLIENT__RULE__1__PING_IS_ACTIVITY", "false"),
            ("SIDEPOOL_POOL__MIN_IDLE", "5"),
            (
                "SIDEPOOL_LISTENER__1__PROXY_PROTOCOL_FROM",
                "10.0.0.0/8,192.168.1.1",
            ),
            ("HOME", "/root"),
        ],
    )
    .unwrap();
    let [first, second, third] = settings.listener.as_slice() else {
        panic!("{:?}", settings.listener);
    };
    assert_eq!(first.address, ListenAddress::Unix("/run/x.sock".into()));
    assert_eq!((first.max_clients, first.tls.mode), (7, ClientTlsMode::Off));
    assert_eq!(
        (second.role, second.proxy_protocol_from.len()),
        (Role::Reader, 2)
    );
    assert_eq!(
        (&third.address, third.max_clients),
        (&ListenAddress::tcp("::1", 3308), 10_000)
    );
    assert_eq!(
        settings.backend.addresses,
        [
            BackendAddress::tcp("a", 1),
            BackendAddress::Unix("/b".into())
        ]
    );
    let [rule, added] = settings.client.rule.as_slice() else {
        panic!("{:?}", settings.client.rule);
    };
    assert_eq!(rule.user, "123".parse().ok());
    assert_eq!(rule.overrides.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(added.overrides.ping_is_activity, Some(false));
    assert_eq!(settings.pool.min_idle, 5);
}

#[test]
fn mistakes_in_the_file_are_all_named_with_key_value_and_what_is_expected() {
    for (toml, expected) in [
        (
            "[client]\nidle_tiemout = '5m'",
            &[
                "client.idle_tiemout (in FILE): unknown key; the nearest known one is client.idle_timeout",
            ][..],
        ),
        (
            "[clinet]\nidle_timeout = '5m'",
            &["clinet (in FILE): unknown key; the nearest known one is client"],
        ),
        (
            "[client]\nidle_timeout = 5",
            &[
                "client.idle_timeout (in FILE): expected text: a duration such as \"30m\", \"10s\" or \"1h 30m\", found 5",
            ],
        ),
        (
            "[client]\nidle_timeout = 'auto'",
            &[
                "client.idle_timeout (in FILE): expected a duration such as \"30m\" (\"auto\" is not available yet), found \"auto\"",
            ],
        ),
        (
            "[pool]\nmin_idle = '4'\nmax_idle_percent = 101\nborrow_timeout = '1 fortnight'",
            &[
                "pool.borrow_timeout (in FILE): expected a duration such as \"30m\", \"10s\" or \"1h 30m\", found \"1 fortnight\"",
                "pool.max_idle_percent (in FILE): expected a whole number from 0 to 100, found 101",
                "pool.min_idle (in FILE): expected a whole number from 0 to 100000, found \"4\"",
            ],
        ),
        (
            "[listener]\naddress = 'x:1'",
            &[
                "listener (in FILE): expected a list of tables, written [[listener]], found {\"address\":\"x:1\"}",
            ],
        ),
        (
            "[[listener]]\n[[listener]]\ntls = 'off'\nrole = 'master'",
            &[
                "listener[1].role (in FILE): expected one of \"writer\", \"reader\", found \"master\"",
                "listener[1].tls (in FILE): expected a table with keys of its own, found \"off\"",
            ],
        ),
        (
            "[log]\nlevel = 'inof'",
            &[
                "log.level (in FILE): expected a level (off, error, warn, info, debug, trace), or directives such as \"info,sidepool::pool=debug\", found \"inof\"",
            ],
        ),
        (
            "[log]\nlevel = \n",
            &["FILE: line 2: string values must be quoted, expected literal string"],
        ),
        ("[log]\n[log]\n", &["FILE: line 2: duplicate key"]),
    ] {
        assert_eq!(load(toml, &[]).unwrap_err(), expected, "{toml}");
    }
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    for (name, value, expected) in [
        (
            "SIDEPOOL_CLIENT__IDLE_TIEMOUT",
            "5m",
            "unknown key; the nearest known one is SIDEPOOL_CLIENT__IDLE_TIMEOUT (client.idle_timeout)",
        ),
        (
            "SIDEPOOL_CLIENT_IDLE_TIMEOUT",
            "5m",
            "unknown key; the nearest known one is SIDEPOOL_CLIENT__IDLE_TIMEOUT (client.idle_timeout)",
        ),
        (
            "SIDEPOOL_LISTENER__ADDRESS",
            "x:1",
            "unknown key; the nearest known one is SIDEPOOL_LISTENER__0__ADDRESS (listener[].address)",
        ),
        (
            "SIDEPOOL_LOG",
            "debug",
            "unknown key; the nearest known one is SIDEPOOL_LOG__LEVEL (log.level)",
        ),
        (
            "SIDEPOOL_LISTENER__00__ADDRESS",
            "x:1",
            "unknown key; the nearest known one is SIDEPOOL_LISTENER__0__ADDRESS (listener[].address)",
        ),
        (
            "SIDEPOOL_LISTENER__1000__ADDRESS",
            "x:1",
            "unknown key; the nearest known one is SIDEPOOL_LISTENER__0__ADDRESS (listener[].address)",
        ),
        (
            "SIDEPOOL_POOL__MIN_IDLE",
            "many",
            "expected a whole number from 0 to 100000, found \"many\"",
        ),
        (
            "SIDEPOOL_CLIENT__PING_IS_ACTIVITY",
            "",
            "expected true or false, found \"\"",
        ),
    ] {
        assert_eq!(
            load(BACKEND, &[(name, value)]).unwrap_err(),
            [format!("{name}: {expected}")]
        );
    }
    let gap = load(BACKEND, &[("SIDEPOOL_LISTENER__2__ADDRESS", "x:1")]).unwrap_err();
    assert_eq!(gap.len(), 2, "{gap:?}");
    assert!(
        gap[0].starts_with("listener[0]: not set, although a later one is"),
        "{gap:?}"
    );
}

#[test]
fn mistakes_in_file_and_environment_are_found_together() {
    let found = load("[pool]\nmin_idel = 1", &[("SIDEPOOL_LOG__FORMAT", "xml")]).unwrap_err();
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn variables_that_are_no_settings_are_let_be() {
    for name in [
        "SIDEPOOL_TEST_MYSQL",
        "SIDEPOOL_QUICKSTART_PORT",
        "SIDEPOOL_BIN",
        // Kubernetes, for services called sidepool and sidepool-reader.
        "SIDEPOOL_SERVICE_HOST",
        "SIDEPOOL_SERVICE_PORT",
        "SIDEPOOL_SERVICE_PORT_MYSQL",
        "SIDEPOOL_PORT",
        "SIDEPOOL_PORT_3306_TCP",
        "SIDEPOOL_PORT_3306_TCP_ADDR",
        "SIDEPOOL_READER_SERVICE_HOST",
        "SIDEPOOL_READER_PORT_3306_TCP_PROTO",
        "sidepool_log",
    ] {
        assert_eq!(
            load(BACKEND, &[(name, "x")]),
            Ok(default_with_backend()),
            "{name}"
        );
    }
    let toml =
        format!("{BACKEND}[[auth.user]]\nname = 'a'\npassword_env = 'SIDEPOOL_APP_PASSWORD'\n");
    let env = [
        ("SIDEPOOL_APP_PASSWORD", "x"),
        ("SIDEPOOL_CONSOLE__USER__0__NAME", "c"),
        (
            "SIDEPOOL_CONSOLE__USER__0__PASSWORD_ENV",
            "SIDEPOOL_CONSOLE_PASSWORD",
        ),
        ("SIDEPOOL_CONSOLE_PASSWORD", "y"),
    ];
    assert!(load(&toml, &env).is_ok());
    assert_eq!(load(BACKEND, &env[..1]).unwrap_err().len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.toml");
    for path in [missing.as_path(), dir.path()] {
        let problems = config::load(Some(path), &Environment::default()).unwrap_err();
        assert_eq!(problems.0.len(), 1);
        assert_eq!(problems.0[0].subject, path.display().to_string());
    }
}

#[test]
fn secrets_come_from_files_and_variables() {
    let file = File::with("");
    let secret = |name: &str, content: &[u8]| {
        let path = file.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    for (content, password) in [
        (&b"pw"[..], &b"pw"[..]),
        (b"pw\n", b"pw"),
        (b"pw\r\n", b"pw"),
        (b"pw\n\n", b"pw\n"),
        (b"pw\r", b"pw\r"),
        (b" \xff ", b" \xff "),
    ] {
        let toml = format!(
            "{BACKEND}monitor_user = 'm'\nmonitor_password_file = '{path}'
            [admin]\ntoken_file = '{path}'
            [[auth.user]]\nname = 'a'\npassword_file = '{path}'
            [[console.user]]\nname = 'c'\npassword_env = 'C'\n",
            path = secret("pw", content),
        );
        let env: Environment = [("C", "console\n")].into_iter().collect();
        let secrets = load(&toml, &[]).unwrap().resolve_secrets(&env).unwrap();
        let password = Secret::new(password);
        assert_eq!(secrets.monitor_password.as_ref(), Some(&password));
        assert_eq!(secrets.admin_token.as_ref(), Some(&password));
        assert_eq!(secrets.users["a"], password);
        assert_eq!(secrets.console_users["c"], Secret::new(b"console\n"));
        assert!(!format!("{secrets:?}").contains("console\\n"));
    }
}

#[test]
fn secrets_that_cannot_be_read_are_all_named() {
    let file = File::with("");
    let empty = file.dir.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let toml = format!(
        "{BACKEND}[admin]\ntoken_file = '{}'
        [[auth.user]]\nname = 'a'\npassword_file = '/nonexistent'
        [[auth.user]]\nname = 'b'\npassword_env = 'B'
        [[auth.user]]\nname = 'c'\npassword_env = 'C'\n",
        empty.display()
    );
    let env: Environment = [("C", "")].into_iter().collect();
    let problems = load(&toml, &[]).unwrap().resolve_secrets(&env).unwrap_err();
    let found: Vec<_> = problems.0.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            format!("admin.token_file: {} is empty", empty.display()),
            "auth.user[0].password_file: /nonexistent cannot be read: No such file or directory (os error 2)"
                .to_owned(),
            "auth.user[1].password_env: the environment variable B is not set".to_owned(),
            "auth.user[2].password_env: the environment variable C is empty".to_owned(),
        ]
    );
}

#[test]
fn the_checksum_tells_settings_apart() {
    let settings = default_with_backend();
    let mut other = settings.clone();
    other.pool.min_idle = 1;
    assert_eq!(settings.checksum().len(), 12);
    assert_eq!(settings.checksum(), settings.clone().checksum());
    assert_ne!(settings.checksum(), other.checksum());
}

const SHIPPED: &str = include_str!("../config/sidepool.toml");

#[test]
fn the_shipped_file_holds_the_defaults() {
    let mut expected = Settings::default();
    expected.backend.addresses = vec![BackendAddress::tcp("mysql", 3306)];
    assert_eq!(load(SHIPPED, &[]), Ok(expected));
    // Not only equal to the defaults but written out: nothing is left to a default of the code.
    let written = leaves(&toml::from_str(SHIPPED).unwrap());
    assert_eq!(written, leaves(&load(SHIPPED, &[]).unwrap().to_json()));
}

#[test]
fn the_shipped_file_documents_every_key_and_marks_what_is_live() {
    let mut section = String::new();
    let mut documented = Vec::new();
    let mut prose = false;
    for line in SHIPPED.lines() {
        // An example stands behind a "#" without a space.
        let setting = line
            .strip_prefix('#')
            .filter(|rest| !rest.starts_with(' '))
            .unwrap_or(line);
        if let Some(table) = setting.strip_prefix('[') {
            let list = if table.starts_with('[') { "[]" } else { "" };
            section = table
                .trim_matches(['[', ']'])
                .replace("listener.", "listener[].")
                + list;
        } else if let Some((key, rest)) = setting
            .split_once(" = ")
            .filter(|_| !setting.starts_with('#'))
        {
            let (_, mark) = rest
                .rsplit_once("# ")
                .unwrap_or_else(|| panic!("no mark: {line}"));
            documented.push((format!("{section}.{key}"), mark.to_owned()));
            assert!(prose, "the file's first keys are explained");
        } else if setting.starts_with("# ") {
            prose = true;
        }
    }
    let known: Vec<_> = KEYS
        .iter()
        .map(|key| {
            let mark = match key.liveness {
                Liveness::Live => "live",
                Liveness::Restart => "restart",
            };
            (key.path.to_owned(), mark.to_owned())
        })
        .collect();
    assert_eq!(documented, known);
}

#[test]
fn the_examples_in_the_shipped_file_are_valid() {
    let examples: String = SHIPPED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let settings = load(&examples, &[]).unwrap();
    assert_eq!(
        (settings.client.rule.len(), settings.auth.allow.len()),
        (1, 1)
    );
    assert_eq!(
        (settings.auth.user.len(), settings.console.user.len()),
        (1, 1)
    );
    // The structs have the keys of the table, no more and no fewer.
    let known: BTreeSet<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(leaves(&settings.to_json()), known);
}

/// The paths of all values of a tree, lists without their indexes.
fn leaves(tree: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(table) => {
                for (name, child) in table {
                    let dot = if path.is_empty() { "" } else { "." };
                    walk(child, &format!("{path}{dot}{name}"), found);
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                items
                    .iter()
                    .for_each(|item| walk(item, &format!("{path}[]"), found));
            }
            // A list of tables without any.
            Value::Array(_)
                if KEYS
                    .iter()
                    .any(|key| key.path.starts_with(&format!("{path}[]"))) => {}
            _ => {
                found.insert(path.to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(tree, "", &mut found);
    found
}
