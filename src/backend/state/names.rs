//! What is known of session variables by name: classes, aliases, dependants, order of assignment.
//!
//! Measured on MariaDB 10.11.19 and Oracle MySQL 9.7.4 with an account that has no privilege but on its
//! own database: every session variable was set to many values and all of `@@…` compared before and
//! after with what the trackers named; then what was read was set again on another connection.

use super::catalog::{Class, Family};
use super::virtuals::Virtual;

/// The class of the variable `name` (lower case) on servers of `family`.
pub(super) fn class_of(family: Family, name: &str) -> Class {
    if let Some(&(_, which)) = VIRTUALS.iter().find(|(n, _)| *n == name) {
        return Class::Virtual(which);
    }
    let guarded = match family {
        Family::MariaDb => GUARDED_MARIADB,
        Family::MySql => GUARDED_MYSQL,
    };
    if matches!(name, "last_insert_id" | "identity") {
        Class::LastInsertId
    } else if NEVER_REPLAYED.contains(&name) || name.starts_with("pseudo_") {
        Class::NeverReplayed
    } else if IGNORED.contains(&name) {
        Class::Ignored
    } else if guarded.contains(&name) {
        Class::Guarded
    } else {
        Class::Tracked
    }
}

const VIRTUALS: &[(&str, Virtual)] = &[
    ("session_track_schema", Virtual::TrackSchema),
    ("session_track_state_change", Virtual::TrackStateChange),
    (
        "session_track_system_variables",
        Virtual::TrackSystemVariables,
    ),
    (
        "session_track_transaction_info",
        Virtual::TrackTransactionInfo,
    ),
    ("wait_timeout", Virtual::WaitTimeout),
    ("interactive_timeout", Virtual::InteractiveTimeout),
];

/// A read-back does not say what was set. Consumed, advanced or replaced by statements; or
/// `character_set_database`, `collation_database`, which follow the schema without being named and are
/// named only when a client sets them against it; or MariaDB's `default_master_connection`, which after a
/// while reads as what its freed memory holds now (10.11.19), with `max_relay_log_size`, which belongs to
/// the replication channel it names; or `profiling` and `optimizer_trace`, whose reports are on the connection
/// that made them, and would be about Sidepool's own statements.
const NEVER_REPLAYED: &[&str] = &[
    "timestamp",
    "insert_id",
    "rand_seed1",
    "rand_seed2",
    "gtid_next",
    "gtid_seq_no",
    "wsrep_gtid_seq_no",
    "original_commit_timestamp",
    "max_relay_log_size",
    "default_master_connection",
    "optimizer_trace",
    "profiling",
    "character_set_database",
    "collation_database",
];

/// Read-only in a session, or counters.
const IGNORED: &[&str] = &[
    "warning_count",
    "error_count",
    "in_transaction",
    "last_gtid",
    "gtid_owned",
    "external_user",
    "proxy_user",
    "statement_id",
    "hostname",
    "max_allowed_packet",
    "net_buffer_length",
    "max_user_connections",
];

/// Refused to an ordinary account on MariaDB 10.11.19 (1227), or not sure to be accepted again: a table or
/// directory may be gone, `system_versioning_asof` does not take the 'DEFAULT' that it shows, and with little
/// `max_session_mem_used` the replay itself is refused.
const GUARDED_MARIADB: &[&str] = &[
    "binlog_alter_two_phase",
    "binlog_annotate_row_events",
    "binlog_direct_non_transactional_updates",
    "binlog_format",
    "binlog_row_image",
    "enforce_storage_engine",
    "gtid_domain_id",
    "innodb_ft_user_stopword_table",
    "innodb_tmpdir",
    "log_disabled_statements",
    "max_session_mem_used",
    "server_id",
    "skip_parallel_replication",
    "skip_replication",
    "sql_log_bin",
    "sql_log_off",
    "sql_slave_skip_counter",
    "system_versioning_asof",
    "wsrep_on",
];

/// Refused to an ordinary account on MySQL 9.7.4 (1227), `require_row_format` only when set back to OFF; or
/// not sure to be accepted again: a table or directory may be gone, and with little `parser_max_mem_size` the
/// replay itself is refused (3170).
const GUARDED_MYSQL: &[&str] = &[
    "binlog_direct_non_transactional_updates",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_value_options",
    "binlog_rows_query_log_events",
    "binlog_transaction_compression",
    "binlog_transaction_compression_level_zstd",
    "bulk_insert_buffer_size",
    "character_set_filesystem",
    "connection_memory_chunk_size",
    "connection_memory_limit",
    "global_connection_memory_tracking",
    "histogram_generation_max_mem_size",
    "immediate_server_version",
    "innodb_ft_user_stopword_table",
    "innodb_strict_mode",
    "innodb_tmpdir",
    "internal_tmp_mem_storage_engine",
    "low_priority_updates",
    "max_delayed_threads",
    "max_error_count",
    "max_insert_delayed_threads",
    "min_examined_row_limit",
    "original_server_version",
    "parser_max_mem_size",
    "preload_buffer_size",
    "require_row_format",
    "select_into_buffer_size",
    "select_into_disk_sync_delay",
    "sql_generate_invisible_primary_key",
    "sql_log_bin",
    "sql_log_off",
    "sql_require_primary_key",
    "xa_detach_on_prepare",
];

/// Two names for one variable: (other name, the name kept where a server has both).
pub(super) const ALIASES: &[(&str, &str)] = &[
    ("tx_isolation", "transaction_isolation"),
    ("tx_read_only", "transaction_read_only"),
    ("storage_engine", "default_storage_engine"),
    ("tmp_memory_table_size", "tmp_table_size"),
    ("log_slow_query", "slow_query_log"),
    ("log_slow_query_time", "long_query_time"),
    ("log_slow_min_examined_row_limit", "min_examined_row_limit"),
];

/// Setting the first changes the second as well, which no tracker names.
pub(super) const SIDE_EFFECTS: &[(&str, &str)] = &[
    ("character_set_connection", "collation_connection"),
    ("collation_connection", "character_set_connection"),
    ("character_set_server", "collation_server"),
    ("collation_server", "character_set_server"),
    ("max_join_size", "sql_big_selects"),
    ("old", "old_mode"),
];

/// Names of which all are read back as soon as one is reported, because trackers name only what was set.
/// Where two are views of one setting both differ together, so that a replay sets both.
pub(super) const FAMILIES: &[&[&str]] = &[
    &[
        "character_set_client",
        "character_set_connection",
        "character_set_results",
        "collation_connection",
    ],
    &["character_set_server", "collation_server"],
    &["max_join_size", "sql_big_selects"],
    // MariaDB only.
    &["alter_algorithm", "old_alter_table"],
    &["log_slow_filter", "log_queries_not_using_indexes"],
    &[
        "log_slow_disabled_statements",
        "log_slow_admin_statements",
        "log_slow_slave_statements",
    ],
    &["max_delayed_threads", "max_insert_delayed_threads"],
    &["old", "old_mode"],
    &["wsrep_sync_wait", "wsrep_causal_reads"],
];

/// Variables by whose values a statement is read when it is prepared. One too many costs a switch now and then;
/// `autocommit` and the transaction's own may never be among them, since bringing them back would commit.
const PARSED: &[&str] = &[
    "block_encryption_mode",
    "character_set_client",
    "character_set_collations",
    "character_set_connection",
    "collation_connection",
    "default_collation_for_utf8mb4",
    "default_regex_flags",
    "default_storage_engine",
    "default_tmp_storage_engine",
    "default_week_format",
    "div_precision_increment",
    "explicit_defaults_for_timestamp",
    "group_concat_max_len",
    "in_predicate_conversion_threshold",
    "lc_time_names",
    "old_mode",
    "optimizer_switch",
    "sql_auto_is_null",
    "sql_if_exists",
    "sql_mode",
    "sql_safe_updates",
    "standard_compliant_cte",
    "time_zone",
    "windowing_use_high_precision",
];

/// Whether a statement's meaning depends on the variable's value at the time it is prepared.
pub(super) fn is_parsed(name: &str) -> bool {
    PARSED.contains(&name)
}

/// Place in a multi-assignment `SET`: charsets, then what they imply, then the rest, then what the
/// rest implies.
pub(super) fn rank(name: &str) -> u8 {
    match name {
        "character_set_client"
        | "character_set_connection"
        | "character_set_results"
        | "character_set_server" => 0,
        "collation_connection" | "collation_server" => 1,
        "sql_big_selects" | "old_mode" => 3,
        _ => 2,
    }
}

/// True if `name` (lower case) is known to be a session variable of some server of `family`: for servers
/// that list session and global variables alike.
pub(super) fn is_known_session_variable(family: Family, name: &str) -> bool {
    let own = match family {
        Family::MariaDb => KNOWN_MARIADB,
        Family::MySql => KNOWN_MYSQL,
    };
    own.split_ascii_whitespace().any(|known| known == name)
}

/// The names of [`Catalog::builtin`](super::Catalog::builtin).
pub(super) fn minimal(server_version: &str, family: Family) -> Vec<String> {
    // MySQL has both names in 5.7.20 to 5.7.x and the new ones alone from 8.0 on; MariaDB has the new
    // ones from 11.1 on, beside the old.
    let isolation: &[&str] = match family {
        Family::MySql if !server_version.starts_with("5.") => {
            &["transaction_isolation", "transaction_read_only"]
        }
        _ => &["tx_isolation", "tx_read_only"],
    };
    MINIMAL
        .split_ascii_whitespace()
        .chain(isolation.iter().copied())
        .map(str::to_owned)
        .collect()
}

const MINIMAL: &str = "autocommit auto_increment_increment auto_increment_offset big_tables character_set_client \
    character_set_connection character_set_database character_set_results character_set_server collation_connection \
    collation_database collation_server completion_type default_storage_engine default_week_format \
    div_precision_increment error_count foreign_key_checks group_concat_max_len identity innodb_lock_wait_timeout \
    insert_id interactive_timeout join_buffer_size last_insert_id lc_messages lc_time_names lock_wait_timeout \
    long_query_time max_allowed_packet max_heap_table_size max_join_size max_length_for_sort_data max_sort_length \
    net_buffer_length net_read_timeout net_write_timeout optimizer_switch pseudo_thread_id rand_seed1 rand_seed2 \
    read_buffer_size read_rnd_buffer_size session_track_schema session_track_state_change \
    session_track_system_variables session_track_transaction_info sort_buffer_size sql_auto_is_null sql_big_selects \
    sql_buffer_result sql_log_bin sql_mode sql_notes sql_quote_show_create sql_safe_updates sql_select_limit \
    sql_warnings time_zone timestamp tmp_table_size unique_checks updatable_views_with_limit wait_timeout \
    warning_count";

/// `information_schema.system_variables` of MariaDB 10.11.19, and what 11.x adds to it.
const KNOWN_MARIADB: &str = "alter_algorithm analyze_max_length analyze_sample_percentage aria_repair_threads \
    aria_sort_buffer_size aria_stats_method auto_increment_increment auto_increment_offset autocommit \
    big_tables binlog_alter_two_phase binlog_annotate_row_events binlog_direct_non_transactional_updates \
    binlog_format binlog_row_image bulk_insert_buffer_size character_set_client character_set_collations \
    character_set_connection character_set_database character_set_filesystem character_set_results \
    character_set_server check_constraint_checks collation_connection collation_database \
    collation_server column_compression_threshold column_compression_zlib_level \
    column_compression_zlib_strategy column_compression_zlib_wrap completion_type \
    deadlock_search_depth_long deadlock_search_depth_short deadlock_timeout_long deadlock_timeout_short \
    default_master_connection default_regex_flags default_storage_engine default_tmp_storage_engine \
    default_week_format div_precision_increment enforce_storage_engine eq_range_index_dive_limit \
    error_count expensive_subquery_limit explicit_defaults_for_timestamp external_user \
    foreign_key_checks group_concat_max_len gtid_domain_id gtid_seq_no histogram_size histogram_type \
    identity idle_readonly_transaction_timeout idle_transaction_timeout idle_write_transaction_timeout \
    in_predicate_conversion_threshold in_transaction innodb_compression_default \
    innodb_default_encryption_key_id innodb_ft_enable_stopword innodb_ft_user_stopword_table \
    innodb_lock_wait_timeout innodb_snapshot_isolation innodb_strict_mode innodb_table_locks \
    innodb_tmpdir insert_id interactive_timeout join_buffer_size join_buffer_space_limit \
    join_cache_level keep_files_on_create last_gtid last_insert_id lc_messages lc_time_names \
    lock_wait_timeout log_disabled_statements log_queries_not_using_indexes log_slow_admin_statements \
    log_slow_disabled_statements log_slow_filter log_slow_max_warnings log_slow_min_examined_row_limit \
    log_slow_query log_slow_query_time log_slow_rate_limit log_slow_slave_statements log_slow_verbosity \
    log_warnings long_query_time low_priority_updates max_allowed_packet max_delayed_threads \
    max_error_count max_heap_table_size max_insert_delayed_threads max_join_size \
    max_length_for_sort_data max_recursive_iterations max_relay_log_size max_rowid_filter_size \
    max_seeks_for_key max_session_mem_used max_sort_length max_sp_recursion_depth max_statement_time \
    max_tmp_tables max_user_connections min_examined_row_limit mrr_buffer_size myisam_repair_threads \
    myisam_sort_buffer_size myisam_stats_method net_buffer_length net_read_timeout net_retry_count \
    net_write_timeout note_verbosity old old_alter_table old_mode old_passwords \
    optimizer_adjust_secondary_key_costs optimizer_extra_pruning_depth optimizer_join_limit_pref_ratio \
    optimizer_max_sel_arg_weight optimizer_max_sel_args optimizer_prune_level optimizer_search_depth \
    optimizer_selectivity_sampling_limit optimizer_switch optimizer_trace optimizer_trace_max_mem_size \
    optimizer_use_condition_selectivity preload_buffer_size profiling profiling_history_size \
    progress_report_time proxy_user pseudo_slave_mode pseudo_thread_id query_alloc_block_size \
    query_cache_strip_comments query_cache_type query_cache_wlock_invalidate query_prealloc_size \
    rand_seed1 rand_seed2 range_alloc_block_size read_buffer_size read_rnd_buffer_size \
    rowid_merge_buff_size server_id session_track_schema session_track_state_change \
    session_track_system_variables session_track_transaction_info skip_parallel_replication \
    skip_replication slow_query_log sort_buffer_size sql_auto_is_null sql_big_selects sql_buffer_result \
    sql_if_exists sql_log_bin sql_log_off sql_mode sql_notes sql_quote_show_create sql_safe_updates \
    sql_select_limit sql_slave_skip_counter sql_warnings standard_compliant_cte storage_engine \
    system_versioning_alter_history system_versioning_asof system_versioning_insert_history tcp_nodelay \
    thread_pool_priority time_zone timestamp tmp_disk_table_size tmp_memory_table_size tmp_table_size \
    transaction_alloc_block_size transaction_isolation transaction_prealloc_size transaction_read_only \
    tx_isolation tx_read_only unique_checks updatable_views_with_limit use_stat_tables wait_timeout \
    warning_count wsrep_causal_reads wsrep_dirty_reads wsrep_gtid_seq_no wsrep_on wsrep_osu_method \
    wsrep_retry_autocommit wsrep_sync_wait wsrep_trx_fragment_size wsrep_trx_fragment_unit";

/// `performance_schema.variables_metadata` of MySQL 9.7.4, and what 5.7 and 8.x had besides.
const KNOWN_MYSQL: &str = "auto_increment_increment auto_increment_offset autocommit big_tables \
    binlog_direct_non_transactional_updates binlog_format binlog_row_image binlog_row_value_options \
    binlog_rows_query_log_events binlog_transaction_compression \
    binlog_transaction_compression_level_zstd block_encryption_mode bulk_insert_buffer_size \
    character_set_client character_set_connection character_set_database character_set_filesystem \
    character_set_results character_set_server collation_connection collation_database collation_server \
    completion_type connection_memory_chunk_size connection_memory_limit cte_max_recursion_depth \
    default_collation_for_utf8mb4 default_storage_engine default_table_encryption \
    default_tmp_storage_engine default_week_format div_precision_increment enable_cascade_triggers \
    enable_secondary_engine_statistics end_markers_in_json eq_range_index_dive_limit error_count \
    explain_format explain_json_format_version explicit_defaults_for_timestamp \
    external_table_secondary_storage_engine external_table_storage_engine external_user \
    foreign_key_checks generated_random_password_length global_connection_memory_tracking \
    group_concat_max_len group_replication_consistency gtid_next gtid_owned \
    histogram_generation_max_mem_size identity immediate_server_version information_schema_stats_expiry \
    innodb_ddl_buffer_size innodb_ddl_threads innodb_ft_enable_stopword innodb_ft_user_stopword_table \
    innodb_lock_wait_timeout innodb_parallel_read_threads innodb_strict_mode innodb_support_xa \
    innodb_table_locks innodb_tmpdir insert_id interactive_timeout \
    internal_tmp_mem_storage_engine join_buffer_size keep_files_on_create last_insert_id lc_messages \
    lc_time_names lock_wait_timeout long_query_time low_priority_updates max_allowed_packet \
    max_delayed_threads max_error_count max_execution_time max_heap_table_size \
    max_insert_delayed_threads max_join_size max_length_for_sort_data max_points_in_geometry \
    max_seeks_for_key max_sort_length max_sp_recursion_depth max_tmp_tables max_user_connections \
    min_examined_row_limit myisam_repair_threads myisam_sort_buffer_size myisam_stats_method \
    net_buffer_length net_read_timeout net_retry_count net_write_timeout new old_alter_table \
    old_passwords optimizer_max_subgraph_pairs optimizer_prune_level optimizer_search_depth \
    optimizer_switch optimizer_trace optimizer_trace_features optimizer_trace_limit \
    optimizer_trace_max_mem_size optimizer_trace_offset original_commit_timestamp \
    original_server_version parser_max_mem_size preload_buffer_size print_identified_with_as_hex \
    profiling profiling_history_size proxy_user pseudo_replica_mode pseudo_slave_mode pseudo_thread_id \
    query_alloc_block_size query_cache_type query_cache_wlock_invalidate query_prealloc_size rand_seed1 \
    rand_seed2 range_alloc_block_size range_optimizer_max_mem_size rbr_exec_mode read_buffer_size \
    read_rnd_buffer_size require_row_format restrict_fk_on_non_standard_key resultset_metadata \
    secondary_engine_cost_threshold select_into_buffer_size select_into_disk_sync \
    select_into_disk_sync_delay session_track_gtids session_track_schema session_track_state_change \
    session_track_system_variables session_track_transaction_info set_operations_buffer_size \
    show_create_table_skip_secondary_engine show_create_table_verbosity \
    show_gipk_in_create_table_and_information_schema show_old_temporals sort_buffer_size \
    sql_auto_is_null sql_big_selects sql_buffer_result sql_generate_invisible_primary_key sql_log_bin \
    sql_log_off sql_mode sql_notes sql_quote_show_create sql_require_primary_key sql_safe_updates \
    sql_select_limit sql_warnings statement_id terminology_use_previous time_zone timestamp \
    tmp_table_size transaction_alloc_block_size transaction_allow_batching transaction_isolation \
    transaction_prealloc_size transaction_read_only tx_isolation \
    tx_read_only unique_checks updatable_views_with_limit use_secondary_engine wait_timeout \
    warning_count windowing_use_high_precision xa_detach_on_prepare";
