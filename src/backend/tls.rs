//! TLS toward the backend: modes, trust, and the handshake as a client.
//!
//! rustls with aws-lc-rs, given explicitly: no process-wide default provider is needed or set. TLS 1.2 and 1.3.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_rustls::{TlsConnector, TlsStream};

use super::dial::Address;
use crate::transport::{Socket, Stream};

/// `backend.tls.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Never TLS.
    Off,
    /// TLS if the server offers it, unchecked; on a Unix socket none. A handshake that fails is an error, not a
    /// reason to go on in clear.
    Preferred,
    /// TLS, unchecked.
    Required,
    /// TLS with a certificate that leads to the CA, whatever its name.
    VerifyCa,
    /// TLS with a certificate that leads to the CA and names the host.
    VerifyIdentity,
}

/// How backend connections use TLS. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BackendTls {
    mode: TlsMode,
    config: Option<Arc<ClientConfig>>,
}

/// Why the TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The CA file is not there, not readable, or not PEM.
    #[error("backend.tls.ca: cannot read {path}: {reason}", path = path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing to verify against.
    #[error("backend.tls.mode needs a CA: none in {0}")]
    NoCa(String),
    /// The library refused the settings.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] Error),
}

impl BackendTls {
    /// Settings from `backend.tls`: `ca` is a PEM file; without one the system's roots are trusted. It is
    /// read only in the modes that verify.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub fn new(mode: TlsMode, ca: Option<&Path>) -> Result<Self, TlsSetupError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let config = match mode {
            TlsMode::Off => None,
            TlsMode::Preferred | TlsMode::Required => Some(
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
                    .with_no_client_auth(),
            ),
            TlsMode::VerifyCa => Some(
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(ChainOnly::new(ca, provider)?))
                    .with_no_client_auth(),
            ),
            TlsMode::VerifyIdentity => {
                let roots = root_store(&load_ca(ca)?, ca)?;
                Some(builder.with_root_certificates(roots).with_no_client_auth())
            }
        };
        Ok(Self {
            mode,
            config: config.map(Arc::new),
        })
    }

    /// No TLS.
    pub const fn off() -> Self {
        Self {
            mode: TlsMode::Off,
            config: None,
        }
    }

    /// The mode.
    pub const fn mode(&self) -> TlsMode {
        self.mode
    }

    /// Whether a handshake that succeeded says who the server is.
    pub const fn verifies(&self) -> bool {
        matches!(self.mode, TlsMode::VerifyCa | TlsMode::VerifyIdentity)
    }

    /// Speaks TLS on a connected socket. `address` gives the name to ask for and, in `verify_identity`, to
    /// find in the certificate; a Unix socket has none and is asked for as `localhost`.
    ///
    /// # Errors
    /// The handshake's. The server has then seen a handshake that broke off.
    pub(crate) async fn connect(
        &self,
        socket: Socket,
        address: &Address,
    ) -> std::io::Result<Stream> {
        let Some(config) = &self.config else {
            return Ok(Stream::Plain(socket));
        };
        let host = match address {
            Address::Tcp { host, .. } => host.as_str(),
            Address::Unix(_) => "localhost",
        };
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(config));
        let tls = connector.connect(name, socket).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(tls))))
    }
}

fn load_ca(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let Some(path) = file else {
        // What could not be read is left out: roots are many, and none at all is told below.
        return Ok(rustls_native_certs::load_native_certs().certs);
    };
    let unreadable = |error: tokio_rustls::rustls::pki_types::pem::Error| TlsSetupError::CaFile {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .map(|certificate| certificate.map_err(unreadable))
        .collect()
}

fn root_store(
    ca: &[CertificateDer<'static>],
    file: Option<&Path>,
) -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    if file.is_some() {
        for certificate in ca {
            roots.add(certificate.clone())?;
        }
    } else {
        // The system's own may hold some that rustls does not read.
        roots.add_parsable_certificates(ca.iter().cloned());
    }
    if roots.is_empty() {
        let place = file.map_or("the system's roots".to_owned(), |f| f.display().to_string());
        return Err(TlsSetupError::NoCa(place));
    }
    Ok(roots)
}

/// Takes any certificate: `preferred` and `required` keep listeners out, not impostors.
///
/// Signatures are not checked either: with a key that nobody vouches for that shows nothing, and the check
/// would refuse X.509 version 1, which `openssl x509 -req` makes and MariaDB's own instructions use.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes a certificate that leads to the CA, or is itself the one given as CA, whatever it is named.
#[derive(Debug)]
struct ChainOnly {
    roots: RootCertStore,
    /// Trusted as they are: a self-signed server certificate given as its own CA is no CA to webpki.
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ChainOnly {
    fn new(file: Option<&Path>, provider: Arc<CryptoProvider>) -> Result<Self, TlsSetupError> {
        let ca = load_ca(file)?;
        Ok(Self {
            roots: root_store(&ca, file)?,
            pinned: if file.is_some() { ca } else { Vec::new() },
            provider,
        })
    }
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.pinned.contains(end_entity) {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                &self.roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;
