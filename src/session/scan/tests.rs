use proptest::prelude::*;

use super::*;

fn scan(sql: &str) -> Findings {
    Scanner::default().scan(sql.as_bytes(), LexMode::default())
}

fn flags(sql: &str) -> Flags {
    scan(sql).flags
}

#[test]
fn ordinary_statements_raise_nothing() {
    for sql in [
        "SELECT c FROM sbtest1 WHERE id=5012",
        "select 1",
        "BEGIN",
        "  /* hint */ SELECT 'set @x = 1', \"call p()\", `plain` FROM t -- row_count()",
        "SELECT * FROM t WHERE email = 'a@b.c'",
        "SHOW TABLES",
        "select 1;",
    ] {
        assert_eq!(flags(sql), Flags::NONE, "{sql}");
    }
    for sql in ["update t set a = 1", "DROP TABLE IF EXISTS locks"] {
        assert_eq!(flags(sql), Flags::WRITE, "{sql}");
    }
}

const FOUND: &[(&str, Flags)] = &[
    ("SET @a = 1", Flags::USER_VARIABLE),
    ("SELECT @b := 2", Flags::USER_VARIABLE),
    ("select id into @x from t", Flags::USER_VARIABLE),
    (
        "LOAD DATA LOCAL INFILE 'x' INTO TABLE t (@a) SET b = @a",
        Flags::USER_VARIABLE,
    ),
    ("CREATE  TEMPORARY TABLE t (a int)", Flags::TEMPORARY),
    (
        "create or replace temporary table t (a int)",
        Flags::TEMPORARY,
    ),
    ("HANDLER t OPEN", Flags::HANDLER),
    ("SELECT GET_LOCK('a', 1)", Flags::LOCK),
    ("SELECT get_lock ('a', 1)", Flags::LOCK),
    ("SELECT `get_lock`('a', 1)", Flags::LOCK),
    ("FLUSH TABLES WITH READ LOCK", Flags::LOCK),
    ("flush tables t for export", Flags::LOCK),
    ("LOCK INSTANCE FOR BACKUP", Flags::LOCK),
    ("BACKUP STAGE START", Flags::LOCK),
    ("SET RESOURCE GROUP rg", Flags::LOCK),
    ("SELECT LASTVAL(s)", Flags::LOCK),
    ("SELECT PREVIOUS VALUE FOR s", Flags::LOCK),
    ("LOCK TABLES t WRITE", Flags::LOCK_TABLES),
    ("CALL p()", Flags::ROUTINE),
    ("BEGIN NOT ATOMIC SELECT 1; END", Flags::ROUTINE),
    (
        "SET STATEMENT max_statement_time=5 FOR CALL p()",
        Flags::ROUTINE,
    ),
    ("SET ROLE admin", Flags::ROLE),
    ("SET DEFAULT ROLE admin", Flags::ROLE),
    ("SET SESSION AUTHORIZATION a@b", Flags::ROLE),
    ("BINLOG 'abc'", Flags::ROUTINE),
    ("SET GLOBAL max_connections = 5", Flags::GLOBAL),
    ("SET @@persist.max_connections = 5", Flags::GLOBAL),
    ("GRANT SELECT ON *.* TO u", Flags::PRIVILEGES),
    ("revoke all on a.* from u", Flags::PRIVILEGES),
    ("CREATE OR REPLACE USER u", Flags::PRIVILEGES),
    ("DROP ROLE r", Flags::PRIVILEGES),
    ("SET PASSWORD = 'x'", Flags::PRIVILEGES),
    ("SET DEFAULT ROLE r", Flags::PRIVILEGES),
    ("FLUSH NO_WRITE_TO_BINLOG PRIVILEGES", Flags::PRIVILEGES),
    ("UPDATE mysql.user SET a = 1", Flags::PRIVILEGES),
    ("delete from `mysql` . db", Flags::PRIVILEGES),
    (
        "SET time_zone = '+01:00', GLOBAL sql_mode = ''",
        Flags::GLOBAL,
    ),
    ("SHOW WARNINGS LIMIT 1", Flags::LOOKS_BACK),
    ("GET DIAGNOSTICS @n = NUMBER", Flags::LOOKS_BACK),
    ("SELECT LASTVAL(s)", Flags::LASTVAL),
    ("SHOW VARIABLES; SELECT 1", Flags::CODE),
    ("PREPARE s FROM 'select 1'", Flags::PREPARE),
    ("EXECUTE IMMEDIATE 'select 1'", Flags::PREPARE),
    ("SELECT ROW_COUNT()", Flags::ROW_COUNT),
    ("SELECT FOUND_ROWS()", Flags::FOUND_ROWS),
    (
        "SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1",
        Flags::CALC_FOUND_ROWS,
    ),
    ("SELECT LAST_INSERT_ID()", Flags::LAST_INSERT_ID),
    ("SELECT @@identity", Flags::LAST_INSERT_ID),
    ("SELECT CONNECTION_ID()", Flags::CONNECTION_ID),
    ("GET DIAGNOSTICS @n = NUMBER", Flags::DIAGNOSTICS),
    ("SHOW WARNINGS LIMIT 1", Flags::DIAGNOSTICS),
    ("SELECT @@warning_count", Flags::DIAGNOSTICS),
    ("SET session_track_schema = 1", Flags::SESSION_TRACK),
    ("SELECT @@session.session_track_gtids", Flags::SESSION_TRACK),
    ("SET wait_timeout = 5", Flags::TIMEOUT_VARIABLE),
    ("SHOW SESSION VARIABLES LIKE 'x'", Flags::ALL_VARIABLES),
    ("SAVEPOINT a", Flags::SAVEPOINT),
    ("INSERT INTO t VALUES ('x@y', ';')", Flags::INSERT),
    ("replace into t values (1)", Flags::INSERT),
    ("DO f()", Flags::INSERT),
    ("COMMIT", Flags::END_TRANSACTION),
    ("rollback and chain", Flags::END_TRANSACTION),
    ("select 1; set @a = 1", Flags::USER_VARIABLE),
    // Odd places and forms, each accepted by one of the servers (tried on both).
    (
        "CREATE /*!50000 TEMPORARY */ TABLE t (a INT)",
        Flags::TEMPORARY,
    ),
    (
        "SET STATEMENT max_statement_time=5 FOR CREATE TEMPORARY TABLE t (a INT)",
        Flags::TEMPORARY,
    ),
    (
        "SET STATEMENT max_statement_time=5 FOR HANDLER t OPEN",
        Flags::HANDLER,
    ),
    (
        "SET STATEMENT max_statement_time=5 FOR SELECT GET_LOCK('a', 1)",
        Flags::LOCK,
    ),
    ("SET STATEMENT sql_mode='' FOR SET ROLE r", Flags::ROLE),
    (
        "WITH x AS (SELECT 1) SELECT 1 INTO @a",
        Flags::USER_VARIABLE,
    ),
    ("TABLE t LIMIT 1 INTO @a", Flags::USER_VARIABLE),
    ("VALUES ROW(1) INTO @a", Flags::USER_VARIABLE),
    ("(SELECT 1) INTO @a", Flags::USER_VARIABLE),
    ("(SELECT GET_LOCK('a', 1))", Flags::LOCK),
    ("EXPLAIN FORMAT=JSON INTO @v SELECT 1", Flags::USER_VARIABLE),
    ("EXPLAIN ANALYZE SELECT GET_LOCK('a', 1)", Flags::LOCK),
    ("ANALYZE UPDATE t SET a = 1", Flags::WRITE),
    (
        "ANALYZE FORMAT=JSON INSERT INTO t VALUES (1)",
        Flags::INSERT,
    ),
    ("SHOW TABLES WHERE GET_LOCK('a', 1)", Flags::LOCK),
    ("SHOW STATUS WHERE (@q := 1)", Flags::USER_VARIABLE),
    ("DO GET_LOCK('a', 1)", Flags::LOCK),
    ("KILL CONNECTION_ID()", Flags::CONNECTION_ID),
    ("BEGIN SELECT 1; END", Flags::ROUTINE),
    ("BEGIN NULL; END;", Flags::ROUTINE),
    ("<<l>> BEGIN NULL; END", Flags::ROUTINE),
    ("l: LOOP LEAVE l; END LOOP", Flags::ROUTINE),
    ("LOCK TABLES FOR BACKUP", Flags::LOCK),
    ("LOCK BINLOG FOR BACKUP", Flags::LOCK),
    ("FLUSH LOCAL TABLES t FOR EXPORT", Flags::LOCK),
    ("GET STACKED DIAGNOSTICS @n = NUMBER", Flags::DIAGNOSTICS),
];

#[test]
fn what_trackers_miss_is_found() {
    for &(sql, expected) in FOUND {
        assert!(flags(sql).any(expected), "{sql}: {:?}", flags(sql));
        let lower = sql.to_lowercase();
        assert!(flags(&lower).any(expected), "{lower}");
    }
}

#[test]
fn executable_comments_are_code_and_others_are_not() {
    assert!(flags("/*!50000 SET @a = 1 */").any(Flags::USER_VARIABLE));
    assert!(flags("SELECT /*M!100100 GET_LOCK('a',1) */ 1").any(Flags::LOCK));
    assert!(flags("/*!call p() */").any(Flags::ROUTINE));
    assert_eq!(flags("SELECT 1 /* ; set @a = 1 */ + 1"), Flags::NONE);
    // The marker's end is not code; what follows is.
    assert!(flags("/*!50000 SELECT */ GET_LOCK('a', 1)").any(Flags::LOCK));
}

/// `/*!99999 … */` is skipped by every server there is, `/*M! … */` by MySQL.
#[test]
fn what_runs_if_an_executable_comment_is_skipped_is_found() {
    for sql in [
        "/*!99999 SELECT */ CALL p()",
        "/*M! SELECT */ CALL p()",
        "/*!99999 ' */ CALL p() /* ' */",
        "/*!99999 # */ CALL p()",
        "/*!99999 `a*/ SET @a = 1; -- `",
        "/*!99999 SELECT 1 */ /*!50000 CALL p() */",
    ] {
        assert!(flags(sql).any(Flags::ROUTINE), "{sql}");
    }
    assert!(flags("/*!99999 SELECT */ SET ROLE r").any(Flags::ROLE));
    assert!(flags("/*!50701 SHOW */ LOCK TABLES t READ").any(Flags::LOCK_TABLES));
    assert!(flags("/*M! DO 1, */ HANDLER t OPEN").any(Flags::HANDLER));
    let ordinary =
        Flags::ROUTINE | Flags::USER_VARIABLE | Flags::PREPARE | Flags::LOCK | Flags::ROLE;
    for sql in [
        "/*!40101 SET NAMES utf8 */",
        "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `d` /*!40100 DEFAULT CHARACTER SET utf8 */",
        "/*!40000 ALTER TABLE `t` DISABLE KEYS */;",
    ] {
        assert!(!flags(sql).any(ordinary), "{sql}");
    }
    assert!(!flags("/*!40101 SET NAMES utf8 */").any(Flags::PLAIN_SET));
}

#[test]
fn a_user_variable_needs_no_blank_in_front() {
    for sql in [
        "SELECT@a:=1",
        "SET@a=1",
        "SELECT 1 AND@a",
        "CREATE TABLE t AS SELECT@a:=1",
        "INSERT INTO t SELECT@`a`",
        "SELECT 'x'@a",
    ] {
        assert!(flags(sql).any(Flags::USER_VARIABLE), "{sql}");
    }
    let ansi = LexMode {
        ansi_quotes: true,
        ..LexMode::default()
    };
    let sql = br#"SELECT @"a\", CONNECTION_ID(), "b""#;
    let found = Scanner::default().scan(sql, ansi).flags;
    assert!(
        found.any(Flags::CONNECTION_ID),
        "the name ends at the quote"
    );
}

#[test]
fn quoting_modes_decide_where_strings_end() {
    let sql = br"SELECT 'a\' , @x := 1, '";
    let scanner = Scanner::default();
    let escapes = LexMode::default();
    let none = LexMode {
        no_backslash_escapes: true,
        ..escapes
    };
    assert!(!scanner.scan(sql, escapes).flags.any(Flags::USER_VARIABLE));
    assert!(scanner.scan(sql, none).flags.any(Flags::USER_VARIABLE));
    // In gbk the backslash is the second half of a character, so the quote behind it closes.
    let sql = b"SELECT '\xbf\\', @x := 1, ''";
    let gbk = LexMode {
        charset: CharsetFamily::of(b"gbk"),
        ..escapes
    };
    assert!(scanner.scan(sql, gbk).flags.any(Flags::USER_VARIABLE));
    assert!(!scanner.scan(sql, escapes).flags.any(Flags::USER_VARIABLE));
    let sql = br#"SELECT "a\" , @x := 1, "b""#;
    let ansi = LexMode {
        ansi_quotes: true,
        ..escapes
    };
    assert!(scanner.scan(sql, ansi).flags.any(Flags::USER_VARIABLE));
    assert!(!scanner.scan(sql, escapes).flags.any(Flags::USER_VARIABLE));
}

#[test]
fn variables_set_without_a_scope_are_named() {
    for (sql, names) in [
        ("SET @@time_zone = '+01:00'", &["time_zone"][..]),
        (
            "set autocommit=0, @@SQL_mode := concat(@@sql_mode, ',ANSI'), @@`timestamp`=5",
            &["sql_mode", "timestamp"],
        ),
        ("SET @@x = DEFAULT; SET @@y=1", &["x", "y"]),
    ] {
        assert!(flags(sql).any(Flags::UNTRACKED), "{sql}");
        let found = set_without_scope(sql.as_bytes(), LexMode::default());
        let found: Vec<_> = found.iter().map(|n| str::from_utf8(n).unwrap()).collect();
        assert_eq!(found, names, "{sql}");
    }
    for sql in [
        "SET time_zone = DEFAULT",
        "SET @@session.time_zone = '+01:00', @@local.x = @@y, GLOBAL z = 3",
        "SELECT @@x",
    ] {
        assert!(!flags(sql).any(Flags::UNTRACKED), "{sql}");
    }
}

#[test]
fn calls_of_stored_functions_are_found() {
    for sql in [
        "SELECT f()",
        "select a.f (1)",
        "SELECT `f`(1)",
        "SELECT app.count(1)",
        "INSERT INTO t VALUES (g(1))",
    ] {
        assert!(may_call(sql.as_bytes(), LexMode::default()), "{sql}");
    }
    for sql in [
        "SELECT c FROM t WHERE id IN (1, 2)",
        "SELECT 'f()', COUNT(*), SUM(k) FROM t WHERE id BETWEEN 1 AND 5",
        "BEGIN",
    ] {
        assert!(!may_call(sql.as_bytes(), LexMode::default()), "{sql}");
    }
}

#[test]
fn accounts_are_not_user_variables() {
    for sql in [
        "CREATE USER app@localhost",
        "GRANT ALL ON a.* TO 'app'@'%'",
        "CREATE DEFINER=`a`@`b` VIEW v AS SELECT 1",
    ] {
        assert!(!flags(sql).any(Flags::USER_VARIABLE), "{sql}");
    }
}

#[test]
fn only_sets_of_literals_are_plain() {
    for sql in [
        "SET NAMES utf8mb4",
        "SET NAMES 'utf8mb4' COLLATE 'utf8mb4_bin'",
        "SET autocommit=0",
        "set session time_zone = '+00:00', @@session.sql_mode='ANSI'",
        "SET @@long_query_time = 1.5",
        "SET AUTOCOMMIT = 1;",
    ] {
        let found = flags(sql).without(Flags::UNTRACKED);
        assert_eq!(found, Flags::PLAIN_SET | Flags::SET, "{sql}");
    }
    for sql in [
        "SET time_zone = DEFAULT",
        "SET sql_mode = concat(@@sql_mode, ',ANSI')",
        "SET GLOBAL max_connections = 5",
        "SET @@global.max_connections = 5",
        "SET TRANSACTION READ ONLY",
        "SET time_zone = '+01:00', @a = 1",
        "SET wait_timeout = 5",
        "SET PASSWORD = 'x'",
        "SET autocommit=0; SET autocommit=1",
        "SET NAMES utf8mb4 COLLATE",
        "SET optimizer_switch = 'index_merge=default'",
        "SET optimizer_switch = 'DEFAULT'",
    ] {
        assert!(!flags(sql).any(Flags::PLAIN_SET), "{sql}");
    }
}

#[test]
fn counts_behind_another_statement_look_back_at_that_one() {
    assert!(!flags("INSERT INTO t VALUES (1); SELECT ROW_COUNT()").any(Flags::ROW_COUNT));
    assert!(flags("SELECT ROW_COUNT(); SELECT 1").any(Flags::ROW_COUNT));
    let found = |sql| flags(sql).any(Flags::FOUND_ROWS);
    assert!(!found(
        "SELECT SQL_CALC_FOUND_ROWS 1 LIMIT 1; SELECT FOUND_ROWS()"
    ));
    assert!(!found("SELECT 1; DO 1; SELECT FOUND_ROWS()"));
    assert!(found("DO 1; SELECT FOUND_ROWS()"));
    assert!(found("SELECT FOUND_ROWS(); SELECT 1"));
}

#[test]
fn whole_statements_are_recognised_alone_only() {
    assert_eq!(scan("show warnings").whole, Whole::ShowWarnings);
    assert_eq!(scan("SHOW ERRORS ;").whole, Whole::ShowErrors);
    assert_eq!(scan("SHOW COUNT(*) WARNINGS").whole, Whole::CountWarnings);
    assert_eq!(scan("SHOW COUNT( * ) ERRORS").whole, Whole::CountErrors);
    assert_eq!(scan("select row_count() ;").whole, Whole::RowCount);
    assert_eq!(scan("SELECT ROW_COUNT() AS n").whole, Whole::RowCount);
    assert_eq!(scan("SELECT ROW_COUNT() AS from").whole, Whole::Ordinary);
    assert_eq!(scan("SELECT ROW_COUNT() FROM dual").whole, Whole::Ordinary);
    assert_eq!(scan("SELECT found_rows()").whole, Whole::FoundRows);
    assert_eq!(
        scan("SELECT Connection_Id() AS `my id`").whole,
        Whole::ConnectionId
    );
    assert_eq!(scan("SELECT CONNECTION_ID() + 0").whole, Whole::Ordinary);
    assert_eq!(scan("SELECT CONNECTION_ID(), 1").whole, Whole::Ordinary);
    assert_eq!(scan("SELECT @@pseudo_thread_id").whole, Whole::ThreadId);
    assert_eq!(
        scan("SELECT @@session.warning_count").whole,
        Whole::WarningCount
    );
    assert_eq!(scan("SELECT @@error_count AS n").whole, Whole::ErrorCount);
    assert_eq!(scan("SELECT @@global.error_count").whole, Whole::Ordinary);
    let part = |skip, count| Whole::SomeWarnings(Part { skip, count });
    assert_eq!(scan("SHOW WARNINGS LIMIT 1").whole, part(0, 1));
    assert_eq!(scan("SHOW WARNINGS LIMIT 2, 1").whole, part(2, 1));
    assert_eq!(scan("SHOW WARNINGS LIMIT 1 OFFSET 2").whole, part(2, 1));
    assert_eq!(scan("SHOW WARNINGS LIMIT ?").whole, Whole::Ordinary);
    assert_eq!(scan("SELECT 1; SELECT ROW_COUNT()").whole, Whole::Ordinary);
    assert_eq!(scan("SHOW WARNINGS; SELECT 1").whole, Whole::Ordinary);
    assert_eq!(
        scan("KILL QUERY 2147483650").whole,
        Whole::Kill {
            id: 2_147_483_650,
            query: true
        }
    );
    assert_eq!(
        scan("kill 7").whole,
        Whole::Kill {
            id: 7,
            query: false
        }
    );
    let negative = |id| Whole::Kill { id, query: true };
    assert_eq!(scan("KILL QUERY -2147483648").whole, negative(1 << 31));
    assert_eq!(scan("KILL QUERY -1").whole, negative(u64::from(u32::MAX)));
    assert_eq!(scan("KILL QUERY -2147483649").whole, Whole::Ordinary);
    assert_eq!(scan("KILL QUERY - -1").whole, Whole::Ordinary);
    assert_eq!(scan("KILL USER 'x'").whole, Whole::Ordinary);
}

#[test]
fn a_digest_has_no_literals_and_is_bounded() {
    let mode = LexMode::default();
    let text = digest(
        b"SELECT a, 'secret', 42 FROM `t` /* x */ WHERE b = @c -- y",
        mode,
    );
    assert_eq!(text, "SELECT a , ? , ? FROM `t` WHERE b = @?");
    assert!(digest("x, ".repeat(500).as_bytes(), mode).chars().count() <= 201);
}

#[test]
fn what_uses_a_table_empties_the_diagnostics_area() {
    for (sql, expected) in [
        ("SELECT 1 FROM t", Emptied::Yes),
        ("INSERT t VALUES (1)", Emptied::Yes),
        ("SHOW TABLES", Emptied::Yes),
        ("(SELECT 1 FROM t)", Emptied::Yes),
        ("SELECT f() FROM t", Emptied::Yes),
        ("SET @a = 1; DELETE FROM t", Emptied::Yes),
        ("DROP TABLE t", Emptied::Yes),
        ("SELECT 1", Emptied::No),
        ("DO 0", Emptied::No),
        ("SET a = 1", Emptied::No),
        ("COMMIT", Emptied::No),
        ("BEGIN", Emptied::No),
        ("USE x", Emptied::No),
        ("SELECT 'from'", Emptied::No),
        ("SELECT 1 FROM DUAL;", Emptied::No),
        ("(SELECT 1)", Emptied::No),
        ("SELECT CONCAT('a', 'b')", Emptied::No),
        ("WITH x AS (SELECT 1) SELECT 2", Emptied::No),
        ("SHOW FULL PROCESSLIST", Emptied::No),
        ("SHOW CREATE DATABASE d", Emptied::No),
        ("SHOW WARNINGS", Emptied::No),
        ("ALTER DATABASE d CHARACTER SET utf8", Emptied::No),
        ("CREATE DATABASE d", Emptied::No),
        ("DROP SCHEMA IF EXISTS d", Emptied::No),
        ("SAVEPOINT s", Emptied::No),
        ("SELECT d.f(5)", Emptied::Perhaps),
        ("SET @a = f()", Emptied::Perhaps),
        ("CALL p()", Emptied::Perhaps),
        ("PREPARE p FROM 'SELECT 1 FROM t'", Emptied::Perhaps),
        ("EXECUTE p", Emptied::Perhaps),
        ("BEGIN NOT ATOMIC DELETE FROM t; END", Emptied::Perhaps),
        ("SELECT 1 /*!999999 FROM t */", Emptied::Perhaps),
        ("USE x; SELECT f()", Emptied::Perhaps),
    ] {
        let found = empties(sql.as_bytes(), LexMode::default());
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn a_dropped_database_is_seen_among_other_statements() {
    for (sql, expected) in [
        ("DROP DATABASE d", true),
        (" /* x */ drop schema if exists d", true),
        ("SELECT 1; DROP DATABASE d", true),
        ("DROP TABLE `database`", false),
        ("INSERT INTO t VALUES (';drop database d')", false),
        ("SELECT 1; DROP TABLE d", false),
    ] {
        let found = drops_database(sql.as_bytes(), LexMode::default());
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn a_name_is_not_a_call() {
    let meant = Flags::ROW_COUNT
        | Flags::FOUND_ROWS
        | Flags::LOCK
        | Flags::LASTVAL
        | Flags::CONNECTION_ID
        | Flags::DIAGNOSTICS;
    for sql in [
        "SELECT row_count FROM t",
        "CREATE TABLE t (row_count INT, found_rows INT)",
        "SELECT 1 AS found_rows",
        "SELECT t.connection_id, `get_lock` FROM t",
        "SELECT previous, lastval FROM t",
        "SELECT error_count, t.warning_count FROM t WHERE connection_id = 5",
    ] {
        assert_eq!(flags(sql).only(meant), Flags::NONE, "{sql}");
    }
    for (sql, flag) in [
        ("SELECT row_count ( )", Flags::ROW_COUNT),
        ("SELECT found_rows/* so */()", Flags::FOUND_ROWS),
        ("SELECT row_count /*!99999 x */ ()", Flags::ROW_COUNT),
        ("SELECT `connection_id`()", Flags::CONNECTION_ID),
        ("SELECT @@pseudo_thread_id + 0", Flags::CONNECTION_ID),
        ("SELECT PREVIOUS VALUE FOR s", Flags::LASTVAL),
        ("GET DIAGNOSTICS @r = ROW_COUNT", Flags::ROW_COUNT),
        ("SELECT @@session.error_count + 0", Flags::DIAGNOSTICS),
        ("SELECT @@`warning_count` + 0", Flags::DIAGNOSTICS),
    ] {
        assert!(flags(sql).any(flag), "{sql}");
    }
}

proptest! {
    #[test]
    fn scanning_never_panics(sql: Vec<u8>, ansi_quotes: bool, no_backslash_escapes: bool, gbk: bool) {
        let charset = if gbk { CharsetFamily::Gbk } else { CharsetFamily::Sjis };
        Scanner::default().scan(&sql, LexMode { ansi_quotes, no_backslash_escapes, charset });
    }

    #[test]
    fn the_prefilter_hides_nothing(parts in proptest::collection::vec(
        prop_oneof![
            Just("select"), Just("insert"), Just("@x"), Just("get_lock("), Just("'"), Just("\""),
            Just("/*!"), Just("*/"), Just("/*"), Just("-- "), Just("\n"), Just("temporary"), Just("row_count()"),
            Just("set"), Just("show"), Just("variables"), Just(";"), Just("1"), Just("call"), Just("lock"),
            Just("with"), Just("create"), Just("execute"), Just("identity"), Just("lastval"),
        ], 0..12)) {
        let sql = parts.join(" ");
        let with = Scanner::default().scan(sql.as_bytes(), LexMode::default());
        let without = statement::classify(sql.as_bytes(), LexMode::default());
        // "with" heads and the like are writes either way; nothing else may differ.
        let writes = Flags::WRITE | Flags::INSERT;
        prop_assert_eq!(with.flags.without(writes), without.flags.without(writes), "{}", sql);
    }
}
