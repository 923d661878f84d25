//! The same client twice, directly at the server and through Sidepool, and every packet of both.

use std::time::Duration;

use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{DEPRECATE_EOF, Digest, Login, ServerError, Wire, parse_err};

/// The framings that clients negotiate, as capabilities left out.
pub(super) const FRAMINGS: [u32; 2] = [0, DEPRECATE_EOF];

/// Commands by their byte.
pub(super) const INIT_DB: u8 = 2;
pub(super) const QUERY: u8 = 3;
pub(super) const FIELD_LIST: u8 = 4;
pub(super) const PROCESS_INFO: u8 = 10;
pub(super) const PROCESS_KILL: u8 = 12;
pub(super) const PING: u8 = 14;
pub(super) const PREPARE: u8 = 22;
pub(super) const EXECUTE: u8 = 23;
pub(super) const LONG_DATA: u8 = 24;
pub(super) const STMT_CLOSE: u8 = 25;
pub(super) const STMT_RESET: u8 = 26;
pub(super) const SET_OPTION: u8 = 27;
pub(super) const FETCH: u8 = 28;
pub(super) const RESET_CONNECTION: u8 = 31;

/// How long an answer may keep silent.
const PATIENCE: Duration = Duration::from_secs(60);

const OK: u8 = 0;
const LOCAL_INFILE: u8 = 0xfb;
const EOF: u8 = 0xfe;
const ERR: u8 = 0xff;
const MORE_RESULTS: u16 = 8;
const CURSOR_EXISTS: u16 = 0x40;
const OUT_PARAMETERS: u16 = 0x1000;
/// Status flags that hold from one statement to the next. In the EOF behind column definitions, which
/// Sidepool writes before the result's own flags are known, only these must be the server's.
const LASTING: u16 = 0x0001 | 0x0002 | 0x0100 | 0x0200 | 0x2000 | 0x8000;

/// The packets of an answer: last sequence id and payload of each.
pub(super) type Packets = Vec<(u8, Vec<u8>)>;

/// Two connections that are asked the same.
pub(super) struct Pair {
    pub(super) direct: Wire,
    pub(super) through: Wire,
}

/// A statement prepared on both connections.
pub(super) struct Statement {
    ids: [[u8; 4]; 2],
}

impl Pair {
    /// Logs in to `database` with these capabilities more and less than usual.
    pub(super) async fn connect(
        server: &Server,
        sidepool: &Sidepool,
        database: &str,
        (with, without): (u32, u32),
    ) -> Self {
        let usual = Login {
            database: Some(database),
            with,
            without,
            ..Login::to("")
        };
        Self::log_in(server, sidepool, &usual).await
    }

    /// Logs in as `login` says, whatever its address.
    pub(super) async fn log_in(server: &Server, sidepool: &Sidepool, login: &Login<'_>) -> Self {
        let (direct, through) = (server.address(), sidepool.address());
        let to = async |address: &str| {
            let login = Login {
                address,
                ..login.clone()
            };
            Wire::connect(&login).await.unwrap()
        };
        Self {
            direct: to(&direct).await,
            through: to(&through).await,
        }
    }

    /// Asks both for the same command; the answers must be the same, byte for byte.
    pub(super) async fn same(&mut self, command: u8, payload: &[u8]) -> Packets {
        self.both(command, [payload, payload]).await
    }

    /// The same for a statement.
    pub(super) async fn query(&mut self, sql: &str) -> Packets {
        self.same(QUERY, sql.as_bytes()).await
    }

    /// A statement whose answer is the same and no error.
    pub(super) async fn run(&mut self, sql: &str) -> Packets {
        let packets = self.query(sql).await;
        assert!(error(&packets).is_none(), "{sql}: {:?}", error(&packets));
        packets
    }

    /// Prepares a statement on both. Ids differ; all else is the same.
    pub(super) async fn prepare(&mut self, sql: &str) -> Statement {
        let mut ids = [[0; 4]; 2];
        let mut answers = [&mut self.direct, &mut self.through].into_iter();
        let mut seen = Vec::new();
        for id in &mut ids {
            let wire = answers.next().unwrap();
            wire.command(PREPARE, sql.as_bytes()).await;
            let mut packets = read_answer(wire, PREPARE).await;
            assert!(error(&packets).is_none(), "{sql}: {:?}", error(&packets));
            id.copy_from_slice(&packets[0].1[1..5]);
            packets[0].1[1..5].fill(0);
            seen.push(packets);
        }
        compare(&seen[0], &seen[1], sql);
        Statement { ids }
    }

    /// A command about a statement: its id, and then `rest`.
    pub(super) async fn on(&mut self, statement: &Statement, command: u8, rest: &[u8]) -> Packets {
        let [direct, through] = statement.ids.map(|id| [&id[..], rest].concat());
        self.both(command, [&direct, &through]).await
    }

    /// Executes a statement without parameters.
    pub(super) async fn execute(&mut self, statement: &Statement) -> Packets {
        self.on(statement, EXECUTE, &[0, 1, 0, 0, 0]).await
    }

    /// Digests of what both answer to a statement whose result is too large to be kept.
    pub(super) async fn digests(&mut self, sql: &str) -> [Digest; 2] {
        self.direct.command(QUERY, sql.as_bytes()).await;
        self.through.command(QUERY, sql.as_bytes()).await;
        [
            self.direct.read_digest().await,
            self.through.read_digest().await,
        ]
    }

    /// The same of a prepared one without parameters.
    pub(super) async fn digests_of(&mut self, statement: &Statement) -> [Digest; 2] {
        let [direct, through] = statement.ids.map(|id| [&id[..], &[0, 1, 0, 0, 0]].concat());
        self.direct.command(EXECUTE, &direct).await;
        self.through.command(EXECUTE, &through).await;
        [
            self.direct.read_digest().await,
            self.through.read_digest().await,
        ]
    }

    /// Reads what both have answered since; for answers that were provoked by hand.
    pub(super) async fn answers(&mut self, command: u8) -> Packets {
        let mut direct = read_answer(&mut self.direct, command).await;
        let mut through = read_answer(&mut self.through, command).await;
        let classic = !self.direct.has(DEPRECATE_EOF);
        for packets in [&mut direct, &mut through] {
            mask(packets, command, classic);
        }
        compare(&direct, &through, &format!("command {command}"));
        direct
    }

    async fn both(&mut self, command: u8, payloads: [&[u8]; 2]) -> Packets {
        let mut seen = Vec::new();
        let classic = !self.direct.has(DEPRECATE_EOF);
        for (wire, payload) in [&mut self.direct, &mut self.through]
            .into_iter()
            .zip(payloads)
        {
            wire.command(command, payload).await;
            let mut packets = read_answer(wire, command).await;
            mask(&mut packets, command, classic);
            seen.push(packets);
        }
        let shown = String::from_utf8_lossy(&payloads[0][..payloads[0].len().min(200)]);
        compare(&seen[0], &seen[1], &format!("command {command}, {shown}"));
        seen.swap_remove(0)
    }
}

/// The error that ends an answer.
pub(super) fn error(packets: &Packets) -> Option<ServerError> {
    let (_, last) = packets.last()?;
    (last.first() == Some(&ERR)).then(|| parse_err(last))
}

/// How many packets are rows, in an answer of result sets.
pub(super) fn rows(packets: &Packets, classic: bool) -> usize {
    let columns = column_count(&packets[0].1);
    packets.len() - 1 - columns - if classic { 2 } else { 1 }
}

/// Reads the whole answer to a command.
pub(super) async fn read_answer(wire: &mut Wire, command: u8) -> Packets {
    let mut packets = Packets::new();
    match command {
        LONG_DATA | STMT_CLOSE => {}
        QUERY | EXECUTE | PROCESS_INFO => while read_result(wire, &mut packets).await {},
        FIELD_LIST | FETCH => loop {
            let packet = read_into(wire, &mut packets).await;
            if is_end(wire, &packet) {
                break;
            }
        },
        PREPARE => read_prepared(wire, &mut packets).await,
        _ => drop(read_into(wire, &mut packets).await),
    }
    packets
}

async fn read_into(wire: &mut Wire, packets: &mut Packets) -> Vec<u8> {
    let packet = tokio::time::timeout(PATIENCE, wire.read_packet()).await;
    let packet = packet
        .unwrap_or_else(|_| panic!("nothing came behind {} packets", packets.len()))
        .unwrap_or_else(|error| panic!("{error} behind {} packets", packets.len()));
    packets.push(packet.clone());
    packet.1
}

async fn read_prepared(wire: &mut Wire, packets: &mut Packets) {
    let ok = read_into(wire, packets).await;
    if ok[0] == ERR {
        return;
    }
    for count in [&ok[7..9], &ok[5..7]] {
        let count = usize::from(u16::from_le_bytes([count[0], count[1]]));
        let eof = usize::from(count > 0 && !wire.has(DEPRECATE_EOF));
        for _ in 0..count + eof {
            read_into(wire, packets).await;
        }
    }
}

/// Reads one result; whether another follows. A request for a file is the end of what can be read.
async fn read_result(wire: &mut Wire, packets: &mut Packets) -> bool {
    let first = read_into(wire, packets).await;
    match first[0] {
        ERR | LOCAL_INFILE => return false,
        OK => return status_of_ok(&first) & MORE_RESULTS != 0,
        _ => {}
    }
    for _ in 0..column_count(&first) {
        read_into(wire, packets).await;
    }
    // What is said of OUT parameters in front of them also holds behind them.
    let mut earlier = 0;
    if !wire.has(DEPRECATE_EOF) {
        let eof = read_into(wire, packets).await;
        assert_eq!((eof[0], eof.len()), (EOF, 5), "EOF behind the columns");
        let status = u16::from_le_bytes([eof[3], eof[4]]);
        if status & CURSOR_EXISTS != 0 {
            return false;
        }
        if status & OUT_PARAMETERS != 0 {
            earlier = status;
        }
    }
    loop {
        let packet = read_into(wire, packets).await;
        if packet[0] == ERR {
            return false;
        }
        if is_end(wire, &packet) {
            let status = match wire.has(DEPRECATE_EOF) {
                true => status_of_ok(&packet),
                false => u16::from_le_bytes([packet[3], packet[4]]),
            };
            return (status | earlier) & MORE_RESULTS != 0;
        }
    }
}

fn is_end(wire: &Wire, payload: &[u8]) -> bool {
    let short = if wire.has(DEPRECATE_EOF) {
        0xff_ffff
    } else {
        9
    };
    payload[0] == ERR || payload[0] == EOF && payload.len() < short
}

fn column_count(payload: &[u8]) -> usize {
    match payload[0] {
        0xfc => usize::from(u16::from_le_bytes([payload[1], payload[2]])),
        small => usize::from(small),
    }
}

fn status_of_ok(payload: &[u8]) -> u16 {
    crate::support::wire::parse_ok(payload).status
}

/// Takes out what may differ: the number of a prepared statement in the text of an error, and, in classic framing, the flags and warnings of an EOF behind column
/// definitions that speak of the result alone.
fn mask(packets: &mut Packets, command: u8, classic: bool) {
    for (_, payload) in packets.iter_mut().filter(|(_, p)| p[0] == ERR) {
        mask_statement(payload);
    }
    if !classic || !matches!(command, QUERY | EXECUTE | PROCESS_INFO) {
        return;
    }
    let mut columns = None;
    for (_, payload) in packets {
        match columns {
            None if !matches!(payload[0], OK | ERR | LOCAL_INFILE) => {
                columns = Some(column_count(payload));
            }
            None => {}
            Some(0) => {
                let status = u16::from_le_bytes([payload[3], payload[4]]) & LASTING;
                payload[1..3].fill(0);
                payload[3..].copy_from_slice(&status.to_le_bytes());
                columns = Some(usize::MAX);
            }
            // Among rows: the next end is followed by another result, if anything.
            Some(usize::MAX) if payload[0] == EOF && payload.len() < 9 => {
                columns = None;
                if command == EXECUTE {
                    mask_out_parameters(payload);
                }
            }
            Some(usize::MAX) => {}
            Some(left) => columns = Some(left - 1),
        }
    }
}

/// Behind OUT parameters MySQL leaves the flags for them and for further results out of the second EOF,
/// in classic framing only. Clients keep the first one's.
fn mask_out_parameters(eof: &mut [u8]) {
    let status = u16::from_le_bytes([eof[3], eof[4]]) & !(OUT_PARAMETERS | MORE_RESULTS);
    eof[3..].copy_from_slice(&status.to_le_bytes());
}

fn mask_statement(error: &mut Vec<u8>) {
    for before in [&b"prepared statement handler ("[..], b"The statement ("] {
        let found = error.windows(before.len()).position(|part| part == before);
        if let Some(at) = found.map(|at| at + before.len()) {
            let digits = error[at..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count();
            error.drain(at..at + digits);
        }
    }
}

fn compare(direct: &Packets, through: &Packets, what: &str) {
    if direct == through {
        return;
    }
    for (at, (d, t)) in direct.iter().zip(through).enumerate() {
        if d != t {
            let show = |p: &(u8, Vec<u8>)| {
                let text = p.1[..p.1.len().min(300)].escape_ascii().to_string();
                format!("seq {} len {} {text}", p.0, p.1.len())
            };
            panic!(
                "{what}: packet {at} differs\n direct {}\nthrough {}",
                show(d),
                show(t)
            );
        }
    }
    panic!(
        "{what}: {} packets directly and {} through Sidepool",
        direct.len(),
        through.len()
    );
}
