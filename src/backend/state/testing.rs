//! Catalogs and states for the tests of this module.

use std::sync::Arc;

use super::{Catalog, State, StateIds, StateStore, Value};

/// Names as `information_schema.system_variables` of MariaDB 10.11.19 has them.
pub(crate) const MARIADB_NAMES: &[&str] = &[
    "alter_algorithm",
    "autocommit",
    "binlog_format",
    "character_set_client",
    "character_set_connection",
    "character_set_database",
    "character_set_results",
    "character_set_server",
    "collation_connection",
    "collation_database",
    "collation_server",
    "default_storage_engine",
    "error_count",
    "foreign_key_checks",
    "identity",
    "in_transaction",
    "insert_id",
    "last_insert_id",
    "log_slow_query",
    "max_allowed_packet",
    "max_join_size",
    "max_statement_time",
    "old_alter_table",
    "pseudo_thread_id",
    "rand_seed1",
    "session_track_schema",
    "session_track_system_variables",
    "slow_query_log",
    "sql_big_selects",
    "sql_log_bin",
    "sql_mode",
    "sql_select_limit",
    "storage_engine",
    "time_zone",
    "timestamp",
    "tx_isolation",
    "tx_read_only",
    "wait_timeout",
    "warning_count",
    "wsrep_osu_method",
];

/// Names as `performance_schema.variables_metadata` of MySQL 9.7.4 has them.
pub(crate) const MYSQL_NAMES: &[&str] = &[
    "autocommit",
    "binlog_format",
    "character_set_client",
    "character_set_connection",
    "character_set_database",
    "character_set_results",
    "character_set_server",
    "collation_connection",
    "collation_server",
    "gtid_next",
    "innodb_strict_mode",
    "interactive_timeout",
    "max_execution_time",
    "max_join_size",
    "pseudo_replica_mode",
    "session_track_gtids",
    "session_track_schema",
    "sql_big_selects",
    "sql_mode",
    "statement_id",
    "time_zone",
    "timestamp",
    "transaction_isolation",
    "transaction_read_only",
    "wait_timeout",
];

pub(crate) const MARIADB: &str = "10.11.19-MariaDB-0+deb12u1";
pub(crate) const MYSQL: &str = "9.7.4-2";

/// The catalog of a server with these names.
pub(crate) fn catalog(version: &str, names: &[&str]) -> Arc<Catalog> {
    let discovery = Catalog::discovery_sql(version)[0];
    Arc::new(
        Catalog::from_rows(version, discovery, names.iter().map(|name| name.as_bytes())).unwrap(),
    )
}

/// A store over MariaDB's catalog.
pub(crate) fn store() -> StateStore {
    StateStore::new(catalog(MARIADB, MARIADB_NAMES), StateIds::default())
}

/// What a login shows on MariaDB 10.11.19, in a store of its own, without a database.
pub(crate) fn first_state() -> State {
    let store = store();
    let values = store
        .catalog()
        .ids()
        .map(|id| first_value(store.catalog().name(id)))
        .collect();
    store.intern(values, None)
}

fn first_value(name: &str) -> Value {
    match name {
        "character_set_client" | "character_set_connection" | "character_set_results" => {
            Value::text("utf8mb4")
        }
        "collation_connection" => Value::text("utf8mb4_general_ci"),
        "character_set_server" => Value::text("latin1"),
        "collation_server" => Value::text("latin1_swedish_ci"),
        "time_zone" => Value::text("SYSTEM"),
        "sql_mode" => Value::text("STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION"),
        "tx_isolation" => Value::text("REPEATABLE-READ"),
        "default_storage_engine" => Value::text("InnoDB"),
        "alter_algorithm" | "old_alter_table" => Value::text("DEFAULT"),
        "wsrep_osu_method" => Value::text("TOI"),
        "binlog_format" => Value::text("MIXED"),
        "max_statement_time" => Value::number("0.000000"),
        "max_join_size" | "sql_select_limit" => Value::number("18446744073709551615"),
        _ => Value::number("1"),
    }
}
