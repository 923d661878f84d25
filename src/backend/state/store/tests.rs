use super::*;
use crate::backend::state::testing;
use crate::backend::state::weak::FIRST_SWEEP;

#[test]
fn equal_states_are_the_same_state() {
    let first = testing::first_state();
    let zone = first.catalog().id("time_zone").unwrap();
    let other = first.with(&[(zone, Value::text("+01:00"))]);
    assert_ne!(first, other);
    assert_eq!(other.with(&[(zone, Value::text("SYSTEM"))]), first);
    assert_eq!(other.get_named("TIME_ZONE"), Some(&Value::text("+01:00")));
    assert_eq!(first.with(&[]).id(), first.id());
    // Text and number are different values even where their bytes are not.
    assert_ne!(
        first.with(&[(zone, Value::text("1"))]),
        first.with(&[(zone, Value::number("1"))])
    );
}

#[test]
fn databases_compare_by_id() {
    let first = testing::first_state();
    let zone = first.catalog().id("time_zone").unwrap();
    let a = first.with_schema(Some(b"app"));
    let b = first
        .with(&[(zone, Value::text("+01:00"))])
        .with_schema(Some(b"app"));
    assert_eq!(first.schema_id(), 0);
    assert_eq!(a.schema_id(), b.schema_id());
    assert_ne!(a.schema_id(), first.with_schema(Some(b"App")).schema_id());
    assert_eq!(a.with_schema(None), first);
    assert_eq!(b.schema().map(|s| &s[..]), Some(&b"app"[..]));
}

#[test]
fn statements_are_read_alike_where_what_decides_it_is_equal() {
    let first = testing::first_state().with_schema(Some(b"app"));
    let id = |name| first.catalog().id(name).unwrap();
    let other = first.with(&[(id("foreign_key_checks"), Value::number("0"))]);
    assert_eq!(first.parse_id(), other.parse_id());
    assert_eq!(other.in_parse_context_of(&first), other);
    let ansi = other.with(&[(id("sql_mode"), Value::text("ANSI_QUOTES"))]);
    let elsewhere = other.with_schema(Some(b"elsewhere"));
    assert_ne!(ansi.parse_id(), first.parse_id());
    assert_ne!(elsewhere.parse_id(), first.parse_id());
    assert_ne!(elsewhere.parse_id(), ansi.parse_id());

    let switched = elsewhere.in_parse_context_of(&ansi);
    assert_eq!(switched, ansi);
    assert_eq!(switched.parse_id(), ansi.parse_id());
    let back = switched.in_parse_context_of(&first);
    assert_eq!(back, other, "what does not decide it stays");
    let nowhere = first.with_schema(None);
    assert_eq!(ansi.in_parse_context_of(&nowhere), other);
    assert_eq!(nowhere.in_parse_context_of(&ansi).schema(), ansi.schema());

    let foreign = testing::first_state().with_schema(Some(b"app"));
    let mode = foreign.catalog().id("sql_mode").unwrap();
    let foreign = foreign.with(&[(mode, Value::text("PIPES_AS_CONCAT"))]);
    let switched = ansi.in_parse_context_of(&foreign);
    let expected = Value::text("PIPES_AS_CONCAT");
    assert_eq!(switched, ansi.with(&[(id("sql_mode"), expected)]));
}

#[test]
fn nothing_that_decides_how_statements_are_read_ends_a_transaction() {
    let first = testing::first_state();
    for id in first.catalog().parsed() {
        let name = first.catalog().name(*id);
        let ends = ["autocommit", "transaction", "tx_", "completion"];
        assert!(!ends.iter().any(|part| name.contains(part)), "{name}");
    }
}

#[test]
fn transient_states_are_swept() {
    let first = testing::first_state();
    let zone = first.catalog().id("time_zone").unwrap();
    for i in 0..10_000 {
        let state = first
            .with(&[(zone, Value::text(format!("Z{i}")))])
            .with_schema(Some(format!("db{i}").as_bytes()));
        assert_ne!(state, first);
    }
    assert_eq!(first.store().live(), 1);
    let tables = first.store().0.tables.lock().states.count;
    assert!(tables <= FIRST_SWEEP, "{tables} entries for one live state");
    let schemas = first.store().0.tables.lock().schemas.count;
    assert!(schemas <= FIRST_SWEEP, "{schemas} schemas");
}

#[test]
fn a_reading_of_all_makes_a_state_and_of_some_does_not() {
    let store = testing::store();
    let ids: Vec<_> = store.catalog().ids().collect();
    let vars: Vec<_> = ids.iter().map(|id| (*id, Value::number("1"))).collect();
    let reading = Reading {
        vars: vars.clone(),
        schema: Some(Some("app".into())),
    };
    let state = store.from_reading(&reading).unwrap();
    assert_eq!(state.schema().unwrap(), "app");
    let part = Reading {
        vars: vars[1..].to_vec(),
        schema: None,
    };
    assert_eq!(store.from_reading(&part), None);
    let change = Reading {
        vars: vec![(ids[0], Value::Null)],
        schema: Some(None),
    };
    let changed = state.with_reading(&change);
    assert_eq!(changed.get(ids[0]), &Value::Null);
    assert_eq!(changed.schema(), None);
}

#[test]
fn pinned_by_guarded_or_unwritable_values_until_they_are_back() {
    let first = testing::first_state();
    let catalog = first.store().catalog().clone();
    let (zone, log) = (
        catalog.id("time_zone").unwrap(),
        catalog.id("sql_log_bin").unwrap(),
    );
    assert_eq!(first.pin_reason(&first), None);
    let guarded = first.with(&[(log, Value::number("0"))]);
    assert_eq!(guarded.pin_reason(&first), Some(PinReason::SessionVariable));
    assert_eq!(
        guarded
            .with(&[(log, Value::number("1"))])
            .pin_reason(&first),
        None
    );
    let unwritable = first.with(&[(zone, Value::text("it's"))]);
    assert_eq!(
        unwritable.pin_reason(&first),
        Some(PinReason::SessionVariable)
    );
    assert_eq!(
        unwritable.pin_reason(&unwritable),
        None,
        "a login that shows it needs no replay"
    );
    assert_eq!(
        first
            .with(&[(zone, Value::text("+01:00"))])
            .pin_reason(&first),
        None
    );
}

#[test]
fn ids_are_unique_over_stores() {
    let ids = StateIds::default();
    let catalog = testing::catalog(testing::MYSQL, testing::MYSQL_NAMES);
    let a = StateStore::new(Arc::clone(&catalog), ids.clone()).intern(vec![], None);
    let b = StateStore::new(catalog, ids).intern(vec![], None);
    assert_ne!(a.id(), b.id());
}

#[test]
fn wishes_move_to_another_server() {
    let first = testing::first_state();
    let there = StateStore::new(
        testing::catalog(testing::MYSQL, testing::MYSQL_NAMES),
        StateIds::default(),
    );
    let onto = there.intern(vec![], None);
    let set = |name: &str| (first.catalog().id(name).unwrap(), Value::text("x"));
    let wishes = first.with(&[set("time_zone")]).with_schema(Some(b"app"));
    let moved = wishes.rebase(&first, &onto).unwrap();
    assert_eq!(moved.get_named("time_zone"), Some(&Value::text("x")));
    assert_eq!(moved.schema().unwrap(), "app");
    assert_eq!(
        moved.get_named("sql_mode"),
        Some(&Value::Null),
        "theirs, not ours"
    );
    let own = first.with(&[set("wsrep_osu_method")]);
    assert_eq!(own.rebase(&first, &onto), None);
    assert_eq!(first.rebase(&first, &onto), Some(onto));
}
