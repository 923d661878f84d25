//! Probes: what each backend is, asked again and again over one connection of the monitor's account.
//!
//! [`Prober`] owns the rhythm, the log and the published [`Condition`]; how a backend is asked is
//! behind [`Ask`], which [`Monitor`] does: with `mysql_async` wherever that keeps what `[backend]` promises.

mod condition;
mod driver;
mod link;
mod monitor;
mod own;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics::Counter;

pub use condition::{
    Change, Condition, DownReason, Failure, Latest, Observation, ProbeError, Promotion,
    Replication, Standing,
};
pub use monitor::{Monitor, MonitorAccount};

/// The longest pause before a server is asked again that does not answer, and before one that
/// answers with a refusal; unless `backend.probe_interval` is longer.
const DOWN_PAUSE: Duration = Duration::from_secs(5);
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Asks one backend what it is.
pub trait Ask: Send {
    /// One probe, which brings its own time limit. Not to be cancelled but at the end of the process.
    fn ask(&mut self) -> impl Future<Output = Result<Observation, ProbeError>> + Send;

    /// Closes what is open.
    fn end(&mut self) -> impl Future<Output = ()> + Send;
}

/// Keeps one backend's condition up to date.
#[derive(Debug)]
pub struct Prober {
    /// The backend's configured address, for the log.
    pub name: String,
    /// Where the condition is published.
    pub condition: watch::Sender<Condition>,
    /// Told after every probe.
    pub probed: Arc<Notify>,
    /// Counts failed probes.
    pub failures: Counter,
}

impl Prober {
    /// Probes every `interval` until `stop`, and closes the probe's connection. Failed probes are repeated after
    /// pauses that double from the interval to 5 s where the server does not answer (how soon a failover is seen
    /// depends on that), and to 1 min where it refuses (each attempt is a login it refuses).
    pub async fn run<A: Ask>(
        self,
        mut ask: A,
        interval: impl Fn() -> Duration + Send,
        stop: CancellationToken,
    ) {
        let mut pause = Duration::ZERO;
        let rounds = async {
            loop {
                let result = ask.ask().await.map_err(Arc::new);
                let interval = interval();
                pause = match &result {
                    Ok(_) => interval,
                    Err(error) => after_failure(error, pause, interval),
                };
                self.note(&result);
                sleep(pause).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = rounds => {}
        }
        ask.end().await;
    }

    fn note(&self, result: &Result<Observation, Arc<ProbeError>>) {
        let mut change = Change::Nothing;
        self.condition.send_modify(|condition| {
            change = condition.note(result, Instant::now());
        });
        if result.is_err() {
            self.failures.inc();
        }
        self.log(change, result);
        self.probed.notify_one();
    }

    fn log(&self, change: Change, result: &Result<Observation, Arc<ProbeError>>) {
        let backend = &*self.name;
        let (standing, replication) = {
            let condition = self.condition.borrow();
            (condition.standing, condition.replication.as_str())
        };
        match (change, result) {
            (Change::Nothing, _) => {}
            (Change::Standing(was), Ok(seen)) => {
                let version = &*seen.version;
                info!(backend, %was, now = %standing, replication, version, "backend probed");
                if seen.replication == Replication::Hidden {
                    info!(
                        backend,
                        "backend.monitor_user may not see the replication state: \
                         grant it REPLICATION CLIENT (MySQL) or SLAVE MONITOR (MariaDB)"
                    );
                }
            }
            (Change::Standing(was), Err(error)) => {
                warn!(backend, %was, now = %standing, %error, "probe failed");
            }
            (Change::Error, Err(error)) => {
                warn!(backend, now = %standing, %error, "probe failed");
            }
            (Change::Error, Ok(_)) => {}
        }
    }
}

fn after_failure(error: &ProbeError, last: Duration, interval: Duration) -> Duration {
    let longest = match error.is_stubborn() {
        true => REFUSED_PAUSE,
        false => DOWN_PAUSE,
    };
    (last * 2).clamp(interval, longest.max(interval))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const EVERY: Duration = Duration::from_secs(2);

    /// Answers by a script, and with its last line for ever.
    struct Script {
        lines: VecDeque<Result<Observation, ProbeError>>,
        asked: watch::Sender<Vec<Instant>>,
        ended: Arc<Notify>,
    }

    impl Ask for Script {
        async fn ask(&mut self) -> Result<Observation, ProbeError> {
            self.asked.send_modify(|asked| asked.push(Instant::now()));
            match self.lines.len() {
                1 => self.lines[0].clone(),
                _ => self.lines.pop_front().unwrap(),
            }
        }

        async fn end(&mut self) {
            self.ended.notify_one();
        }
    }

    fn seen(writable: bool) -> Result<Observation, ProbeError> {
        Ok(Observation {
            version: "9.7.4".into(),
            writable,
            replication: Replication::None,
            max_connections: None,
            wait_timeout: None,
        })
    }

    /// When a backend that answers so was asked, in seconds, and its condition after each of those.
    async fn asked(
        lines: Vec<Result<Observation, ProbeError>>,
        times: usize,
    ) -> (Vec<u64>, Condition) {
        let start = Instant::now();
        let (asked, mut times_asked) = watch::channel(Vec::new());
        let (sender, condition) = watch::channel(Condition::new(start));
        let ended = Arc::new(Notify::new());
        let script = Script {
            lines: lines.into(),
            asked,
            ended: Arc::clone(&ended),
        };
        let prober = Prober {
            name: "db:3306".into(),
            condition: sender,
            probed: Arc::new(Notify::new()),
            failures: crate::metrics::Metrics::new().backend("x").probe_failures,
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(prober.run(script, || EVERY, stop.clone()));
        times_asked
            .wait_for(|asked| asked.len() >= times)
            .await
            .unwrap();
        let times = times_asked.borrow()[..times]
            .iter()
            .map(|at| (*at - start).as_secs())
            .collect();
        stop.cancel();
        running.await.unwrap();
        ended.notified().await;
        let condition = condition.borrow().clone();
        (times, condition)
    }

    #[tokio::test(start_paused = true)]
    async fn probes_come_at_the_interval_and_fail_over_is_seen_at_the_next() {
        let lines = vec![seen(false), seen(false), seen(true)];
        let (times, condition) = asked(lines, 4).await;
        assert_eq!(times, [0, 2, 4, 6]);
        assert_eq!(condition.standing, Standing::Writer);
        assert_eq!(condition.promotion, Promotion::Possible);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_server_is_asked_often_and_a_refusing_one_ever_more_seldom() {
        let dead = vec![Err(ProbeError::Unreachable("refused".into()))];
        let (times, condition) = asked(dead, 5).await;
        assert_eq!(times, [0, 2, 6, 11, 16]);
        assert_eq!(condition.standing, Standing::Down(DownReason::Unreachable));

        let refusing = vec![Err(ProbeError::Denied("1045".into()))];
        let (times, condition) = asked(refusing, 8).await;
        assert_eq!(times, [0, 2, 6, 14, 30, 62, 122, 182]);
        assert_eq!(condition.standing, Standing::Unknown);

        // A success makes the next pause short again.
        let gone = || Err(ProbeError::Lost("end of file".into()));
        let lines = vec![gone(), gone(), seen(true), gone(), seen(true)];
        let (times, _) = asked(lines, 5).await;
        assert_eq!(times, [0, 2, 6, 8, 12]);
    }
}
