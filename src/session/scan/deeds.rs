//! What a statement opens and closes by name on its connection: temporary tables, handlers, locks.
//!
//! Only asked about statements whose flags say that they do something of the kind, and about those of
//! a session that has something open. Names are taken as they are written, and only where their bytes
//! mean the same in every character set and quoting; any other name is "some name".

use super::lexer::{LexMode, Lexer, Token};

/// A table or sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// `TABLE`
    Table,
    /// `SEQUENCE`
    Sequence,
}

/// A table as a statement names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableName<'a> {
    /// The database; `None`: the current one.
    pub database: Option<&'a [u8]>,
    /// The table.
    pub table: &'a [u8],
}

/// Locks that are one for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobalLock {
    /// `FLUSH TABLES … WITH READ LOCK`, `… FOR EXPORT`; until `UNLOCK TABLES`.
    Tables,
    /// `LOCK INSTANCE FOR BACKUP`; until `UNLOCK INSTANCE`.
    Instance,
    /// `BACKUP STAGE …`; until `BACKUP STAGE END`.
    Stage,
    /// `BACKUP LOCK t`; until `BACKUP UNLOCK`.
    Backup,
}

/// One thing that a statement does if it goes well. `None` stands for a name that cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed<'a> {
    /// `CREATE TEMPORARY …`
    Create(TableKind, Option<TableName<'a>>),
    /// `DROP TABLE …`, `DROP SEQUENCE …`
    Drop(TableKind, Vec<TableName<'a>>),
    /// `ALTER TABLE … RENAME …`
    Rename(Option<TableName<'a>>, Option<TableName<'a>>),
    /// One pair of `RENAME TABLE`: on MySQL never of a temporary table, on MariaDB it may be.
    MayRename(Option<TableName<'a>>, Option<TableName<'a>>),
    /// `HANDLER … OPEN`, by its alias.
    OpenHandler(Option<&'a [u8]>),
    /// `HANDLER … CLOSE`
    CloseHandler(&'a [u8]),
    /// `GET_LOCK(name, …)` anywhere.
    GetLock(Option<&'a [u8]>),
    /// `RELEASE_LOCK`, `RELEASE_ALL_LOCKS` anywhere.
    MayRelease,
    /// `SELECT RELEASE_ALL_LOCKS()` and nothing else.
    ReleaseAll(Releasing),
    /// A lock is taken.
    Take(GlobalLock),
    /// A lock is given back.
    End(GlobalLock),
    /// `LASTVAL`, `PREVIOUS VALUE FOR`: what is read stays with the connection until it is reset.
    LastValue,
    /// Locks of plugins and resource groups: nobody has measured what ends them.
    Lasting,
    /// `SET timestamp = …` and the like: a variable that is never replayed.
    Assign(&'a [u8], Assigned),
    /// `USE`
    Use,
}

/// How all user-level locks are released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Releasing {
    /// By `DO`.
    Do,
    /// By `SELECT`, which does nothing under `sql_select_limit = 0` (measured on both servers).
    Select,
}

/// What a variable is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assigned {
    /// What it had when the session began.
    Initial,
    /// Something else.
    Other,
}

/// What a text does, statement by statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deeds<'a> {
    /// In the order of the text.
    pub list: Vec<Deed<'a>>,
    /// It is more than one statement: after an error nobody knows how many have run.
    pub several: bool,
    /// The server may read the text otherwise: executable comments.
    pub doubtful: bool,
    /// Its first word is one of a statement that may call functions, which may do what they like.
    pub calls: bool,
}

type Piece<'a> = (Token<'a>, &'a [u8]);

/// Reads what `sql` opens and closes.
pub fn deeds(sql: &[u8], mode: LexMode) -> Deeds<'_> {
    let mut lexer = Lexer::new(sql, mode);
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let (mut deeds, mut from) = (Deeds::default(), 0);
    while let Some(token) = lexer.next() {
        deeds.doubtful |= lexer.is_behind_edge();
        pieces.push((token, &sql[from..lexer.position()]));
        from = lexer.position();
    }
    deeds.doubtful |= lexer.is_in_doubt();
    let statements: Vec<_> = pieces
        .split(|(token, _)| *token == Token::Punct(b';'))
        .filter(|statement| !statement.is_empty())
        .collect();
    deeds.several = statements.len() > 1;
    for statement in statements {
        deeds.calls |= may_call(statement);
        read_statement(statement, &mut deeds.list);
    }
    deeds
}

/// Whether nothing in a statement that begins so tells what functions it may call.
fn may_call(pieces: &[Piece<'_>]) -> bool {
    const SILENT: &[&str] = &[
        "alter",
        "create",
        "drop",
        "rename",
        "truncate",
        "optimize",
        "analyze",
        "set",
        "use",
        "begin",
        "start",
        "commit",
        "rollback",
        "prepare",
        "deallocate",
        "lock",
        "unlock",
        "flush",
    ];
    !SILENT.iter().any(|word| is(pieces, 0, word))
}

fn read_statement<'a>(pieces: &[Piece<'a>], list: &mut Vec<Deed<'a>>) {
    read_words(pieces, list);
    let pieces = match is(pieces, 0, "set") && is(pieces, 1, "statement") {
        // MariaDB's SET STATEMENT … FOR statement.
        true => {
            let inner = (2..pieces.len()).find(|&at| is(pieces, at, "for"));
            inner.map_or(&[][..], |at| &pieces[at + 1..])
        }
        false => pieces,
    };
    let word = |at| word(pieces, at).map(<[u8]>::to_ascii_lowercase);
    let Some(first) = word(0) else { return };
    let second = word(1).unwrap_or_default();
    match (&first[..], &second[..]) {
        (b"create", _) => list.extend(create(pieces)),
        (b"drop", _) => list.extend(drop_tables(pieces)),
        (b"alter", _) => list.extend(alter(pieces)),
        (b"rename", b"table" | b"tables") => rename(&pieces[2..], list),
        (b"handler", _) => list.extend(handler(&pieces[1..])),
        (b"use", _) => list.push(Deed::Use),
        (b"unlock", b"tables" | b"table") => list.push(Deed::End(GlobalLock::Tables)),
        (b"unlock", b"instance") => list.push(Deed::End(GlobalLock::Instance)),
        (b"lock", b"instance") => list.push(Deed::Take(GlobalLock::Instance)),
        (b"lock", b"binlog") => list.push(Deed::Lasting),
        (b"lock", _) if is(pieces, 2, "for") => list.push(Deed::Lasting),
        (b"flush", _) if has(pieces, "lock") || has(pieces, "export") => {
            list.push(Deed::Take(GlobalLock::Tables));
        }
        (b"backup", b"stage") if is(pieces, 2, "end") => list.push(Deed::End(GlobalLock::Stage)),
        (b"backup", b"stage") => list.push(Deed::Take(GlobalLock::Stage)),
        (b"backup", b"lock") => list.push(Deed::Take(GlobalLock::Backup)),
        (b"backup", b"unlock") => list.push(Deed::End(GlobalLock::Backup)),
        (b"backup", _) | (b"set", b"resource") => list.push(Deed::Lasting),
        (b"set", _) => assignments(&pieces[1..], list),
        (b"select", b"release_all_locks") if is_empty_call(&pieces[2..]) => {
            list.push(Deed::ReleaseAll(Releasing::Select));
        }
        (b"do", b"release_all_locks") if is_empty_call(&pieces[2..]) => {
            list.push(Deed::ReleaseAll(Releasing::Do));
        }
        _ => {}
    }
}

/// What single words tell wherever they stand.
fn read_words<'a>(pieces: &[Piece<'a>], list: &mut Vec<Deed<'a>>) {
    for (at, (token, _)) in pieces.iter().enumerate() {
        let (Token::Word(word) | Token::Quoted(word)) = token else {
            continue;
        };
        if word.len() < 7 {
            continue;
        }
        match &word.to_ascii_lowercase()[..] {
            b"get_lock" if punct(pieces, at + 1, b'(') => {
                let ended = punct(pieces, at + 3, b',');
                let name = pieces.get(at + 2).filter(|_| ended).and_then(literal);
                list.push(Deed::GetLock(name));
            }
            b"release_lock" | b"release_all_locks" => list.push(Deed::MayRelease),
            b"lastval" if punct(pieces, at + 1, b'(') => list.push(Deed::LastValue),
            b"previous" if is(pieces, at + 1, "value") => list.push(Deed::LastValue),
            b"service_get_read_locks"
            | b"service_get_write_locks"
            | b"version_tokens_lock_shared"
            | b"version_tokens_lock_exclusive" => list.push(Deed::Lasting),
            _ => {}
        }
    }
}

fn create<'a>(pieces: &[Piece<'a>]) -> Option<Deed<'a>> {
    let mut at = 1;
    if is(pieces, at, "or") && is(pieces, at + 1, "replace") {
        at += 2;
    }
    if !is(pieces, at, "temporary") {
        // A column or an option of that name, or a form that is not known.
        let ordinary = is(pieces, at, "table") || !has(pieces, "temporary");
        return (!ordinary).then_some(Deed::Create(TableKind::Table, None));
    }
    let kind = match is(pieces, at + 1, "sequence") {
        true => TableKind::Sequence,
        false if is(pieces, at + 1, "table") => TableKind::Table,
        false => return Some(Deed::Create(TableKind::Table, None)),
    };
    at += 2;
    if is(pieces, at, "if") && is(pieces, at + 1, "not") && is(pieces, at + 2, "exists") {
        at += 3;
    }
    let name = table_name(pieces, at).and_then(|(name, _)| name);
    Some(Deed::Create(kind, name))
}

fn drop_tables<'a>(pieces: &[Piece<'a>]) -> Option<Deed<'a>> {
    let mut at = 1 + usize::from(is(pieces, 1, "temporary"));
    let kind = match is(pieces, at, "sequence") {
        true => TableKind::Sequence,
        false if is(pieces, at, "table") || is(pieces, at, "tables") => TableKind::Table,
        false => return None,
    };
    at += 1;
    if is(pieces, at, "if") && is(pieces, at + 1, "exists") {
        at += 2;
    }
    let mut names = Vec::new();
    loop {
        let (name, next) = table_name(pieces, at)?;
        names.extend(name);
        at = next;
        if !punct(pieces, at, b',') {
            break;
        }
        at += 1;
    }
    // RESTRICT, CASCADE, WAIT n, NOWAIT.
    let known = |(token, _): &Piece<'_>| match token {
        Token::Word(word) => ["restrict", "cascade", "wait", "nowait"]
            .iter()
            .any(|known| word.eq_ignore_ascii_case(known.as_bytes())),
        Token::Number(_) => true,
        _ => false,
    };
    pieces[at..]
        .iter()
        .all(known)
        .then_some(Deed::Drop(kind, names))
}

fn alter<'a>(pieces: &[Piece<'a>]) -> Option<Deed<'a>> {
    let table = (1..pieces.len().min(4)).find(|&at| is(pieces, at, "table"))?;
    let mut at = table + 1;
    if is(pieces, at, "if") && is(pieces, at + 1, "exists") {
        at += 2;
    }
    let named = table_name(pieces, at);
    let from = named.and_then(|(name, _)| name);
    let of_part = |at: usize| ["column", "index", "key"].iter().any(|w| is(pieces, at, w));
    let renames = |&at: &usize| is(pieces, at, "rename") && !of_part(at + 1);
    let renamed = (at..pieces.len()).find(renames)?;
    let (Some((_, next)), mut to) = (named, renamed + 1) else {
        return Some(Deed::Rename(from, None));
    };
    if is(pieces, to, "to") || is(pieces, to, "as") || punct(pieces, to, b'=') {
        to += 1;
    }
    let to = match table_name(pieces, to) {
        Some((name, end)) if end == pieces.len() && next == renamed => name,
        _ => None,
    };
    Some(Deed::Rename(from, to))
}

fn rename<'a>(pieces: &[Piece<'a>], list: &mut Vec<Deed<'a>>) {
    let mut at = 0;
    if is(pieces, at, "if") && is(pieces, at + 1, "exists") {
        at += 2;
    }
    loop {
        let pair = table_name(pieces, at).and_then(|(from, mut next)| {
            if !is(pieces, next, "to") {
                // WAIT n, NOWAIT
                next += 1 + usize::from(is(pieces, next, "wait"));
            }
            let (to, end) = table_name(pieces, next + 1).filter(|_| is(pieces, next, "to"))?;
            Some((from, to, end))
        });
        let Some((from, to, end)) = pair else {
            list.push(Deed::MayRename(None, None));
            return;
        };
        list.push(Deed::MayRename(from, to));
        if !punct(pieces, end, b',') {
            return;
        }
        at = end + 1;
    }
}

fn handler<'a>(pieces: &[Piece<'a>]) -> Option<Deed<'a>> {
    let unknown = || has(pieces, "open").then_some(Deed::OpenHandler(None));
    let Some((name, at)) = table_name(pieces, 0) else {
        return unknown();
    };
    if is(pieces, at, "close") {
        let name = name.filter(|name| name.database.is_none() && at + 1 == pieces.len())?;
        return Some(Deed::CloseHandler(name.table));
    }
    if !is(pieces, at, "open") {
        return None;
    }
    let alias = match pieces.len() - at - 1 {
        0 => name.map(|name| name.table),
        _ => {
            let alias = at + 1 + usize::from(is(pieces, at + 1, "as"));
            let alias = table_name(pieces, alias).filter(|&(_, end)| end == pieces.len());
            alias.and_then(|(name, _)| Some(name?.table))
        }
    };
    Some(Deed::OpenHandler(alias))
}

/// The assignments to variables that are never replayed and of which the text shows it when they are
/// back. Measured on both servers: `timestamp` at 0 or `DEFAULT` is the clock again.
fn assignments<'a>(pieces: &[Piece<'a>], list: &mut Vec<Deed<'a>>) {
    // A call may set anything behind it.
    let calls = (0..pieces.len()).any(|at| punct(pieces, at, b'('));
    for assignment in pieces.split(|(token, _)| *token == Token::Punct(b',')) {
        let mut at = usize::from(matches!(
            assignment.first(),
            Some((Token::SystemVariable, _))
        ));
        if is(assignment, at, "session") || is(assignment, at, "local") {
            at += 1 + usize::from(punct(assignment, at + 1, b'.'));
        }
        let Some(name) = word(assignment, at) else {
            continue;
        };
        let value = assignment.get(at + 2..).unwrap_or_default();
        let initial = match &name.to_ascii_lowercase()[..] {
            b"timestamp" => match value {
                [(Token::Number(digits), _)] => digits.iter().all(|&digit| digit == b'0'),
                [(Token::Word(word), _)] => word.eq_ignore_ascii_case(b"default"),
                _ => false,
            },
            b"gtid_next" => match value {
                [piece] => literal(piece).is_some_and(|v| v.eq_ignore_ascii_case(b"automatic")),
                _ => false,
            },
            _ => continue,
        };
        let assigned = match initial && !calls {
            true => Assigned::Initial,
            false => Assigned::Other,
        };
        list.push(Deed::Assign(name, assigned));
    }
}

/// `[database.]table` at a place, and what follows it. The inner `None`: a name whose bytes may mean
/// another one elsewhere.
fn table_name<'a>(pieces: &[Piece<'a>], at: usize) -> Option<(Option<TableName<'a>>, usize)> {
    let first = name(pieces, at)?;
    if !punct(pieces, at + 1, b'.') {
        let table = plain(first).map(|table| TableName {
            database: None,
            table,
        });
        return Some((table, at + 1));
    }
    let second = name(pieces, at + 2)?;
    let table = plain(first).zip(plain(second));
    let table = table.map(|(database, table)| TableName {
        database: Some(database),
        table,
    });
    Some((table, at + 3))
}

fn name<'a>(pieces: &[Piece<'a>], at: usize) -> Option<&'a [u8]> {
    match pieces.get(at)?.0 {
        Token::Word(name) | Token::Quoted(name) => Some(name),
        _ => None,
    }
}

/// The same name in every character set, and however it is quoted.
pub(super) fn plain(name: &[u8]) -> Option<&[u8]> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-$. ".contains(byte);
    (!name.is_empty() && name.iter().all(plain)).then_some(name)
}

/// The contents of a string that is the same text in every character set and SQL mode.
fn literal<'a>(&(token, text): &Piece<'a>) -> Option<&'a [u8]> {
    const LONGEST: usize = 64;
    if token != Token::Str {
        return None;
    }
    let text = text.trim_ascii_start();
    let (quote, rest) = text.split_first()?;
    let (end, inner) = rest.split_last()?;
    let quoted = matches!(quote, b'\'' | b'"') && quote == end;
    let same = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-$.:/ ,;=+*".contains(byte);
    (quoted && (1..=LONGEST).contains(&inner.len()) && inner.iter().all(same)).then_some(inner)
}

fn word<'a>(pieces: &[Piece<'a>], at: usize) -> Option<&'a [u8]> {
    match pieces.get(at)?.0 {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

fn is(pieces: &[Piece<'_>], at: usize, expected: &str) -> bool {
    word(pieces, at).is_some_and(|found| found.eq_ignore_ascii_case(expected.as_bytes()))
}

fn has(pieces: &[Piece<'_>], expected: &str) -> bool {
    (0..pieces.len()).any(|at| is(pieces, at, expected))
}

fn punct(pieces: &[Piece<'_>], at: usize, sign: u8) -> bool {
    matches!(pieces.get(at), Some((Token::Punct(found), _)) if *found == sign)
}

fn is_empty_call(pieces: &[Piece<'_>]) -> bool {
    pieces.len() == 2 && punct(pieces, 0, b'(') && punct(pieces, 1, b')')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(sql: &str) -> Vec<Deed<'_>> {
        deeds(sql.as_bytes(), LexMode::default()).list
    }

    const fn table(name: &str) -> TableName<'_> {
        TableName {
            database: None,
            table: name.as_bytes(),
        }
    }

    const fn in_database<'a>(database: &'a str, name: &'a str) -> TableName<'a> {
        TableName {
            database: Some(database.as_bytes()),
            table: name.as_bytes(),
        }
    }

    #[test]
    fn temporary_tables_are_named() {
        use TableKind::{Sequence, Table};
        for (sql, kind, name) in [
            ("CREATE TEMPORARY TABLE t (a INT)", Table, Some(table("t"))),
            (
                "create or replace temporary table if not exists `d`.`t` select 1",
                Table,
                Some(in_database("d", "t")),
            ),
            (
                "CREATE TEMPORARY TABLE d . t LIKE u",
                Table,
                Some(in_database("d", "t")),
            ),
            ("CREATE TEMPORARY SEQUENCE s", Sequence, Some(table("s"))),
            ("CREATE TEMPORARY TABLE `a``b` (a INT)", Table, None),
            ("CREATE TEMPORARY TABLE `é` (a INT)", Table, None),
            ("CREATE GLOBAL TEMPORARY TABLE t (a INT)", Table, None),
            (
                "SET STATEMENT max_statement_time=1 FOR CREATE TEMPORARY TABLE t (a INT)",
                Table,
                Some(table("t")),
            ),
        ] {
            assert_eq!(list(sql), [Deed::Create(kind, name)], "{sql}");
        }
        assert_eq!(list("CREATE TABLE t (temporary INT)"), []);
        let ansi = LexMode {
            ansi_quotes: true,
            ..LexMode::default()
        };
        let found = deeds(br#"CREATE TEMPORARY TABLE "t" (a INT)"#, ansi);
        assert_eq!(found.list, [Deed::Create(Table, Some(table("t")))]);
        assert!(deeds(b"CREATE /*!TEMPORARY */ TABLE t (a INT)", ansi).doubtful);
    }

    #[test]
    fn drops_name_all_or_nothing_is_known() {
        use TableKind::{Sequence, Table};
        let both = vec![table("a"), in_database("d", "b")];
        assert_eq!(
            list("DROP TEMPORARY TABLE IF EXISTS a, d.b"),
            [Deed::Drop(Table, both)]
        );
        assert_eq!(
            list("DROP TABLES a RESTRICT"),
            [Deed::Drop(Table, vec![table("a")])]
        );
        assert_eq!(
            list("DROP SEQUENCE a"),
            [Deed::Drop(Sequence, vec![table("a")])]
        );
        assert_eq!(list("DROP VIEW a"), []);
        assert_eq!(list("DROP TABLE a b"), []);
    }

    #[test]
    fn renames_are_followed() {
        let (a, b) = (Some(table("a")), Some(table("b")));
        assert_eq!(list("ALTER TABLE a RENAME b"), [Deed::Rename(a, b)]);
        assert_eq!(list("ALTER TABLE a RENAME TO b"), [Deed::Rename(a, b)]);
        assert_eq!(
            list("ALTER TABLE a ADD c INT, RENAME TO b"),
            [Deed::Rename(a, None)]
        );
        assert_eq!(list("ALTER TABLE a RENAME COLUMN x TO y"), []);
        assert_eq!(
            list("RENAME TABLE a TO b, b TO a"),
            [Deed::MayRename(a, b), Deed::MayRename(b, a)]
        );
        assert_eq!(list("RENAME TABLE ?"), [Deed::MayRename(None, None)]);
    }

    #[test]
    fn handlers_go_by_their_alias() {
        assert_eq!(list("HANDLER d.t OPEN"), [Deed::OpenHandler(Some(b"t"))]);
        assert_eq!(
            list("HANDLER t OPEN AS `h`"),
            [Deed::OpenHandler(Some(b"h"))]
        );
        assert_eq!(list("HANDLER t OPEN h"), [Deed::OpenHandler(Some(b"h"))]);
        assert_eq!(list("HANDLER h CLOSE"), [Deed::CloseHandler(b"h")]);
        assert_eq!(list("HANDLER h READ FIRST"), []);
        assert_eq!(list("HANDLER `é` OPEN"), [Deed::OpenHandler(None)]);
    }

    #[test]
    fn locks_are_named_where_the_name_is_a_plain_string() {
        assert_eq!(list("SELECT GET_LOCK('a', 1)"), [Deed::GetLock(Some(b"a"))]);
        for sql in [
            "SELECT GET_LOCK(?, 1)",
            "SELECT GET_LOCK(name, 1) FROM t",
            "SELECT GET_LOCK('a' 'b', 1)",
            "SELECT GET_LOCK('a''b', 1)",
            r"SELECT GET_LOCK('a\'', 1)",
            "SELECT GET_LOCK(concat('a', 'b'), 1)",
            "SELECT GET_LOCK('', 1)",
        ] {
            assert_eq!(list(sql), [Deed::GetLock(None)], "{sql}");
        }
        assert_eq!(
            list("DO RELEASE_ALL_LOCKS()"),
            [Deed::MayRelease, Deed::ReleaseAll(Releasing::Do)]
        );
        assert_eq!(
            list("SELECT RELEASE_ALL_LOCKS() FROM t"),
            [Deed::MayRelease]
        );
        for (take, end, lock) in [
            (
                "FLUSH TABLES WITH READ LOCK",
                "UNLOCK TABLES",
                GlobalLock::Tables,
            ),
            (
                "FLUSH TABLES t FOR EXPORT",
                "UNLOCK TABLES",
                GlobalLock::Tables,
            ),
            (
                "LOCK INSTANCE FOR BACKUP",
                "UNLOCK INSTANCE",
                GlobalLock::Instance,
            ),
            ("BACKUP STAGE START", "BACKUP STAGE END", GlobalLock::Stage),
            ("BACKUP LOCK t", "BACKUP UNLOCK", GlobalLock::Backup),
        ] {
            assert_eq!(list(take), [Deed::Take(lock)], "{take}");
            assert_eq!(list(end), [Deed::End(lock)], "{end}");
        }
        assert_eq!(list("SET RESOURCE GROUP g"), [Deed::Lasting]);
    }

    #[test]
    fn variables_are_back_by_plain_text_only() {
        let back = [Deed::Assign(b"timestamp", Assigned::Initial)];
        for sql in [
            "SET timestamp=DEFAULT",
            "SET @@session.timestamp = 0",
            "SET LOCAL timestamp := 0",
        ] {
            assert_eq!(list(sql).len(), 1, "{sql}");
            assert_eq!(list(sql), back, "{sql}");
        }
        for sql in [
            "SET timestamp = 5",
            "SET timestamp = -0",
            "SET timestamp=0, time_zone=f()",
        ] {
            assert_eq!(
                list(sql),
                [Deed::Assign(b"timestamp", Assigned::Other)],
                "{sql}"
            );
        }
        assert_eq!(
            list("SET gtid_next = 'AUTOMATIC'"),
            [Deed::Assign(b"gtid_next", Assigned::Initial)]
        );
    }
}
