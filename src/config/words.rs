//! Settings whose value is one word of a closed list, and the two that are nearly so.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::text::{format_duration, parse_duration, serde_as_text};

/// Declares an enum with its words, the first of which is the default.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident {
        $(#[$dmeta:meta])* $default:ident => $dword:literal,
        $($(#[$vmeta:meta])* $variant:ident => $word:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[$dmeta])* #[default] $default,
            $($(#[$vmeta])* $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[Self::$default, $(Self::$variant,)*];

            /// The word for this value in settings.
            pub const fn as_str(self) -> &'static str {
                match self { Self::$default => $dword, $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| {
                    let words: Vec<_> = Self::ALL.iter().map(|v| format!("{:?}", v.as_str())).collect();
                    format!("one of {}", words.join(", "))
                })
            }
        }

        serde_as_text!($name);
    };
}

words! {
    /// Which backends a listener's clients are served by.
    Role {
        /// The one that accepts writes.
        Writer => "writer",
        /// The least loaded replica; no promise to read one's own writes.
        Reader => "reader",
    }
}

words! {
    /// TLS toward clients.
    ClientTlsMode {
        /// Offered; the client decides.
        Optional => "optional",
        /// Not offered.
        Off => "off",
        /// A client that does not ask for it is refused.
        Required => "required",
    }
}

words! {
    /// TLS toward backends, by the names that MySQL's clients use.
    BackendTlsMode {
        /// Used if the backend offers it; its certificate is not verified.
        Preferred => "preferred",
        /// Never used.
        Off => "off",
        /// Used, or the connection fails; the certificate is not verified.
        Required => "required",
        /// The certificate's chain is verified.
        VerifyCa => "verify_ca",
        /// The chain and the host name are verified.
        VerifyIdentity => "verify_identity",
    }
}

words! {
    /// What happens when a client's timeout passes.
    IdleMode {
        /// The client is closed.
        Enforce => "enforce",
        /// It is counted as one that would have been closed.
        Observe => "observe",
    }
}

words! {
    /// What a client closed for idleness is sent before the end of the stream.
    CloseNotice {
        /// The notice that fits the server version which the client was shown.
        Auto => "auto",
        /// ERR 4031, with MySQL's text for a passed `wait_timeout`.
        Err4031 => "4031",
        /// ERR 1927, MariaDB's code for a killed connection.
        Err1927 => "1927",
        /// Nothing.
        None => "none",
    }
}

words! {
    /// Who answers `COM_PING`.
    PingMode {
        /// Sidepool, without borrowing a backend connection.
        Local => "local",
        /// The backend.
        Backend => "backend",
    }
}

words! {
    /// What happens when a session is pinned.
    OnPin {
        /// Nothing but counting.
        Allow => "allow",
        /// It is logged.
        Warn => "warn",
        /// The statement is refused.
        Error => "error",
    }
}

words! {
    /// Where the accounts that may log in come from.
    AuthMode {
        /// From the backend, by real logins.
        Passthrough => "passthrough",
        /// From `[[auth.user]]`.
        Users => "users",
    }
}

words! {
    /// How log lines are written.
    LogFormat {
        /// For people.
        Text => "text",
        /// One JSON object per line.
        Json => "json",
    }
}

/// TCP keepalive toward clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Keepalive {
    /// None.
    #[default]
    Off,
    /// A probe after this long without traffic.
    After(Duration),
}

impl fmt::Display for Keepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::After(duration) => f.write_str(&format_duration(*duration)),
        }
    }
}

impl FromStr for Keepalive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        match parse_duration(text) {
            Ok(duration) if duration.is_zero() => Ok(Self::Off),
            Ok(duration) => Ok(Self::After(duration)),
            Err(expected) => Err(format!("\"off\", or {expected}")),
        }
    }
}

/// A number of bytes, written with a binary unit: `"256MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = BYTE_UNITS
            .into_iter()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift)
            .unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text[digits.len()..].trim();
        BYTE_UNITS
            .into_iter()
            .find(|(word, _)| *word == unit)
            .and_then(|(_, shift)| {
                let number: u64 = digits.parse().ok()?;
                number.checked_mul(1 << shift)
            })
            .map(Self)
            .ok_or_else(|| {
                "a number of bytes such as \"256MiB\" (B, KiB, MiB, GiB, TiB)".to_owned()
            })
    }
}

/// What is logged: a level, or `tracing` directives such as `info,sidepool::pool=debug`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogLevel(String);

impl LogLevel {
    /// The directives, as `tracing_subscriber::EnvFilter` reads them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogLevel {
    type Err = String;

    /// Stricter than `EnvFilter`, for which a misspelt level is the name of a module.
    fn from_str(text: &str) -> Result<Self, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let known = |part: &str| {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
            LEVELS.contains(&level)
        };
        let valid = text.split(',').all(known)
            && tracing_subscriber::EnvFilter::builder().parse(text).is_ok();
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err("a level (off, error, warn, info, debug, trace), or \
                 directives such as \"info,sidepool::pool=debug\""
                .to_owned())
        }
    }
}

serde_as_text!(Keepalive, ByteSize, LogLevel);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_and_others_name_the_choice() {
        for mode in BackendTlsMode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(*mode));
        }
        let expected = "Optional".parse::<ClientTlsMode>().unwrap_err();
        assert_eq!(expected, r#"one of "optional", "off", "required""#);
    }

    #[test]
    fn byte_sizes() {
        for (text, bytes) in [
            ("256MiB", 256 << 20),
            ("0B", 0),
            ("1TiB", 1 << 40),
            ("1025B", 1025),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        for text in ["", "256", "MiB", "1MB", "-1B", "99999999999TiB", "1 2B"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn keepalive_is_off_or_a_duration() {
        let after = Keepalive::After(Duration::from_secs(60));
        for (text, value) in [
            ("off", Keepalive::Off),
            ("0s", Keepalive::Off),
            ("60s", after),
        ] {
            assert_eq!(text.parse(), Ok(value));
        }
        assert_eq!(after.to_string(), "1m");
        assert!("on".parse::<Keepalive>().is_err());
    }

    #[test]
    fn log_levels() {
        for text in ["info", "off", "warn,sidepool=debug", "sidepool::pool=trace"] {
            assert_eq!(text.parse::<LogLevel>().unwrap().as_str(), text);
        }
        for text in ["", "inof", "INFO", "sidepool=loud", "info,,", "sidepool"] {
            assert!(text.parse::<LogLevel>().is_err(), "{text:?}");
        }
    }
}
