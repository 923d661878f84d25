//! Session variables as data: the catalog, interned states, read-back and replay. No sockets.
//!
//! The session loop asks a backend connection with the SQL made here and hands back the rows. Session
//! trackers say which names may have changed ([`Catalog::resolve`]), a read-back says to what
//! ([`Catalog::read_sql`]), a [`State`] holds the whole, and [`replay()`] makes another backend connection
//! have it. Facts about servers are in `names`, with what was measured.

mod baseline;
mod catalog;
mod names;
mod read;
mod replay;
mod store;
mod transitions;
mod user;
mod value;
mod virtuals;
mod weak;

pub use baseline::Baselines;
pub use catalog::{Catalog, Class, Discovery, Family, ReadBack, VarId};
pub(in crate::backend) use read::unhex;
pub use read::{ReadError, ReadQuery, Reading, SchemaColumn};
pub use replay::{DatabaseChange, Fit, Replay, Unreplayable, fit, replay};
pub use store::{State, StateIds, StateStore};
pub use transitions::KnownTransitions;
pub use user::{
    LEAST_PACKET, LIST_SQL, MOST_VARIABLES, NumberKind, UserQuery, UserReading, UserValue,
    UserVariables, is_plain_name,
};
pub use value::{ColumnKind, Value, narrow};
pub use virtuals::{IdleTimeouts, Virtual};
pub(in crate::backend) use weak::WeakTable;

#[cfg(test)]
pub(in crate::backend) mod testing;
