//! Commands: their bytes, their names, and the shape of the answer each one gets.
//!
//! Source: MySQL Internals "Command Phase"; MariaDB "Client/Server protocol", `COM_STMT_BULK_EXECUTE`.

use super::packet::{take_lenenc_int, take_lenenc_str};

/// Declares the enum with its byte, its name for metrics and its answer, in one table.
macro_rules! commands {
    ($($(#[$doc:meta])* $variant:ident = $byte:literal, $name:literal, $shape:ident;)*) => {
        /// A command, by the first byte of a client's packet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Command { $($(#[$doc])* $variant = $byte,)* }

        impl Command {
            /// Every known command, in the order of their bytes.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The command of this byte; `None` when neither server family knows one.
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($byte => Some(Self::$variant),)* _ => None }
            }

            /// Lower-case name without `COM_`, fit for a metric label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What the server answers to it.
            pub const fn shape(self) -> ResponseShape {
                match self { $(Self::$variant => ResponseShape::$shape,)* }
            }
        }
    };
}

commands! {
    /// Internal to servers.
    Sleep = 0x00, "sleep", Refused;
    /// The client leaves; the server closes.
    Quit = 0x01, "quit", None;
    /// Selects a database.
    InitDb = 0x02, "init_db", Single;
    /// SQL text.
    Query = 0x03, "query", Query;
    /// Columns of a table; deprecated, MariaDB's shell still sends it.
    FieldList = 0x04, "field_list", FieldList;
    /// Removed from servers long ago; they answer ERR.
    CreateDb = 0x05, "create_db", Single;
    /// Removed from servers long ago; they answer ERR.
    DropDb = 0x06, "drop_db", Single;
    /// `FLUSH` by bits.
    Refresh = 0x07, "refresh", Single;
    /// Stops the server.
    Shutdown = 0x08, "shutdown", Single;
    /// One line of text.
    Statistics = 0x09, "statistics", Text;
    /// `SHOW PROCESSLIST`.
    ProcessInfo = 0x0a, "process_info", Query;
    /// Internal to servers.
    Connect = 0x0b, "connect", Refused;
    /// `KILL CONNECTION`.
    ProcessKill = 0x0c, "process_kill", Single;
    /// Writes debug information to the server's log.
    Debug = 0x0d, "debug", Single;
    /// Answered with OK.
    Ping = 0x0e, "ping", Single;
    /// Internal to servers.
    Time = 0x0f, "time", Refused;
    /// Internal to servers.
    DelayedInsert = 0x10, "delayed_insert", Refused;
    /// A new login on the same connection; its answer is an authentication exchange.
    ChangeUser = 0x11, "change_user", Login;
    /// Replication.
    BinlogDump = 0x12, "binlog_dump", Refused;
    /// Replication.
    TableDump = 0x13, "table_dump", Refused;
    /// Replication.
    ConnectOut = 0x14, "connect_out", Refused;
    /// Replication.
    RegisterSlave = 0x15, "register_slave", Refused;
    /// Prepares a statement.
    StmtPrepare = 0x16, "stmt_prepare", Prepare;
    /// Executes a prepared statement.
    StmtExecute = 0x17, "stmt_execute", Execute;
    /// A piece of a parameter's value; never answered.
    StmtSendLongData = 0x18, "stmt_send_long_data", None;
    /// Drops a prepared statement; never answered.
    StmtClose = 0x19, "stmt_close", None;
    /// Drops long data and the cursor of a statement.
    StmtReset = 0x1a, "stmt_reset", Single;
    /// Multi-statements on or off.
    SetOption = 0x1b, "set_option", Single;
    /// Rows of an open cursor.
    StmtFetch = 0x1c, "stmt_fetch", Fetch;
    /// Internal to servers.
    Daemon = 0x1d, "daemon", Refused;
    /// Replication.
    BinlogDumpGtid = 0x1e, "binlog_dump_gtid", Refused;
    /// A fresh session on the same login.
    ResetConnection = 0x1f, "reset_connection", Single;
    /// MySQL's clone plugin, a protocol of its own.
    Clone = 0x20, "clone", Refused;
    /// MySQL's group replication.
    SubscribeGroupReplication = 0x21, "subscribe_group_replication", Refused;
    /// MariaDB: executes a prepared statement for many rows of parameters.
    StmtBulkExecute = 0xfa, "stmt_bulk_execute", Execute;
    /// MariaDB, internal to replication.
    SlaveWorker = 0xfb, "slave_worker", Refused;
    /// MariaDB, internal to replication.
    SlaveIo = 0xfc, "slave_io", Refused;
    /// MariaDB, internal to replication.
    SlaveSql = 0xfd, "slave_sql", Refused;
    /// MariaDB: several commands in one packet; withdrawn.
    Multi = 0xfe, "multi", Refused;
}

/// What a server answers to a command, as far as framing goes. ERR may come in any shape but `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResponseShape {
    /// OK, or result sets of text rows, or a request for a local file; several in a row.
    Query,
    /// OK, or result sets of binary rows, or an open cursor; several in a row.
    Execute,
    /// `PREPARE_OK` with the definitions of parameters and columns.
    Prepare,
    /// Rows of a cursor, without definitions.
    Fetch,
    /// Column definitions without a count in front and without rows.
    FieldList,
    /// One OK (some servers end these with EOF).
    Single,
    /// One packet of plain text.
    Text,
    /// An authentication exchange, which is the session's to lead.
    Login,
    /// Nothing at all.
    None,
    /// Not for clients of a proxy: replication and what servers keep to themselves.
    Refused,
}

/// The SQL text inside the payload of a `COM_QUERY`, command byte included in `payload`. With
/// `CLIENT_QUERY_ATTRIBUTES` (MySQL) the attributes stand in front of the text and are skipped.
/// `None`: the payload is malformed or holds an attribute of a type not known.
pub fn query_text(payload: &[u8], has_query_attributes: bool) -> Option<&[u8]> {
    let (&command, mut rest) = payload.split_first()?;
    if command != Command::Query as u8 {
        return None;
    }
    if !has_query_attributes {
        return Some(rest);
    }
    let count = usize::try_from(take_lenenc_int(&mut rest)?).ok()?;
    let sets = take_lenenc_int(&mut rest)?;
    if sets != 1 {
        return None;
    }
    if count > 0 {
        skip_attributes(&mut rest, count)?;
    }
    Some(rest)
}

fn skip_attributes(rest: &mut &[u8], count: usize) -> Option<()> {
    let nulls = take(rest, count.div_ceil(8))?;
    // The types are always sent: these parameters have no earlier execution to remember them from.
    if take(rest, 1)? != [1] {
        return None;
    }
    let mut values = *rest;
    for _ in 0..count {
        take(&mut values, 2)?;
        take_lenenc_str(&mut values)?;
    }
    for index in 0..count {
        let kind = *take(rest, 2)?.first()?;
        take_lenenc_str(rest)?;
        if nulls.get(index / 8)? & (1 << (index % 8)) == 0 {
            skip_value(&mut values, kind)?;
        }
    }
    *rest = values;
    Some(())
}

/// Skips one value of the binary protocol. Source: "Binary Protocol Value".
fn skip_value(values: &mut &[u8], kind: u8) -> Option<()> {
    let width = match kind {
        0x06 => 0,
        0x01 => 1,
        0x02 | 0x0d => 2,
        0x03 | 0x04 | 0x09 => 4,
        0x05 | 0x08 => 8,
        0x07 | 0x0a | 0x0b | 0x0c => usize::from(*take(values, 1)?.first()?),
        0x00 | 0x0f | 0x10 | 0xf2 | 0xf5..=0xff => {
            take_lenenc_str(values)?;
            0
        }
        _ => return None,
    };
    take(values, width)?;
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(len)?;
    *rest = back;
    Some(front)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_and_commands_map_one_to_one() {
        for &command in Command::ALL {
            assert_eq!(Command::from_byte(command as u8), Some(command));
        }
        let known = (0..=255).filter(|&b| Command::from_byte(b).is_some());
        assert_eq!(known.count(), Command::ALL.len());
        assert_eq!(Command::from_byte(0x22), None);
        assert_eq!(Command::StmtBulkExecute as u8, 0xfa);
    }

    #[test]
    fn text_without_attributes_is_the_rest() {
        assert_eq!(query_text(b"\x03SELECT 1", false), Some(&b"SELECT 1"[..]));
        assert_eq!(query_text(b"\x03", false), Some(&b""[..]));
        assert_eq!(query_text(b"\x0eSELECT 1", false), None);
        assert_eq!(query_text(b"", false), None);
    }

    #[test]
    fn attributes_are_skipped() {
        assert_eq!(query_text(b"\x03\x00\x01DO 1", true), Some(&b"DO 1"[..]));
        let two = b"\x03\x02\x01\x00\x01\xfe\x00\x01a\x08\x00\x01b\x03xyz\x07\0\0\0\0\0\0\0DO 2";
        assert_eq!(query_text(two, true), Some(&b"DO 2"[..]));
        let null_first = b"\x03\x02\x01\x01\x01\xfe\x00\x01a\x0c\x00\x01b\x04\xe8\x07\x01\x02DO 3";
        assert_eq!(query_text(null_first, true), Some(&b"DO 3"[..]));
        let nine = [
            &b"\x03\x09\x01\xff\x01\x01"[..],
            &b"\x08\x00\x00".repeat(9),
            b"DO 4",
        ]
        .concat();
        assert_eq!(query_text(&nine, true), Some(&b"DO 4"[..]));
    }

    #[test]
    fn cut_attributes_are_no_text() {
        let two = b"\x03\x02\x01\x00\x01\xfe\x00\x01a\x08\x00\x01b\x03xyz\x07\0\0\0\0\0\0\0";
        for cut in 0..two.len() {
            assert_eq!(query_text(&two[..cut], true), None, "cut at {cut}");
        }
        assert_eq!(
            query_text(b"\x03\x01\x01\x00\x01\xf3\x00\x00DO", true),
            None
        );
    }

    proptest! {
        #[test]
        fn any_payload_is_survived(mut payload: Vec<u8>, attributes: bool) {
            payload.insert(0, 3);
            let _ = query_text(&payload, attributes);
        }
    }
}
