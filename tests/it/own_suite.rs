//! What MariaDB's own test suite stumbled over (`tests/mtr`), in few statements.

use crate::support::clients::*;
use crate::support::servers::{PASSWORD, Server, USER};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{DEPRECATE_EOF, Login, Wire};

on_every_server! {
    a_routines_cursor_is_no_opened_cursor => cursors_of_routines;
    a_result_may_have_very_many_columns => many_columns;
    reports_of_a_connection_keep_it => reports;
    a_first_login_knows_its_name_in_utf8 => name_in_utf8;
    a_login_names_its_database_in_its_own_charset => database_in_latin1;
}

async fn cursors_of_routines(server: &Server) {
    server.database("t_own_cur");
    server.routine(
        "CREATE PROCEDURE t_own_cur.p() BEGIN DECLARE c CURSOR FOR SELECT 1; OPEN c; \
         SELECT 1 AS a LIMIT 0; SELECT 2 AS b; SELECT 3 AS c LIMIT 0; CLOSE c; SELECT 4 AS d LIMIT 0; END",
    );
    let sidepool = Sidepool::sharing(server, 1);
    for without in [0, DEPRECATE_EOF] {
        let mut seen = Vec::new();
        for address in [server.address(), sidepool.address()] {
            let login = Login {
                without,
                ..Login::to(&address)
            };
            let mut wire = Wire::connect(&login).await.unwrap();
            wire.command(3, b"CALL t_own_cur.p()").await;
            let mut packets = Vec::new();
            // Five results; the last packet of the last is the procedure's own OK.
            while packets
                .last()
                .is_none_or(|(_, last): &(u8, Vec<u8>)| last[0] != 0)
            {
                packets.push(wire.read_packet().await.unwrap());
            }
            let shapes: Vec<(u8, u8, usize)> = packets
                .iter()
                .map(|(seq, p)| (*seq, p[0], p.len()))
                .collect();
            seen.push(shapes);
            assert_eq!(value(&mut wire, "SELECT 5").await, "5");
        }
        assert_eq!(seen[1], seen[0], "without {without:#x}");
    }
}

async fn many_columns(server: &Server) {
    const COLUMNS: usize = 68_001;
    let sidepool = Sidepool::sharing(server, 1);
    let text = format!("SELECT 1{}", ",1".repeat(COLUMNS - 1));
    let mut through = client(&sidepool).await;
    match Wire::connect(&Login::to(&server.address()))
        .await
        .unwrap()
        .query(&text)
        .await
    {
        crate::support::wire::Reply::Err(error) => {
            assert_eq!(through.query(&text).await.err().code, error.code);
        }
        direct => {
            let columns = direct.rows()[0].len();
            assert_eq!(columns, COLUMNS);
            assert_eq!(through.query(&text).await.rows()[0].len(), columns);
        }
    }
    assert_eq!(value(&mut through, "SELECT 5").await, "5");
}

/// `SHOW PROFILES` and the optimizer's trace are of the connection that ran the statement.
async fn reports(server: &Server) {
    server.database("t_own_rep");
    server.root("CREATE TABLE t_own_rep.t (mine INT)");
    let sidepool = Sidepool::sharing(server, 2);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    a.run("SET optimizer_trace = 'enabled=on'").await;
    a.run("SELECT COUNT(*) FROM t_own_rep.t WHERE mine = 1")
        .await;
    b.run("SELECT 1").await;
    let trace = value(
        &mut a,
        "SELECT query FROM information_schema.optimizer_trace",
    )
    .await;
    assert!(trace.contains("mine"), "{trace}");
    b.run("SET profiling = 1").await;
    b.run("SELECT 1").await;
    a.run("SELECT 2").await;
    let profiles = b.query("SHOW PROFILES").await.rows();
    assert_eq!(profiles.len(), 1, "{profiles:?}");
}

async fn name_in_utf8(server: &Server) {
    server.root(&format!(
        "SET NAMES utf8mb4; DROP USER IF EXISTS 'юзер'@'%'; CREATE USER 'юзер'@'%' IDENTIFIED BY '{PASSWORD}'"
    ));
    let sidepool = Sidepool::sharing(server, 2);
    let address = sidepool.address();
    // latin1_swedish_ci: in it the name's bytes would be another's.
    let latin1 = Login {
        charset: 8,
        user: USER,
        ..Login::to(&address)
    };
    Wire::connect(&latin1).await.unwrap().run("SELECT 1").await;
    let login = Login {
        charset: 33,
        user: "юзер",
        password: PASSWORD,
        ..Login::to(&address)
    };
    let mut wire = Wire::connect(&login).await.unwrap();
    let user = value(
        &mut wire,
        "SELECT HEX(CONVERT(CURRENT_USER() USING utf8mb4))",
    )
    .await;
    assert_eq!(user, "D18ED0B7D0B5D1804025");
}

async fn database_in_latin1(server: &Server) {
    let quietly =
        "SET NAMES utf8mb4; DROP DATABASE IF EXISTS `t_dü`; DROP DATABASE IF EXISTS `t_dÃ¼`;";
    server.root(&format!(
        "{quietly} CREATE DATABASE `t_dü`; CREATE DATABASE `t_dÃ¼`"
    ));
    let sidepool = Sidepool::sharing(server, 1);
    let address = sidepool.address();
    // The same bytes are another name in another charset.
    for (charset, name) in [
        (45, "745F64C3BC"),
        (8, "745F64C383C2BC"),
        (45, "745F64C3BC"),
    ] {
        let login = Login {
            charset,
            database: Some("t_dü"),
            ..Login::to(&address)
        };
        let mut wire = Wire::connect(&login).await.unwrap();
        let found = value(&mut wire, "SELECT HEX(CONVERT(DATABASE() USING utf8mb4))").await;
        assert_eq!(found, name, "{charset}");
        wire.quit().await;
    }
    server.root(quietly);
}
