//! Sidepool as the client: answering a database's challenge, without I/O, and knowing whether a login
//! proved the secret.
//!
//! An exchange that Sidepool will not go through with (a plugin it does not speak, a password that would have
//! to cross in clear) is still brought to its end by an empty answer: a server counts handshakes that
//! break off, not logins that it refuses, and blocks the whole host for them (hazards 20, measured).
//!
//! Source: MySQL Internals "Authentication Method"; MariaDB KB "Authentication Plugins"; captures in the tests.

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use bytes::Bytes;
use mysql_common::packets::parse_parsec_salt;
use mysql_common::scramble::{
    create_response_for_ed25519, create_response_for_parsec, scramble_native, scramble_sha256,
};
use tokio_rustls::rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{AuthSwitch, Plugin, Secret, xor_with_nonce};
use crate::protocol::capability::Capabilities;
use crate::protocol::handshake::{Greeting, NONCE_LEN, ServerError};

/// Packets after which an exchange that has not ended never will. MariaDB tries every plugin of an
/// account in turn, a switch and up to three packets each.
const MAX_PACKETS: u8 = 32;

/// Rounds of key stretching that a server may ask for; MariaDB asks for 1,024 unless set otherwise. They run on the
/// caller's thread, about a second at this bound.
const MAX_PARSEC_ITERATIONS: u32 = 1 << 20;

/// A plugin name that no account has. A server answers it with a switch to the account's own plugin, if that has
/// a client half at all; see [`ProofDemand::Required`].
const NO_PLUGIN: &str = "sidepool";

/// What may cross the stream to the server in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// TCP in clear: nothing.
    Plain,
    /// A Unix socket: what `caching_sha2_password` sends. `sha256_password`'s server half takes it for a plain connection
    /// (measured on MySQL 9.7) and wants RSA; its key comes over the socket and can be trusted.
    UnixSocket,
    /// TLS whose certificate was not checked: the same, as MySQL's own clients do.
    TlsUnverified,
    /// TLS to a server whose certificate was checked: also `mysql_clear_password`.
    TlsVerified,
}

/// Whether the login must show that the secret was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofDemand {
    /// The login is to prove a secret. Where the first answer would not show which plugin accepted it, the server
    /// is made to name the account's plugin first, at the cost of one round trip: measured on MariaDB,
    /// a `unix_socket` account answers a wrong native scramble with the same OK as a right one.
    Required,
    /// The secret is known to be right; the fewest round trips.
    NotNeeded,
}

/// Whether a login that succeeded proves the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// This plugin asked for the secret's answer and accepted it.
    SecretUsed(Plugin),
    /// Nothing shows that the secret was looked at.
    NotProof,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this payload, then read on. It may hold a password.
    Send(Zeroizing<Vec<u8>>),
    /// Read on.
    Wait,
    /// Logged in; the packet was the final OK.
    Done(Proof),
}

/// Why the exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The server refused.
    #[error("{0}")]
    Refused(ServerError),
    /// The account uses a plugin that Sidepool does not speak.
    #[error("the account uses the authentication plugin {0:?}, which Sidepool does not speak")]
    PluginNotSupported(String),
    /// The password would have to be encrypted with a key that nobody vouches for.
    #[error(
        "the server asks for the password itself on a connection without TLS: set \
         backend.tls.mode, or backend.allow_public_key_retrieval = true to send it under RSA"
    )]
    PublicKeyRetrievalNotAllowed,
    /// The account wants its password in clear, and the server's certificate was not checked.
    #[error(
        "the account uses mysql_clear_password, which is answered only over verified TLS: set \
         backend.tls.mode to verify_ca or verify_identity"
    )]
    ClearPasswordNotAllowed,
    /// The server sent what has no place in the exchange.
    #[error("unexpected packet from the server while logging in: {0}")]
    Protocol(&'static str),
}

/// One login's exchange, from the server's greeting to the final OK or ERR.
#[derive(Debug)]
pub struct ClientAuth {
    secret: Secret,
    channel: Channel,
    allow_public_key_retrieval: bool,
    nonce: Bytes,
    stage: Stage,
    packets: u8,
}

/// How far the exchange has come.
#[derive(Debug)]
enum Stage {
    /// Nothing that the server must have looked at was sent.
    Unproven,
    /// A scramble was sent to `caching_sha2_password`, which says by itself whether it looked. With an empty
    /// secret it does not, and `confirmed` tells whether it asked.
    CachingSha2Scrambled { confirmed: bool },
    /// The server's public key was asked for.
    KeyRequested(Plugin),
    /// `parsec` was asked for the account's salt.
    SaltRequested,
    /// The secret's answer went to the plugin that asked for it.
    Answered(Plugin),
    /// Not to be gone through with: ended by empty answers.
    Declined(AuthError),
}

impl ClientAuth {
    /// An exchange over `channel`. `allow_public_key_retrieval`: whether a password may be encrypted with a
    /// public key that came over an unverified plain connection.
    pub fn new(secret: Secret, channel: Channel, allow_public_key_retrieval: bool) -> Self {
        Self {
            secret,
            channel,
            allow_public_key_retrieval,
            nonce: Bytes::new(),
            stage: Stage::Unproven,
            packets: 0,
        }
    }

    /// The plugin name and auth response that go into the login.
    pub fn first_response(
        &mut self,
        greeting: &Greeting,
        demand: ProofDemand,
    ) -> (&'static str, Zeroizing<Vec<u8>>) {
        self.nonce = nonce_of(&greeting.nonce, NONCE_LEN);
        if !greeting.capabilities.contains(Capabilities::PLUGIN_AUTH) {
            // There is the native one only, and no switch.
            self.stage = Stage::Answered(Plugin::MysqlNative);
            return (Plugin::MysqlNative.name(), self.native_scramble());
        }
        match Plugin::from_name(&greeting.auth_plugin) {
            // Says itself whether it looked at the scramble, except at an empty one.
            Some(Plugin::CachingSha2)
                if demand == ProofDemand::NotNeeded || !self.secret.is_empty() =>
            {
                self.stage = Stage::CachingSha2Scrambled { confirmed: false };
                (Plugin::CachingSha2.name(), self.sha2_scramble())
            }
            Some(Plugin::MysqlNative) if demand == ProofDemand::NotNeeded => {
                (Plugin::MysqlNative.name(), self.native_scramble())
            }
            _ => (NO_PLUGIN, Zeroizing::default()),
        }
    }

    /// Takes the payload of the server's next packet.
    ///
    /// # Errors
    /// [`AuthError`]; the exchange is then over.
    pub fn on_packet(&mut self, payload: &[u8]) -> Result<Step, AuthError> {
        self.packets += 1;
        if self.packets > MAX_PACKETS {
            return Err(AuthError::Protocol("the exchange does not end"));
        }
        match (payload.first(), &self.stage) {
            (Some(0x00 | 0xff), Stage::Declined(error)) => Err(error.clone()),
            (Some(0x00), _) => Ok(Step::Done(self.proof())),
            (Some(0xff), _) => Err(match ServerError::parse(payload) {
                Ok(error) => AuthError::Refused(error),
                Err(_) => AuthError::Protocol("malformed ERR"),
            }),
            (_, Stage::Declined(_)) => Ok(Step::Send(Zeroizing::default())),
            (Some(&AuthSwitch::HEADER), _) => self.on_switch(payload),
            // A second factor; the capability was not asked for.
            (Some(0x02), _) => Ok(self.decline(AuthError::Protocol("a second factor"))),
            (Some(0x01), _) => self.on_data(&payload[1..]),
            // The first versions of parsec sent the salt without the 0x01 in front.
            (Some(_), Stage::SaltRequested) => self.on_data(payload),
            // A plugin's own dialogue, which begins without a switch only if the greeting's plugin has one.
            (Some(_), _) => Ok(self.decline(AuthError::Protocol("neither OK, ERR nor a switch"))),
            (None, _) => Err(AuthError::Protocol("an empty packet")),
        }
    }

    fn proof(&self) -> Proof {
        match self.stage {
            Stage::Answered(plugin) => Proof::SecretUsed(plugin),
            // An empty scramble is accepted without a word; what counts is that this plugin asked for it.
            Stage::CachingSha2Scrambled { confirmed: true } if self.secret.is_empty() => {
                Proof::SecretUsed(Plugin::CachingSha2)
            }
            _ => Proof::NotProof,
        }
    }

    /// The server names the account's plugin. MariaDB may do so again, for the account's next plugin, after one
    /// that refused.
    fn on_switch(&mut self, payload: &[u8]) -> Result<Step, AuthError> {
        let Some(switch) = AuthSwitch::parse(payload) else {
            let name = "mysql_old_password".to_owned();
            return Ok(self.decline(AuthError::PluginNotSupported(name)));
        };
        let Some(plugin) = Plugin::from_name(&switch.plugin) else {
            let name = String::from_utf8_lossy(&switch.plugin).into_owned();
            return Ok(self.decline(AuthError::PluginNotSupported(name)));
        };
        self.nonce = switch.data;
        self.answer(plugin)
    }

    fn answer(&mut self, plugin: Plugin) -> Result<Step, AuthError> {
        let (answer, stage) = match plugin {
            Plugin::MysqlNative => {
                self.nonce = nonce_of(&self.nonce, NONCE_LEN);
                (self.native_scramble(), Stage::Answered(plugin))
            }
            Plugin::CachingSha2 => {
                self.nonce = nonce_of(&self.nonce, NONCE_LEN);
                let stage = Stage::CachingSha2Scrambled { confirmed: true };
                (self.sha2_scramble_after_switch(), stage)
            }
            Plugin::Sha256 => {
                self.nonce = nonce_of(&self.nonce, NONCE_LEN);
                return Ok(self.give_password(plugin, 0x01));
            }
            Plugin::Ed25519 => {
                // Its nonce is binary: a NUL at the end is part of it.
                let nonce = self.nonce.get(..32);
                let nonce = nonce.ok_or(AuthError::Protocol("ed25519 nonce too short"))?;
                let signature = create_response_for_ed25519(self.secret.expose(), nonce);
                (Zeroizing::new(signature.to_vec()), Stage::Answered(plugin))
            }
            Plugin::Parsec => (Zeroizing::default(), Stage::SaltRequested),
            Plugin::Clear if self.channel == Channel::TlsVerified => {
                (self.secret.nul_terminated(), Stage::Answered(plugin))
            }
            Plugin::Clear => return Ok(self.decline(AuthError::ClearPasswordNotAllowed)),
        };
        self.stage = stage;
        Ok(Step::Send(answer))
    }

    /// A plugin's further data, without the 0x01 in front.
    fn on_data(&mut self, data: &[u8]) -> Result<Step, AuthError> {
        match (&self.stage, data) {
            (Stage::CachingSha2Scrambled { .. }, [3]) => {
                self.stage = Stage::Answered(Plugin::CachingSha2);
                Ok(Step::Wait)
            }
            (Stage::CachingSha2Scrambled { .. }, [4]) => {
                Ok(self.give_password(Plugin::CachingSha2, 0x02))
            }
            (&Stage::KeyRequested(plugin), pem) => {
                let password = self.encrypted_password(pem)?;
                self.stage = Stage::Answered(plugin);
                Ok(Step::Send(password))
            }
            (Stage::SaltRequested, salt) => {
                let answer = self.parsec_answer(salt)?;
                self.stage = Stage::Answered(Plugin::Parsec);
                Ok(Step::Send(answer))
            }
            _ => Ok(self.decline(AuthError::Protocol("data that no plugin awaits"))),
        }
    }

    /// Sends the password itself, or asks by `key_request` for the key to encrypt it with.
    fn give_password(&mut self, plugin: Plugin, key_request: u8) -> Step {
        let in_clear = match self.channel {
            // An empty password is no secret, and is sent as such.
            Channel::Plain => self.secret.is_empty(),
            Channel::UnixSocket => plugin == Plugin::CachingSha2 || self.secret.is_empty(),
            Channel::TlsUnverified | Channel::TlsVerified => true,
        };
        if in_clear {
            self.stage = Stage::Answered(plugin);
            Step::Send(self.secret.nul_terminated())
        } else if self.allow_public_key_retrieval || self.channel == Channel::UnixSocket {
            self.stage = Stage::KeyRequested(plugin);
            Step::Send(Zeroizing::new(vec![key_request]))
        } else {
            self.decline(AuthError::PublicKeyRetrievalNotAllowed);
            // Measured on MySQL 9.7: caching_sha2_password counts an empty packet here as a broken handshake, one byte
            // as a refused login. sha256_password takes either.
            Step::Send(Zeroizing::new(vec![0]))
        }
    }

    fn decline(&mut self, error: AuthError) -> Step {
        self.stage = Stage::Declined(error);
        Step::Send(Zeroizing::default())
    }

    /// Empty for an empty secret, as every plugin here expects.
    fn native_scramble(&self) -> Zeroizing<Vec<u8>> {
        let scramble = scramble_native(&self.nonce, self.secret.expose());
        Zeroizing::new(scramble.map(Vec::from).unwrap_or_default())
    }

    fn sha2_scramble(&self) -> Zeroizing<Vec<u8>> {
        let scramble = scramble_sha256(&self.nonce, self.secret.expose());
        Zeroizing::new(scramble.map(Vec::from).unwrap_or_default())
    }

    /// After a switch an empty password is a single NUL, as MySQL's own client sends it.
    fn sha2_scramble_after_switch(&self) -> Zeroizing<Vec<u8>> {
        if self.secret.is_empty() {
            self.secret.nul_terminated()
        } else {
            self.sha2_scramble()
        }
    }

    fn encrypted_password(&self, pem: &[u8]) -> Result<Zeroizing<Vec<u8>>, AuthError> {
        let malformed = AuthError::Protocol("malformed public key");
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .ok()
            .and_then(|der| PublicEncryptingKey::from_der(&der).ok())
            .and_then(|key| OaepPublicEncryptingKey::new(key).ok())
            .ok_or(malformed)?;
        let mut password = self.secret.nul_terminated();
        xor_with_nonce(&mut password, &self.nonce);
        let mut out = vec![0; key.ciphertext_size()];
        let sealed = key
            .encrypt(&OAEP_SHA1_MGF1SHA1, &password, &mut out, None)
            .map_err(|_| AuthError::Protocol("password too long for the server's public key"))?
            .to_vec();
        Ok(Zeroizing::new(sealed))
    }

    fn parsec_answer(&self, salt: &[u8]) -> Result<Zeroizing<Vec<u8>>, AuthError> {
        let (iterations, salt) =
            parse_parsec_salt(salt).ok_or(AuthError::Protocol("malformed parsec salt"))?;
        if iterations > MAX_PARSEC_ITERATIONS {
            return Err(AuthError::Protocol("parsec asks for too many iterations"));
        }
        let nonce = self.nonce.first_chunk::<32>();
        let nonce = nonce.ok_or(AuthError::Protocol("parsec nonce too short"))?;
        let answer = create_response_for_parsec(self.secret.expose(), nonce, iterations, salt);
        Ok(Zeroizing::new(answer.to_vec()))
    }
}

/// The nonce proper, without the NUL that closes it on the wire.
fn nonce_of(data: &Bytes, len: usize) -> Bytes {
    data.slice(..data.len().min(len))
}

#[cfg(test)]
mod tests;
