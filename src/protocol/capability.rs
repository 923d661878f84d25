//! Capability flags by name: which are always used to the backend, which are part of the pool key,
//! which are never offered.
//!
//! Source of the bits: MySQL Internals "Capabilities Flags", MariaDB KB "Connection", `mysql_common`
//! 0.37 constants; the decisions are DESIGN 6, measured in hazards 11.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign};

/// A set of capability flags: MySQL's in the lower 32 bits, MariaDB's extended ones in the upper 32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Capabilities(u64);

/// The capability flags a backend connection was logged in with that change what a client sees, and
/// that two sessions must therefore agree on to share it. Part of the pool key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeyBits(Capabilities);

macro_rules! flags {
    ($($(#[$meta:meta])* $name:ident = $bit:literal,)+) => {
        impl Capabilities {
            $($(#[$meta])* pub const $name: Self = Self(1 << $bit);)+
            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name)),)+];
        }
    };
}

flags! {
    /// Bit 0, `CLIENT_LONG_PASSWORD` and, on MariaDB, `CLIENT_MYSQL`: *unset* in a greeting or a login
    /// it says that the sender speaks MariaDB's dialect and that extended capabilities follow.
    LONG_PASSWORD = 0,
    /// Affected rows are found rows.
    FOUND_ROWS = 1,
    /// Two-byte column flags; the layout of protocol 4.1 has them anyway.
    LONG_FLAG = 2,
    /// A database follows in the login.
    CONNECT_WITH_DB = 3,
    /// The database in `database.table.column` is ignored.
    NO_SCHEMA = 4,
    /// zlib compression.
    COMPRESS = 5,
    /// No effect on any server still in use.
    ODBC = 6,
    /// `LOAD DATA LOCAL`.
    LOCAL_FILES = 7,
    /// `sql_mode` starts with `IGNORE_SPACE`.
    IGNORE_SPACE = 8,
    /// The protocol since 4.1; required of everybody.
    PROTOCOL_41 = 9,
    /// `wait_timeout` starts as `interactive_timeout`.
    INTERACTIVE = 10,
    /// TLS; in a login: the TLS handshake comes next.
    SSL = 11,
    /// Of the client library only.
    IGNORE_SIGPIPE = 12,
    /// Status flags are sent.
    TRANSACTIONS = 13,
    /// The bit of an early 4.1 protocol, dead.
    RESERVED = 14,
    /// Authentication by a 20-byte nonce; the auth response has a length.
    SECURE_CONNECTION = 15,
    /// Several statements in one `COM_QUERY`.
    MULTI_STATEMENTS = 16,
    /// Several result sets.
    MULTI_RESULTS = 17,
    /// Several result sets and OUT parameters of a prepared statement.
    PS_MULTI_RESULTS = 18,
    /// Authentication plugins by name and the auth switch.
    PLUGIN_AUTH = 19,
    /// Connection attributes follow in the login.
    CONNECT_ATTRS = 20,
    /// The auth response's length is length-encoded.
    PLUGIN_AUTH_LENENC = 21,
    /// An expired password logs in to a session that can only change it.
    CAN_HANDLE_EXPIRED_PASSWORDS = 22,
    /// OK packets carry session state changes, and length-encoded info.
    SESSION_TRACK = 23,
    /// Result sets end in an OK with header `0xfe` instead of EOF packets.
    DEPRECATE_EOF = 24,
    /// Result set metadata can be left out.
    OPTIONAL_RESULTSET_METADATA = 25,
    /// Zstandard compression; a level follows in the login.
    ZSTD_COMPRESSION = 26,
    /// Query attributes; changes the layout of `COM_QUERY` and `COM_STMT_EXECUTE`.
    QUERY_ATTRIBUTES = 27,
    /// Authentication in several steps with a secret each.
    MULTI_FACTOR_AUTHENTICATION = 28,
    /// MariaDB before 10.2: progress reports.
    PROGRESS_OBSOLETE = 29,
    /// Of the client library only.
    SSL_VERIFY_SERVER_CERT = 30,
    /// Of the client library only.
    REMEMBER_OPTIONS = 31,
    /// MariaDB: progress reports as ERR packets with code 0xffff ahead of the answer.
    MARIADB_PROGRESS = 32,
    /// MariaDB: once `COM_MULTI`.
    MARIADB_RESERVED_1 = 33,
    /// MariaDB: parameter arrays, `COM_STMT_BULK_EXECUTE`.
    MARIADB_BULK = 34,
    /// MariaDB: column definitions carry extended types.
    MARIADB_EXTENDED_METADATA = 35,
    /// MariaDB: column definitions are left out of a re-execution.
    MARIADB_CACHE_METADATA = 36,
    /// MariaDB: a bulk execution can answer with a result set of ids.
    MARIADB_BULK_UNIT_RESULTS = 37,
}

/// Always used to the backend if it has them, and translated for a client that has not.
///
/// Beside the framing and authentication bits of DESIGN 6 these are `PROTOCOL_41`, `SECURE_CONNECTION`,
/// `TRANSACTIONS` and `LONG_FLAG`, without which the layout would be that of 3.23, and `LONG_PASSWORD`,
/// which MariaDB's greeting leaves out: the intersection then leaves it out of the login too, which is what
/// makes MariaDB read the extended capabilities.
///
/// Not here: `CONNECT_WITH_DB` and `SSL`, which say what *this* login holds and are set by who builds it.
pub const ALWAYS_BACKEND: Capabilities = union(&[
    Capabilities::LONG_PASSWORD,
    Capabilities::LONG_FLAG,
    Capabilities::PROTOCOL_41,
    Capabilities::TRANSACTIONS,
    Capabilities::SECURE_CONNECTION,
    Capabilities::MULTI_RESULTS,
    Capabilities::PS_MULTI_RESULTS,
    Capabilities::PLUGIN_AUTH,
    Capabilities::CONNECT_ATTRS,
    Capabilities::PLUGIN_AUTH_LENENC,
    Capabilities::SESSION_TRACK,
    Capabilities::DEPRECATE_EOF,
]);

/// Change what the server understands or answers, so they are the client's choice and sessions that
/// differ in them never share a backend connection.
///
/// `NO_SCHEMA` is here beside those DESIGN 6 names: measured on both servers, with it `SELECT nosuch.t.a FROM
/// d.t` reads `d.t` where it is error 1054 without.
pub const POOL_KEY: Capabilities = union(&[
    Capabilities::FOUND_ROWS,
    Capabilities::NO_SCHEMA,
    Capabilities::LOCAL_FILES,
    Capabilities::IGNORE_SPACE,
    Capabilities::MULTI_STATEMENTS,
    Capabilities::QUERY_ATTRIBUTES,
    Capabilities::MARIADB_BULK,
    Capabilities::MARIADB_EXTENDED_METADATA,
]);

/// The client's choice at the backend login, but not part of the key: once logged in with a password
/// that has not expired, this bit changes nothing. With one that has, the first statement answers
/// 1820 and the connection must not be shared.
pub const LOGIN_ONLY: Capabilities = Capabilities::CAN_HANDLE_EXPIRED_PASSWORDS;

/// Known, and never offered to a client nor used to a backend, like every bit not known:
///
/// * `COMPRESS`, `ZSTD_COMPRESSION`: bytes could not be forwarded as they are.
/// * `OPTIONAL_RESULTSET_METADATA`, `MARIADB_CACHE_METADATA`, `MARIADB_PROGRESS`: change the shape of answers by
///   state that a shared backend connection cannot keep per session (hazards 11).
/// * `MARIADB_BULK_UNIT_RESULTS`: another shape of answer, and not named among DESIGN's key bits.
/// * `MULTI_FACTOR_AUTHENTICATION`: Sidepool keeps one secret per account; the server then says by itself that
///   such an account cannot log in.
/// * `RESERVED`, `PROGRESS_OBSOLETE`, `MARIADB_RESERVED_1`: dead.
/// * `SSL_VERIFY_SERVER_CERT`, `REMEMBER_OPTIONS`: never on the wire with a meaning.
pub const NEVER_OFFERED: Capabilities = union(&[
    Capabilities::COMPRESS,
    Capabilities::ZSTD_COMPRESSION,
    Capabilities::OPTIONAL_RESULTSET_METADATA,
    Capabilities::MARIADB_CACHE_METADATA,
    Capabilities::MARIADB_PROGRESS,
    Capabilities::MARIADB_BULK_UNIT_RESULTS,
    Capabilities::MULTI_FACTOR_AUTHENTICATION,
    Capabilities::RESERVED,
    Capabilities::PROGRESS_OBSOLETE,
    Capabilities::MARIADB_RESERVED_1,
    Capabilities::SSL_VERIFY_SERVER_CERT,
    Capabilities::REMEMBER_OPTIONS,
]);

/// What Sidepool does by itself in the connection phase, whatever the backend has.
///
/// `INTERACTIVE` is among them because it only seeds the client's own `wait_timeout`; to the backend it
/// never goes. `ODBC` and `IGNORE_SIGPIPE` have no effect at the server and are offered so that a client
/// which insists on them finds them; they do not go to the backend either.
const OWN: Capabilities = union(&[
    Capabilities::LONG_FLAG,
    Capabilities::CONNECT_WITH_DB,
    Capabilities::ODBC,
    Capabilities::PROTOCOL_41,
    Capabilities::INTERACTIVE,
    Capabilities::IGNORE_SIGPIPE,
    Capabilities::TRANSACTIONS,
    Capabilities::SECURE_CONNECTION,
    Capabilities::PLUGIN_AUTH,
    Capabilities::CONNECT_ATTRS,
    Capabilities::PLUGIN_AUTH_LENENC,
]);

/// What Sidepool's greeting offers: what it does by itself, and of the backend's capabilities those that
/// it can translate or forward. TLS is the listener's affair, not the backend's.
pub fn offered_to_clients(backend: Capabilities, tls_available: bool) -> Capabilities {
    let offered = OWN | (backend & (ALWAYS_BACKEND | POOL_KEY | LOGIN_ONLY));
    if tls_available {
        offered | Capabilities::SSL
    } else {
        offered
    }
}

/// What a client's login amounts to: the bits it asked for among those `offered`.
///
/// A client that says bit 0 although it was not offered is one that does not know MariaDB's extended
/// capabilities; the bit is kept so that the answer can be told.
pub fn negotiated(offered: Capabilities, requested: Capabilities) -> Capabilities {
    requested & (offered | Capabilities::LONG_PASSWORD)
}

/// What Sidepool's login to a backend asks for on behalf of a client: the set that is always used and
/// the client's own choices, as far as the server has them.
pub fn for_backend(client: Capabilities, backend: Capabilities) -> Capabilities {
    (ALWAYS_BACKEND | (client & (POOL_KEY | LOGIN_ONLY))) & backend
}

/// The part of a client's negotiated capabilities that belongs to the pool key.
pub fn pool_key(client: Capabilities) -> KeyBits {
    KeyBits(client & POOL_KEY)
}

impl Capabilities {
    /// No capability.
    pub const EMPTY: Self = Self(0);

    /// From both halves as they are on the wire. `extended` is dropped where bit 0 says that these bytes
    /// are not MariaDB's.
    pub const fn from_wire(lower: u32, extended: u32) -> Self {
        let lower = lower as u64;
        if lower & Self::LONG_PASSWORD.0 == 0 {
            Self(lower | (extended as u64) << 32)
        } else {
            Self(lower)
        }
    }

    /// MySQL's 32 bits.
    pub const fn lower(self) -> u32 {
        self.0 as u32
    }

    /// MariaDB's extended 32 bits; zero where bit 0 says that none are spoken.
    pub const fn extended(self) -> u32 {
        if self.is_mariadb() {
            (self.0 >> 32) as u32
        } else {
            0
        }
    }

    /// Whether bit 0 is unset: MariaDB's dialect.
    pub const fn is_mariadb(self) -> bool {
        self.0 & Self::LONG_PASSWORD.0 == 0
    }

    /// Whether every flag of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// This set with `other` added.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// All 64 bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// From all 64 bits; unknown ones are kept.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl KeyBits {
    /// The bits as capabilities, to ask for at a login.
    pub const fn capabilities(self) -> Capabilities {
        self.0
    }
}

impl BitOr for Capabilities {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl BitOrAssign for Capabilities {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.with(other);
    }
}

impl BitAnd for Capabilities {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = *self;
        let mut set = f.debug_set();
        for &(flag, name) in Self::NAMES {
            if rest.contains(flag) {
                set.entry(&format_args!("{name}"));
                rest = rest.without(flag);
            }
        }
        if rest != Self::EMPTY {
            set.entry(&format_args!("{:#x}", rest.0));
        }
        set.finish()
    }
}

const fn union(flags: &[Capabilities]) -> Capabilities {
    let (mut bits, mut at) = (0, 0);
    while at < flags.len() {
        bits |= flags[at].0;
        at += 1;
    }
    Capabilities(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Greeting of MariaDB 10.11.19 without TLS, and of MySQL 9.7.4.
    const MARIADB: Capabilities = Capabilities::from_wire(0x81ff_f7fe, 0x1d);
    const MYSQL: Capabilities = Capabilities::from_wire(0xdfff_ffff, 0);
    /// Logins of the mariadb shell (3.3.20), of mysql 9.7.4 and of PyMySQL 1.2.4.
    const MARIADB_SHELL: Capabilities = Capabilities::from_wire(0x00bf_a28c, 0x1d);
    const MYSQL_SHELL: Capabilities = Capabilities::from_wire(0x19bf_a285, 0);

    #[test]
    fn every_known_bit_has_exactly_one_decision() {
        let login_only_says = Capabilities::CONNECT_WITH_DB | Capabilities::SSL;
        for &(flag, name) in Capabilities::NAMES {
            let places = [
                POOL_KEY,
                NEVER_OFFERED,
                LOGIN_ONLY,
                ALWAYS_BACKEND | OWN | login_only_says,
            ];
            let decided = places.iter().filter(|set| set.contains(flag)).count();
            assert_eq!(decided, 1, "{name}");
        }
    }

    #[test]
    fn nothing_unknown_or_refused_is_offered() {
        let everything = Capabilities::from_bits(u64::MAX);
        for tls in [false, true] {
            let offered = offered_to_clients(everything, tls);
            assert_eq!(offered & NEVER_OFFERED, Capabilities::EMPTY);
            assert_eq!(offered.bits() >> 38, 0);
            assert_eq!(offered.contains(Capabilities::SSL), tls);
        }
    }

    #[test]
    fn a_mariadb_backend_gives_a_greeting_that_speaks_mariadb() {
        let offered = offered_to_clients(MARIADB, false);
        assert!(offered.is_mariadb());
        assert_eq!(offered.extended(), 0b1100);
        assert!(!offered_to_clients(MYSQL, false).is_mariadb());
        assert_eq!(offered_to_clients(MYSQL, false).extended(), 0);
    }

    #[test]
    fn a_login_to_mariadb_leaves_bit_0_out_even_for_a_mysql_client() {
        let client = negotiated(offered_to_clients(MARIADB, false), MYSQL_SHELL);
        let login = for_backend(client, MARIADB);
        assert!(login.is_mariadb());
        assert_eq!(login.extended(), 0);
        assert!(login.contains(Capabilities::DEPRECATE_EOF | Capabilities::SESSION_TRACK));
    }

    #[test]
    fn interactive_and_session_shape_bits_do_not_reach_the_backend_or_the_key() {
        let client = negotiated(
            offered_to_clients(MARIADB, false),
            MARIADB_SHELL | Capabilities::INTERACTIVE,
        );
        assert!(client.contains(Capabilities::INTERACTIVE));
        let login = for_backend(client, MARIADB);
        assert!(!login.contains(Capabilities::INTERACTIVE));
        assert!(!login.contains(Capabilities::CONNECT_WITH_DB));
        assert_eq!(
            pool_key(client),
            pool_key(client.without(Capabilities::INTERACTIVE))
        );
        assert_eq!(
            pool_key(client).capabilities(),
            Capabilities::LOCAL_FILES
                | Capabilities::MULTI_STATEMENTS
                | Capabilities::MARIADB_BULK
                | Capabilities::MARIADB_EXTENDED_METADATA
        );
    }

    #[test]
    fn names_are_shown() {
        let shown = format!("{:?}", Capabilities::SSL | Capabilities::from_bits(1 << 60));
        assert_eq!(shown, "{SSL, 0x1000000000000000}");
    }
}
