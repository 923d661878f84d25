//! What is known of one database server: version, variables, limits.

use std::sync::Arc;
use std::time::Duration;

use super::state::{Catalog, Family, IdleTimeouts, StateIds, StateStore};
use crate::protocol::capability::Capabilities;

/// What a server's greeting shows before anybody has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeted {
    /// The version string, as clients are greeted with it.
    pub version: Box<str>,
    /// What the server can do.
    pub capabilities: Capabilities,
    /// Its default collation's id.
    pub collation: u8,
    /// Status flags of a fresh connection (autocommit).
    pub status: u16,
}

impl Greeted {
    /// Which family of servers it is.
    pub fn family(&self) -> Family {
        Family::of_version(&self.version)
    }
}

/// What is learnt of a server by its first login.
#[derive(Debug)]
pub struct ServerFacts {
    /// Its greeting.
    pub greeted: Greeted,
    /// Its session variables.
    pub catalog: Arc<Catalog>,
    /// The states of its connections and sessions.
    pub store: StateStore,
    /// Whether it has session trackers; without them every session is pinned.
    pub trackers: bool,
}

impl ServerFacts {
    /// Whether it has `CURRENT_ROLE()`: MySQL from 8.0 on; MariaDB has had it for longer than trackers.
    pub fn has_roles(&self) -> bool {
        let is_old = || self.greeted.version.starts_with("5.");
        self.trackers && (self.greeted.family() == Family::MariaDb || !is_old())
    }

    /// The facts of a server with these variables.
    pub fn new(greeted: Greeted, catalog: Catalog, ids: StateIds, trackers: bool) -> Self {
        let catalog = Arc::new(catalog);
        let store = StateStore::new(Arc::clone(&catalog), ids);
        Self {
            greeted,
            catalog,
            store,
            trackers,
        }
    }
}

/// Values of the server that a login shows and that may change between logins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerLimits {
    /// `@@max_connections`
    pub max_connections: Option<u64>,
    /// `@@max_prepared_stmt_count`
    pub max_prepared: Option<u64>,
    /// `@@wait_timeout` of this connection.
    pub wait_timeout: Option<Duration>,
}

/// The session's virtual variables as a fresh connection has them, before Sidepool sets its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Virtuals {
    /// `wait_timeout` and `interactive_timeout`.
    pub idle: Option<IdleTimeouts>,
    /// `session_track_system_variables`; `None` where the server has no trackers, as below.
    pub track_system_variables: Option<Box<str>>,
    /// `session_track_schema`
    pub track_schema: Option<Box<str>>,
    /// `session_track_state_change`
    pub track_state_change: Option<Box<str>>,
    /// `session_track_transaction_info`
    pub track_transaction_info: Option<Box<str>>,
}

impl Virtuals {
    /// Sets the trackers to what they were before Sidepool's own; `None` where there are none.
    ///
    /// Literals carry their charset, so that none of the session's own garbles them.
    pub fn trackers_sql(&self) -> Option<String> {
        let number = |value: &Option<Box<str>>| match value.as_deref() {
            Some("1" | "ON") => "1",
            _ => "0",
        };
        Some(format!(
            "SET @@session.session_track_system_variables=_latin1'{}',\
             @@session.session_track_schema={},@@session.session_track_state_change={},\
             @@session.session_track_transaction_info=_latin1'{}'",
            self.track_system_variables.as_deref()?,
            number(&self.track_schema),
            number(&self.track_state_change),
            self.track_transaction_info.as_deref().unwrap_or("OFF"),
        ))
    }
}
