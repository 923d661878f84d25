//! What sessions share, and what a login hands to its session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::directory::{Directory, Identity};
use super::scan::Scanner;
use super::watch::StaleWatch;
use crate::backend::key::PoolKey;
use crate::backend::route::{Placement, Route};
use crate::backend::state::State;
use crate::client::connection::ClientFacts;
use crate::config::Live;
use crate::metrics::Metrics;
use crate::protocol::capability::Capabilities;
use crate::relay::{Conn, ErrorInfo};

/// What all sessions of one listener share.
pub struct SessionContext {
    /// The settings; live ones are read when they are needed, never kept.
    pub settings: Arc<Live>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// Where the sessions borrow.
    pub route: Route,
    /// Who is connected; it also tells sessions of the drain and of changed settings.
    pub directory: Arc<Directory>,
    /// Reads statements.
    pub scanner: Scanner,
    /// Closed clients that are watched for a stale use; one for all listeners.
    pub watch: Arc<StaleWatch>,
    /// Logs clients in again for `COM_CHANGE_USER`.
    pub readmission: Arc<dyn Readmission>,
}

impl SessionContext {
    /// Where a session begins, as soon as there is such a server; `None` if none came within
    /// `pool.borrow_timeout`. Cancel safe.
    pub async fn place(&self) -> Option<Placement> {
        let limit = self.settings.load().pool.borrow_timeout;
        self.route.pick_by(Instant::now() + limit).await
    }
}

/// What the connection phase found out about a client and its session.
#[derive(Debug, Clone)]
pub struct Login {
    /// Whose backend connections the session borrows.
    pub key: PoolKey,
    /// The server that `first` and `state` are of.
    pub placement: Placement,
    /// What was negotiated with the client.
    pub capabilities: Capabilities,
    /// The state that a real login shows, without a database; see [`Target::first_state`](crate::backend::target::Target::first_state).
    pub first: State,
    /// The same in the database that the client asked for.
    pub state: State,
    /// Who the client is.
    pub identity: Identity,
    /// The client as the connection phase knows it; a `COM_CHANGE_USER` answers to its nonce.
    pub client: Arc<ClientFacts>,
}

/// A future in a box.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Logs a connected client in again.
pub trait Readmission: Send + Sync {
    /// Carries out a `COM_CHANGE_USER`: the exchange on `client`, the proof, the first state and the
    /// database. `payload` is the command without its first byte, `seq` its packet's sequence id.
    /// The final OK or ERR is left to the session; with it comes the sequence id that it must have.
    fn change_user<'a>(
        &'a self,
        client: &'a mut Conn,
        current: &'a Login,
        payload: Bytes,
        seq: u8,
    ) -> Boxed<'a, (u8, Result<Login, ErrorInfo>)>;
}
