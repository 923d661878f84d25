//! Random operations: after each one, and whenever tasks have run, the rules hold.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::{advance, timeout};
use tokio_util::sync::CancellationToken;

use super::fake::*;
use crate::pool::*;
use crate::reason::RetireReason;

#[derive(Debug, Clone)]
enum Op {
    Borrow {
        key: Key,
        wish: State,
        ms: u64,
    },
    Cancel(usize),
    /// Cancels right after a return, when a delivery may be on its way.
    ReturnAndCancel(usize, State, usize),
    Return(usize, State),
    Retire(usize),
    Drop(usize),
    Reborrow(usize),
    /// All idle connections of a key die.
    Die(Key),
    Mood(Key, Option<Mood>),
    Capacity(Option<usize>),
    Reserve(u64),
    Release(usize),
    Open(Key, u64),
    Limits {
        max: usize,
        idle: usize,
        min: usize,
        dials: usize,
    },
    RetireKey(Key),
    FailWaiters(Key),
    Advance(u64),
    /// No time passes, and only some tasks get to run.
    Yield(usize),
}

fn a_state() -> impl Strategy<Value = State> {
    (prop_oneof![Just(None), (0..2_u8).prop_map(Some)], 0..2_u8)
        .prop_map(|(db, vars)| State { db, vars })
}

fn a_mood() -> impl Strategy<Value = Option<Mood>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(Mood::Fail(FakeError::Refused))),
        1 => Just(Some(Mood::Fail(FakeError::Denied))),
        1 => Just(Some(Mood::Fail(FakeError::Full))),
    ]
}

fn an_op() -> impl Strategy<Value = Op> {
    let key = 0..3_u8;
    let some_ms = prop_oneof![Just(0_u64), 1..50_u64, 100..2000_u64];
    prop_oneof![
        10 => (key.clone(), a_state(), some_ms.clone()).prop_map(|(key, wish, ms)| Op::Borrow { key, wish, ms }),
        2 => (0..9_usize).prop_map(Op::Cancel),
        2 => (0..9_usize, a_state(), 0..9_usize).prop_map(|(n, s, m)| Op::ReturnAndCancel(n, s, m)),
        8 => (0..9_usize, a_state()).prop_map(|(n, s)| Op::Return(n, s)),
        1 => (0..9_usize).prop_map(Op::Retire),
        1 => (0..9_usize).prop_map(Op::Drop),
        2 => (0..9_usize).prop_map(Op::Reborrow),
        1 => key.clone().prop_map(Op::Die),
        1 => (key.clone(), a_mood()).prop_map(|(key, mood)| Op::Mood(key, mood)),
        1 => proptest::option::of(0..5_usize).prop_map(Op::Capacity),
        1 => some_ms.clone().prop_map(Op::Reserve),
        1 => (0..9_usize).prop_map(Op::Release),
        1 => (key.clone(), some_ms).prop_map(|(key, ms)| Op::Open(key, ms)),
        1 => (1..6_usize, 0..6_usize, 0..3_usize, 1..4_usize)
            .prop_map(|(max, idle, min, dials)| Op::Limits { max, idle, min, dials }),
        1 => key.clone().prop_map(Op::RetireKey),
        1 => key.prop_map(Op::FailWaiters),
        6 => prop_oneof![0..15_u64, 50..1500_u64].prop_map(Op::Advance),
        4 => (0..4_usize).prop_map(Op::Yield),
    ]
}

struct World {
    pool: TestPool,
    server: Server,
    borrows: Vec<(State, JoinHandle<Result<TestLease, TestError>>)>,
    opens: Vec<JoinHandle<Result<(), TestError>>>,
    reservations: Vec<JoinHandle<Result<SlotGuard<FakeConnector>, TestError>>>,
    leases: Vec<TestLease>,
    guards: Vec<SlotGuard<FakeConnector>>,
    tickets: Vec<(u64, u64, Ticket)>,
    /// How often each connection was lent or returned.
    uses: HashMap<u64, u64>,
    /// The most that may be alive: the limit, or what was there when it was lowered.
    ceiling: usize,
    dial_ceiling: usize,
}

fn limits(max: usize, idle: usize, min: usize, dials: usize) -> Limits {
    Limits {
        max_connections: max,
        max_idle: idle,
        min_idle: min,
        idle_timeout: ms(700),
        max_lifetime: Duration::from_secs(3),
        max_dials: dials,
    }
}

impl World {
    fn new() -> Self {
        let (pool, server) = pool(limits(3, 3, 0, 2));
        server.data().idle_limit = Some(Duration::from_secs(4));
        Self {
            pool,
            server,
            borrows: Vec::new(),
            opens: Vec::new(),
            reservations: Vec::new(),
            leases: Vec::new(),
            guards: Vec::new(),
            tickets: Vec::new(),
            uses: HashMap::new(),
            ceiling: 3,
            dial_ceiling: 2,
        }
    }

    fn take<T>(list: &mut Vec<T>, n: usize) -> Option<T> {
        (!list.is_empty()).then(|| list.remove(n % list.len()))
    }

    fn give_back(&mut self, n: usize, state: State) {
        if let Some(lease) = Self::take(&mut self.leases, n) {
            let id = lease.id();
            let uses = self.uses.entry(id).or_default();
            *uses += 1;
            self.tickets.push((id, *uses, give_back_as(lease, state)));
        }
    }

    fn cancel(&mut self, n: usize) {
        if let Some((_, borrow)) = Self::take(&mut self.borrows, n) {
            borrow.abort();
        }
    }

    fn lent(&mut self, lease: TestLease) {
        *self.uses.entry(lease.id()).or_default() += 1;
        self.leases.push(lease);
    }

    fn reborrow(&mut self, n: usize) {
        let Some((id, uses, ticket)) = Self::take(&mut self.tickets, n) else {
            return;
        };
        if let Some(lease) = self.pool.reborrow(ticket) {
            assert_eq!(
                (lease.id(), self.uses[&id]),
                (id, uses),
                "somebody used it since"
            );
            self.lent(lease);
        }
    }

    fn spawn(&mut self, op: Op) {
        let (pool, server) = (self.pool.clone(), self.server.clone());
        match op {
            Op::Borrow {
                key,
                wish,
                ms: time,
            } => {
                let task = tokio::spawn(async move { pool.borrow(&key, &wish, ms(time)).await });
                self.borrows.push((wish, task));
            }
            Op::Reserve(time) => {
                self.reservations
                    .push(tokio::spawn(async move { pool.reserve(ms(time)).await }));
            }
            Op::Open(key, time) => self.opens.push(tokio::spawn(async move {
                let dial = async move { server.login(key).await };
                pool.open(&key, dial, ms(time)).await
            })),
            _ => unreachable!(),
        }
    }

    async fn run(&mut self, op: Op) {
        match op {
            Op::Borrow { .. } | Op::Reserve(_) | Op::Open(..) => self.spawn(op),
            Op::Cancel(n) => self.cancel(n),
            Op::ReturnAndCancel(n, state, m) => {
                self.give_back(n, state);
                self.cancel(m);
            }
            Op::Return(n, state) => self.give_back(n, state),
            Op::Retire(n) => {
                if let Some(lease) = Self::take(&mut self.leases, n) {
                    lease.retire(RetireReason::Dirty);
                }
            }
            Op::Drop(n) => drop(Self::take(&mut self.leases, n)),
            Op::Reborrow(n) => self.reborrow(n),
            Op::Die(key) => {
                let inner = self.pool.shared.lock();
                let idle = inner
                    .shelves
                    .idle()
                    .filter(|(_, shelf, _)| shelf.key == key);
                let ids: Vec<_> = idle.map(|(_, _, entry)| entry.conn.id()).collect();
                drop(inner);
                self.server.data().dead.extend(ids);
            }
            Op::Mood(key, mood) => self.server.set(key, mood),
            Op::Capacity(capacity) => self.server.data().capacity = capacity,
            Op::Release(n) => drop(Self::take(&mut self.guards, n)),
            Op::Limits {
                max,
                idle,
                min,
                dials,
            } => {
                let counts = self.pool.counts();
                self.ceiling = max.max(counts.total());
                self.dial_ceiling = dials.max(counts.dialing);
                self.pool.set_limits(limits(max, idle, min, dials));
            }
            Op::RetireKey(key) => {
                self.pool.retire_key(&key, RetireReason::AuthRevoked);
            }
            Op::FailWaiters(key) => {
                self.pool
                    .fail_waiters(|k| *k == key, FakeError::Denied.into());
            }
            Op::Advance(time) => advance(ms(time)).await,
            Op::Yield(n) => {
                for _ in 0..n {
                    tokio::task::yield_now().await;
                    self.check();
                }
            }
        }
    }

    async fn collect(&mut self) {
        let mut borrows = Vec::new();
        for (wish, task) in std::mem::take(&mut self.borrows) {
            if !task.is_finished() {
                borrows.push((wish, task));
            } else if let Ok(lease) = task.await.unwrap() {
                assert_ne!(lease.fit(&wish), Fit::Unusable);
                self.lent(lease);
            }
        }
        self.borrows = borrows;
        let mut reservations = Vec::new();
        for task in std::mem::take(&mut self.reservations) {
            if !task.is_finished() {
                reservations.push(task);
            } else if let Ok(guard) = task.await.unwrap() {
                self.guards.push(guard);
            }
        }
        self.reservations = reservations;
    }

    fn check(&mut self) {
        check(&self.pool);
        let counts = self.pool.counts();
        let limits = self.pool.stats().limits;
        assert!(
            counts.total() <= self.ceiling,
            "{counts:?} above {}",
            self.ceiling
        );
        assert!(
            counts.dialing <= self.dial_ceiling,
            "{counts:?} above {}",
            self.dial_ceiling
        );
        // Once below a lowered limit it stays there.
        self.ceiling = self.ceiling.min(counts.total().max(limits.max_connections));
        self.dial_ceiling = self.dial_ceiling.min(counts.dialing.max(limits.max_dials));
        let data = self.server.data();
        assert!(
            data.live + self.guards.len() <= counts.total(),
            "the server shows {} of {counts:?}",
            data.live
        );
        assert!(
            data.dropped.is_empty(),
            "dropped without a close: {:?}",
            data.dropped
        );
    }

    async fn end(mut self) {
        for (_, task) in &self.borrows {
            task.abort();
        }
        // With those that are finished go the leases nobody has taken.
        self.borrows.clear();
        self.pool.close();
        self.leases.clear();
        self.guards.clear();
        for task in self.opens.drain(..) {
            let _ = task.await.unwrap();
        }
        for task in self.reservations.drain(..) {
            let _ = task.await.unwrap();
        }
        timeout(Duration::from_secs(60), self.pool.closed())
            .await
            .expect("everything ends");
        let data = self.server.data();
        assert_eq!((data.live, data.dials_now), (0, 0));
        assert!(data.dropped.is_empty());
        let mut ids: Vec<_> = data.closed.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        let n = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), n, "closed twice");
    }
}

fn run(ops: Vec<Op>, maintained: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        let token = CancellationToken::new();
        if maintained {
            tokio::spawn(world.pool.clone().maintain(token.clone()));
        }
        for op in ops {
            world.run(op).await;
            world.check();
            world.collect().await;
        }
        settle().await;
        world.check();
        world.end().await;
        token.cancel();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_whatever_happens(
        ops in proptest::collection::vec(an_op(), 1..120),
        maintained: bool,
    ) {
        run(ops, maintained);
    }
}
