//! The backend servers, and which of them serves whom.
//!
//! One address serves everybody. Of several, probes find out which is the writer (`roles`); sessions
//! follow the [`Route`] of their listener's role, so nothing else knows the rule.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::events::PoolEvents;
use crate::admin::{Latch, Readiness};
use crate::backend::dial::Address;
use crate::backend::dialer::Dialer;
use crate::backend::facts::{Greeted, ServerLimits};
use crate::backend::probe::{Condition, Monitor, MonitorAccount, Prober, Standing};
use crate::backend::route::Route;
use crate::backend::state::{Family, StateIds};
use crate::backend::target::Target;
use crate::backend::tls::{BackendTls, TlsMode, TlsSetupError};
use crate::config::{self, BackendAddress, BackendTlsMode, Live, Role, Secret};
use crate::metrics::{BackendMetrics, BackendRole, Metrics, PoolMetrics};

/// Between two looks whether a backend has greeted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long pools may take to say goodbye to the servers.
const GOODBYE: Duration = Duration::from_secs(3);

/// All backend servers, in the order of `backend.addresses`; never none.
#[derive(Debug)]
pub(super) struct Targets {
    members: Vec<Member>,
    writer: Route,
    reader: Route,
    /// Who probes; `None`: nobody does.
    monitor: Option<MonitorAccount>,
    /// Told after every probe.
    pub(super) probed: Arc<Notify>,
    /// Cancelled when probing ends.
    probing: CancellationToken,
    live: Arc<Live>,
}

/// One backend server.
#[derive(Debug)]
pub(super) struct Member {
    /// The configured address.
    pub(super) name: String,
    /// The server.
    pub(super) target: Target,
    role: Mutex<BackendRole>,
    condition: watch::Sender<Condition>,
    pool: PoolMetrics,
    metrics: BackendMetrics,
}

impl Targets {
    /// Targets for all configured addresses, none of them dialled yet. Must be called within a runtime.
    ///
    /// # Errors
    /// If `backend.tls` cannot be used.
    pub(super) fn new(
        live: &Arc<Live>,
        metrics: &Metrics,
        monitor_password: Option<&Secret>,
    ) -> Result<Self, TlsSetupError> {
        let settings = live.snapshot();
        let backend = &settings.backend;
        let tls = backend_tls(&backend.tls)?;
        let user = backend.monitor_user.as_deref();
        let monitor = user.map(|user| MonitorAccount::new(user, monitor_password));
        let ids = StateIds::default();
        let alone = backend.addresses.len() == 1;
        let member = |address: &BackendAddress| {
            let name = address.to_string();
            let (pool, backend) = (metrics.pool(&name), metrics.backend(&name));
            let address = dial_address(address);
            let dialer = Dialer::new(address, tls.clone(), Arc::clone(live), ids.clone());
            let condition = watch::Sender::new(Condition::new(Instant::now()));
            let events = PoolEvents::new(
                pool.clone(),
                backend.clone(),
                dialer.clone(),
                tls.mode(),
                monitor.as_ref().map(|_| condition.subscribe()),
            );
            let role = match alone {
                true => BackendRole::Writer,
                false => BackendRole::Unknown,
            };
            backend.set_role(role);
            Member {
                name,
                target: Target::new(dialer, Arc::clone(live), Arc::new(events)),
                role: Mutex::new(role),
                condition,
                pool,
                metrics: backend,
            }
        };
        let members: Vec<_> = backend.addresses.iter().map(member).collect();
        let at_once: Vec<_> = members
            .iter()
            .filter(|_| alone)
            .map(|member| member.target.clone())
            .collect();
        Ok(Self {
            writer: Route::new(Role::Writer, at_once.clone()),
            reader: Route::new(Role::Reader, at_once),
            members,
            monitor,
            probed: Arc::new(Notify::new()),
            probing: CancellationToken::new(),
            live: Arc::clone(live),
        })
    }

    /// All of them.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Where clients of listeners with that role borrow.
    pub(super) const fn route(&self, role: Role) -> &Route {
        match role {
            Role::Writer => &self.writer,
            Role::Reader => &self.reader,
        }
    }

    /// Where a password is proved: at the writer, or, if there is none now, at any that answers.
    pub(super) fn proving(&self) -> &Member {
        let find = |which: &dyn Fn(&&Member) -> bool| self.members.iter().find(which);
        find(&|member| member.role() == BackendRole::Writer)
            .or_else(|| find(&|member| member.condition.borrow().is_known()))
            .or_else(|| find(&|member| member.target.dialer().greeted().is_some()))
            .unwrap_or(&self.members[0])
    }

    /// What clients are greeted with: of all servers, since each may come to serve them, the lowest version and
    /// the capabilities that all have. `None` until the first is reached.
    pub(super) fn greeting(&self) -> Option<Greeted> {
        let members = self.members.iter();
        common(members.filter_map(|member| member.target.dialer().greeted()))
    }

    /// The configured addresses, for messages.
    pub(super) fn names(&self) -> String {
        let names = self.members.iter().map(|member| member.name.as_str());
        names.collect::<Vec<_>>().join(" or ")
    }

    /// The password of `backend.monitor_user` may have changed.
    pub(super) fn set_monitor_password(&self, password: Option<&Secret>) {
        if let Some(monitor) = &self.monitor {
            monitor.set_password(password);
        }
    }

    /// Begins to keep all pools in order, until `shutdown`.
    pub(super) fn start(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        reloaded: &watch::Receiver<u64>,
        shutdown: &CancellationToken,
        readiness: &Readiness,
    ) {
        for at in 0..self.members.len() {
            let (targets, reloaded) = (Arc::clone(self), reloaded.clone());
            tasks.spawn(self.members[at].target.clone().run(shutdown.clone()));
            let monitored = self.monitor.is_some();
            let watch = async move { targets.members[at].watch(reloaded, monitored).await };
            let shutdown = shutdown.clone();
            tasks.spawn(async move { shutdown.run_until_cancelled(watch).await });
        }
        if let Some(monitor) = &self.monitor {
            for member in &self.members {
                tasks.spawn(self.probe(member, monitor.clone()));
            }
            let follow = Arc::clone(self).follow_probes(readiness.clone());
            let shutdown = shutdown.clone();
            tasks.spawn(async move { shutdown.run_until_cancelled(follow).await });
        }
    }

    fn probe(&self, member: &Member, account: MonitorAccount) -> impl Future<Output = ()> + use<> {
        let prober = Prober {
            name: member.name.clone(),
            condition: member.condition.clone(),
            probed: Arc::clone(&self.probed),
            failures: member.metrics.probe_failures.clone(),
        };
        let monitor = Monitor::new(member.target.clone(), account, Arc::clone(&self.live));
        let live = Arc::clone(&self.live);
        let interval = move || live.load().backend.probe_interval;
        prober.run(monitor, interval, self.probing.clone())
    }

    /// Opens `latch` as soon as clients of all these roles can be greeted and served.
    pub(super) async fn open_when_reached(&self, roles: &[Role], latch: Latch) {
        let can = |role: &Role| self.route(*role).pick().is_some();
        while self.greeting().is_none() || !roles.iter().all(can) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        latch.open();
        info!("ready: the database can be reached");
    }

    /// Holds readiness back until the database is reached.
    pub(super) fn latch(&self, readiness: &Readiness) -> Latch {
        readiness.latch(format!("the database at {}", self.names()))
    }

    /// Closes all pools and waits, for a while, until the servers have let go of their connections.
    pub(super) async fn close(&self) {
        self.probing.cancel();
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
    /// What it is used for.
    pub(super) fn role(&self) -> BackendRole {
        *self.role.lock()
    }

    pub(super) fn set_role(&self, role: BackendRole) {
        *self.role.lock() = role;
        self.metrics.set_role(role);
    }

    /// What probes say of it.
    pub(super) fn condition(&self) -> Condition {
        self.condition.borrow().clone()
    }

    /// Shows what probes say. Where they cannot tell, dials do.
    pub(super) fn note_condition(&self, condition: &Condition) {
        match condition.standing {
            Standing::Writer | Standing::Replica => self.metrics.set_up(true),
            Standing::Down(_) => self.metrics.set_up(false),
            Standing::Unknown => {}
        }
    }

    /// Publishes what is known of the server whenever it changes.
    async fn watch(&self, mut reloaded: watch::Receiver<u64>, monitored: bool) {
        let mut limits = self.target.dialer().limits();
        loop {
            let server = limits.borrow_and_update().clone();
            self.publish(&server);
            tokio::select! {
                Ok(()) = limits.changed() => {}
                Ok(()) = reloaded.changed() => {}
                () = self.reached(), if !monitored && self.metrics.up.get() == 0 => {
                    self.metrics.set_up(true);
                }
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
    use super::super::roles::Roles;
    use super::*;
    use crate::backend::probe::{Observation, ProbeError, Replication};
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

    fn targets(addresses: &str) -> Targets {
        let settings = format!("monitor_user = \"m\"\naddresses = [{addresses}]");
        let settings = config::Settings {
            backend: toml::from_str(&settings).unwrap(),
            ..config::Settings::default()
        };
        Targets::new(&Arc::new(Live::new(settings)), &Metrics::new(), None).unwrap()
    }

    #[tokio::test]
    async fn one_address_serves_all_and_several_wait_for_probes() {
        let one = targets("\"a:1\"");
        for role in [Role::Writer, Role::Reader] {
            let placement = one.route(role).pick().unwrap();
            assert!(placement.target.is(&one.members[0].target));
        }
        assert_eq!(one.members[0].role(), BackendRole::Writer);
        let three = targets("\"a:1\", \"b:1\", \"c:1\"");
        assert!(three.route(Role::Writer).pick().is_none());
        assert!(three.route(Role::Reader).pick().is_none());
        assert_eq!(three.names(), "a:1 or b:1 or c:1");
        assert!(three.greeting().is_none());
        assert_eq!(three.proving().name, "a:1");
    }

    /// Lets a probe of a member end so.
    fn probe(targets: &Targets, at: usize, result: Result<Observation, ProbeError>) {
        let result = result.map_err(Arc::new);
        targets.members[at].condition.send_modify(|condition| {
            condition.note(&result, Instant::now());
        });
    }

    fn seen(writable: bool) -> Result<Observation, ProbeError> {
        Ok(Observation {
            version: "8.4.3".into(),
            writable,
            replication: Replication::None,
            max_connections: None,
            wait_timeout: None,
        })
    }

    #[tokio::test]
    async fn a_failover_moves_the_routes_and_readiness_is_red_while_all_are_down() {
        let targets = targets("\"a:1\", \"b:1\"");
        let (mut roles, readiness) = (Roles::default(), Readiness::new());
        let mut look = || targets.look_again(&mut roles, &readiness);
        let serves = |role, at: usize| {
            let target = &targets.members[at].target;
            targets.route(role).serves(target)
        };
        let gone = || Err(ProbeError::Unreachable("refused".into()));

        probe(&targets, 1, seen(false));
        look();
        assert!(!serves(Role::Reader, 1), "the other may be a better one");
        probe(&targets, 0, seen(true));
        look();
        assert!(serves(Role::Writer, 0) && serves(Role::Reader, 1));
        assert_eq!(targets.members[1].role(), BackendRole::Reader);
        assert!(targets.members[0].is_up());

        probe(&targets, 0, gone());
        look();
        assert!(!serves(Role::Writer, 0) && !targets.members[0].is_up());
        assert!(targets.route(Role::Writer).pick().is_none());
        assert_eq!(targets.members[0].role(), BackendRole::Unknown);
        assert_eq!(readiness.check(), Ok(()), "reads are served");
        assert_eq!(targets.proving().name, "b:1");

        probe(&targets, 1, gone());
        look();
        let red = readiness.check().unwrap_err().to_string();
        assert!(red.contains("a:1 or b:1"), "{red}");

        probe(&targets, 1, seen(true));
        look();
        assert!(serves(Role::Writer, 1) && serves(Role::Reader, 1));
        assert_eq!(readiness.check(), Ok(()));
        probe(&targets, 0, seen(true));
        look();
        assert!(serves(Role::Writer, 1), "the one in use stays");
        assert!(!serves(Role::Reader, 0));
    }
}
