//! The same client twice, directly at the server and through Sidepool, and every packet of both.

use crate::support::answers::{self, ERR, column_count, mask};
pub(super) use crate::support::answers::{
    EXECUTE, FETCH, FIELD_LIST, INIT_DB, LONG_DATA, PING, PREPARE, PROCESS_INFO, PROCESS_KILL,
    Packets, QUERY, RESET_CONNECTION, SET_OPTION, STMT_CLOSE, STMT_RESET,
};
use crate::support::servers::Server;
use crate::support::sidepool::Sidepool;
use crate::support::wire::{DEPRECATE_EOF, Digest, Login, ServerError, Wire, parse_err};

/// The framings that clients negotiate, as capabilities left out.
pub(super) const FRAMINGS: [u32; 2] = [0, DEPRECATE_EOF];

/// Two connections that are asked the same.
pub(super) struct Pair {
    pub(super) direct: Wire,
    pub(super) through: Wire,
}

/// A statement prepared on both connections.
pub(super) struct Statement {
    ids: [[u8; 4]; 2],
}

impl Statement {
    /// Sidepool's id.
    pub(super) const fn through(&self) -> [u8; 4] {
        self.ids[1]
    }
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
    let answer = answers::read_answer(wire, command).await;
    answer.unwrap_or_else(|error| panic!("{error}"))
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
