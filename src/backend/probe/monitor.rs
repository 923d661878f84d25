//! Asks one backend over a connection that stays open and counts in the pool's limit.
//!
//! What is sent to the server runs in a task of its own, one at a time: a probe that takes too long is
//! reported, and its login or question is not broken off but waited for by the next probe.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::Ask;
use super::condition::{Observation, ProbeError};
use super::link::{Link, Way};
use super::own::of_login;
use crate::backend::dialer::Dialer;
use crate::backend::facts::ServerLimits;
use crate::backend::target::Target;
use crate::config::{Live, Secret};
use crate::pool::SlotGuard;

/// A task that has not ended after this is given up: its server is frozen or cut off, and a name may lead
/// to another one by now.
const GIVE_UP: Duration = Duration::from_secs(30);
/// For the goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// `backend.monitor_user`. Clones share one password, which a reload may change.
#[derive(Debug, Clone)]
pub struct MonitorAccount {
    user: Arc<str>,
    password: Arc<ArcSwap<Secret>>,
}

/// Asks one backend.
#[derive(Debug)]
pub struct Monitor {
    target: Target,
    account: MonitorAccount,
    settings: Arc<Live>,
    slot: Option<SlotGuard<Dialer>>,
    link: Option<Link>,
    work: Option<Work>,
    /// What the server said last of its limits.
    limits: ServerLimits,
    greeting: Greeting,
}

/// Something that the server has been asked for and has not answered.
#[derive(Debug)]
struct Work {
    task: JoinHandle<Round>,
    since: Instant,
}

/// Whether what the server greets with is known well enough to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    Known,
    /// It may have changed since a login failed.
    Doubtful,
}

type Round = (Option<Link>, Result<Observation, ProbeError>);

impl MonitorAccount {
    /// The account; without a password file its password is empty.
    pub fn new(user: &str, password: Option<&Secret>) -> Self {
        let password = password.cloned().unwrap_or_else(|| Secret::new(b""));
        Self {
            user: user.into(),
            password: Arc::new(ArcSwap::from_pointee(password)),
        }
    }

    /// The password of future logins.
    pub fn set_password(&self, password: Option<&Secret>) {
        let password = password.cloned().unwrap_or_else(|| Secret::new(b""));
        self.password.store(Arc::new(password));
    }
}

impl Monitor {
    /// Asks that backend as that account; nothing is opened yet.
    pub fn new(target: Target, account: MonitorAccount, settings: Arc<Live>) -> Self {
        Self {
            target,
            account,
            settings,
            slot: None,
            link: None,
            work: None,
            limits: ServerLimits::default(),
            greeting: Greeting::Known,
        }
    }

    async fn round(
        &mut self,
        deadline: Instant,
        limit: Duration,
    ) -> Result<Observation, ProbeError> {
        loop {
            let (mut work, late) = match self.work.take() {
                Some(work) => (work, true),
                None => (self.begin(), false),
            };
            match timeout_at(deadline, &mut work.task).await {
                Err(_) => {
                    match work.since.elapsed() < GIVE_UP.max(2 * limit) {
                        true => self.work = Some(work),
                        false => work.task.abort(),
                    }
                    return Err(ProbeError::Timeout(limit));
                }
                Ok(Ok((link, result))) => {
                    self.link = link;
                    // What answers a question of some time ago may have been true then.
                    if !late || result.is_err() {
                        return result;
                    }
                }
                Ok(Err(_)) => return Err(ProbeError::Query("the probe's task failed".to_owned())),
            }
        }
    }

    fn begin(&mut self) -> Work {
        let link = self.link.take();
        let target = self.target.clone();
        let account = self.account.clone();
        let settings = Arc::clone(&self.settings);
        let greeting = std::mem::replace(&mut self.greeting, Greeting::Known);
        let task = tokio::spawn(async move {
            let dialer = target.dialer();
            // A connection that was killed or outlived its server says nothing about the server.
            if let Some(mut link) = link
                && let Ok(seen) = link.read().await
            {
                return (Some(link), Ok(seen));
            }
            let opened = async {
                let way = way(dialer, &account, &settings, greeting).await?;
                Link::open(&way, dialer).await
            };
            match opened.await {
                Ok(mut link) => match link.read().await {
                    Ok(seen) => (Some(link), Ok(seen)),
                    Err(error) => (None, Err(error)),
                },
                Err(error) => (None, Err(error)),
            }
        });
        Work {
            task,
            since: Instant::now(),
        }
    }

    fn learn(&mut self, seen: &Observation) {
        let limits = ServerLimits {
            max_connections: seen.max_connections,
            max_prepared: None,
            wait_timeout: seen.wait_timeout,
        };
        // Logins report theirs, too; only what changed at the server is news.
        if limits != self.limits {
            self.target.dialer().learn_limits(&limits);
            self.limits = limits;
        }
    }
}

impl Ask for Monitor {
    async fn ask(&mut self) -> Result<Observation, ProbeError> {
        let limit = self.settings.load().backend.connect_timeout;
        let deadline = Instant::now() + limit;
        if self.slot.is_none() {
            let slot = self.target.pool().reserve(limit).await;
            self.slot = Some(slot.map_err(|error| ProbeError::Full(error.to_string()))?);
        }
        let result = self.round(deadline, limit).await;
        match &result {
            Ok(seen) => self.learn(seen),
            Err(_) => self.greeting = Greeting::Doubtful,
        }
        result
    }

    async fn end(&mut self) {
        if let Some(link) = self.link.take() {
            // The process ends; what does not end in time is closed with it.
            let _ = timeout(GOODBYE, link.close()).await;
        }
        self.slot = None;
    }
}

/// How to log in, by what the server greets with.
async fn way(
    dialer: &Dialer,
    account: &MonitorAccount,
    settings: &Live,
    greeting: Greeting,
) -> Result<Way, ProbeError> {
    let known = dialer.greeted().filter(|_| greeting == Greeting::Known);
    let greeted = match known {
        Some(greeted) => greeted,
        None => dialer.greet().await.map_err(|error| of_login(&error))?,
    };
    Ok(Way {
        address: dialer.address().clone(),
        user: account.user.to_string(),
        password: Secret::clone(&account.password.load()),
        greeted: (*greeted).clone(),
        backend: settings.load().backend.clone(),
    })
}
