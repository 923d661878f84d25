//! The end of the process: which signals ask for what, and the stages in which everything ends.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long clients that are cut have to leave before they are left behind.
const AFTER_CUT: Duration = Duration::from_secs(2);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGHUP: read the settings again.
    Reload,
    /// SIGTERM or SIGINT: end.
    End(Ending),
}

/// Which signal asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

/// The signals that Sidepool listens to.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// The stages of the end, each begun by cancelling its token. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Stages {
    /// Cancelled: listeners close, and clients that have not logged in are sent away.
    pub closing: CancellationToken,
    /// Cancelled: idle clients are sent away, transactions may end.
    pub drain: CancellationToken,
    /// Cancelled: whatever clients are left are cut off.
    pub cut: CancellationToken,
    /// Cancelled: background work and the HTTP side end.
    pub shutdown: CancellationToken,
    /// The tasks of the listeners and of all clients.
    pub clients: TaskTracker,
}

/// How the clients' part of a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All clients left by themselves.
    All,
    /// Time was over; that many were cut off.
    Cut(usize),
}

impl Ending {
    /// What a shell reports for a process that this signal ended.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 128 + 15,
            Self::Interrupt => 128 + 2,
        }
    }

    /// The signal's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }
}

impl Signals {
    /// Catches the signals from now on. Must be called within a runtime.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one. Cancel safe.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.hangup.recv() => Request::Reload,
            _ = self.terminate.recv() => Request::End(Ending::Terminate),
            _ = self.interrupt.recv() => Request::End(Ending::Interrupt),
        }
    }

    /// Waits for the next one that asks for the end. Cancel safe.
    pub async fn next_ending(&mut self) -> Ending {
        loop {
            if let Request::End(ending) = self.next().await {
                return ending;
            }
        }
    }
}

impl Stages {
    /// Closes the listeners, lets clients leave for at most `limit`, then cuts off the rest.
    pub async fn send_clients_away(&self, limit: Duration) -> Drained {
        self.closing.cancel();
        self.drain.cancel();
        self.clients.close();
        if timeout(limit, self.clients.wait()).await.is_ok() {
            return Drained::All;
        }
        let left = self.clients.len();
        self.cut.cancel();
        // A task that does not even notice this is stuck in a defect; the process ends all the same.
        let _ = timeout(AFTER_CUT, self.clients.wait()).await;
        Drained::Cut(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn clients_that_leave_end_the_drain_early() {
        let stages = Stages::default();
        let drain = stages.drain.clone();
        stages.clients.spawn(async move {
            drain.cancelled().await;
            sleep(Duration::from_secs(3)).await;
        });
        let began = Instant::now();
        let drained = stages.send_clients_away(Duration::from_secs(25)).await;
        assert_eq!(drained, Drained::All);
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        assert!(stages.closing.is_cancelled() && !stages.cut.is_cancelled());
        assert!(!stages.shutdown.is_cancelled(), "/ready is still asked");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_cut_when_time_is_over_and_a_stuck_task_does_not_hold_the_process() {
        let stages = Stages::default();
        let cut = stages.cut.clone();
        stages.clients.spawn(async move { cut.cancelled().await });
        stages.clients.spawn(std::future::pending::<()>());
        let began = Instant::now();
        let drained = stages.send_clients_away(Duration::from_secs(25)).await;
        assert_eq!(drained, Drained::Cut(2));
        assert_eq!(began.elapsed(), Duration::from_secs(25) + AFTER_CUT);
    }

    #[tokio::test(start_paused = true)]
    async fn without_time_clients_are_cut_at_once() {
        let stages = Stages::default();
        let cut = stages.cut.clone();
        stages.clients.spawn(async move { cut.cancelled().await });
        let began = Instant::now();
        let drained = stages.send_clients_away(Duration::ZERO).await;
        assert_eq!(drained, Drained::Cut(1));
        assert!(began.elapsed() < Duration::from_millis(5));
    }
}
