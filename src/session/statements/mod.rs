//! A session's prepared statements: their own ids, what they were prepared as, and which backend
//! connection has what of them.
//!
//! The client's ids are Sidepool's, from 2^30 on, so that no server's equals one (MariaDB's count up to
//! that, MySQL's begin anew on each connection). What the server has under which id is known to each backend
//! connection ([`crate::backend::statements`]).

mod binary;
mod commands;
mod here;
mod outcome;
pub(crate) mod packet;
pub(super) mod text;
mod trip;

pub(super) use binary::{Errand, Statements};
pub(super) use here::Ready;

use std::sync::Arc;

use super::scan::LexMode;
use super::work::Work;
use crate::backend::statements::StatementKey;

/// The text of a command's statement.
#[derive(Debug)]
pub(super) enum Text {
    /// It has none.
    None,
    /// It begins there in the packet.
    At(usize),
    /// It was sent when the statement was prepared, to be read so.
    Of(Arc<StatementKey>, LexMode),
    /// It stands in the packet as a literal, or was sent so before; to be read so.
    Inner(Arc<[u8]>, LexMode),
}

impl Work {
    /// Whether it is about a prepared statement, so that a connection which has it is the best.
    pub(super) const fn is_prepared(&self) -> bool {
        let by_id = matches!(
            self.errand,
            Some(Errand::Prepare(_) | Errand::Execute { .. })
        );
        by_id || self.names.is_some()
    }

    /// Whether it prepares a statement.
    pub(super) const fn prepares(&self) -> bool {
        matches!(self.errand, Some(Errand::Prepare(_)))
    }

    /// Bytes put into the first of its packets, and packets made of one.
    pub(super) const fn grown(&self) -> (usize, u8) {
        match self.errand {
            Some(Errand::Execute { more, ahead, .. }) => (more, ahead),
            _ => (0, 0),
        }
    }
}
