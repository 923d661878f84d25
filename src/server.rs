//! The process put together: everything is built and bound first, then it serves, then it drains.
//!
//! Order: parse → build → bind → ready → serve → drain. [`Server::build`] makes every part and binds every
//! address without starting any of it, so that whatever is wrong is said at once and in one line.

mod accounts;
mod attendance;
mod bind;
mod counting;
mod descriptors;
mod events;
mod failure;
mod front;
mod readmission;
mod reload;
mod roles;
mod snapshots;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::bind::BuildError;
use self::front::{Front, Hall};
use self::reload::Reloader;
use self::snapshots::Snapshots;
use self::targets::Targets;
use crate::admin::{self, AdminContext, Latch, Readiness, Scope, Token};
use crate::client::listener::Listener;
use crate::config::{Environment, Live, Secrets, Settings};
use crate::drain::{Drained, Ending, Request, Signals, Stages};
use crate::logging::Logging;
use crate::metrics::Metrics;
use crate::session::directory::Directory;

/// How long background work may take to end.
const FINISH: Duration = Duration::from_secs(6);

/// What a server is made of.
#[derive(Debug)]
pub struct Startup {
    /// Valid settings.
    pub settings: Settings,
    /// The secrets that they name.
    pub secrets: Secrets,
    /// Where they come from, for reloads.
    pub environment: Environment,
    /// `--config`, for reloads.
    pub config: Option<PathBuf>,
    /// Logging, which has begun.
    pub logging: Logging,
}

/// A server that is bound to its addresses and has not begun to serve.
pub struct Server {
    hall: Arc<Hall>,
    /// Each `[[listener]]`.
    fronts: Vec<(Listener, Arc<Front>)>,
    admin: Arc<AdminContext>,
    /// `admin.address` and `admin.metrics_address`.
    admin_listeners: Vec<(TcpListener, Scope)>,
    reloader: Arc<Reloader>,
    signals: Signals,
    latches: Latches,
    /// Background work.
    background: TaskTracker,
}

/// What keeps the server from being ready.
struct Latches {
    listeners: Latch,
    backend: Latch,
}

impl Server {
    /// Makes all parts and binds all addresses; starts nothing. Must be called within a runtime.
    ///
    /// # Errors
    /// [`BuildError`]; nothing stays bound then.
    pub async fn build(startup: Startup) -> Result<Self, BuildError> {
        let Startup {
            settings,
            secrets,
            environment,
            config,
            logging,
        } = startup;
        let signals = Signals::new().map_err(BuildError::Signals)?;
        let token = bind::admin_token(&secrets)?;
        let readiness = Readiness::new();
        let metrics = Arc::new(Metrics::new());
        metrics
            .process
            .config_loaded(&settings.checksum(), SystemTime::now());
        let live = Arc::new(Live::new(settings));
        let targets = Arc::new(Targets::new(
            &live,
            &metrics,
            secrets.monitor_password.as_ref(),
        )?);
        let (reloaded, _) = watch::channel(0);
        let hall = Hall::new(&live, &metrics, &targets, &secrets)?;
        let tls = bind::listeners_tls(&live.load())?;
        let fronts = bind::fronts(&hall, &tls).await?;
        let admin_listeners = bind::admin_listeners(&live.load()).await?;
        let latches = Latches {
            listeners: readiness.latch("listeners"),
            backend: targets.latch(&readiness),
        };
        let reloader = Arc::new(Reloader {
            config,
            environment,
            accounts: Arc::clone(&hall.accounts),
            tls,
            targets: Arc::clone(&targets),
            logging,
            metrics: Arc::clone(&metrics),
            reloaded,
            live: Arc::clone(&live),
        });
        let admin = admin_context(&hall, readiness, token);
        let background = TaskTracker::new();
        Ok(Self {
            hall,
            fronts,
            admin,
            admin_listeners,
            reloader,
            signals,
            latches,
            background,
        })
    }

    /// Serves until a signal ends it; the exit code.
    pub async fn run(mut self) -> ExitCode {
        self.announce();
        let stages = self.hall.stages.clone();
        self.start_background(&stages);
        for (listener, front) in self.fronts.drain(..) {
            let (tasks, closing) = (stages.clients.clone(), stages.closing.clone());
            stages.clients.spawn(listener.run(front, tasks, closing));
        }
        let Latches { listeners, backend } = self.latches;
        listeners.open();
        let roles = self.hall.roles();
        let (targets, shutdown) = (Arc::clone(&self.hall.targets), stages.shutdown.clone());
        self.background.spawn(async move {
            let open = targets.open_when_reached(&roles, backend);
            shutdown.run_until_cancelled(open).await;
        });
        let ending = serve(&mut self.signals, &self.reloader).await;
        info!(signal = ending.as_str(), "ending: clients are sent away");
        let limit = self.hall.live.load().server.drain_timeout;
        let drain = drain(&self.hall, &self.admin.readiness, &self.background, limit);
        tokio::select! {
            () = drain => {
                info!("ended");
                ExitCode::SUCCESS
            }
            again = self.signals.next_ending() => {
                warn!(signal = again.as_str(), "ended at once by a second signal");
                ExitCode::from(again.exit_code())
            }
        }
    }

    fn start_background(&mut self, stages: &Stages) {
        let reloads = self.reloader.reloaded.subscribe();
        self.hall.targets.start(
            &self.background,
            &reloads,
            &stages.shutdown,
            &self.admin.readiness,
        );
        let directory = Arc::clone(&self.hall.directory);
        self.background
            .spawn(tell(directory, reloads, stages.clone()));
        for (listener, scope) in self.admin_listeners.drain(..) {
            let (admin, shutdown) = (Arc::clone(&self.admin), stages.shutdown.clone());
            self.background
                .spawn(admin::serve(listener, admin, scope, shutdown));
        }
    }

    /// The first lines of the log: what this is, where it listens, what is behind it.
    fn announce(&self) {
        let settings = self.hall.live.snapshot();
        info!(
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            "sidepool starts"
        );
        for warning in settings.warnings() {
            warn!(key = warning.subject, "{}", warning.message);
        }
        descriptors::raise(&settings);
        for ((listener, front), listens) in self.fronts.iter().zip(&settings.listener) {
            let bound = listener.local_addrs();
            let shown: Vec<_> = bound.iter().map(ToString::to_string).collect();
            let address = match &shown[..] {
                [] => listens.address.to_string(),
                _ => shown.join(", "),
            };
            let (tls, max_clients) = (front.tls_word(), listens.max_clients);
            info!(%address, role = %listens.role, tls, max_clients, "listening for clients");
        }
        let tls = settings.backend.tls.mode;
        for member in self.hall.targets.members() {
            info!(address = member.name, %tls, "database server");
        }
        if settings.backend.monitor_user.is_some() {
            let every = settings.backend.probe_interval;
            info!(?every, "database servers are probed");
        }
    }
}

fn admin_context(hall: &Hall, readiness: Readiness, token: Option<Token>) -> Arc<AdminContext> {
    let sources = Arc::new(Snapshots {
        directory: Arc::clone(&hall.directory),
        targets: Arc::clone(&hall.targets),
        settings: Arc::clone(&hall.live),
    });
    let metrics = Arc::clone(&hall.metrics);
    Arc::new(AdminContext {
        metrics,
        readiness,
        sources,
        token,
    })
}

/// Lets the sessions know of changed settings and, at last, of the stages of the end.
async fn tell(directory: Arc<Directory>, mut reloads: watch::Receiver<u64>, stages: Stages) {
    loop {
        tokio::select! {
            Ok(()) = reloads.changed() => directory.settings_changed(),
            () = stages.drain.cancelled() => break,
        }
    }
    directory.begin_drain();
    tokio::select! {
        () = stages.cut.cancelled() => directory.cut(),
        () = stages.shutdown.cancelled() => {}
    }
}

/// Waits for a signal that asks for the end; reloads at those that ask for it.
async fn serve(signals: &mut Signals, reloader: &Arc<Reloader>) -> Ending {
    loop {
        match signals.next().await {
            Request::End(ending) => return ending,
            Request::Reload => {
                info!("SIGHUP: reading the settings again");
                let reloader = Arc::clone(reloader);
                // Its panic, if any, was logged where it happened.
                let _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
            }
        }
    }
}

/// Ready turns red, listeners close, clients leave, pools close, and last the HTTP side.
async fn drain(hall: &Hall, readiness: &Readiness, background: &TaskTracker, limit: Duration) {
    readiness.drain();
    let began = tokio::time::Instant::now();
    let clients = hall.directory.len();
    match hall.stages.send_clients_away(limit).await {
        Drained::All => info!(
            clients,
            took = ?began.elapsed(),
            "all clients have left"
        ),
        Drained::Cut(left) => warn!(
            clients = left,
            drain_timeout = ?limit,
            "server.drain_timeout is over: the clients left were cut off"
        ),
    }
    hall.targets.close().await;
    hall.stages.shutdown.cancel();
    background.close();
    if tokio::time::timeout(FINISH, background.wait())
        .await
        .is_err()
    {
        warn!("some background work did not end in time");
    }
}
