use super::*;
use crate::backend::state::testing;
use crate::backend::state::{Fit, fit, replay};
use crate::reason::PinReason;

fn number(kind: NumberKind, text: &str) -> UserValue {
    UserValue::Number(kind, Some(text.as_bytes().into()))
}

fn text(collation: &str, bytes: &[u8]) -> UserValue {
    UserValue::Text {
        charset: collation.split('_').next().unwrap_or_default().into(),
        collation: collation.into(),
        bytes: Some(bytes.into()),
    }
}

fn plain_null() -> UserValue {
    UserValue::Text {
        charset: "binary".into(),
        collation: "binary".into(),
        bytes: None,
    }
}

fn variables(values: &[(&str, UserValue)]) -> UserVariables {
    let owned = |(name, value): &(&str, UserValue)| (name.as_bytes().into(), value.clone());
    values.iter().map(owned).collect()
}

fn assignments(from: &UserVariables, to: &UserVariables) -> String {
    let mut out = BytesMut::new();
    from.put_assignments(to, &mut out, |out| out.put_slice(b" "));
    String::from_utf8(out.to_vec()).unwrap()
}

fn set(value: UserValue) -> String {
    assignments(&UserVariables::default(), &variables(&[("a", value)]))
}

#[test]
fn literals_bring_type_charset_and_collation_back() {
    use NumberKind::{Decimal, Double, Signed, Unsigned};
    for (value, expected) in [
        (
            number(Signed, "-9223372036854775808"),
            " @`a`=-9223372036854775808",
        ),
        (number(Unsigned, "5"), " @`a`=CAST(5 AS UNSIGNED)"),
        (number(Decimal, "1.50"), " @`a`=1.50"),
        (number(Decimal, "-7"), " @`a`=-7."),
        (number(Double, "0.1"), " @`a`=0.1e0"),
        (number(Double, "-5e-324"), " @`a`=-5e-324"),
        (
            text("utf8mb4_bin", "é'".as_bytes()),
            " @`a`=_utf8mb4 x'C3A927' COLLATE utf8mb4_bin",
        ),
        (
            text("latin1_swedish_ci", b""),
            " @`a`=_latin1 x'' COLLATE latin1_swedish_ci",
        ),
        (text("binary", b"\0\xff"), " @`a`=_binary x'00FF'"),
        (
            UserValue::Number(Unsigned, None),
            " @`a`=CAST(0 AS UNSIGNED) @`a`=NULL",
        ),
        (UserValue::Number(Decimal, None), " @`a`=0. @`a`=NULL"),
        (plain_null(), " @`a`=_binary x'' @`a`=NULL"),
    ] {
        assert!(value.is_replayable());
        assert_eq!(set(value), expected);
    }
}

#[test]
fn only_differences_are_assigned_and_what_is_gone_is_null() {
    let one = number(NumberKind::Signed, "1");
    let from = variables(&[("a", one.clone()), ("b", one.clone()), ("n", plain_null())]);
    let to = variables(&[("a", one.clone()), ("c", one)]);
    assert_eq!(
        assignments(&from, &to),
        " @`b`=_binary x'' @`b`=NULL @`c`=1"
    );
    assert_eq!(assignments(&to, &to), "");
}

#[test]
fn what_a_literal_cannot_say_is_not_replayed() {
    for value in [
        text("utf8mb4_bin", b"\xff"),
        text("utf8mb3_bin", "😀".as_bytes()),
        text("utf16_bin", b"\xd8\x00"),
        text("ucs2_bin", b"a"),
        text("utf32_bin", b"\0\x11\0\0"),
        text("gbk_chinese_ci", b"\x81\x40"),
        text("it's", b""),
        number(NumberKind::Double, "nan"),
        UserValue::Opaque(70_000),
    ] {
        assert!(!value.is_replayable(), "{value:?}");
    }
    for value in [
        text("utf16_bin", b"\xd8\x3d\xde\x00"),
        text("utf16le_bin", b"a\0"),
        text("utf32_bin", b"\0\x01\xf6\0"),
        text("gbk_chinese_ci", b"abc"),
        text("latin1_swedish_ci", b"\xff"),
    ] {
        assert!(value.is_replayable(), "{value:?}");
    }
    let many = |count: usize| -> UserVariables {
        let one = |n: usize| {
            (
                format!("v{n}").into_bytes().into(),
                number(NumberKind::Signed, "1"),
            )
        };
        (0..count).map(one).collect()
    };
    assert!(many(MOST_VARIABLES).are_replayable() && !many(MOST_VARIABLES + 1).are_replayable());
    let long = text("binary", &vec![0; 40_000]);
    assert!(variables(&[("a", long.clone())]).are_replayable());
    assert!(!variables(&[("a", long.clone()), ("b", long)]).are_replayable());
    for name in [&b""[..], b"a ", b"a`b", b"\xc3\xa9", b"a\\b", &[b'a'; 65]] {
        assert!(!is_plain_name(name));
    }
}

#[test]
fn states_differ_in_them_and_replay_them() {
    let first = testing::first_state();
    let one = first.with_user(variables(&[("a", number(NumberKind::Signed, "1"))]));
    assert_ne!(one, first);
    assert_eq!(one.with_user(UserVariables::default()), first);
    assert_eq!(one.user().get(b"A"), Some(&number(NumberKind::Signed, "1")));
    assert_eq!(fit(&first, &one), Fit::SameDatabase);
    let sql = |from, to| replay(from, to).unwrap().set_sql.clone().unwrap();
    assert_eq!(sql(&first, &one), "SET @`a`=1");
    assert_eq!(sql(&one, &first), "SET @`a`=_binary x'',@`a`=NULL");
    let zone = first.catalog().id("time_zone").unwrap();
    let value = crate::backend::state::Value::text("+01:00");
    let both = one.with(&[(zone, value)]);
    assert_eq!(
        sql(&first, &both),
        "SET @@session.time_zone='+01:00',@`a`=1"
    );
    let null = first.with_user(variables(&[("a", plain_null())]));
    assert_eq!(replay(&null, &first).unwrap().set_sql, None);
    assert_eq!(one.pin_reason(&first), None);
    let large = first.with_user(variables(&[("a", UserValue::Opaque(1 << 20))]));
    assert_eq!(large.pin_reason(&first), Some(PinReason::UserVariable));
    assert_eq!(fit(&first, &large), Fit::Unusable);
    assert_eq!(fit(&large, &first), Fit::SameDatabase);
    let client = first.catalog().id("character_set_client").unwrap();
    let swe7 = first.with(&[(client, crate::backend::state::Value::text("swe7"))]);
    assert_eq!(fit(&swe7, &one), Fit::Unusable);
    assert_eq!(one.rebase(&first, &first), Some(one));
}

/// A column definition's fixed part, as both servers send it.
fn definition(kind: u8, flags: u8, width: u32) -> Vec<u8> {
    let mut payload = vec![12, 63, 0];
    payload.extend(width.to_le_bytes());
    payload.extend([kind, flags, 0, 0, 0, 0]);
    payload
}

fn decode(first: Vec<u8>, cells: [Option<&str>; 5], family: Family) -> Option<UserValue> {
    let query = UserQuery::new([Box::from(&b"a"[..])]);
    let other = definition(253, 0, 0);
    let definitions = [&first[..], &other, &other, &other, &other];
    let cells = cells.map(|cell| cell.map(str::as_bytes));
    let mut reading = query.decode(&definitions, &cells, family).unwrap();
    reading.remove(0).1
}

#[test]
fn numbers_are_decoded() {
    let (maria, mysql) = (Family::MariaDb, Family::MySql);
    let integer = [Some("5"), Some("1"), Some("latin1"), Some("x"), Some("35")];
    assert_eq!(
        decode(definition(8, 0x80, 20), integer, maria),
        Some(number(NumberKind::Signed, "5"))
    );
    assert_eq!(
        decode(definition(8, 0xa0, 20), integer, maria),
        Some(number(NumberKind::Unsigned, "5"))
    );
    // MariaDB shows a decimal within IF with all digits that there could be.
    let decimal = [
        Some("1.50000"),
        Some("4"),
        Some("binary"),
        Some("x"),
        Some("312E3530"),
    ];
    assert_eq!(
        decode(definition(246, 0x80, 83), decimal, maria),
        Some(number(NumberKind::Decimal, "1.50"))
    );
    let double = [
        Some("1e300"),
        Some("5"),
        Some("binary"),
        Some("x"),
        Some("00"),
    ];
    assert_eq!(
        decode(definition(5, 0x80, 23), double, mysql),
        Some(number(NumberKind::Double, "1e300"))
    );
}

#[test]
fn strings_and_nulls_are_decoded() {
    let (maria, mysql) = (Family::MariaDb, Family::MySql);
    let string = [
        Some("é"),
        Some("2"),
        Some("utf8mb4"),
        Some("utf8mb4_bin"),
        Some("C3A9"),
    ];
    assert_eq!(
        decode(definition(251, 0, 4), string, mysql),
        Some(text("utf8mb4_bin", "é".as_bytes()))
    );
    let large = [
        None,
        Some("70000"),
        Some("utf8mb4"),
        Some("utf8mb4_bin"),
        None,
    ];
    assert_eq!(
        decode(definition(251, 0, 4), large, mysql),
        Some(UserValue::Opaque(70_000))
    );
    let none = [None, None, Some("binary"), Some("binary"), None];
    assert_eq!(decode(definition(251, 0x80, 16_777_216), none, maria), None);
    assert_eq!(
        decode(definition(251, 0x80, 16_777_215), none, maria),
        Some(plain_null())
    );
    assert_eq!(decode(definition(253, 0x80, 65_535), none, mysql), None);
    assert_eq!(
        decode(definition(250, 0x80, 16_777_215), none, mysql),
        Some(plain_null())
    );
    let query = UserQuery::new([Box::from(&b"a"[..])]);
    assert!(query.decode(&[], &[], maria).is_err());
}
