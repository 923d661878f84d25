//! Reasons that end with a reset of the connection, the client's own or Sidepool's when the client leaves;
//! and those that cost the connection.

use super::*;

on_every_server! {
    a_reset_of_the_clients_unpins => client_resets;
    what_a_client_leaves_behind_is_gone_for_the_next => leaves_nothing;
    what_no_reset_undoes_costs_the_connection => closed;
    pins_are_told_with_their_advice => told;
    a_rule_refuses_what_would_pin => refused;
    a_rule_speaks_for_its_clients_only => ruled;
    filtered_reasons_do_not_pin => filtered;
}

/// What pins, of which reason, and what the next session must then see.
const CAUSES: &[(&str, &str, &str, &str)] = &[
    (
        "temporary_table",
        "CREATE TEMPORARY TABLE x (a INT)",
        "SELECT * FROM x",
        "1146",
    ),
    (
        "handler",
        "HANDLER t OPEN AS h",
        "HANDLER h READ FIRST",
        "1109",
    ),
    (
        "lock_tables",
        "LOCK TABLES t READ",
        "DELETE FROM t WHERE a = 99",
        "ok",
    ),
    (
        "lock",
        "SELECT GET_LOCK(CONCAT('up_', 'r'), 0)",
        "SELECT IS_FREE_LOCK('up_r')",
        "1",
    ),
    (
        "session_variable",
        "SET timestamp = 5",
        "SELECT UNIX_TIMESTAMP() > 5",
        "1",
    ),
    (
        "session_variable",
        "SET insert_id = 77",
        "SELECT @@insert_id",
        "0",
    ),
    (
        "session_variable",
        "SET collation_database = latin1_bin",
        "SELECT @@collation_database = 'latin1_bin'",
        "0",
    ),
    (
        "session_track",
        "SET session_track_schema = 0",
        "SELECT @@session_track_schema",
        "1",
    ),
    (
        "connection_id",
        "SELECT CONNECTION_ID() + 0",
        "SELECT 1",
        "1",
    ),
    (
        "row_count",
        "SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1",
        "SELECT 1",
        "1",
    ),
];

async fn answer(wire: &mut Wire, sql: &str) -> String {
    match wire.query(sql).await {
        Reply::Err(error) => error.code.to_string(),
        Reply::Rows { rows, .. } => match &rows[0][0] {
            Some(value) => String::from_utf8_lossy(value).into_owned(),
            None => "NULL".to_owned(),
        },
        _ => "ok".to_owned(),
    }
}

async fn client_resets(server: &Server) {
    let sidepool = prepared(server, "t_up_rst");
    if is_mariadb(server) {
        last_value(server, &sidepool).await;
    }
    let mut b = client_in(&sidepool, USER, "t_up_rst").await;
    for &(reason, sql, probe, seen) in CAUSES {
        let mut a = client_in(&sidepool, USER, "t_up_rst").await;
        a.run(sql).await;
        assert!(!is_free(&mut b).await, "{sql} does not pin");
        let label = format!("reason=\"{reason}\"");
        assert!(
            sidepool.metric("sidepool_session_pins_total", &label) > 0.0,
            "{sql}"
        );
        a.command(0x1f, b"").await;
        assert!(matches!(a.read_reply().await, Reply::Ok(_)), "{sql}");
        eventually(&format!("free behind {sql}"), async || {
            is_free(&mut b).await
        })
        .await;
        assert_eq!(answer(&mut a, probe).await, seen, "own, behind {sql}");
        assert_eq!(answer(&mut b, probe).await, seen, "other's, behind {sql}");
        assert_eq!(sidepool.metric(PINNED, ""), 0.0, "{sql}");
        a.quit().await;
    }
    assert_eq!(
        sidepool.metric("sidepool_pool_retired_total", "reason=\"dirty\""),
        0.0,
        "no connection is closed for it"
    );
}

/// What `LASTVAL` reads is gone behind a reset, and behind a change of charset it is not.
async fn last_value(server: &Server, sidepool: &Sidepool) {
    server.root("CREATE SEQUENCE t_up_rst.s");
    let mut a = client_in(sidepool, USER, "t_up_rst").await;
    let mut b = client_in(sidepool, USER, "t_up_rst").await;
    a.run("SELECT NEXTVAL(s)").await;
    assert_eq!(value(&mut a, "SELECT LASTVAL(s)").await, "1");
    a.run("SET NAMES latin1").await;
    assert_eq!(value(&mut a, "SELECT LASTVAL(s)").await, "1");
    assert!(!is_free(&mut b).await);
    a.command(0x1f, b"").await;
    a.read_reply().await.ok();
    eventually("free", async || is_free(&mut b).await).await;
    a.quit().await;
}

async fn leaves_nothing(server: &Server) {
    let sidepool = prepared(server, "t_up_lve");
    let mut b = client_in(&sidepool, USER, "t_up_lve").await;
    for &(_, sql, probe, seen) in CAUSES {
        let mut a = client_in(&sidepool, USER, "t_up_lve").await;
        let thread = value(&mut b, "SELECT CONNECTION_ID() * 1").await;
        b.command(0x1f, b"").await;
        b.read_reply().await;
        a.run(sql).await;
        a.quit().await;
        eventually(&format!("free behind {sql}"), async || {
            is_free(&mut b).await
        })
        .await;
        assert_eq!(answer(&mut b, probe).await, seen, "behind {sql}");
        assert_eq!(
            value(&mut b, "SELECT CONNECTION_ID() * 1").await,
            thread,
            "the same connection behind {sql}"
        );
        b.command(0x1f, b"").await;
        b.read_reply().await;
    }
}

async fn closed(server: &Server) {
    let sidepool = prepared(server, "t_up_cls");
    let mut b = client_in(&sidepool, USER, "t_up_cls").await;
    for sql in ["SET ROLE NONE", "/*!50000 SET ROLE */ NONE"] {
        let mut a = client_in(&sidepool, USER, "t_up_cls").await;
        let before = sidepool.metric("sidepool_pool_retired_total", "reason=\"dirty\"");
        a.query(sql).await;
        assert!(!is_free(&mut b).await, "{sql} does not pin");
        a.command(0x1f, b"").await;
        a.read_reply().await;
        assert!(!is_free(&mut b).await, "{sql}: a reset unpins");
        a.quit().await;
        eventually(&format!("free behind {sql}"), async || {
            is_free(&mut b).await
        })
        .await;
        let after = sidepool.metric("sidepool_pool_retired_total", "reason=\"dirty\"");
        assert_eq!(after - before, 1.0, "{sql}");
    }
}

async fn told(server: &Server) {
    let sidepool = prepared(server, "t_up_tld");
    for &(reason, sql, _, _) in CAUSES {
        let mut a = client_in(&sidepool, USER, "t_up_tld").await;
        a.run(sql).await;
        let told = format!("reason={reason} digest=");
        sidepool.wait(&told, |s| s.log().contains(&told));
        let log = sidepool.log();
        let line = log.lines().rfind(|line| line.contains(&told)).unwrap();
        let word = sql.split(' ').next().unwrap();
        assert!(line.contains(&format!("digest={word}")), "{line}");
        assert!(line.contains("advice=\""), "{line}");
        a.command(0x1f, b"").await;
        a.read_reply().await;
        a.quit().await;
    }
}

async fn refused(server: &Server) {
    server.database("t_up_rfs");
    server.root("CREATE TABLE t_up_rfs.t (a INT PRIMARY KEY, b INT)");
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_CLIENT__ON_PIN", "error")]);
    let mut a = client_in(&sidepool, USER, "t_up_rfs").await;
    for &(reason, sql, _, _) in CAUSES {
        let error = a.query(sql).await;
        match error {
            Reply::Err(error) => {
                assert_eq!(error.code, 1235, "{sql}");
                assert!(error.message.contains(reason), "{}", error.message);
            }
            // Only the answer shows these.
            _ => assert!(reason == "session_variable", "{sql}"),
        }
    }
}

async fn ruled(server: &Server) {
    crate::support::clients::account(server, "up_strict");
    crate::support::clients::account(server, "up_warned");
    server.database("t_up_rul");
    server.root("CREATE TABLE t_up_rul.t (a INT PRIMARY KEY, b INT)");
    let settings = [
        ("SIDEPOOL_CLIENT__RULE__0__USER", "up_strict"),
        ("SIDEPOOL_CLIENT__RULE__0__ON_PIN", "error"),
        ("SIDEPOOL_CLIENT__RULE__1__USER", "up_warned"),
        ("SIDEPOOL_CLIENT__RULE__1__ON_PIN", "warn"),
    ];
    let sidepool = Sidepool::start(server, &settings);
    let mut strict = client_in(&sidepool, "up_strict", "t_up_rul").await;
    let mut warned = client_in(&sidepool, "up_warned", "t_up_rul").await;
    let mut usual = client_in(&sidepool, USER, "t_up_rul").await;
    let error = strict.query("HANDLER t OPEN").await.err();
    assert_eq!(error.code, 1235);
    assert!(error.message.contains("handler") && error.message.contains("use SELECT"));
    let lines = |level: &str, reason: &str| {
        let log = sidepool.log();
        let found =
            |line: &&str| line.contains(level) && line.contains("pinned") && line.contains(reason);
        log.lines().filter(found).count()
    };
    // Only the answer shows that this one pins, so it is not refused, but said louder.
    strict.run("SET timestamp = 5").await;
    warned.run("HANDLER t OPEN").await;
    usual.run("HANDLER t OPEN").await;
    eventually("logged", async || {
        lines("WARN", "reason=session_variable") == 1
            && lines("WARN", "reason=handler") == 1
            && lines("INFO", "reason=handler") == 1
    })
    .await;
}

async fn filtered(server: &Server) {
    server.database("t_up_flt");
    let settings = [
        ("SIDEPOOL_POOL__MAX_CONNECTIONS", "1"),
        (
            "SIDEPOOL_POOL__PINNING_FILTERS",
            "temporary_table,connection_id",
        ),
    ];
    let sidepool = Sidepool::start(server, &settings);
    let mut a = client_in(&sidepool, USER, "t_up_flt").await;
    let mut b = client_in(&sidepool, USER, "t_up_flt").await;
    a.run("CREATE TEMPORARY TABLE x (a INT)").await;
    a.run("SELECT CONNECTION_ID() + 0").await;
    assert_eq!(
        answer(&mut b, "SELECT COUNT(*) FROM x").await,
        "0",
        "the documented risk"
    );
    assert_eq!(sidepool.metric("sidepool_session_pins_total", ""), 0.0);
}
