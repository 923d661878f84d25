//! Metrics of the process: build, settings, and what `/proc/self` tells of it.
//!
//! The figures from `/proc` carry the names that Prometheus's own client libraries give them. The crate
//! `prometheus` could collect them too, at the price of five more crates and CPU time in whole seconds.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::IntGaugeVec;

use super::handle::{Counter, Gauge, Maker};

/// Clock ticks per second in `/proc/self/stat`: `USER_HZ`, which Linux fixes at 100 for user space on every
/// architecture that Sidepool builds for, whatever the kernel's own tick is (proc(5), time(7)).
const TICKS_PER_SECOND: f64 = 100.0;

/// The process, its build and its settings.
#[derive(Debug)]
pub struct ProcessMetrics {
    config_info: IntGaugeVec,
    reload_success: Gauge,
    /// Reloads of the settings that were refused; the old settings stayed.
    pub reload_failures: Counter,
    start_time: Gauge,
    resident_memory: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    cpu: Mutex<prometheus::Counter>,
}

impl ProcessMetrics {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        let build = maker.gauge_family(
            (
                "sidepool_build_info",
                "Always 1; the label says which version of Sidepool runs.",
            ),
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            config_info: maker.gauge_family((
                "sidepool_config_info",
                "Always 1; the label is a checksum of the settings in use, to compare between processes.",
            ), &["checksum"]),
            reload_success: maker.gauge((
                "sidepool_config_reload_success_timestamp_seconds",
                "Unix time at which settings were last loaded or reloaded successfully.",
            )),
            reload_failures: maker.counter((
                "sidepool_config_reload_failures_total",
                "Reloads of the settings that were refused; the old settings stayed in use.",
            )),
            start_time: maker.gauge((
                "process_start_time_seconds",
                "Unix time at which the process started.",
            )),
            resident_memory: maker.gauge((
                "process_resident_memory_bytes",
                "Resident memory of the process.",
            )),
            open_fds: maker.gauge((
                "process_open_fds",
                "File descriptors that the process has open.",
            )),
            max_fds: maker.gauge((
                "process_max_fds",
                "File descriptors that the process may have open.",
            )),
            cpu: Mutex::new(maker.register(prometheus::Counter::new(
                "process_cpu_seconds_total",
                "User and system CPU time that the process has used.",
            ))),
        };
        metrics.start_time.set(unix_seconds(SystemTime::now()));
        metrics
    }

    /// Records that settings with this checksum are in use since `at`.
    pub fn config_loaded(&self, checksum: &str, at: SystemTime) {
        self.config_info.reset();
        self.config_info.with_label_values(&[checksum]).set(1);
        self.reload_success.set(unix_seconds(at));
    }

    /// Reads `/proc/self` again; a figure that cannot be read keeps its last value.
    pub(super) fn refresh(&self) {
        if let Some(bytes) = fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|text| resident_bytes(&text))
        {
            self.resident_memory.set(bytes);
        }
        // One descriptor is the listing's own.
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            self.open_fds
                .set(i64::try_from(entries.count()).unwrap_or(i64::MAX) - 1);
        }
        if let Some(limit) = fs::read_to_string("/proc/self/limits")
            .ok()
            .and_then(|text| open_files_limit(&text))
        {
            self.max_fds.set(limit);
        }
        if let Some(seconds) = fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|text| cpu_seconds(&text))
        {
            let cpu = self.cpu.lock();
            // A concurrent scrape may have read a later value first; a counter never goes back.
            cpu.inc_by((seconds - cpu.get()).max(0.0));
        }
    }
}

fn unix_seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// `VmRSS` of `/proc/self/status`, which is in kB.
fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The soft limit in the line `Max open files` of `/proc/self/limits`; `None` if unlimited.
fn open_files_limit(limits: &str) -> Option<i64> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `/proc/self/stat`; counted behind the name, which may hold spaces and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let behind_name = stat.rsplit_once(')')?.1;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read_by_field() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t    2048 kB\n"),
            Some(2048 * 1024)
        );
        assert_eq!(
            open_files_limit(
                "Max processes   5  5  processes\nMax open files            1024                 524288               files\n"
            ),
            Some(1024)
        );
        assert_eq!(
            open_files_limit("Max open files   unlimited unlimited files\n"),
            None
        );
        // The name may hold what separates the fields.
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 5 1 2";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("1 (x) S"), None);
    }
}
