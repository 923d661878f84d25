//! Waiting for the client's next command, holding no buffer and one timer.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;
use tracing::info;

use super::Session;
use super::directory::Activity;
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
    pub(super) async fn idle(&mut self) -> Woken {
        match self.client.input.is_empty() {
            true => self.input_or_end().await,
            false => Woken::Command,
        }
    }

    /// Waits for the rest of a command that the client has stopped in the middle of: it is idle, and
    /// everything that ends an idle client ends it.
    pub(super) async fn stalled(&mut self) -> Woken {
        self.now_idle();
        self.input_or_end().await
    }

    async fn input_or_end(&mut self) -> Woken {
        self.client.release();
        self.me.set_activity(match self.situation() {
            Situation::Free => Activity::Idle,
            Situation::InTransaction => Activity::InTransaction,
            Situation::Pinned => Activity::Pinned,
        });
        // What was counted in observe mode is counted once per wait.
        let mut observed = None;
        loop {
            let settings = self.effective();
            let deadline = self
                .deadline(&settings)
                .filter(|d| Some(d.reason) != observed);
            match self.wait(deadline).await {
                Event::Input(Ok(n)) if n > 0 => return Woken::Command,
                Event::Input(Ok(_)) => return Woken::Close(CloseReason::ClientGone),
                Event::Input(Err(error)) => return Woken::Close(client_error(&error)),
                Event::BackendSpoke => return Woken::Close(CloseReason::BackendLost),
                Event::Ended(reason) => return Woken::Close(reason),
                Event::Drain => return Woken::Close(CloseReason::Drain),
                Event::Reloaded => observed = None,
                Event::Deadline(reached) if settings.idle_mode == IdleMode::Observe => {
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
            Some(hold) if hold.pending.in_transaction(self.carried.status) => {
                Situation::InTransaction
            }
            Some(_) => Situation::Pinned,
        }
    }

    /// The settings that hold for this client now.
    pub(super) fn effective(&self) -> EffectiveClient {
        let identity = &self.login.identity;
        let settings = self.context.settings.load();
        settings.client.for_client(&ClientIdentity {
            user: &identity.user,
            database: self.carried.state.schema().map_or(&[], |name| name),
            program_name: identity.program_name.as_deref().unwrap_or_default(),
            source: identity.source.parse().ok(),
        })
    }

    /// How long a client may stop in the middle of a command that is streamed: it is idle, and holds a
    /// backend connection. Servers wait as long as for a command.
    pub(super) fn stall(&self) -> Option<Duration> {
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

    async fn wait(&mut self, deadline: Option<Deadline>) -> Event {
        let busy = self.situation() == Situation::InTransaction;
        let Self {
            client,
            hold,
            me,
            context,
            ..
        } = self;
        let mut reloaded = context.reloaded.clone();
        reloaded.mark_unchanged();
        let mut ended = pin!(me.ended());
        let mut drain = pin!(context.drain.cancelled());
        let mut changed = pin!(reloaded.changed());
        let mut timer = pin!(sleep_until(deadline));
        poll_fn(|cx| {
            if let Poll::Ready(read) = poll_input(client, cx) {
                return Poll::Ready(Event::Input(read));
            }
            if let Some(hold) = hold
                && poll_spoken(&mut hold.lease.conn, cx).is_ready()
            {
                return Poll::Ready(Event::BackendSpoke);
            }
            if let Poll::Ready(reason) = ended.as_mut().poll(cx) {
                return Poll::Ready(Event::Ended(reason));
            }
            // A transaction is let finish; the drain's own timeout ends what does not.
            if !busy && drain.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Drain);
            }
            if let Poll::Ready(Ok(())) = changed.as_mut().poll(cx) {
                return Poll::Ready(Event::Reloaded);
            }
            timer.as_mut().poll(cx).map(Event::Deadline)
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

async fn sleep_until(deadline: Option<Deadline>) -> Deadline {
    match deadline {
        Some(deadline) => {
            tokio::time::sleep_until(deadline.at).await;
            deadline
        }
        None => std::future::pending().await,
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
    /// Notes that the client is idle from now on.
    pub(super) fn now_idle(&mut self) {
        self.clock.idle_since = Instant::now();
        self.me.touch(false);
    }
}
