//! Session equivalence: scripts of several clients over few backend connections, each answer compared
//! packet for packet with that of a dedicated connection to a server of its own.
//!
//! `SIDEPOOL_TEST_EQUIVALENCE_MINUTES` (as `tests/run --equivalence MINUTES` sets it) runs scripts of
//! random seeds for so long; `SIDEPOOL_TEST_EQUIVALENCE_SEEDS` (`17` or `1..500`) runs these seeds
//! instead of the usual ones, and `…_SHOW` shows them; `SIDEPOOL_TEST_EQUIVALENCE_SCRIPT` runs the
//! script in that file, or all in that directory. What was
//! found once is kept in `equivalence/found`.

mod compare;
mod generate;
mod run;
mod script;
mod shrink;
mod stage;
mod statements;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::generate::SHARED;
use self::run::{Refusal, Report, STARVED, run};
use self::script::Script;
use self::shrink::shrink;
use self::stage::Stage;
use crate::support::servers::{Make, makes};

/// The seeds of every run of the tests.
const SEEDS: std::ops::Range<u64> = 1..201;
/// At most so many of a thousand steps may be refused, or Sidepool answers too little.
const REFUSED_PER_MILLE: usize = 20;
/// So many differences are shown, and then the search ends.
const ENOUGH: usize = 12;

#[tokio::test]
async fn mariadb() {
    every_answer_is_a_dedicated_connections(Make::MariaDb).await;
}

#[tokio::test]
async fn mysql() {
    if makes().contains(&Make::MySql) {
        every_answer_is_a_dedicated_connections(Make::MySql).await;
    }
}

/// What was found, the check that differences are seen, and then the search for more: one after the
/// other on one pair of servers.
async fn every_answer_is_a_dedicated_connections(make: Make) {
    let mut search = Search {
        make,
        stage: Stage::new(make).await,
        totals: Totals::default(),
        wrong: Vec::new(),
    };
    if let Ok(path) = std::env::var("SIDEPOOL_TEST_EQUIVALENCE_SCRIPT") {
        for path in files(Path::new(&path)) {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.display().to_string();
            search.script(&text.parse().unwrap(), &name).await;
        }
    } else {
        search.blindness().await;
        for (name, text) in FOUND {
            search.script(&text.parse().unwrap(), name).await;
        }
        search.seeds().await;
    }
    search.conclude();
}

macro_rules! found {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("equivalence/found/", $name, ".txt")),
        )
    };
}

/// What was found once, and is mended: its name and the script.
const FOUND: &[(&str, &str)] = &[
    found!("changes_before_an_error_in_a_transaction"),
    found!("database_charset_of_a_reset_connection"),
    found!("errors_kept_over_create_database"),
    found!("found_rows_behind_an_update"),
    found!("insert_id_behind_an_execution"),
    found!("insert_id_behind_an_unknown_statement"),
    found!("insert_id_in_a_function"),
    found!("multi_statements_off_and_on_again"),
    found!("null_is_the_insert_id"),
    found!("row_count_behind_warnings_in_a_transaction"),
    found!("warnings_of_another_session"),
];

struct Search {
    make: Make,
    stage: Stage,
    totals: Totals,
    wrong: Vec<String>,
}

#[derive(Default)]
struct Totals {
    scripts: usize,
    steps: usize,
    refused: BTreeMap<Refusal, usize>,
    exemptions: BTreeMap<compare::Exemption, usize>,
    starved: Vec<String>,
}

impl Search {
    async fn seeds(&mut self) {
        if let Some(minutes) = variable("MINUTES") {
            let minutes: u64 = minutes.parse().unwrap();
            let end = Instant::now() + Duration::from_secs(60 * minutes);
            while Instant::now() < end && self.wrong.len() < ENOUGH {
                self.seed(rand::random::<u64>() >> 16).await;
            }
            return;
        }
        let seeds = variable("SEEDS").map_or(SEEDS, |text| {
            let (first, end) = text.split_once("..").unwrap_or((&text, ""));
            let first: u64 = first.parse().unwrap();
            first..end.parse().unwrap_or(first + 1)
        });
        for seed in seeds {
            if self.wrong.len() >= ENOUGH {
                break;
            }
            self.seed(seed).await;
        }
    }

    async fn seed(&mut self, seed: u64) {
        let script = generate::script(self.make, seed, SHARED);
        if variable("SHOW").is_some() {
            say(&script.to_string());
        }
        self.script(&script, &format!("seed {seed}")).await;
    }

    /// Runs a script; what differs is made short and told.
    async fn script(&mut self, script: &Script, name: &str) {
        let report = run(&mut self.stage, script, STARVED).await;
        self.totals.add(&report, name);
        let Some(difference) = report.difference else {
            return;
        };
        say(&format!(
            "{:?}, {name}: step {}: {}",
            self.make, difference.at, difference.what
        ));
        let (short, difference) = shrink(&mut self.stage, script, &difference).await;
        self.stage.forget(short.connections);
        let anew = match run(&mut self.stage, &short, 1).await.difference {
            Some(_) => "also on a Sidepool that was just started",
            None => "not on a Sidepool that was just started",
        };
        let told = format!(
            "{:?}, {name}, {anew}: {}\n{short}",
            self.make, difference.what
        );
        say(&told);
        self.wrong.push(told);
    }

    /// A dedicated connection that is given one statement more must be noticed.
    async fn blindness(&mut self) {
        for text in BLIND {
            let script: Script = text.parse().unwrap();
            let report = run(&mut self.stage, &script, STARVED).await;
            let seen = report.difference.is_some();
            assert!(seen, "{:?}: nothing was noticed in\n{text}", self.make);
        }
    }

    fn conclude(self) {
        let totals = &self.totals;
        say(&format!(
            "{:?}: {} scripts, {} steps; refused {:?}; exemptions {:?}",
            self.make, totals.scripts, totals.steps, totals.refused, totals.exemptions
        ));
        for what in &totals.starved {
            say(&format!("  refused: {what}"));
        }
        let refused: usize = totals.refused.values().sum();
        let most = totals.steps * REFUSED_PER_MILLE / 1000;
        assert!(
            self.wrong.is_empty(),
            "{} scripts differ:\n\n{}",
            self.wrong.len(),
            self.wrong.join("\n\n")
        );
        assert!(
            refused <= most,
            "{refused} of {} steps were refused:\n{}",
            totals.steps,
            totals.starved.join("\n")
        );
    }
}

impl Totals {
    fn add(&mut self, report: &Report, name: &str) {
        self.scripts += 1;
        self.steps += report.steps;
        for (refusal, count) in &report.refused {
            *self.refused.entry(*refusal).or_default() += count;
        }
        for (exemption, count) in &report.exemptions {
            *self.exemptions.entry(*exemption).or_default() += count;
        }
        let told = report.starved.iter().map(|what| format!("{name}: {what}"));
        self.starved.extend(told);
    }
}

/// The file, or all in that directory.
fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("SIDEPOOL_TEST_EQUIVALENCE_{name}")).ok()
}

#[allow(clippy::print_stdout, reason = "a long run is watched")]
fn say(text: &str) {
    println!("{text}");
}

/// Scripts in which the dedicated connection is given one statement that the other is not.
const BLIND: &[&str] = &[
    "client 45 -\n0 twin SET time_zone = '+11:00'\n0 query SELECT @@time_zone",
    "client 45 -\n0 twin SET div_precision_increment = 9\n0 variables",
    "client 45 -\n0 twin SET sql_mode = 'ANSI'\n0 prepare 1 SELECT \"x\"",
    "client 45 -\n0 twin USE t_eqs\n0 query SELECT * FROM t",
    "client 45 -\n0 twin DO LAST_INSERT_ID(7)\n0 query INSERT INTO t_eq0a.t (b) VALUES (LAST_INSERT_ID())\n\
     0 query SELECT b FROM t_eq0a.t",
    "client 45 - classic\n0 twin SET @a = 5\n0 query SELECT @a",
    "client 45 - track\n0 twin BEGIN\n0 ping",
    "client 45 t_eqs\n0 prepare 1 SELECT ?\n0 twin SET NAMES latin1\n0 execute 1 text:\\xe9",
    "client 8 -\n0 query SET @a = 'x'\n0 twin SET @a = _latin1'x' COLLATE latin1_bin\n0 query SELECT @a, COLLATION(@a)",
    "client 45 -\n0 query SELECT 1/0\n0 twin SELECT a FROM t_eqs.r\n0 query SHOW WARNINGS",
    "connections 1\nclient 45 -\nclient 45 -\n0 query SELECT 1\n1 twin INSERT INTO t_eqs.s (b) VALUES (1)\n\
     1 query INSERT INTO t_eqs.s (b) VALUES (1)",
    "client 45 -\n0 twin CREATE TEMPORARY TABLE t_eq0a.tmp (a INT)\n0 query SELECT * FROM t_eq0a.tmp",
];
