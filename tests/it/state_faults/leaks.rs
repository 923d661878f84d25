//! What one client leaves on a connection, by statements that a scan could take for others: the second
//! client must see what a connection of its own shows, and the first what it left.

use super::*;

on_every_server! {
    nothing_of_one_client_reaches_the_next => nothing_left;
    xa_transactions_stay_with_their_session => xa;
    a_dropped_database_is_dropped_for_its_session_only => dropped_database;
    wide_database_charsets_are_read => wide_charsets;
    the_last_value_of_a_sequence_is_the_own => last_value;
}

/// What a client runs, and what then is asked.
type Case = (&'static [&'static [u8]], &'static str);

const EVERYWHERE: &[Case] = &[
    (&[b"SELECT@leak:=1"], "SELECT @leak"),
    (&[b"SET@leak=1"], "SELECT @leak"),
    (&[b"SELECT 1 AND@leak:=2"], "SELECT @leak"),
    (&[b"(SELECT 1 INTO @leak)"], "SELECT @leak"),
    (&[b"SELECT 1, 2 INTO @leak, @b"], "SELECT @leak"),
    (&[b"WITH x AS (SELECT 1) SELECT @leak := 3"], "SELECT @leak"),
    (&[b"SELECT /*!50000 @leak := 4 */"], "SELECT @leak"),
    (&[b"/*!50000 SET */ @leak = 5"], "SELECT @leak"),
    (&[b"/*!99999 SELECT */ SET @leak = 6"], "SELECT @leak"),
    (&[b"/*!99999 ' */ SET @leak = 7 /* ' */"], "SELECT @leak"),
    (&[b"SELECT 1 --1, @leak := 8"], "SELECT @leak"),
    (&[b"SELECT 1 -- \n, @leak := 9"], "SELECT @leak"),
    (&[b"SELECT 1 # x\n, @leak := 10"], "SELECT @leak"),
    (&[b"SELECT '\\'', @leak := 11, '\\''"], "SELECT @leak"),
    (
        &[
            b"SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
            b"SELECT '\\', @leak := 12, '\\'",
        ],
        "SELECT @leak",
    ),
    (
        &[
            b"SET sql_mode = 'ANSI_QUOTES'",
            b"SELECT 1 AS \"\\\", @leak := 13, 1 AS \"\\\"",
        ],
        "SELECT @leak",
    ),
    (
        &[b"SET NAMES gbk", b"SELECT '\xbf\\', @leak := 14, ' '"],
        "SELECT @leak",
    ),
    (
        &[
            b"SET character_set_client = sjis",
            b"SELECT '\x83\\', @leak := 15, ' '",
        ],
        "SELECT @leak",
    ),
    (
        &[b"UPDATE t_leak.t SET a = a + 0 * (@leak := 9)"],
        "SELECT @leak",
    ),
    (&[b"DO 1; SET @leak = 16; DO 2"], "SELECT @leak"),
    (&[b"PREPARE leak FROM 'SELECT 17'"], "EXECUTE leak"),
    (
        &[b"/*!99999 SELECT */ PREPARE leak FROM 'SELECT 18'"],
        "EXECUTE leak",
    ),
    (
        &[b"CREATE TEMPORARY TABLE t_leak.tmp AS SELECT 19"],
        "SELECT * FROM t_leak.tmp",
    ),
    (
        &[b"/*!50000 CREATE TEMPORARY */ TABLE t_leak.tmp (a INT)"],
        "SELECT * FROM t_leak.tmp",
    ),
    (&[b"HANDLER t_leak.t OPEN AS h"], "HANDLER h READ FIRST"),
    (
        &[b"SELECT IF(1, GET_LOCK('leak', 0), 2)"],
        "SELECT COALESCE(IS_USED_LOCK('leak') = CONNECTION_ID(), 0)",
    ),
    (
        &[b"SELECT 1 FROM t_leak.t WHERE `get_lock`('leak', 0)"],
        "SELECT COALESCE(IS_USED_LOCK('leak') = CONNECTION_ID(), 0)",
    ),
    (
        &[b"DO GET_LOCK('leak', 0) OR 1"],
        "SELECT COALESCE(RELEASE_LOCK('leak'), 0)",
    ),
    (&[b"CALL t_leak.p()"], "SELECT CONCAT(@leak, @@time_zone)"),
    (
        &[b"/*!99999 SELECT */ CALL t_leak.p()"],
        "SELECT CONCAT(@leak, @@time_zone)",
    ),
    (
        &[b"SELECT t_leak.f_mode()"],
        "SELECT @@div_precision_increment",
    ),
    (
        &[b"SET timestamp = 1000000"],
        "SELECT UNIX_TIMESTAMP() = 1000000",
    ),
    (&[b"SET insert_id = 4000"], "SELECT @@insert_id"),
    (
        &[b"SET SESSION sql_mode = 'ANSI', timestamp = 1000000"],
        "SELECT UNIX_TIMESTAMP() = 1000000",
    ),
    (&[b"SET LOCAL time_zone = '+07:30'"], "SELECT @@time_zone"),
    (
        &[b"SET @@local.time_zone := '+07:40'"],
        "SELECT @@time_zone",
    ),
    (
        &[b"SET time_zone = '+07:50'; SELECT nonsense"],
        "SELECT @@time_zone",
    ),
    (&[b"USE t_leak"], "SELECT DATABASE()"),
    (&[b"/*!50000 USE */ t_leak"], "SELECT DATABASE()"),
    (
        &[b"SET autocommit = 0", b"SAVEPOINT leak"],
        "ROLLBACK TO SAVEPOINT leak",
    ),
    (&[b"SELECT SQL_CALC_FOUND_ROWS 1 LIMIT 0"], "SELECT 20"),
    (&[b"SET ROLE NONE"], "SELECT CURRENT_ROLE()"),
    (&[b"SET DEFAULT ROLE NONE"], "SELECT CURRENT_ROLE()"),
    (
        &[b"SET SESSION TRANSACTION READ ONLY"],
        "INSERT INTO t_leak.ro VALUES (1)",
    ),
    (
        &[b"SET TRANSACTION READ ONLY"],
        "INSERT INTO t_leak.ro VALUES (2)",
    ),
];

const MARIADB: &[Case] = &[
    (&[b"/*M!50000 SET */ @leak = 30"], "SELECT @leak"),
    (&[b"/*!50701 SELECT */ SET @leak = 31"], "SELECT @leak"),
    (
        &[b"SET STATEMENT time_zone = '+01:00' FOR SET @leak = 32"],
        "SELECT @leak",
    ),
    (&[b"BEGIN NOT ATOMIC SET @leak = 33; END"], "SELECT @leak"),
    (&[b"EXECUTE IMMEDIATE 'SET @leak = 34'"], "SELECT @leak"),
    (&[b"SELECT NEXTVAL(t_leak.s)"], "SELECT 1"),
    (&[b"IF 1 THEN SET @leak = 35; END IF"], "SELECT @leak"),
];

const MYSQL: &[Case] = &[
    (&[b"/*M! SELECT */ SET @leak = 40"], "SELECT @leak"),
    (&[b"TABLE t_leak.t INTO @leak"], "SELECT @leak"),
    (
        &[b"SELECT /*+ SET_VAR(time_zone = '+03:10') */ @leak := 41"],
        "SELECT @leak",
    ),
    (&[b"VALUES ROW(42) INTO @leak"], "SELECT @leak"),
];

async fn nothing_left(server: &Server) {
    server.database("t_leak");
    server.root(
        "CREATE TABLE t_leak.t (a INT) ENGINE = InnoDB; INSERT INTO t_leak.t VALUES (1); \
         CREATE TABLE t_leak.ro (a INT) ENGINE = InnoDB",
    );
    server.routine(
        "CREATE PROCEDURE t_leak.p() BEGIN SET @leak = 50; SET SESSION time_zone = '+04:50'; END",
    );
    server.routine(
        "CREATE FUNCTION t_leak.f_mode() RETURNS INT DETERMINISTIC BEGIN \
         SET SESSION div_precision_increment = 17; RETURN 1; END",
    );
    let own = match server.make {
        Make::MariaDb => {
            server.root("CREATE SEQUENCE t_leak.s");
            MARIADB
        }
        Make::MySql => MYSQL,
    };
    let mut wrong = Vec::new();
    let sidepool = Sidepool::sharing(server, 2);
    for (statements, probe) in EVERYWHERE.iter().chain(own) {
        let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
        let direct = server.address();
        let login = Login::to(&direct);
        let (mut twin, mut fresh) = (
            Wire::connect(&login).await.unwrap(),
            Wire::connect(&login).await.unwrap(),
        );
        // The other's statements go where the first's have been, before and behind.
        b.run("DO 1").await;
        for sql in *statements {
            a.query_each(sql).await;
        }
        let first_of_b = b.query(probe).await;
        let of_a = a.query(probe).await;
        let second_of_b = b.query(probe).await;
        a.quit().await;
        let left = b.query(probe).await;
        // Locks are the server's: the twin takes them when they are free again.
        let of_fresh = fresh.query(probe).await;
        for sql in *statements {
            twin.query_each(sql).await;
        }
        let of_twin = twin.query(probe).await;
        let text = String::from_utf8_lossy(statements.last().unwrap());
        for (who, seen, expected) in [
            ("second client", &first_of_b, &of_fresh),
            ("second client, again", &second_of_b, &of_fresh),
            ("second client, first gone", &left, &of_fresh),
            ("first client", &of_a, &of_twin),
        ] {
            if essence(seen) != essence(expected) {
                wrong.push(format!("{text}: {who}: {seen:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn essence(reply: &Reply) -> String {
    match reply {
        Reply::Ok(ok) => format!("ok {}", ok.affected),
        Reply::Err(error) => format!("error {}", error.code),
        Reply::Rows { rows, .. } => format!("{rows:?}"),
        other => format!("{other:?}"),
    }
}

async fn xa(server: &Server) {
    server.database("t_leakx");
    server.root("CREATE TABLE t_leakx.t (a INT) ENGINE = InnoDB");
    let sidepool = Sidepool::sharing(server, 2);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    // MariaDB breaks a connection that is reset behind XA PREPARE.
    a.run("XA START 'reset'").await;
    a.run("INSERT INTO t_leakx.t VALUES (1)").await;
    a.run("XA END 'reset'").await;
    a.run("XA PREPARE 'reset'").await;
    a.command(0x1f, b"").await;
    a.read_reply().await.ok();
    for wire in [&mut a, &mut b] {
        assert_eq!(value(wire, "SELECT COUNT(*) FROM t_leakx.t").await, "0");
    }
    server.root("XA ROLLBACK 'reset'");
    for last in ["XA COMMIT 'leak'", "XA ROLLBACK 'leak'"] {
        a.run("XA START 'leak'").await;
        a.run("INSERT INTO t_leakx.t VALUES (1)").await;
        assert_eq!(value(&mut b, "SELECT COUNT(*) FROM t_leakx.t").await, "0");
        a.run("XA END 'leak'").await;
        assert_eq!(value(&mut b, "SELECT COUNT(*) FROM t_leakx.t").await, "0");
        a.run("XA PREPARE 'leak'").await;
        for _ in 0..2 {
            assert_eq!(value(&mut b, "SELECT COUNT(*) FROM t_leakx.t").await, "0");
            b.run("SET time_zone = '+01:00'").await;
        }
        a.run(last).await;
        b.run("DELETE FROM t_leakx.t").await;
    }
    // A prepared one outlives its session.
    a.run("XA START 'kept'").await;
    a.run("INSERT INTO t_leakx.t VALUES (2)").await;
    a.run("XA END 'kept'").await;
    a.run("XA PREPARE 'kept'").await;
    a.quit().await;
    for _ in 0..2 {
        assert_eq!(value(&mut b, "SELECT COUNT(*) FROM t_leakx.t").await, "0");
    }
    crate::support::eventually("the transaction is let go", async || {
        !server.root("XA RECOVER").is_empty()
            && !matches!(b.query("XA COMMIT 'kept'").await, Reply::Err(_))
    })
    .await;
    assert_eq!(value(&mut b, "SELECT COUNT(*) FROM t_leakx.t").await, "1");
}

async fn dropped_database(server: &Server) {
    server.database("t_leakd");
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    a.run("USE t_leakd").await;
    a.run("DROP DATABASE t_leakd").await;
    assert_eq!(value(&mut b, "SELECT DATABASE()").await, "NULL");
    assert_eq!(value(&mut a, "SELECT DATABASE()").await, "NULL");
    a.run("CREATE DATABASE t_leakd").await;
    a.run("USE t_leakd").await;
    b.run("SELECT 1").await;
    assert_eq!(value(&mut a, "SELECT DATABASE()").await, "t_leakd");
    assert_eq!(value(&mut b, "SELECT DATABASE()").await, "NULL");
}

/// Behind `USE` of such a database MariaDB's OK packets have padding in front of the trackers.
async fn wide_charsets(server: &Server) {
    let sidepool = Sidepool::sharing(server, 1);
    let mut b = client(&sidepool).await;
    for charset in ["ucs2", "utf16", "utf16le", "utf32"] {
        let name = format!("t_wide_{charset}");
        server.database(&name);
        server.root(&format!("ALTER DATABASE {name} CHARACTER SET {charset}"));
        let address = sidepool.address();
        let login = Login {
            with: crate::support::wire::SESSION_TRACK,
            ..Login::to(&address)
        };
        let mut a = Wire::connect(&login).await.unwrap();
        a.run(&format!("USE {name}")).await;
        for _ in 0..2 {
            b.run("SELECT 1").await;
            assert_eq!(value(&mut a, "SELECT DATABASE()").await, name);
            assert_eq!(
                value(&mut a, "SELECT @@character_set_database").await,
                charset
            );
            a.run("SET time_zone = '+02:00'").await;
            a.run("SET TRANSACTION READ ONLY").await;
            a.run("BEGIN").await;
            a.run("COMMIT").await;
            assert_ne!(value(&mut b, "SELECT @@time_zone").await, "+02:00");
            assert_eq!(value(&mut a, "SELECT @@time_zone").await, "+02:00");
        }
        a.run("BEGIN").await;
        a.run(&format!("CREATE TABLE {name}.t (a INT)")).await;
        a.run(&format!("DROP DATABASE {name}")).await;
        assert_eq!(value(&mut a, "SELECT DATABASE()").await, "NULL");
        assert_eq!(value(&mut b, "SELECT DATABASE()").await, "NULL");
    }
}

async fn last_value(server: &Server) {
    if !is_mariadb(server) {
        return;
    }
    server.database("t_seq");
    server.root("CREATE SEQUENCE t_seq.s");
    let sidepool = Sidepool::sharing(server, 1);
    let (mut a, mut b) = (client(&sidepool).await, client(&sidepool).await);
    assert_eq!(value(&mut a, "SELECT NEXTVAL(t_seq.s)").await, "1");
    assert_eq!(value(&mut b, "SELECT NEXTVAL(t_seq.s)").await, "2");
    let early = a.query("SELECT LASTVAL(t_seq.s)").await;
    assert_eq!(early.err().code, 1235, "not the other's 2");
    assert_eq!(value(&mut a, "SELECT NEXTVAL(t_seq.s)").await, "3");
    assert_eq!(value(&mut a, "SELECT LASTVAL(t_seq.s)").await, "3");
}
