//! One statement prepared by Sidepool itself: into its state, prepare, and back.

use std::sync::Arc;

use crate::backend::connection::{BackendConnection, StatementError};
use crate::backend::state::{DatabaseChange, Replay};
use crate::backend::statements::StatementKey;
use crate::protocol::command::Command;
use crate::relay::ErrorInfo;
use crate::relay::own::OwnError;
use crate::session::exchange::Hold;

/// How an own preparation ended.
pub(super) enum Made {
    Id(u32),
    Refused(ErrorInfo),
}

/// An own preparation in one write: the way into the statement's state, and back.
pub(super) struct Trip {
    pub(super) there: Option<(Arc<Replay>, Arc<Replay>)>,
    /// Own commands in front, to be answered first.
    pub(super) own: u16,
}

/// Why a preparation has no end.
pub(super) enum Failed {
    /// What brings the connection into the session's state was refused.
    Replay(ErrorInfo),
    Connection(StatementError),
}

impl From<StatementError> for Failed {
    fn from(error: StatementError) -> Self {
        Self::Connection(error)
    }
}

impl Trip {
    /// All in one write: preparing has no effect, so that it may go wrong in the wrong place.
    pub(super) async fn run(self, hold: &mut Hold, key: &StatementKey) -> Result<Made, Failed> {
        let lease = &mut hold.lease;
        lease.put_closes();
        if let Some((there, _)) = &self.there {
            put(lease, there);
        }
        lease.put_prepare(key.text());
        if let Some((_, back)) = &self.there {
            put(lease, back);
        }
        lease.send().await?;
        for _ in 0..self.own {
            if let Some(error) = refusal(hold).await? {
                return Err(Failed::Replay(error));
            }
        }
        let Some((there, back)) = &self.there else {
            return prepared(hold).await;
        };
        let not_set = set_answer(hold, there).await?;
        let not_there = database_answer(hold, there).await?;
        let made = prepared(hold).await?;
        let not_back = set_answer(hold, back).await?;
        let not_back = match not_set {
            // All or nothing, there and back.
            Some(_) => None,
            None => not_back,
        };
        let not_back = match not_back {
            None => database_answer(hold, back).await?,
            error => error,
        };
        if let Some(error) = not_back {
            return Err(Failed::Connection(OwnError::Server(error).into()));
        }
        match (not_set.or(not_there), made) {
            (None, made) => Ok(made),
            (Some(error), made) => {
                if let Made::Id(id) = made {
                    hold.lease.statements.close(id);
                }
                Ok(Made::Refused(error))
            }
        }
    }
}

fn put(lease: &mut BackendConnection, replay: &Replay) {
    if let Some(sql) = &replay.set_sql {
        lease.put_query(sql);
    }
    match &replay.database {
        DatabaseChange::None => {}
        DatabaseChange::Pipelined(name) | DatabaseChange::Awaited(name) => {
            lease.put_command(Command::InitDb, name);
        }
    }
}

async fn set_answer(hold: &mut Hold, replay: &Replay) -> Result<Option<ErrorInfo>, Failed> {
    match replay.set_sql {
        Some(_) => refusal(hold).await,
        None => Ok(None),
    }
}

async fn database_answer(hold: &mut Hold, replay: &Replay) -> Result<Option<ErrorInfo>, Failed> {
    match replay.database {
        DatabaseChange::None => Ok(None),
        _ => refusal(hold).await,
    }
}

async fn prepared(hold: &mut Hold) -> Result<Made, Failed> {
    match hold.lease.read_prepared().await {
        Ok(id) => Ok(Made::Id(id)),
        Err(StatementError::Own(OwnError::Server(error))) => Ok(Made::Refused(error)),
        Err(error) => Err(error.into()),
    }
}

/// Reads one OK, or the error in its place.
async fn refusal(hold: &mut Hold) -> Result<Option<ErrorInfo>, Failed> {
    match hold.lease.read_ok().await {
        Ok(answer) => {
            // It may be the first to tell what the client's last statement did.
            hold.pending.note_transaction(&answer.trackers);
            Ok(None)
        }
        Err(StatementError::Own(OwnError::Server(error))) => Ok(Some(error)),
        Err(error) => Err(error.into()),
    }
}
