//! Writes a script from a seed.
//!
//! Holders may keep a connection for as long as they like, so there is one for each of them. Sharers
//! have one connection between them: what they do leaves nothing behind that would hold it, or is
//! undone before anybody else's turn.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::script::{Action, Client, Script, Step, Trait, Value};
use super::stage::{CLIENTS, OTHER_USER};
use super::statements as s;
use crate::support::servers::Make;

/// Things that a session does, each of which Sidepool either carries from connection to connection or
/// keeps a connection for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    UserVariables,
    Prepared,
    TextPrepared,
    Temporary,
    Handlers,
    Locks,
    Routines,
    ChangeUser,
}

/// What leaves a session free to share its connection, as soon as its own end is reached. Everything
/// else is for holders only.
pub(super) const SHARED: &[Feature] = &[Feature::ChangeUser];

/// Parts of statements that show a fault which is known and not mended yet; they are left out so that
/// others are seen. `SIDEPOOL_TEST_EQUIVALENCE_OPEN` puts them in.
const OPEN: &[&str] = &[
    // After a session's own reset a server has its default for these until a database is selected.
    "character_set_database",
    "collation_database",
    "SET CHARACTER SET",
    // In a transaction it makes Sidepool hold the connection for good.
    "SHOW VARIABLES",
    // A plain SELECT that reads LAST_INSERT_ID() unseen.
    "v_last",
    // The answer to it alone ignores the charset of results, and leaves errors.
    "SELECT ROW_COUNT()",
    "select row_count()",
    // MariaDB keeps errors over these.
    "CREATE DATABASE",
    "DROP DATABASE",
    "BEGIN NOT ATOMIC",
    "SAVEPOINT",
    "EXECUTE IMMEDIATE",
    "INTO @a",
    "INTO #u",
    // A transaction that SET autocommit ends leaves the next one what was set before.
    "SET SESSION TRANSACTION READ ONLY",
    "SELECT * FROM t ORDER BY a'",
    "p_prep",
    // The last insert's id, read unseen if sql_auto_is_null is on.
    "IS NULL",
    // Functions that use tables end what it kept.
    "f_ins",
    // It reads what is not the session's, and what fails of it leaves an error of its own.
    "GET DIAGNOSTICS",
    // In a prepared statement it is not seen.
    "SELECT ROW_COUNT(), FOUND_ROWS()",
    // It is the last SELECT's, not the last statement's.
    "FOUND_ROWS()",
    // A SELECT without tables leaves MariaDB's warnings, also another session's.
    "WARNINGS LIMIT",
    "ERRORS LIMIT",
    "@@warning_count",
];

/// The same for MariaDB alone.
const OPEN_MARIADB: &[&str] = &[
    // Sidepool marks the diagnostics area with a SIGNAL, whose SQLSTATE is no ASCII then.
    "character_set_connection = ucs2",
    "collation_connection = utf16_bin",
];

/// A limit: in MySQL a variable that is NULL keeps the type that it had, on whatever connection it was, and
/// where it meets a value in one expression, that has the type of both.
const MIXED_MYSQL: &[&str] = &[
    "COALESCE(@a, @b)",
    "COLLATION(CONCAT(@a, 'x'))",
    // Prepared where @a was NULL: the value that it is executed with comes too late.
    "@b = CONCAT(@a, ?)",
];

/// Whether scripts may also show what is known.
pub(super) fn open() -> bool {
    std::env::var_os("SIDEPOOL_TEST_EQUIVALENCE_OPEN").is_some()
}

/// Steps of a script, besides the last look at the variables.
const STEPS: usize = 60;
const SLOTS: usize = 4;

/// The script of that seed.
pub(super) fn script(make: Make, seed: u64, shared: &[Feature]) -> Script {
    let mut random = StdRng::seed_from_u64(seed);
    let &(holders, sharers) = [(0, 2), (0, 3), (1, 2), (1, 3), (2, 2), (2, 0)]
        .choose(&mut random)
        .expect("some");
    let clients = (0..holders + sharers).map(|at| client(&mut random, at));
    let mut writer = Writer {
        make,
        shared: shared.to_vec(),
        open: open(),
        holders,
        waiting: vec![VecDeque::new(); CLIENTS],
        script: Script {
            connections: holders + usize::from(sharers > 0),
            clients: clients.collect(),
            steps: Vec::new(),
        },
        statements: BTreeMap::new(),
        random,
    };
    writer.write();
    writer.script
}

fn client(random: &mut StdRng, at: usize) -> Client {
    let databases = [
        None,
        Some("t_eqs".to_owned()),
        Some(format!("t_eq{at}a")),
        Some(format!("t_eq{at}b")),
    ];
    let mut traits = Vec::new();
    for (one, percent) in [
        (Trait::Classic, 50),
        (Trait::Track, 40),
        (Trait::FoundRows, 8),
        (Trait::IgnoreSpace, 4),
        (Trait::Single, 6),
    ] {
        if random.random_ratio(percent, 100) {
            traits.push(one);
        }
    }
    Client {
        charset: *[45, 45, 8, 33, 63].choose(random).expect("some"),
        database: databases.choose(random).expect("some").clone(),
        traits,
    }
}

/// Writes some actions of a client that belong together.
type Unit = fn(&mut Writer, usize) -> Vec<Action>;

struct Writer {
    make: Make,
    shared: Vec<Feature>,
    /// Known faults are looked for too.
    open: bool,
    /// So many of the first clients have a connection each.
    holders: usize,
    /// What holders have begun and not yet done.
    waiting: Vec<VecDeque<Action>>,
    script: Script,
    /// The prepared statements of each client, by their slots.
    statements: BTreeMap<(usize, usize), Statement>,
    random: StdRng,
}

/// A statement that a client has prepared, if the server took it.
#[derive(Default)]
struct Statement {
    sql: Vec<u8>,
    /// Cursor and values of its first execution.
    first: Option<(bool, Vec<Value>)>,
}

impl Writer {
    fn write(&mut self) {
        let clients = self.script.clients.len();
        while self.script.steps.len() < STEPS {
            let at = self.random.random_range(0..clients);
            if at >= self.holders {
                let unit = self.unit(at);
                for action in unit {
                    self.push(at, action);
                }
                continue;
            }
            // Somebody else's turn may come in between.
            if self.waiting[at].is_empty() {
                let unit = self.unit(at);
                self.waiting[at].extend(unit);
            }
            for _ in 0..self.random.random_range(1..=3) {
                if let Some(action) = self.waiting[at].pop_front() {
                    self.push(at, action);
                }
            }
        }
        for at in 0..clients {
            self.look_around(at);
        }
    }

    /// What every client does in the end: whatever of its state no answer has shown is seen now.
    fn look_around(&mut self, at: usize) {
        let query = |sql: &str| Action::Query(sql.as_bytes().to_vec());
        let may = |writer: &Self, feature| at < writer.holders || writer.shared.contains(&feature);
        if at >= self.holders || self.open {
            self.push(at, query("SELECT LAST_INSERT_ID()"));
        }
        self.push(at, query("SELECT DATABASE(), USER()"));
        let charsets = "SELECT @@character_set_client, @@character_set_connection, \
                        @@character_set_results, @@collation_connection, @@sql_select_limit";
        self.push(at, query(charsets));
        if may(self, Feature::UserVariables) {
            self.push(at, query("SELECT @a, @b, @`c d`, @n, @p, @x, @y"));
            let charsets = "SELECT CHARSET(@a), COLLATION(@b), COERCIBILITY(@b)";
            self.push(at, query(&self.of_values(charsets)));
        }
        // Enough to show the variables, whatever the script has limited.
        self.push(at, query("SET NAMES utf8mb4"));
        self.push(at, Action::Variables);
    }

    fn push(&mut self, client: usize, action: Action) {
        self.script.steps.push(Step { client, action });
    }

    /// Some actions that belong together.
    fn unit(&mut self, at: usize) -> Vec<Action> {
        let holder = at < self.holders;
        let may = |feature| holder || self.shared.contains(&feature);
        let mut kinds: Vec<(u32, Unit)> = vec![
            (20, Self::settings),
            (16, Self::reads),
            (14, Self::writes),
            (8, Self::databases),
            (3, Self::definitions),
            (6, Self::commands),
            (2, |w, at| w.one_list(s::TABLE_LOCKS, at)),
            (5, Self::transaction),
        ];
        let optional: [(bool, u32, Unit); 10] = [
            (may(Feature::UserVariables), 18, |w, at| {
                w.queries(s::VARIABLES, at, 3)
            }),
            (may(Feature::Prepared), 22, Self::prepared),
            (may(Feature::TextPrepared), 8, |w, at| {
                w.queries(s::TEXT_PREPARED, at, 4)
            }),
            (may(Feature::Temporary), 3, |w, at| {
                w.one_list(s::TEMPORARY, at)
            }),
            (may(Feature::Handlers), 1, |w, at| {
                w.one_list(s::HANDLERS, at)
            }),
            (may(Feature::Locks), 3, |w, at| w.one_list(s::LOCKS, at)),
            (may(Feature::Routines), 7, Self::routines),
            (holder, 10, |w, at| w.queries(s::TRANSACTIONS, at, 4)),
            (holder, 8, Self::looks_held),
            (holder, 4, Self::unshareable),
        ];
        for (may, weight, kind) in optional {
            if may {
                kinds.push((weight, kind));
            }
        }
        let (_, kind) = *kinds
            .choose_weighted(&mut self.random, |(weight, _)| *weight)
            .expect("some");
        kind(self, at)
    }

    fn settings(&mut self, at: usize) -> Vec<Action> {
        let own = match self.make {
            Make::MariaDb => s::SETTINGS_MARIADB,
            Make::MySql => s::SETTINGS_MYSQL,
        };
        let from = if self.random.random_ratio(1, 5) {
            own
        } else {
            s::SETTINGS
        };
        self.queries(from, at, 2)
    }

    fn reads(&mut self, at: usize) -> Vec<Action> {
        self.looking(s::READS, at)
    }

    fn writes(&mut self, at: usize) -> Vec<Action> {
        self.looking(s::WRITES, at)
    }

    fn definitions(&mut self, at: usize) -> Vec<Action> {
        self.looking(s::DEFINITIONS, at)
    }

    /// A statement, and often a look back at it.
    fn looking(&mut self, from: &[&str], at: usize) -> Vec<Action> {
        let mut unit = vec![self.query(from, at)];
        if self.random.random_ratio(1, 3) {
            unit.push(self.query(s::LOOKS, at));
        }
        unit
    }

    fn looks_held(&mut self, at: usize) -> Vec<Action> {
        let from = [s::READS, s::WRITES, s::SETTINGS]
            .choose(&mut self.random)
            .copied()
            .expect("some");
        let mut unit = vec![self.query(from, at)];
        unit.extend(self.queries(s::LOOKS_HELD, at, 2));
        unit
    }

    fn unshareable(&mut self, at: usize) -> Vec<Action> {
        let from = [s::XA, s::UNREPLAYED, s::ROLES]
            .choose(&mut self.random)
            .copied()
            .expect("some");
        self.one_list(from, at)
    }

    fn routines(&mut self, at: usize) -> Vec<Action> {
        let own = match self.make {
            Make::MariaDb => s::ROUTINES_MARIADB,
            Make::MySql => &[],
        };
        self.looking(&[s::ROUTINES, own].concat(), at)
    }

    fn databases(&mut self, at: usize) -> Vec<Action> {
        if self.random.random_ratio(1, 3) {
            let name = self.fill("#D", at);
            return vec![Action::InitDb(name)];
        }
        self.queries(s::DATABASES, at, 2)
    }

    /// A transaction that ends as it should.
    fn transaction(&mut self, at: usize) -> Vec<Action> {
        let (begin, end) = *[
            (&["BEGIN"][..], &["COMMIT"][..]),
            (&["BEGIN"], &["ROLLBACK"]),
            (&["START TRANSACTION READ ONLY"], &["COMMIT"]),
            (&["SET autocommit = 0"], &["COMMIT", "SET autocommit = 1"]),
            (&["SET autocommit = 0"], &["SET autocommit = 1"]),
            (
                &["SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "BEGIN"],
                &["COMMIT"],
            ),
            (&["BEGIN", "DELETE FROM #A.t"], &["ROLLBACK AND NO CHAIN"]),
        ]
        .choose(&mut self.random)
        .expect("some");
        let mut unit: Vec<_> = begin.iter().map(|sql| self.text(sql, at)).collect();
        for _ in 0..self.random.random_range(1..5) {
            let from = [s::READS, s::WRITES, s::WRITES, s::SETTINGS, s::LOOKS]
                .choose(&mut self.random)
                .copied()
                .expect("some");
            unit.push(self.query(from, at));
        }
        unit.extend(end.iter().map(|sql| self.text(sql, at)));
        unit
    }

    fn commands(&mut self, at: usize) -> Vec<Action> {
        let change = at < self.holders || self.shared.contains(&Feature::ChangeUser);
        match self.random.random_range(0..10) {
            0..=1 => vec![Action::Ping],
            2..=3 => vec![Action::Reset],
            4 => vec![Action::Reconnect],
            // Known: MariaDB takes IGNORE_SPACE from the login alone.
            5 if change && (self.open || !self.has(at, Trait::IgnoreSpace)) => {
                let user = *["app", OTHER_USER].choose(&mut self.random).expect("some");
                vec![Action::ChangeUser(user.to_owned())]
            }
            // Known: what it shuts off COM_CHANGE_USER opens.
            6 if self.open => vec![Action::SetOption(self.random.random_range(0..=1))],
            6 => vec![Action::SetOption(1), Action::Ping, Action::SetOption(0)],
            7 => {
                let tables = [&b"t"[..], b"r", b"none"];
                let table = tables.choose(&mut self.random).expect("some");
                vec![Action::FieldList(table.to_vec())]
            }
            _ => vec![Action::Ping],
        }
    }

    fn has(&self, at: usize, one: Trait) -> bool {
        self.script.clients[at].traits.contains(&one)
    }

    fn prepared(&mut self, at: usize) -> Vec<Action> {
        let slot = self.random.random_range(0..SLOTS);
        let mut unit = Vec::new();
        if self.random.random_ratio(1, 2) {
            let mut from = vec![s::PREPARED, s::PREPARED];
            if at < self.holders {
                from.push(s::PREPARED_HELD);
            }
            if at < self.holders || self.shared.contains(&Feature::UserVariables) {
                from.push(s::PREPARED_VARIABLES);
            }
            let from = from.choose(&mut self.random).copied().expect("some");
            if let Action::Query(sql) = self.query(from, at) {
                let first = None;
                let statement = Statement {
                    sql: sql.clone(),
                    first,
                };
                self.statements.insert((at, slot), statement);
                unit.push(Action::Prepare(slot, sql));
            }
        }
        for _ in 0..self.random.random_range(1..=3) {
            match self.random.random_range(0..20) {
                0..=11 => unit.extend(self.execute(at, slot, false)),
                // Long data hold the connection, so they end here.
                12..=13 if self.may_be_long(at, slot) => {
                    let data = *[&b"long "[..], b"\0", b"\xff\xfe"]
                        .choose(&mut self.random)
                        .expect("some");
                    for _ in 0..self.random.random_range(1..=2) {
                        unit.push(Action::LongData(slot, 0, data.to_vec()));
                    }
                    unit.extend(self.execute(at, slot, false));
                    unit.push(Action::ResetStatement(slot));
                }
                12..=15 => unit.extend(self.execute(at, slot, true)),
                16 => unit.push(Action::ResetStatement(slot)),
                17 => unit.push(Action::Fetch(slot, 1)),
                18 => unit.push(Action::Close(slot)),
                _ => unit.extend(self.settings(at)),
            }
        }
        unit
    }

    /// An execution, and what ends its cursor, since that holds the connection.
    fn execute(&mut self, at: usize, slot: usize, cursor: bool) -> Vec<Action> {
        let bound = self.random.random_ratio(3, 4);
        let mut values: Vec<_> = (0..3).map(|_| self.value()).collect();
        let mut cursor = cursor;
        let statement = self.statements.entry((at, slot)).or_default();
        // A limit: OUT parameters of a call whose types have changed since they were bound.
        let out = statement.sql.windows(5).any(|part| part == b"p_out");
        // A limit: MySQL answers by the types, NULLs and cursor of earlier executions, now and then wrongly
        // or not at all, and those may have been on another connection.
        if self.make == Make::MySql {
            if let Some((first, kinds)) = statement.first.clone() {
                cursor = first;
                values = kinds.iter().map(|kind| self.value_like(kind)).collect();
            } else {
                statement.first = Some((cursor, values.clone()));
            }
        }
        let mut unit = vec![Action::Execute {
            slot,
            cursor,
            bound: bound || out,
            values,
        }];
        if cursor {
            for _ in 0..self.random.random_range(0..=2) {
                unit.push(Action::Fetch(slot, self.random.random_range(1..=4)));
            }
            unit.push(Action::ResetStatement(slot));
        }
        unit
    }

    /// Whether the first parameter may be sent as long data: in MySQL it stays what it has been.
    fn may_be_long(&mut self, at: usize, slot: usize) -> bool {
        if self.make != Make::MySql {
            return true;
        }
        let rest = [self.value(), self.value()];
        let statement = self.statements.entry((at, slot)).or_default();
        let (_, values) = statement.first.get_or_insert_with(|| {
            let [one, other] = rest;
            (false, vec![Value::Blob(Vec::new()), one, other])
        });
        matches!(values[0], Value::Blob(_))
    }

    /// A value of the same type, and NULL for NULL.
    fn value_like(&mut self, one: &Value) -> Value {
        loop {
            let value = self.value();
            if std::mem::discriminant(&value) == std::mem::discriminant(one) {
                return value;
            }
        }
    }

    fn value(&mut self) -> Value {
        let small = self.random.random_range(-3..8);
        let text = *[
            &b"abc"[..],
            b"",
            b"it's",
            b"12.5x",
            "\u{e9}".as_bytes(),
            b"ANSI",
            b"\0\xff",
        ]
        .choose(&mut self.random)
        .expect("some");
        match self.random.random_range(0..12) {
            0 => Value::Null,
            1 => Value::Tiny(small),
            2..=4 => Value::Int(small.into()),
            5 => Value::Long(i64::from(small) << 40),
            6 => Value::Unsigned(u64::MAX - u64::from(small.unsigned_abs())),
            7 => Value::Double(f64::from(small) / 4.0),
            8 => Value::Blob(text.to_vec()),
            9 => Value::Date(2020, 2, 29),
            _ => Value::Text(text.to_vec()),
        }
    }

    /// Up to so many of these statements.
    fn queries(&mut self, from: &[&str], at: usize, most: usize) -> Vec<Action> {
        (0..self.random.random_range(1..=most))
            .map(|_| self.query(from, at))
            .collect()
    }

    /// All the statements of one of these lists.
    fn one_list(&mut self, from: &[&[&str]], at: usize) -> Vec<Action> {
        let list = from.choose(&mut self.random).copied().expect("some");
        list.iter().map(|sql| self.text(sql, at)).collect()
    }

    fn query(&mut self, from: &[&str], at: usize) -> Action {
        loop {
            let sql = from.choose(&mut self.random).expect("some");
            // Prepared statements take another session's.
            let id = at < self.holders && sql.contains("LAST_INSERT_ID");
            let own = match self.make {
                Make::MariaDb => OPEN_MARIADB,
                Make::MySql => MIXED_MYSQL,
            };
            let mut left_out = OPEN.iter().chain(own);
            if self.open || !id && !left_out.any(|part| sql.contains(part)) {
                return self.text(sql, at);
            }
        }
    }

    fn text(&mut self, sql: &str, at: usize) -> Action {
        Action::Query(self.fill(sql, at))
    }

    /// A limit: in MySQL a variable that is NULL keeps the charset that it had, on whatever connection it
    /// was. So what asks for one asks only for that of a value.
    fn of_values(&self, sql: &str) -> String {
        let mut sql = sql.to_owned();
        if self.make != Make::MySql {
            return sql;
        }
        for function in ["CHARSET", "COLLATION", "COERCIBILITY"] {
            for variable in ["@a", "@b", "#u"] {
                let call = format!("{function}({variable})");
                // The same variable in both places, also where one is still to be chosen.
                let name = if variable == "#u" { "@a" } else { variable };
                let of_value = format!("IF({name} IS NULL, NULL, {function}({name}))");
                sql = sql.replace(&call, &of_value);
            }
        }
        sql
    }

    /// Puts names and values in the places kept for them.
    fn fill(&mut self, template: &str, at: usize) -> Vec<u8> {
        const NUMBERS: [&str; 9] = [
            "0",
            "1",
            "2",
            "7",
            "-1",
            "100",
            "0.5",
            "NULL",
            "99999999999",
        ];
        let mut out = String::new();
        let template = self.of_values(template);
        let mut rest = &template[..];
        while let Some((before, after)) = rest.split_once('#') {
            out.push_str(before);
            let what = after.chars().next().unwrap_or(' ');
            let random = &mut self.random;
            match what {
                'A' => out.push_str(&format!("t_eq{at}a")),
                'B' => out.push_str(&format!("t_eq{at}b")),
                'G' => out.push_str(&format!("t_eq{at}g")),
                'D' => match random.random_range(0..6) {
                    0 => out.push_str("t_eqs"),
                    1 => out.push_str("t_eq_none"),
                    n => out.push_str(&format!("t_eq{at}{}", ['a', 'b', 'g', 'a'][n - 2])),
                },
                'n' => out.push_str(NUMBERS.choose(random).expect("some")),
                'k' => out.push_str(&random.random_range(1..=5).to_string()),
                's' => out.push_str(s::STRINGS.choose(random).expect("some")),
                'u' => out.push_str(s::NAMES.choose(random).expect("some")),
                'p' => out.push_str(["p1", "p2"].choose(random).expect("some")),
                'P' => out.push_str(["P1", "P2"].choose(random).expect("some")),
                'e' => {
                    let variables =
                        at < self.holders || self.shared.contains(&Feature::UserVariables);
                    let from = match variables && random.random_ratio(1, 8) {
                        true => s::VARIABLE_EXPRESSIONS,
                        false => s::EXPRESSIONS,
                    };
                    out.push_str(from.choose(random).expect("some"));
                }
                other => {
                    out.push('#');
                    out.push(other);
                }
            }
            rest = &after[what.len_utf8().min(after.len())..];
        }
        out.push_str(rest);
        out.into_bytes()
    }
}
