//! File descriptors: each client and each backend connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::config::Settings;

/// Besides clients and backend connections: listeners, logs, HTTP, the runtime's own.
const OTHERS: u64 = 256;

/// Backend connections assumed while the server has not said how many it allows: MySQL's default.
const USUAL_MAX_CONNECTIONS: u64 = 151;

/// Raises the soft limit to the hard one, and says so if that is too low for the settings.
pub(super) fn raise(settings: &Settings) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    let available = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => maximum,
        Err(error) => {
            info!(%error, "the limit of open files stays as it is");
            current
        }
    };
    let needed = needed(settings);
    if let Some(available) = available.filter(|&available| available < needed) {
        warn!(
            available,
            needed,
            "the limit of open files (ulimit -n) is too low for so many clients: \
             some will be refused; raise it or lower listener.max_clients"
        );
    }
}

/// Descriptors in use at most.
fn needed(settings: &Settings) -> u64 {
    let clients: usize = settings
        .listener
        .iter()
        .map(|listener| listener.max_clients)
        .sum();
    let per_backend = match settings.pool.max_connections {
        0 => USUAL_MAX_CONNECTIONS,
        set => set as u64,
    };
    let backends = settings.backend.addresses.len() as u64;
    clients as u64 + backends * per_backend + settings.client.stale_watch_sockets as u64 + OTHERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_counts() {
        let mut settings = Settings::default();
        settings.backend.addresses = vec!["a:1".parse().unwrap(), "b:1".parse().unwrap()];
        assert_eq!(needed(&settings), 10_000 + 2 * 151 + 1000 + OTHERS);
        settings.pool.max_connections = 10;
        settings.listener.push(settings.listener[0].clone());
        assert_eq!(needed(&settings), 20_000 + 2 * 10 + 1000 + OTHERS);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise(&Settings::default());
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
