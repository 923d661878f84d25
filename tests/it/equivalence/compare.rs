//! Whether two answers are the same, and what may differ in them.

use std::collections::{BTreeMap, BTreeSet};

use sidepool::protocol::packet::{take_lenenc_int, take_lenenc_str};

use crate::support::answers::{
    EOF, ERR, EXECUTE, INIT_DB, Kind, OK, PING, PREPARE, Packets, QUERY, SET_OPTION, kinds,
    mask_errors, mask_first_eofs, mask_shown_errors,
};
use crate::support::servers::Make;
use crate::support::wire::{parse_err, parse_ok};

/// What may differ between a shared and a dedicated connection. Everything else may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exemption {
    /// Prepared statements are counted by each connection for itself; the number also stands in errors.
    StatementId,
    /// In classic framing Sidepool writes the EOF behind column definitions before the result's own
    /// flags and warnings are known.
    FirstEof,
    /// A user variable that was never set shows as another kind of BLOB than one that is NULL again, which
    /// is what it is on a connection that another session has set it on; or as whatever that session's was,
    /// so the whole type of what is made of a variable may differ as long as no row has a value. MySQL tells
    /// it also where it prepares, which is before there are values.
    UnsetVariable,
    /// MariaDB counts the rows of an earlier statement, any on that connection, where a statement that
    /// has none fails.
    RowNumber,
    /// The OK of a CALL that changes no row says in MySQL how many the statement before it did.
    CallAffected,
    /// MySQL repeats the number of warnings of the last statement in the OK of a command that is none.
    RepeatedWarnings,
    /// Which changes an OK reports, and its flag: what came out late, or twice, is no change of state.
    Trackers,
    /// The collation that `character_set_results` was given with is in no variable; its charset is.
    ColumnCollation,
    /// A `SET STATEMENT` or a routine that fails with ANSI_QUOTES on leaves MariaDB's connection the status
    /// flag of it, which says nothing of `sql_mode` any more, until someone sets that.
    AnsiQuotesFlag,
}

impl Exemption {
    pub(super) const ALL: [Self; 9] = [
        Self::StatementId,
        Self::FirstEof,
        Self::ColumnCollation,
        Self::UnsetVariable,
        Self::RowNumber,
        Self::CallAffected,
        Self::RepeatedWarnings,
        Self::AnsiQuotesFlag,
        // Last: what it leaves is no packet any more.
        Self::Trackers,
    ];
}

/// What clients do with the flags of a first EOF: is there a cursor, are these OUT parameters.
const EARLY: u16 = 0x0040 | 0x1000;

/// The charset of every collation, by its number.
pub(super) type Collations = BTreeMap<u16, String>;

/// One command and the two answers to it.
pub(super) struct Answers {
    pub(super) make: Make,
    pub(super) command: u8,
    pub(super) classic: bool,
    /// The statement calls a procedure.
    pub(super) call: bool,
    pub(super) through: Packets,
    pub(super) direct: Packets,
}

impl Answers {
    /// Which exemptions it takes until both are the same, or the first packet that differs.
    pub(super) fn compare(mut self, collations: &Collations) -> Result<Vec<Exemption>, String> {
        let mut taken = Vec::new();
        for exemption in Exemption::ALL {
            if self.through == self.direct {
                break;
            }
            let before = (self.through.clone(), self.direct.clone());
            self.exempt(exemption, collations);
            if before.0 != self.through || before.1 != self.direct {
                taken.push(exemption);
            }
        }
        match self.through == self.direct {
            true => Ok(taken),
            false => Err(self.difference()),
        }
    }

    fn exempt(&mut self, exemption: Exemption, collations: &Collations) {
        let (make, command) = (self.make, self.command);
        let (classic, call) = (self.classic, self.call);
        if exemption == Exemption::ColumnCollation {
            return self.exempt_collations(collations);
        }
        if exemption == Exemption::UnsetVariable {
            self.exempt_unset_variables();
            return self.exempt_types_of_null();
        }
        if exemption == Exemption::FirstEof {
            self.exempt_eof_before_error();
        }
        for packets in [&mut self.through, &mut self.direct] {
            match exemption {
                Exemption::StatementId => {
                    mask_errors(packets);
                    mask_shown_errors(packets, command, classic);
                    if command == PREPARE && packets[0].1[0] != ERR {
                        packets[0].1[1..5].fill(0);
                    }
                }
                Exemption::FirstEof => mask_first_eofs(packets, command, classic, EARLY),
                Exemption::RowNumber => mask_row_number(packets),
                Exemption::CallAffected if call => mask_affected(packets, command, classic),
                Exemption::CallAffected => {}
                Exemption::RepeatedWarnings => mask_repeated(packets, command),
                Exemption::AnsiQuotesFlag if make == Make::MariaDb => {
                    mask_ansi_quotes(packets, command, classic);
                }
                Exemption::AnsiQuotesFlag => {}
                Exemption::Trackers => mask_trackers(packets, command, classic),
                Exemption::ColumnCollation | Exemption::UnsetVariable => {}
            }
        }
    }

    /// Where a server that cannot open a cursor says so in place of the EOF, Sidepool has written that.
    fn exempt_eof_before_error(&mut self) {
        let kinds = kinds(&self.through, self.command, self.classic);
        let early = kinds.ends_with(&[Kind::FirstEof, Kind::Err]);
        if early && self.through.len() == self.direct.len() + 1 {
            let eof = self.through.len() - 2;
            self.through[eof + 1].0 = self.through[eof].0;
            self.through.remove(eof);
        }
    }

    /// Where both have a column of one charset, the collation counts as the same.
    fn exempt_collations(&mut self, collations: &Collations) {
        let columns = kinds(&self.direct, self.command, self.classic);
        let pairs = self.through.iter_mut().zip(&mut self.direct).zip(columns);
        for (((_, through), (_, direct)), kind) in pairs {
            if kind != Kind::Column || through.len() != direct.len() {
                continue;
            }
            let Some(at) = collation_at(through) else {
                continue;
            };
            let id = |packet: &[u8]| u16::from_le_bytes([packet[at], packet[at + 1]]);
            let charset = |packet: &[u8]| collations.get(&id(packet));
            if charset(through).is_some() && charset(through) == charset(direct) {
                through[at..at + 2].copy_from_slice(&direct[at..at + 2]);
            }
        }
    }

    /// Where a column mentions a user variable and is some BLOB on both sides, its length counts as the same.
    fn exempt_unset_variables(&mut self) {
        let columns = kinds(&self.direct, self.command, self.classic);
        let pairs = self.through.iter_mut().zip(&mut self.direct).zip(columns);
        for (((_, through), (_, direct)), kind) in pairs {
            let same_length = through.len() == direct.len();
            if kind != Kind::Column || !same_length || !through.contains(&b'@') {
                continue;
            }
            let Some(at) = collation_at(through) else {
                continue;
            };
            // Behind the collation: a length, and the type.
            let (length, kind) = (at + 2..at + 6, at + 6);
            let blob = |column: &[u8]| (0xf9..=0xfd).contains(&column[kind]);
            if blob(through) && blob(direct) {
                through[length.clone()].copy_from_slice(&direct[length]);
                through[kind] = direct[kind];
            }
        }
    }

    /// Where a column is a user variable, or made of one, and is NULL in all rows on both sides, all that
    /// stands behind its names counts as the same.
    fn exempt_types_of_null(&mut self) {
        let prepared = self.command == PREPARE && self.make == Make::MySql;
        if !prepared && !matches!(self.command, QUERY | EXECUTE) {
            return;
        }
        let null = |packets: &Packets| null_columns(packets, self.command, self.classic);
        let both: Vec<_> = null(&self.through)
            .intersection(&null(&self.direct))
            .copied()
            .collect();
        for column in both {
            let (through, direct) = (&mut self.through[column].1, &self.direct[column].1);
            let names = |packet: &[u8]| collation_at(packet).map(|at| packet[..at].to_vec());
            if through.len() == direct.len()
                && names(through) == names(direct)
                && has_variable(direct)
            {
                through.clone_from(direct);
            }
        }
    }

    fn difference(&self) -> String {
        let differing = self.through.iter().zip(&self.direct);
        let at = differing.take_while(|(t, d)| t == d).count();
        format!(
            "packet {at} of {} through Sidepool and {} directly\n    through {}\n    direct  {}",
            self.through.len(),
            self.direct.len(),
            show(self.through.get(at)),
            show(self.direct.get(at))
        )
    }
}

/// Where a column definition has its collation: behind six names and a length.
fn collation_at(column: &[u8]) -> Option<usize> {
    let mut rest = column;
    for _ in 0..6 {
        take_lenenc_str(&mut rest)?;
    }
    (rest.len() >= 13).then(|| column.len() - rest.len() + 1)
}

/// Whether a column's name, which is its expression, has a user variable in it.
fn has_variable(column: &[u8]) -> bool {
    let mut rest = column;
    for _ in 0..4 {
        take_lenenc_str(&mut rest);
    }
    let name = take_lenenc_str(&mut rest).unwrap_or_default();
    let mut parts = name.split(|b| *b == b'@');
    parts.next();
    parts.any(|behind| !behind.is_empty()) && !name.windows(2).any(|part| part == b"@@")
}

/// The packets that define columns in which no row of the result has a value. A preparation has no rows.
fn null_columns(packets: &Packets, command: u8, classic: bool) -> BTreeSet<usize> {
    let mut null = BTreeSet::new();
    let mut columns = Vec::new();
    let kinds = kinds(packets, command, classic);
    for (at, ((_, payload), kind)) in packets.iter().zip(kinds).enumerate() {
        match kind {
            Kind::Count => columns.clear(),
            Kind::Column => {
                columns.push(at);
                null.insert(at);
            }
            Kind::Row if command == EXECUTE => {
                for (field, column) in columns.iter().enumerate() {
                    // Behind a zero, and two bits that are nobody's.
                    let bit = field + 2;
                    let is_null = payload[1 + bit / 8] & (1 << (bit % 8)) != 0;
                    if !is_null {
                        null.remove(column);
                    }
                }
            }
            Kind::Row => {
                let mut rest = &payload[..];
                for column in &columns {
                    match rest.first() {
                        Some(0xfb) => rest = &rest[1..],
                        _ => {
                            take_lenenc_str(&mut rest);
                            null.remove(column);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    null
}

/// Takes the number out of `at row 1` in the text of an error.
fn mask_row_number(packets: &mut Packets) {
    const BEFORE: &[u8] = b"at row ";
    for (_, payload) in packets.iter_mut().filter(|(_, p)| p[0] == ERR) {
        let found = payload
            .windows(BEFORE.len())
            .rposition(|part| part == BEFORE);
        if let Some(at) = found.map(|at| at + BEFORE.len()) {
            payload.truncate(at);
        }
    }
}

fn show(packet: Option<&(u8, Vec<u8>)>) -> String {
    let Some((seq, payload)) = packet else {
        return "nothing".to_owned();
    };
    if payload.first() == Some(&ERR) {
        let error = parse_err(payload);
        return format!(
            "seq {seq}: ERR {} ({}) {}",
            error.code, error.state, error.message
        );
    }
    let text = payload[..payload.len().min(400)].escape_ascii();
    format!("seq {seq}, {} bytes: {text}", payload.len())
}

/// Takes the affected rows out of the OK that ends an answer.
fn mask_affected(packets: &mut Packets, command: u8, classic: bool) {
    let last = kinds(packets, command, classic).pop();
    if let (Some(Kind::Ok), Some((_, payload))) = (last, packets.last_mut()) {
        // Few rows here: one byte.
        payload[1] = 0;
    }
}

/// Takes the warnings out of the OK, or its form as an EOF, of a command that runs no statement.
fn mask_repeated(packets: &mut Packets, command: u8) {
    if !matches!(command, PING | INIT_DB | SET_OPTION) {
        return;
    }
    match &mut packets[0].1[..] {
        [OK | EOF, 0, 0, _, _, warnings @ ..] if warnings.len() >= 2 => warnings[..2].fill(0),
        [EOF, warnings @ .., _, _] => warnings.fill(0),
        _ => {}
    }
}

/// Takes the flag of ANSI_QUOTES out of OKs and EOFs.
fn mask_ansi_quotes(packets: &mut Packets, command: u8, classic: bool) {
    const ANSI_QUOTES: u8 = 0x80;
    let kinds = kinds(packets, command, classic);
    for ((_, payload), kind) in packets.iter_mut().zip(kinds) {
        let upper = match kind {
            Kind::FirstEof => 4,
            Kind::End if payload.len() == 5 => 4,
            Kind::Ok | Kind::End => {
                let mut rest = &payload[1..];
                // The affected rows, and the id.
                let numbers = take_lenenc_int(&mut rest).and(take_lenenc_int(&mut rest));
                let Some(_) = numbers else { continue };
                payload.len() - rest.len() + 1
            }
            _ => continue,
        };
        payload[upper] &= !ANSI_QUOTES;
    }
}

/// Takes the trackers and their flag out of OKs and EOFs.
fn mask_trackers(packets: &mut Packets, command: u8, classic: bool) {
    const STATE_CHANGED: u16 = 0x4000;
    let kinds = kinds(packets, command, classic);
    for ((_, payload), kind) in packets.iter_mut().zip(kinds) {
        if kind == Kind::End && payload.len() == 5 {
            payload[4] &= !STATE_CHANGED.to_be_bytes()[0];
        } else if matches!(kind, Kind::Ok | Kind::End) {
            let ok = parse_ok(payload);
            let mut info = &ok.rest[..];
            let info = take_lenenc_str(&mut info).unwrap_or_default();
            let status = ok.status & !STATE_CHANGED;
            *payload = format!(
                "{:#x} affected {} id {} status {status:#x} warnings {} {}",
                payload[0],
                ok.affected,
                ok.insert_id,
                ok.warnings,
                info.escape_ascii()
            )
            .into_bytes();
        }
    }
}
