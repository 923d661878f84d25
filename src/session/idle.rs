//! Waiting for the client's next command: no buffer, and nothing registered anew for each command.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop;
use tokio::time::{Instant, Sleep};
use tracing::info;

use super::Session;
use super::directory::{Activity, Entry};
use super::timers::{Deadline, IdleLimits, Situation, jittered, next_deadline};
use crate::config::{ClientIdentity, EffectiveClient, IdleMode, unless_zero};
use crate::metrics::IdleRule;
use crate::reason::CloseReason;
use crate::relay::Conn;

/// Why waiting ended.
pub(super) enum Woken {
    /// The first bytes of a command are in the client's input.
    Command,
    /// The session ends.
    Close(CloseReason),
}

/// What a waiting session can meet.
enum Event {
    Input(io::Result<usize>),
    BackendSpoke,
    Ended(CloseReason),
    Drain,
    Reloaded,
    Deadline(Deadline),
}

impl Session {
    /// Waits for the client's next command.
    pub(super) async fn idle(&mut self, alarm: &mut Alarm<'_>) -> Woken {
        match self.client.input.is_empty() {
            true => self.input_or_end(alarm).await,
            false => Woken::Command,
        }
    }

    /// Waits for the rest of a command that the client has stopped in the middle of: it is idle, and
    /// everything that ends an idle client ends it.
    pub(super) async fn stalled(&mut self) -> Woken {
        self.now_idle();
        let timer = pin!(tokio::time::sleep_until(self.clock.idle_since));
        self.input_or_end(&mut Alarm::new(timer)).await
    }

    async fn input_or_end(&mut self, alarm: &mut Alarm<'_>) -> Woken {
        self.client.release();
        self.me.set_activity(match self.situation() {
            Situation::Free => Activity::Idle,
            Situation::InTransaction => Activity::InTransaction,
            Situation::Pinned => Activity::Pinned,
        });
        // What was counted in observe mode is counted once per wait.
        let mut observed = None;
        loop {
            let heard = self.me.news().changes();
            // Of the settings only what is needed is kept while waiting.
            let (deadline, mode) = {
                let settings = self.effective();
                (self.deadline(&settings), settings.idle_mode)
            };
            let deadline = deadline.filter(|d| Some(d.reason) != observed);
            match self.wait(deadline, heard, alarm).await {
                Event::Input(Ok(n)) if n > 0 => return Woken::Command,
                Event::Input(Ok(_)) => return Woken::Close(CloseReason::ClientGone),
                Event::Input(Err(error)) => return Woken::Close(client_error(&error)),
                Event::BackendSpoke => return Woken::Close(CloseReason::BackendLost),
                Event::Ended(reason) => return Woken::Close(reason),
                Event::Drain => return Woken::Close(CloseReason::Drain),
                Event::Reloaded => observed = None,
                Event::Deadline(reached) if mode == IdleMode::Observe => {
                    self.would_have_closed(reached.reason);
                    observed = Some(reached.reason);
                }
                Event::Deadline(reached) => return Woken::Close(reached.reason),
            }
        }
    }

    /// What the session holds while it waits.
    pub(super) fn situation(&self) -> Situation {
        match &self.hold {
            None => Situation::Free,
            Some(hold)
                if hold.pending.in_transaction(self.carried.status) || self.statements.hold() =>
            {
                Situation::InTransaction
            }
            Some(_) => Situation::Pinned,
        }
    }

    /// The settings that hold for this client now.
    pub(super) fn effective(&mut self) -> EffectiveClient {
        let live = &self.context.settings;
        let of = (live.generation(), self.carried.state.schema_id());
        if let Some(rules) = &self.rules
            && rules.of == of
        {
            return rules.effective.clone();
        }
        let identity = &self.login.identity;
        let effective = live.load().client.for_client(&ClientIdentity {
            user: &identity.user,
            database: self.carried.state.schema().map_or(&[], |name| name),
            program_name: identity.program_name.as_deref().unwrap_or_default(),
            source: self.login.client.peer.ip(),
        });
        self.rules = Some(Rules {
            of,
            effective: effective.clone(),
        });
        effective
    }

    /// How long a client may stop in the middle of a command that is streamed: it is idle, and holds a
    /// backend connection. Servers wait as long as for a command.
    pub(super) fn stall(&mut self) -> Option<Duration> {
        let settings = self.effective();
        let limit = match self.situation() {
            _ if settings.idle_mode == IdleMode::Observe => return None,
            Situation::InTransaction => settings.idle_transaction_timeout,
            Situation::Free | Situation::Pinned => settings.pinned_idle_timeout,
        };
        unless_zero(limit)
    }

    fn deadline(&self, settings: &EffectiveClient) -> Option<Deadline> {
        let own = self
            .carried
            .timeouts
            .map(|wish| Duration::from_secs(wish.wait));
        let general = unless_zero(settings.idle_timeout);
        let limits = IdleLimits {
            // A client's own wish lowers the limit and never raises it.
            idle: [own, general].into_iter().flatten().min(),
            in_transaction: unless_zero(settings.idle_transaction_timeout),
            pinned: unless_zero(settings.pinned_idle_timeout),
        };
        let lifetime = unless_zero(settings.max_lifetime).and_then(|lifetime| {
            self.clock
                .began
                .checked_add(jittered(lifetime, self.clock.roll))
        });
        next_deadline(&limits, self.situation(), self.clock.idle_since, lifetime)
    }

    /// `heard` is how many changes of settings were known when the deadline was made.
    async fn wait(
        &mut self,
        deadline: Option<Deadline>,
        heard: u64,
        alarm: &mut Alarm<'_>,
    ) -> Event {
        let busy = self.situation() == Situation::InTransaction;
        let Self {
            client, hold, me, ..
        } = self;
        poll_fn(|cx| {
            if let Poll::Ready(read) = poll_input(client, cx) {
                return Poll::Ready(Event::Input(read));
            }
            if let Some(hold) = hold
                && poll_spoken(&mut hold.lease.conn, cx).is_ready()
            {
                return Poll::Ready(Event::BackendSpoke);
            }
            alarm.listen(me, cx);
            if let Some(reason) = me.end_reason() {
                return Poll::Ready(Event::Ended(reason));
            }
            let news = me.news();
            // A transaction is let finish; the drain's own timeout ends what does not.
            if news.draining() && !busy {
                return Poll::Ready(Event::Drain);
            }
            if news.changes() != heard {
                return Poll::Ready(Event::Reloaded);
            }
            match deadline {
                Some(deadline) => alarm.poll(cx, deadline).map(Event::Deadline),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn would_have_closed(&self, reason: CloseReason) {
        let rule = match reason {
            CloseReason::IdleTransactionTimeout => IdleRule::IdleTransaction,
            CloseReason::PinnedIdleTimeout => IdleRule::PinnedIdle,
            _ => IdleRule::Idle,
        };
        self.context.metrics.idle.would_have_closed.inc(rule);
        info!(client = self.me.id(), %reason, "client would have been closed; idle_mode is observe");
    }
}

/// The settings that held for the client when they were last looked up.
#[derive(Debug)]
pub(super) struct Rules {
    /// The generation of the settings, and the session's database.
    of: (u64, u64),
    effective: EffectiveClient,
}

/// What wakes a waiting session besides its sockets: one timer and one waker for all its waits.
///
/// A deadline that is put off, as each command does, leaves the timer as it is. It goes off at the old
/// moment, which is at most once in each limit, and is set again then.
pub(super) struct Alarm<'t> {
    timer: Pin<&'t mut Sleep>,
    /// The waker that the directory's entry has.
    waker: Option<Waker>,
    /// For when the timer is set and has this waker.
    armed: Option<Instant>,
}

impl<'t> Alarm<'t> {
    /// Not set for anything yet, whatever the timer's deadline.
    pub(super) const fn new(timer: Pin<&'t mut Sleep>) -> Self {
        Self {
            timer,
            waker: None,
            armed: None,
        }
    }

    /// Lets the directory wake this task.
    fn listen(&mut self, me: &Entry, cx: &Context<'_>) {
        let known = self.waker.as_ref();
        if !known.is_some_and(|known| known.will_wake(cx.waker())) {
            me.wake_by(cx.waker());
            self.waker = Some(cx.waker().clone());
            self.armed = None;
        }
    }

    /// Ready at the deadline. To be called after [`listen`](Self::listen).
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Deadline) -> Poll<Deadline> {
        if self.armed.is_some_and(|at| at <= deadline.at) && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        self.armed = None;
        if self.timer.deadline() > deadline.at {
            self.timer.as_mut().reset(deadline.at);
        }
        loop {
            // A task that has used up its turn is told "pending" without being registered.
            let registers = coop::has_budget_remaining();
            if self.timer.as_mut().poll(cx).is_pending() {
                self.armed = registers.then(|| self.timer.deadline());
                return Poll::Pending;
            }
            if self.timer.deadline() >= deadline.at {
                return Poll::Ready(deadline);
            }
            self.timer.as_mut().reset(deadline.at);
        }
    }
}

/// Reads the first bytes of a command. They come to the stack first, so that a silent client costs
/// no buffer.
fn poll_input(client: &mut Conn, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut space = [const { MaybeUninit::<u8>::uninit() }; 4096];
    let mut buf = ReadBuf::uninit(&mut space);
    match Pin::new(&mut client.stream).poll_read(cx, &mut buf) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Ready(Ok(())) => {
            client.input.extend_from_slice(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
        }
    }
}

/// Ready when a held backend connection ends or says something that nobody asked for.
fn poll_spoken(backend: &mut Conn, cx: &mut Context<'_>) -> Poll<()> {
    let mut space = [const { MaybeUninit::<u8>::uninit() }; 512];
    let mut buf = ReadBuf::uninit(&mut space);
    match Pin::new(&mut backend.stream).poll_read(cx, &mut buf) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(_) => {
            backend.input.extend_from_slice(buf.filled());
            Poll::Ready(())
        }
    }
}

/// A client whose machine stopped answering is told from one that reset the connection.
fn client_error(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::TimedOut => CloseReason::Keepalive,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => CloseReason::ClientGone,
        _ => CloseReason::IoError,
    }
}

impl Session {
    /// Notes that the client is idle from now on, or from the end of the answer that it got.
    pub(super) fn now_idle(&mut self) {
        let since = self.clock.answered.take().unwrap_or_else(Instant::now);
        self.clock.idle_since = since;
        self.me.touch(since);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::{sleep_until, timeout};

    use super::super::directory::{Directory, FIRST_ID, Identity, Registration};
    use super::*;

    fn registration() -> Registration {
        Arc::new(Directory::default()).register(FIRST_ID, Identity::default())
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    async fn until(alarm: &mut Alarm<'_>, me: &Registration, at: Instant) {
        let reason = CloseReason::IdleTimeout;
        let reached = poll_fn(|cx| {
            alarm.listen(me, cx);
            alarm.poll(cx, Deadline { at, reason })
        });
        assert_eq!(reached.await.at, at);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_kept_whether_it_was_put_off_or_brought_forward() {
        let (me, began) = (registration(), Instant::now());
        let timer = pin!(sleep_until(began));
        let mut alarm = Alarm::new(timer);
        for (left_at, deadline) in [(10, 30), (20, 50), (45, 75)] {
            let wait = until(&mut alarm, &me, began + secs(deadline));
            let left = sleep_until(began + secs(left_at));
            tokio::select! {
                () = wait => panic!("at {:?} instead of {deadline} s", began.elapsed()),
                () = left => {}
            }
        }
        until(&mut alarm, &me, began + secs(80)).await;
        assert_eq!(began.elapsed(), secs(80), "put off");

        let far = until(&mut alarm, &me, began + secs(500));
        assert!(timeout(secs(10), far).await.is_err());
        until(&mut alarm, &me, began + secs(100)).await;
        assert_eq!(began.elapsed(), secs(100), "brought forward");
        until(&mut alarm, &me, began + secs(99)).await;
        assert_eq!(began.elapsed(), secs(100), "over already");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_used_up_its_turn_is_woken_all_the_same() {
        let (me, began) = (registration(), Instant::now());
        let timer = pin!(sleep_until(began));
        let mut alarm = Alarm::new(timer);
        poll_fn(|cx| {
            while let Poll::Ready(turn) = coop::poll_proceed(cx) {
                turn.made_progress();
            }
            let (at, reason) = (began + secs(5), CloseReason::IdleTimeout);
            alarm.listen(&me, cx);
            assert!(alarm.poll(cx, Deadline { at, reason }).is_pending());
            Poll::Ready(())
        })
        .await;
        until(&mut alarm, &me, began + secs(5)).await;
        assert_eq!(began.elapsed(), secs(5));
    }
}
