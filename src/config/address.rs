//! Addresses in settings: `host:port` or `unix:/path`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::text::serde_as_text;

/// `sockaddr_un.sun_path` holds 108 bytes on Linux, the last one a NUL.
const UNIX_PATH_MAX: usize = 107;

/// Declares one address type; listeners and backends are kept apart so that they cannot be mixed up.
macro_rules! address {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            /// A TCP port of a host.
            Tcp {
                /// Name or IP address, IPv6 without brackets.
                host: String,
                /// The port.
                port: u16,
            },
            /// A Unix stream socket.
            Unix(PathBuf),
        }

        impl $name {
            /// A TCP address.
            pub fn tcp(host: impl Into<String>, port: u16) -> Self {
                Self::Tcp { host: host.into(), port }
            }

            /// Whether only this machine (with its containers' shared network) is on the other side:
            /// a Unix socket, a loopback address, or `localhost`.
            pub fn is_local(&self) -> bool {
                match self {
                    Self::Tcp { host, .. } => host_is_loopback(host),
                    Self::Unix(_) => true,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Tcp { host, port } => fmt_tcp(f, host, *port),
                    Self::Unix(path) => write!(f, "unix:{}", path.display()),
                }
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text.strip_prefix("unix:") {
                    Some(path) => parse_unix(path).map(Self::Unix),
                    None => parse_tcp(text).map(|(host, port)| Self::Tcp { host, port }),
                }
            }
        }

        serde_as_text!($name);
    };
}

address! {
    /// Where Sidepool listens. Port 0 lets the system choose.
    ListenAddress
}

address! {
    /// Where a database server listens.
    BackendAddress
}

impl ListenAddress {
    /// Whether both cannot be listened on at once: the same address, or the same port with one of
    /// them on all interfaces.
    pub fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Tcp { host: a, port: p }, Self::Tcp { host: b, port: q }) => {
                p == q && *p != 0 && (a == b || host_is_wildcard(a) || host_is_wildcard(b))
            }
            _ => false,
        }
    }
}

fn host_is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn host_is_wildcard(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

fn fmt_tcp(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') {
        write!(f, "[{host}]:{port}")
    } else {
        write!(f, "{host}:{port}")
    }
}

fn parse_unix(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() || path.len() > UNIX_PATH_MAX || path.contains('\0') {
        return Err(format!(
            "a socket path of 1 to {UNIX_PATH_MAX} bytes after \"unix:\""
        ));
    }
    Ok(Path::new(path).to_path_buf())
}

fn parse_tcp(text: &str) -> Result<(String, u16), String> {
    let expected =
        || "an address such as \"mysql:3306\", \"[::1]:3306\" or \"unix:/run/mysqld/mysqld.sock\"";
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    // `u16` would also read "+1".
    let port = Some(port)
        .filter(|p| p.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|p| p.parse().ok())
        .ok_or_else(expected)?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6
            .parse::<std::net::Ipv6Addr>()
            .map(|_| v6)
            .map_err(|_| expected())?,
        None => host,
    };
    let bare_v6_without_brackets = host.contains(':') && !text.starts_with('[');
    let odd =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | ',' | '[' | ']');
    if host.is_empty() || bare_v6_without_brackets || host.contains(odd) {
        return Err(expected().to_owned());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for text in [
            "mysql:3306",
            "127.0.0.1:0",
            "[::1]:3306",
            "unix:/run/x.sock",
            "db-1.example.:1",
        ] {
            let address: BackendAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("[::]:3306".parse(), Ok(ListenAddress::tcp("::", 3306)));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_MAX));
        for text in [
            "",
            "mysql",
            ":3306",
            "mysql:",
            "mysql:65536",
            "mysql:+1",
            "::1:3306",
            "[mysql]:1",
            "a b:1",
            "mysql://db:3306",
            "user@db:3306",
            "unix:",
            "a,b:1",
            &long,
        ] {
            assert!(text.parse::<BackendAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn loopback_and_unix_are_local() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("LocalHost:1", true),
            ("unix:/x", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
            ("db:1", false),
        ] {
            assert_eq!(
                text.parse::<ListenAddress>().unwrap().is_local(),
                local,
                "{text}"
            );
        }
    }

    #[test]
    fn collisions() {
        for (a, b, collide) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "127.0.0.1:1", false),
        ] {
            let (a, b): (ListenAddress, ListenAddress) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.collides_with(&b), collide, "{a} {b}");
            assert_eq!(b.collides_with(&a), collide, "{b} {a}");
        }
    }
}
