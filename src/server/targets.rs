//! The backend servers, and which of them serves whom.
//!
//! The first address is the writer, the others are readers: an interim rule until probes find the
//! roles out. Everybody asks [`Targets::serving`], so nothing else knows the rule.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::events::PoolEvents;
use crate::admin::{Latch, Readiness};
use crate::backend::dial::Address;
use crate::backend::dialer::Dialer;
use crate::backend::facts::{Greeted, ServerLimits};
use crate::backend::state::{Family, StateIds};
use crate::backend::target::Target;
use crate::backend::tls::{BackendTls, TlsMode, TlsSetupError};
use crate::config::{self, BackendAddress, BackendTlsMode, Live, Role};
use crate::metrics::{BackendMetrics, BackendRole, Metrics, PoolMetrics};

/// Between two looks whether a backend has greeted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long pools may take to say goodbye to the servers.
const GOODBYE: Duration = Duration::from_secs(3);

/// All backend servers, in the order of `backend.addresses`; never none.
#[derive(Debug)]
pub(super) struct Targets {
    members: Vec<Member>,
    next_reader: AtomicUsize,
}

/// One backend server.
#[derive(Debug)]
pub(super) struct Member {
    /// The configured address.
    pub(super) name: String,
    /// The server.
    pub(super) target: Target,
    /// What it is used for.
    pub(super) role: BackendRole,
    pool: PoolMetrics,
    metrics: BackendMetrics,
}

impl Targets {
    /// Targets for all configured addresses, none of them dialled yet. Must be called within a runtime.
    ///
    /// # Errors
    /// If `backend.tls` cannot be used.
    pub(super) fn new(live: &Arc<Live>, metrics: &Metrics) -> Result<Self, TlsSetupError> {
        let settings = live.snapshot();
        let tls = backend_tls(&settings.backend.tls)?;
        let ids = StateIds::default();
        let member = |(at, address): (usize, &BackendAddress)| {
            let name = address.to_string();
            let (pool, backend) = (metrics.pool(&name), metrics.backend(&name));
            let address = dial_address(address);
            let dialer = Dialer::new(address, tls.clone(), Arc::clone(live), ids.clone());
            let events = PoolEvents::new(pool.clone(), backend.clone(), dialer.clone(), tls.mode());
            let role = match at {
                0 => BackendRole::Writer,
                _ => BackendRole::Reader,
            };
            backend.set_role(role);
            Member {
                name,
                target: Target::new(dialer, Arc::clone(live), Arc::new(events)),
                role,
                pool,
                metrics: backend,
            }
        };
        let addresses = settings.backend.addresses.iter().enumerate();
        Ok(Self {
            members: addresses.map(member).collect(),
            next_reader: AtomicUsize::new(0),
        })
    }

    /// All of them.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Where the next client of a listener with that role goes: its place in
    /// [`members`](Self::members). Readers take turns, those that were never reached left out; without
    /// any the writer reads.
    pub(super) fn serving(&self, role: Role) -> usize {
        let readers = self.members.len() - 1;
        if role == Role::Writer || readers == 0 {
            return 0;
        }
        let turn = self.next_reader.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..readers).map(|ahead| 1 + (turn.wrapping_add(ahead)) % readers);
        let mut reached =
            in_turn.filter(|&at| self.members[at].target.dialer().greeted().is_some());
        reached.next().unwrap_or(0)
    }

    /// Where a password is proved: at the writer, or, if it was never reached, at any that was.
    pub(super) fn proving(&self) -> &Member {
        let reached = |member: &&Member| member.target.dialer().greeted().is_some();
        self.members
            .iter()
            .find(reached)
            .unwrap_or(&self.members[0])
    }

    /// What clients of listeners with that role are greeted with: of the servers that may serve them the
    /// lowest version, and the capabilities that all of them have. `None` until the first is reached.
    pub(super) fn greeting(&self, role: Role) -> Option<Greeted> {
        let serves = |member: &&Member| match role {
            Role::Writer => member.role == BackendRole::Writer,
            // The writer reads where no reader can.
            Role::Reader => true,
        };
        let greeted = self.members.iter().filter(serves);
        common(greeted.filter_map(|member| member.target.dialer().greeted()))
    }

    /// The configured addresses of the servers that clients of that role need, for messages.
    pub(super) fn names(&self, role: Role) -> String {
        let names = self.members.iter().map(|member| member.name.as_str());
        match role {
            Role::Writer => self.members[0].name.clone(),
            Role::Reader => names.collect::<Vec<_>>().join(" or "),
        }
    }

    /// Begins to keep all pools in order, until `shutdown`.
    pub(super) fn start(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        reloaded: &watch::Receiver<u64>,
        shutdown: &CancellationToken,
    ) {
        for at in 0..self.members.len() {
            let (targets, reloaded) = (Arc::clone(self), reloaded.clone());
            tasks.spawn(self.members[at].target.clone().run(shutdown.clone()));
            let watch = async move { targets.members[at].watch(reloaded).await };
            let shutdown = shutdown.clone();
            tasks.spawn(async move { shutdown.run_until_cancelled(watch).await });
        }
    }

    /// Opens `latch` as soon as clients of all these roles can be greeted.
    pub(super) async fn open_when_reached(&self, roles: &[Role], latch: Latch) {
        while roles.iter().any(|role| self.greeting(*role).is_none()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        latch.open();
        info!("ready: the database can be reached");
    }

    /// Holds readiness back until the database is reached.
    pub(super) fn latch(&self, readiness: &Readiness) -> Latch {
        readiness.latch(format!("the database at {}", self.names(Role::Writer)))
    }

    /// Closes all pools and waits, for a while, until the servers have let go of their connections.
    pub(super) async fn close(&self) {
        for member in &self.members {
            member.target.pool().close();
        }
        let closed = async {
            for member in &self.members {
                member.target.pool().closed().await;
            }
        };
        if tokio::time::timeout(GOODBYE, closed).await.is_err() {
            warn!("some backend connections were left to the server to close");
        }
    }
}

impl Member {
    /// Publishes what is known of the server whenever it changes.
    async fn watch(&self, mut reloaded: watch::Receiver<u64>) {
        let mut limits = self.target.dialer().limits();
        loop {
            let server = limits.borrow_and_update().clone();
            self.publish(&server);
            tokio::select! {
                Ok(()) = limits.changed() => {}
                Ok(()) = reloaded.changed() => {}
                () = self.reached(), if self.metrics.up.get() == 0 => self.metrics.set_up(true),
                else => return,
            }
        }
    }

    fn publish(&self, server: &ServerLimits) {
        self.target.apply_settings();
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics
            .server_max_connections
            .set(whole(server.max_connections.unwrap_or(0)));
        let wait_timeout = server.wait_timeout.map_or(0, |timeout| timeout.as_secs());
        metrics.server_wait_timeout.set(whole(wait_timeout));
        // Before the server has said what it allows, the pool's limit is a guess.
        let max = self.target.pool().stats().limits.max_connections;
        if server.max_connections.is_some() {
            self.pool.max.set(i64::try_from(max).unwrap_or(i64::MAX));
        }
    }

    /// Ends when the server has greeted for the first time; never if it had before.
    async fn reached(&self) {
        if self.target.dialer().greeted().is_some() {
            return std::future::pending().await;
        }
        while self.target.dialer().greeted().is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether it can be used, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.metrics.up.get() == 1
    }
}

fn backend_tls(settings: &config::BackendTls) -> Result<BackendTls, TlsSetupError> {
    let mode = match settings.mode {
        BackendTlsMode::Off => TlsMode::Off,
        BackendTlsMode::Preferred => TlsMode::Preferred,
        BackendTlsMode::Required => TlsMode::Required,
        BackendTlsMode::VerifyCa => TlsMode::VerifyCa,
        BackendTlsMode::VerifyIdentity => TlsMode::VerifyIdentity,
    };
    BackendTls::new(mode, settings.ca.as_deref())
}

fn dial_address(address: &BackendAddress) -> Address {
    match address {
        BackendAddress::Tcp { host, port } => Address::Tcp {
            host: host.clone(),
            port: *port,
        },
        BackendAddress::Unix(path) => Address::Unix(path.clone()),
    }
}

/// What holds for all of several servers.
fn common(greeted: impl Iterator<Item = Arc<Greeted>>) -> Option<Greeted> {
    greeted.map(|one| Greeted::clone(&one)).reduce(|a, b| {
        let capabilities = a.capabilities & b.capabilities;
        let lower = if version_number(&b.version) < version_number(&a.version) {
            b
        } else {
            a
        };
        Greeted {
            capabilities,
            ..lower
        }
    })
}

/// The version in a form that compares.
fn version_number(version: &str) -> Vec<u32> {
    // MariaDB puts an old replica's version in front of its own.
    let own = match Family::of_version(version) {
        Family::MariaDb => version.strip_prefix("5.5.5-").unwrap_or(version),
        Family::MySql => version,
    };
    let numbers = own.split(|c: char| !c.is_ascii_digit()).take(3);
    numbers.map_while(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::capability::Capabilities;

    fn greeted(version: &str, capabilities: Capabilities) -> Arc<Greeted> {
        Arc::new(Greeted {
            version: version.into(),
            capabilities,
            collation: 45,
            status: 2,
        })
    }

    #[test]
    fn several_servers_are_greeted_with_by_what_all_of_them_have() {
        let both = Capabilities::SESSION_TRACK | Capabilities::DEPRECATE_EOF;
        let servers = [
            greeted("8.4.3", both),
            greeted("8.0.40-log", Capabilities::SESSION_TRACK),
            greeted("9.7.4", both | Capabilities::LOCAL_FILES),
        ];
        let common = common(servers.into_iter()).unwrap();
        assert_eq!(&*common.version, "8.0.40-log");
        assert_eq!(common.capabilities, Capabilities::SESSION_TRACK);
        assert!(super::common(std::iter::empty()).is_none());
    }

    #[test]
    fn versions_compare_as_numbers_and_mariadbs_by_its_own() {
        let order = [
            "5.5.5-10.2.1-MariaDB",
            "10.11.19-MariaDB-1",
            "11.4.2-MariaDB",
        ];
        assert!(order.is_sorted_by_key(|version| version_number(version)));
        assert!(version_number("8.0.9") < version_number("8.0.40"));
        assert_eq!(version_number("no number"), Vec::<u32>::new());
    }

    #[tokio::test]
    async fn readers_take_turns_and_one_address_serves_all() {
        let targets = |addresses: &str| {
            let settings = format!("monitor_user = \"m\"\naddresses = [{addresses}]");
            let settings = config::Settings {
                backend: toml::from_str(&settings).unwrap(),
                ..config::Settings::default()
            };
            Targets::new(&Arc::new(Live::new(settings)), &Metrics::new()).unwrap()
        };
        let one = targets("\"a:1\"");
        assert_eq!(
            [one.serving(Role::Writer), one.serving(Role::Reader)],
            [0, 0]
        );
        let three = targets("\"a:1\", \"b:1\", \"c:1\"");
        // Nobody was reached yet.
        assert_eq!(three.serving(Role::Reader), 0);
        assert_eq!(three.names(Role::Reader), "a:1 or b:1 or c:1");
        assert!(three.greeting(Role::Reader).is_none());
        assert_eq!(three.proving().name, "a:1");
    }
}
