use super::*;

/// Settings with one backend on this machine and these TOML lines.
fn settings(toml: &str) -> Settings {
    toml::from_str(toml).unwrap()
}

fn valid(more: &str) -> Settings {
    let mut settings = settings(more);
    if settings.backend.addresses.is_empty() {
        settings.backend.addresses = vec!["db:3306".parse().unwrap()];
    }
    settings
}

fn problems(settings: &Settings) -> Vec<String> {
    let found = settings.validate().err().unwrap_or_default();
    found.0.iter().map(ToString::to_string).collect()
}

#[test]
fn only_the_backend_has_no_default() {
    let found = problems(&Settings::default());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("backend.addresses: no database server is named"));
    assert_eq!(problems(&valid("")), Vec::<String>::new());
}

/// TOML that breaks one rule, and how the one problem begins.
const BROKEN: &[(&str, &str)] = &[
    (
        "backend.addresses = ['a:1', 'b:1']",
        "backend.monitor_user: several addresses",
    ),
    (
        "backend.addresses = ['a:1', 'a:1']\nbackend.monitor_user = 'm'",
        "backend.addresses: a:1 is named twice",
    ),
    (
        "backend.monitor_password_file = '/m'",
        "backend.monitor_user: not set, although",
    ),
    (
        "backend.monitor_user = 'm'\npool.max_connections = 1",
        "pool.max_connections: must be at least 2",
    ),
    (
        "client.handshake_timeout = '0s'",
        "client.handshake_timeout: must be longer",
    ),
    (
        "backend.connect_timeout = '0s'",
        "backend.connect_timeout: must be longer",
    ),
    (
        "backend.probe_interval = '0s'",
        "backend.probe_interval: must be longer",
    ),
    (
        "pool.borrow_timeout = '61m'",
        "pool.borrow_timeout: must be at most 1h",
    ),
    ("client.keepalive = '500ms'", "client.keepalive: must be"),
    ("client.keepalive = '10h'", "client.keepalive: must be"),
    ("listener = []", "listener: at least one"),
    (
        "listener = [{ tls.certificate = '/c' }]",
        "listener[0].tls.private_key: not set",
    ),
    (
        "listener = [{ tls.private_key = '/k' }]",
        "listener[0].tls.certificate: not set",
    ),
    (
        "listener = [{}, {}]",
        "listener[1].address: 0.0.0.0:3306 cannot be listened on beside listener[0]",
    ),
    (
        "admin.metrics_address = '0.0.0.0:9136'",
        "admin.metrics_address: 0.0.0.0:9136 cannot",
    ),
    (
        "pool.max_connections = 5\npool.min_idle = 6",
        "pool.min_idle: must not be more",
    ),
    (
        "pool.max_connections_percent = 0",
        "pool.max_connections_percent: expected a whole number from 1",
    ),
    (
        "pool.max_connections_percent = 101",
        "pool.max_connections_percent: expected",
    ),
    (
        "pool.max_idle_percent = 101",
        "pool.max_idle_percent: expected a whole number from 0",
    ),
    (
        "auth.mode = 'users'",
        "auth.user: mode \"users\" admits nobody",
    ),
    ("auth.user = [{ name = 'a' }]", "auth.user[0]: no password"),
    (
        "auth.user = [{ password_env = 'A' }]",
        "auth.user[0].name: not set",
    ),
    (
        "auth.user = [{ name = 'a', password_env = 'A', password_file = '/a' }]",
        "auth.user[0]: password_file and password_env are both set",
    ),
    (
        "auth.user = [{ name = 'a', password_env = 'A' }, { name = 'a', password_env = 'B' }]",
        "auth.user: \"a\" is named twice",
    ),
    (
        "console.user = [{ name = 'a' }]",
        "console.user[0]: no password",
    ),
];

#[test]
fn each_rule_across_keys() {
    for (toml, start) in BROKEN {
        let found = problems(&valid(toml));
        assert_eq!(found.len(), 1, "{toml}: {found:?}");
        assert!(found[0].starts_with(start), "{toml}: {found:?}");
    }
}

#[test]
fn what_is_at_the_edge_of_a_rule_is_valid() {
    for toml in [
        "backend.addresses = ['a:1', 'b:1']\nbackend.monitor_user = 'm'",
        "pool.borrow_timeout = '1h'",
        "pool.borrow_timeout = '0s'",
        "client.idle_timeout = '0s'",
        "client.keepalive = '1s'",
        "listener = [{ tls = { certificate = '/c', private_key = '/k' } }]",
        "listener = [{ address = '127.0.0.1:0' }, { address = '127.0.0.1:0' }]",
        // Without a user the console does not listen.
        "listener = [{ address = '127.0.0.1:6036' }]",
        "pool.max_connections = 5\npool.min_idle = 5",
        "pool.max_idle_percent = 0",
        "pool.max_connections_percent = 1",
        "auth.mode = 'users'\nauth.user = [{ name = 'a', password_env = 'A' }]",
        "admin.address = ''\nconsole.address = ''",
    ] {
        assert_eq!(problems(&valid(toml)), Vec::<String>::new(), "{toml}");
    }
}

#[test]
fn values_made_in_code_are_checked_too() {
    let mut settings = valid("");
    settings.client.base.idle_timeout = Duration::MAX;
    let found = problems(&settings);
    assert!(
        found[0].starts_with("client.idle_timeout: expected a duration"),
        "{found:?}"
    );
}

/// Nothing that warns by itself.
const QUIET: &str = "listener = [{ address = '127.0.0.1:3306' }]";

#[test]
fn warnings_by_what_causes_them() {
    assert_eq!(valid(QUIET).warnings(), []);
    for (toml, subjects) in [
        ("", &["auth.allow", "listener[0].tls"][..]),
        ("auth.allow = [{}]", &["listener[0].tls"]),
        (
            "auth.allow = [{}]\nlistener = [{ tls = { certificate = '/c', private_key = '/k' } }]",
            &[],
        ),
        ("auth.allow = [{}]\nlistener = [{ tls.mode = 'off' }]", &[]),
        (
            "listener = [{ address = 'unix:/s', proxy_protocol_from = ['0.0.0.0/0'] }]",
            &["listener[0].proxy_protocol_from"],
        ),
    ] {
        let found: Vec<_> = valid(toml)
            .warnings()
            .into_iter()
            .map(|w| w.subject)
            .collect();
        assert_eq!(found, subjects, "{toml}");
    }
    for toml in [
        "admin.address = '0.0.0.0:9136'\nadmin.token_file = '/t'",
        "client.idle_timeout = '1m'\nclient.idle_mode = 'observe'",
        "client.idle_timeout = '0s'",
        "client.rule = [{ user = 'a' }, { on_pin = 'warn' }]",
        "backend.tls = { mode = 'verify_ca', ca = '/ca' }",
    ] {
        assert_eq!(valid(&format!("{QUIET}\n{toml}")).warnings(), [], "{toml}");
    }
}

#[test]
fn each_doubtful_setting_warns_of_itself_alone() {
    for (toml, subject) in [
        (
            "backend.monitor_user = 'm'",
            "backend.monitor_password_file",
        ),
        ("admin.address = '0.0.0.0:9136'", "admin.token_file"),
        ("client.idle_timeout = '1m'", "client.idle_timeout"),
        (
            "client.pinned_idle_timeout = '8h'",
            "client.pinned_idle_timeout",
        ),
        (
            "client.idle_transaction_timeout = '0s'",
            "client.idle_transaction_timeout",
        ),
        (
            "client.rule = [{ on_pin = 'warn' }, { user = 'a' }]",
            "client.rule[0]",
        ),
        ("pool.pinning_filters = ['routine']", "pool.pinning_filters"),
        ("backend.tls.ca = '/ca'", "backend.tls.ca"),
        (
            "backend.allow_public_key_retrieval = true",
            "backend.allow_public_key_retrieval",
        ),
        (
            "console.user = [{ name = 'admin', password_env = 'P' }]",
            "console.user",
        ),
    ] {
        let found: Vec<_> = valid(&format!("{QUIET}\n{toml}"))
            .warnings()
            .into_iter()
            .map(|w| w.subject)
            .collect();
        assert_eq!(found, [subject], "{toml}");
    }
}
