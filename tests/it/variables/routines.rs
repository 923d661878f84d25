//! `CALL`: followed on MariaDB, trusted or pinned on MySQL.

use super::*;

on_every_server! {
    a_call_shares_its_connection_where_it_can => calls;
    a_trusted_call_does_not_pin => trusted;
    a_reset_after_a_call_keeps_the_connection => reset_after_call;
    a_role_that_a_routine_left_closes_the_connection => role_left;
    a_lock_taken_in_a_routine_is_seen_by_nobody => limit;
}

fn prepare(server: &Server, database: &str) {
    server.database(database);
    server.root(&format!("CREATE TABLE {database}.t (a INT)"));
    for body in [
        "quiet() BEGIN DECLARE n INT DEFAULT 3; SET n = n + 1; INSERT INTO t VALUES (n); END",
        "sets() SET @told = 1",
        "selects() SELECT 2 INTO @silent",
        "fails() BEGIN SET @told = 3; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END",
        "gives(OUT x INT) SET x = 4",
        "zone() SET time_zone = '+03:00'",
        "defaults() SET @@session.lc_time_names = DEFAULT",
        "temporary() CREATE TEMPORARY TABLE IF NOT EXISTS tmp (a INT)",
        "prepares() PREPARE s FROM 'SELECT 5'",
        "locks() DO GET_LOCK('t_uv_routine', 0)",
    ] {
        server.routine(&format!("CREATE PROCEDURE {database}.{body}"));
    }
}

async fn calls(server: &Server) {
    prepare(server, "t_uv_call");
    let sidepool = Sidepool::sharing(server, 2);
    let (mut a, mut b) = (
        client_in(&sidepool, "app", "t_uv_call").await,
        client_in(&sidepool, "app", "t_uv_call").await,
    );
    let probe = "SELECT CONCAT_WS(',', @told, @silent, @x, @@time_zone, @@lc_time_names)";
    let first = value(&mut b, probe).await;
    for sql in [
        "CALL quiet()",
        "CALL sets()",
        "CALL selects()",
        "CALL gives(@x)",
        "CALL zone()",
    ] {
        a.run(sql).await;
        assert_eq!(value(&mut b, probe).await, first, "{sql}");
    }
    assert_eq!(value(&mut a, probe).await, "1,2,4,+03:00,en_US");
    assert_eq!(a.query("CALL fails()").await.err().code, 1644);
    a.run("SET lc_time_names = 'de_DE'").await;
    a.run("CALL defaults()").await;
    assert_eq!(value(&mut b, probe).await, first);
    assert_eq!(value(&mut a, probe).await, "3,2,4,+03:00,en_US");
    if !is_mariadb(server) {
        assert_eq!(sidepool.metric(PINS, "\"routine\""), 1.0);
        return;
    }
    unpinned(&sidepool);
    residue(&sidepool, &mut b).await;
}

/// On MariaDB what a routine created is counted, and pins.
async fn residue(sidepool: &Sidepool, b: &mut Wire) {
    for (at, (sql, probe)) in [
        ("CALL temporary()", "SELECT COUNT(*) FROM tmp"),
        ("CALL prepares()", "EXECUTE s"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut c = client_in(sidepool, "app", "t_uv_call").await;
        c.run(sql).await;
        eventually("pinned", async || {
            sidepool.metric(PINS, "\"routine\"") > at as f64
        })
        .await;
        b.query(probe).await.err();
        c.run(probe).await;
        c.quit().await;
        b.query(probe).await.err();
        b.command(31, b"").await;
        b.read_reply().await.ok();
    }
    // Where the server does not tell, the session is pinned.
    let mut picky = client_in(sidepool, "app", "t_uv_call").await;
    picky.run("SET max_join_size = 1").await;
    picky.run("CALL sets()").await;
    assert_eq!(value(&mut picky, "SELECT @told").await, "1");
    picky.quit().await;
    // A connection that was reset counts from nothing again.
    let (mut d, mut e) = (
        client_in(sidepool, "app", "t_uv_call").await,
        client_in(sidepool, "app", "t_uv_call").await,
    );
    let pins = sidepool.metric(PINS, "");
    for _ in 0..3 {
        d.run("CALL sets()").await;
        assert_eq!(value(&mut e, "SELECT @told").await, "NULL");
    }
    assert_eq!(sidepool.metric(PINS, ""), pins);
}

async fn trusted(server: &Server) {
    prepare(server, "t_uv_trust");
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "1"),
            ("SIDEPOOL_CLIENT__RULE__0__USER", "app"),
            ("SIDEPOOL_CLIENT__RULE__0__TRUST_ROUTINES", "true"),
        ],
    );
    let (mut a, mut b) = (
        client_in(&sidepool, "app", "t_uv_trust").await,
        client_in(&sidepool, "app", "t_uv_trust").await,
    );
    a.run("SET @silent = 0, @told = 0").await;
    for sql in [
        "CALL quiet()",
        "CALL sets()",
        "CALL selects()",
        "CALL gives(@x)",
    ] {
        a.run(sql).await;
        assert_eq!(
            value(&mut b, "SELECT COALESCE(@told, @silent, @x)").await,
            "NULL"
        );
    }
    assert_eq!(
        value(&mut a, "SELECT CONCAT(@told, @silent, @x)").await,
        "124"
    );
    unpinned(&sidepool);
}

async fn reset_after_call(server: &Server) {
    prepare(server, "t_uv_rst");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = client_in(&sidepool, "app", "t_uv_rst").await;
    let mut b = client_in(&sidepool, "app", "t_uv_rst").await;
    let before = value(&mut b, "SELECT CONNECTION_ID() + 0 FROM DUAL").await;
    b.command(31, b"").await;
    b.read_reply().await.ok();
    a.run("CALL temporary()").await;
    eventually("pinned", async || {
        sidepool.metric(PINS, "\"routine\"") == 1.0
    })
    .await;
    a.command(31, b"").await;
    a.read_reply().await.ok();
    eventually("unpinned", async || {
        sidepool.metric("sidepool_sessions_pinned", "") == 0.0
    })
    .await;
    assert_eq!(b.query("SELECT * FROM t_uv_rst.tmp").await.err().code, 1146);
    a.run("CALL t_uv_rst.temporary()").await;
    a.quit().await;
    assert_eq!(b.query("SELECT * FROM t_uv_rst.tmp").await.err().code, 1146);
    let after = value(&mut b, "SELECT CONNECTION_ID() + 0 FROM DUAL").await;
    assert_eq!(after, before, "the connection was kept");
}

async fn role_left(server: &Server) {
    prepare(server, "t_uv_role");
    account(server, "uv_role_user");
    let role = if is_mariadb(server) {
        "uv_boss"
    } else {
        "'uv_boss'@'%'"
    };
    server.root(&format!(
        "DROP ROLE IF EXISTS {role}; CREATE ROLE {role}; GRANT {role} TO 'uv_role_user'@'%'"
    ));
    server.routine(&format!(
        "CREATE DEFINER = CURRENT_USER PROCEDURE t_uv_role.promotes() SQL SECURITY INVOKER SET ROLE {role}"
    ));
    let sidepool = Sidepool::sharing(server, 1);
    let direct = server.address();
    let mut twin = Wire::connect(&Login {
        user: "uv_role_user",
        ..Login::to(&direct)
    })
    .await
    .unwrap();
    let login = value(&mut twin, "SELECT CURRENT_ROLE()").await;
    let mut b = client_as(&sidepool, "uv_role_user").await;
    for reset in [false, true] {
        let mut a = client_as(&sidepool, "uv_role_user").await;
        a.run("CALL t_uv_role.promotes()").await;
        assert_ne!(value(&mut a, "SELECT CURRENT_ROLE()").await, login);
        if reset {
            a.command(31, b"").await;
            a.read_reply().await.ok();
            // As a dedicated connection has it.
            assert_ne!(value(&mut a, "SELECT CURRENT_ROLE()").await, login);
        }
        a.quit().await;
        assert_eq!(value(&mut b, "SELECT CURRENT_ROLE()").await, login);
    }
}

/// The documented limit: no tracker, list or counter shows it. On MySQL it pins unless trusted.
async fn limit(server: &Server) {
    prepare(server, "t_uv_limit");
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_CLIENT__TRUST_ROUTINES", "true")]);
    let mut a = client_in(&sidepool, "app", "t_uv_limit").await;
    a.run("CALL locks()").await;
    unpinned(&sidepool);
    let mut root = root(server).await;
    assert_eq!(
        value(&mut root, "SELECT IS_FREE_LOCK('t_uv_routine')").await,
        "0"
    );
    // It stays with the connection, not with the session.
    a.quit().await;
    assert_eq!(
        value(&mut root, "SELECT IS_FREE_LOCK('t_uv_routine')").await,
        "0"
    );
}
