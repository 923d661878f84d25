//! The server's side of authentication, without I/O: is the client who it says it is?
//!
//! Owns the exchange of one login: scrambles are checked against the secrets that are already known, and a
//! client none of them fits is led to the full exchange, which yields the password in clear for
//! whoever can prove it. Source: MySQL Internals, "Authentication Method" pages; the order of packets and the
//! answers to what is malformed are captured from MySQL 9.7 and MariaDB 10.11.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use bytes::{Bytes, BytesMut};
use mysql_common::scramble::{scramble_native, scramble_sha256};
use zeroize::Zeroizing;

use super::{AuthSwitch, Plugin, Secret, xor_with_nonce};
use crate::protocol::handshake::NONCE_LEN;

/// First byte of a packet that carries more of the exchange.
const MORE_DATA: u8 = 0x01;
/// `caching_sha2_password`: the scramble was right, OK follows.
const FAST_AUTH_OK: [u8; 2] = [MORE_DATA, 0x03];
/// `caching_sha2_password`: send the password.
const FULL_AUTH: [u8; 2] = [MORE_DATA, 0x04];
/// `caching_sha2_password`: a client without TLS asks for the public key.
const KEY_REQUEST: &[u8] = &[0x02];

/// A nonce as it is sent, without the NUL behind it.
pub type Nonce = [u8; NONCE_LEN];

/// Whether the client's bytes can be read on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// TLS, or a Unix socket: a password may cross it in clear.
    Secure,
    /// TCP in clear.
    Plain,
}

/// What the exchange needs besides the client's packets.
#[derive(Debug, Clone)]
pub struct ServerAuth {
    /// The nonce that the client's first answer is for.
    pub nonce: Nonce,
    /// The nonce for a change of plugin; a fresh one, so that no answer serves twice.
    pub switch_nonce: Nonce,
    /// Whether a password may be asked for in clear.
    pub channel: Channel,
    /// Whether the client negotiated `PLUGIN_AUTH` and so understands a change of plugin.
    pub can_switch: CanSwitch,
    /// Decrypts passwords that come over a plain channel.
    pub rsa: Arc<RsaKey>,
    /// The account's secrets as far as they are known.
    pub candidates: Vec<Secret>,
}

/// Whether a client understands a change of plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanSwitch {
    /// It negotiated `PLUGIN_AUTH`.
    Yes,
    /// It knows `mysql_native_password` only.
    No,
}

/// An exchange under way: what the next packet of the client will mean.
#[derive(Debug)]
pub struct Exchange {
    auth: ServerAuth,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A scramble of `caching_sha2_password` after a change of plugin.
    Scramble,
    /// The password, or a request for the key.
    Password,
    /// The password encrypted by the key that was sent.
    Encrypted,
    /// The password after a change to `mysql_clear_password`.
    Clear,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send this payload, give the client's next packet to [`Exchange::next`].
    Send(Exchange, Vec<u8>),
    /// The exchange is over.
    Done(Verdict),
}

/// How an exchange ended.
#[derive(Debug)]
pub enum Verdict {
    /// The client knows this one of the candidates.
    Known(KnownSecret),
    /// This is the password the client has; whether it is right is for the database to say.
    Cleartext(Secret),
    /// The client is not let in.
    Failed(AuthFailure),
}

/// A scramble that fits.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownSecret {
    /// Index of the secret among the candidates.
    pub index: usize,
    /// The plugin that proved it.
    pub plugin: ProvedBy,
}

/// The plugin by which a known secret was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvedBy {
    /// `mysql_native_password`. The final OK follows directly, perhaps with a [`tls_proof`].
    Native,
    /// `caching_sha2_password`: [`FAST_AUTH_OK`](Self::prelude) goes ahead of the final OK.
    CachingSha2,
    /// An account without a password; nothing was exchanged.
    Empty,
}

/// Why an exchange ended without a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailure {
    /// Only a plugin that the client lacks could prove it (error 1251 on MySQL).
    #[error("the client supports mysql_native_password only, and its password is not known yet")]
    CannotSwitch,
    /// A packet that the plugin does not allow.
    #[error("malformed packet in the password exchange")]
    Malformed,
    /// The password was encrypted by another key, or not at all.
    #[error("the password could not be decrypted")]
    Undecipherable,
}

/// The RSA key pair by which clients without TLS send their password. Made once per process.
pub struct RsaKey {
    private: OaepPrivateDecryptingKey,
    public_pem: Vec<u8>,
}

/// The key pair could not be made.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("making the RSA key pair for password exchanges failed")]
pub struct RsaKeyError;

impl ServerAuth {
    /// Judges the client's first answer, from its login or its `COM_CHANGE_USER`. `plugin` is the one the
    /// client says it used; none means `mysql_native_password`.
    pub fn start(self, plugin: Option<&[u8]>, response: &[u8]) -> Step {
        let plugin = match plugin.filter(|name| !name.is_empty()) {
            Some(name) => Plugin::from_name(name),
            None => Some(Plugin::MysqlNative),
        };
        match plugin {
            Some(Plugin::MysqlNative) if response.is_empty() => self.empty_password(),
            Some(Plugin::MysqlNative) => match self.check_native(response) {
                Some(index) => known(index, ProvedBy::Native),
                None => self.switch_to_caching_sha2(),
            },
            Some(Plugin::CachingSha2) => self.scramble(response),
            // Elsewhere the password has been seen by everybody; it is not even looked at.
            Some(Plugin::Clear) if self.channel == Channel::Secure => {
                if response.is_empty() {
                    self.switch(Plugin::Clear, State::Clear)
                } else {
                    cleartext(response)
                }
            }
            _ => self.switch_to_caching_sha2(),
        }
    }

    /// The answer of `caching_sha2_password` to [`nonce`](Self::nonce).
    fn scramble(self, response: &[u8]) -> Step {
        match response {
            // MySQL's library sends one NUL for an empty password, others nothing.
            [] | [0] => self.empty_password(),
            _ => match self.check_sha2(response) {
                Some(index) => known(index, ProvedBy::CachingSha2),
                None => self.send(State::Password, FULL_AUTH.to_vec()),
            },
        }
    }

    /// The client says its account has no password: the scramble of nothing is nothing.
    fn empty_password(self) -> Step {
        match self.candidates.iter().position(|s| s.is_empty()) {
            Some(index) => known(index, ProvedBy::Empty),
            None => Step::Done(Verdict::Cleartext(Secret::new(b""))),
        }
    }

    fn check_native(&self, response: &[u8]) -> Option<usize> {
        let fits = |secret: &Secret| {
            scramble_native(&self.nonce, secret.expose())
                .is_some_and(|right| verify_slices_are_equal(&right, response).is_ok())
        };
        self.candidates.iter().position(fits)
    }

    fn check_sha2(&self, response: &[u8]) -> Option<usize> {
        let fits = |secret: &Secret| {
            scramble_sha256(&self.nonce, secret.expose())
                .is_some_and(|right| verify_slices_are_equal(&right, response).is_ok())
        };
        self.candidates.iter().position(fits)
    }

    fn switch_to_caching_sha2(self) -> Step {
        self.switch(Plugin::CachingSha2, State::Scramble)
    }

    fn switch(mut self, plugin: Plugin, state: State) -> Step {
        if self.can_switch == CanSwitch::No {
            return Step::Done(Verdict::Failed(AuthFailure::CannotSwitch));
        }
        self.nonce = self.switch_nonce;
        let mut payload = BytesMut::new();
        let request = AuthSwitch {
            plugin: Bytes::from_static(plugin.name().as_bytes()),
            data: Bytes::from([&self.nonce[..], &[0]].concat()),
        };
        request.encode(&mut payload);
        self.send(state, payload.into())
    }

    const fn send(self, state: State, payload: Vec<u8>) -> Step {
        Step::Send(Exchange { auth: self, state }, payload)
    }
}

impl Exchange {
    /// Judges the client's answer to what was sent.
    pub fn next(self, packet: &[u8]) -> Step {
        let Self { auth, state } = self;
        match state {
            State::Scramble => auth.scramble(packet),
            State::Clear => cleartext(packet),
            // A password in clear ends with a NUL, so this cannot be one on either channel.
            State::Password if packet == KEY_REQUEST => {
                let payload = [&[MORE_DATA], auth.rsa.public_pem()].concat();
                auth.send(State::Encrypted, payload)
            }
            State::Password if auth.channel == Channel::Secure => cleartext(packet),
            // A client that was given the key beforehand does not ask for it.
            State::Password | State::Encrypted => auth.decrypt(packet),
        }
    }

    /// The nonce that the client's last answer is for: a later `COM_CHANGE_USER` answers to it too.
    pub const fn nonce(&self) -> Nonce {
        self.auth.nonce
    }
}

impl ServerAuth {
    fn decrypt(&self, packet: &[u8]) -> Step {
        let Some(mut secret) = self.rsa.decrypt(packet) else {
            return Step::Done(Verdict::Failed(AuthFailure::Undecipherable));
        };
        xor_with_nonce(&mut secret, &self.nonce);
        cleartext(&secret)
    }
}

impl ProvedBy {
    /// The payload that goes ahead of the final OK, if any.
    pub const fn prelude(self) -> Option<[u8; 2]> {
        match self {
            Self::CachingSha2 => Some(FAST_AUTH_OK),
            Self::Native | Self::Empty => None,
        }
    }
}

const fn known(index: usize, plugin: ProvedBy) -> Step {
    Step::Done(Verdict::Known(KnownSecret { index, plugin }))
}

/// A password with the NUL that ends it; one without is cut short or no password.
fn cleartext(packet: &[u8]) -> Step {
    Step::Done(match packet.strip_suffix(&[0]) {
        Some(secret) if !secret.contains(&0) => Verdict::Cleartext(Secret::new(secret)),
        _ => Verdict::Failed(AuthFailure::Malformed),
    })
}

impl RsaKey {
    /// Makes a key pair of 2048 bits, as MySQL does. Takes tens to hundreds of milliseconds of CPU.
    ///
    /// # Errors
    /// [`RsaKeyError`] when the library fails, for which it gives no reason.
    pub fn generate() -> Result<Self, RsaKeyError> {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| RsaKeyError)?;
        let der: PublicKeyX509Der<'_> = private.public_key().as_der().map_err(|_| RsaKeyError)?;
        Ok(Self {
            public_pem: pem("PUBLIC KEY", der.as_ref()),
            private: OaepPrivateDecryptingKey::new(private).map_err(|_| RsaKeyError)?,
        })
    }

    /// The public key as PEM, as a client asks for it.
    pub fn public_pem(&self) -> &[u8] {
        &self.public_pem
    }

    fn decrypt(&self, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let len = self
            .private
            .decrypt(&OAEP_SHA1_MGF1SHA1, ciphertext, &mut out, None)
            .ok()?
            .len();
        out.truncate(len);
        Some(out)
    }
}

impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RsaKey").finish_non_exhaustive()
    }
}

/// What a MariaDB client from 11.4 on wants in the *info* of the final OK before it accepts a certificate that
/// no authority vouches for: proof that the server knows the password's hash and holds this certificate.
///
/// `0x01`, then in upper-case hexadecimal SHA-256 over (the hash that `mysql_native_password` stores, the
/// nonce it answered to, SHA-256 of the certificate's DER). Source: MDEV-31855; MariaDB Connector/C 3.4,
/// the end of `run_plugin_auth`. Accepted by MariaDB's Node connector 3.5.4, which checks it.
pub fn tls_proof(secret: &Secret, nonce: &Nonce, certificate_sha256: &[u8; 32]) -> Vec<u8> {
    let sha1 = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let stored = sha1(sha1(secret.expose()).as_ref());
    let proof = digest(
        &SHA256,
        &[stored.as_ref(), nonce, certificate_sha256].concat(),
    );
    let mut info = Vec::with_capacity(1 + 2 * proof.as_ref().len());
    info.push(0x01);
    for byte in proof.as_ref() {
        info.extend_from_slice(format!("{byte:02X}").as_bytes());
    }
    info
}

/// PEM text of `der`, in lines of 64 characters (RFC 7468).
fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(der.len() * 4 / 3 + 4);
    for chunk in der.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= chunk.len() { digit } else { b'=' });
        }
    }
    let mut out = format!("-----BEGIN {label}-----\n").into_bytes();
    for line in text.chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    out
}

#[cfg(test)]
mod tests;
