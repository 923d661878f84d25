//! Real replication: lag is shown, a replica that has stopped is left out, and one that is promoted is followed.

use super::*;

on_every_make! {
    a_replica_that_has_stopped_is_left_out => stopped;
    a_replica_without_read_only_is_no_writer => forgotten;
}

/// Lets the second server follow the first.
fn replicate(pair: &Pair) {
    let (first, second) = (&pair.first, &pair.second);
    let port = first.port;
    match first.make {
        Make::MariaDb => {
            first.root("RESET MASTER; CREATE USER 'r'@'%' IDENTIFIED BY 'r'; GRANT REPLICATION SLAVE ON *.* TO 'r'@'%'");
            second.root(&format!(
                "CHANGE MASTER TO master_host='127.0.0.1', master_port={port}, master_user='r', \
                 master_password='r'; START SLAVE"
            ));
        }
        Make::MySql => {
            first.root(
                "RESET BINARY LOGS AND GTIDS; CREATE USER 'r'@'%' IDENTIFIED BY 'r'; \
                 GRANT REPLICATION SLAVE ON *.* TO 'r'@'%'",
            );
            second.root(&format!(
                "CHANGE REPLICATION SOURCE TO source_host='127.0.0.1', source_port={port}, source_user='r', \
                 source_password='r', get_source_public_key=1; START REPLICA"
            ));
        }
    }
}

fn stop(server: &Server) {
    server.root(match server.make {
        Make::MariaDb => "STOP SLAVE SQL_THREAD",
        Make::MySql => "STOP REPLICA SQL_THREAD",
    });
}

async fn stopped(make: Make) {
    let pair = Pair::start(make, &["--log-bin=binlog"]);
    let (first, second) = (&pair.first, &pair.second);
    replicate(&pair);
    let front = pair.front(&[]);
    let mut writer = client_in(&front.sidepool, USER, "t_b").await;
    writer.run("INSERT INTO t VALUES ('x')").await.ok();
    let mut reader = front.reader().await;
    eventually("it is there", async || {
        value(&mut reader, "SELECT COUNT(*) FROM t").await == "1"
    })
    .await;
    assert_eq!(whose(&mut reader).await, "2");
    eventually("its lag is shown", async || {
        let backend = front.backend(second);
        backend["replication"] == "running" && backend["replication_lag_seconds"].is_number()
    })
    .await;

    stop(second);
    eventually("it is known", async || {
        front.backend(second)["replication"] == "stopped"
    })
    .await;
    assert_eq!(whose(&mut reader).await, "1");
    assert_eq!(front.backend(second)["up"], true);

    // Its source goes away: what it has is as good as it can be, so it goes on to serve.
    second.root(match make {
        Make::MariaDb => "START SLAVE",
        Make::MySql => "START REPLICA",
    });
    eventually("it serves again", async || whose(&mut reader).await == "2").await;
    first.stop();
    front.wait_state(first, "down").await;
    assert_eq!(whose(&mut reader).await, "2");

    // Promoted: writable, and still pointed at the old source.
    read_only(second, false);
    writer.run("INSERT INTO t VALUES ('y')").await.ok();
    assert_eq!(whose(&mut writer).await, "2");
}

async fn forgotten(make: Make) {
    let pair = Pair::start(make, &["--log-bin=binlog"]);
    let (first, second) = (&pair.first, &pair.second);
    replicate(&pair);
    read_only(second, false);
    let front = pair.front(&[("SIDEPOOL_POOL__BORROW_TIMEOUT", "500ms")]);
    let mut writer = client_in(&front.sidepool, USER, "t_b").await;
    assert_eq!(whose(&mut writer).await, "1");
    assert_eq!(whose(&mut front.reader().await).await, "2");
    first.stop();
    front.wait_state(first, "down").await;
    assert_eq!(writer.query("SELECT 1").await.err().code, 9501);
    front.sidepool.wait("warned", |s| {
        s.log()
            .contains("replicas without read_only are not taken as the writer")
    });
    // An operator's word: it follows nobody any more.
    second.root(match make {
        Make::MariaDb => "STOP SLAVE",
        Make::MySql => "STOP REPLICA",
    });
    eventually("it writes", async || {
        front.backend(second)["role"] == "writer"
    })
    .await;
    assert_eq!(whose(&mut writer).await, "2");
}
