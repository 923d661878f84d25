//! What is counted: latencies, and what processes used up meanwhile.

use std::fs;
use std::time::Duration;

/// The kernel reports CPU time in units of 1/100 s, whatever its own tick is.
const MICROS_PER_TICK: u64 = 10_000;
/// Buckets per power of two: a percentile is exact to 1.6 %.
const STEPS: u64 = 64;

/// A histogram of durations, exact to 1.6 %.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: vec![0; 64 * STEPS as usize],
            count: 0,
        }
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.count += other.count;
        for (mine, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += others;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The duration below which `percent` of the recorded ones are, in milliseconds; nothing if there are none.
    pub(crate) fn percentile(&self, percent: f64) -> Option<f64> {
        let wanted = (self.count as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(lower_bound(index as u64) as f64 / 1e6);
            }
        }
        None
    }
}

fn bucket(nanos: u64) -> usize {
    let index = if nanos < STEPS {
        nanos
    } else {
        let power = u64::from(nanos.ilog2() - STEPS.ilog2());
        (power + 1) * STEPS + ((nanos >> power) - STEPS)
    };
    index as usize
}

fn lower_bound(index: u64) -> u64 {
    if index < STEPS {
        index
    } else {
        (STEPS + index % STEPS) << (index / STEPS - 1)
    }
}

/// CPU time that a process has used since it began, those of its threads that ended included, in microseconds.
pub(crate) fn cpu_micros(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * MICROS_PER_TICK)
}

/// Resident memory of a process that is its own, in KiB: what it allocated, without the pages of its program, of which
/// more are touched the longer it runs. `smaps_rollup` counts exactly, where it may be read.
pub(crate) fn resident_kib(pid: u32) -> Option<u64> {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    field("smaps_rollup", "Anonymous:").or_else(|| field("status", "RssAnon:"))
}
