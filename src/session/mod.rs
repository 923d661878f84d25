//! One logical connection of a client: its loop, its state, and the backend connection it may hold.
//!
//! A session waits for a command (`idle`), decides what it needs ([`plan`], after [`scan`]), has it
//! carried out (`exchange`), notes what the answer told ([`pending`]), and gives the backend
//! connection back when everything about it is known (`settle`).

pub mod context;
mod diagnostics;
pub mod directory;
mod dispatch;
mod exchange;
mod farewell;
mod finish;
mod follow;
mod idle;
mod kill;
mod local;
pub mod memory;
mod numbers;
pub mod open;
pub mod pending;
pub mod pins;
pub mod plan;
mod reach;
mod relogin;
mod review;
pub mod scan;
mod settle;
mod statements;
pub mod timers;
mod variables;
pub mod watch;
mod work;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use context::{Login, SessionContext};
use directory::Registration;
use exchange::Hold;
use follow::Values;
use idle::{Alarm, Rules};
use memory::Carried;
use open::Open;
use pins::Pins;
use scan::Flags;
use statements::Statements;

use crate::backend::state::{IdleTimeouts, State};
use crate::metrics::GaugeGuard;
use crate::pool::Ticket;
use crate::protocol::capability::Capabilities;
use crate::reason::CloseReason;
use crate::relay::Conn;

/// One client's session, from the end of its login to the end of its connection.
pub struct Session {
    context: Arc<SessionContext>,
    client: Conn,
    login: Login,
    me: Registration,
    carried: Carried,
    pinned: Pinned,
    statements: Statements,
    /// Whether the server that serves it has accepted what it carries.
    values: Values,
    /// The backend connection it holds, if any.
    hold: Option<Hold>,
    /// The connection it gave back last, which may still be free.
    ticket: Option<Left>,
    /// Own commands in front of the client's, in the held connection's output.
    own: u16,
    /// Sequence id of the next answer's first packet.
    first_seq: u8,
    /// How often a change of user was refused.
    refused_changes: u8,
    clock: Clock,
    /// The settings that hold for the client; `None`: to be looked up.
    rules: Option<Rules>,
}

/// Why the session is pinned, and what it has open.
#[derive(Debug, Default)]
struct Pinned {
    pins: Pins,
    /// It has user variables that cannot be read back by name, until it resets its connection.
    odd_variables: bool,
    /// Temporary tables, handlers, locks and variables; `None`: there are none.
    open: Option<Box<Open>>,
    /// What a statement that was streamed may do, if its first word tells everything.
    streamed: Option<Flags>,
    /// The statement that last changed variables, fit for a log.
    named_by: Option<Box<str>>,
    gauge: Option<GaugeGuard>,
    in_transaction: Option<GaugeGuard>,
}

impl Pinned {
    /// Whether nothing ever pinned the session, or nothing does any more.
    const fn is_plain(&self) -> bool {
        !self.pins.any()
    }
}

/// A connection that the session has given back.
#[derive(Debug)]
struct Left {
    ticket: Ticket,
    /// What it tells of the session's last statements.
    told: Flags,
}

/// The moments that timeouts count from.
#[derive(Debug)]
struct Clock {
    /// Since when the client has been idle.
    idle_since: Instant,
    /// When the command that is being carried out had its answer; `None`: not yet, or it was answered
    /// without the database.
    answered: Option<Instant>,
    /// When the client logged in.
    began: Instant,
    /// Decides how much of the lifetime is taken off; uniform in 0..1.
    roll: f64,
}

/// What follows a command.
enum Flow {
    /// The next one.
    Continue,
    /// The end, without another word to the client.
    Close(CloseReason),
}

impl Session {
    /// A session for a client whose login has just been answered with OK.
    pub fn new(
        context: Arc<SessionContext>,
        mut client: Conn,
        login: Login,
        registration: Registration,
    ) -> Self {
        let carried = carried(&login);
        registration.set_target(&login.placement.target);
        registration.set_database(login.state.schema().cloned());
        client.patience = Some(patience(&login.state));
        let now = Instant::now();
        Self {
            context,
            client,
            login,
            me: registration,
            carried,
            pinned: Pinned::default(),
            statements: Statements::default(),
            values: Values::Accepted,
            hold: None,
            ticket: None,
            own: 0,
            first_seq: 1,
            refused_changes: 0,
            clock: Clock {
                idle_since: now,
                answered: None,
                began: now,
                roll: rand::random(),
            },
            rules: None,
        }
    }

    /// Serves the client until its connection ends. Not cancel-safe: dropped, it leaves the client
    /// without notice and its backend connection is closed.
    pub async fn run(mut self: Box<Self>) -> CloseReason {
        let timer = pin!(tokio::time::sleep_until(self.clock.began));
        let mut alarm = Alarm::new(timer);
        let reason = loop {
            if let idle::Woken::Close(reason) = self.idle(&mut alarm).await {
                Box::pin(self.say_farewell(reason)).await;
                break reason;
            }
            // This and what comes at the end are in boxes of their own, so that an idle session is small.
            if let Flow::Close(reason) = Box::pin(self.command()).await {
                break reason;
            }
        };
        self.log_end(reason);
        Box::pin(self.leave()).await;
        let who = (self.me.id(), self.me.identity());
        let Self {
            client, context, ..
        } = *self;
        farewell::linger(client, reason, &context, who);
        reason
    }
}

/// How long a client may take nothing of its answer: a little longer than its server has patience,
/// which cannot be seen behind what the server has sent already.
fn patience(state: &State) -> Duration {
    const DEFAULT: u64 = 60;
    const LONGER: u64 = 2;
    let seconds = state
        .get_named("net_write_timeout")
        .and_then(|value| std::str::from_utf8(value.as_bytes()?).ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(DEFAULT).saturating_add(LONGER))
}

fn carried(login: &Login) -> Carried {
    let virtuals = login.placement.target.dialer().virtuals();
    let mut carried = Carried::new(login.state.clone(), &virtuals);
    carried.timeouts = own_timeouts(login);
    carried
}

/// With what timeouts the session begins, if they are not the server's usual ones.
fn own_timeouts(login: &Login) -> Option<IdleTimeouts> {
    if !login.capabilities.contains(Capabilities::INTERACTIVE) {
        return None;
    }
    let idle = login.placement.target.dialer().virtuals().idle?;
    Some(idle.of_interactive()).filter(|own| *own != idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle session is itself, in a box, and its future; a command's is there only while it runs, and
    /// is written anew for each.
    #[test]
    fn an_idle_session_is_small() {
        let (session, run) = (size_of::<Session>(), size_of_future(Session::run));
        assert!(session <= 904, "{session} bytes");
        assert!(run <= 512, "{run} bytes");
        let command = size_of_future(Session::command);
        assert!(command <= 2048, "{command} bytes");
    }
}
