//! Statements prepared by `COM_STMT_PREPARE`, by the ids that the client knows them under.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::state::State;
use crate::backend::statements::{Binding, StatementKey, Use};
use crate::relay::ErrorInfo;
use crate::session::scan::{Findings, LexMode};

/// The first own id.
const FIRST_ID: u32 = 1 << 30;
/// What MariaDB takes for the statement prepared last.
pub(in crate::session) const LAST: u32 = u32::MAX;

/// A session's open statements. Without any, it costs one word.
#[derive(Debug, Default)]
pub(in crate::session) struct Statements(Option<Box<Open>>);

#[derive(Debug, Default)]
struct Open {
    statements: HashMap<u32, Statement>,
    /// How many ids were given.
    given: u32,
    /// The one that was prepared last, unless it is closed or another failed since.
    last: Option<u32>,
    /// How many have something on the held connection that outlives a command.
    holding: usize,
}

/// One open statement.
#[derive(Debug)]
pub(in crate::session) struct Statement {
    pub(in crate::session) key: Arc<StatementKey>,
    /// What the scan found when it was prepared.
    pub(in crate::session) findings: Findings,
    /// How its text is read.
    pub(in crate::session) lex: LexMode,
    pub(in crate::session) params: u16,
    /// The types of its parameters, as the client sent them last.
    pub(in crate::session) types: Option<Box<[u8]>>,
    /// What it has on the held connection for itself.
    pub(in crate::session) alone: Option<Alone>,
    /// Long data could not be brought to a server, for this reason: what executing it says.
    pub(in crate::session) error: Option<Box<ErrorInfo>>,
}

/// A statement on the held connection that belongs to one own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) struct Alone {
    /// The server's id.
    pub(in crate::session) id: u32,
    /// For what it was prepared.
    pub(in crate::session) usage: Use,
    pub(in crate::session) why: Why,
    /// It was executed with parameters of different types.
    pub(in crate::session) mixed: bool,
}

/// Where the types of an execution's parameters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Bound {
    /// There are no parameters.
    None,
    /// The statement's are those.
    Known,
    /// Nobody knows them.
    Unknown,
}

/// Why a statement is not shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Why {
    /// It has parameters' data.
    LongData,
    /// It was sent data for a parameter that it has not: servers refuse to execute it until it is reset.
    Spoilt,
    /// A cursor is open.
    Cursor,
    /// It cannot be prepared again: its text is not known, or it asks for the database and there was none.
    Unrepeatable,
}

/// What a command has to do with prepared statements.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) enum Errand {
    /// It prepares one.
    Prepare(Findings),
    /// It executes one.
    Execute {
        own: u32,
        usage: Use,
        bound: Bound,
        /// Bytes put into the first of several packets.
        more: usize,
        /// Packets that were made of one.
        ahead: u8,
    },
    /// It sends data for a parameter.
    LongData { own: u32, param: u16 },
    /// It is about what a statement has on the held connection.
    Reset { own: u32 },
    /// The same.
    Fetch { own: u32 },
    /// It names a statement that there is not.
    Stranger(u32),
}

impl Alone {
    /// One that has not been executed for itself yet.
    pub(in crate::session) const fn new(id: u32, usage: Use, why: Why) -> Self {
        Self {
            id,
            usage,
            why,
            mixed: false,
        }
    }
}

impl Statement {
    /// What an execution says of its parameters, to a server that depends on earlier ones or does not.
    pub(super) fn binding(&self, bound: Bound, depends: bool) -> Binding<'_> {
        match (bound, &self.types) {
            (Bound::None, _) => Binding::None,
            (Bound::Known, Some(types)) if depends => Binding::Typed(types),
            (Bound::Known, Some(_)) => Binding::Typed(b""),
            (Bound::Known, None) | (Bound::Unknown, _) => Binding::Unbound,
        }
    }
}

impl Statements {
    /// How many are open.
    pub(in crate::session) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |open| open.statements.len())
    }

    /// The own id that is meant by `id`.
    pub(in crate::session) fn resolve(&self, id: u32, is_mariadb: bool) -> Option<u32> {
        let open = self.0.as_ref()?;
        let id = match id {
            LAST if is_mariadb => open.last?,
            id => id,
        };
        open.statements.contains_key(&id).then_some(id)
    }

    #[inline]
    pub(in crate::session) fn get(&mut self, own: u32) -> Option<&mut Statement> {
        self.0.as_mut()?.statements.get_mut(&own)
    }

    /// The id that the next statement gets.
    pub(in crate::session) fn next_id(&self) -> u32 {
        const IDS: u32 = LAST - FIRST_ID;
        let Some(open) = &self.0 else { return FIRST_ID };
        let mut given = open.given;
        while open.statements.contains_key(&(FIRST_ID + given % IDS)) {
            given = given.wrapping_add(1);
        }
        FIRST_ID + given % IDS
    }

    /// A statement was prepared and its client told `own`.
    pub(in crate::session) fn open(&mut self, own: u32, statement: Statement) {
        let open = self.0.get_or_insert_default();
        open.given = (own - FIRST_ID).wrapping_add(1);
        open.last = Some(own);
        open.holding += usize::from(statement.alone.is_some());
        open.statements.insert(own, statement);
    }

    /// A statement was not prepared after all.
    pub(in crate::session) fn not_opened(&mut self) {
        if let Some(open) = &mut self.0 {
            open.last = None;
        }
    }

    /// Closes one.
    pub(in crate::session) fn close(&mut self, own: u32) -> Option<Statement> {
        let open = self.0.as_mut()?;
        if open.last == Some(own) {
            open.last = None;
        }
        let statement = open.statements.remove(&own)?;
        open.holding -= usize::from(statement.alone.is_some());
        Some(statement)
    }

    /// What a statement has for itself from now on.
    pub(in crate::session) fn set_alone(&mut self, own: u32, alone: Option<Alone>) {
        let Some(open) = &mut self.0 else { return };
        if let Some(statement) = open.statements.get_mut(&own) {
            open.holding -= usize::from(statement.alone.is_some());
            open.holding += usize::from(alone.is_some());
            statement.alone = alone;
        }
    }

    /// Whether something on the held connection keeps it.
    pub(in crate::session) fn hold(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.holding > 0)
    }

    /// The held connection is gone, with what was on it; the server's ids of that.
    pub(in crate::session) fn drop_alone(&mut self) -> Vec<u32> {
        let Some(open) = &mut self.0 else {
            return Vec::new();
        };
        open.holding = 0;
        let statements = open.statements.values_mut();
        statements
            .filter_map(|statement| Some(statement.alone.take()?.id))
            .collect()
    }

    /// All are closed.
    pub(in crate::session) fn clear(&mut self) {
        self.0 = None;
    }

    /// They go on in other states: `rebase` tells what becomes of one. `None`, and nothing is changed, if that is
    /// not possible.
    pub(in crate::session) fn rebase(
        &mut self,
        rebase: impl Fn(&State) -> Option<State>,
    ) -> Option<()> {
        let Some(open) = &mut self.0 else {
            return Some(());
        };
        let keys: Option<Vec<_>> = open
            .statements
            .iter()
            .map(|(own, statement)| {
                let state = rebase(statement.key.state())?;
                Some((*own, StatementKey::of(statement.key.text(), &state)))
            })
            .collect();
        for (own, key) in keys? {
            if let Some(statement) = open.statements.get_mut(&own) {
                statement.key = key;
            }
        }
        Some(())
    }
}
