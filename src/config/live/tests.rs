use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config::{CloseNotice, ListenAddress};

fn settings(toml: &str) -> Settings {
    let mut settings: Settings = toml::from_str(toml).unwrap();
    if settings.backend.addresses.is_empty() {
        settings.backend.addresses = vec!["db:3306".parse().unwrap()];
    }
    settings
}

fn outcomes(changes: &[Change]) -> Vec<(&str, Outcome)> {
    changes
        .iter()
        .map(|change| (change.key.as_str(), change.outcome))
        .collect()
}

#[test]
fn equal_settings_change_nothing() {
    let live = Live::new(settings(""));
    let before = live.snapshot();
    assert_eq!(live.apply(&settings("")), Ok(vec![]));
    assert_eq!(*live.snapshot(), *before);
}

#[test]
fn live_keys_change_and_others_wait_for_a_restart() {
    let live = Live::new(settings(""));
    let new = settings(
        "client.idle_timeout = '20m'\nclient.keepalive = '1m'\nlog.level = 'debug'\nserver.worker_threads = 3",
    );
    let changes = live.apply(&new).unwrap();
    assert_eq!(
        outcomes(&changes),
        [
            ("client.idle_timeout", Outcome::Applied),
            ("client.keepalive", Outcome::NeedsRestart),
            ("log.level", Outcome::Applied),
            ("server.worker_threads", Outcome::NeedsRestart),
        ]
    );
    assert_eq!(
        (&changes[0].old, &changes[0].new),
        (&json!("30m"), &json!("20m"))
    );
    assert_eq!(
        *live.snapshot(),
        settings("client.idle_timeout = '20m'\nlog.level = 'debug'")
    );
    // What waits is said again at the next reload.
    assert_eq!(live.apply(&new).unwrap().len(), 2);
}

#[test]
fn lists_of_rules_and_accounts_change_as_a_whole() {
    let live = Live::new(settings("client.rule = [{ user = 'a' }]"));
    let new = settings(
        "client.rule = [{ user = 'b', ping = 'backend' }, {}]\nauth.allow = [{ user = 'c' }]\n\
         auth.user = [{ name = 'u', password_env = 'U' }]\nconsole.user = [{ name = 'u', password_env = 'U' }]",
    );
    let changes = live.apply(&new).unwrap();
    assert_eq!(
        outcomes(&changes),
        [
            ("auth.allow", Outcome::Applied),
            ("auth.user", Outcome::Applied),
            ("client.rule", Outcome::Applied),
            ("console.user", Outcome::NeedsRestart),
        ]
    );
    assert_eq!(changes[2].old, json!([{ "user": "a" }]));
    let now = live.snapshot();
    assert_eq!((&now.client, &now.auth), (&new.client, &new.auth));
    assert_eq!(now.console.user, []);
}

#[test]
fn a_listeners_certificate_is_live_its_address_is_not() {
    let with = |first: &str, second: &str| {
        settings(&format!(
            "listener = [{{ address = '{first}', tls = {{ certificate = '/{first}', private_key = '/k' }} }},
                         {{ address = '{second}' }}]"
        ))
    };
    let live = Live::new(with("h:1", "h:2"));
    let mut new = with("h:1", "h:2");
    new.listener[0].tls.certificate = Some("/new".into());
    new.listener[0].max_clients = 5;
    let changes = live.apply(&new).unwrap();
    assert_eq!(
        outcomes(&changes),
        [
            ("listener[0].max_clients", Outcome::NeedsRestart),
            ("listener[0].tls.certificate", Outcome::Applied),
        ]
    );
    // Other listeners, or the same in another order: one must not get another's certificate.
    for other in [with("h:3", "h:2"), with("h:2", "h:1")] {
        let before = live.snapshot();
        assert_eq!(
            outcomes(&live.apply(&other).unwrap()),
            [("listener", Outcome::NeedsRestart)]
        );
        assert_eq!(live.snapshot().listener, before.listener);
    }
    assert_eq!(live.load().listener[0].address, ListenAddress::tcp("h", 1));
}

#[test]
fn bad_settings_change_nothing() {
    let live = Live::new(settings(""));
    let before = live.snapshot();
    let bad = settings("client.idle_timeout = '20m'\npool.borrow_timeout = '2h'");
    assert_eq!(
        live.apply(&bad).unwrap_err().0[0].subject,
        "pool.borrow_timeout"
    );
    assert!(Arc::ptr_eq(&live.snapshot(), &before));
}

#[test]
fn keys_are_set_by_path_and_text() {
    let live = Live::new(settings("client.rule = [{ user = 'a' }]"));
    let changes = live
        .set([
            ("client.idle_timeout", "20m"),
            ("pool.max_idle_percent", "7"),
        ])
        .unwrap();
    assert_eq!(changes.len(), 2);
    live.set([
        ("client.rule[0].close_notice", "none"),
        ("client.rule[1].user", "123"),
    ])
    .unwrap();
    let now = live.snapshot();
    assert_eq!(now.client.base.idle_timeout, Duration::from_secs(20 * 60));
    assert_eq!(now.pool.max_idle_percent, 7);
    assert_eq!(
        now.client.rule[0].overrides.close_notice,
        Some(CloseNotice::None)
    );
    assert_eq!(now.client.rule[1].user, "123".parse().ok());

    for (path, text, message) in [
        (
            "client.idle_tiemout",
            "1m",
            "unknown key; the nearest known one is client.idle_timeout",
        ),
        ("client", "1m", "unknown key"),
        ("client.idle_timeout", "soon", "expected a duration"),
        (
            "client.rule[4].user",
            "x",
            "not set, although a later one is",
        ),
        ("client.rule[-1].user", "x", "an index is"),
        ("client.rule[99999999].user", "x", "an index is"),
        ("client.rule[0.user", "x", "unknown key"),
    ] {
        let problems = live.set([(path, text)]).unwrap_err();
        assert!(
            problems.0[0].message.starts_with(message),
            "{path}: {problems}"
        );
        assert_eq!(*live.snapshot(), *now);
    }
}

#[test]
fn a_patch_merges_tables_replaces_lists_and_takes_null_for_the_default() {
    let live = Live::new(settings(
        "client.idle_timeout = '1h'\nclient.max_lifetime = '1h'",
    ));
    let patch = json!({
        "client": {
            "idle_timeout": null,
            "idle_mode": "observe",
            "rule": [{ "user": "a%", "idle_timeout": "2h" }],
        },
    });
    live.patch(&patch).unwrap();
    let expected = settings(
        "[client]\nmax_lifetime = '1h'\nidle_mode = 'observe'\nrule = [{ user = 'a%', idle_timeout = '2h' }]",
    );
    assert_eq!(*live.snapshot(), expected);

    for (patch, problem) in [
        (
            json!({ "client": { "idle_timeout": "auto" } }),
            "client.idle_timeout: expected a duration",
        ),
        (json!({ "client": 5 }), "client: expected a table"),
        (json!(5), "settings: expected a table"),
        (
            json!({ "clinet": {} }),
            "clinet: unknown key; the nearest known one is client",
        ),
        (
            json!({ "client": { "rule": [null] } }),
            "client.rule[0]: not set",
        ),
    ] {
        let problems = live.patch(&patch).unwrap_err();
        assert!(
            problems.to_string().starts_with(problem),
            "{patch}: {problems}"
        );
    }
    assert_eq!(*live.snapshot(), expected);
}

#[test]
fn changes_at_the_same_time_are_not_lost() {
    let live = Live::new(settings(""));
    let keys = [
        "client.idle_timeout",
        "client.max_lifetime",
        "pool.idle_timeout",
        "auth.recheck",
    ];
    std::thread::scope(|scope| {
        for key in keys {
            let live = &live;
            scope.spawn(move || {
                for n in 1..=20 {
                    live.set([(key, format!("{n}m").as_str())]).unwrap();
                }
            });
        }
    });
    let now = live.snapshot().to_json();
    for key in keys {
        assert_eq!(
            now.pointer(&format!("/{}", key.replace('.', "/"))),
            Some(&json!("20m")),
            "{key}"
        );
    }
}
