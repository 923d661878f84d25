//! TLS toward clients: the certificate, from files or made at start, and its replacement while running.
//!
//! Owns the key material of one listener. A reload changes what the next handshake gets; connections that
//! stand keep what they have. TLS 1.2 and 1.3 by rustls, which has no older version.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, DnType, KeyPair};
use tokio_rustls::rustls::crypto::aws_lc_rs as provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ServerConfig, version};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::config::{ClientTlsMode, ListenerTls};
use crate::transport::{Socket, Stream};

/// One listener's TLS.
pub struct ServerTls {
    demand: TlsDemand,
    current: ArcSwap<Material>,
}

/// Whether a client may do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsDemand {
    /// The client decides.
    Optional,
    /// A TCP client without TLS is refused; a Unix socket counts as secure, as it does for servers.
    Required,
}

/// A certificate with its key, ready to be used.
pub struct Material {
    acceptor: TlsAcceptor,
    certificate_sha256: [u8; 32],
    origin: Origin,
}

/// Where a certificate is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Made at start, vouched for by nobody.
    SelfSigned,
    /// Read from `tls.certificate`.
    Files,
}

/// Why TLS could not be set up. One clear line each, naming the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is missing, unreadable or not PEM.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// Certificate or private key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A PEM file that holds something else.
    #[error("{what} {}: the file has none in it", path.display())]
    Empty {
        /// Certificate or private key.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The two do not belong together, or are of a kind that is not supported (X.509 version 1).
    #[error("certificate {} with private key {}: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// Only one of the two settings.
    #[error("tls.certificate and tls.private_key must be set together")]
    HalfSet,
    /// Making the self-signed certificate failed.
    #[error("making a self-signed certificate: {0}")]
    SelfSigned(String),
}

impl ServerTls {
    /// Sets TLS up as `settings` say; `None` for `mode = "off"`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(settings: &ListenerTls) -> Result<Option<Self>, TlsError> {
        let demand = match settings.mode {
            ClientTlsMode::Off => return Ok(None),
            ClientTlsMode::Optional => TlsDemand::Optional,
            ClientTlsMode::Required => TlsDemand::Required,
        };
        let material = match files(settings)? {
            Some((certificate, key)) => Material::load(certificate, key)?,
            None => Material::self_signed()?,
        };
        Ok(Some(Self {
            demand,
            current: ArcSwap::from_pointee(material),
        }))
    }

    /// Reads the files again. A self-signed certificate is kept: clients may have pinned it.
    ///
    /// # Errors
    /// [`TlsError`]; the old certificate stays in use then.
    pub fn reload(&self, settings: &ListenerTls) -> Result<(), TlsError> {
        if let Some((certificate, key)) = files(settings)? {
            self.current
                .store(Arc::new(Material::load(certificate, key)?));
        }
        Ok(())
    }

    /// Whether clients may do without.
    pub const fn demand(&self) -> TlsDemand {
        self.demand
    }

    /// What the next handshake uses.
    pub fn current(&self) -> Arc<Material> {
        self.current.load_full()
    }
}

impl Material {
    /// Speaks TLS on `socket`. Not cancel-safe: the socket is lost with the future.
    ///
    /// # Errors
    /// Whatever ended the handshake: the client's alert, no version or cipher in common, plain bytes.
    pub async fn accept(&self, socket: Socket) -> io::Result<Stream> {
        let tls = self.acceptor.accept(socket).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Server(tls))))
    }

    /// SHA-256 of the certificate's DER: what clients call its fingerprint.
    pub const fn certificate_sha256(&self) -> &[u8; 32] {
        &self.certificate_sha256
    }

    /// Where the certificate is from.
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|source| file_error("certificate", certificate, source))?;
        if chain.is_empty() {
            return Err(file_error(
                "certificate",
                certificate,
                pem::Error::NoItemsFound,
            ));
        }
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|source| file_error("private key", key, source))?;
        Self::new(chain, private, Origin::Files).map_err(|source| TlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })
    }

    fn self_signed() -> Result<Self, TlsError> {
        let failed = |error: rcgen::Error| TlsError::SelfSigned(error.to_string());
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "Sidepool self-signed");
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Self::new(vec![certificate.into()], private, Origin::SelfSigned)
            .map_err(|error| TlsError::SelfSigned(error.to_string()))
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        origin: Origin,
    ) -> Result<Self, rustls::Error> {
        let mut certificate_sha256 = [0; 32];
        if let Some(leaf) = chain.first() {
            certificate_sha256.copy_from_slice(digest(&SHA256, leaf).as_ref());
        }
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
                .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
        // Resumption without a table of sessions: short-lived clients save most of the handshake.
        config.ticketer = provider::Ticketer::new()?;
        Ok(Self {
            acceptor: Arc::new(config).into(),
            certificate_sha256,
            origin,
        })
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls")
            .field("demand", &self.demand)
            .field("origin", &self.current.load().origin)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

fn files(settings: &ListenerTls) -> Result<Option<(&Path, &Path)>, TlsError> {
    match (&settings.certificate, &settings.private_key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        _ => Err(TlsError::HalfSet),
    }
}

fn file_error(what: &'static str, path: &Path, source: pem::Error) -> TlsError {
    let path = path.to_owned();
    match source {
        pem::Error::NoItemsFound => TlsError::Empty { what, path },
        source => TlsError::File { what, path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        dir: tempfile::TempDir,
        settings: ListenerTls,
    }

    fn write_pair(dir: &Path, name: &str) -> (PathBuf, PathBuf, [u8; 32]) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let sha256 = digest(&SHA256, made.cert.der());
        (certificate, key, sha256.as_ref().try_into().unwrap())
    }

    fn files() -> (Files, [u8; 32]) {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key, sha256) = write_pair(dir.path(), "one");
        let settings = ListenerTls {
            mode: ClientTlsMode::Required,
            certificate: Some(certificate),
            private_key: Some(key),
        };
        (Files { dir, settings }, sha256)
    }

    #[test]
    fn off_is_none_and_no_files_is_self_signed() {
        let mut settings = ListenerTls {
            mode: ClientTlsMode::Off,
            ..ListenerTls::default()
        };
        assert!(ServerTls::new(&settings).unwrap().is_none());
        settings.mode = ClientTlsMode::Optional;
        let tls = ServerTls::new(&settings).unwrap().unwrap();
        assert_eq!(tls.demand(), TlsDemand::Optional);
        assert_eq!(tls.current().origin(), Origin::SelfSigned);
        let before = *tls.current().certificate_sha256();
        tls.reload(&settings).unwrap();
        assert_eq!(*tls.current().certificate_sha256(), before);
    }

    #[test]
    fn a_reload_takes_the_new_files_and_a_bad_one_keeps_the_old() {
        let (files, first) = files();
        let tls = ServerTls::new(&files.settings).unwrap().unwrap();
        assert_eq!(tls.demand(), TlsDemand::Required);
        assert_eq!(*tls.current().certificate_sha256(), first);
        let (.., second) = write_pair(files.dir.path(), "two");
        tls.reload(&files.settings).unwrap();
        assert_eq!(*tls.current().certificate_sha256(), second);
        std::fs::write(files.dir.path().join("key.pem"), "").unwrap();
        tls.reload(&files.settings).unwrap_err();
        assert_eq!(*tls.current().certificate_sha256(), second);
    }

    #[test]
    fn errors_name_the_file() {
        let (mut files, _) = files();
        let dir = files.dir.path().to_owned();
        let shown = |settings: &ListenerTls| ServerTls::new(settings).unwrap_err().to_string();
        let other = tempfile::tempdir().unwrap();
        let (_, other_key, _) = write_pair(other.path(), "other");
        let key = files.settings.private_key.replace(other_key);
        let text = shown(&files.settings);
        assert!(text.contains("cert.pem with private key"), "{text}");
        files.settings.private_key = files.settings.certificate.clone();
        let expected = format!(
            "private key {}/cert.pem: the file has none in it",
            dir.display()
        );
        assert_eq!(shown(&files.settings), expected);
        files.settings.private_key = None;
        let expected = "tls.certificate and tls.private_key must be set together";
        assert_eq!(shown(&files.settings), expected);
        files.settings.private_key = key;
        std::fs::remove_file(dir.join("cert.pem")).unwrap();
        let text = shown(&files.settings);
        let start = format!("certificate {}/cert.pem: ", dir.display());
        assert!(text.starts_with(&start), "{text}");
    }
}
