use super::super::scan::{LexMode, deeds};
use super::*;

const DONE: Outcome = Outcome::Done { rows: 0 };

/// What is open after these statements, all of which went well.
fn after(statements: &[&str]) -> Open {
    let mut open = Open::default();
    for sql in statements {
        note(&mut open, sql, DONE);
    }
    open
}

fn note(open: &mut Open, sql: &str, outcome: Outcome) {
    open.note(
        &deeds(sql.as_bytes(), LexMode::default()),
        outcome,
        Some(b"d"),
    );
}

/// Statements that all go well, and whether a temporary table may be open behind them.
const TABLES: &[(&[&str], bool)] = &[
    (&["CREATE TEMPORARY TABLE t (a INT)"], true),
    (&["CREATE TEMPORARY TABLE t (a INT)", "DROP TABLE t"], false),
    (
        &[
            "CREATE TEMPORARY TABLE t (a INT)",
            "DROP TEMPORARY TABLE IF EXISTS x, d.t",
        ],
        false,
    ),
    (
        &["CREATE TEMPORARY TABLE e.t (a INT)", "DROP TABLE t"],
        true,
    ),
    (&["CREATE TEMPORARY TABLE t (a INT)", "DROP TABLE T"], true),
    (
        &["CREATE TEMPORARY TABLE t (a INT)", "DROP VIEW IF EXISTS t"],
        true,
    ),
    (
        &[
            "CREATE TEMPORARY TABLE t (a INT)",
            "DROP SEQUENCE IF EXISTS t",
        ],
        true,
    ),
    (&["CREATE TEMPORARY SEQUENCE s", "DROP SEQUENCE s"], false),
    (&["CREATE TEMPORARY SEQUENCE s", "DROP TABLE s"], false),
    (
        &[
            "CREATE TEMPORARY TABLE t (a INT)",
            "CREATE TEMPORARY TABLE u LIKE t",
            "DROP TABLE t",
        ],
        true,
    ),
    (
        &["CREATE TEMPORARY TABLE `é` (a INT)", "DROP TABLE `é`"],
        true,
    ),
    (
        &[
            "CREATE TEMPORARY TABLE t (a INT)",
            "ALTER TABLE t RENAME u",
            "DROP TABLE u",
        ],
        false,
    ),
    (
        &[
            "CREATE TEMPORARY TABLE t (a INT)",
            "ALTER TABLE t RENAME u",
            "DROP TABLE t",
        ],
        true,
    ),
    (
        &[
            "CREATE TEMPORARY TABLE t (a INT)",
            "RENAME TABLE t TO u",
            "DROP TABLE t",
        ],
        true,
    ),
    (
        &[
            "CREATE TEMPORARY TABLE t (a INT)",
            "RENAME TABLE x TO y",
            "DROP TABLE t",
        ],
        false,
    ),
    (&["CREATE TEMPORARY TABLE t (a INT); DROP TABLE t"], false),
    (
        &["USE x; CREATE TEMPORARY TABLE t (a INT)", "DROP TABLE x.t"],
        true,
    ),
];

#[test]
fn temporary_tables_go_with_the_last_known_one() {
    for (statements, stands) in TABLES {
        let open = after(statements);
        assert_eq!(
            open.holds(PinReason::TemporaryTable),
            *stands,
            "{statements:?}"
        );
        assert_eq!(open.is_empty(), !*stands, "{statements:?}");
    }
}

#[test]
fn what_failed_opens_nothing_and_closes_nothing() {
    let mut open = Open::default();
    note(
        &mut open,
        "CREATE TEMPORARY TABLE t (a INT)",
        Outcome::Failed,
    );
    note(&mut open, "HANDLER t OPEN", Outcome::Failed);
    assert!(open.is_empty());
    note(
        &mut open,
        "CREATE TEMPORARY TABLE t (a INT); x",
        Outcome::Failed,
    );
    assert!(open.holds(PinReason::TemporaryTable), "it may have run");
    note(&mut open, "DROP TABLE t, x", Outcome::Failed);
    assert!(open.holds(PinReason::TemporaryTable));
    note(&mut open, "DROP TABLE t", DONE);
    assert!(open.is_empty());
}

#[test]
fn a_lock_that_is_denied_is_not_taken() {
    let mut open = Open::default();
    note(&mut open, "FLUSH TABLES WITH READ LOCK", Outcome::Denied);
    note(&mut open, "SELECT GET_LOCK('a' 1)", Outcome::NotRun);
    note(&mut open, "SET RESOURCE", Outcome::NotRun);
    assert!(open.is_empty());
    note(&mut open, "FLUSH TABLES WITH READ LOCK; x", Outcome::Denied);
    assert!(open.holds(PinReason::Lock));
    let mut open = Open::default();
    note(&mut open, "FLUSH TABLES WITH READ LOCK", Outcome::Failed);
    assert!(open.holds(PinReason::Lock));
}

#[test]
fn nobody_knows_where_an_unqualified_name_is_behind_a_failed_use() {
    let mut open = Open::default();
    note(&mut open, "USE x; nonsense", Outcome::Failed);
    note(&mut open, "CREATE TEMPORARY TABLE t (a INT)", DONE);
    note(&mut open, "DROP TABLE t", DONE);
    assert!(open.holds(PinReason::TemporaryTable));
}

#[test]
fn a_change_that_nothing_explains_may_be_a_table_more() {
    let mut open = after(&["CREATE TEMPORARY TABLE t (a INT)"]);
    open.unexplained();
    note(&mut open, "DROP TABLE t", DONE);
    assert!(open.holds(PinReason::TemporaryTable));
}

#[test]
fn handlers_are_counted_by_alias() {
    let opened = ["HANDLER t OPEN", "HANDLER t OPEN AS h"];
    let mut open = after(&opened);
    note(&mut open, "HANDLER h READ FIRST", DONE);
    note(&mut open, "HANDLER h CLOSE", DONE);
    assert!(open.holds(PinReason::Handler));
    note(&mut open, "HANDLER t CLOSE", DONE);
    assert!(open.is_empty());
}

#[test]
fn the_server_judges_user_level_locks() {
    let mut open = after(&["SELECT GET_LOCK('a', 1), GET_LOCK('b', 1)"]);
    let question = open.lock_question(7).unwrap();
    assert_eq!(
        question,
        "SELECT IS_USED_LOCK('a') IN (CONNECTION_ID(),7),IS_USED_LOCK('b') IN (CONNECTION_ID(),7) LIMIT 1"
    );
    open.answer_locks(&[true, false]);
    assert!(open.holds(PinReason::Lock));
    assert_eq!(open.lock_question(7), None, "nothing has changed since");
    note(&mut open, "DO RELEASE_LOCK('a')", DONE);
    assert!(open.lock_question(7).is_some());
    open.answer_locks(&[false]);
    assert!(open.is_empty());
}

#[test]
fn unknown_locks_end_when_all_are_released() {
    let unknown = "SELECT GET_LOCK(name, 1) FROM t";
    for (end, outcome, stands) in [
        ("DO RELEASE_ALL_LOCKS()", DONE, false),
        (
            "SELECT RELEASE_ALL_LOCKS()",
            Outcome::Done { rows: 1 },
            false,
        ),
        ("SELECT RELEASE_ALL_LOCKS()", DONE, true),
        ("SELECT RELEASE_ALL_LOCKS()", Outcome::Failed, true),
        (
            "SELECT RELEASE_ALL_LOCKS() FROM t",
            Outcome::Done { rows: 1 },
            true,
        ),
    ] {
        let mut open = after(&[unknown]);
        assert_eq!(open.lock_question(7), None);
        note(&mut open, end, outcome);
        assert_eq!(open.holds(PinReason::Lock), stands, "{end} {outcome:?}");
    }
}

#[test]
fn each_global_lock_has_its_own_end() {
    let mut open = after(&[
        "FLUSH TABLES WITH READ LOCK",
        "BACKUP STAGE START",
        "BACKUP LOCK t",
    ]);
    note(&mut open, "BACKUP UNLOCK", DONE);
    note(&mut open, "UNLOCK TABLES", DONE);
    note(&mut open, "UNLOCK INSTANCE", DONE);
    assert!(open.holds(PinReason::Lock));
    note(&mut open, "BACKUP STAGE END", Outcome::Failed);
    assert!(open.holds(PinReason::Lock));
    note(&mut open, "BACKUP STAGE END", DONE);
    assert!(open.is_empty());
    assert!(after(&["SET RESOURCE GROUP g"]).outlives_reset());
    assert!(!after(&["SELECT LASTVAL(s)"]).outlives_reset());
}

#[test]
fn variables_are_back_when_all_are() {
    let mut open = Open::default();
    open.changed(b"timestamp");
    open.changed(b"insert_id");
    note(&mut open, "SET timestamp = DEFAULT", DONE);
    assert!(open.holds(PinReason::SessionVariable));
    let mut open = Open::default();
    open.changed(b"timestamp");
    note(&mut open, "SET timestamp = DEFAULT; SELECT f()", DONE);
    assert!(open.holds(PinReason::SessionVariable));
    note(&mut open, "SET @@session.timestamp = 0", DONE);
    assert!(open.is_empty());
}
