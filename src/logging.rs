//! Logging: lines on standard error, as text or JSON, at a level that can be changed while running.

use std::io::{self, IsTerminal};
use std::panic;
use std::sync::Arc;

use tracing::{error, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel, LogSettings};

/// Changes what is logged. Cheap to clone.
#[derive(Clone)]
pub struct Logging(Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl Logging {
    /// Begins to log as the settings say, for the whole process. Panics are logged too, so that they
    /// arrive where the other lines do.
    pub fn start(settings: &LogSettings) -> Self {
        let (filter, handle) = reload::Layer::new(filter(&settings.level));
        let subscriber = Registry::default()
            .with(filter)
            .with(layer(settings.format));
        if subscriber.try_init().is_ok() {
            panic::set_hook(Box::new(log_panic));
        }
        Self(Arc::new(move |filter| handle.reload(filter)))
    }

    /// Logs from now on what `level` says.
    pub fn set_level(&self, level: &LogLevel) {
        if let Err(error) = (self.0)(filter(level)) {
            warn!(%error, "the log level stays as it was");
        }
    }
}

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logging")
    }
}

/// A level alone is Sidepool's; libraries then say only what is wrong. Directives are taken as they are.
fn filter(level: &LogLevel) -> EnvFilter {
    match level.as_str() {
        verbose @ ("info" | "debug" | "trace") => {
            EnvFilter::new(format!("warn,sidepool={verbose}"))
        }
        other => EnvFilter::new(other),
    }
}

fn layer<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    // A line that cannot be written is lost: the layer would complain about it with a macro that
    // panics when standard error is gone.
    let layer = fmt::layer()
        .with_writer(io::stderr)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => layer
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    }
}

fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    error!(place, message, "a defect in sidepool: a task panicked");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_level_is_not_that_of_libraries() {
        let shown = |level: &str| filter(&level.parse().unwrap()).to_string();
        assert_eq!(shown("debug"), "sidepool=debug,warn");
        assert_eq!(shown("error"), "error");
        assert_eq!(shown("off"), "off");
        assert_eq!(shown("info,hyper=trace"), "hyper=trace,info");
    }
}
