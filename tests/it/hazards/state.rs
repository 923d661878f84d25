//! Hazards 1, 2 and 7: session state that a tracker misreports, an error hides or a reset loses.

use super::*;

on_every_server! {
    h01_collation_is_not_in_the_trackers => collation;
    h01_null_results_charset_is_not_empty => null_charset;
    h01_a_reset_timestamp_is_not_replayed => timestamp;
    h01_max_join_size_changes_sql_big_selects => big_selects;
    h01_use_changes_the_database_charset => database_charset;
    h01_a_variable_of_one_statement_does_not_stay => one_statement;
    h02_state_changed_before_an_error_stays_with_its_session => change_then_error;
    h07_a_latin1_login_stays_latin1 => latin1_login;
    h07_no_database_means_no_database => no_database;
    h07_trackers_survive_a_reset => reset_keeps_trackers;
    h07_a_reset_session_is_what_the_server_makes_of_it => reset_state;
    h07_globals_changed_later_do_not_reach_older_sessions => later_globals;
    sets_of_one_client_never_reach_another => own_settings;
    use_changes_only_the_own_database => own_database;
    autocommit_and_isolation_are_the_sessions_own => own_transactions;
}

async fn collation(server: &Server) {
    let (_sidepool, mut a, mut b) = two_on_one(server).await;
    a.run("SET NAMES utf8mb4 COLLATE utf8mb4_bin").await;
    for _ in 0..2 {
        assert_eq!(value(&mut b, "SELECT 'a' = 'A'").await, "1");
        assert_eq!(value(&mut a, "SELECT 'a' = 'A'").await, "0");
    }
}

async fn null_charset(server: &Server) {
    let (_sidepool, mut a, mut b) = two_on_one(server).await;
    a.run("SET character_set_results = NULL").await;
    for _ in 0..2 {
        assert_eq!(
            value(&mut b, "SELECT @@character_set_results").await,
            "utf8mb4"
        );
        assert_eq!(
            value(&mut a, "SELECT @@character_set_results IS NULL").await,
            "1"
        );
    }
}

async fn timestamp(server: &Server) {
    let sidepool = Sidepool::sharing(server, 2);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    a.run("SET timestamp = 1000").await;
    assert_eq!(value(&mut a, "SELECT UNIX_TIMESTAMP()").await, "1000");
    a.run("SET timestamp = DEFAULT").await;
    for _ in 0..3 {
        assert_ne!(value(&mut b, "SELECT YEAR(NOW())").await, "1970");
        assert_ne!(value(&mut a, "SELECT YEAR(NOW())").await, "1970");
    }
}

async fn big_selects(server: &Server) {
    let (_sidepool, mut a, mut b) = two_on_one(server).await;
    a.run("SET max_join_size = 100").await;
    for _ in 0..2 {
        assert_eq!(value(&mut b, "SELECT @@sql_big_selects").await, "1");
        assert_eq!(value(&mut a, "SELECT @@sql_big_selects").await, "0");
        assert_eq!(value(&mut a, "SELECT @@max_join_size").await, "100");
    }
}

async fn database_charset(server: &Server) {
    server.root(
        "DROP DATABASE IF EXISTS t_h1latin; CREATE DATABASE t_h1latin CHARACTER SET latin1; \
         DROP DATABASE IF EXISTS t_h1utf; CREATE DATABASE t_h1utf CHARACTER SET utf8mb4",
    );
    let (_sidepool, mut a, mut b) = two_on_one(server).await;
    a.run("USE t_h1latin").await;
    b.run("USE t_h1utf").await;
    for _ in 0..2 {
        assert_eq!(
            value(&mut a, "SELECT @@character_set_database").await,
            "latin1"
        );
        assert_eq!(
            value(&mut b, "SELECT @@character_set_database").await,
            "utf8mb4"
        );
    }
}

async fn one_statement(server: &Server) {
    let (_sidepool, mut a, mut b) = two_on_one(server).await;
    let (statement, variable) = if is_mariadb(server) {
        (
            "SET STATEMENT max_statement_time = 5 FOR SELECT 1",
            "SELECT @@max_statement_time",
        )
    } else {
        (
            "SELECT /*+ SET_VAR(max_execution_time = 5000) */ 1",
            "SELECT @@max_execution_time",
        )
    };
    let before = value(&mut b, variable).await;
    a.run(statement).await;
    assert_eq!(value(&mut b, variable).await, before);
    assert_eq!(value(&mut a, variable).await, before);
    b.run("SET time_zone = '+02:00'").await;
    assert_eq!(value(&mut b, variable).await, before);
    assert_eq!(value(&mut a, variable).await, before);
}

/// A function changes a variable and then the statement fails: the ERR carries no tracker.
async fn change_then_error(server: &Server) {
    server.database("t_h2");
    server.routine(
        "CREATE FUNCTION t_h2.f() RETURNS INT DETERMINISTIC BEGIN \
         SET SESSION time_zone = '+05:00'; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; RETURN 1; END",
    );
    let (_sidepool, mut a, mut b) = two_on_one(server).await;
    let own = value(&mut b, "SELECT @@time_zone").await;
    assert_eq!(a.query("SELECT t_h2.f()").await.err().code, 1644);
    // Neither a statement without trackers nor one that changes state itself may bring it to b.
    assert_eq!(value(&mut b, "SELECT @@time_zone").await, own);
    b.run("SET sql_mode = 'ANSI'").await;
    assert_eq!(value(&mut b, "SELECT @@time_zone").await, own);
    // On a connection of its own, a would have kept it.
    assert_eq!(value(&mut a, "SELECT @@time_zone").await, "+05:00");
    assert!(!value(&mut a, "SELECT @@sql_mode").await.contains("ANSI"));
}

async fn latin1_login(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    let mut b = client(&sidepool).await;
    let address = sidepool.address();
    let mut a = Wire::connect(&Login {
        charset: 8,
        ..Login::to(&address)
    })
    .await
    .unwrap();
    let names = "SELECT CONCAT_WS(',', @@character_set_client, @@character_set_results, @@collation_connection)";
    for _ in 0..2 {
        assert_eq!(
            value(&mut b, names).await,
            "utf8mb4,utf8mb4,utf8mb4_general_ci"
        );
        assert_eq!(
            value(&mut a, names).await,
            "latin1,latin1,latin1_swedish_ci"
        );
        // é in latin1 is one byte.
        let rows = a
            .query_bytes(b"SELECT '\xe9', HEX(CONVERT('\xe9' USING utf8mb4))")
            .await
            .rows();
        assert_eq!(rows[0], [Some(b"\xe9".to_vec()), Some(b"C3A9".to_vec())]);
    }
}

async fn no_database(server: &Server) {
    server.database("t_h7");
    server.root("CREATE TABLE t_h7.vic (a INT)");
    let sidepool = Sidepool::sharing(server, 1);
    let mut b = client_in(&sidepool, "t_h7").await;
    b.run("SELECT * FROM vic").await;
    let mut a = client(&sidepool).await;
    assert_eq!(value(&mut a, "SELECT DATABASE()").await, "NULL");
    assert_eq!(a.query("SELECT * FROM vic").await.err().code, 1046);
    b.run("SELECT * FROM vic").await;
    assert_eq!(a.query("DELETE FROM vic").await.err().code, 1046);
}

async fn reset_keeps_trackers(server: &Server) {
    let (_sidepool, mut a, mut b) = two_on_one(server).await;
    a.command(0x1f, b"").await;
    a.read_reply().await.ok();
    let own = value(&mut b, "SELECT @@time_zone").await;
    a.run("SET time_zone = '+03:00'").await;
    assert_eq!(value(&mut b, "SELECT @@time_zone").await, own);
    assert_eq!(value(&mut a, "SELECT @@time_zone").await, "+03:00");
}

async fn reset_state(server: &Server) {
    server.database("t_h7r");
    let names = "SELECT CONCAT_WS(',', @@character_set_client, @@collation_connection, @@time_zone, DATABASE())";
    let mut seen = Vec::new();
    let sidepool = Sidepool::sharing(server, 1);
    for address in [server.address(), sidepool.address()] {
        let login = Login {
            database: Some("t_h7r"),
            charset: 8,
            ..Login::to(&address)
        };
        let mut wire = Wire::connect(&login).await.unwrap();
        wire.run("SET time_zone = '+03:00'").await;
        wire.run("SET @a = 1").await;
        wire.command(0x1f, b"").await;
        wire.read_reply().await.ok();
        let mut other = Wire::connect(&Login::to(&address)).await.unwrap();
        other.run("SELECT 1").await;
        seen.push((
            value(&mut wire, names).await,
            value(&mut wire, "SELECT @a").await,
        ));
    }
    assert_eq!(seen[0], seen[1], "direct and through Sidepool");
}

async fn later_globals(server: &Server) {
    let sidepool = Sidepool::start(
        server,
        &[
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", "2"),
            ("SIDEPOOL_AUTH__RECHECK", "0s"),
        ],
    );
    let mut a = client(&sidepool).await;
    let before = value(&mut a, "SELECT @@default_week_format").await;
    server.root("SET GLOBAL default_week_format = 5");
    let mut b = client(&sidepool).await;
    let seen = (
        value(&mut a, "SELECT @@default_week_format").await,
        value(&mut b, "SELECT @@default_week_format").await,
        value(&mut a, "SELECT @@default_week_format").await,
    );
    server.root(&format!("SET GLOBAL default_week_format = {before}"));
    assert_eq!(seen, (before.clone(), "5".into(), before));
}

async fn own_settings(server: &Server) {
    let sidepool = Sidepool::sharing(server, 2);
    let zones = ["+01:00", "+02:00", "+03:00", "+04:00", "SYSTEM"];
    let mut clients = Vec::new();
    for zone in zones {
        let mut wire = client(&sidepool).await;
        wire.run(&format!("SET time_zone = '{zone}', sql_mode = ''"))
            .await;
        wire.run(&format!(
            "SET SESSION group_concat_max_len = {}",
            1000 + clients.len()
        ))
        .await;
        clients.push(wire);
    }
    for round in 0..3 {
        for (i, wire) in clients.iter_mut().enumerate() {
            let own = "SELECT CONCAT_WS(',', @@time_zone, @@sql_mode, @@group_concat_max_len)";
            assert_eq!(
                value(wire, own).await,
                format!("{},,{}", zones[i], 1000 + i),
                "round {round}"
            );
        }
    }
    assert!((0.0..=2.0).contains(&sidepool.metric("sidepool_pool_connections", "")));
    assert_eq!(
        sidepool.metric("sidepool_pins_total", ""),
        0.0,
        "a replayed variable does not pin"
    );
}

async fn own_database(server: &Server) {
    for name in ["t_use1", "t_use2"] {
        server.database(name);
        server.root(&format!("CREATE TABLE {name}.t AS SELECT '{name}' AS name"));
    }
    let (_sidepool, mut a, mut b) = two_on_one(server).await;
    a.run("USE t_use1").await;
    b.command(2, b"t_use2").await;
    b.read_reply().await.ok();
    for _ in 0..3 {
        assert_eq!(value(&mut a, "SELECT name FROM t").await, "t_use1");
        assert_eq!(value(&mut b, "SELECT name FROM t").await, "t_use2");
    }
}

async fn own_transactions(server: &Server) {
    server.database("t_own");
    server.root("CREATE TABLE t_own.t (a INT) ENGINE=InnoDB");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = client_in(&sidepool, "t_own").await;
    let mut b = client_in(&sidepool, "t_own").await;
    let isolation = format!("SELECT {}", isolation_variable(server));
    a.run("SET autocommit = 0").await;
    a.run("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        .await;
    b.run("SELECT 1").await;
    a.run("INSERT INTO t VALUES (1)").await;
    a.run("ROLLBACK").await;
    assert_eq!(value(&mut b, &isolation).await, "REPEATABLE-READ");
    b.run("INSERT INTO t VALUES (2)").await;
    assert_eq!(value(&mut a, "SELECT @@autocommit").await, "0");
    assert_eq!(value(&mut a, &isolation).await, "SERIALIZABLE");
    assert_eq!(value(&mut a, "SELECT GROUP_CONCAT(a) FROM t").await, "2");
    a.run("COMMIT").await;
    assert_eq!(value(&mut b, "SELECT @@autocommit").await, "1");
}
