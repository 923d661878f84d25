//! Variables of the server that change while sessions and Sidepool remember what they led to.

use super::*;
use crate::support::eventually;

/// Each case has a server of its own: the other tests' sessions would see the change.
macro_rules! on_own_servers {
    ($($name:ident => $case:ident;)+) => {
        $(mod $name {
            use crate::support::servers::{Make, Server, makes};

            #[tokio::test]
            async fn mariadb() {
                super::$case(&Server::start(Make::MariaDb, &[])).await;
            }

            #[tokio::test]
            async fn mysql() {
                if makes().contains(&Make::MySql) {
                    super::$case(&Server::start(Make::MySql, &[])).await;
                }
            }
        })+
    };
}

on_own_servers! {
    a_client_that_sets_a_global_is_believed_at_once => set_by_a_client;
    a_login_that_shows_other_globals_is_believed => seen_by_a_login;
    a_global_that_cannot_be_set_back_does_not_hang_an_older_session => guarded;
}

async fn set_by_a_client(server: &Server) {
    server.root("GRANT ALL ON *.* TO app@'%'");
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_AUTH__RECHECK", "1h")]);
    let mut a = client(&sidepool).await;
    let before = value(&mut a, "SELECT @@default_week_format").await;
    assert_ne!(before, "5");
    for (sql, expected) in [
        ("SET GLOBAL default_week_format = 5", "5"),
        (
            "SET @@global.default_week_format = 6, time_zone = '+01:00'",
            "6",
        ),
    ] {
        a.run(sql).await;
        let mut b = client(&sidepool).await;
        assert_eq!(
            value(&mut b, "SELECT @@default_week_format").await,
            expected
        );
        assert_eq!(value(&mut a, "SELECT @@default_week_format").await, before);
    }
}

/// The change is made past Sidepool; another account's login (of the same key later) shows it.
async fn seen_by_a_login(server: &Server) {
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_AUTH__RECHECK", "1s"),
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "4"),
        ],
    );
    // The same text from the same state, with another outcome.
    let (global, text, variable, expected) = if is_mariadb(server) {
        (
            "SET GLOBAL optimizer_switch = 'index_merge=off'",
            "SET optimizer_switch = 'index_merge=default'",
            "SELECT @@optimizer_switch LIKE '%index_merge=off,%'",
            ["0", "1"],
        )
    } else {
        (
            "SET GLOBAL optimizer_switch = 'index_merge=off'",
            "SET optimizer_switch = 'default'",
            "SELECT @@optimizer_switch LIKE '%index_merge=off,%'",
            ["0", "1"],
        )
    };
    let mut a = client(&sidepool).await;
    for _ in 0..2 {
        a.run("SET optimizer_switch = 'mrr=off'").await;
        a.run(text).await;
        assert_eq!(value(&mut a, variable).await, expected[0]);
    }
    server.root(global);
    for _ in 0..2 {
        a.run("SET optimizer_switch = 'mrr=off'").await;
        a.run(text).await;
        assert_eq!(value(&mut a, variable).await, expected[1]);
    }
    eventually("new sessions begin with the new value", async || {
        let mut b = client(&sidepool).await;
        value(&mut b, variable).await == expected[1]
    })
    .await;
}

/// The connection in the older session's state is gone, and no new one can be brought there.
async fn guarded(server: &Server) {
    let (set, variable) = if is_mariadb(server) {
        (
            "SET GLOBAL binlog_row_image = 'MINIMAL'",
            "SELECT @@binlog_row_image",
        )
    } else {
        (
            "SET GLOBAL innodb_strict_mode = OFF",
            "SELECT @@innodb_strict_mode",
        )
    };
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "2"),
            ("SIDEPOOL_POOL__BORROW_TIMEOUT", "3s"),
        ],
    );
    let mut a = client(&sidepool).await;
    let before = value(&mut a, variable).await;
    a.run("SET time_zone = '+05:00'").await;
    server.root(set);
    let ids = server.root("SELECT id FROM information_schema.processlist WHERE user = 'app'");
    for id in ids.lines() {
        server.root(&format!("KILL {id}"));
    }
    // What the session has set itself stays; what it may not set is the server's.
    assert_ne!(value(&mut a, variable).await, before);
    assert_eq!(value(&mut a, "SELECT @@time_zone").await, "+05:00");
    let dialed = sidepool.metric("sidepool_pool_dials_total", "");
    assert!(
        dialed < 20.0,
        "{dialed} connections were opened for nothing"
    );
}
