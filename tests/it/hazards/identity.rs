//! Hazards 6 and 12: privileges and credentials that would leak from one client to another.

use super::*;
use crate::support::wire::Reply;

on_every_server! {
    h06_a_role_ends_with_its_session => role;
    h06_change_user_leaves_nothing_behind => change_user;
    h12_a_wrong_password_is_refused_whatever_is_known => wrong_password;
    h12_a_changed_password_is_noticed => changed_password;
}

/// A fresh account with that password.
fn account(server: &Server, name: &str, password: &str) {
    server.root(&format!(
        "DROP USER IF EXISTS '{name}'@'%'; CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'"
    ));
}

async fn role(server: &Server) {
    account(server, "h6role", "pw");
    server.database("t_h6");
    server.root(
        "CREATE TABLE t_h6.secret (a INT); DROP ROLE IF EXISTS h6boss; CREATE ROLE h6boss; \
         GRANT SELECT ON t_h6.* TO h6boss; GRANT h6boss TO 'h6role'@'%'",
    );
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = connect(&sidepool, "h6role", "pw").await.unwrap();
    a.run("SET ROLE h6boss").await;
    a.run("SELECT * FROM t_h6.secret").await;
    drop(a);
    let mut b = connect(&sidepool, "h6role", "pw").await.unwrap();
    assert_eq!(b.query("SELECT * FROM t_h6.secret").await.err().code, 1142);
}

async fn change_user(server: &Server) {
    account(server, "h6ua", "pwa");
    account(server, "h6ub", "pwb");
    server.database("t_h6c");
    server.root("CREATE TABLE t_h6c.secret (a INT); GRANT SELECT ON t_h6c.* TO 'h6ua'@'%'");
    let sidepool = Sidepool::sharing(server, 2);
    let mut a = connect(&sidepool, "h6ua", "pwa").await.unwrap();
    a.run("SELECT * FROM t_h6c.secret").await;
    a.run("SET time_zone = '+09:00'").await;
    a.change_user("h6ub", "pwb").await.unwrap();
    assert!(value(&mut a, "SELECT USER()").await.starts_with("h6ub@"));
    assert_ne!(value(&mut a, "SELECT @@time_zone").await, "+09:00");
    assert_eq!(a.query("SELECT * FROM t_h6c.secret").await.err().code, 1142);
    assert_eq!(a.change_user("h6ua", "wrong").await.unwrap_err().code, 1045);
}

async fn wrong_password(server: &Server) {
    account(server, "h12a", "right");
    let sidepool = Sidepool::sharing(server, 2);
    for _ in 0..2 {
        assert_eq!(
            connect(&sidepool, "h12a", "wrong")
                .await
                .err()
                .unwrap()
                .code,
            1045
        );
        assert_eq!(
            connect(&sidepool, "h12a", "").await.err().unwrap().code,
            1045
        );
        assert_eq!(
            connect(&sidepool, "h12nobody", "x")
                .await
                .err()
                .unwrap()
                .code,
            1045
        );
        connect(&sidepool, "h12a", "right")
            .await
            .unwrap()
            .run("SELECT 1")
            .await;
    }
}

async fn changed_password(server: &Server) {
    account(server, "h12c", "old");
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "2"),
            ("SIDEPOOL_AUTH__RECHECK", "0s"),
        ],
    );
    let mut a = connect(&sidepool, "h12c", "old").await.unwrap();
    a.run("SELECT 1").await;
    server.root("ALTER USER 'h12c'@'%' IDENTIFIED BY 'new'");
    assert_eq!(
        connect(&sidepool, "h12c", "old").await.err().unwrap().code,
        1045
    );
    connect(&sidepool, "h12c", "new")
        .await
        .unwrap()
        .run("SELECT 1")
        .await;
    server.root("DROP USER 'h12c'@'%'");
    assert_eq!(
        connect(&sidepool, "h12c", "new").await.err().unwrap().code,
        1045
    );
    // The connection that was opened with the old password does not outlive the account.
    let reply = a.query("SELECT 1").await;
    assert!(matches!(reply, Reply::Err(_)), "{reply:?}");
}
