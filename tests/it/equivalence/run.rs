//! Runs a script: each step through Sidepool, and then by a dedicated connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::BytesMut;
use sidepool::protocol::packet::{put_packet, take_lenenc_str};

use super::compare::{Answers, Exemption};
use super::generate::open;
use super::script::{Action, Client, Script, Value};
use super::stage::Stage;
use crate::support::answers::{
    ERR, EXECUTE, FETCH, FIELD_LIST, INIT_DB, Kind, LONG_DATA, PING, PREPARE, Packets, QUERY,
    RESET_CONNECTION, SET_OPTION, STMT_CLOSE, STMT_RESET, kinds, read_answer,
};
use crate::support::servers::PASSWORD;
use crate::support::wire::{DEPRECATE_EOF, Login, ServerError, Wire, parse_err, parse_ok};

/// A prepared statement that no server has.
const UNKNOWN: u32 = 0x7fff_fff0;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// So many refusals one after the other end a script: a connection that is waited for does not come back.
pub(super) const STARVED: usize = 3;

/// What Sidepool may say instead of running a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// 9501: no backend connection within `pool.borrow_timeout`.
    Borrow,
    /// 1235: the connection of the previous statement had been shared already; said once.
    NotKept,
}

/// What came of a script.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) steps: usize,
    pub(super) refused: BTreeMap<Refusal, usize>,
    pub(super) exemptions: BTreeMap<Exemption, usize>,
    /// Each refused step, and who was pinned then.
    pub(super) starved: Vec<String>,
    pub(super) difference: Option<Difference>,
}

#[derive(Debug, Clone)]
pub(super) struct Difference {
    /// The step whose answer differs.
    pub(super) at: usize,
    pub(super) what: String,
}

enum Outcome {
    Same(Vec<Exemption>),
    Refused(Refusal),
    /// Nothing was asked: the client's connections have ended, both of them.
    Nothing,
    Differs(String),
}

/// Runs a script, until so many steps in a row have been refused.
pub(super) async fn run(stage: &mut Stage, script: &Script, refusable: usize) -> Report {
    stage.prepare(script).await;
    let mut report = Report::default();
    let mut seats = Vec::new();
    for (at, client) in script.clients.iter().enumerate() {
        match Seat::take(stage, script, at, client).await {
            Ok(seat) => seats.push(seat),
            Err(what) => {
                report.difference = Some(Difference { at: 0, what });
                return report;
            }
        }
    }
    let mut refusals = 0;
    for (at, step) in script.steps.iter().enumerate() {
        report.steps += 1;
        match seats[step.client].step(stage, script, &step.action).await {
            Outcome::Same(exemptions) => {
                refusals = 0;
                for exemption in exemptions {
                    *report.exemptions.entry(exemption).or_default() += 1;
                }
            }
            Outcome::Nothing => {}
            Outcome::Refused(refusal) => {
                *report.refused.entry(refusal).or_default() += 1;
                refusals += 1;
                let pins = pins(stage, script.connections);
                report
                    .starved
                    .push(format!("step {at}, {refusal:?} {step}: {pins}"));
                if refusals == refusable {
                    break;
                }
            }
            Outcome::Differs(what) => {
                report.difference = Some(Difference { at, what });
                break;
            }
        }
    }
    for seat in seats {
        seat.leave().await;
    }
    report
}

/// Who is pinned, and why.
fn pins(stage: &Stage, connections: usize) -> String {
    let (_, body) = stage.sidepools[&connections]
        .get("/api/v1/clients")
        .unwrap_or_default();
    let clients: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let show = |client: &serde_json::Value| format!("{} {}", client["state"], client["pin_reason"]);
    let clients = clients["clients"].as_array().cloned().unwrap_or_default();
    clients.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// One client: its connection through Sidepool and its dedicated one.
struct Seat {
    at: usize,
    client: Client,
    user: String,
    addresses: [String; 2],
    /// `None` as soon as both have ended.
    wires: Option<[Wire; 2]>,
    statements: BTreeMap<usize, Statement>,
    /// How often it has lost all locks, for names that nobody has used.
    lives: usize,
    run: u64,
    /// Something was refused since the last statement that left diagnostics of its own: what looks back
    /// would look at the refusal.
    unsure: bool,
}

/// A statement that both have prepared.
struct Statement {
    ids: [u32; 2],
    parameters: usize,
    sent: Vec<Value>,
    long: BTreeSet<u16>,
    /// Its last execution has opened a cursor.
    cursor: bool,
}

impl Seat {
    async fn take(
        stage: &Stage,
        script: &Script,
        at: usize,
        client: &Client,
    ) -> Result<Self, String> {
        let mut seat = Self {
            at,
            client: client.clone(),
            user: "app".to_owned(),
            addresses: stage.addresses(script.connections),
            wires: None,
            statements: BTreeMap::new(),
            lives: 0,
            run: stage.runs,
            unsure: false,
        };
        seat.log_in().await?;
        Ok(seat)
    }

    async fn leave(mut self) {
        if let Some(wires) = self.wires.take() {
            quit(wires).await;
        }
    }

    async fn log_in(&mut self) -> Result<(), String> {
        self.forget();
        self.user = "app".to_owned();
        let (with, without) = self.client.capabilities();
        let mut logins = Vec::new();
        for address in &self.addresses {
            let login = Login {
                charset: self.client.charset,
                database: self.client.database.as_deref(),
                with,
                without,
                ..Login::to(address)
            };
            logins.push(Wire::connect(&login).await);
        }
        let [mut through, mut direct] = pair(logins).map_err(|what| format!("login: {what}"))?;
        for wire in [&mut through, &mut direct] {
            // MariaDB's first error count is now and then another connection's.
            let sql = b"DO (SELECT COUNT(*) FROM (SELECT 1) AS t)";
            wire.query_bytes(sql).await;
        }
        self.wires = Some([through, direct]);
        Ok(())
    }

    /// Statements and locks are gone.
    fn forget(&mut self) {
        self.statements.clear();
        self.lives += 1;
    }

    async fn step(&mut self, stage: &Stage, script: &Script, action: &Action) -> Outcome {
        match action {
            Action::Reconnect => {
                if let Some(wires) = self.wires.take() {
                    quit(wires).await;
                }
                self.addresses = stage.addresses(script.connections);
                self.log_in()
                    .await
                    .map_or_else(Outcome::Differs, |()| Outcome::Same(Vec::new()))
            }
            Action::ChangeUser(user) => self.change_user(user).await,
            Action::Twin(sql) => {
                if let Some([_, direct]) = &mut self.wires {
                    let _ = exchange(direct, QUERY, sql).await;
                }
                Outcome::Same(Vec::new())
            }
            _ if self.unsure && looks_back(action) => Outcome::Nothing,
            Action::LongData(slot, at, _) if self.is_typed(*slot, *at) => Outcome::Nothing,
            // Known: where the statement is run on another connection, the error of it is lost.
            Action::LongData(slot, at, _) if self.lacks_parameter(*slot, *at) && !open() => {
                Outcome::Nothing
            }
            // A limit: that there is no cursor is what Sidepool says itself, in UTF-8, and no server keeps it.
            Action::Fetch(slot, _) if self.lacks_cursor(*slot) && !open() => Outcome::Nothing,
            // Known: such an execution loses LAST_INSERT_ID().
            Action::Execute { slot, .. } if !self.statements.contains_key(slot) && !open() => {
                Outcome::Nothing
            }
            _ => self.ask(stage, action).await,
        }
    }

    /// Whether a parameter has had a value that was no BLOB. Long data for it then make MariaDB show
    /// memory that it never wrote.
    fn is_typed(&self, slot: usize, at: u16) -> bool {
        let sent = self.statements.get(&slot).map(|statement| &statement.sent);
        sent.and_then(|sent| sent.get(usize::from(at)))
            .is_some_and(|value| !matches!(value, Value::Blob(_)))
    }

    /// Whether there is such a statement, but no such parameter.
    fn lacks_parameter(&self, slot: usize, at: u16) -> bool {
        let statement = self.statements.get(&slot);
        statement.is_some_and(|statement| statement.parameters <= usize::from(at))
    }

    /// Whether there is such a statement, but nothing to fetch from it.
    fn lacks_cursor(&self, slot: usize) -> bool {
        let statement = self.statements.get(&slot);
        statement.is_some_and(|statement| !statement.cursor)
    }

    async fn change_user(&mut self, user: &str) -> Outcome {
        let Some(wires) = &mut self.wires else {
            return Outcome::Nothing;
        };
        let mut said = Vec::new();
        for wire in wires {
            let answer = wire.change_user(user, PASSWORD).await;
            if let Some(refusal) = answer.as_ref().err().and_then(refusal) {
                // Whatever has become of the session.
                self.wires = None;
                return Outcome::Refused(refusal);
            }
            said.push(answer);
        }
        if said[0] != said[1] {
            return Outcome::Differs(format!(
                "COM_CHANGE_USER\n    through {:?}\n    direct  {:?}",
                said[0], said[1]
            ));
        }
        user.clone_into(&mut self.user);
        self.forget();
        Outcome::Same(Vec::new())
    }

    /// Sends a command to Sidepool and, unless that refused, to the server, and compares.
    async fn ask(&mut self, stage: &Stage, action: &Action) -> Outcome {
        let (command, payloads) = self.command(action);
        let Some([through_wire, direct_wire]) = &mut self.wires else {
            return Outcome::Nothing;
        };
        let classic = !direct_wire.has(DEPRECATE_EOF);
        let through = exchange(through_wire, command, &payloads[0]).await;
        if let Some(refusal) = through.as_ref().ok().and_then(refused) {
            self.unsure = true;
            return Outcome::Refused(refusal);
        }
        let direct = exchange(direct_wire, command, &payloads[1]).await;
        let (mut through, mut direct) = match (through, direct) {
            (Ok(through), Ok(direct)) => (through, direct),
            (Err(_), Err(_)) => {
                self.wires = None;
                return Outcome::Same(Vec::new());
            }
            (through, direct) => {
                let show = |answer: Result<Packets, String>| match answer {
                    Ok(packets) => format!("{} packets", packets.len()),
                    Err(error) => error,
                };
                let (through, direct) = (show(through), show(direct));
                return Outcome::Differs(format!("\n    through {through}\n    direct  {direct}"));
            }
        };
        self.note(action, &through, &direct, classic);
        if *action == Action::Variables {
            keep_session_variables(&mut through, &stage.apart);
            keep_session_variables(&mut direct, &stage.apart);
        }
        let answers = Answers {
            make: stage.make,
            command,
            classic,
            call: calls(action),
            through,
            direct,
        };
        match answers.compare(&stage.collations) {
            Ok(exemptions) => Outcome::Same(exemptions),
            Err(what) => Outcome::Differs(what),
        }
    }

    /// The command and what each connection is sent with it.
    fn command(&mut self, action: &Action) -> (u8, [Vec<u8>; 2]) {
        let same = |payload: &[u8]| [payload.to_vec(), payload.to_vec()];
        match action {
            Action::Query(sql) => (QUERY, same(&self.locks(sql))),
            Action::Variables => (QUERY, same(b"SHOW SESSION VARIABLES")),
            Action::InitDb(name) => (INIT_DB, same(name)),
            Action::FieldList(table) => (FIELD_LIST, same(&[table, &b"\0"[..]].concat())),
            Action::Ping => (PING, same(b"")),
            Action::SetOption(option) => (SET_OPTION, same(&[*option, 0])),
            Action::Reset => (RESET_CONNECTION, same(b"")),
            Action::Prepare(_, sql) => (PREPARE, same(&self.locks(sql))),
            Action::Execute {
                slot,
                cursor,
                bound,
                values,
            } => (EXECUTE, self.execute(*slot, *cursor, *bound, values)),
            Action::LongData(slot, at, data) => {
                if let Some(statement) = self.statements.get_mut(slot) {
                    statement.long.insert(*at);
                }
                (
                    LONG_DATA,
                    self.on(*slot, &[&at.to_le_bytes()[..], data].concat()),
                )
            }
            Action::Fetch(slot, rows) => (FETCH, self.on(*slot, &rows.to_le_bytes())),
            Action::ResetStatement(slot) => (STMT_RESET, self.on(*slot, b"")),
            Action::Close(slot) => (STMT_CLOSE, self.on(*slot, b"")),
            Action::Twin(_) | Action::Reconnect | Action::ChangeUser(_) => unreachable!(),
        }
    }

    /// A command about a statement: its number on each side, and then `rest`.
    fn on(&self, slot: usize, rest: &[u8]) -> [Vec<u8>; 2] {
        let statement = self.statements.get(&slot);
        let ids = statement.map_or([UNKNOWN; 2], |statement| statement.ids);
        ids.map(|id| [&id.to_le_bytes()[..], rest].concat())
    }

    fn execute(
        &mut self,
        slot: usize,
        cursor: bool,
        bound: bool,
        values: &[Value],
    ) -> [Vec<u8>; 2] {
        let mut rest = vec![u8::from(cursor), 1, 0, 0, 0];
        let Some(statement) = self.statements.get_mut(&slot) else {
            return self.on(slot, &rest);
        };
        let count = statement.parameters;
        // What was bound is what counts; without values, NULL is.
        // Long data is a BLOB's.
        let bound = bound || statement.sent.len() != count || !statement.long.is_empty();
        if bound {
            let values = values.iter().chain(std::iter::repeat(&Value::Null));
            statement.sent = values.take(count).cloned().collect();
            for at in &statement.long {
                if let Some(value) = statement.sent.get_mut(usize::from(*at)) {
                    *value = Value::Blob(b"no longer long".to_vec());
                }
            }
        }
        if count > 0 {
            let mut nulls = vec![0u8; count.div_ceil(8)];
            let mut types = Vec::new();
            let mut data = Vec::new();
            for (at, value) in statement.sent.iter().enumerate() {
                let long = u16::try_from(at).is_ok_and(|at| statement.long.contains(&at));
                types.extend(value.type_code());
                if long {
                    continue;
                }
                if *value == Value::Null {
                    nulls[at / 8] |= 1 << (at % 8);
                }
                value.encode(&mut data);
            }
            rest.extend(nulls);
            rest.push(u8::from(bound));
            if bound {
                rest.extend(types);
            }
            rest.extend(data);
        }
        statement.long.clear();
        self.on(slot, &rest)
    }

    fn locks(&self, sql: &[u8]) -> Vec<u8> {
        let Some(at) = sql.windows(2).position(|part| part == b"$L") else {
            return sql.to_vec();
        };
        let name = format!("eq{:06}_{}_{:03}", self.run, self.at, self.lives);
        let rest = self.locks(&sql[at + 2..]);
        [&sql[..at], name.as_bytes(), &rest].concat()
    }

    /// Remembers what a command has changed that later ones refer to.
    fn note(&mut self, action: &Action, through: &Packets, direct: &Packets, classic: bool) {
        let failed = through.iter().chain(direct).any(|(_, p)| p[0] == ERR);
        match action {
            Action::Prepare(slot, _) => {
                self.statements.remove(slot);
                if !failed {
                    let (one, other) = (&through[0].1, &direct[0].1);
                    let id = |ok: &[u8]| u32::from_le_bytes([ok[1], ok[2], ok[3], ok[4]]);
                    self.statements.insert(
                        *slot,
                        Statement {
                            ids: [id(one), id(other)],
                            parameters: usize::from(u16::from_le_bytes([other[7], other[8]])),
                            sent: Vec::new(),
                            long: BTreeSet::new(),
                            cursor: false,
                        },
                    );
                }
            }
            Action::Close(slot) => drop(self.statements.remove(slot)),
            Action::ResetStatement(slot) => {
                if let Some(statement) = self.statements.get_mut(slot) {
                    statement.long.clear();
                    statement.cursor = false;
                }
            }
            Action::Reset if !failed => self.forget(),
            Action::Execute { slot, .. } => {
                if let Some(statement) = self.statements.get_mut(slot) {
                    statement.cursor = opens_cursor(direct, classic);
                }
            }
            // Known: MariaDB keeps what was saved in another charset.
            Action::Query(sql) if !open() && changes_charset(sql) => self.unsure = true,
            // It used a table, so it left diagnostics of its own.
            Action::Query(sql) if sql.windows(6).any(|part| part == b" FROM ") => {
                self.unsure = false;
            }
            _ => {}
        }
    }
}

async fn quit(wires: [Wire; 2]) {
    for mut wire in wires {
        let _ = exchange(&mut wire, 1, b"").await;
    }
}

/// Both, if both logged in.
fn pair(logins: Vec<Result<Wire, ServerError>>) -> Result<[Wire; 2], String> {
    let mut wires = Vec::new();
    let mut said = Vec::new();
    for login in logins {
        said.push(login.as_ref().err().map(|error| format!("{error:?}")));
        wires.extend(login.ok());
    }
    match <[Wire; 2]>::try_from(wires) {
        Ok(wires) => Ok(wires),
        Err(_) => Err(format!("through {:?}, direct {:?}", said[0], said[1])),
    }
}

async fn exchange(wire: &mut Wire, command: u8, payload: &[u8]) -> Result<Packets, String> {
    let mut out = BytesMut::new();
    put_packet(&mut out, 0, &[&[command], payload].concat());
    if let Err(error) = wire.send_raw(&out).await {
        return Err(error.to_string());
    }
    match tokio::time::timeout(PATIENCE, read_answer(wire, command)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer came".to_owned()),
    }
}

/// Whether an execution has left its rows to be fetched: its definitions end with the flag of a cursor.
fn opens_cursor(packets: &Packets, classic: bool) -> bool {
    const CURSOR_EXISTS: u16 = 0x40;
    let kinds = kinds(packets, EXECUTE, classic);
    let Some(((_, end), Kind::FirstEof | Kind::End)) = packets.last().zip(kinds.last()) else {
        return false;
    };
    let status = match end.len() {
        5 => u16::from_le_bytes([end[3], end[4]]),
        _ => parse_ok(end).status,
    };
    status & CURSOR_EXISTS != 0
}

fn refused(packets: &Packets) -> Option<Refusal> {
    let (_, last) = packets.last().filter(|(_, last)| last[0] == ERR)?;
    refusal(&parse_err(last))
}

fn refusal(error: &ServerError) -> Option<Refusal> {
    match error.code {
        9501 => Some(Refusal::Borrow),
        1235 if error.message.starts_with("Sidepool had already shared") => Some(Refusal::NotKept),
        _ => None,
    }
}

fn calls(action: &Action) -> bool {
    match action {
        Action::Query(sql) => sql.windows(5).any(|part| part == b"CALL "),
        Action::Execute { .. } => true,
        _ => false,
    }
}

fn changes_charset(sql: &[u8]) -> bool {
    let sql = String::from_utf8_lossy(sql).to_uppercase();
    ["NAMES", "CHARACTER", "COLLATION"]
        .iter()
        .any(|word| sql.contains("SET") && sql.contains(word))
}

/// Whether a step asks about the previous statement.
fn looks_back(action: &Action) -> bool {
    const WORDS: [&str; 7] = [
        "WARNINGS",
        "ERRORS",
        "DIAGNOSTICS",
        "_COUNT",
        "FOUND_ROWS",
        "P_HANDLED",
        "P_PREP",
    ];
    match action {
        Action::Query(sql) | Action::Prepare(_, sql) => {
            let sql = String::from_utf8_lossy(sql).to_uppercase();
            WORDS.iter().any(|word| sql.contains(word))
        }
        Action::Execute { .. } => true,
        _ => false,
    }
}

/// Leaves out the variables that tell two servers or connections apart.
fn keep_session_variables(packets: &mut Packets, apart: &BTreeSet<Vec<u8>>) {
    packets.retain(|(_, payload)| {
        let mut rest = &payload[..];
        take_lenenc_str(&mut rest).is_none_or(|name| !apart.contains(name))
    });
    // What is left is counted anew.
    for (at, (seq, _)) in packets.iter_mut().enumerate() {
        *seq = u8::try_from(at % 256).expect("small");
    }
}
