//! Settings: their types, defaults, loading, validation and live changes.
//!
//! `settings`, `client` and `auth` hold one struct per section; `schema` is the one table of keys.

mod text;

mod address;
mod auth;
mod client;
mod files;
mod live;
mod load;
mod pattern;
mod problem;
mod schema;
mod settings;
mod validate;
mod words;

pub use crate::protocol::auth::Secret;
pub use address::{BackendAddress, ListenAddress};
pub use auth::{Admission, AllowRule, AuthSettings, UserSettings};
pub use client::{
    AutoSettings, ClientIdentity, ClientOverrides, ClientRule, ClientSettings, EffectiveClient,
};
pub use files::Secrets;
pub use live::{Change, Live, Outcome};
pub use load::{DEFAULT_FILE, Environment, load};
pub use pattern::Pattern;
pub use problem::{Problem, Problems};
pub use schema::{KEYS, Key, Liveness};
pub use settings::{
    AdminSettings, BackendSettings, BackendTls, ConsoleSettings, ListenerSettings, ListenerTls,
    LogSettings, PoolSettings, ServerSettings, Settings,
};
pub use text::{format_duration, parse_duration, unless_zero};
pub use words::{
    AuthMode, BackendTlsMode, ByteSize, ClientTlsMode, CloseNotice, IdleMode, Keepalive, LogFormat,
    LogLevel, OnPin, PingMode, Role,
};
