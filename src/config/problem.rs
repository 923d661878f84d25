//! What is wrong with settings, in one line each.

use std::fmt;

/// One thing wrong (or, from [`warnings`](super::Settings::warnings), doubtful) with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, environment variable or file that is at fault.
    pub subject: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    pub(super) fn new(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    /// Always one line, whatever a file name or value contains.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = format!("{}: {}", self.subject, self.message);
        f.write_str(&line.replace(|c: char| c.is_control(), " "))
    }
}

/// Everything found wrong; never empty as an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(super) fn one(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self(vec![Problem::new(subject, message)])
    }

    pub(super) fn push(&mut self, subject: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::new(subject, message));
    }

    /// An error if there is any problem.
    pub(super) fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}
