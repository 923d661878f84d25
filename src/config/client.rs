//! Section `client`: timeouts and manners toward clients, and the rules that change them per client.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::auth::source_is_in;
use super::text::{duration, some_cidr, some_duration};
use super::{ByteSize, CloseNotice, IdleMode, Keepalive, OnPin, Pattern, PingMode};

/// `[client]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientSettings {
    /// From accept to the end of the login; never zero.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// What holds for a client for which no rule says otherwise. Its keys stand in `[client]` itself.
    #[serde(flatten)]
    pub base: EffectiveClient,
    /// TCP keepalive.
    pub keepalive: Keepalive,
    /// How long a closed idle client's socket is watched for a stale use; zero: not at all.
    #[serde(with = "duration")]
    pub stale_watch: Duration,
    /// At most this many are watched, oldest let go first.
    pub stale_watch_sockets: usize,
    /// For `idle_timeout = "auto"`.
    pub auto: AutoSettings,
    /// The first that matches changes the above for a client.
    pub rule: Vec<ClientRule>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            base: EffectiveClient::default(),
            keepalive: Keepalive::Off,
            stale_watch: Duration::from_secs(12 * 60 * 60),
            stale_watch_sockets: 1000,
            auto: AutoSettings::default(),
            rule: Vec::new(),
        }
    }
}

impl ClientSettings {
    /// What holds for this client: the keys of the first rule that matches, else those of `[client]`.
    pub fn for_client(&self, client: &ClientIdentity<'_>) -> EffectiveClient {
        match self.rule.iter().find(|rule| rule.matches(client)) {
            Some(rule) => rule.overrides.over(&self.base),
            None => self.base.clone(),
        }
    }
}

/// The keys of `[client]` that a rule may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EffectiveClient {
    /// Between commands, outside a transaction, not pinned; zero: never.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Between commands, in a transaction; zero: never.
    #[serde(with = "duration")]
    pub idle_transaction_timeout: Duration,
    /// Between commands, pinned; zero: never.
    #[serde(with = "duration")]
    pub pinned_idle_timeout: Duration,
    /// Age at which a client is closed, jittered, between commands outside a transaction; zero: never.
    #[serde(with = "duration")]
    pub max_lifetime: Duration,
    /// Close, or only count.
    pub idle_mode: IdleMode,
    /// What a client closed for idleness is told.
    pub close_notice: CloseNotice,
    /// Who answers `COM_PING`.
    pub ping: PingMode,
    /// Whether a ping ends the idle gap.
    pub ping_is_activity: bool,
    /// What happens when the session is pinned.
    pub on_pin: OnPin,
    /// MySQL: whether a `CALL` is taken to leave nothing behind but what it names, so that it does not pin.
    pub trust_routines: bool,
}

impl Default for EffectiveClient {
    fn default() -> Self {
        let half_an_hour = Duration::from_secs(30 * 60);
        Self {
            idle_timeout: half_an_hour,
            idle_transaction_timeout: half_an_hour,
            pinned_idle_timeout: half_an_hour,
            max_lifetime: Duration::from_secs(24 * 60 * 60),
            idle_mode: IdleMode::Enforce,
            close_notice: CloseNotice::Auto,
            ping: PingMode::Local,
            ping_is_activity: true,
            on_pin: OnPin::Allow,
            trust_routines: false,
        }
    }
}

/// `client.auto`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoSettings {
    /// Predicted stale uses per day to stay under.
    pub target_per_day: u32,
    /// Memory that idle clients may hold.
    pub memory: ByteSize,
}

impl Default for AutoSettings {
    fn default() -> Self {
        Self {
            target_per_day: 1,
            memory: ByteSize(256 << 20),
        }
    }
}

/// What rules look at. Bytes are as the client sent them.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientIdentity<'a> {
    /// The account's name.
    pub user: &'a [u8],
    /// The database given at login, else empty.
    pub database: &'a [u8],
    /// The connection attribute, else empty.
    pub program_name: &'a [u8],
    /// The client's address; `None` on a Unix socket.
    pub source: Option<IpAddr>,
}

/// `[[client.rule]]`: conditions, all of which must hold, and the keys that they change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientRule {
    /// The account's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Pattern>,
    /// The database given at login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<Pattern>,
    /// The connection attribute `program_name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_name: Option<Pattern>,
    /// The client's address; a Unix socket counts as 127.0.0.1.
    #[serde(with = "some_cidr", skip_serializing_if = "Option::is_none")]
    pub source: Option<IpNet>,
    /// The keys, which stand in the rule itself.
    #[serde(flatten)]
    pub overrides: ClientOverrides,
}

impl ClientRule {
    /// Whether every condition that is given holds.
    pub fn matches(&self, client: &ClientIdentity<'_>) -> bool {
        let holds =
            |pattern: &Option<Pattern>, name| pattern.as_ref().is_none_or(|p| p.matches(name));
        holds(&self.user, client.user)
            && holds(&self.database, client.database)
            && holds(&self.program_name, client.program_name)
            && self
                .source
                .is_none_or(|net| source_is_in(&net, client.source))
    }

    /// Whether it has no condition, so that rules behind it are never reached.
    pub fn matches_everyone(&self) -> bool {
        self.user.is_none()
            && self.database.is_none()
            && self.program_name.is_none()
            && self.source.is_none()
    }
}

/// Any subset of the keys of [`EffectiveClient`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "each key means what it means in EffectiveClient"
)]
pub struct ClientOverrides {
    #[serde(with = "some_duration", skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    #[serde(with = "some_duration", skip_serializing_if = "Option::is_none")]
    pub idle_transaction_timeout: Option<Duration>,
    #[serde(with = "some_duration", skip_serializing_if = "Option::is_none")]
    pub pinned_idle_timeout: Option<Duration>,
    #[serde(with = "some_duration", skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_mode: Option<IdleMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_notice: Option<CloseNotice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping: Option<PingMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping_is_activity: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_pin: Option<OnPin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_routines: Option<bool>,
}

impl ClientOverrides {
    fn over(&self, base: &EffectiveClient) -> EffectiveClient {
        EffectiveClient {
            idle_timeout: self.idle_timeout.unwrap_or(base.idle_timeout),
            idle_transaction_timeout: self
                .idle_transaction_timeout
                .unwrap_or(base.idle_transaction_timeout),
            pinned_idle_timeout: self.pinned_idle_timeout.unwrap_or(base.pinned_idle_timeout),
            max_lifetime: self.max_lifetime.unwrap_or(base.max_lifetime),
            idle_mode: self.idle_mode.unwrap_or(base.idle_mode),
            close_notice: self.close_notice.unwrap_or(base.close_notice),
            ping: self.ping.unwrap_or(base.ping),
            ping_is_activity: self.ping_is_activity.unwrap_or(base.ping_is_activity),
            on_pin: self.on_pin.unwrap_or(base.on_pin),
            trust_routines: self.trust_routines.unwrap_or(base.trust_routines),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(toml: &str) -> ClientRule {
        toml::from_str(toml).unwrap()
    }

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    #[test]
    fn all_conditions_of_a_rule_must_hold() {
        let client = ClientIdentity {
            user: b"reporting",
            database: b"sales",
            program_name: b"metabase",
            source: "10.1.2.3".parse().ok(),
        };
        for (toml, matches) in [
            ("", true),
            ("user = 'report%'", true),
            ("user = 'app%'", false),
            ("database = 'sales'", true),
            ("database = ''", false),
            ("program_name = 'meta_ase'", true),
            ("source = '10.0.0.0/8'", true),
            ("source = '10.9.0.0/16'", false),
            ("user = 'report%'\nsource = '10.0.0.0/8'", true),
            ("user = 'report%'\nsource = '192.168.0.0/16'", false),
            ("user = 'app'\nsource = '10.0.0.0/8'", false),
        ] {
            assert_eq!(rule(toml).matches(&client), matches, "{toml}");
        }
    }

    #[test]
    fn a_dual_stack_listener_and_a_unix_socket_have_usable_sources() {
        let from = |source: Option<&str>| ClientIdentity {
            source: source.map(|text| text.parse().unwrap()),
            ..ClientIdentity::default()
        };
        assert!(rule("source = '10.0.0.0/8'").matches(&from(Some("::ffff:10.1.2.3"))));
        assert!(rule("source = '127.0.0.1'").matches(&from(None)));
        assert!(!rule("source = '10.0.0.0/8'").matches(&from(None)));
    }

    #[test]
    fn the_first_matching_rule_wins_and_changes_only_its_keys() {
        let settings = ClientSettings {
            rule: vec![
                rule("user = 'report%'\nidle_timeout = '2h'"),
                rule(
                    "user = 'reporting'\nidle_timeout = '1m'\non_pin = 'error'\ntrust_routines = true",
                ),
                rule(
                    "database = 'batch'\nidle_mode = 'observe'\nping = 'backend'\nping_is_activity = false",
                ),
            ],
            ..ClientSettings::default()
        };
        let of = |user: &'static str, database: &'static str| {
            settings.for_client(&ClientIdentity {
                user: user.as_bytes(),
                database: database.as_bytes(),
                ..ClientIdentity::default()
            })
        };
        let base = EffectiveClient::default();
        let reporting = EffectiveClient {
            idle_timeout: minutes(120),
            ..base.clone()
        };
        assert_eq!(of("reporting", "batch"), reporting);
        let batch = EffectiveClient {
            idle_mode: IdleMode::Observe,
            ping: PingMode::Backend,
            ping_is_activity: false,
            ..base.clone()
        };
        assert_eq!(of("app", "batch"), batch);
        assert_eq!(of("app", ""), base);
    }
}
