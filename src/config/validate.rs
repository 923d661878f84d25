//! What must fit together across keys, and what is allowed but doubtful.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use super::problem::{Problem, Problems};
use super::{
    AuthMode, BackendTlsMode, ClientTlsMode, IdleMode, Keepalive, ListenAddress, Settings,
    UserSettings, schema,
};

/// The `wait_timeout` that MySQL and MariaDB come with.
const USUAL_WAIT_TIMEOUT: Duration = Duration::from_secs(8 * 60 * 60);
/// Application pools commonly keep a connection for 10 to 30 minutes.
const SHORT_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const MAX_BORROW_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Linux takes `TCP_KEEPIDLE` in seconds up to this (`MAX_TCP_KEEPIDLE`).
const MAX_KEEPALIVE: Duration = Duration::from_secs(32767);

impl Settings {
    /// Checks every value against its key and the keys against each other. No file is touched.
    ///
    /// # Errors
    /// Everything found wrong.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut problems = schema::check(&self.to_json(), "");
        self.validate_backends(&mut problems);
        self.validate_durations(&mut problems);
        self.validate_listeners(&mut problems);
        self.validate_pool(&mut problems);
        self.validate_users(&mut problems);
        problems.into_result()
    }

    /// What is allowed but may not be meant.
    pub fn warnings(&self) -> Vec<Problem> {
        let mut warnings = Problems::default();
        self.warn_exposure(&mut warnings);
        self.warn_timeouts(&mut warnings);
        self.warn_rules(&mut warnings);
        self.warn_backends(&mut warnings);
        self.warn_reserved(&mut warnings);
        warnings.0
    }

    fn validate_backends(&self, problems: &mut Problems) {
        let backend = &self.backend;
        if backend.addresses.is_empty() {
            problems.push(
                "backend.addresses",
                "no database server is named; set it, for instance SIDEPOOL_BACKEND__ADDRESSES=mysql:3306",
            );
        }
        for address in repeated(&backend.addresses) {
            problems.push("backend.addresses", format!("{address} is named twice"));
        }
        if backend.addresses.len() > 1 && backend.monitor_user.is_none() {
            problems.push(
                "backend.monitor_user",
                "several addresses need it, since the writer is found by probes; \
                 create an account for probes and name it, or name one address",
            );
        }
        if backend.monitor_password_file.is_some() && backend.monitor_user.is_none() {
            problems.push(
                "backend.monitor_user",
                "not set, although backend.monitor_password_file is",
            );
        }
    }

    fn validate_durations(&self, problems: &mut Problems) {
        for (key, duration) in [
            ("client.handshake_timeout", self.client.handshake_timeout),
            ("backend.connect_timeout", self.backend.connect_timeout),
            ("backend.probe_interval", self.backend.probe_interval),
        ] {
            if duration.is_zero() {
                problems.push(key, "must be longer than 0s");
            }
        }
        if self.pool.borrow_timeout > MAX_BORROW_TIMEOUT {
            problems.push("pool.borrow_timeout", "must be at most 1h");
        }
        if let Keepalive::After(after) = self.client.keepalive
            && !(Duration::from_secs(1)..=MAX_KEEPALIVE).contains(&after)
        {
            problems.push("client.keepalive", "must be \"off\" or from 1s to 32767s");
        }
    }

    fn validate_listeners(&self, problems: &mut Problems) {
        if self.listener.is_empty() {
            problems.push(
                "listener",
                "at least one is needed; leave the key out for the default",
            );
        }
        for (i, listener) in self.listener.iter().enumerate() {
            let tls = &listener.tls;
            let (set, unset) = match (&tls.certificate, &tls.private_key) {
                (Some(_), None) => ("certificate", "private_key"),
                (None, Some(_)) => ("private_key", "certificate"),
                _ => continue,
            };
            problems.push(
                format!("listener[{i}].tls.{unset}"),
                format!(
                    "not set, although {set} is; set both, or neither for a self-signed certificate"
                ),
            );
        }
        let all = self.listen_addresses();
        for (i, (key, address)) in all.iter().enumerate() {
            if let Some((other, same)) = all[..i].iter().find(|(_, o)| o.collides_with(address)) {
                problems.push(
                    key,
                    format!("{address} cannot be listened on beside {other} ({same})"),
                );
            }
        }
    }

    fn validate_pool(&self, problems: &mut Problems) {
        let pool = &self.pool;
        if pool.max_connections > 0 && pool.min_idle > pool.max_connections {
            problems.push(
                "pool.min_idle",
                "must not be more than pool.max_connections",
            );
        }
        if pool.max_connections == 1 && self.backend.monitor_user.is_some() {
            problems.push(
                "pool.max_connections",
                "must be at least 2 with backend.monitor_user: one is the probe's",
            );
        }
    }

    fn validate_users(&self, problems: &mut Problems) {
        if self.auth.mode == AuthMode::Users && self.auth.user.is_empty() {
            problems.push(
                "auth.user",
                "mode \"users\" admits nobody without one; add [[auth.user]], or use mode \"passthrough\"",
            );
        }
        validate_users("auth.user", &self.auth.user, problems);
        validate_users("console.user", &self.console.user, problems);
    }

    /// Everything that is listened on, with its key. The console only if somebody may use it.
    fn listen_addresses(&self) -> Vec<(String, &ListenAddress)> {
        let listeners = self.listener.iter().enumerate();
        let clients = listeners.map(|(i, l)| (format!("listener[{i}].address"), &l.address));
        let console = self
            .console
            .address
            .as_ref()
            .filter(|_| !self.console.user.is_empty());
        let others = [
            ("admin.address", self.admin.address.as_ref()),
            ("admin.metrics_address", self.admin.metrics_address.as_ref()),
            ("console.address", console),
        ];
        let others = others
            .into_iter()
            .filter_map(|(key, address)| Some((key.to_owned(), address?)));
        clients.chain(others).collect()
    }

    fn warn_exposure(&self, warnings: &mut Problems) {
        let public: Vec<_> = self
            .listener
            .iter()
            .enumerate()
            .filter(|(_, l)| !l.address.is_local())
            .collect();
        if !public.is_empty() && self.auth.allow.is_empty() {
            warnings.push(
                "auth.allow",
                "not set, and a listener is reachable from other machines: the database sees Sidepool's host \
                 instead of the client's, so grants by host and REQUIRE SSL do not keep anybody out",
            );
        }
        for (i, listener) in &public {
            if listener.tls.mode != ClientTlsMode::Off && listener.tls.certificate.is_none() {
                warnings.push(
                    format!("listener[{i}].tls"),
                    "no certificate is set: clients that verify will refuse the self-signed one",
                );
            }
        }
        for (i, listener) in self.listener.iter().enumerate() {
            if listener
                .proxy_protocol_from
                .iter()
                .any(|net| net.prefix_len() == 0)
            {
                warnings.push(
                    format!("listener[{i}].proxy_protocol_from"),
                    "everybody is believed: any client can pretend to come from anywhere",
                );
            }
        }
        let admin = &self.admin;
        if admin.token_file.is_none() && admin.address.as_ref().is_some_and(|a| !a.is_local()) {
            warnings.push(
                "admin.token_file",
                "not set: changes and lists of clients are refused, since admin.address is reachable from other machines",
            );
        }
    }

    fn warn_timeouts(&self, warnings: &mut Problems) {
        let base = &self.client.base;
        let idle = base.idle_timeout;
        if base.idle_mode == IdleMode::Enforce && !idle.is_zero() && idle < SHORT_IDLE_TIMEOUT {
            warnings.push(
                "client.idle_timeout",
                "many applications keep idle connections for 10 to 30 minutes and fail when a proxy closes them first; \
                 try the value with client.idle_mode = \"observe\"",
            );
        }
        for (key, timeout) in [
            (
                "client.idle_transaction_timeout",
                base.idle_transaction_timeout,
            ),
            ("client.pinned_idle_timeout", base.pinned_idle_timeout),
        ] {
            if timeout.is_zero() || timeout >= USUAL_WAIT_TIMEOUT {
                warnings.push(
                    key,
                    "not below 8h, the usual wait_timeout: the database will close the connection first",
                );
            }
        }
    }

    fn warn_rules(&self, warnings: &mut Problems) {
        let rules = &self.client.rule;
        if let Some(last) = rules.iter().position(super::ClientRule::matches_everyone)
            && last + 1 < rules.len()
        {
            warnings.push(
                format!("client.rule[{last}]"),
                "matches every client, so the rules behind it are never reached",
            );
        }
        let filters = &self.pool.pinning_filters;
        if !filters.is_empty() {
            let words: Vec<_> = filters.iter().map(|reason| reason.as_str()).collect();
            warnings.push(
                "pool.pinning_filters",
                format!(
                    "{} no longer pin: session state may leak between clients",
                    words.join(", ")
                ),
            );
        }
    }

    fn warn_backends(&self, warnings: &mut Problems) {
        let backend = &self.backend;
        let verified = matches!(
            backend.tls.mode,
            BackendTlsMode::VerifyCa | BackendTlsMode::VerifyIdentity
        );
        if backend.tls.ca.is_some() && !verified {
            warnings.push(
                "backend.tls.ca",
                format!(
                    "not used: mode \"{}\" does not verify; use \"verify_identity\"",
                    backend.tls.mode
                ),
            );
        }
        if backend.monitor_user.is_some() && backend.monitor_password_file.is_none() {
            warnings.push(
                "backend.monitor_password_file",
                "not set: probes log in without a password",
            );
        }
        if backend.allow_public_key_retrieval {
            warnings.push(
                "backend.allow_public_key_retrieval",
                "whoever stands between Sidepool and the database can learn passwords; use TLS instead",
            );
        }
    }

    fn warn_reserved(&self, warnings: &mut Problems) {
        if !self.console.user.is_empty() {
            warnings.push(
                "console.user",
                "the console is not available yet: nothing listens on console.address",
            );
        }
    }
}

fn validate_users(key: &str, users: &[UserSettings], problems: &mut Problems) {
    for (i, user) in users.iter().enumerate() {
        if user.name.is_empty() {
            problems.push(format!("{key}[{i}].name"), "not set");
        }
        match (&user.password_file, &user.password_env) {
            (Some(_), Some(_)) => problems.push(
                format!("{key}[{i}]"),
                "password_file and password_env are both set; keep one",
            ),
            (None, None) => problems.push(
                format!("{key}[{i}]"),
                "no password; set password_file or password_env",
            ),
            _ => {}
        }
    }
    let names: Vec<_> = users
        .iter()
        .map(|user| &user.name)
        .filter(|name| !name.is_empty())
        .collect();
    for name in repeated(&names) {
        problems.push(key, format!("{name:?} is named twice"));
    }
}

/// The items that are there more than once.
fn repeated<T: Eq + Hash + Display>(items: &[T]) -> Vec<&T> {
    let mut seen = HashSet::new();
    items.iter().filter(|item| !seen.insert(*item)).collect()
}

#[cfg(test)]
mod tests;
