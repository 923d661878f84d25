//! Virtual variables: the client's wish is kept by its session, the backend's value is Sidepool's.

use super::value::narrow;

/// A virtual variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Virtual {
    /// `session_track_schema`.
    TrackSchema,
    /// `session_track_state_change`.
    TrackStateChange,
    /// `session_track_system_variables`.
    TrackSystemVariables,
    /// `session_track_transaction_info`.
    TrackTransactionInfo,
    /// `wait_timeout`.
    WaitTimeout,
    /// `interactive_timeout`.
    InteractiveTimeout,
}

impl Virtual {
    /// True for the trackers, which [`Catalog::setup_sql`](super::Catalog::setup_sql) restores; the others are
    /// restored by [`IdleTimeouts::set_sql`].
    pub const fn is_tracker(self) -> bool {
        !matches!(self, Self::WaitTimeout | Self::InteractiveTimeout)
    }
}

/// The two limits after which a server closes an idle connection, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleTimeouts {
    /// `wait_timeout`.
    pub wait: u64,
    /// `interactive_timeout`.
    pub interactive: u64,
}

impl IdleTimeouts {
    /// Reads both, in this order.
    pub const READ_SQL: &'static str = "SELECT @@wait_timeout,@@interactive_timeout LIMIT 1";

    /// From the row that [`READ_SQL`](Self::READ_SQL) brings; `None` if it is another.
    pub fn from_row(row: &[Option<&[u8]>]) -> Option<Self> {
        let number =
            |column: Option<&[u8]>| std::str::from_utf8(&narrow(column?)).ok()?.parse().ok();
        match *row {
            [wait, interactive] => Some(Self {
                wait: number(wait)?,
                interactive: number(interactive)?,
            }),
            _ => None,
        }
    }

    /// What a client that says `CLIENT_INTERACTIVE` begins with where these are the server's: as `wait_timeout` it
    /// has the server's `interactive_timeout` (measured on both servers).
    #[must_use]
    pub const fn of_interactive(self) -> Self {
        Self {
            wait: self.interactive,
            interactive: self.interactive,
        }
    }

    /// Sets both: a client's wish in front of a statement that reads it, Sidepool's own behind it.
    pub fn set_sql(self) -> String {
        let Self { wait, interactive } = self;
        format!("SET @@session.wait_timeout={wait},@@session.interactive_timeout={interactive}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_set() {
        let read = IdleTimeouts::from_row(&[Some(b"28800"), Some(b"5")]).unwrap();
        assert_eq!(
            read.set_sql(),
            "SET @@session.wait_timeout=28800,@@session.interactive_timeout=5"
        );
        assert_eq!(IdleTimeouts::from_row(&[Some(b"28800")]), None);
        assert_eq!(IdleTimeouts::from_row(&[None, Some(b"5")]), None);
        assert!(Virtual::TrackSchema.is_tracker() && !Virtual::WaitTimeout.is_tracker());
    }
}
