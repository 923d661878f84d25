//! Random scripts of several clients over few backend connections, beside dedicated connections that
//! run the same: each answer and, in the end, each line of `SHOW SESSION VARIABLES` must be the same.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;

on_every_server! {
    random_scripts_leave_the_variables_of_dedicated_connections => random_scripts;
}

/// Scripts per server; `SIDEPOOL_TEST_SCRIPTS` asks for more, `SIDEPOOL_TEST_SEED` for others.
const SCRIPTS: u64 = 60;
const STEPS: usize = 14;
const CLIENTS: usize = 3;

/// What no two connections have in common, or what asking changes.
const EXEMPT: &[&str] = &[
    "timestamp",
    "pseudo_thread_id",
    "rand_seed1",
    "rand_seed2",
    "statement_id",
    "gtid_binlog_pos",
    "gtid_current_pos",
    "gtid_executed",
];

const COMMON: &[&str] = &[
    "SET NAMES utf8mb4",
    "SET NAMES latin1",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "SET NAMES gbk",
    "SET NAMES sjis",
    "SET NAMES big5",
    "SET NAMES binary",
    "SET NAMES ucs2",
    "SET CHARACTER SET latin1",
    "SET CHARACTER SET utf8mb4",
    "SET character_set_client = sjis",
    "SET character_set_client = gbk",
    "SET character_set_results = NULL",
    "SET character_set_results = utf16",
    "SET character_set_results = utf32",
    "SET character_set_results = binary",
    "SET character_set_connection = ucs2",
    "SET collation_connection = utf16_bin",
    "SET collation_connection = utf8mb4_general_ci",
    "SET collation_connection = latin1_bin, character_set_results = 'utf8mb4'",
    "SET sql_mode = ''",
    "SET sql_mode = 'ANSI'",
    "SET sql_mode = 'HIGH_NOT_PRECEDENCE,NO_BACKSLASH_ESCAPES'",
    "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,IGNORE_SPACE,NO_UNSIGNED_SUBTRACTION'",
    "SET sql_mode = 'TRADITIONAL'",
    "SET sql_mode = CONCAT(@@sql_mode, ',NO_ZERO_DATE')",
    "SET @@sql_mode = DEFAULT",
    "SET @@time_zone = DEFAULT",
    "SET lc_time_names = DEFAULT, @@lock_wait_timeout = DEFAULT",
    "SET time_zone = '+03:00'",
    "SET time_zone = 'SYSTEM'",
    "SET time_zone = 'Nowhere/Town'",
    "SET lc_time_names = de_DE",
    "SET lc_messages = 'de_DE'",
    "SET sql_select_limit = 0",
    "SET sql_select_limit = 1",
    "SET sql_select_limit = DEFAULT",
    "SET sql_safe_updates = 1",
    "SET sql_big_selects = 0, max_join_size = 1",
    "SET max_join_size = DEFAULT",
    "SET max_join_size = 4",
    "SET sql_big_selects = 1",
    "SET profiling = 1",
    "SET profiling = 0",
    "SET sql_notes = 0",
    "SET sql_warnings = 1",
    "SET sql_buffer_result = 1",
    "SET sql_quote_show_create = 0",
    "SET sql_auto_is_null = 1",
    "SET big_tables = 1",
    "SET foreign_key_checks = 0",
    "SET foreign_key_checks = OFF, unique_checks = OFF",
    "SET optimizer_switch = 'index_merge=off'",
    "SET optimizer_switch = 'default'",
    "SET optimizer_search_depth = 3",
    "SET default_storage_engine = MyISAM",
    "SET @@session.default_storage_engine = 'MEMORY'",
    "SET default_tmp_storage_engine = MyISAM",
    "SET group_concat_max_len = 2000",
    "SET group_concat_max_len = 1",
    "SET SESSION group_concat_max_len = DEFAULT",
    "SET max_sort_length = 20",
    "SET sort_buffer_size = 1",
    "SET tmp_table_size = 2048, max_heap_table_size = 16384",
    "SET join_buffer_size = 1000000",
    "SET max_length_for_sort_data = 100",
    "SET div_precision_increment = 9",
    "SET default_week_format = 3",
    "SET lock_wait_timeout = 3",
    "SET innodb_lock_wait_timeout = 7",
    "SET net_read_timeout = 33, net_write_timeout = 44",
    "SET long_query_time = 0.25",
    "SET max_error_count = 0",
    "SET auto_increment_increment = 5, auto_increment_offset = 3",
    "SET completion_type = 1",
    "SET completion_type = 'RELEASE', completion_type = 'NO_CHAIN'",
    "SET autocommit = 0",
    "SET autocommit = 1",
    "SET autocommit = ON, time_zone = '-05:00'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION TRANSACTION READ ONLY",
    "SET SESSION TRANSACTION READ WRITE, ISOLATION LEVEL SERIALIZABLE",
    "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
    "SET TRANSACTION READ ONLY",
    "START TRANSACTION READ ONLY",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "COMMIT AND CHAIN",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "SET wait_timeout = 1000",
    "SET interactive_timeout = 99, wait_timeout = 98",
    "SET last_insert_id = 77",
    "SET nonsense = 1",
    "SET time_zone = '+09:00', nonsense = 1",
    "SET sql_mode = 'NONSENSE'",
    "SET SESSION max_allowed_packet = 1024",
    "USE t_eq1",
    "USE t_eq2",
    "USE t_eq3",
    "USE t_eq_none",
    "DROP DATABASE t_eqnone",
    "SELECT 1",
    "SELECT DATABASE(), USER(), @@sql_mode, @@time_zone",
    "SELECT @@autocommit, @@collation_connection, @@sql_select_limit",
    "SELECT \"a\", 'b' || 'c', NOT 1 BETWEEN -5 AND 5, 'x\\'",
    "SELECT 1/0, CAST('x' AS SIGNED)",
    "SELECT HEX('a\u{e9}'), CHARSET('a'), COLLATION('a'), '\u{e9}'",
    "SELECT t_eq1.f_zone()",
    "SELECT t_eq1.f_fail()",
    "SELECT LAST_INSERT_ID()",
    "SELECT LAST_INSERT_ID(12)",
    "INSERT INTO t_eq1.t (b) VALUES (1), (2)",
    "INSERT INTO t_eq1.t (a, b) VALUES (1, 1)",
    "UPDATE t_eq1.t SET b = b + 1",
    "DELETE FROM t_eq1.t WHERE a > 1000000",
    "SELECT COUNT(*) FROM t_eq1.t WHERE a = 1",
    "SELECT a.a FROM t_eq1.t AS a, t_eq1.t AS b, t_eq1.t AS c WHERE a.b = 100 AND b.b = 3 AND c.b = 5",
    "SHOW WARNINGS",
    "SHOW COUNT(*) ERRORS",
    "DO 1",
    "DO 1/0",
    "syntax error",
];

const MARIADB: &[&str] = &[
    "SET STATEMENT max_statement_time = 5 FOR SELECT 1",
    "SET STATEMENT sql_mode = 'ANSI' FOR SELECT \"nonsense\"",
    "SET STATEMENT sql_select_limit = 0, time_zone = '+07:00' FOR SELECT @@time_zone",
    "SET STATEMENT time_zone = '+07:00' FOR SET lc_time_names = 'fr_FR'",
    "SET STATEMENT time_zone = '+07:00' FOR SELECT t_eq1.f_fail()",
    "SET max_statement_time = 0",
    "SET character_set_collations = 'utf8mb4=utf8mb4_bin'",
    "SET old_mode = 'NO_PROGRESS_INFO'",
    "SET old_mode = ''",
    "SET old = 1",
    "SET alter_algorithm = 'INPLACE'",
    "SET tx_isolation = 'SERIALIZABLE'",
    "SET tx_read_only = 1",
    "SET sql_if_exists = 1",
    "SET log_slow_filter = 'full_join'",
    "SET log_queries_not_using_indexes = 1",
    "SET use_stat_tables = never",
    "SET column_compression_threshold = 10",
    "SET note_verbosity = 'basic'",
    "SET check_constraint_checks = 0",
    "SET in_predicate_conversion_threshold = 5",
    "SET idle_transaction_timeout = 500",
    "SET binlog_format = ROW",
    "SET sql_mode = 'ORACLE'",
    "SET query_cache_type = 0",
    "SET system_versioning_alter_history = KEEP",
    "SET debug_no_thread_alarm = 1",
];

const MYSQL: &[&str] = &[
    "SET max_execution_time = 100000",
    "SET max_execution_time = 0",
    "SELECT /*+ SET_VAR(max_execution_time = 5000) */ 1",
    "SELECT /*+ SET_VAR(sql_mode = 'ANSI') SET_VAR(time_zone='+02:00') */ \"nonsense\"",
    "SET transaction_isolation = 'SERIALIZABLE'",
    "SET transaction_read_only = 1",
    "SET default_collation_for_utf8mb4 = utf8mb4_general_ci",
    "SET cte_max_recursion_depth = 5",
    "SET information_schema_stats_expiry = 0",
    "SET print_identified_with_as_hex = 1",
    "SET default_table_encryption = 1",
    "SET explain_format = TREE",
    "SET windowing_use_high_precision = 0",
    "SET show_create_table_verbosity = 1",
    "SET end_markers_in_json = 1",
    "SET optimizer_trace = 'enabled=on'",
    "SET optimizer_trace_offset = -5, optimizer_trace_limit = 5",
    "SET block_encryption_mode = 'aes-256-cbc'",
    "SET sql_log_bin = 0",
    "SET terminology_use_previous = 'BEFORE_8_0_26'",
    "SET resultset_metadata = FULL",
    "SET session_track_gtids = OWN_GTID",
    "SET secondary_engine_cost_threshold = 5",
];

async fn random_scripts(server: &Server) {
    prepare(server);
    let number =
        |name, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let first = number("SIDEPOOL_TEST_SEED", 1);
    let sidepool = Sidepool::sharing(server, CLIENTS + 1);
    let mut wrong = Vec::new();
    for seed in first..first + number("SIDEPOOL_TEST_SCRIPTS", SCRIPTS) {
        if let Err(difference) = Script::new(server, &sidepool, seed).await.run().await {
            wrong.push(format!("seed {seed}: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn prepare(server: &Server) {
    for (name, charset) in [("t_eq1", "utf8mb4"), ("t_eq2", "latin1"), ("t_eq3", "ucs2")] {
        server.database(name);
        server.root(&format!("ALTER DATABASE {name} CHARACTER SET {charset}"));
    }
    server.root("CREATE TABLE t_eq1.t (a INT AUTO_INCREMENT PRIMARY KEY, b INT) ENGINE = MyISAM");
    server.root("INSERT INTO t_eq1.t VALUES (1, 100), (2, 200), (3, 300)");
    server.routine(
        "CREATE FUNCTION t_eq1.f_zone() RETURNS INT DETERMINISTIC BEGIN \
         SET SESSION time_zone = '+05:00'; SET SESSION sql_select_limit = 9; RETURN 1; END",
    );
    server.routine(
        "CREATE FUNCTION t_eq1.f_fail() RETURNS INT DETERMINISTIC BEGIN \
         SET SESSION lc_time_names = 'es_ES'; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; RETURN 1; END",
    );
}

struct Script {
    random: StdRng,
    statements: Vec<&'static str>,
    /// Through Sidepool, and its dedicated twin.
    pairs: Vec<(Wire, Wire)>,
    log: Vec<String>,
}

impl Script {
    async fn new(server: &Server, sidepool: &Sidepool, seed: u64) -> Self {
        let own = match server.make {
            Make::MariaDb => MARIADB,
            Make::MySql => MYSQL,
        };
        let mut pairs = Vec::new();
        for at in 0..CLIENTS {
            let charset = [45, 8, 33][at];
            let mut pair = Vec::new();
            for address in [sidepool.address(), server.address()] {
                let login = Login {
                    charset,
                    ..Login::to(&address)
                };
                let mut wire = Wire::connect(&login).await.unwrap();
                // MariaDB's first error count is now and then another connection's.
                wire.run("DO (SELECT COUNT(*) FROM (SELECT 1) AS t)").await;
                pair.push(wire);
            }
            let direct = pair.pop().unwrap();
            pairs.push((pair.pop().unwrap(), direct));
        }
        Self {
            random: StdRng::seed_from_u64(seed),
            statements: [COMMON, own].concat(),
            pairs,
            log: Vec::new(),
        }
    }

    async fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            let at = self.random.random_range(0..CLIENTS);
            let sql = *self.statements.choose(&mut self.random).unwrap();
            self.log.push(format!("{at}: {sql}"));
            if sql.starts_with("INSERT") && sql.contains("VALUES (1), (2)") {
                // Two rows each would have other ids; the generated id is not compared.
                continue;
            }
            let (through, direct) = &mut self.pairs[at];
            let seen = said(through.query(sql).await);
            let expected = said(direct.query(sql).await);
            if seen.contains("code: 1235") && sql.starts_with("SHOW") {
                // Said, not wrong: it was saved in another charset.
                return Ok(());
            }
            if seen != expected {
                return Err(self.difference(&format!("{seen:?}\n  direct {expected:?}")));
            }
        }
        for at in 0..CLIENTS {
            let (through, direct) = &mut self.pairs[at];
            // Enough to show the variables, whatever the script has limited.
            for wire in [&mut *through, &mut *direct] {
                wire.query("SET NAMES utf8mb4").await;
            }
            let seen = variables(through).await;
            let expected = variables(direct).await;
            if seen != expected {
                let differ: Vec<_> = seen
                    .iter()
                    .filter(|line| !expected.contains(line))
                    .collect();
                let missing: Vec<_> = expected
                    .iter()
                    .filter(|line| !seen.contains(line))
                    .collect();
                return Err(
                    self.difference(&format!("client {at}: {differ:?}\n  direct {missing:?}"))
                );
            }
        }
        Ok(())
    }

    fn difference(&self, what: &str) -> String {
        format!("{what}\n  after {}", self.log.join("\n        "))
    }
}

/// A reply as far as it must be the same.
fn said(reply: Reply) -> String {
    // In a transaction, autocommit, no backslash escapes, read-only.
    const STATUS: u16 = 0x2203;
    match reply {
        Reply::Ok(ok) => format!(
            "ok {} {} {:x} {}",
            ok.affected,
            ok.insert_id,
            ok.status & STATUS,
            ok.warnings
        ),
        Reply::Rows { columns, rows, end } => {
            let columns: Vec<_> = columns.into_iter().map(without_collation).collect();
            let (status, warnings) = (end.status & STATUS, end.warnings);
            format!("rows {columns:?} {rows:?} {status:x} {warnings}")
        }
        other => format!("{other:?}"),
    }
}

/// A column definition without its collation id: of `character_set_results` a session variable tells
/// the charset only.
fn without_collation(mut column: Vec<u8>) -> String {
    let at = column.len() - 12;
    column.drain(at..at + 2);
    String::from_utf8_lossy(&column).into_owned()
}

async fn variables(wire: &mut Wire) -> Vec<String> {
    let reply = wire.query("SHOW SESSION VARIABLES").await;
    let Reply::Rows { rows, .. } = reply else {
        return vec![format!("{reply:?}")];
    };
    let text = |cell: &Option<Vec<u8>>| {
        String::from_utf8_lossy(cell.as_deref().unwrap_or(b"NULL")).into_owned()
    };
    rows.iter()
        .map(|row| (text(&row[0]), text(&row[1])))
        .filter(|(name, _)| !EXEMPT.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}
