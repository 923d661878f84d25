//! What becomes of an accepted connection: login, first state, database, session.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use super::accounts::{BackendProver, Habit, LoggedIn, Logins};
use super::attendance::Attendance;
use super::bind::BuildError;
use super::counting::Arrival;
use super::failure::Failure;
use super::readmission::Changes;
use super::targets::Targets;
use crate::backend::facts::Greeted;
use crate::backend::key::{Credentials, PoolKey};
use crate::backend::route::Placement;
use crate::backend::state::{Family, State};
use crate::backend::target::Target;
use crate::client::accounts::{Account, Accounts};
use crate::client::authenticate::Judge;
use crate::client::connection::{ClientFacts, Door, GreetingFacts, LoginOk, Rejected, Terms};
use crate::client::listener::{Accepted, Handler, Peer};
use crate::client::tls::{Origin, ServerTls, TlsDemand};
use crate::config::{ListenerSettings, Live, Role, Secrets};
use crate::drain::Stages;
use crate::metrics::Metrics;
use crate::protocol::auth::Plugin;
use crate::protocol::auth::server::RsaKey;
use crate::protocol::capability;
use crate::protocol::packet::put_packet;
use crate::protocol::reply::{SessionChange, StatusFlags, put_session_change};
use crate::reason::{CloseReason, RejectReason};
use crate::relay::Conn;
use crate::session::Session;
use crate::session::context::{Login, SessionContext};
use crate::session::directory::{Directory, Identity, Registration};
use crate::session::scan::Scanner;
use crate::session::watch::StaleWatch;
use crate::transport::Stream;

/// How long a client that is turned away without a greeting has to read why.
const LINGER: Duration = Duration::from_secs(1);
/// What all listeners share.
pub(super) struct Hall {
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) directory: Arc<Directory>,
    pub(super) targets: Arc<Targets>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) stages: Stages,
    logins: Arc<Logins>,
    judge: Judge,
    /// What sessions share, by the role of their listener.
    contexts: [Arc<SessionContext>; 2],
}

/// Serves the clients of one listener.
pub(super) struct Front {
    hall: Arc<Hall>,
    door: Door,
    role: Role,
}

/// A client whose session can begin.
struct Entrant {
    stream: Stream,
    login: Login,
    registration: Registration,
    context: Arc<SessionContext>,
    logged_in: LoggedIn,
}

/// What a session begins with.
pub(super) struct Beginning {
    pub(super) login: Login,
    pub(super) ok: LoginOk,
}

impl Hall {
    /// Everything that listeners share, without anything of it running.
    pub(super) fn new(
        live: &Arc<Live>,
        metrics: &Arc<Metrics>,
        targets: &Arc<Targets>,
        secrets: &Secrets,
    ) -> Result<Arc<Self>, BuildError> {
        let directory = Arc::new(Directory::default());
        let logins = Arc::new(Logins::default());
        let prover = BackendProver {
            targets: Arc::clone(targets),
            live: Arc::clone(live),
            directory: Arc::clone(&directory),
            logins: Arc::clone(&logins),
        };
        let auth = live.load().auth.clone();
        let accounts = Arc::new(Accounts::new(auth, &secrets.users, Arc::new(prover)));
        let judge = Judge {
            accounts: Arc::clone(&accounts),
            rsa: Arc::new(RsaKey::generate()?),
        };
        let stages = Stages::default();
        let client = live.load().client.clone();
        let watch = StaleWatch::new(client.stale_watch, client.stale_watch_sockets);
        let context = |role: Role| {
            let readmission = Changes {
                judge: judge.clone(),
                route: targets.route(role).clone(),
                logins: Arc::clone(&logins),
                live: Arc::clone(live),
                metrics: Arc::clone(metrics),
            };
            Arc::new(SessionContext {
                settings: Arc::clone(live),
                metrics: Arc::clone(metrics),
                route: targets.route(role).clone(),
                directory: Arc::clone(&directory),
                scanner: Scanner::default(),
                watch: Arc::clone(&watch),
                readmission: Arc::new(readmission),
            })
        };
        Ok(Arc::new(Self {
            contexts: [context(Role::Writer), context(Role::Reader)],
            live: Arc::clone(live),
            metrics: Arc::clone(metrics),
            targets: Arc::clone(targets),
            directory,
            accounts,
            stages,
            logins,
            judge,
        }))
    }

    fn context(&self, role: Role) -> &Arc<SessionContext> {
        match role {
            Role::Writer => &self.contexts[0],
            Role::Reader => &self.contexts[1],
        }
    }

    /// The roles that the listeners have.
    pub(super) fn roles(&self) -> Vec<Role> {
        let settings = self.live.load();
        let has = |role: &Role| {
            settings
                .listener
                .iter()
                .any(|listener| listener.role == *role)
        };
        Role::ALL.iter().copied().filter(has).collect()
    }
}

impl Front {
    pub(super) fn new(
        hall: Arc<Hall>,
        listener: &ListenerSettings,
        tls: Option<Arc<ServerTls>>,
    ) -> Self {
        let door = Door {
            judge: hall.judge.clone(),
            tls,
            proxy_protocol_from: listener.proxy_protocol_from.clone(),
        };
        Self {
            hall,
            door,
            role: listener.role,
        }
    }

    /// TLS in a log line.
    pub(super) fn tls_word(&self) -> &'static str {
        let Some(tls) = &self.door.tls else {
            return "off";
        };
        match (tls.demand(), tls.current().origin()) {
            (TlsDemand::Optional, Origin::SelfSigned) => "optional, self-signed",
            (TlsDemand::Optional, Origin::Files) => "optional",
            (TlsDemand::Required, Origin::SelfSigned) => "required, self-signed",
            (TlsDemand::Required, Origin::Files) => "required",
        }
    }

    async fn log_in(&self, stream: Stream, peer: Peer) -> Result<Entrant, Rejected> {
        let hall = &self.hall;
        let Some(greeted) = hall.targets.greeting() else {
            return Err(turn_away(stream, peer, &hall.targets.names()).await);
        };
        let id = hall.directory.next_id();
        let terms = Terms {
            greeting: greeting_facts(greeted),
            connection_id: id,
            handshake_timeout: hall.live.load().client.handshake_timeout,
        };
        let authenticated = self.door.admit(stream, peer, &terms).await?;
        let context = hall.context(self.role);
        let tls = authenticated.is_tls();
        let facts = authenticated.facts();
        let begun = match context.place().await {
            Some(at) => begin(at, &hall.logins, facts, tls).await,
            None => Err(Failure::borrow_timeout()),
        };
        let Beginning { login, ok } = match begun {
            Ok(begun) => begun,
            Err(failure) => return Err(authenticated.refuse(failure.reason, failure.error).await),
        };
        let logged_in = hall.logins.enter(id, facts.account.id(), facts.secret);
        let registration = hall.directory.register(id, login.identity.clone());
        registration.set_database(login.state.schema().cloned());
        // Revoked a moment ago, it would not be among those who are told.
        if !facts.account.knows(facts.secret) {
            registration.end(CloseReason::AuthRevoked);
        }
        let (stream, _) = authenticated.accept(&ok).await?;
        let context = Arc::clone(context);
        Ok(Entrant {
            stream,
            login,
            registration,
            context,
            logged_in,
        })
    }

    /// Lets the session begin, in a task of its own, so that nothing of the login is kept beside it.
    fn attend(&self, entrant: Entrant, arrival: Arrival, permit: OwnedSemaphorePermit) {
        let Entrant {
            stream,
            login,
            registration,
            context,
            logged_in,
        } = entrant;
        let (path, tls) = (login.client.path, login.identity.tls);
        let attendance = Attendance {
            connected: arrival.logged_in(path, tls),
            entry: registration.entry(),
            directory: Arc::clone(&self.hall.directory),
            _logged_in: logged_in,
            _permit: permit,
        };
        let session = Session::new(context, Conn::new(stream), login, registration);
        let clients = &self.hall.stages.clients;
        clients.spawn(attendance.until_the_end(Box::pin(Box::new(session).run())));
    }
}

impl Handler for Front {
    async fn serve(self: Arc<Self>, accepted: Accepted) {
        let Accepted {
            stream,
            peer,
            permit,
        } = accepted;
        let arrival = Arrival::new(&self.hall.metrics.clients);
        let entrant = tokio::select! {
            biased;
            () = self.hall.stages.closing.cancelled() => {
                debug!(%peer, "client sent away before it had logged in");
                return arrival.rejected(RejectReason::Drain);
            }
            entrant = self.log_in(stream, peer) => entrant,
        };
        match entrant {
            Ok(entrant) => self.attend(entrant, arrival, permit),
            Err(rejected) => {
                rejected.log();
                arrival.rejected(rejected.reason);
            }
        }
    }

    fn rejected(&self, reason: RejectReason) {
        Arrival::rejected_at_once(&self.hall.metrics.clients, reason);
    }
}

/// Has the session's first state read and its database selected, which is what the final OK waits for.
pub(super) async fn begin(
    placement: Placement,
    logins: &Logins,
    facts: &ClientFacts,
    tls: bool,
) -> Result<Beginning, Failure> {
    let account = &facts.account;
    let target = placement.target.clone();
    let name = target.dialer().address().to_string();
    let credentials: Arc<dyn Credentials> = Arc::<Account>::clone(account);
    let bits = capability::pool_key(facts.capabilities);
    let key = PoolKey::new(credentials, bits);
    // Ids above 255 cannot be asked for in a login.
    let collation = u8::try_from(facts.collation).unwrap_or_default();
    logins.note_habit(account.user(), Habit { bits, collation });
    let first = match target.first_state(&key, collation).await {
        Ok(first) => first,
        Err(error) => return Err(Failure::of_target(&error, &name)),
    };
    let state = match &facts.database {
        None => first.clone(),
        Some(database) => {
            let selected = target.select_database(&key, &first, database).await;
            selected.map_err(|error| Failure::of_database(error, &name))?
        }
    };
    let ok = LoginOk {
        status: status(&state).0,
        session_state: announced_database(&target, &state),
        ..LoginOk::default()
    };
    let identity = identity(facts, tls, key.clone());
    let client = Arc::new(kept(facts));
    let login = Login {
        key,
        placement,
        capabilities: facts.capabilities,
        first,
        state,
        identity,
        client,
    };
    Ok(Beginning { login, ok })
}

/// The tracker data in a login's OK: the database, captured from both servers, unless the server's default for
/// `session_track_schema` is off.
fn announced_database(target: &Target, state: &State) -> Bytes {
    let virtuals = target.dialer().virtuals();
    let tracked = matches!(virtuals.track_schema.as_deref(), Some("1" | "ON"));
    let mut data = Vec::new();
    if let Some(schema) = state.schema().filter(|_| tracked) {
        put_session_change(&mut data, &SessionChange::Schema(schema));
    }
    data.into()
}

fn identity(facts: &ClientFacts, tls: bool, key: PoolKey) -> Identity {
    Identity {
        user: facts.account.user().clone(),
        program_name: facts
            .attributes
            .iter()
            .find(is_program_name)
            .map(|(_, value)| Bytes::copy_from_slice(value)),
        source: facts
            .peer
            .ip()
            .map_or_else(|| "unix".to_owned(), |ip| ip.to_string()),
        tls,
        key: Some(key),
    }
}

/// What is kept of a client's login: copies, since a slice would keep the whole packet.
fn kept(facts: &ClientFacts) -> ClientFacts {
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let named = facts.attributes.iter().filter(is_program_name);
    ClientFacts {
        database: facts.database.as_ref().map(copy),
        attributes: named
            .map(|(name, value)| (copy(name), copy(value)))
            .collect(),
        ..facts.clone()
    }
}

fn is_program_name((name, _): &&(Bytes, Bytes)) -> bool {
    name == &b"program_name"[..]
}

/// The status flags of a session that is in no transaction.
fn status(state: &State) -> StatusFlags {
    let text = |name: &str| state.get_named(name).and_then(|value| value.as_bytes());
    let mut flags = 0;
    if matches!(text("autocommit"), Some(b"1" | b"ON")) {
        flags |= StatusFlags::AUTOCOMMIT;
    }
    let mut modes = text("sql_mode")
        .unwrap_or_default()
        .split(|&byte| byte == b',');
    if modes.any(|mode| mode == b"NO_BACKSLASH_ESCAPES") {
        flags |= StatusFlags::NO_BACKSLASH_ESCAPES;
    }
    StatusFlags(flags)
}

fn greeting_facts(greeted: Greeted) -> GreetingFacts {
    let auth_plugin = match greeted.family() {
        Family::MariaDb => Plugin::MysqlNative,
        Family::MySql => Plugin::CachingSha2,
    };
    GreetingFacts {
        server_version: Bytes::copy_from_slice(greeted.version.as_bytes()),
        backend_capabilities: greeted.capabilities,
        collation: greeted.collation,
        status: greeted.status,
        auth_plugin,
    }
}

/// Sends an error where the greeting would be, so that nobody waits for one.
async fn turn_away(mut stream: Stream, peer: Peer, backends: &str) -> Rejected {
    let failure = Failure::not_reached(backends);
    // Without an SQLSTATE: no capabilities are agreed on yet.
    let mut payload = BytesMut::new();
    payload.put_u8(0xff);
    payload.put_u16_le(failure.error.code);
    payload.put_slice(&failure.error.message);
    let mut packet = BytesMut::new();
    put_packet(&mut packet, 0, &payload);
    let farewell = async {
        stream.write_all(&packet).await?;
        stream.shutdown().await?;
        // Until the client's end, or its first bytes: closing with unread input would reset the connection.
        stream.read_u8().await
    };
    // It is closed either way.
    let _ = tokio::time::timeout(LINGER, farewell).await;
    let detail = String::from_utf8_lossy(&failure.error.message).into_owned();
    Rejected {
        reason: failure.reason,
        peer,
        user: None,
        detail,
    }
}
