//! The harness itself, directly against the servers: what it says of an answer must be true before
//! it is used to judge Sidepool.

use crate::support::servers::{self, Make};
use crate::support::wire::{DEPRECATE_EOF, Login, Reply, Wire};

async fn round(make: Make, without: u32) {
    let server = servers::shared(make);
    let mut wire = Wire::connect(&Login {
        without,
        ..Login::to(&server.address())
    })
    .await
    .unwrap();
    let rows = wire
        .query("SELECT 1, NULL, 'x' UNION ALL SELECT 2, 'b', 'y'")
        .await
        .rows();
    assert_eq!(rows[0], [Some(b"1".to_vec()), None, Some(b"x".to_vec())]);
    assert_eq!(rows.len(), 2);
    let Reply::Err(error) = wire.query("SELECT nonsense").await else {
        panic!("no error")
    };
    assert_eq!((error.code, &error.state[..]), (1054, "42S22"));
    assert_eq!(wire.query("SELECT DATABASE()").await.rows()[0], [None]);
}

#[tokio::test]
async fn mariadb_answers_in_both_framings() {
    round(Make::MariaDb, 0).await;
    round(Make::MariaDb, DEPRECATE_EOF).await;
}

#[tokio::test]
async fn mysql_answers_in_both_framings() {
    if servers::makes().contains(&Make::MySql) {
        round(Make::MySql, 0).await;
        round(Make::MySql, DEPRECATE_EOF).await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_1045() {
    for make in servers::makes() {
        let server = servers::shared(make);
        let address = server.address();
        let login = Login {
            password: "wrong",
            ..Login::to(&address)
        };
        assert_eq!(Wire::connect(&login).await.err().unwrap().code, 1045);
    }
}
