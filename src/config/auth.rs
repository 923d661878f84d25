//! Section `auth`: which accounts exist, and who may log in from where.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::text::{duration, some_cidr, some_path, unset_if_empty};
use super::{AuthMode, Pattern};

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthSettings {
    /// Where accounts come from.
    pub mode: AuthMode,
    /// How long a proved login admits others without asking the backend again; zero: never.
    #[serde(with = "duration")]
    pub recheck: Duration,
    /// Who may log in from where; empty: everybody.
    pub allow: Vec<AllowRule>,
    /// Accounts whose passwords are known from here.
    pub user: Vec<UserSettings>,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            mode: AuthMode::Passthrough,
            recheck: Duration::from_secs(60),
            allow: Vec::new(),
            user: Vec::new(),
        }
    }
}

/// Whether a client may try to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Allowed,
    /// No rule admits this user from this source.
    Denied,
    /// It would be admitted over TLS.
    NeedsTls,
}

impl AuthSettings {
    /// Whether `[[auth.allow]]` admits this user from this source; one rule that does is enough.
    ///
    /// `source` is `None` on a Unix socket, which counts as 127.0.0.1 and as secure, as it does for
    /// MySQL's `require_secure_transport`.
    pub fn allows(&self, user: &[u8], source: Option<IpAddr>, tls: bool) -> Admission {
        if self.allow.is_empty() {
            return Admission::Allowed;
        }
        let secure = tls || source.is_none();
        let mut admission = Admission::Denied;
        for rule in self.allow.iter().filter(|rule| rule.matches(user, source)) {
            if secure || !rule.require_tls {
                return Admission::Allowed;
            }
            admission = Admission::NeedsTls;
        }
        admission
    }
}

/// `[[auth.allow]]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllowRule {
    /// The account's name.
    pub user: Pattern,
    /// The client's address; `None`: any.
    #[serde(with = "some_cidr", skip_serializing_if = "Option::is_none")]
    pub source: Option<IpNet>,
    /// Only over TLS or a Unix socket.
    pub require_tls: bool,
}

impl AllowRule {
    fn matches(&self, user: &[u8], source: Option<IpAddr>) -> bool {
        self.user.matches(user) && self.source.is_none_or(|net| source_is_in(&net, source))
    }
}

/// `[[auth.user]]`, `[[console.user]]`: an account and where its password is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserSettings {
    /// The account's name.
    pub name: String,
    /// File with the password; one newline at its end is not part of it.
    #[serde(with = "some_path")]
    pub password_file: Option<PathBuf>,
    /// Environment variable with the password.
    #[serde(with = "unset_if_empty")]
    pub password_env: Option<String>,
}

/// Whether the range holds this source. An IPv4 client of a dual-stack listener counts by its IPv4
/// address, a Unix socket (`None`) as 127.0.0.1.
pub(super) fn source_is_in(net: &IpNet, source: Option<IpAddr>) -> bool {
    let ip = source.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |ip| ip.to_canonical());
    net.contains(&ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_rules_everybody_may_log_in() {
        let auth = AuthSettings::default();
        assert_eq!(
            auth.allows(b"x", "8.8.8.8".parse().ok(), false),
            Admission::Allowed
        );
    }

    #[test]
    fn one_admitting_rule_is_enough() {
        let auth: AuthSettings = toml::from_str(
            r#"
            [[allow]]
            user = "app"
            source = "10.0.0.0/8"
            require_tls = true
            [[allow]]
            user = "app"
            source = "10.0.5.0/24"
            [[allow]]
            user = "admin"
            source = "127.0.0.0/8"
            [[allow]]
            user = "report%"
            require_tls = true
            "#,
        )
        .unwrap();
        for (user, source, tls, admission) in [
            ("app", Some("10.1.1.1"), true, Admission::Allowed),
            ("app", Some("10.1.1.1"), false, Admission::NeedsTls),
            ("app", Some("10.0.5.7"), false, Admission::Allowed),
            ("app", Some("::ffff:10.0.5.7"), false, Admission::Allowed),
            ("app", Some("192.168.1.1"), true, Admission::Denied),
            ("app", None, false, Admission::Denied),
            ("admin", None, false, Admission::Allowed),
            ("admin", Some("127.0.0.1"), false, Admission::Allowed),
            ("admin", Some("::1"), false, Admission::Denied),
            ("reports", Some("::1"), false, Admission::NeedsTls),
            ("reports", Some("::1"), true, Admission::Allowed),
            ("reports", None, false, Admission::Allowed),
            ("other", Some("10.0.5.7"), true, Admission::Denied),
        ] {
            let source = source.map(|text| text.parse().unwrap());
            assert_eq!(
                auth.allows(user.as_bytes(), source, tls),
                admission,
                "{user} {source:?} {tls}"
            );
        }
    }
}
