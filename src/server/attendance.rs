//! What is kept beside a session until it ends, and the cutting off of one that does not.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use super::accounts::LoggedIn;
use super::counting::Connected;
use crate::backend::target::Kill;
use crate::reason::CloseReason;
use crate::session::context::Boxed;
use crate::session::directory::{Activity, Directory, Entry, Identity, KillOnItsWay};

/// How long the kill of a statement that was cut off waits for a place at the server; the process is ending.
const KILL_WITHIN: Duration = Duration::from_secs(1);

/// What is kept beside a session.
pub(super) struct Attendance {
    pub(super) connected: Connected,
    pub(super) entry: Arc<Entry>,
    pub(super) directory: Arc<Directory>,
    pub(super) _logged_in: LoggedIn,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Attendance {
    /// Runs the session, and ends it when the drain's time is up.
    pub(super) async fn until_the_end(self, mut session: Boxed<'static, CloseReason>) {
        let client = self.entry.id();
        {
            let identity = self.entry.identity();
            let (user, source, tls) = shown(&identity);
            debug!(client, user = &*user, source, tls, "client logged in");
        }
        let mut listening = None;
        let ended = poll_fn(|cx| {
            if let Poll::Ready(reason) = session.as_mut().poll(cx) {
                return Poll::Ready(Some(reason));
            }
            self.listen(cx.waker(), &mut listening);
            match self.directory.news().cutting() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        });
        let reason = match ended.await {
            // It has logged its end itself.
            Some(reason) => reason,
            None => {
                // In a box: all of this future's size is each client's.
                Box::pin(self.cut_off(session)).await;
                CloseReason::Drain
            }
        };
        self.connected.closed(reason);
    }

    /// Ends the session, and the statement that it waits for.
    async fn cut_off(&self, session: Boxed<'static, CloseReason>) {
        let kill = self.entry.begin_kill();
        let runs = self.entry.view().activity == Activity::Active;
        drop(session);
        if let Some(kill) = kill.filter(|_| runs) {
            self.kill(&kill).await;
        }
        let identity = self.entry.identity();
        let (user, source, _) = shown(&identity);
        let client = self.entry.id();
        debug!(client, user = &*user, source, "client cut off");
    }

    /// Lets the directory wake this task, whatever the session does.
    fn listen(&self, waker: &Waker, listening: &mut Option<Waker>) {
        let known = listening.as_ref();
        if !known.is_some_and(|known| known.will_wake(waker)) {
            self.entry.wake_by(waker);
            *listening = Some(waker.clone());
        }
    }

    /// Servers do not notice that a client has gone while its statement runs.
    async fn kill(&self, kill: &KillOnItsWay) {
        let identity = self.entry.identity();
        let (Some(target), Some(key)) = (kill.target(), &identity.key) else {
            return;
        };
        let killed = target.kill(key, Kill::Query, kill.thread(), KILL_WITHIN);
        if let Err(error) = killed.await {
            debug!(%error, "a statement that was cut off could not be killed");
        }
    }
}

/// User, source and TLS for a log line.
fn shown(identity: &Identity) -> (Cow<'_, str>, &str, bool) {
    let user = String::from_utf8_lossy(&identity.user);
    (user, &identity.source, identity.tls)
}
