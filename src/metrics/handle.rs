//! The handles that the rest of Sidepool holds: counters, gauges, histograms, and arrays of them by label.
//!
//! They hide the crate `prometheus`, so that a metric can only be changed in the ways its kind allows:
//! counters go up, gauges of things that exist are held by guards, histograms take durations.

use std::marker::PhantomData;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// A closed list of label values with a dense index, so that an array holds one handle for each.
pub trait MetricLabel: Copy + Sized + 'static {
    /// Every value, in the order of [`position`](Self::position).
    const VALUES: &'static [Self];

    /// The value as it stands in the exposition.
    fn word(self) -> &'static str;

    /// Place in [`VALUES`](Self::VALUES).
    fn position(self) -> usize;
}

/// A number that only grows.
#[derive(Debug, Clone)]
pub struct Counter(IntCounter);

impl Counter {
    /// Counts one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Counts `n`, for example bytes.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// What has been counted since the start.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone)]
pub struct Gauge(IntGauge);

impl Gauge {
    /// Adds one now and takes it away when the guard is dropped, on whatever path that happens.
    #[must_use = "the gauge falls again when the guard is dropped"]
    pub fn guard(&self) -> GaugeGuard {
        self.0.inc();
        GaugeGuard(self.0.clone())
    }

    /// For figures that are read rather than counted (a server's limit). Never on a gauge that has guards.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// One unit in a [`Gauge`], for as long as it lives.
#[derive(Debug)]
#[must_use = "the gauge falls again when the guard is dropped"]
pub struct GaugeGuard(IntGauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A distribution of durations.
#[derive(Debug, Clone)]
pub struct Histogram(prometheus::Histogram);

impl Histogram {
    /// Records one duration.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.0.get_sample_count()
    }
}

/// One handle for each value of a label, found by index instead of by name.
#[derive(Debug)]
pub struct ByLabel<L, H> {
    handles: Box<[H]>,
    label: PhantomData<fn(L)>,
}

/// Counters by a label.
pub type Counters<L> = ByLabel<L, Counter>;

/// Gauges by a label.
pub type Gauges<L> = ByLabel<L, Gauge>;

impl<L: MetricLabel, H> ByLabel<L, H> {
    fn new(make: impl Fn(L) -> H) -> Self {
        Self {
            handles: L::VALUES.iter().map(|label| make(*label)).collect(),
            label: PhantomData,
        }
    }

    /// The handle for one value of the label.
    pub fn get(&self, label: L) -> &H {
        &self.handles[label.position()]
    }
}

impl<H: Clone, L> Clone for ByLabel<L, H> {
    fn clone(&self) -> Self {
        Self {
            handles: self.handles.clone(),
            label: PhantomData,
        }
    }
}

impl<L: MetricLabel> Counters<L> {
    /// Counts one under `label`.
    pub fn inc(&self, label: L) {
        self.get(label).inc();
    }

    /// The sum over the whole label.
    pub fn total(&self) -> u64 {
        self.handles.iter().map(Counter::get).sum()
    }
}

impl<L: MetricLabel> Gauges<L> {
    /// Holds one unit under `label`; see [`Gauge::guard`].
    #[must_use = "the gauge falls again when the guard is dropped"]
    pub fn guard(&self, label: L) -> GaugeGuard {
        self.get(label).guard()
    }
}

/// A name and its HELP text.
pub(super) type Named = (&'static str, &'static str);

/// Makes metrics and registers them.
pub(super) struct Maker<'r> {
    registry: &'r Registry,
}

impl<'r> Maker<'r> {
    pub(super) fn new(registry: &'r Registry) -> Self {
        Self { registry }
    }

    pub(super) fn counter(&self, (name, help): Named) -> Counter {
        Counter(self.register(IntCounter::new(name, help)))
    }

    pub(super) fn counters<L: MetricLabel>(&self, named: Named, label: &str) -> Counters<L> {
        let family = self.counter_family(named, &[label]);
        ByLabel::new(|value: L| Counter(family.with_label_values(&[value.word()])))
    }

    pub(super) fn gauge(&self, (name, help): Named) -> Gauge {
        Gauge(self.register(IntGauge::new(name, help)))
    }

    pub(super) fn gauges<L: MetricLabel>(&self, named: Named, label: &str) -> Gauges<L> {
        let family = self.gauge_family(named, &[label]);
        ByLabel::new(|value: L| Gauge(family.with_label_values(&[value.word()])))
    }

    pub(super) fn histogram(&self, (name, help): Named, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        Histogram(self.register(prometheus::Histogram::with_opts(opts)))
    }

    pub(super) fn counter_family(&self, (name, help): Named, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge_family(&self, (name, help): Named, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn histogram_family(
        &self,
        (name, help): Named,
        labels: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, labels))
    }

    /// Registers what was made, which can fail only for a malformed or repeated name.
    #[expect(
        clippy::expect_used,
        reason = "names and labels are constants of this module; every test that makes `Metrics` registers all of them"
    )]
    pub(super) fn register<C: Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<C>,
    ) -> C {
        let metric = made.expect("metric names and labels are well formed");
        self.registry
            .register(Box::new(metric.clone()))
            .expect("metric names are unique");
        metric
    }
}

/// Handles of one backend out of families whose first label is `backend`.
pub(super) struct Resolver<'b>(pub(super) &'b str);

impl Resolver<'_> {
    pub(super) fn counter(&self, family: &IntCounterVec) -> Counter {
        Counter(family.with_label_values(&[self.0]))
    }

    pub(super) fn counters<L: MetricLabel>(&self, family: &IntCounterVec) -> Counters<L> {
        ByLabel::new(|value: L| Counter(family.with_label_values(&[self.0, value.word()])))
    }

    /// Counters by two labels, as an array of arrays.
    pub(super) fn counters2<L: MetricLabel, M: MetricLabel>(
        &self,
        family: &IntCounterVec,
    ) -> ByLabel<L, Counters<M>> {
        ByLabel::new(|first: L| {
            ByLabel::new(|second: M| {
                Counter(family.with_label_values(&[self.0, first.word(), second.word()]))
            })
        })
    }

    pub(super) fn gauge(&self, family: &IntGaugeVec) -> Gauge {
        Gauge(family.with_label_values(&[self.0]))
    }

    pub(super) fn gauges<L: MetricLabel>(&self, family: &IntGaugeVec) -> Gauges<L> {
        ByLabel::new(|value: L| Gauge(family.with_label_values(&[self.0, value.word()])))
    }

    pub(super) fn histogram(&self, family: &HistogramVec) -> Histogram {
        Histogram(family.with_label_values(&[self.0]))
    }
}

/// Bounds for what a query, login or handshake takes: 50 µs to 30 s.
pub(super) const LATENCY: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Bounds for waits up to `pool.borrow_timeout`, whose default is 120 s.
pub(super) const WAIT: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];

/// Bounds for idle gaps: 1 s to 24 h, close around the timeouts people set (5, 10, 30 min, 1, 8 h).
pub(super) const IDLE_GAP: &[f64] = &[
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0, 5400.0,
    7200.0, 10_800.0, 14_400.0, 21_600.0, 28_800.0, 43_200.0, 86_400.0,
];

/// Bounds for the age at which a client's connection ended: 10 ms (connect, query, quit) to 24 h.
pub(super) const LIFETIME: &[f64] = &[
    0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0,
    43_200.0, 86_400.0,
];
