//! What becomes of passwords that change, expire, come in pairs, or are refused later on.

use std::fs;
use std::time::Instant;

use super::*;
use crate::support::wire::Reply;

on_every_server! {
    a_login_within_recheck_costs_the_database_nothing => costs_nothing;
    a_password_refused_at_a_borrow_is_withdrawn_for_everybody => withdrawn;
    a_login_of_the_pool_counts_as_proof => pool_proves;
    a_new_password_works_at_once_and_the_old_one_until_it_is_rechecked => changed;
    an_expired_password_admits_nobody => expired;
    a_locked_account_is_told_so => locked;
    many_wrong_passwords_make_the_next_wait => throttled;
    users_of_the_settings_are_reloaded_with_a_time_of_grace => users;
}

async fn costs_nothing(server: &Server) {
    create(server, "l_free", &identified_by("right"));
    let tap = Tap::to(server.address(), Vec::new());
    let sidepool = Sidepool::launch(&tap.address(), &[NEVER_RECHECKED]);
    sidepool.wait_ready();
    connect(&sidepool, "l_free", "right").await.unwrap();
    let before = tap.total();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(connect(&sidepool, "l_free", "right").await.unwrap());
    }
    assert_eq!(tap.total(), before, "bytes and connections");
    logged_in(&sidepool, 1, 20);
    assert_eq!(value(&mut clients[7], "SELECT 7").await, "7");
    assert!(tap.total().0 > before.0, "the tap sees what it should");
}

async fn withdrawn(server: &Server) {
    create(server, "l_gone", &identified_by("old"));
    let sidepool = Sidepool::start(server, &[NEVER_RECHECKED, SHORT_LIVED]);
    let mut a = connect(&sidepool, "l_gone", "old").await.unwrap();
    let mut b = connect(&sidepool, "l_gone", "old").await.unwrap();
    server.root("ALTER USER 'l_gone'@'%' IDENTIFIED BY 'new'");
    no_connections(server, "l_gone").await;
    let Reply::Err(error) = a.query("SELECT 1").await else {
        panic!("the old password opened a connection")
    };
    assert_eq!(error.code, 1045, "{error:?}");
    closed(&mut a).await;
    // The other did nothing, and is closed all the same.
    closed(&mut b).await;
    let total = "sidepool_client_connections_closed_total";
    sidepool.wait("counted", |s| s.metric(total, "auth_revoked") == 2.0);
    // The proof is young, but it was taken back.
    assert_eq!(refusal(&sidepool, "l_gone", "old").await.code, 1045);
    let mut new = connect(&sidepool, "l_gone", "new").await.unwrap();
    assert_eq!(value(&mut new, "SELECT 2").await, "2");
}

async fn pool_proves(server: &Server) {
    create(server, "l_pool", &identified_by("first"));
    let sidepool = Sidepool::start(
        server,
        &[
            NEVER_RECHECKED,
            SHORT_LIVED,
            ("SIDEPOOL_AUTH__USER__0__NAME", "l_pool"),
            ("SIDEPOOL_AUTH__USER__0__PASSWORD_ENV", "PRELOADED"),
            ("PRELOADED", "second"),
        ],
    );
    let mut a = connect(&sidepool, "l_pool", "first").await.unwrap();
    server.root("ALTER USER 'l_pool'@'%' IDENTIFIED BY 'second'");
    no_connections(server, "l_pool").await;
    // Its own password is denied, and the other that is known opens the connection.
    a.query("SELECT 1").await;
    closed(&mut a).await;
    logged_in(&sidepool, 1, 0);
    connect(&sidepool, "l_pool", "second").await.unwrap();
    logged_in(&sidepool, 1, 1);
    assert_eq!(refusal(&sidepool, "l_pool", "first").await.code, 1045);
}

async fn changed(server: &Server) {
    create(server, "l_changed", &identified_by("old"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidepool.toml");
    fs::write(&file, "[auth]\nrecheck = \"1h\"\n").unwrap();
    let sidepool = Sidepool::with_file(server, &file, &[]);
    connect(&sidepool, "l_changed", "old").await.unwrap();
    server.root("ALTER USER 'l_changed'@'%' IDENTIFIED BY 'new'");
    connect(&sidepool, "l_changed", "new").await.unwrap();
    connect(&sidepool, "l_changed", "old").await.unwrap();
    logged_in(&sidepool, 2, 1);
    fs::write(&file, "[auth]\nrecheck = \"0s\"\n").unwrap();
    sidepool.signal("HUP");
    sidepool.wait("reloaded", |s| s.log().contains("settings reloaded"));
    assert_eq!(refusal(&sidepool, "l_changed", "old").await.code, 1045);
    connect(&sidepool, "l_changed", "new").await.unwrap();
}

#[tokio::test]
async fn both_passwords_of_a_rotation_work_until_the_old_one_is_discarded() {
    if !servers::makes().contains(&Make::MySql) {
        return;
    }
    let server = servers::shared(Make::MySql);
    create(server, "l_dual", &identified_by("old"));
    let cached = Sidepool::start(server, &[NEVER_RECHECKED]);
    let proved = Sidepool::start(server, &[ALWAYS_RECHECKED]);
    connect(&cached, "l_dual", "old").await.unwrap();
    server.root("ALTER USER 'l_dual'@'%' IDENTIFIED BY 'new' RETAIN CURRENT PASSWORD");
    for _ in 0..2 {
        for password in ["old", "new"] {
            let mut client = connect(&cached, "l_dual", password).await.unwrap();
            assert_eq!(value(&mut client, "SELECT 1").await, "1");
            connect(&proved, "l_dual", password).await.unwrap();
        }
    }
    logged_in(&cached, 2, 3);
    server.root("ALTER USER 'l_dual'@'%' DISCARD OLD PASSWORD");
    assert_eq!(refusal(&proved, "l_dual", "old").await.code, 1045);
    connect(&proved, "l_dual", "new").await.unwrap();
}

async fn expired(server: &Server) {
    create(server, "l_expired", &identified_by("right"));
    let sidepool = Sidepool::start(server, &[NEVER_RECHECKED]);
    server.root("ALTER USER 'l_expired'@'%' PASSWORD EXPIRE");
    // MySQL ends such a login; MariaDB lets it in and refuses every statement.
    let code = if is_mariadb(server) { 1820 } else { 1862 };
    for _ in 0..2 {
        let refused = refusal(&sidepool, "l_expired", "right").await;
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(!refused.message.contains("Sidepool"), "{refused:?}");
    }
    sidepool.wait("counted", |s| rejected(s, "access_denied") == 2.0);
    server.root("ALTER USER 'l_expired'@'%' IDENTIFIED BY 'right'");
    connect(&sidepool, "l_expired", "right").await.unwrap();
    logged_in(&sidepool, 1, 0);
}

async fn locked(server: &Server) {
    create(server, "l_locked", &identified_by("right"));
    let sidepool = Sidepool::start(server, &[ALWAYS_RECHECKED]);
    connect(&sidepool, "l_locked", "right").await.unwrap();
    server.root("ALTER USER 'l_locked'@'%' ACCOUNT LOCK");
    let direct = server.address();
    let login = Login {
        user: "l_locked",
        password: "right",
        ..Login::to(&direct)
    };
    let expected = Wire::connect(&login).await.err().unwrap();
    let refused = refusal(&sidepool, "l_locked", "right").await;
    assert_eq!(refused.code, expected.code, "{refused:?}");
    server.root("ALTER USER 'l_locked'@'%' ACCOUNT UNLOCK");
    connect(&sidepool, "l_locked", "right").await.unwrap();
}

/// Whoever guesses passwords gets an account blocked, and must not get its clients closed.
#[tokio::test]
async fn an_account_blocked_by_others_failures_keeps_its_clients() {
    if !servers::makes().contains(&Make::MySql) {
        return;
    }
    let server = servers::shared(Make::MySql);
    let how = "IDENTIFIED BY 'right' FAILED_LOGIN_ATTEMPTS 1 PASSWORD_LOCK_TIME 1";
    create(server, "l_blocked", how);
    let sidepool = Sidepool::start(server, &[NEVER_RECHECKED, SHORT_LIVED]);
    let mut a = connect(&sidepool, "l_blocked", "right").await.unwrap();
    let direct = server.address();
    let guess = Login {
        user: "l_blocked",
        password: "wrong",
        ..Login::to(&direct)
    };
    assert_eq!(Wire::connect(&guess).await.err().unwrap().code, 3955);
    no_connections(server, "l_blocked").await;
    let refused = a.query("SELECT 1").await.err();
    assert_eq!(refused.code, 3955, "{refused:?}");
    server.root("ALTER USER 'l_blocked'@'%' ACCOUNT UNLOCK");
    assert_eq!(value(&mut a, "SELECT 1").await, "1");
}

async fn throttled(server: &Server) {
    create(server, "l_slow", &identified_by("right"));
    create(server, "l_fast", &identified_by("right"));
    let sidepool = Sidepool::start(server, &[NEVER_RECHECKED]);
    for _ in 0..11 {
        assert_eq!(refusal(&sidepool, "l_slow", "wrong").await.code, 1045);
    }
    // The eleventh has waited 250 ms, the next waits 500 ms from its failure on, right or wrong.
    let failed = Instant::now();
    connect(&sidepool, "l_slow", "right").await.unwrap();
    let waited = failed.elapsed();
    assert!(waited > Duration::from_millis(400), "{waited:?}");
    connect(&sidepool, "l_fast", "right").await.unwrap();
}

async fn users(server: &Server) {
    create(server, "l_user", &identified_by("one"));
    create(server, "l_unlisted", &identified_by("one"));
    let dir = tempfile::tempdir().unwrap();
    let (file, secret) = (dir.path().join("s.toml"), dir.path().join("secret"));
    fs::write(&secret, "one\n").unwrap();
    let text = format!(
        "[auth]\nmode = \"users\"\n[[auth.user]]\nname = \"l_user\"\npassword_file = \"{}\"\n",
        secret.display()
    );
    fs::write(&file, text).unwrap();
    let tap = Tap::to(server.address(), Vec::new());
    let backends = ("SIDEPOOL_BACKEND__ADDRESSES", &tap.address()[..]);
    let sidepool = Sidepool::with_file(server, &file, &[backends, SHORT_LIVED]);
    let before = tap.total();
    assert_eq!(refusal(&sidepool, "l_unlisted", "one").await.code, 1045);
    assert_eq!(refusal(&sidepool, "l_user", "two").await.code, 1045);
    assert_eq!(tap.total(), before, "the database was not asked");
    connect(&sidepool, "l_user", "one").await.unwrap();
    // First here, then there: between the two the database takes the old one only.
    fs::write(&secret, "two\n").unwrap();
    sidepool.signal("HUP");
    sidepool.wait("reloaded", |s| s.log().contains("settings reloaded"));
    no_connections(server, "l_user").await;
    for at_database in ["one", "two"] {
        let alter = format!("ALTER USER 'l_user'@'%' IDENTIFIED BY '{at_database}'");
        server.root(&alter);
        for password in ["one", "two"] {
            let mut client = connect(&sidepool, "l_user", password).await.unwrap();
            assert_eq!(value(&mut client, "SELECT 1").await, "1");
        }
        no_connections(server, "l_user").await;
    }
    assert_eq!(refusal(&sidepool, "l_user", "three").await.code, 1045);
}
