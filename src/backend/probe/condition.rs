//! What probes have found out about one backend, and how one more result changes it. No I/O.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// What a probe read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// `@@version`
    pub version: String,
    /// Whether ordinary accounts may write: neither `@@read_only` nor `@@super_read_only` is on.
    pub writable: bool,
    /// Whether it follows another server.
    pub replication: Replication,
    /// `@@max_connections`
    pub max_connections: Option<u64>,
    /// `@@global.wait_timeout`
    pub wait_timeout: Option<Duration>,
}

/// Whether a server follows another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replication {
    /// It follows none, or nobody has asked yet.
    #[default]
    None,
    /// The monitor's account may not see it.
    Hidden,
    /// It follows, or tries to reach its source again.
    Running {
        /// By how much it is behind, as the server says; `None`: the server does not know.
        lag: Option<Duration>,
    },
    /// It was told to follow and does not: stopped, or failed.
    Stopped,
}

/// What a backend is, as far as probes can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not probed yet, or it answers and does not let itself be asked.
    Unknown,
    /// It accepts writes.
    Writer,
    /// It is read-only.
    Replica,
    /// It does not answer.
    Down(DownReason),
}

/// Why a backend is taken to be down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DownReason {
    /// No connection could be made.
    Unreachable,
    /// It did not answer within `backend.connect_timeout`.
    Timeout,
    /// It broke the connection, or says that it is shutting down.
    Lost,
}

/// Why a probe has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error("{0}")]
    Unreachable(String),
    /// Not in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke.
    #[error("{0}")]
    Lost(String),
    /// The server has no room (1040, 1203, 1226), or the pool has none.
    #[error("no room for the probe's connection: {0}")]
    Full(String),
    /// The server refuses the monitor's account.
    #[error(
        "the server refuses the account of backend.monitor_user \
         (its password is read from backend.monitor_password_file): {0}"
    )]
    Denied(String),
    /// The password may not be sent on this connection, or TLS cannot be had as `backend.tls` demands.
    #[error("{0}")]
    Insecure(String),
    /// The server answers, but not to the question.
    #[error("the server could not be asked: {0}")]
    Query(String),
}

/// Everything that probes know of one backend.
#[derive(Debug, Clone)]
pub struct Condition {
    /// What it is.
    pub standing: Standing,
    /// Since when it is that.
    pub since: Instant,
    /// Whether it follows another server, as last seen.
    pub replication: Replication,
    /// Whether somebody made it writable while Sidepool looked on.
    pub promotion: Promotion,
    /// The last failure, kept after it has come back.
    pub failure: Option<Failure>,
    /// Whether the last probe failed.
    pub latest: Latest,
}

/// A probe that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Why.
    pub error: Arc<ProbeError>,
    /// When.
    pub at: Instant,
}

/// Whether a server that is writable was made so on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Promotion {
    /// It was not seen read-only since it answered first; a restart forgets a `SET GLOBAL`.
    #[default]
    Unseen,
    /// It was seen read-only, and has answered all the time since.
    Possible,
}

/// How the last probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latest {
    /// There was none.
    None,
    /// With a result.
    Answered,
    /// With an error.
    Failed,
}

/// What a probe's result changed, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing worth a line.
    Nothing,
    /// The standing.
    Standing(Standing),
    /// It cannot be asked for another reason than before.
    Error,
}

impl Condition {
    /// Before the first probe.
    pub fn new(now: Instant) -> Self {
        Self {
            standing: Standing::Unknown,
            since: now,
            replication: Replication::None,
            promotion: Promotion::Unseen,
            failure: None,
            latest: Latest::None,
        }
    }

    /// Takes one probe's result in.
    pub fn note(&mut self, result: &Result<Observation, Arc<ProbeError>>, now: Instant) -> Change {
        let before = (self.standing, self.latest);
        let standing = match result {
            Ok(seen) => {
                self.replication = seen.replication;
                self.latest = Latest::Answered;
                match seen.writable {
                    true => Standing::Writer,
                    false => {
                        self.promotion = Promotion::Possible;
                        Standing::Replica
                    }
                }
            }
            Err(error) => {
                self.latest = Latest::Failed;
                if matches!(error.standing(), Standing::Down(_)) {
                    self.promotion = Promotion::Unseen;
                }
                error.standing()
            }
        };
        let mut change = Change::Nothing;
        if let Err(error) = result {
            let same = |known: &Failure| known.error.is_like(error);
            if before.1 != Latest::Failed || !self.failure.as_ref().is_some_and(same) {
                change = Change::Error;
            }
            let error = Arc::clone(error);
            self.failure = Some(Failure { error, at: now });
        }
        if standing != self.standing {
            self.standing = standing;
            self.since = now;
            change = Change::Standing(before.0);
        }
        change
    }

    /// Whether it answers and says what it is.
    pub const fn is_known(&self) -> bool {
        matches!(self.standing, Standing::Writer | Standing::Replica)
    }
}

impl ProbeError {
    /// What a server is that answers so.
    const fn standing(&self) -> Standing {
        match self {
            Self::Unreachable(_) => Standing::Down(DownReason::Unreachable),
            Self::Timeout(_) => Standing::Down(DownReason::Timeout),
            Self::Lost(_) => Standing::Down(DownReason::Lost),
            Self::Full(_) | Self::Denied(_) | Self::Insecure(_) | Self::Query(_) => {
                Standing::Unknown
            }
        }
    }

    /// Whether asking again soon may be held against Sidepool, or needs an operator to help.
    pub const fn is_stubborn(&self) -> bool {
        matches!(
            self,
            Self::Denied(_) | Self::Insecure(_) | Self::Query(_) | Self::Full(_)
        )
    }

    /// Whether it is the same trouble, maybe in other words.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Standing {
    /// The word in log and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Writer => "writer",
            Self::Replica => "replica",
            Self::Down(_) => "down",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(reason) => write!(f, "down ({})", reason.as_str()),
            other => f.write_str(other.as_str()),
        }
    }
}

impl DownReason {
    /// The word in log and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
        }
    }
}

impl Replication {
    /// The word in log and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hidden => "hidden",
            Self::Running { .. } => "running",
            Self::Stopped => "stopped",
        }
    }

    /// By how much it is behind.
    pub const fn lag(self) -> Option<Duration> {
        match self {
            Self::Running { lag } => lag,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(writable: bool) -> Result<Observation, Arc<ProbeError>> {
        Ok(Observation {
            version: "10.11.19-MariaDB".into(),
            writable,
            replication: Replication::Running {
                lag: Some(Duration::from_secs(3)),
            },
            max_connections: Some(151),
            wait_timeout: None,
        })
    }

    fn failed(error: ProbeError) -> Result<Observation, Arc<ProbeError>> {
        Err(Arc::new(error))
    }

    #[tokio::test(start_paused = true)]
    async fn a_standing_keeps_its_beginning_and_the_last_failure_stays() {
        let start = Instant::now();
        let mut condition = Condition::new(start);
        assert!(!condition.is_known());
        let second = Duration::from_secs(1);
        let change = condition.note(&seen(false), start + second);
        assert_eq!(change, Change::Standing(Standing::Unknown));
        assert_eq!(
            condition.note(&seen(false), start + second * 2),
            Change::Nothing
        );
        assert_eq!(condition.since, start + second);
        assert_eq!(condition.replication.lag(), Some(second * 3));

        let lost = failed(ProbeError::Lost("end of file".into()));
        let change = condition.note(&lost, start + second * 3);
        assert_eq!(change, Change::Standing(Standing::Replica));
        assert_eq!(condition.standing, Standing::Down(DownReason::Lost));
        assert_eq!(condition.standing.to_string(), "down (lost)");
        // Another kind of being down is another standing.
        let refused = failed(ProbeError::Unreachable("refused".into()));
        let change = condition.note(&refused, start + second * 4);
        assert_eq!(change, Change::Standing(Standing::Down(DownReason::Lost)));
        assert_eq!(
            condition.note(&refused, start + second * 5),
            Change::Nothing
        );

        let change = condition.note(&seen(true), start + second * 6);
        assert_eq!(
            change,
            Change::Standing(Standing::Down(DownReason::Unreachable))
        );
        assert_eq!(
            condition.promotion,
            Promotion::Unseen,
            "its setting may have been lost in between"
        );
        let failure = condition.failure.unwrap();
        assert_eq!(failure.error.to_string(), "refused");
        assert_eq!(failure.at, start + second * 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_be_asked_is_unknown_and_said_once() {
        let start = Instant::now();
        let mut condition = Condition::new(start);
        let denied = |text: &str| failed(ProbeError::Denied(text.into()));
        assert_eq!(condition.note(&denied("1045 a"), start), Change::Error);
        assert_eq!(condition.note(&denied("1045 b"), start), Change::Nothing);
        assert_eq!(condition.standing, Standing::Unknown);
        let full = failed(ProbeError::Full("1040".into()));
        assert_eq!(condition.note(&full, start), Change::Error);
        condition.note(&seen(true), start);
        assert_eq!(condition.promotion, Promotion::Unseen);
        let change = condition.note(&denied("1045 a"), start);
        assert_eq!(change, Change::Standing(Standing::Writer));
        // It was all right in between.
        condition.note(&seen(true), start);
        condition.note(&full, start);
        assert_eq!(condition.note(&denied("1045"), start), Change::Error);
    }
}
