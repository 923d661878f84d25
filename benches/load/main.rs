//! A load generator for benches/compare: clients in a closed loop for a fixed time, in either framing.
//! Prints one line of JSON. It reads the CPU time and memory of the processes it is told to watch itself, at
//! both ends of the very interval whose commands it counts.

#![allow(clippy::print_stdout, reason = "its result")]

use std::io;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use figures::{Latencies, cpu_micros, resident_kib};
use wire::{COM_PING, COM_QUERY, Connection, Framing, Login};

mod figures;
mod wire;

/// Logins at once while clients assemble; more would overflow a server's accept queue.
const LOGINS_AT_ONCE: usize = 16;
/// How long all clients may take to log in, and how long answers may be overdue at the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// So that a server that refuses is not kept busy with refusing.
const AFTER_ERROR: Duration = Duration::from_millis(10);
/// How long idle clients stay beyond the interval, so that all are there when memory is read at its end.
const IDLE_LONGER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The statement, again and again.
    Query,
    /// A ping before each statement, as a pool with pre-ping does; both together are one operation.
    Preping,
    /// Connect, the statement, quit: one operation.
    Churn,
    /// The statement once, then nothing: what do idle clients cost?
    Idle,
}

#[derive(Debug, Clone, Parser)]
struct Args {
    kind: Kind,
    /// host:port, or the path of a Unix socket
    #[arg(long)]
    address: String,
    #[arg(long)]
    user: String,
    #[arg(long, default_value = "")]
    password: String,
    #[arg(long)]
    database: String,
    #[arg(long, value_enum, default_value = "classic")]
    framing: Framing,
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Seconds before anything is counted
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Seconds in which operations are counted
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The statement; {id} stands for a random number from 1 to --rows
    #[arg(long)]
    sql: String,
    #[arg(long, default_value_t = 10_000)]
    rows: u32,
    /// Processes whose CPU time and memory are read
    #[arg(long, value_delimiter = ',')]
    watch: Vec<u32>,
    /// Threads of this program
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

/// What one client did in the counted time.
#[derive(Default)]
struct Count {
    latencies: Latencies,
    bytes: u64,
    rows: u64,
    errors: u64,
    error: Option<String>,
}

/// When operations count. Known once all clients are there.
#[derive(Debug, Clone, Copy)]
struct Interval {
    from: Instant,
    until: Instant,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let runtime = Builder::new_multi_thread()
        .worker_threads(args.workers)
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(Arc::new(args)))?;
    println!("{result}");
    Ok(())
}

async fn run(args: Arc<Args>) -> io::Result<Value> {
    let before = look_at(&args.watch);
    let own = [process::id()];
    let gate = Arc::new(Semaphore::new(LOGINS_AT_ONCE));
    let mut clients = JoinSet::new();
    let mut ready = Vec::new();
    let mut starts = Vec::new();
    for _ in 0..args.clients {
        let (says_ready, is_ready) = oneshot::channel();
        let (start, started) = oneshot::channel();
        ready.push(is_ready);
        starts.push(start);
        clients.spawn(client(args.clone(), gate.clone(), says_ready, started));
    }
    let patience = Instant::now() + PATIENCE;
    for is_ready in ready {
        match timeout_at(patience, is_ready).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => return Err(error),
            _ => return Err(io::Error::other("the clients did not all get in")),
        }
    }
    let from = Instant::now() + Duration::from_secs_f64(args.warm_up);
    let interval = Interval {
        from,
        until: from + Duration::from_secs_f64(args.seconds),
    };
    for start in starts {
        // A client that is gone is found out below.
        let _ = start.send(interval);
    }
    sleep_until(interval.from).await;
    let (begin, own_begin) = (look_at(&args.watch), look_at(&own));
    sleep_until(interval.until).await;
    let (end, own_end) = (look_at(&args.watch), look_at(&own));
    let total = gather(clients, interval.until + PATIENCE).await?;
    let seconds = args.seconds;
    Ok(json!({
        "operations": total.latencies.count(),
        "per_second": total.latencies.count() as f64 / seconds,
        "rows": total.rows,
        "bytes": total.bytes,
        "seconds": seconds,
        "p50_ms": total.latencies.percentile(50.0),
        "p99_ms": total.latencies.percentile(99.0),
        "errors": total.errors,
        "error": total.error,
        "load_cpu_us": used(&own_begin[0], &own_end[0]),
        "watched": args.watch.iter().enumerate().map(|(i, pid)| json!({
            "pid": pid,
            "cpu_us": used(&begin[i], &end[i]),
            "rss_kib_before": before[i].resident_kib,
            "rss_kib_after": end[i].resident_kib,
        })).collect::<Vec<_>>(),
    }))
}

/// A process at one moment.
struct Look {
    cpu_micros: Option<u64>,
    resident_kib: Option<u64>,
}

fn look_at(pids: &[u32]) -> Vec<Look> {
    let look = |&pid| Look {
        cpu_micros: cpu_micros(pid),
        resident_kib: resident_kib(pid),
    };
    pids.iter().map(look).collect()
}

fn used(begin: &Look, end: &Look) -> Option<u64> {
    end.cpu_micros?.checked_sub(begin.cpu_micros?)
}

/// One client from its login to the end of the interval.
async fn client(
    args: Arc<Args>,
    gate: Arc<Semaphore>,
    ready: oneshot::Sender<io::Result<()>>,
    start: oneshot::Receiver<Interval>,
) -> Count {
    let mut count = Count::default();
    let mut random = Random::new();
    let assembled = async {
        let _permit = gate.acquire().await.map_err(io::Error::other)?;
        let mut connection = Connection::open(&args.login()).await?;
        connection
            .command(COM_QUERY, args.statement(&mut random).as_bytes())
            .await?;
        Ok(connection)
    };
    let (mut connection, outcome) = match assembled.await {
        Ok(connection) => (Some(connection), Ok(())),
        Err(error) => (None, Err(error)),
    };
    // Without anyone who listens the run is over, and `start` says so.
    let _ = ready.send(outcome);
    let Ok(interval) = start.await else {
        return count;
    };
    if args.kind == Kind::Idle {
        sleep_until(interval.until + IDLE_LONGER).await;
    }
    if args.kind == Kind::Churn
        && let Some(connection) = connection.take()
    {
        let _ = connection.quit().await;
    }
    while Instant::now() < interval.until {
        let begin = Instant::now();
        let done = args.operation(&mut connection, &mut random).await;
        let end = Instant::now();
        // What straddles the beginning counts, what straddles the end does not: on average, neither too much nor too
        // little is counted for the time, however long an operation takes.
        if end < interval.from || end > interval.until {
            continue;
        }
        match done {
            Ok(answer) => {
                count.latencies.record(end - begin);
                count.bytes += answer.bytes;
                count.rows += answer.rows;
            }
            Err(error) => {
                count.errors += 1;
                count.error.get_or_insert_with(|| error.to_string());
                sleep(AFTER_ERROR).await;
            }
        }
    }
    count
}

impl Args {
    fn login(&self) -> Login {
        Login {
            address: self.address.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            database: self.database.clone(),
            framing: self.framing,
        }
    }

    fn statement(&self, random: &mut Random) -> String {
        let id = 1 + random.next() % u64::from(self.rows.max(1));
        self.sql.replace("{id}", &id.to_string())
    }

    /// One operation. Without a connection, the one before having failed, a new one is opened first.
    async fn operation(
        &self,
        slot: &mut Option<Connection>,
        random: &mut Random,
    ) -> io::Result<wire::Answer> {
        let statement = self.statement(random);
        let mut connection = match slot.take() {
            Some(connection) if self.kind != Kind::Churn => connection,
            _ => Connection::open(&self.login()).await?,
        };
        if self.kind == Kind::Preping {
            connection.command(COM_PING, b"").await?;
        }
        let answer = connection.command(COM_QUERY, statement.as_bytes()).await?;
        if self.kind == Kind::Churn {
            connection.quit().await?;
        } else {
            *slot = Some(connection);
        }
        Ok(answer)
    }
}

async fn gather(mut clients: JoinSet<Count>, deadline: Instant) -> io::Result<Count> {
    let mut total = Count::default();
    while let Some(count) = timeout_at(deadline, clients.join_next()).await? {
        let count = count?;
        total.latencies.add(&count.latencies);
        total.bytes += count.bytes;
        total.rows += count.rows;
        total.errors += count.errors;
        total.error = total.error.or(count.error);
    }
    Ok(total)
}

/// Numbers without a pattern that a cache could learn; nothing secret.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(rand::random::<u64>() | 1)
    }

    /// xorshift64
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
