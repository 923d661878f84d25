use super::*;
use std::io::Write;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// X.509 version 1, as `openssl x509 -req` makes it; valid for a century.
const V1_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBFjCBvQIUY9EzcEPGMUZO9CbC2XyURg1VskIwCgYIKoZIzj0EAwIwDTELMAkG\n\
    A1UEAwwCdjEwIBcNMjYxMTIzMDkyMTIyWhgPMjEyNjEwMzAwOTIxMjJaMA0xCzAJ\n\
    BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEVmvs+fiNlyakZnD+\n\
    QjZOPNc4uN/07dVL5X3HcYJXoaQr7T27nyIGevB9yOBC04EAgUB58xDpfGa6gu4y\n\
    68ohuzAKBggqhkjOPQQDAgNIADBFAiBR6rmc8lsIbM6zpXfMJiNQH6oh3yUF8gLw\n\
    GkcmEiqTIgIhAItdSTrLfbQXpnQA2P0FqO9bFaaIEoHCI+cnqB7ahMh3\n\
    -----END CERTIFICATE-----";
const V1_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgGimKkgPPV/JXQl2L\n\
    J257eomBtqAb/8/y+8OGrc3Ec3qhRANCAARWa+z5+I2XJqRmcP5CNk481zi43/Tt\n\
    1UvlfcdxglehpCvtPbufIgZ68H3I4ELTgQCBQHnzEOl8ZrqC7jLryiG7\n\
    -----END PRIVATE KEY-----";

/// A certificate with its key, in PEM.
struct Server {
    chain: String,
    key: String,
}

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, names: &[&str]) -> Server {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Server {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    fn file(&self) -> NamedTempFile {
        pem_file(&self.0.pem())
    }
}

fn pem_file(pem: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(pem.as_bytes()).unwrap();
    file
}

fn self_signed(is_ca: IsCa) -> Server {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["db.test".to_owned()]).unwrap();
    params.is_ca = is_ca;
    Server {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// Connects to a TLS server with that certificate over loopback, as `db.test`, and has a byte answered.
async fn handshake(
    server: &Server,
    mode: TlsMode,
    ca: Option<&NamedTempFile>,
) -> std::io::Result<Stream> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(server.chain.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
    // Resolved by hand: `with_single_cert` would read the certificate, which version 1 does not survive.
    let signer = provider.key_provider.load_private_key(key).unwrap();
    let certified = tokio_rustls::rustls::sign::CertifiedKey::new(chain, signer);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(
            tokio_rustls::rustls::sign::SingleCertAndKey::from(certified),
        ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        if let Ok(mut tls) = acceptor.accept(socket).await {
            let _ = tls.write_all(b"!").await;
            let _ = tls.shutdown().await;
        }
    });
    let tls = BackendTls::new(mode, ca.map(NamedTempFile::path)).unwrap();
    let address = Address::Tcp {
        host: "db.test".to_owned(),
        port: target.port(),
    };
    let socket = Socket::Tcp(TcpStream::connect(target).await.unwrap());
    let connected = tls.connect(socket, &address).await;
    let connected = match connected {
        Ok(mut stream) => {
            assert!(stream.is_tls());
            assert_eq!(stream.read_u8().await.unwrap(), b'!');
            Ok(stream)
        }
        Err(error) => Err(error),
    };
    serving.await.unwrap();
    connected
}

async fn accepts(server: &Server, mode: TlsMode, ca: Option<&NamedTempFile>) -> bool {
    handshake(server, mode, ca).await.is_ok()
}

#[tokio::test]
async fn verify_identity_wants_the_chain_and_the_name() {
    let ca = Ca::new("ours");
    let (named, unnamed) = (ca.issue(&["db.test"]), ca.issue(&["other.test"]));
    let (file, stranger) = (ca.file(), Ca::new("theirs").file());
    assert!(accepts(&named, TlsMode::VerifyIdentity, Some(&file)).await);
    assert!(!accepts(&unnamed, TlsMode::VerifyIdentity, Some(&file)).await);
    assert!(!accepts(&named, TlsMode::VerifyIdentity, Some(&stranger)).await);
}

#[tokio::test]
async fn verify_ca_wants_the_chain_only() {
    let ca = Ca::new("ours");
    let unnamed = ca.issue(&["other.test"]);
    let (file, stranger) = (ca.file(), Ca::new("theirs").file());
    assert!(accepts(&unnamed, TlsMode::VerifyCa, Some(&file)).await);
    assert!(!accepts(&unnamed, TlsMode::VerifyCa, Some(&stranger)).await);
}

#[tokio::test]
async fn a_self_signed_certificate_can_be_its_own_ca() {
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let server = self_signed(is_ca);
        let own = pem_file(&server.chain);
        let other = pem_file(&self_signed(IsCa::NoCa).chain);
        assert!(accepts(&server, TlsMode::VerifyCa, Some(&own)).await);
        assert!(!accepts(&server, TlsMode::VerifyCa, Some(&other)).await);
    }
}

#[tokio::test]
async fn modes_that_do_not_verify_take_any_certificate() {
    let v1 = Server {
        chain: V1_CERTIFICATE.to_owned(),
        key: V1_KEY.to_owned(),
    };
    for mode in [TlsMode::Preferred, TlsMode::Required] {
        assert!(accepts(&self_signed(IsCa::NoCa), mode, None).await);
        assert!(accepts(&v1, mode, None).await);
    }
    // rustls does not read version 1, so it cannot be verified, not even as its own CA.
    let own = pem_file(V1_CERTIFICATE);
    assert!(!accepts(&v1, TlsMode::VerifyCa, Some(&own)).await);
}

#[test]
fn a_ca_that_cannot_be_used_is_told() {
    let missing = BackendTls::new(TlsMode::VerifyCa, Some(Path::new("/nonexistent/ca.pem")));
    let text = missing.unwrap_err().to_string();
    assert!(text.contains("/nonexistent/ca.pem"), "{text}");
    let empty = pem_file("");
    let nothing = BackendTls::new(TlsMode::VerifyIdentity, Some(empty.path()));
    assert!(matches!(nothing, Err(TlsSetupError::NoCa(_))));
    // Not read where nothing is verified.
    let unread = BackendTls::new(TlsMode::Preferred, Some(Path::new("/nonexistent/ca.pem")));
    assert_eq!(unread.unwrap().mode(), TlsMode::Preferred);
}
