//! What a script is run on: two servers of one make with the same contents, and Sidepool in front of
//! one of them.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::Collations;
use super::script::{Action, Script};
use crate::support::clients::{account, root};
use crate::support::servers::{Make, Server, fast_dir};
use crate::support::sidepool::Sidepool;
use crate::support::wire::{Reply, Wire};

/// The most clients that a script has.
pub(super) const CLIENTS: usize = 4;
/// The other account, which `COM_CHANGE_USER` goes to.
pub(super) const OTHER_USER: &str = "eq2";

/// How long a client waits for a backend connection. A script asks for no more than there are, so that
/// waiting this long means that somebody holds one who should not.
const BORROW_TIMEOUT: &str = "1s";

/// Two servers as alike as can be, so that nothing but Sidepool is between two answers.
pub(super) struct Stage {
    pub(super) make: Make,
    shared: Server,
    dedicated: Server,
    roots: [Wire; 2],
    pub(super) sidepools: BTreeMap<usize, Sidepool>,
    pub(super) collations: Collations,
    /// Variables that tell the two servers apart, or any two connections.
    pub(super) apart: BTreeSet<Vec<u8>>,
    /// How many scripts have begun here.
    pub(super) runs: u64,
    /// Clients whose own databases are no longer as they were made.
    altered: Vec<usize>,
}

impl Stage {
    pub(super) async fn new(make: Make) -> Self {
        let start =
            || std::thread::spawn(move || Server::start_in(&fast_dir(), make, options(make)));
        let servers = [start(), start()];
        let [shared, dedicated] = servers.map(|server| server.join().unwrap());
        let mut roots = [root(&shared).await, root(&dedicated).await];
        account(&shared, OTHER_USER);
        account(&dedicated, OTHER_USER);
        for wire in &mut roots {
            for sql in SHARED {
                wire.run(sql).await;
            }
            let grant = match make {
                Make::MariaDb => "GRANT eq_r TO 'app'@'%'",
                Make::MySql => "GRANT 'eq_r'@'%' TO 'app'@'%'",
            };
            wire.run(grant).await;
            for client in 0..CLIENTS {
                create(wire, client).await;
            }
        }
        let collations = collations(&mut roots[0]).await;
        let apart = apart(&mut roots).await;
        Self {
            make,
            shared,
            dedicated,
            roots,
            apart,
            sidepools: BTreeMap::new(),
            collations,
            runs: 0,
            altered: Vec::new(),
        }
    }

    /// Makes everything as it was before any script, and sees to it that there is a Sidepool with as
    /// many connections.
    pub(super) async fn prepare(&mut self, script: &Script) {
        self.runs += 1;
        let altered = std::mem::take(&mut self.altered);
        let [one, other] = &mut self.roots;
        tokio::join!(renew(one, &altered), renew(other, &altered));
        self.altered = (0..script.clients.len())
            .filter(|&client| alters(script, client))
            .collect();
        if !self.sidepools.contains_key(&script.connections) {
            let sidepool = self.launch(script.connections);
            self.sidepools.insert(script.connections, sidepool);
        }
    }

    /// Ends that Sidepool, so that the next script begins with a new one.
    pub(super) fn forget(&mut self, connections: usize) {
        self.sidepools.remove(&connections);
    }

    /// Where to log in: through Sidepool, and to the server itself.
    pub(super) fn addresses(&self, connections: usize) -> [String; 2] {
        [
            self.sidepools[&connections].address(),
            self.dedicated.address(),
        ]
    }

    fn launch(&self, connections: usize) -> Sidepool {
        let connections = connections.to_string();
        let settings = [
            ("SIDEPOOL_POOL__MAX_CONNECTIONS", connections.as_str()),
            ("SIDEPOOL_POOL__BORROW_TIMEOUT", BORROW_TIMEOUT),
            ("SIDEPOOL_LOG__LEVEL", "info"),
        ];
        Sidepool::start(&self.shared, &settings)
    }
}

/// Durability costs time, and nobody here needs it.
fn options(make: Make) -> &'static [&'static str] {
    match make {
        Make::MariaDb => &["--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve"],
        Make::MySql => &[
            "--innodb-flush-log-at-trx-commit=0",
            "--sync-binlog=0",
            "--innodb-doublewrite=OFF",
            "--log-bin-trust-function-creators=1",
        ],
    }
}

/// Whether a client's steps may leave its databases other than empty tables would.
fn alters(script: &Script, client: usize) -> bool {
    const WORDS: [&str; 5] = ["CREATE", "DROP", "ALTER", "RENAME", "TRUNCATE"];
    let mut own = script.steps.iter().filter(|step| step.client == client);
    own.any(|step| match &step.action {
        Action::Query(sql) | Action::Prepare(_, sql) => {
            let sql = String::from_utf8_lossy(sql).to_uppercase();
            WORDS.iter().any(|word| sql.contains(word))
        }
        _ => false,
    })
}

async fn renew(root: &mut Wire, altered: &[usize]) {
    for client in 0..CLIENTS {
        if altered.contains(&client) {
            create(root, client).await;
        } else {
            fill(root, client).await;
        }
    }
    root.run("TRUNCATE t_eqs.s").await;
}

/// Makes a client's own databases anew.
async fn create(root: &mut Wire, client: usize) {
    // MySQL keeps from one statement to the next that another engine was used, and warns of InnoDB then.
    let other = if root.server_version.contains("MariaDB") {
        "MyISAM"
    } else {
        "InnoDB"
    };
    let columns = "(a INT AUTO_INCREMENT PRIMARY KEY, b INT NOT NULL DEFAULT 5, c VARCHAR(40))";
    for (letter, charset, engine) in [
        ("a", "utf8mb4", "InnoDB"),
        ("b", "latin1", other),
        ("g", "utf8mb3", ""),
    ] {
        let name = format!("t_eq{client}{letter}");
        root.run(&format!("DROP DATABASE IF EXISTS {name}")).await;
        root.run(&format!("CREATE DATABASE {name} CHARACTER SET {charset}"))
            .await;
        if !engine.is_empty() {
            root.run(&format!(
                "CREATE TABLE {name}.t {columns} ENGINE = {engine}"
            ))
            .await;
        }
    }
    fill(root, client).await;
}

async fn fill(root: &mut Wire, client: usize) {
    for letter in ["a", "b"] {
        let table = format!("t_eq{client}{letter}.t");
        root.run(&format!("TRUNCATE {table}")).await;
        root.run(&format!(
            "INSERT INTO {table} VALUES (1, 10, '{letter}'), (2, 20, 'x y'), (3, 30, NULL)"
        ))
        .await;
    }
}

/// The variables that are not the same on both servers, and those that differ by themselves.
async fn apart(roots: &mut [Wire; 2]) -> BTreeSet<Vec<u8>> {
    const ALWAYS: &[&str] = &[
        "timestamp",
        "pseudo_thread_id",
        "rand_seed1",
        "rand_seed2",
        "statement_id",
        "gtid_binlog_pos",
        "gtid_current_pos",
        "gtid_executed",
        // Known: see OPEN in generate.rs.
        "character_set_database",
        "collation_database",
        "identity",
        "last_insert_id",
    ];
    let mut values = Vec::new();
    for wire in roots {
        let rows = wire.query("SHOW GLOBAL VARIABLES").await.rows();
        values.push(rows.into_iter().collect::<BTreeSet<_>>());
    }
    let differ = values[0].symmetric_difference(&values[1]);
    let names = differ.map(|row| row[0].clone().expect("a name"));
    names
        .chain(ALWAYS.iter().map(|name| name.as_bytes().to_vec()))
        .collect()
}

async fn collations(root: &mut Wire) -> Collations {
    let sql = "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY";
    let sql = match root.query(&format!("{sql} WHERE ID > 0 LIMIT 1")).await {
        Reply::Rows { .. } => format!("{sql} WHERE ID > 0"),
        // MySQL's has no numbers.
        _ => "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS".to_owned(),
    };
    let rows = root.query(&sql).await.rows();
    let text = |cell: &Option<Vec<u8>>| String::from_utf8(cell.clone().unwrap()).unwrap();
    rows.iter()
        .map(|row| (text(&row[0]).parse().unwrap(), text(&row[1])))
        .collect()
}

/// What all clients share: what they only read, a table that all write without transactions, and
/// routines.
const SHARED: &[&str] = &[
    "CREATE DATABASE t_eqs CHARACTER SET utf8mb4",
    "CREATE TABLE t_eqs.r (a INT PRIMARY KEY, b INT, c VARCHAR(20), KEY (b))",
    "INSERT INTO t_eqs.r VALUES (1, 100, 'one'), (2, 200, 'Two'), (3, 300, NULL)",
    "CREATE VIEW t_eqs.t AS SELECT a, MAX(b) AS b, 'shared' AS c FROM t_eqs.r GROUP BY a",
    "CREATE TABLE t_eqs.s (a INT AUTO_INCREMENT PRIMARY KEY, b INT)",
    "CREATE VIEW t_eqs.v AS SELECT a, b FROM t_eqs.r WHERE b > 100",
    "CREATE VIEW t_eqs.v_last AS SELECT LAST_INSERT_ID() AS l",
    "CREATE FUNCTION t_eqs.f_zone() RETURNS INT DETERMINISTIC BEGIN \
     SET SESSION time_zone = '+05:00'; SET SESSION sql_select_limit = 9; RETURN 1; END",
    "CREATE FUNCTION t_eqs.f_fail() RETURNS INT DETERMINISTIC BEGIN \
     SET SESSION lc_time_names = 'es_ES'; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; RETURN 1; END",
    "CREATE FUNCTION t_eqs.f_last() RETURNS BIGINT NOT DETERMINISTIC READS SQL DATA RETURN LAST_INSERT_ID()",
    "CREATE FUNCTION t_eqs.f_ins(x INT) RETURNS BIGINT NOT DETERMINISTIC MODIFIES SQL DATA BEGIN \
     INSERT INTO t_eqs.s (b) VALUES (x); RETURN LAST_INSERT_ID(); END",
    "CREATE PROCEDURE t_eqs.p_var(x INT) BEGIN SET @p = x; SET @a = CONCAT(@a, x); \
     SET SESSION time_zone = '+04:00'; END",
    "CREATE PROCEDURE t_eqs.p_fail() BEGIN SET @p = 'before'; SET SESSION time_zone = '-04:00'; \
     SET SESSION sql_mode = 'ANSI'; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no', MYSQL_ERRNO = 5555; END",
    "CREATE PROCEDURE t_eqs.p_rows(n INT) BEGIN SELECT n AS n, DATABASE() AS d; \
     SELECT * FROM t_eqs.r ORDER BY a; SELECT 1 / 0; END",
    "CREATE PROCEDURE t_eqs.p_half() BEGIN SELECT 1 AS one; SET SESSION div_precision_increment = 7; \
     SELECT nonsense FROM t_eqs.r; END",
    "CREATE PROCEDURE t_eqs.p_ins(x INT) BEGIN INSERT INTO t_eqs.s (b) VALUES (x), (x); END",
    "CREATE PROCEDURE t_eqs.p_out(x VARCHAR(30), OUT y VARCHAR(60), INOUT z VARCHAR(99)) BEGIN \
     SET y = CONCAT(x, x); SET z = CONCAT(z, '-', x); END",
    "CREATE PROCEDURE t_eqs.p_tmp() BEGIN DROP TEMPORARY TABLE IF EXISTS t_eqs.made; \
     CREATE TEMPORARY TABLE t_eqs.made AS SELECT 1 AS a; SELECT * FROM t_eqs.made; END",
    "CREATE PROCEDURE t_eqs.p_prep() BEGIN SET @sql = 'SELECT 1 + ? AS s'; SET @x = 4; \
     PREPARE inside FROM @sql; EXECUTE inside USING @x; END",
    "CREATE PROCEDURE t_eqs.p_handled() BEGIN DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN \
     GET DIAGNOSTICS CONDITION 1 @errno = MYSQL_ERRNO, @text = MESSAGE_TEXT; END; \
     INSERT INTO t_eqs.r VALUES (1, 1, 'again'); SELECT @errno, @text; END",
    "CREATE PROCEDURE t_eqs.p_warn() BEGIN SIGNAL SQLSTATE '01000' SET MESSAGE_TEXT = 'careful', MYSQL_ERRNO = 1234; END",
    "CREATE DATABASE x_eqsec",
    "CREATE TABLE x_eqsec.t (a INT)",
    "INSERT INTO x_eqsec.t VALUES (42)",
    "CREATE ROLE eq_r",
    "GRANT SELECT ON x_eqsec.* TO eq_r",
];
