//! Settings with which Sidepool cannot start: one line that names the key, and an exit code.

use std::process::{Command, Stdio};

/// Runs the program to its end; the one line that it says, and its exit code.
fn refused(arguments: &[&str], settings: &[(&str, &str)]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_sidepool"))
        .args(arguments)
        .env(LISTENER, "127.0.0.1:0")
        .env("SIDEPOOL_ADMIN__ADDRESS", "127.0.0.1:0")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{settings:?}: {said}");
    assert!(output.stdout.is_empty(), "{settings:?}");
    (said, output.status.code())
}

const BACKEND: (&str, &str) = ("SIDEPOOL_BACKEND__ADDRESSES", "127.0.0.1:1");
const LISTENER: &str = "SIDEPOOL_LISTENER__0__ADDRESS";

/// Cannot start with these settings besides the least: says these words, ends with that code.
fn assert_refused(settings: &[(&str, &str)], words: &[&str], code: i32) {
    let settings = [&[BACKEND], settings].concat();
    let (said, exit) = refused(&[], &settings);
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(exit, Some(code), "{said}");
}

#[test]
fn a_backend_that_is_none_is_one_line_that_names_the_key() {
    let (said, exit) = refused(&[], &[]);
    assert!(said.contains("backend.addresses"), "{said}");
    assert_eq!(exit, Some(64), "{said}");
    for wrong in ["", "db:notaport", "db:3306,,db2:3306"] {
        assert_refused(&[(BACKEND.0, wrong)], &[BACKEND.0], 64);
    }
}

#[test]
fn files_that_are_missing_are_one_line_that_names_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.pem");
    let missing = missing.to_str().unwrap();
    let own = [
        ("SIDEPOOL_LISTENER__0__TLS__CERTIFICATE", missing),
        ("SIDEPOOL_LISTENER__0__TLS__PRIVATE_KEY", missing),
    ];
    assert_refused(&own, &["listener[0].tls", missing], 64);
    let ca = [
        ("SIDEPOOL_BACKEND__TLS__MODE", "verify_ca"),
        ("SIDEPOOL_BACKEND__TLS__CA", missing),
    ];
    assert_refused(&ca, &["backend.tls", missing], 64);
}

#[test]
fn addresses_that_cannot_be_bound_are_one_line_that_names_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nowhere/mysql.sock");
    let socket = format!("unix:{}", socket.display());
    for address in [&*socket, "no-such-host.invalid:3306", "192.0.2.1:3306"] {
        let words = ["listener[0].address", address];
        assert_refused(&[(LISTENER, address)], &words, 1);
    }
    let admin = [("SIDEPOOL_ADMIN__ADDRESS", "192.0.2.1:9136")];
    assert_refused(&admin, &["admin.address", "192.0.2.1:9136"], 1);
    let metrics = [("SIDEPOOL_ADMIN__METRICS_ADDRESS", "192.0.2.1:9137")];
    assert_refused(&metrics, &["admin.metrics_address", "192.0.2.1:9137"], 1);
}

#[test]
fn a_settings_file_that_is_not_there_or_not_toml_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidepool.toml");
    let path = file.to_str().unwrap();
    let (said, exit) = refused(&["--config", path], &[]);
    assert!(said.contains(path), "{said}");
    assert!(exit.is_some_and(|code| code != 0), "{said}");
    for garbage in [
        &b"\xff\xfe\0\0"[..],
        b"[backend\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        std::fs::write(&file, garbage).unwrap();
        let (said, exit) = refused(&["--config", path], &[]);
        assert!(said.contains(path), "{said}");
        assert_eq!(exit, Some(64), "{said}");
    }
}
