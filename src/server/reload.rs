//! Reading the settings again: all of it or nothing, with every change in the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::targets::Targets;
use crate::client::accounts::Accounts;
use crate::client::tls::ServerTls;
use crate::config::{self, Change, Environment, Live, Outcome, Problem, Problems, Settings};
use crate::logging::Logging;
use crate::metrics::Metrics;

/// Where settings come from, and what has to learn of a change.
#[derive(Debug)]
pub(super) struct Reloader {
    /// `--config`.
    pub(super) config: Option<PathBuf>,
    /// The environment as it was at the start; a process's own does not change.
    pub(super) environment: Environment,
    /// The settings in force.
    pub(super) live: Arc<Live>,
    /// Users and passwords.
    pub(super) accounts: Arc<Accounts>,
    /// The listeners' certificates, by the listeners' places.
    pub(super) tls: Vec<Option<Arc<ServerTls>>>,
    /// The pools.
    pub(super) targets: Arc<Targets>,
    /// Logging.
    pub(super) logging: Logging,
    /// Counts reloads.
    pub(super) metrics: Arc<Metrics>,
    /// Sent a message at each change.
    pub(super) reloaded: watch::Sender<u64>,
}

impl Reloader {
    /// Reads file, environment, secrets and certificates again and puts them in force, or says why not
    /// and leaves everything as it is. Blocks on files.
    pub(super) fn reload(&self) {
        match self.try_reload() {
            Ok(changes) => {
                for change in &changes {
                    audit(change);
                }
                let checksum = self.live.load().checksum();
                self.metrics
                    .process
                    .config_loaded(&checksum, SystemTime::now());
                info!(changes = changes.len(), checksum, "settings reloaded");
            }
            Err(problems) => {
                self.metrics.process.reload_failures.inc();
                for problem in &problems.0 {
                    error!(
                        key = problem.subject,
                        problem = problem.message,
                        "settings refused"
                    );
                }
                error!(
                    problems = problems.0.len(),
                    "settings not reloaded: the old ones stay in force"
                );
            }
        }
    }

    fn try_reload(&self) -> Result<Vec<Change>, Problems> {
        let new = config::load(self.config.as_deref(), &self.environment)?;
        let secrets = new.resolve_secrets(&self.environment)?;
        new.check_files()?;
        self.try_certificates(&new)?;
        let changes = self.live.apply(&new)?;
        let now = self.live.snapshot();
        self.accounts.reload(now.auth.clone(), &secrets.users);
        self.targets
            .set_monitor_password(secrets.monitor_password.as_ref());
        self.reload_certificates(&now);
        self.logging.set_level(&now.log.level);
        for member in self.targets.members() {
            member.target.apply_settings();
        }
        self.reloaded.send_modify(|reloads| *reloads += 1);
        Ok(changes)
    }

    /// Whether all certificates can be used.
    fn try_certificates(&self, new: &Settings) -> Result<(), Problems> {
        let listeners = new.listener.iter().enumerate();
        let tried = listeners.filter_map(|(at, listener)| {
            let error = ServerTls::new(&listener.tls).err()?;
            let subject = format!("listener[{at}].tls");
            Some(Problem {
                subject,
                message: error.to_string(),
            })
        });
        let problems: Vec<_> = tried.collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Problems(problems))
        }
    }

    fn reload_certificates(&self, now: &Settings) {
        for (listener, tls) in now.listener.iter().zip(&self.tls) {
            if let Some(tls) = tls
                && let Err(error) = tls.reload(&listener.tls)
            {
                // They could be used a moment ago.
                warn!(address = %listener.address, %error, "the old certificate stays in use");
            }
        }
    }
}

/// Settings hold no secrets, so a change can be shown whole.
fn audit(change: &Change) {
    let Change {
        key,
        old,
        new,
        outcome,
    } = change;
    match outcome {
        Outcome::Applied => info!(key, %old, %new, "setting changed"),
        Outcome::NeedsRestart => {
            warn!(key, in_force = %old, asked_for = %new, "setting changes only at a restart");
        }
    }
}
