//! Who is connected: one small shared entry per client, for lists, kills and revoked accounts.
//!
//! A session writes its own entry with plain atomics and never waits for a reader; readers copy
//! what they see. An entry leaves the directory when its [`Registration`] is dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backend::key::PoolKey;
use crate::backend::target::Target;
use crate::reason::{CloseReason, PinReason};

/// The first client id. Servers count from 1, so ids of Sidepool never meet theirs (hazard 16).
pub const FIRST_ID: u32 = 1 << 31;

/// All connected clients.
#[derive(Debug)]
pub struct Directory {
    next_id: AtomicU32,
    clients: Mutex<HashMap<u32, Arc<Entry>>>,
    news: AtomicU64,
    started: Instant,
}

/// What every session has to hear of: that the drain has begun, and that settings changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct News(u64);

impl News {
    /// The two lowest bits are stages of the end; the others count changes of settings.
    const DRAIN: u64 = 1;
    const CUT: u64 = 2;
    const CHANGE: u64 = 4;

    /// Idle clients are to leave; transactions may end.
    pub const fn draining(self) -> bool {
        self.0 & Self::DRAIN != 0
    }

    /// Whoever is left is cut off.
    pub const fn cutting(self) -> bool {
        self.0 & Self::CUT != 0
    }

    /// How often settings have changed.
    pub const fn changes(self) -> u64 {
        self.0 / Self::CHANGE
    }
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// Waiting for the client's next command, holding nothing.
    Idle,
    /// Waiting for a backend connection.
    Waiting,
    /// A command is being answered.
    Active,
    /// Waiting for the client inside a transaction.
    InTransaction,
    /// Waiting for the client, pinned.
    Pinned,
}

impl Activity {
    /// The word in lists and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::InTransaction => "in_transaction",
            Self::Pinned => "pinned",
        }
    }

    const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Idle,
            1 => Self::Waiting,
            2 => Self::Active,
            3 => Self::InTransaction,
            _ => Self::Pinned,
        }
    }
}

/// Who a client is; fixed at login.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The account's user name, bytes as sent.
    pub user: Bytes,
    /// The attribute `program_name`, if sent.
    pub program_name: Option<Bytes>,
    /// Where the client is: an address, or `unix`.
    pub source: String,
    /// Whether the client speaks TLS.
    pub tls: bool,
    /// The account; others act with it as well, since a statement is killed by its own account.
    pub key: Option<PoolKey>,
}

impl Identity {
    /// The account's id, unique for the process.
    pub fn account_id(&self) -> Option<u64> {
        Some(self.key.as_ref()?.credentials().account_id())
    }
}

/// One client, as others see it.
#[derive(Debug)]
pub struct Entry {
    id: u32,
    connected: Instant,
    origin: Instant,
    identity: Mutex<Arc<Identity>>,
    database: Mutex<Option<Bytes>>,
    activity: AtomicU8,
    /// `PinReason::index` + 1 of the first reason that stands; 0: not pinned.
    pin: AtomicU8,
    commands: AtomicU64,
    last_activity_millis: AtomicU64,
    backend_thread: AtomicU64,
    /// The server that `backend_thread` is of.
    target: Mutex<Option<Target>>,
    kills: Kills,
    end: EndSignal,
}

/// Kills on their way to what runs on the client's backend connection.
#[derive(Debug, Default)]
struct Kills {
    count: AtomicUsize,
    returned: Notify,
}

#[derive(Debug, Default)]
struct EndSignal {
    /// `CloseReason::index` + 1; 0: nobody asked.
    reason: AtomicU8,
    /// Wakes the session's task while it waits for its client.
    waker: Mutex<Option<Waker>>,
}

/// A copy of one entry.
#[derive(Debug, Clone)]
pub struct ClientView {
    /// The id the client was greeted with.
    pub id: u32,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The session's database.
    pub database: Option<Bytes>,
    /// What it is doing.
    pub activity: Activity,
    /// The first reason for which it is pinned.
    pub pin: Option<PinReason>,
    /// Commands so far.
    pub commands: u64,
    /// Time since it connected.
    pub age: Duration,
    /// Time since its last command began or ended.
    pub idle: Duration,
    /// The server's thread id of the backend connection it holds.
    pub backend_thread: Option<u64>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            next_id: AtomicU32::new(FIRST_ID),
            clients: Mutex::new(HashMap::new()),
            news: AtomicU64::new(0),
            started: Instant::now(),
        }
    }
}

impl Directory {
    /// A fresh id for a client about to be greeted. Wraps within the upper half of 32 bits.
    pub fn next_id(&self) -> u32 {
        self.next_id.fetch_add(1, Ordering::Relaxed) | FIRST_ID
    }

    /// Enters a client; it is listed until the returned registration is dropped.
    pub fn register(self: &Arc<Self>, id: u32, identity: Identity) -> Registration {
        let entry = Arc::new(Entry {
            id,
            connected: Instant::now(),
            origin: self.started,
            identity: Mutex::new(Arc::new(identity)),
            database: Mutex::new(None),
            activity: AtomicU8::new(Activity::Idle as u8),
            pin: AtomicU8::new(0),
            commands: AtomicU64::new(0),
            last_activity_millis: AtomicU64::new(millis_between(self.started, Instant::now())),
            backend_thread: AtomicU64::new(0),
            target: Mutex::new(None),
            kills: Kills::default(),
            end: EndSignal::default(),
        });
        self.clients.lock().insert(id, Arc::clone(&entry));
        Registration {
            directory: Arc::clone(self),
            entry,
        }
    }

    /// The client of that id.
    pub fn get(&self, id: u32) -> Option<Arc<Entry>> {
        self.clients.lock().get(&id).cloned()
    }

    /// How many clients are connected.
    pub fn len(&self) -> usize {
        self.clients.lock().len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies of all entries, unordered. Holds the directory's lock only to collect them.
    pub fn list(&self) -> Vec<ClientView> {
        self.entries().iter().map(|entry| entry.view()).collect()
    }

    /// Lets every session know that the drain has begun.
    pub fn begin_drain(&self) {
        self.news.fetch_or(News::DRAIN, Ordering::AcqRel);
        self.nudge_all();
    }

    /// Wakes whoever is left, to be cut off.
    pub fn cut(&self) {
        self.news.fetch_or(News::CUT, Ordering::AcqRel);
        self.nudge_all();
    }

    /// Lets every session know that settings changed, so that waiting ones look at theirs again.
    pub fn settings_changed(&self) {
        self.news.fetch_add(News::CHANGE, Ordering::AcqRel);
        self.nudge_all();
    }

    /// What sessions were let know.
    pub fn news(&self) -> News {
        News(self.news.load(Ordering::Acquire))
    }

    fn nudge_all(&self) {
        for entry in self.entries() {
            entry.nudge();
        }
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.clients.lock().values().cloned().collect()
    }
}

impl Entry {
    /// The id the client was greeted with.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Who the client is.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.lock())
    }

    /// A `COM_CHANGE_USER` made it somebody else.
    pub fn set_identity(&self, identity: Identity) {
        *self.identity.lock() = Arc::new(identity);
    }

    /// The session's database changed.
    pub fn set_database(&self, database: Option<Bytes>) {
        *self.database.lock() = database;
    }

    /// What the session does from now on.
    pub fn set_activity(&self, activity: Activity) {
        self.activity.store(activity as u8, Ordering::Relaxed);
    }

    /// The first reason for which the session is pinned.
    pub fn set_pin(&self, reason: Option<PinReason>) {
        let value = reason.map_or(0, |r| r.index() as u8 + 1);
        self.pin.store(value, Ordering::Relaxed);
    }

    /// The server's thread id of the backend connection held, 0 for none.
    pub fn set_backend_thread(&self, thread: u64) {
        self.backend_thread.store(thread, Ordering::Relaxed);
    }

    /// The server's thread id of the backend connection held, if any.
    pub fn backend_thread(&self) -> Option<u64> {
        Some(self.backend_thread.load(Ordering::Relaxed)).filter(|&id| id != 0)
    }

    /// The session borrows from that server from now on.
    pub fn set_target(&self, target: &Target) {
        *self.target.lock() = Some(target.clone());
    }

    /// The backend connection is let go of. `true`: a kill is on its way to it, and until
    /// [`kills_returned`](Self::kills_returned) nobody else may have it.
    pub fn clear_backend_thread(&self) -> bool {
        // Either the killer sees that there is no connection any more, or this sees the killer.
        self.backend_thread.store(0, Ordering::SeqCst);
        self.kills.count.load(Ordering::SeqCst) > 0
    }

    /// Begins to kill what runs on the client's backend connection; `None`: it holds none.
    pub fn begin_kill(self: &Arc<Self>) -> Option<KillOnItsWay> {
        self.kills.count.fetch_add(1, Ordering::SeqCst);
        let kill = KillOnItsWay {
            entry: Arc::clone(self),
            thread: self.backend_thread.load(Ordering::SeqCst),
        };
        (kill.thread != 0).then_some(kill)
    }

    /// Waits until no kill is on its way. Cancel safe.
    pub async fn kills_returned(&self) {
        loop {
            let mut returned = std::pin::pin!(self.kills.returned.notified());
            returned.as_mut().enable();
            if self.kills.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            returned.await;
        }
    }

    /// A command has begun.
    pub fn command_began(&self, now: Instant) {
        // Only the session itself counts.
        let commands = self.commands.load(Ordering::Relaxed);
        self.commands.store(commands + 1, Ordering::Relaxed);
        self.touch(now);
    }

    /// A command has begun or ended.
    pub fn touch(&self, now: Instant) {
        let millis = millis_between(self.origin, now);
        self.last_activity_millis.store(millis, Ordering::Relaxed);
    }

    /// Asks the session to end at its next idle moment. The first reason given wins.
    pub fn end(&self, reason: CloseReason) {
        let value = reason.index() as u8 + 1;
        let _ = self
            .end
            .reason
            .compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire);
        self.nudge();
    }

    /// From now on wakes this whenever the session's end is asked for or there are [`News`]. What was
    /// said before is not said again: look at it after this.
    pub fn wake_by(&self, waker: &Waker) {
        let old = self.end.waker.lock().replace(waker.clone());
        drop(old);
    }

    fn nudge(&self) {
        // Out of the lock: a woken task may be dropped at once, and its registration with it.
        let waker = self.end.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether somebody asked for the end, and why.
    pub fn end_reason(&self) -> Option<CloseReason> {
        let value = usize::from(self.end.reason.load(Ordering::Acquire));
        CloseReason::ALL.get(value.checked_sub(1)?).copied()
    }

    /// A copy of the entry.
    pub fn view(&self) -> ClientView {
        let last = Duration::from_millis(self.last_activity_millis.load(Ordering::Relaxed));
        let pin = usize::from(self.pin.load(Ordering::Relaxed));
        ClientView {
            id: self.id,
            identity: self.identity(),
            database: self.database.lock().clone(),
            activity: Activity::from_u8(self.activity.load(Ordering::Relaxed)),
            pin: pin
                .checked_sub(1)
                .and_then(|i| PinReason::ALL.get(i).copied()),
            commands: self.commands.load(Ordering::Relaxed),
            age: self.connected.elapsed(),
            idle: self.origin.elapsed().saturating_sub(last),
            backend_thread: self.backend_thread(),
        }
    }
}

/// A kill that has not returned; while there is one, the backend connection is not shared, so that
/// a kill that comes late hits nobody else's statement.
#[derive(Debug)]
pub struct KillOnItsWay {
    entry: Arc<Entry>,
    thread: u64,
}

impl KillOnItsWay {
    /// The server's thread id of the connection.
    pub const fn thread(&self) -> u64 {
        self.thread
    }

    /// The server that it is a thread of: a session with a connection stays at its server until this kill
    /// has returned.
    pub fn target(&self) -> Option<Target> {
        self.entry.target.lock().clone()
    }
}

impl Drop for KillOnItsWay {
    fn drop(&mut self) {
        if self.entry.kills.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.entry.kills.returned.notify_waiters();
        }
    }
}

/// Keeps a client listed.
#[derive(Debug)]
pub struct Registration {
    directory: Arc<Directory>,
    entry: Arc<Entry>,
}

impl Registration {
    /// The client's entry, which outlives its registration.
    pub fn entry(&self) -> Arc<Entry> {
        Arc::clone(&self.entry)
    }

    /// What all sessions were let know.
    pub fn news(&self) -> News {
        self.directory.news()
    }
}

impl std::ops::Deref for Registration {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // The waker holds the task, which holds this.
        let waker = self.entry.end.waker.lock().take();
        drop(waker);
        self.directory.clients.lock().remove(&self.entry.id);
    }
}

fn millis_between(origin: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(origin).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_are_in_the_upper_half_and_entries_leave_with_their_registration() {
        let directory = Arc::new(Directory::default());
        let id = directory.next_id();
        assert!(id >= FIRST_ID);
        let registration = directory.register(id, Identity::default());
        registration.command_began(Instant::now());
        assert_eq!(directory.get(id).unwrap().view().commands, 1);
        drop(registration);
        assert!(directory.is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_is_let_go_of_knows_of_the_kills_that_have_not_returned() {
        let directory = Arc::new(Directory::default());
        let registration = directory.register(FIRST_ID, Identity::default());
        let entry = registration.entry();
        assert!(entry.begin_kill().is_none(), "it holds none");
        assert!(!entry.clear_backend_thread());
        entry.set_backend_thread(7);
        let kill = entry.begin_kill().unwrap();
        assert_eq!(kill.thread(), 7);
        assert!(entry.clear_backend_thread());
        assert!(entry.begin_kill().is_none(), "too late for another");
        let waiting = tokio::spawn({
            let entry = registration.entry();
            async move { entry.kills_returned().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(kill);
        waiting.await.unwrap();
        assert!(!entry.clear_backend_thread());
    }

    #[tokio::test]
    async fn an_end_asked_for_before_anybody_waits_is_not_lost() {
        let directory = Arc::new(Directory::default());
        let registration = directory.register(FIRST_ID, Identity::default());
        directory.get(FIRST_ID).unwrap().end(CloseReason::Killed);
        directory.get(FIRST_ID).unwrap().end(CloseReason::Drain);
        assert_eq!(registration.end_reason(), Some(CloseReason::Killed));
    }

    #[tokio::test]
    async fn a_waiting_session_is_woken_by_its_end_and_by_news() {
        let directory = Arc::new(Directory::default());
        let registration = directory.register(FIRST_ID, Identity::default());
        let woken = Arc::new(Woken::default());
        registration.wake_by(&Waker::from(Arc::clone(&woken)));
        let times = || woken.0.load(Ordering::Relaxed);

        directory.settings_changed();
        directory.settings_changed();
        assert_eq!((times(), registration.news().changes()), (2, 2));
        assert!(!registration.news().draining());
        directory.begin_drain();
        assert!(registration.news().draining());
        assert_eq!((times(), registration.news().changes()), (3, 2));
        directory.cut();
        assert!(registration.news().cutting());
        directory.get(FIRST_ID).unwrap().end(CloseReason::Killed);
        assert_eq!(times(), 5);

        let entry = directory.get(FIRST_ID).unwrap();
        drop(registration);
        entry.end(CloseReason::Killed);
        assert_eq!(times(), 5, "who has left is not woken");
        assert_eq!(Arc::strong_count(&woken), 1, "nor held");
    }

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
