//! The monitor's connection by Sidepool's own login, where the driver does not do (see `driver`): with exactly the
//! TLS and the rules for passwords that sessions' connections have.

use bytes::Bytes;

use super::condition::ProbeError;
use super::link::{Asked, Table, WAIT_TIMEOUT, Way, of_server};
use crate::backend::connection::{Identity, put_query, say_goodbye};
use crate::backend::dialer::Dialer;
use crate::backend::login::LoginError;
use crate::protocol::auth::Secret;
use crate::relay::Conn;
use crate::relay::own::{OwnError, read_own_result_set};

/// Bytes of one answer.
const MAX_ANSWER: usize = 1 << 20;

/// A logged-in connection.
#[derive(Debug)]
pub(super) struct Own {
    conn: Conn,
    identity: Identity,
}

impl Own {
    /// Logs in. Not to be cancelled: see [`login`](crate::backend::login).
    pub(super) async fn open(way: &Way, dialer: &Dialer) -> Result<Self, ProbeError> {
        let user = Bytes::copy_from_slice(way.user.as_bytes());
        let secret = Secret::new(way.password.expose());
        let logged_in = dialer.log_in_only(user, secret).await;
        let logged_in = logged_in.map_err(|error| of_login(&error))?;
        let thread = logged_in.greeting.connection_id;
        let mut conn = Conn::new(logged_in.stream);
        conn.input = logged_in.read_buffer;
        let mut own = Self {
            conn,
            identity: Identity::new(0, thread, logged_in.capabilities),
        };
        own.ask(WAIT_TIMEOUT).await?;
        Ok(own)
    }

    /// Asks one question.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Table, Asked> {
        let lost = |error: std::io::Error| Asked::Lost(error.to_string());
        let attributes = self.identity.has_query_attributes();
        put_query(&mut self.conn.output, attributes, sql.as_bytes());
        self.conn.send().await.map_err(lost)?;
        let framing = self.identity.framing();
        let set = match read_own_result_set(&mut self.conn, framing, MAX_ANSWER).await {
            Ok(set) => set,
            Err(OwnError::Server(error)) => {
                return Err(Asked::Server(error.code, error.to_string()));
            }
            Err(error) => return Err(Asked::Lost(error.to_string())),
        };
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let row =
            |row: &Vec<Option<Bytes>>| row.iter().map(|cell| cell.as_ref().map(text)).collect();
        Ok(Table {
            columns: set
                .columns
                .iter()
                .map(|column| text(&column.name))
                .collect(),
            rows: set.rows.iter().map(row).collect(),
        })
    }

    /// Says goodbye and waits for the server's.
    pub(super) async fn close(mut self) {
        say_goodbye(&mut self.conn).await;
    }
}

/// What a login, or the attempt to be greeted, says of the server.
pub(super) fn of_login(error: &LoginError) -> ProbeError {
    let text = error.to_string();
    match error {
        LoginError::Refused(error) => of_server(error.code, text),
        LoginError::Unreachable { .. } => ProbeError::Unreachable(text),
        LoginError::Timeout { after, .. } => ProbeError::Timeout(*after),
        LoginError::Lost { .. } => ProbeError::Lost(text),
        LoginError::Tls { .. } | LoginError::TlsNotOffered(_) | LoginError::Declined(_) => {
            ProbeError::Insecure(text)
        }
        LoginError::Protocol { .. } | LoginError::NotProof => ProbeError::Query(text),
    }
}
