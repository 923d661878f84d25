use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::backend::state::{Value, testing};

fn state(first: &State, changes: &[(&str, Value)]) -> State {
    let changes: Vec<_> = changes
        .iter()
        .map(|(n, v)| (first.catalog().id(n).unwrap(), v.clone()))
        .collect();
    first.with(&changes)
}

fn sql(from: &State, to: &State) -> String {
    let replay = replay(from, to).unwrap();
    String::from_utf8(replay.set_sql.clone().unwrap_or_default().to_vec()).unwrap()
}

#[test]
fn only_differences_are_set_with_literals_by_type() {
    let first = testing::first_state();
    let to = state(
        &first,
        &[
            ("time_zone", Value::text("+01:00")),
            ("autocommit", Value::number("0")),
        ],
    );
    assert_eq!(
        sql(&first, &to),
        "SET @@session.autocommit=0,@@session.time_zone='+01:00'"
    );
    assert_eq!(
        sql(&to, &first),
        "SET @@session.autocommit=1,@@session.time_zone='SYSTEM'"
    );
    assert_eq!(
        *replay(&to, &to).unwrap(),
        Replay {
            set_sql: None,
            database: DatabaseChange::None
        }
    );
    let null = state(&first, &[("character_set_results", Value::Null)]);
    assert_eq!(
        sql(&first, &null),
        "SET @@session.character_set_results=NULL"
    );
}

#[test]
fn what_an_assignment_changes_is_assigned_behind_it() {
    let first = testing::first_state();
    let to = state(
        &first,
        &[
            ("max_join_size", Value::number("5")),
            ("time_zone", Value::text("+01:00")),
        ],
    );
    assert_eq!(
        sql(&first, &to),
        "SET @@session.max_join_size=5,@@session.time_zone='+01:00',@@session.sql_big_selects=1"
    );
    let latin1 = [
        ("character_set_connection", Value::text("latin1")),
        ("collation_connection", Value::text("latin1_bin")),
    ];
    assert_eq!(
        sql(&first, &state(&first, &latin1)),
        "SET @@session.character_set_connection='latin1',@@session.collation_connection='latin1_bin'"
    );
}

#[test]
fn a_database_is_pipelined_only_onto_none() {
    let none = testing::first_state();
    let (a, b) = (none.with_schema(Some(b"a")), none.with_schema(Some(b"b")));
    assert_eq!(
        replay(&none, &a).unwrap().database,
        DatabaseChange::Pipelined("a".into())
    );
    assert_eq!(
        replay(&a, &b).unwrap().database,
        DatabaseChange::Awaited("b".into())
    );
    assert_eq!(replay(&a, &none), Err(Unreplayable::NoDatabase));
    assert_eq!(
        [fit(&a, &a), fit(&none, &a), fit(&a, &none)],
        [Fit::Equal, Fit::Usable, Fit::Unusable]
    );
    let zone = state(&a, &[("time_zone", Value::text("+01:00"))]);
    assert_eq!(
        [fit(&a, &zone), fit(&b, &zone)],
        [Fit::SameDatabase, Fit::Usable]
    );
}

#[test]
fn a_database_named_beyond_ascii_needs_a_utf8_client() {
    let first = testing::first_state();
    let accent = "é".as_bytes();
    assert_eq!(fit(&first, &first.with_schema(Some(accent))), Fit::Usable);
    let latin1 =
        state(&first, &[("character_set_client", Value::text("latin1"))]).with_schema(Some(accent));
    assert_eq!(replay(&first, &latin1), Err(Unreplayable::DatabaseName));
    assert_eq!(fit(&first, &latin1), Fit::Unusable);
    let other = state(&latin1, &[("time_zone", Value::text("+01:00"))]);
    assert_eq!(fit(&other, &latin1), Fit::SameDatabase);
}

#[test]
fn guarded_and_unwritable_values_are_never_sent() {
    let first = testing::first_state();
    let guarded = state(&first, &[("sql_log_bin", Value::number("0"))]);
    let id = first.catalog().id("sql_log_bin").unwrap();
    assert_eq!(replay(&first, &guarded), Err(Unreplayable::Variable(id)));
    assert_eq!(
        [fit(&first, &guarded), fit(&guarded, &first)],
        [Fit::Unusable; 2]
    );
    let unwritable = state(&first, &[("time_zone", Value::text("it's"))]);
    assert_eq!(
        [fit(&first, &unwritable), fit(&unwritable, &first)],
        [Fit::Unusable, Fit::SameDatabase]
    );
    let also = state(&unwritable, &[("autocommit", Value::number("0"))]);
    assert_eq!(sql(&unwritable, &also), "SET @@session.autocommit=0");
    assert_eq!(fit(&unwritable, &also), Fit::SameDatabase);
}

#[test]
fn states_of_different_servers_do_not_mix() {
    let (a, b) = (testing::first_state(), testing::first_state());
    assert_eq!(
        replay(&a, &b.with_schema(Some(b"x"))),
        Err(Unreplayable::OtherStore)
    );
    assert_eq!(fit(&a, &b.with_schema(Some(b"x"))), Fit::Unusable);
}

#[test]
fn replays_are_made_once_and_the_cache_is_bounded() {
    let first = testing::first_state();
    let zone = |i: usize| state(&first, &[("time_zone", Value::text(format!("Z{i}")))]);
    let kept = zone(0);
    let made = replay(&first, &kept).unwrap();
    assert!(Arc::ptr_eq(&made, &replay(&first, &kept).unwrap()));
    for i in 1..3 * GENERATION {
        replay(&first, &zone(i)).unwrap();
        if i % 1000 == 0 {
            assert!(
                Arc::ptr_eq(&made, &replay(&first, &kept).unwrap()),
                "in use, so kept"
            );
        }
    }
    assert!(first.store().replays().len() <= 2 * GENERATION);
}

/// What a `SET` does on a server, as far as this module relies on it: assignments from left to right, each with
/// its measured side effects.
fn apply(sql: &str, values: &mut BTreeMap<String, String>) {
    let wide = matches!(values["character_set_connection"].as_str(), "'ucs2'");
    let sql = &if wide {
        introduced(sql)
    } else {
        sql.to_owned()
    };
    for assignment in sql.strip_prefix("SET ").unwrap().split(",@@session.") {
        let (name, literal) = assignment
            .trim_start_matches("@@session.")
            .split_once('=')
            .unwrap();
        values.insert(name.to_owned(), literal.to_owned());
        let mut side = |name: &str, literal: String| values.insert(name.to_owned(), literal);
        let bare = literal.trim_matches('\'');
        match name {
            "character_set_connection" => {
                side("collation_connection", format!("'{bare}_general_ci'"))
            }
            "character_set_server" => side("collation_server", format!("'{bare}_general_ci'")),
            "collation_connection" => side(
                "character_set_connection",
                format!("'{}'", charset_of(bare)),
            ),
            "collation_server" => side("character_set_server", format!("'{}'", charset_of(bare))),
            "max_join_size" => side("sql_big_selects", u8::from(literal == "9").to_string()),
            "alter_algorithm" => side("old_alter_table", literal.to_owned()),
            "old_alter_table" => side("alter_algorithm", literal.to_owned()),
            _ => None,
        };
    }
}

/// Under a wide connection charset only literals with an introducer mean what they say.
fn introduced(sql: &str) -> String {
    sql.replace("='", "='garbled ").replace("=_latin1'", "='")
}

fn charset_of(collation: &str) -> &str {
    collation.split('_').next().unwrap()
}

fn model(state: &State) -> BTreeMap<String, String> {
    let catalog = state.catalog();
    let literal = |id| {
        let mut out = BytesMut::new();
        state.get(id).put_literal(&mut out, Quoting::Plain);
        String::from_utf8(out.to_vec()).unwrap()
    };
    catalog
        .ids()
        .map(|id| (catalog.name(id).to_owned(), literal(id)))
        .collect()
}

prop_compose! {
    /// A state that a server can be in: charset and collation agree, views of one setting agree.
    fn changes()(
        client in prop_oneof![Just("utf8mb4"), Just("latin1")],
        connection in prop_oneof![Just("utf8mb4"), Just("latin1"), Just("ucs2")],
        collation in prop_oneof![Just("general_ci"), Just("bin")],
        results in prop_oneof![Just(Value::Null), Just(Value::text("binary"))],
        server in prop_oneof![Just("utf8mb4"), Just("latin1")],
        join in prop_oneof![Just("9"), Just("5")],
        big in 0..2_u8,
        zone in prop_oneof![Just("SYSTEM"), Just("+01:00")],
        mode in prop_oneof![Just(""), Just("ANSI_QUOTES,ORACLE"), Just("NO_BACKSLASH_ESCAPES")],
        alter in prop_oneof![Just("DEFAULT"), Just("COPY")],
    ) -> Vec<(&'static str, Value)> {
        vec![
            ("character_set_client", Value::text(client)),
            ("character_set_connection", Value::text(connection)),
            ("collation_connection", Value::text(format!("{connection}_{collation}"))),
            ("character_set_results", results),
            ("character_set_server", Value::text(server)),
            ("collation_server", Value::text(format!("{server}_{collation}"))),
            ("max_join_size", Value::number(join)),
            ("sql_big_selects", Value::number(big.to_string())),
            ("time_zone", Value::text(zone)),
            ("sql_mode", Value::text(mode)),
            ("alter_algorithm", Value::text(alter)),
            ("old_alter_table", Value::text(alter)),
        ]
    }
}

proptest! {
    #[test]
    fn a_replay_makes_the_other_state(a in changes(), b in changes()) {
        let first = testing::first_state();
        let (from, to) = (state(&first, &a), state(&first, &b));
        let replay = replay(&from, &to).unwrap();
        let mut values = model(&from);
        prop_assert_eq!(replay.set_sql.is_none(), from == to);
        if let Some(sql) = &replay.set_sql {
            apply(std::str::from_utf8(sql).unwrap(), &mut values);
        }
        prop_assert_eq!(values, model(&to));
    }
}
