use super::*;
use crate::backend::state::testing::{MARIADB, MARIADB_NAMES, MYSQL, MYSQL_NAMES, catalog};

fn resolve(catalog: &Catalog, names: &[&str]) -> (Vec<String>, ReadBack) {
    let back = catalog.resolve(names.iter().map(|name| name.as_bytes()));
    (
        back.vars
            .iter()
            .map(|&id| catalog.name(id).to_owned())
            .collect(),
        back,
    )
}

#[test]
fn families_are_told_by_version() {
    assert_eq!(
        Family::of_version("10.11.19-MariaDB-0+deb12u1"),
        Family::MariaDb
    );
    assert_eq!(
        Family::of_version("5.5.5-10.6.1-MariaDB-log"),
        Family::MariaDb
    );
    assert_eq!(Family::of_version("9.7.4-2"), Family::MySql);
    assert_eq!(Family::of_version("5.5.5"), Family::MySql);
    assert_eq!(Family::of_version("8.0.36-28"), Family::MySql);
}

#[test]
fn a_named_charset_brings_its_family() {
    let catalog = catalog(MARIADB, MARIADB_NAMES);
    let (names, back) = resolve(&catalog, &["character_set_results"]);
    assert_eq!(
        names,
        [
            "character_set_client",
            "character_set_connection",
            "character_set_results",
            "collation_connection"
        ]
    );
    assert_eq!(back.pin, None);
    assert_eq!(
        resolve(&catalog, &["max_join_size"]).0,
        ["max_join_size", "sql_big_selects"]
    );
    assert_eq!(
        resolve(&catalog, &["time_zone", "time_zone"]).0,
        ["time_zone"]
    );
}

#[test]
fn aliases_are_one_variable() {
    let catalog = catalog(MARIADB, MARIADB_NAMES);
    assert_eq!(
        catalog.id("storage_engine"),
        catalog.id("default_storage_engine")
    );
    assert_eq!(resolve(&catalog, &["log_slow_query"]).0, ["slow_query_log"]);
    // Without the other name the alias is the variable.
    assert_eq!(resolve(&catalog, &["tx_isolation"]).0, ["tx_isolation"]);
    let sql = catalog.read_all_sql(SchemaColumn::Omit).sql().clone();
    assert!(
        !String::from_utf8(sql.to_vec())
            .unwrap()
            .contains("@@storage_engine")
    );
}

#[test]
fn names_come_in_any_case() {
    let catalog = catalog(MARIADB, MARIADB_NAMES);
    // MariaDB 10.11.19 reports this one so.
    assert_eq!(
        resolve(&catalog, &["wsrep_OSU_method"]).0,
        ["wsrep_osu_method"]
    );
}

#[test]
fn what_is_never_replayed_pins_and_what_means_nothing_does_not() {
    let maria = catalog(MARIADB, MARIADB_NAMES);
    for name in [
        "timestamp",
        "insert_id",
        "rand_seed1",
        "pseudo_thread_id",
        "character_set_database",
    ] {
        assert_eq!(
            resolve(&maria, &[name]).1.pin,
            Some(PinReason::SessionVariable),
            "{name}"
        );
    }
    for name in ["warning_count", "in_transaction", "max_allowed_packet"] {
        assert_eq!(resolve(&maria, &[name]).1, ReadBack::default(), "{name}");
    }
    assert!(resolve(&maria, &["identity"]).1.last_insert_id);
    assert!(resolve(&maria, &["last_insert_id"]).1.last_insert_id);
    let mysql = catalog(MYSQL, MYSQL_NAMES);
    assert_eq!(
        resolve(&mysql, &["gtid_next"]).1.pin,
        Some(PinReason::SessionVariable)
    );
    assert_eq!(
        resolve(&mysql, &["pseudo_replica_mode"]).1.pin,
        Some(PinReason::SessionVariable)
    );
    assert_eq!(mysql.class("innodb_strict_mode"), Some(Class::Guarded));
    assert_eq!(
        resolve(&mysql, &["innodb_strict_mode"]).1.pin,
        None,
        "compared, not pinned outright"
    );
}

#[test]
fn virtual_variables_are_named_and_not_read() {
    let catalog = catalog(MYSQL, MYSQL_NAMES);
    let (names, back) = resolve(
        &catalog,
        &["wait_timeout", "session_track_schema", "wait_timeout"],
    );
    assert!(names.is_empty());
    assert_eq!(back.virtuals, [Virtual::WaitTimeout, Virtual::TrackSchema]);
    assert_eq!(back.pin, None);
}

#[test]
fn an_unknown_name_pins_as_unknown_state() {
    let catalog = catalog(MYSQL, MYSQL_NAMES);
    let (_, back) = resolve(&catalog, &["time_zone", "of_next_year"]);
    assert!(back.unknown);
    assert_eq!(back.pin, Some(PinReason::UnknownState));
    let bytes: &[u8] = b"\xff";
    assert!(catalog.resolve([bytes]).unknown);
}

#[test]
fn mysql_is_not_asked_for_statement_ids() {
    assert_eq!(catalog(MARIADB, MARIADB_NAMES).tracker_list(), "*");
    let mysql = catalog(MYSQL, MYSQL_NAMES);
    let listed: Vec<&str> = mysql.tracker_list().split(',').collect();
    assert!(!listed.contains(&"statement_id"));
    for name in [
        "time_zone",
        "gtid_next",
        "wait_timeout",
        "session_track_gtids",
        "timestamp",
    ] {
        assert!(listed.contains(&name), "{name}");
    }
    assert!(
        mysql
            .setup_sql()
            .starts_with("SET @@session.session_track_system_variables=_latin1'autocommit,")
    );
}

#[test]
fn show_is_cut_to_names_known_as_session_variables() {
    let shown = [
        "autocommit",
        "innodb_buffer_pool_size",
        "sql_mode",
        "datadir",
        "SQL_SELECT_LIMIT",
        "x.y",
    ];
    let show = Catalog::discovery_sql("8.0.36")[1];
    let catalog = Catalog::from_rows("8.0.36", show, shown.map(str::as_bytes)).unwrap();
    let names: Vec<&str> = catalog.ids().map(|id| catalog.name(id)).collect();
    assert_eq!(names, ["autocommit", "sql_mode", "sql_select_limit"]);
    assert!(Catalog::from_rows("8.0.36", show, [&b"datadir"[..]]).is_none());
}

#[test]
fn the_built_in_catalog_fits_each_version() {
    for (version, there, not_there) in [
        ("5.7.44", "tx_isolation", "x"),
        ("8.0.36", "transaction_isolation", "tx_isolation"),
        ("10.11.19-MariaDB", "tx_isolation", "transaction_isolation"),
    ] {
        let catalog = Catalog::builtin(version);
        assert!(catalog.id(there).is_some(), "{version}");
        assert!(catalog.class(not_there).is_none(), "{version}");
        assert_eq!(catalog.class("time_zone"), Some(Class::Tracked));
        assert_eq!(catalog.class("timestamp"), Some(Class::NeverReplayed));
    }
}

#[test]
fn a_name_the_server_denies_can_be_left_out() {
    let catalog = catalog(MYSQL, MYSQL_NAMES).without("SQL_mode");
    assert_eq!(catalog.id("sql_mode"), None);
    assert!(catalog.id("time_zone").is_some());
}

#[test]
fn reading_asks_once_and_decodes_by_type() {
    let catalog = catalog(MARIADB, MARIADB_NAMES);
    let ids = [
        catalog.id("autocommit").unwrap(),
        catalog.id("time_zone").unwrap(),
    ];
    let query = catalog.read_sql(&ids, SchemaColumn::Include).unwrap();
    assert_eq!(
        query.sql(),
        "SELECT @@autocommit,@@time_zone,HEX(CONVERT(DATABASE() USING utf8mb4)) LIMIT 1"
    );
    let kinds = [
        super::super::ColumnKind::Number,
        super::super::ColumnKind::Text,
        super::super::ColumnKind::Text,
    ];
    let reading = query
        .decode(&[Some(b"1"), None, Some(b"617070")], &kinds)
        .unwrap();
    use super::super::Value;
    assert_eq!(
        reading.vars,
        [(ids[0], Value::number("1")), (ids[1], Value::Null)]
    );
    assert_eq!(reading.schema, Some(Some("app".into())));
    let none = query.decode(&[Some(b"1"), None, None], &kinds).unwrap();
    assert_eq!(none.schema, Some(None));
    assert!(query.decode(&[Some(b"1")], &kinds).is_err());
    assert!(catalog.read_sql(&[], SchemaColumn::Omit).is_none());
}
