//! Proving who somebody is: the exchanges of both sides, without I/O.
//!
//! [`client`] is Sidepool toward a database. What both roles share is here: the plugins by name, secrets
//! that wipe themselves, the auth switch and the password's journey under RSA.

pub mod client;
pub mod server;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::{BufMut, Bytes, BytesMut};
use zeroize::Zeroizing;

/// A password or token in memory. It is wiped when dropped and never shown; comparing takes a time that depends on
/// nothing but the lengths.
#[derive(Clone)]
pub struct Secret(Zeroizing<Box<[u8]>>);

/// The authentication plugins that Sidepool can speak, by the name of their client half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plugin {
    /// SHA-1 challenge and response.
    MysqlNative,
    /// SHA-256 challenge and response if the server remembers the account, else the password itself.
    CachingSha2,
    /// The password itself, over a secure channel or under RSA.
    Sha256,
    /// MariaDB: a signature with a key made of the password.
    Ed25519,
    /// MariaDB from 11.6 on: a signature with a salted and stretched key.
    Parsec,
    /// The password itself.
    Clear,
}

/// A server's request to answer by another plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSwitch {
    /// The plugin's name.
    pub plugin: Bytes,
    /// The plugin's data, usually a nonce, with whatever closing NUL the server sent.
    pub data: Bytes,
}

impl Secret {
    /// Takes a copy of `password`; the caller's own copy stays the caller's to wipe.
    pub fn new(password: &[u8]) -> Self {
        Self(Zeroizing::new(password.into()))
    }

    /// The password.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether the password is the empty one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The password with the NUL that ends it on the wire.
    pub fn nul_terminated(&self) -> Zeroizing<Vec<u8>> {
        // The exact capacity, so that no copy is left behind by growing.
        let mut out = Zeroizing::new(Vec::with_capacity(self.0.len() + 1));
        out.extend_from_slice(&self.0);
        out.push(0);
        out
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Secret {}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Plugin {
    /// The plugin of that name, if Sidepool can speak it.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        const ALL: [Plugin; 6] = [
            Plugin::MysqlNative,
            Plugin::CachingSha2,
            Plugin::Sha256,
            Plugin::Ed25519,
            Plugin::Parsec,
            Plugin::Clear,
        ];
        ALL.into_iter().find(|p| p.name().as_bytes() == name)
    }

    /// The name of the client half, as it is on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MysqlNative => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
            Self::Sha256 => "sha256_password",
            Self::Ed25519 => "client_ed25519",
            Self::Parsec => "parsec",
            Self::Clear => "mysql_clear_password",
        }
    }
}

impl std::fmt::Display for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl AuthSwitch {
    /// First byte of the payload.
    pub const HEADER: u8 = 0xfe;

    /// Reads the payload. `None`: it is no auth switch, or the bare `0xfe` by which servers from before 5.5 ask
    /// for the password hash of before 4.1.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(&[Self::HEADER])?;
        let end = memchr::memchr(0, rest)?;
        Some(Self {
            plugin: Bytes::copy_from_slice(&rest[..end]),
            data: Bytes::copy_from_slice(&rest[end + 1..]),
        })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(Self::HEADER);
        out.put_slice(&self.plugin);
        out.put_u8(0);
        out.put_slice(&self.data);
    }
}

/// XORs a password with the nonce, over and over: what `caching_sha2_password` and `sha256_password` do before they
/// encrypt and after they decrypt.
pub fn xor_with_nonce(password: &mut [u8], nonce: &[u8]) {
    for (byte, mask) in password.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= mask;
    }
}
