//! What the HTTP side shows, copied out of the directory, the pools and the settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::targets::{Member, Targets};
use crate::admin::Sources;
use crate::admin::snapshot::{BackendSnapshot, ClientSnapshot, ClientState, PoolSnapshot, Text};
use crate::backend::probe::Latest;
use crate::config::Live;
use crate::session::directory::{Activity, ClientView, Directory};

/// Where the snapshots come from.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// Who is connected.
    pub(super) directory: Arc<Directory>,
    /// The backend servers.
    pub(super) targets: Arc<Targets>,
    /// The settings in force.
    pub(super) settings: Arc<Live>,
}

impl Sources for Snapshots {
    fn clients(&self) -> Vec<ClientSnapshot> {
        let mut clients: Vec<_> = self.directory.list().iter().map(client).collect();
        clients.sort_by_key(|client| client.id);
        clients
    }

    fn pools(&self) -> Vec<PoolSnapshot> {
        self.targets.members().iter().flat_map(pools).collect()
    }

    fn backends(&self) -> Vec<BackendSnapshot> {
        self.targets.members().iter().map(backend).collect()
    }

    fn settings(&self) -> Value {
        self.settings.load().to_json()
    }
}

fn client(view: &ClientView) -> ClientSnapshot {
    let text = |bytes: &bytes::Bytes| Text::from(&bytes[..]);
    let in_flight = matches!(view.activity, Activity::Active | Activity::Waiting);
    ClientSnapshot {
        id: view.id,
        user: text(&view.identity.user),
        database: view.database.as_ref().map(text),
        program_name: view.identity.program_name.as_ref().map(text),
        source: Text::from(view.identity.source.as_str()),
        tls: view.identity.tls,
        state: match view.activity {
            Activity::Idle => ClientState::Idle,
            Activity::Waiting => ClientState::Waiting,
            Activity::Active => ClientState::Active,
            Activity::InTransaction => ClientState::InTransaction,
            Activity::Pinned => ClientState::Pinned,
        },
        pin_reason: view.pin,
        connected_seconds: view.age.as_secs_f64(),
        idle_seconds: if in_flight {
            0.0
        } else {
            view.idle.as_secs_f64()
        },
        commands: view.commands,
        backend_connection_id: view.backend_thread,
    }
}

/// One row per account, summed over the capabilities that also separate pools.
fn pools(member: &Member) -> Vec<PoolSnapshot> {
    let stats = member.target.pool().stats();
    let mut rows: BTreeMap<u64, PoolSnapshot> = BTreeMap::new();
    for (key, key_stats) in &stats.keys {
        let account = key.credentials();
        let row = rows
            .entry(account.account_id())
            .or_insert_with(|| PoolSnapshot {
                backend: member.name.clone(),
                user: Text::from(account.user()),
                idle: 0,
                borrowed: 0,
                dialing: 0,
                waiters: 0,
                oldest_waiter_seconds: None,
                max_connections: stats.limits.max_connections,
            });
        row.idle += key_stats.idle;
        row.borrowed += key_stats.borrowed;
        row.dialing += key_stats.dialing;
        row.waiters += key_stats.waiters;
    }
    rows.into_values().collect()
}

fn backend(member: &Member) -> BackendSnapshot {
    let dialer = member.target.dialer();
    let limits = dialer.limits();
    let limits = limits.borrow();
    let condition = member.condition();
    let probed = (condition.latest != Latest::None).then_some(&condition);
    let failure = condition.failure.as_ref();
    BackendSnapshot {
        address: member.name.clone(),
        role: member.role(),
        up: member.is_up(),
        state: probed.map(|probed| probed.standing.as_str()),
        state_seconds: probed.map(|probed| probed.since.elapsed().as_secs_f64()),
        replication: probed.map(|probed| probed.replication.as_str()),
        replication_lag_seconds: condition.replication.lag().map(|lag| lag.as_secs_f64()),
        server_version: dialer
            .greeted()
            .map(|greeted| Text::from(&*greeted.version)),
        max_connections: limits.max_connections,
        wait_timeout_seconds: limits.wait_timeout.map(|timeout| timeout.as_secs()),
        last_error: failure.map(|failure| Text::from(failure.error.to_string().as_str())),
        last_error_seconds: failure.map(|failure| failure.at.elapsed().as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::metrics::Metrics;
    use crate::session::directory::Identity;

    #[tokio::test]
    async fn clients_come_in_the_order_of_their_ids_and_backends_with_what_is_known() {
        let mut settings = Settings::default();
        settings.backend.addresses = vec!["db:3306".parse().unwrap()];
        let settings = Arc::new(Live::new(settings));
        let targets = Arc::new(Targets::new(&settings, &Metrics::new(), None).unwrap());
        let directory = Arc::new(Directory::default());
        let ids = [
            directory.next_id(),
            directory.next_id(),
            directory.next_id(),
        ];
        let identity = Identity {
            user: "app".into(),
            source: "unix".to_owned(),
            ..Identity::default()
        };
        let registered: Vec<_> = ids
            .iter()
            .rev()
            .map(|id| directory.register(*id, identity.clone()))
            .collect();
        registered[0].set_activity(Activity::Waiting);

        let snapshots = Snapshots {
            directory,
            targets,
            settings,
        };
        let clients = snapshots.clients();
        assert_eq!(
            clients.iter().map(|client| client.id).collect::<Vec<_>>(),
            ids
        );
        assert_eq!(clients[2].state, ClientState::Waiting);
        assert_eq!(clients[2].idle_seconds, 0.0);
        assert_eq!(clients[0].user.as_str(), "app");
        let backends = snapshots.backends();
        assert_eq!(backends[0].address, "db:3306");
        assert!(!backends[0].up && backends[0].server_version.is_none());
        assert!(snapshots.pools().is_empty());
    }
}
