//! Hazard 9: a client that sets the session trackers for itself must not blind Sidepool, and sees
//! what it asked for.

use super::*;
use crate::support::wire::{Reply, SESSION_TRACK};

on_every_server! {
    h09_a_client_may_narrow_the_trackers => narrowed;
    h09_a_client_may_switch_the_trackers_off => switched_off;
    h09_a_client_sees_the_trackers_of_a_dedicated_connection => own_view;
    a_lower_wait_timeout_does_not_reach_the_pool => wait_timeout;
}

async fn narrowed(server: &Server) {
    let sidepool = Sidepool::sharing(server, 2);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    let own = value(&mut b, "SELECT @@time_zone").await;
    a.run("SET session_track_system_variables = 'autocommit', session_track_schema = 1")
        .await;
    a.run("SET time_zone = '+03:00'").await;
    drop_and_look(&sidepool, a, b, &own).await;
}

async fn switched_off(server: &Server) {
    let sidepool = Sidepool::sharing(server, 2);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    let own = value(&mut b, "SELECT @@time_zone").await;
    a.run("SET session_track_system_variables = '', session_track_state_change = OFF")
        .await;
    a.run("SET time_zone = '+03:00'").await;
    drop_and_look(&sidepool, a, b, &own).await;
}

/// `a` has changed its time zone unseen: it keeps it, and nobody else ever gets it.
async fn drop_and_look(sidepool: &Sidepool, mut a: Wire, mut b: Wire, own: &str) {
    for _ in 0..3 {
        assert_eq!(value(&mut b, "SELECT @@time_zone").await, own);
        assert_eq!(value(&mut a, "SELECT @@time_zone").await, "+03:00");
    }
    drop(a);
    let mut others = [client(sidepool).await, client(sidepool).await, b];
    for wire in &mut others {
        assert_eq!(value(wire, "SELECT @@time_zone").await, own);
        wire.run("SET time_zone = '+07:00'").await;
    }
    for wire in &mut others {
        assert_eq!(value(wire, "SELECT @@time_zone").await, "+07:00");
    }
}

/// Without `BEGIN` and `COMMIT`: MySQL 9.7 reports their transaction state even to those who switched
/// that off, which no setting explains; Sidepool goes by the setting.
async fn own_view(server: &Server) {
    server.database("t_h9");
    let sidepool = Sidepool::sharing(server, 2);
    let script = [
        "SET time_zone = '+03:00'",
        "SET NAMES latin1",
        "USE t_h9",
        "SET sql_mode = 'ANSI'",
        "SELECT 1",
        "SELECT @@session_track_system_variables, @@session_track_state_change",
        "SHOW VARIABLES LIKE 'session_track%'",
        "SET @a = 1",
    ];
    let mut seen = Vec::new();
    for address in [server.address(), sidepool.address()] {
        let login = Login {
            with: SESSION_TRACK,
            ..Login::to(&address)
        };
        let mut wire = Wire::connect(&login).await.unwrap();
        let mut answers = Vec::new();
        for sql in script {
            answers.push((sql, wire.query(sql).await));
        }
        seen.push(answers);
    }
    for (direct, through) in seen[0].iter().zip(&seen[1]) {
        assert_eq!(unordered(direct), unordered(through));
    }
}

/// The same with what follows an OK's fixed fields sorted: MariaDB reports variables in the order of
/// a hash that differs between connections.
fn unordered((sql, reply): &(&str, Reply)) -> (String, Reply) {
    let mut reply = reply.clone();
    if let Reply::Ok(end) | Reply::Rows { end, .. } = &mut reply {
        end.rest.sort_unstable();
    }
    ((*sql).to_owned(), reply)
}

async fn wait_timeout(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    let own = value(&mut b, "SELECT @@wait_timeout").await;
    a.run("SET wait_timeout = 1234").await;
    assert_eq!(value(&mut b, "SELECT @@wait_timeout").await, own);
    assert_eq!(value(&mut a, "SELECT @@wait_timeout").await, "1234");
    let Reply::Rows { rows, .. } = a.query("SHOW VARIABLES LIKE 'wait_timeout'").await else {
        panic!("no rows")
    };
    assert_eq!(rows[0][1], Some(b"1234".to_vec()));
    assert_eq!(
        value(&mut b, "SHOW VARIABLES LIKE 'wait_timeout'").await,
        "wait_timeout"
    );
    assert_eq!(value(&mut b, "SELECT @@wait_timeout").await, own);
}
