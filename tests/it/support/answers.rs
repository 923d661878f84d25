//! Whole answers, packet by packet, and what of them says something else on another connection.

use std::io;
use std::time::Duration;

use super::wire::{DEPRECATE_EOF, Wire, parse_ok};

/// Commands by their byte.
pub const INIT_DB: u8 = 2;
pub const QUERY: u8 = 3;
pub const FIELD_LIST: u8 = 4;
pub const PROCESS_INFO: u8 = 10;
pub const PROCESS_KILL: u8 = 12;
pub const PING: u8 = 14;
pub const PREPARE: u8 = 22;
pub const EXECUTE: u8 = 23;
pub const LONG_DATA: u8 = 24;
pub const STMT_CLOSE: u8 = 25;
pub const STMT_RESET: u8 = 26;
pub const SET_OPTION: u8 = 27;
pub const FETCH: u8 = 28;
pub const RESET_CONNECTION: u8 = 31;

/// How an answer, or the end of one, begins.
pub const OK: u8 = 0;
pub const LOCAL_INFILE: u8 = 0xfb;
pub const EOF: u8 = 0xfe;
pub const ERR: u8 = 0xff;

const MORE_RESULTS: u16 = 8;
const CURSOR_EXISTS: u16 = 0x40;
const OUT_PARAMETERS: u16 = 0x1000;
/// Status flags that hold from one statement to the next. In the EOF behind column definitions, which
/// Sidepool writes before the result's own flags are known, only these must be the server's.
const LASTING: u16 = 0x0001 | 0x0002 | 0x0100 | 0x0200 | 0x2000 | 0x8000;

/// How long an answer may keep silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// The packets of an answer: last sequence id and payload of each.
pub type Packets = Vec<(u8, Vec<u8>)>;

/// Reads the whole answer to a command. Fails with what ended the stream before it was whole.
pub async fn read_answer(wire: &mut Wire, command: u8) -> io::Result<Packets> {
    let mut packets = Packets::new();
    match command {
        LONG_DATA | STMT_CLOSE => {}
        QUERY | EXECUTE | PROCESS_INFO => while read_result(wire, &mut packets).await? {},
        FIELD_LIST | FETCH => loop {
            let packet = read_into(wire, &mut packets).await?;
            if is_end(wire, &packet) {
                break;
            }
        },
        PREPARE => read_prepared(wire, &mut packets).await?,
        _ => drop(read_into(wire, &mut packets).await?),
    }
    Ok(packets)
}

async fn read_into(wire: &mut Wire, packets: &mut Packets) -> io::Result<Vec<u8>> {
    let packet = tokio::time::timeout(PATIENCE, wire.read_packet()).await;
    let behind = |what: &dyn std::fmt::Display| {
        io::Error::other(format!("{what} behind {} packets", packets.len()))
    };
    let packet = packet
        .map_err(|_| behind(&"nothing came"))?
        .map_err(|error| behind(&error))?;
    packets.push(packet.clone());
    Ok(packet.1)
}

async fn read_prepared(wire: &mut Wire, packets: &mut Packets) -> io::Result<()> {
    let ok = read_into(wire, packets).await?;
    if ok[0] == ERR {
        return Ok(());
    }
    for count in [&ok[7..9], &ok[5..7]] {
        let count = usize::from(u16::from_le_bytes([count[0], count[1]]));
        let eof = usize::from(count > 0 && !wire.has(DEPRECATE_EOF));
        for _ in 0..count + eof {
            read_into(wire, packets).await?;
        }
    }
    Ok(())
}

/// Reads one result; whether another follows. A request for a file is the end of what can be read.
async fn read_result(wire: &mut Wire, packets: &mut Packets) -> io::Result<bool> {
    let first = read_into(wire, packets).await?;
    match first[0] {
        ERR | LOCAL_INFILE => return Ok(false),
        OK => return Ok(parse_ok(&first).status & MORE_RESULTS != 0),
        _ => {}
    }
    for _ in 0..column_count(&first) {
        read_into(wire, packets).await?;
    }
    // What is said of OUT parameters in front of them also holds behind them.
    let mut earlier = 0;
    if !wire.has(DEPRECATE_EOF) {
        let eof = read_into(wire, packets).await?;
        // A cursor that cannot be opened.
        if eof[0] == ERR {
            return Ok(false);
        }
        if (eof[0], eof.len()) != (EOF, 5) {
            return Err(io::Error::other(format!(
                "no EOF behind the columns: {eof:?}"
            )));
        }
        let status = u16::from_le_bytes([eof[3], eof[4]]);
        if status & CURSOR_EXISTS != 0 {
            return Ok(false);
        }
        if status & OUT_PARAMETERS != 0 {
            earlier = status;
        }
    }
    loop {
        let packet = read_into(wire, packets).await?;
        if packet[0] == ERR {
            return Ok(false);
        }
        if is_end(wire, &packet) {
            let status = match wire.has(DEPRECATE_EOF) {
                true => parse_ok(&packet).status,
                false => u16::from_le_bytes([packet[3], packet[4]]),
            };
            return Ok((status | earlier) & MORE_RESULTS != 0);
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

/// How many columns the packet in front of a result set announces.
pub fn column_count(payload: &[u8]) -> usize {
    match payload[0] {
        0xfc => usize::from(u16::from_le_bytes([payload[1], payload[2]])),
        small => usize::from(small),
    }
}

/// What a packet of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ok,
    Err,
    /// `COM_STMT_PREPARE_OK`
    PrepareOk,
    /// The number of columns in front of a result set.
    Count,
    Column,
    /// The EOF behind column definitions, in classic framing.
    FirstEof,
    Row,
    /// What ends rows or a block of definitions: an EOF, or an OK that begins with `fe`.
    End,
    /// Whatever else: statistics, the request for a file.
    Other,
}

/// What each packet of the answer to a command is.
pub fn kinds(packets: &Packets, command: u8, classic: bool) -> Vec<Kind> {
    let mut columns = None;
    let short = if classic { 9 } else { 0xff_ffff };
    let mut kinds = Vec::new();
    for (at, (_, payload)) in packets.iter().enumerate() {
        let ends = payload.first() == Some(&EOF) && payload.len() < short;
        let kind = match (command, payload.first()) {
            (_, None) => Kind::Other,
            (_, Some(&ERR)) => Kind::Err,
            (PREPARE, _) if at == 0 => Kind::PrepareOk,
            (PREPARE | FIELD_LIST | FETCH, _) if ends => Kind::End,
            (PREPARE | FIELD_LIST, _) => Kind::Column,
            (FETCH, _) => Kind::Row,
            (QUERY | EXECUTE | PROCESS_INFO, Some(&first)) => match columns {
                None if first == OK => Kind::Ok,
                None if first == LOCAL_INFILE => Kind::Other,
                None => {
                    columns = Some(column_count(payload));
                    Kind::Count
                }
                Some(0) if classic => {
                    columns = Some(usize::MAX);
                    Kind::FirstEof
                }
                Some(0 | usize::MAX) if ends => {
                    columns = None;
                    Kind::End
                }
                Some(0 | usize::MAX) => Kind::Row,
                Some(left) => {
                    columns = Some(left - 1);
                    Kind::Column
                }
            },
            (_, Some(&OK)) => Kind::Ok,
            (_, Some(&EOF)) => Kind::End,
            _ => Kind::Other,
        };
        kinds.push(kind);
    }
    kinds
}

/// Takes out what may differ: the number of a prepared statement in the text of an error, and, in
/// classic framing, the flags and warnings of an EOF behind column definitions that speak of the
/// result alone.
pub fn mask(packets: &mut Packets, command: u8, classic: bool) {
    mask_errors(packets);
    mask_first_eofs(packets, command, classic, LASTING);
}

/// Takes the number of a prepared statement out of the text of errors.
pub fn mask_errors(packets: &mut Packets) {
    for (_, payload) in packets.iter_mut().filter(|(_, p)| p[0] == ERR) {
        mask_statement(payload);
    }
}

/// The same for rows that show warnings, and for the length in front of the text.
pub fn mask_shown_errors(packets: &mut Packets, command: u8, classic: bool) {
    const BEGINNINGS: [&[u8]; 2] = [b"Unknown prepared statement handler (", b"The statement ("];
    let kinds = kinds(packets, command, classic);
    for ((_, payload), kind) in packets.iter_mut().zip(kinds) {
        let found = BEGINNINGS.iter().find_map(|text| {
            let mut windows = payload.windows(text.len());
            windows.position(|part| part == *text)
        });
        if let (Kind::Row, Some(at)) = (kind, found.and_then(|at| at.checked_sub(1))) {
            payload[at] = 0;
            mask_statement(payload);
        }
    }
}

/// Takes all but the flags to keep out of the EOFs behind column definitions.
pub fn mask_first_eofs(packets: &mut Packets, command: u8, classic: bool, keep: u16) {
    let kinds = kinds(packets, command, classic);
    for ((_, payload), kind) in packets.iter_mut().zip(kinds) {
        match kind {
            Kind::FirstEof => {
                let status = u16::from_le_bytes([payload[3], payload[4]]) & keep;
                payload[1..3].fill(0);
                payload[3..].copy_from_slice(&status.to_le_bytes());
            }
            // Behind parameters and columns.
            Kind::End if classic && command == PREPARE => payload[1..].fill(0),
            Kind::End if classic && command == EXECUTE => mask_out_parameters(payload),
            _ => {}
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
    for before in [
        &b"prepared statement handler ("[..],
        b"The statement (",
        b"Prepared-Statement-Handler (",
        b"Die Anweisung (",
    ] {
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
