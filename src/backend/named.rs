//! The statements that were prepared by SQL text on a backend connection, by their names.
//!
//! A name means something to one session only; the connection just remembers what it was last given.
//! Names are compared in lower case; they are printable ASCII without quotes.

use std::sync::Arc;

use lru::LruCache;

use super::state::State;

/// Names that one connection keeps. A session that uses more is pinned.
pub const MOST_NAMES: usize = 64;

/// What was prepared, and how it was to be read: enough to prepare it elsewhere.
#[derive(Debug)]
pub struct NamedStatement {
    /// The whole `PREPARE` statement, as the client wrote it.
    pub sql: Box<[u8]>,
    /// The state of the session that prepared it.
    pub state: State,
    /// The user variables of that state matter as well: its text is in one, or it is of MySQL and names some,
    /// whose types are found out when it is prepared (9.7.4; MariaDB 10.11.19 finds them out anew).
    pub reads_user: bool,
}

impl NamedStatement {
    /// Whether both are the same statement, read the same way.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || self.state.parse_id() == other.state.parse_id()
                && self.sql == other.sql
                && (!self.reads_user || self.state.user() == other.state.user())
    }
}

/// What a connection has under a name.
#[derive(Debug)]
enum Held {
    /// A statement that could be prepared elsewhere too.
    Carried {
        statement: Arc<NamedStatement>,
        /// Whose parameters it has been executed with.
        bound: Option<Bound>,
    },
    /// Something that is only here.
    Only,
    /// What was there before something failed, or nothing.
    Uncertain,
}

/// The history of a statement that keeps something of its executions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The client that executed it.
    pub client: u32,
    /// How often, since it was prepared.
    pub executions: u64,
}

/// What one connection has prepared by name; least recently used go first.
#[derive(Debug)]
pub struct NamedStatements(LruCache<Box<[u8]>, Held>);

impl Default for NamedStatements {
    fn default() -> Self {
        // Bounded by whoever adds: what is pushed out must be deallocated at the server.
        Self(LruCache::unbounded())
    }
}

impl NamedStatements {
    /// Whether this is prepared under that name, and has been executed just as often by that client or by
    /// nobody. It counts as a use.
    pub fn holds(&mut self, name: &[u8], statement: &NamedStatement, history: Bound) -> bool {
        match self.0.get(name) {
            Some(Held::Carried {
                statement: held,
                bound,
            }) => held.is_same(statement) && bound.is_none_or(|bound| bound == history),
            _ => false,
        }
    }

    /// Whether anything may be prepared under that name.
    pub fn has(&self, name: &[u8]) -> bool {
        self.0.contains(name)
    }

    /// Whether it is not known if anything is prepared under that name.
    pub fn is_uncertain(&self, name: &[u8]) -> bool {
        matches!(self.0.peek(name), Some(Held::Uncertain))
    }

    /// It was prepared; `None`: something that cannot be prepared elsewhere.
    pub fn put(&mut self, name: &[u8], statement: Option<Arc<NamedStatement>>) {
        let held = statement.map_or(Held::Only, |statement| Held::Carried {
            statement,
            bound: None,
        });
        self.0.put(name.into(), held);
    }

    /// It was executed, and keeps something of that.
    pub fn bind(&mut self, name: &[u8], history: Bound) {
        if let Some(Held::Carried { bound, .. }) = self.0.peek_mut(name) {
            *bound = Some(history);
        }
    }

    /// Something failed that may have deallocated it.
    pub fn doubt(&mut self, name: &[u8]) {
        if let Some(held) = self.0.peek_mut(name) {
            *held = Held::Uncertain;
        }
    }

    /// It was deallocated.
    pub fn remove(&mut self, name: &[u8]) {
        self.0.pop(name);
    }

    /// The connection was reset.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All names, least recently used last.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Takes out the least recently used, once there are [`MOST_NAMES`], to be deallocated. What is only
    /// here stays.
    pub fn take_surplus(&mut self) -> Option<Box<[u8]>> {
        if self.0.len() < MOST_NAMES {
            return None;
        }
        let oldest_first = self.0.iter().rev();
        let mut can_go = oldest_first.filter(|(_, held)| matches!(held, Held::Carried { .. }));
        let name = can_go.next().map(|(name, _)| name.clone())?;
        self.0.pop(&name);
        Some(name)
    }
}

/// `DEALLOCATE PREPARE name`. The quotes are letters in the charset `swe7` only.
pub fn deallocate_sql(name: &[u8]) -> Vec<u8> {
    [b"DEALLOCATE PREPARE `", name, b"`"].concat()
}

/// Prepares something that can always be prepared.
pub fn placeholder_sql(name: &[u8]) -> Vec<u8> {
    [b"PREPARE `", name, b"` FROM 'DO 0'"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::state::testing;

    fn statement(sql: &str, schema: &str) -> Arc<NamedStatement> {
        let state = testing::first_state().with_schema(Some(schema.as_bytes()));
        let sql = sql.as_bytes().into();
        Arc::new(NamedStatement {
            sql,
            state,
            reads_user: false,
        })
    }

    const NONE: Bound = Bound {
        client: 1,
        executions: 0,
    };

    #[test]
    fn a_bound_statement_serves_its_own_client_at_that_point_only() {
        let mut named = NamedStatements::default();
        let made = statement("PREPARE x FROM 'SELECT ?'", "a");
        named.put(b"x", Some(Arc::clone(&made)));
        let once = Bound {
            executions: 1,
            ..NONE
        };
        assert!(named.holds(b"x", &made, NONE) && named.holds(b"x", &made, once));
        named.bind(b"x", once);
        assert!(named.holds(b"x", &made, once));
        assert!(!named.holds(b"x", &made, NONE));
        assert!(!named.holds(b"x", &made, Bound { client: 2, ..once }));
        named.doubt(b"x");
        assert!(named.has(b"x") && named.is_uncertain(b"x"));
        assert!(!named.holds(b"x", &made, once));
    }

    #[test]
    fn a_statement_is_its_text_read_one_way() {
        let first = testing::first_state();
        let of = |sql: &str, schema: &str| NamedStatement {
            sql: sql.as_bytes().into(),
            state: first.with_schema(Some(schema.as_bytes())),
            reads_user: false,
        };
        let one = of("PREPARE s FROM 'DO 1'", "a");
        assert!(one.is_same(&of("PREPARE s FROM 'DO 1'", "a")));
        assert!(!one.is_same(&of("PREPARE s FROM 'DO 1'", "b")));
        assert!(!one.is_same(&of("PREPARE s FROM 'DO 2'", "a")));
    }

    #[test]
    fn the_least_recently_used_goes_unless_it_can_only_be_here() {
        let mut named = NamedStatements::default();
        named.put(b"bound", None);
        let made = statement("PREPARE x FROM 'DO 1'", "a");
        for number in 1..MOST_NAMES {
            assert_eq!(named.take_surplus(), None);
            named.put(format!("s{number}").as_bytes(), Some(Arc::clone(&made)));
        }
        assert!(named.holds(b"s1", &made, NONE));
        assert_eq!(named.take_surplus().as_deref(), Some(&b"s2"[..]));
        assert!(!named.has(b"s2") && named.has(b"bound"));
        assert!(!named.holds(b"bound", &made, NONE));
        named.clear();
        assert!(named.is_empty());
    }
}
