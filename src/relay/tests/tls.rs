//! The relay between a client under TLS and a backend in clear: the same bytes, and waiting works.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::sockets::{classic_result_set, request, result_set};
use crate::protocol::response::Framing;
use crate::relay::{Conn, RelayError, TrackerFilter, relay};
use crate::transport::{Socket, Stream};

/// Both ends of a TLS connection: Sidepool's and the application's.
async fn tls_pair() -> (Stream, TlsStream<Socket>) {
    let certified = rcgen::generate_simple_self_signed(["sidepool".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = UnixStream::pair().unwrap();
    let name = ServerName::try_from("sidepool").unwrap();
    let (near, far) = tokio::join!(
        TlsAcceptor::from(Arc::new(server)).accept(Socket::Unix(near)),
        TlsConnector::from(Arc::new(client)).connect(name, Socket::Unix(far)),
    );
    (
        Stream::Tls(Box::new(near.unwrap().into())),
        far.unwrap().into(),
    )
}

#[tokio::test]
async fn answers_small_and_large_reach_a_client_under_tls() {
    let (near, mut application) = tls_pair().await;
    let (backend, mut server) = UnixStream::pair().unwrap();
    let (mut near, mut backend) = (Conn::new(near), Conn::new(Stream::from(backend)));
    let filter = TrackerFilter::default();
    for rows in [0, 1, 20_000] {
        let sent = result_set(&[b'x'; 300], rows);
        let flags = if rows < 2 { 0x22 } else { 0x02 };
        let expected = classic_result_set(&[b'x'; 300], rows, flags);
        let mut got = vec![0; expected.len()];
        let (answer, written, read) = tokio::join!(
            relay(&mut near, &mut backend, request(&filter, Framing::CLASSIC)),
            server.write_all(&sent),
            application.read_exact(&mut got),
        );
        written.unwrap();
        read.unwrap();
        assert_eq!(answer.unwrap().rows, rows as u64);
        assert!(got == expected[..], "{rows} rows");
    }
}

#[tokio::test]
async fn a_client_that_leaves_under_tls_is_noticed() {
    let (near, mut application) = tls_pair().await;
    let (backend, _server) = UnixStream::pair().unwrap();
    let (mut near, mut backend) = (Conn::new(near), Conn::new(Stream::from(backend)));
    application.write_all(b"ahead").await.unwrap();
    application.shutdown().await.unwrap();
    drop(application);
    let filter = TrackerFilter::default();
    let left = relay(&mut near, &mut backend, request(&filter, Framing::CLASSIC)).await;
    assert!(matches!(left, Err(RelayError::ClientGone(_))), "{left:?}");
    assert_eq!(&near.input[..], b"ahead");
}
