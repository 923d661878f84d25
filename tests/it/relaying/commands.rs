//! Commands other than statements.

use std::time::Duration;

use super::tape::{
    FIELD_LIST, FRAMINGS, INIT_DB, PING, PROCESS_INFO, PROCESS_KILL, Pair, QUERY, RESET_CONNECTION,
    SET_OPTION, error,
};
use super::*;
use crate::support::clients::account;
use crate::support::eventually;
use crate::support::servers::PASSWORD;
use crate::support::wire::{MULTI_STATEMENTS, SESSION_TRACK};

on_every_server! {
    simple_commands_are_answered_as_by_the_server => simple;
    field_list_and_statistics => old_commands;
    commands_that_need_a_privilege => privileged;
    databases_are_selected_or_not => databases;
    set_option_is_the_sessions_own => set_option;
    the_process_list_and_kill => processes;
    a_killed_client_ends => killed;
    a_reset_session => reset;
    a_changed_user => change_user;
    quit_ends_without_an_answer => quit;
    attributes_of_queries_pass => attributes;
}

const STATISTICS: u8 = 9;
const DEBUG: u8 = 13;

async fn simple(server: &Server) {
    server.database("t_rel_simple");
    let sidepool = Sidepool::sharing(server, 2);
    for (with, without) in [(0, 0), (0, FRAMINGS[1])] {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_simple", (with, without)).await;
        for _ in 0..2 {
            pair.same(PING, b"").await;
            pair.same(PING, b"ignored").await;
            pair.run("BEGIN").await;
            pair.same(PING, b"").await;
            pair.run("ROLLBACK").await;
            pair.run("SET autocommit = 0").await;
            pair.same(PING, b"").await;
            pair.run("SET autocommit = 1").await;
            pair.same(SET_OPTION, b"\x01\0").await;
            pair.same(SET_OPTION, b"\0\0").await;
            pair.same(INIT_DB, b"t_rel_simple").await;
            pair.same(SET_OPTION, b"\x07\0").await;
            pair.same(RESET_CONNECTION, b"").await;
        }
        // What no server knows, any more or at all.
        for command in [5, 6, 40, 99, 200, 255] {
            let answer = pair.same(command, b"").await;
            assert!(error(&answer).is_some(), "{command}: {answer:?}");
        }
        pair.run("SELECT 'in step'").await;
    }
}

async fn old_commands(server: &Server) {
    server.database("t_rel_old");
    server
        .root("CREATE TABLE t_rel_old.t (a INT NOT NULL DEFAULT 7, b VARCHAR(3), bc DATETIME(3))");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_old", (0, without)).await;
        let all = pair.same(FIELD_LIST, b"t\0").await;
        assert_eq!(all.len(), 4, "{all:?}");
        pair.same(FIELD_LIST, b"t\0b%").await;
        pair.same(FIELD_LIST, b"t\0x%").await;
        pair.same(FIELD_LIST, b"none\0").await;
        pair.same(FIELD_LIST, b"t").await;
        for wire in [&mut pair.direct, &mut pair.through] {
            wire.command(STATISTICS, b"").await;
            let (seq, text) = wire.read_packet().await.unwrap();
            assert!(seq == 1 && text.starts_with(b"Uptime: "), "{text:?}");
        }
        pair.run("SELECT 'in step'").await;
    }
}

async fn privileged(server: &Server) {
    const REFRESH: u8 = 7;
    const SHUTDOWN: u8 = 8;
    server.database("t_rel_super");
    account(server, "r_plain");
    account(server, "r_super");
    server.root("GRANT SUPER, RELOAD ON *.* TO 'r_super'@'%'");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        for (user, refused) in [("r_plain", true), ("r_super", false)] {
            let login = Login {
                user,
                without,
                database: Some("t_rel_super"),
                ..Login::to("")
            };
            let mut pair = Pair::log_in(server, &sidepool, &login).await;
            for (command, payload) in [(DEBUG, &b""[..]), (REFRESH, b"\x04")] {
                let answer = pair.same(command, payload).await;
                assert!(
                    !refused || error(&answer).is_some(),
                    "{command}: {answer:?}"
                );
                pair.run("SELECT 'in step'").await;
            }
            if refused {
                let answer = pair.same(SHUTDOWN, b"\0").await;
                assert!(error(&answer).is_some(), "{answer:?}");
                pair.run("SELECT 'in step'").await;
            }
        }
    }
}

async fn databases(server: &Server) {
    server.database("t_rel_db1");
    server.database("t_rel_db2");
    let sidepool = Sidepool::sharing(server, 2);
    for (with, without) in [(0, 0), (SESSION_TRACK, 0), (0, FRAMINGS[1])] {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_db1", (with, without)).await;
        for name in [
            "t_rel_db2",
            "t_rel_none",
            "mysql",
            "",
            "t_rel_db1\0",
            "T_REL_DB1",
            "t_rel_db1",
            "é",
        ] {
            pair.same(INIT_DB, name.as_bytes()).await;
            pair.run("SELECT DATABASE()").await;
        }
        pair.run("USE t_rel_db2").await;
        pair.same(INIT_DB, b"t_rel_db1").await;
        pair.run("SELECT DATABASE()").await;
    }
}

/// 0 switches several statements on, 1 off; whatever the connection's own login said.
async fn set_option(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    let address = sidepool.address();
    let mut on = client(&sidepool).await;
    let without = Login {
        without: MULTI_STATEMENTS,
        ..Login::to(&address)
    };
    let mut off = Wire::connect(&without).await.unwrap();
    let two = "SELECT 1; SELECT 2";
    assert_eq!(on.query_all(two).await.len(), 2);
    assert_eq!(off.query(two).await.err().code, 1064);
    set_multi(&mut on, false).await;
    set_multi(&mut off, true).await;
    for _ in 0..2 {
        assert_eq!(on.query(two).await.err().code, 1064, "switched off");
        assert_eq!(off.query_all(two).await.len(), 2, "switched on");
    }
    let mut third = client(&sidepool).await;
    assert_eq!(
        third.query_all(two).await.len(),
        2,
        "somebody else's choice"
    );
}

async fn set_multi(wire: &mut Wire, on: bool) {
    wire.command(SET_OPTION, &[u8::from(!on), 0]).await;
    assert_eq!(wire.read_packet().await.unwrap().1[0], 0xfe);
}

async fn processes(server: &Server) {
    server.database("t_rel_process");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_process", (0, without)).await;
        // The rows are never the same twice: their definitions are, or the error.
        let mut heads = Vec::new();
        for wire in [&mut pair.direct, &mut pair.through] {
            wire.command(PROCESS_INFO, b"").await;
            let mut answer = super::tape::read_answer(wire, PROCESS_INFO).await;
            answer.truncate(if error(&answer).is_some() {
                1
            } else {
                1 + usize::from(answer[0].1[0])
            });
            heads.push(answer);
        }
        assert_eq!(heads[0], heads[1]);
        let nobody = (1u32 << 30).to_le_bytes();
        let answer = pair.same(PROCESS_KILL, &nobody).await;
        assert!(error(&answer).is_some(), "{answer:?}");
        pair.query(&format!("KILL {}", 1u32 << 30)).await;
        pair.query(&format!("KILL QUERY {}", 1u32 << 30)).await;
        pair.query("KILL nonsense").await;
        pair.run("SELECT 'in step'").await;
    }
}

/// A client that is killed by another of the same account, waiting or in the middle of a statement.
async fn killed(server: &Server) {
    let sidepool = Sidepool::sharing(server, 4);
    let mut killer = client(&sidepool).await;
    for kill in ["COM_PROCESS_KILL", "KILL", "KILL CONNECTION"] {
        let mut waiting = client(&sidepool).await;
        let mut busy = client(&sidepool).await;
        waiting.run("SELECT 1").await;
        busy.command(3, b"SELECT SLEEP(60), 'killed'").await;
        eventually("the statement runs", async || {
            let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(60), ''killed%'";
            value(&mut killer, sql).await == "1"
        })
        .await;
        for victim in [&waiting, &busy] {
            let reply = match kill {
                "COM_PROCESS_KILL" => {
                    killer
                        .command(PROCESS_KILL, &victim.thread_id.to_le_bytes())
                        .await;
                    killer.read_reply().await
                }
                _ => killer.query(&format!("{kill} {}", victim.thread_id)).await,
            };
            reply.ok();
        }
        for mut victim in [waiting, busy] {
            assert_ends(&mut victim).await;
        }
        assert_eq!(value(&mut killer, "SELECT 'alive'").await, "alive");
    }
    sidepool.wait("counted", |s| {
        s.metric("sidepool_client_connections_closed_total", "\"killed\"") == 6.0
    });
}

/// Whatever is still said, the connection is then closed.
async fn assert_ends(wire: &mut Wire) {
    let end = async { while wire.read_packet().await.is_ok() {} };
    let ended = tokio::time::timeout(Duration::from_secs(20), end).await;
    assert!(ended.is_ok(), "the connection stays open");
}

async fn reset(server: &Server) {
    server.database("t_rel_reset");
    let sidepool = Sidepool::sharing(server, 2);
    for (with, without) in [(0, 0), (SESSION_TRACK, 0), (0, FRAMINGS[1])] {
        let mut pair = Pair::connect(server, &sidepool, "t_rel_reset", (with, without)).await;
        pair.run("SET time_zone = '+05:00', sql_mode = 'ANSI_QUOTES'")
            .await;
        pair.run("SET @a = 1").await;
        pair.run("CREATE TEMPORARY TABLE tmp (a INT)").await;
        let statement = pair.prepare("SELECT 1").await;
        if with == 0 {
            // To those who track, MySQL tells of it though it was not asked to; Sidepool does not.
            pair.run("BEGIN").await;
        }
        pair.same(RESET_CONNECTION, b"").await;
        sidepool.wait("unpinned", |s| {
            s.metric("sidepool_sessions_pinned", "") == 0.0
        });
        for sql in [
            "SELECT @@time_zone, @@sql_mode, @a, DATABASE()",
            "SELECT * FROM tmp",
            "SELECT \"a\"",
            "SHOW WARNINGS",
        ] {
            pair.query(sql).await;
        }
        let gone = pair.execute(&statement).await;
        assert_eq!(error(&gone).map(|error| error.code), Some(1243), "{gone:?}");
    }
}

async fn change_user(server: &Server) {
    account(server, "r_other");
    let sidepool = Sidepool::sharing(server, 2);
    let (direct, through) = (server.address(), sidepool.address());
    for without in FRAMINGS {
        let mut seen = Vec::new();
        for address in [&direct, &through] {
            let login = Login {
                without,
                ..Login::to(address)
            };
            let mut wire = Wire::connect(&login).await.unwrap();
            wire.run("SET time_zone = '+06:00'").await;
            wire.run("SET @a = 1").await;
            wire.change_user("r_other", PASSWORD).await.unwrap();
            let ok = wire.login_ok.clone();
            let state = wire
                .run("SELECT CURRENT_USER(), @@time_zone, @a IS NULL, DATABASE()")
                .await;
            let denied = wire.change_user("r_other", "wrong").await.unwrap_err();
            let mut after = Vec::new();
            if is_mariadb(server) {
                // It goes on as it was logged in, for three times.
                after.push(
                    wire.run("SELECT CURRENT_USER(), @@time_zone, @a IS NULL, DATABASE()")
                        .await,
                );
                for _ in 0..2 {
                    let denied = wire.change_user("r_other", "wrong").await.unwrap_err();
                    assert_eq!(denied.code, 1045);
                }
                for password in ["wrong", PASSWORD] {
                    wire.run("SET @a = 2").await;
                    let denied = wire.change_user("r_other", password).await.unwrap_err();
                    assert_eq!((denied.code, &*denied.state), (1047, "08S01"));
                    after.push(wire.run("SELECT CURRENT_USER(), @a IS NULL").await);
                }
            } else {
                assert_ends(&mut wire).await;
            }
            seen.push((ok, state, denied.code, after));
        }
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0].2, 1045);
    }
}

async fn quit(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    for before in ["SELECT 1", "BEGIN", "SET @pinned = 1"] {
        let mut wire = client(&sidepool).await;
        wire.run(before).await;
        wire.quit().await;
    }
    sidepool.wait("counted", |s| {
        s.metric("sidepool_client_connections_closed_total", "\"quit\"") == 3.0
    });
    assert_eq!(
        value(&mut client(&sidepool).await, "SELECT @pinned IS NULL").await,
        "1"
    );
}

/// MySQL's query attributes stand in front of the text; who negotiated them always sends their number.
async fn attributes(server: &Server) {
    const QUERY_ATTRIBUTES: u32 = 1 << 27;
    server.database("t_rel_attributes");
    let sidepool = Sidepool::sharing(server, 2);
    for without in FRAMINGS {
        let capabilities = (QUERY_ATTRIBUTES, without);
        let mut pair = Pair::connect(server, &sidepool, "t_rel_attributes", capabilities).await;
        assert_eq!(pair.direct.capabilities, pair.through.capabilities);
        if !pair.direct.has(QUERY_ATTRIBUTES) {
            assert!(is_mariadb(server));
            return;
        }
        for text in [
            "SELECT 1, 'a'",
            "SET time_zone = '+08:00'",
            "SELECT @@time_zone",
            "SELECT nonsense",
        ] {
            let none = [b"\0\x01", text.as_bytes()].concat();
            pair.same(QUERY, &none).await;
            // A string of three bytes, named key, and a NULL without a name.
            let two = b"\x02\x01\x02\x01\xfe\0\x03key\x06\0\0\x03abc";
            pair.same(QUERY, &[&two[..], text.as_bytes()].concat())
                .await;
        }
        // Cut short.
        for malformed in [&b""[..], b"\x01", b"\x01\x01", b"\x01\x01\0\x01\xfe"] {
            let answer = pair.same(QUERY, malformed).await;
            assert!(error(&answer).is_some(), "{answer:?}");
        }
        pair.same(QUERY, b"\0\x01SELECT 'in step'").await;
    }
}
