//! Socket tests by bytes: what a client sees on its end of the wire.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use mysql_common::scramble::{scramble_native, scramble_sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::{self, pki_types::ServerName};

use super::*;
use crate::client::accounts::{Accounts, Proof, ProofFuture, ProofRequest, ProveError, Prover};
use crate::client::change_user::{ChangeRefused, Changing, Connection};
use crate::config::{AllowRule, AuthSettings, ClientTlsMode, ListenerTls};
use crate::protocol::auth::Secret;
use crate::protocol::auth::server::RsaKey;
use crate::protocol::handshake::SqlState;

static RSA: LazyLock<Arc<RsaKey>> = LazyLock::new(|| Arc::new(RsaKey::generate().unwrap()));

/// A database where the password is always "secret", unless it is down.
struct Database {
    down: bool,
}

impl Prover for Database {
    fn prove(&self, request: ProofRequest) -> ProofFuture {
        let right = request.secret.expose() == b"secret";
        let down = self.down;
        Box::pin(async move {
            let error = |code| ServerError {
                code,
                sqlstate: SqlState::HY000,
                message: "words of the database".into(),
            };
            match (down, right) {
                (true, _) => Err(ProveError::Unavailable(error(2003))),
                (false, true) => Ok(Proof::Lasting),
                (false, false) => Err(ProveError::Denied(error(1045))),
            }
        })
    }

    fn revoked(&self, _: &Arc<Account>, _: SecretId) {}
}

struct Setup {
    auth: AuthSettings,
    users: BTreeMap<String, Secret>,
    tls: ClientTlsMode,
    plugin: Plugin,
    proxy_protocol_from: Vec<IpNet>,
    down: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            auth: AuthSettings::default(),
            users: BTreeMap::new(),
            tls: ClientTlsMode::Off,
            plugin: Plugin::CachingSha2,
            proxy_protocol_from: Vec::new(),
            down: false,
        }
    }
}

impl Setup {
    fn door(&self) -> Arc<Door> {
        let prover = Arc::new(Database { down: self.down });
        let accounts = Accounts::new(self.auth.clone(), &self.users, prover);
        let tls = ListenerTls {
            mode: self.tls,
            ..ListenerTls::default()
        };
        Arc::new(Door {
            judge: Judge {
                accounts: Arc::new(accounts),
                rsa: Arc::clone(&RSA),
            },
            tls: ServerTls::new(&tls).unwrap().map(Arc::new),
            proxy_protocol_from: self.proxy_protocol_from.clone(),
        })
    }

    fn terms(&self) -> Terms {
        // What MySQL 9.7 greets with, and MariaDB's dialect where its plugin is.
        let bit_0 = match self.plugin {
            Plugin::MysqlNative => Capabilities::LONG_PASSWORD,
            _ => Capabilities::EMPTY,
        };
        Terms {
            greeting: GreetingFacts {
                server_version: Bytes::from_static(b"9.7.4"),
                backend_capabilities: Capabilities::from_wire(0xdfff_ffff, 0).without(bit_0),
                collation: 255,
                status: 2,
                auth_plugin: self.plugin,
            },
            connection_id: 0x8000_0001,
            handshake_timeout: Duration::from_secs(10),
        }
    }

    fn unix(&self) -> Client<UnixStream> {
        let (near, far) = UnixStream::pair().unwrap();
        self.serve(near.into(), Peer::Unix, far)
    }

    async fn tcp(&self) -> Client<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let far = TcpStream::connect(address).await.unwrap();
        let (near, peer) = listener.accept().await.unwrap();
        self.serve(near.into(), Peer::Tcp(peer), far)
    }

    fn serve<S>(&self, near: Stream, peer: Peer, stream: S) -> Client<S> {
        let (door, terms) = (self.door(), self.terms());
        let served = tokio::spawn(async move { door.admit(near, peer, &terms).await });
        Client { stream, served }
    }
}

/// The client's end, and what becomes of it at the other.
struct Client<S> {
    stream: S,
    served: JoinHandle<Result<Authenticated, Rejected>>,
}

async fn read_packet(stream: &mut (impl AsyncReadExt + Unpin)) -> (u8, Vec<u8>) {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.unwrap();
    let [a, b, c, seq] = header;
    let mut payload = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
    stream.read_exact(&mut payload).await.unwrap();
    (seq, payload)
}

async fn write_packet(stream: &mut (impl AsyncWriteExt + Unpin), seq: u8, payload: &[u8]) {
    let mut out = BytesMut::new();
    crate::protocol::packet::put_packet(&mut out, seq, payload);
    stream.write_all(&out).await.unwrap();
}

async fn greeting(stream: &mut (impl AsyncReadExt + Unpin)) -> Greeting {
    let (seq, payload) = read_packet(stream).await;
    assert_eq!(seq, 0);
    Greeting::parse(&payload).unwrap()
}

fn login(user: &str, plugin: &'static str, response: &[u8]) -> LoginRequest {
    let capabilities = Capabilities::PROTOCOL_41
        | Capabilities::SECURE_CONNECTION
        | Capabilities::PLUGIN_AUTH
        | Capabilities::PLUGIN_AUTH_LENENC
        | Capabilities::CONNECT_WITH_DB
        | Capabilities::CONNECT_ATTRS
        | Capabilities::SESSION_TRACK
        | Capabilities::LONG_PASSWORD
        // Not offered, so not granted.
        | Capabilities::COMPRESS;
    LoginRequest {
        capabilities,
        max_packet: 1 << 24,
        collation: 45,
        user: Bytes::copy_from_slice(user.as_bytes()),
        auth_response: Bytes::copy_from_slice(response),
        database: Some(Bytes::from_static(b"shop")),
        auth_plugin: Some(Bytes::from_static(plugin.as_bytes())),
        attributes: vec![("program_name".into(), "till".into())],
    }
}

fn encoded(login: &LoginRequest) -> BytesMut {
    let mut out = BytesMut::new();
    login.encode(&mut out);
    out
}

const SHA2: &str = "caching_sha2_password";
const NATIVE: &str = "mysql_native_password";

fn preloaded(plugin: Plugin) -> Setup {
    Setup {
        users: [("app".to_owned(), Secret::new(b"secret"))].into(),
        plugin,
        ..Setup::default()
    }
}

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> Client<S> {
    async fn rejected(self) -> Rejected {
        self.served.await.unwrap().unwrap_err()
    }

    /// Expects this error as the last thing, and the reason behind it.
    async fn expect_error(mut self, seq: u8, expected: &[u8], reason: RejectReason) {
        let (got, payload) = read_packet(&mut self.stream).await;
        assert_eq!((got, &payload[..]), (seq, expected));
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        drop(self.stream);
        assert_eq!(self.served.await.unwrap().unwrap_err().reason, reason);
    }
}

#[tokio::test]
async fn the_full_exchange_over_a_unix_socket_and_the_facts_it_leaves() {
    let mut client = Setup::default().unix();
    let hello = greeting(&mut client.stream).await;
    assert_eq!(hello.connection_id, 0x8000_0001);
    assert_eq!(hello.auth_plugin, SHA2);
    assert_eq!(hello.nonce.len(), 20);
    for absent in [
        Capabilities::SSL,
        Capabilities::COMPRESS,
        Capabilities::ZSTD_COMPRESSION,
    ] {
        assert!(!hello.capabilities.contains(absent));
    }
    write_packet(
        &mut client.stream,
        1,
        &encoded(&login("app", SHA2, &[7; 32])),
    )
    .await;
    assert_eq!(
        read_packet(&mut client.stream).await,
        (2, b"\x01\x04".to_vec())
    );
    write_packet(&mut client.stream, 3, b"secret\0").await;
    let authenticated = client.served.await.unwrap().unwrap();
    let facts = authenticated.facts().clone();
    assert_eq!(facts.account.user(), &b"app"[..]);
    assert_eq!(
        facts.account.login_secret().unwrap().secret.expose(),
        b"secret"
    );
    assert_eq!(facts.database.as_deref(), Some(&b"shop"[..]));
    assert_eq!((facts.collation, facts.max_packet), (45, 1 << 24));
    assert_eq!(facts.attributes, [("program_name".into(), "till".into())]);
    assert!(facts.capabilities.contains(Capabilities::SESSION_TRACK));
    assert!(!facts.capabilities.contains(Capabilities::COMPRESS));
    // A command sent ahead of the OK is the session's to read.
    client.stream.write_all(b"\x01\0\0\0\x0e").await.unwrap();
    let ok = LoginOk {
        status: 2,
        ..LoginOk::default()
    };
    let (mut stream, _) = authenticated.accept(&ok).await.unwrap();
    let expected = (4, b"\0\0\0\x02\0\0\0".to_vec());
    assert_eq!(read_packet(&mut client.stream).await, expected);
    assert_eq!(read_packet(&mut stream).await, (0, b"\x0e".to_vec()));
}

#[tokio::test]
async fn a_known_scramble_is_answered_in_one_write() {
    for (plugin, name) in [(Plugin::CachingSha2, SHA2), (Plugin::MysqlNative, NATIVE)] {
        let mut client = preloaded(plugin).tcp().await;
        let hello = greeting(&mut client.stream).await;
        assert_eq!(hello.auth_plugin, name);
        assert_eq!(
            hello.capabilities.is_mariadb(),
            plugin == Plugin::MysqlNative
        );
        let response = match plugin {
            Plugin::CachingSha2 => scramble_sha256(&hello.nonce, b"secret").unwrap().to_vec(),
            _ => scramble_native(&hello.nonce, b"secret").unwrap().to_vec(),
        };
        write_packet(
            &mut client.stream,
            1,
            &encoded(&login("app", name, &response)),
        )
        .await;
        let authenticated = client.served.await.unwrap().unwrap();
        let ok = LoginOk {
            status: 2,
            warnings: 0,
            session_state: Bytes::from_static(b"\x01\x05\x04shop"),
        };
        drop(authenticated.accept(&ok).await.unwrap());
        let mut seen = Vec::new();
        client.stream.read_to_end(&mut seen).await.unwrap();
        let expected: &[u8] = match plugin {
            Plugin::CachingSha2 => {
                b"\x02\0\0\x02\x01\x03\x10\0\0\x03\0\0\0\x02\x40\0\0\0\x07\x01\x05\x04shop"
            }
            _ => b"\x10\0\0\x02\0\0\0\x02\x40\0\0\0\x07\x01\x05\x04shop",
        };
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn wrong_passwords_and_refusals_of_the_caller() {
    let mut client = Setup::default().unix();
    greeting(&mut client.stream).await;
    write_packet(
        &mut client.stream,
        1,
        &encoded(&login("app", NATIVE, &[7; 20])),
    )
    .await;
    let (seq, switch) = read_packet(&mut client.stream).await;
    assert_eq!((seq, &switch[..22]), (2, &b"\xfecaching_sha2_password"[..]));
    write_packet(&mut client.stream, 3, &[7; 32]).await;
    assert_eq!(
        read_packet(&mut client.stream).await,
        (4, b"\x01\x04".to_vec())
    );
    write_packet(&mut client.stream, 5, b"wrong\0").await;
    let error = b"\xff\x15\x04#28000Access denied for user 'app'@'localhost' (using password: YES)";
    client
        .expect_error(6, error, RejectReason::AccessDenied)
        .await;

    let mut client = Setup::default().unix();
    greeting(&mut client.stream).await;
    write_packet(&mut client.stream, 1, &encoded(&login("app", SHA2, b""))).await;
    let error = b"\xff\x15\x04#28000Access denied for user 'app'@'localhost' (using password: NO)";
    client
        .expect_error(2, error, RejectReason::AccessDenied)
        .await;

    let mut client = preloaded(Plugin::CachingSha2).unix();
    let hello = greeting(&mut client.stream).await;
    let response = scramble_sha256(&hello.nonce, b"secret").unwrap();
    write_packet(
        &mut client.stream,
        1,
        &encoded(&login("app", SHA2, &response)),
    )
    .await;
    let authenticated = client.served.await.unwrap().unwrap();
    let unknown = error_1049();
    let refused = tokio::spawn(authenticated.refuse(RejectReason::AccessDenied, unknown));
    let (seq, payload) = read_packet(&mut client.stream).await;
    assert_eq!(
        (seq, &payload[..]),
        (2, &b"\xff\x19\x04#42000Unknown database 'shop'"[..])
    );
    drop(client.stream);
    assert_eq!(refused.await.unwrap().user.unwrap(), "app");
}

fn error_1049() -> ServerError {
    error(1049, b"42000", "Unknown database 'shop'")
}

#[tokio::test]
async fn an_unreachable_database_is_no_denial() {
    let setup = Setup {
        down: true,
        ..Setup::default()
    };
    let mut client = setup.unix();
    greeting(&mut client.stream).await;
    write_packet(
        &mut client.stream,
        1,
        &encoded(&login("app", SHA2, &[7; 32])),
    )
    .await;
    read_packet(&mut client.stream).await;
    write_packet(&mut client.stream, 3, b"secret\0").await;
    let error = b"\xff\xd3\x07#HY000words of the database";
    client
        .expect_error(4, error, RejectReason::BackendUnavailable)
        .await;
}

#[tokio::test]
async fn a_client_that_knows_native_only_and_is_not_known() {
    let mut client = Setup::default().unix();
    greeting(&mut client.stream).await;
    let mut login = login("app", NATIVE, &[7; 20]);
    login.capabilities = login.capabilities.without(Capabilities::PLUGIN_AUTH);
    write_packet(&mut client.stream, 1, &encoded(&login)).await;
    let error = b"\xff\xe3\x04#08004Client does not support authentication protocol requested by \
                  server; consider upgrading MySQL client";
    client
        .expect_error(2, error, RejectReason::AccessDenied)
        .await;
}

#[tokio::test]
async fn malformed_packets_are_answered_as_servers_do() {
    let out_of_order = &b"\xff\x84\x04#08S01Got packets out of order"[..];
    let bad_handshake = &b"\xff\x13\x04#08S01Bad handshake"[..];
    let too_large = &b"\xff\x81\x04#08S01Got a packet bigger than 'max_allowed_packet' bytes"[..];
    for (bytes, seq, error) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], 1, out_of_order),
        // A TLS ClientHello without asking first.
        (b"\x16\x03\x01\x02\x00\x01\x00", 1, out_of_order),
        (b"\x06\0\0\x01abcdef", 2, bad_handshake),
        // From before 4.1.
        (b"\x0a\0\0\x01\0\0\0\0\0root\0", 2, bad_handshake),
        (b"\xf0\xff\xff\x01zzzz", 2, too_large),
        // TLS, not offered.
        (
            b"\x20\0\0\x01\0\x8a\0\0\0\0\0\0\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            2,
            bad_handshake,
        ),
    ] {
        let mut client = Setup::default().unix();
        greeting(&mut client.stream).await;
        client.stream.write_all(bytes).await.unwrap();
        client
            .expect_error(seq, error, RejectReason::ProtocolError)
            .await;
    }
}

#[tokio::test]
async fn who_just_leaves_is_client_gone() {
    let client = Setup::default().unix();
    drop(client.stream);
    assert_eq!(
        client.served.await.unwrap().unwrap_err().reason,
        RejectReason::ClientGone
    );
    let mut client = Setup::default().unix();
    greeting(&mut client.stream).await;
    write_packet(
        &mut client.stream,
        1,
        &encoded(&login("app", SHA2, &[7; 32])),
    )
    .await;
    read_packet(&mut client.stream).await;
    drop(client.stream);
    let rejected = client.served.await.unwrap().unwrap_err();
    assert_eq!(rejected.reason, RejectReason::ClientGone);
    assert!(
        rejected.detail.contains("[[auth.user]]"),
        "{}",
        rejected.detail
    );
}

#[tokio::test(start_paused = true)]
async fn the_whole_handshake_has_one_deadline() {
    let timeout = b"\xff\x87\x04#08S01Got timeout reading communication packets";
    let start = Instant::now();
    let mut client = Setup::default().unix();
    greeting(&mut client.stream).await;
    client
        .expect_error(1, timeout, RejectReason::HandshakeTimeout)
        .await;
    assert_eq!(start.elapsed().as_secs(), 10);

    let start = Instant::now();
    let mut client = Setup::default().unix();
    greeting(&mut client.stream).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    write_packet(
        &mut client.stream,
        1,
        &encoded(&login("app", SHA2, &[7; 32])),
    )
    .await;
    read_packet(&mut client.stream).await;
    client.stream.write_all(b"\x07\0\0").await.unwrap();
    client
        .expect_error(3, timeout, RejectReason::HandshakeTimeout)
        .await;
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn rules_are_looked_at_before_the_password() {
    let mut setup = preloaded(Plugin::CachingSha2);
    setup.auth.allow = vec![AllowRule {
        user: "app".parse().unwrap(),
        source: None,
        require_tls: true,
    }];
    let mut client = setup.tcp().await;
    greeting(&mut client.stream).await;
    write_packet(
        &mut client.stream,
        1,
        &encoded(&login("app", SHA2, &[7; 32])),
    )
    .await;
    let error = b"\xff\x15\x04#28000Access denied for user 'app'@'localhost' (using password: YES)";
    client
        .expect_error(2, error, RejectReason::NotAllowed)
        .await;
    // A Unix socket is as good as TLS.
    let mut client = setup.unix();
    let hello = greeting(&mut client.stream).await;
    let response = scramble_sha256(&hello.nonce, b"secret").unwrap();
    write_packet(
        &mut client.stream,
        1,
        &encoded(&login("app", SHA2, &response)),
    )
    .await;
    client.served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_wrong_passwords_make_the_next_login_wait() {
    let setup = Setup::default();
    let (door, terms) = (setup.door(), setup.terms());
    let mut waits = Vec::new();
    for _ in 0..12 {
        let (near, far) = UnixStream::pair().unwrap();
        let (door, terms) = (Arc::clone(&door), terms.clone());
        let served = tokio::spawn(async move { door.admit(near.into(), Peer::Unix, &terms).await });
        let mut client = Client {
            stream: far,
            served,
        };
        greeting(&mut client.stream).await;
        let start = Instant::now();
        write_packet(&mut client.stream, 1, &encoded(&login("app", SHA2, b""))).await;
        read_packet(&mut client.stream).await;
        waits.push(start.elapsed().as_millis());
        drop(client.stream);
        let rejected = client.served.await.unwrap().unwrap_err();
        assert_eq!(rejected.reason, RejectReason::AccessDenied);
    }
    assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 250, 500]);
}

#[tokio::test]
async fn a_balancer_says_who_the_client_is() {
    let mut setup = preloaded(Plugin::CachingSha2);
    setup.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    let mut client = setup.tcp().await;
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 5555 3306\r\n";
    client.stream.write_all(header).await.unwrap();
    greeting(&mut client.stream).await;
    write_packet(&mut client.stream, 1, &encoded(&login("app", SHA2, b""))).await;
    let error = b"\xff\x15\x04#28000Access denied for user 'app'@'192.0.2.7' (using password: NO)";
    client
        .expect_error(2, error, RejectReason::AccessDenied)
        .await;

    let mut client = setup.tcp().await;
    client
        .stream
        .write_all(b"\x16\x03\x01\x02\x00")
        .await
        .unwrap();
    client.stream.write_all(&[0; 20]).await.unwrap();
    let mut seen = Vec::new();
    let _ = client.stream.read_to_end(&mut seen).await;
    assert!(seen.is_empty());
    assert_eq!(client.rejected().await.reason, RejectReason::ProxyProtocol);

    // From anybody else a header is garbage.
    let mut client = Setup::default().tcp().await;
    greeting(&mut client.stream).await;
    client.stream.write_all(header).await.unwrap();
    let error = b"\xff\x84\x04#08S01Got packets out of order";
    client
        .expect_error(1, error, RejectReason::ProtocolError)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_sends_no_header_is_told_apart() {
    // A Unix pair under a TCP peer's name: paused time does not wait for the loopback device.
    let setup = Setup {
        proxy_protocol_from: vec!["10.0.0.0/8".parse().unwrap()],
        ..Setup::default()
    };
    let (near, far) = UnixStream::pair().unwrap();
    let peer = Peer::Tcp("10.1.2.3:4".parse().unwrap());
    let client = setup.serve(near.into(), peer, far);
    let rejected = client.served.await.unwrap().unwrap_err();
    assert_eq!(rejected.reason, RejectReason::ProxyProtocol);
    assert!(
        rejected.detail.contains("no PROXY header"),
        "{}",
        rejected.detail
    );
}

fn tls_setup(mode: ClientTlsMode, plugin: Plugin) -> Setup {
    Setup {
        tls: mode,
        ..preloaded(plugin)
    }
}

/// A client's TLS that takes any certificate and keeps its fingerprint's source.
async fn connect_tls(stream: TcpStream) -> tokio_rustls::client::TlsStream<TcpStream> {
    #[derive(Debug)]
    struct Anything(rustls::crypto::CryptoProvider);
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};
    impl ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn tls_and_the_proof_for_mariadb_s_clients() {
    for proof_wanted in [true, false] {
        let setup = tls_setup(ClientTlsMode::Required, Plugin::MysqlNative);
        let mut client = setup.tcp().await;
        let hello = greeting(&mut client.stream).await;
        assert!(hello.capabilities.contains(Capabilities::SSL));
        let response = scramble_native(&hello.nonce, b"secret").unwrap();
        let mut login = login("app", NATIVE, &response);
        login.capabilities |= Capabilities::SSL;
        if proof_wanted {
            login.capabilities = login.capabilities.without(Capabilities::LONG_PASSWORD);
        }
        let mut request = BytesMut::new();
        login.tls_request().encode(&mut request);
        write_packet(&mut client.stream, 1, &request).await;
        let mut tls = connect_tls(client.stream).await;
        let fingerprint: [u8; 32] = {
            let certificates = tls.get_ref().1.peer_certificates().unwrap();
            let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificates[0]);
            sha256.as_ref().try_into().unwrap()
        };
        write_packet(&mut tls, 2, &encoded(&login)).await;
        let authenticated = client.served.await.unwrap().unwrap();
        let accepted = authenticated.accept(&LoginOk::default()).await.unwrap();
        assert!(accepted.0.is_tls());
        let (seq, ok) = read_packet(&mut tls).await;
        let mut expected = b"\0\0\0\0\0\0\0".to_vec();
        if proof_wanted {
            let nonce = hello.nonce[..].try_into().unwrap();
            let proof = tls_proof(&Secret::new(b"secret"), &nonce, &fingerprint);
            expected.push(65);
            expected.extend(proof);
        }
        assert_eq!((seq, ok), (3, expected));
    }
}

#[tokio::test]
async fn without_tls_where_it_is_required() {
    let setup = tls_setup(ClientTlsMode::Required, Plugin::CachingSha2);
    let mut client = setup.tcp().await;
    greeting(&mut client.stream).await;
    write_packet(
        &mut client.stream,
        1,
        &encoded(&login("app", SHA2, &[7; 32])),
    )
    .await;
    let error = b"\xff\x57\x0c#HY000Connections using insecure transport are prohibited while \
                  --require_secure_transport=ON.";
    client
        .expect_error(2, error, RejectReason::TlsRequired)
        .await;
}

#[tokio::test]
async fn nothing_sent_in_clear_counts_as_sent_under_tls() {
    let setup = tls_setup(ClientTlsMode::Optional, Plugin::CachingSha2);
    let mut client = setup.tcp().await;
    let hello = greeting(&mut client.stream).await;
    let response = scramble_sha256(&hello.nonce, b"secret").unwrap();
    let mut login = login("app", SHA2, &response);
    login.capabilities |= Capabilities::SSL;
    let mut bytes = BytesMut::new();
    let mut payload = BytesMut::new();
    login.tls_request().encode(&mut payload);
    crate::protocol::packet::put_packet(&mut bytes, 1, &payload);
    // A right login behind the request, in clear, in the same segment.
    crate::protocol::packet::put_packet(&mut bytes, 2, &encoded(&login));
    client.stream.write_all(&bytes).await.unwrap();
    assert_eq!(client.rejected().await.reason, RejectReason::TlsFailed);
}

/// A session of the preloaded account, as its loop would hold it.
struct Session {
    door: Arc<Door>,
    stream: Stream,
    far: UnixStream,
    facts: ClientFacts,
    scramble: [u8; 32],
}

async fn session() -> Session {
    let setup = preloaded(Plugin::CachingSha2);
    let (door, terms) = (setup.door(), setup.terms());
    let (near, mut far) = UnixStream::pair().unwrap();
    let served = {
        let door = Arc::clone(&door);
        tokio::spawn(async move { door.admit(near.into(), Peer::Unix, &terms).await })
    };
    let hello = greeting(&mut far).await;
    let scramble = scramble_sha256(&hello.nonce, b"secret").unwrap();
    write_packet(&mut far, 1, &encoded(&login("app", SHA2, &scramble))).await;
    let authenticated = served.await.unwrap().unwrap();
    let (stream, facts) = authenticated.accept(&LoginOk::default()).await.unwrap();
    read_packet(&mut far).await;
    read_packet(&mut far).await;
    Session {
        door,
        stream,
        far,
        facts,
        scramble,
    }
}

impl Session {
    async fn change(
        &mut self,
        early: &[u8],
        payload: &[u8],
    ) -> Result<Changing<'_>, ChangeRefused> {
        let judge = &self.door.judge;
        let limit = Duration::from_secs(10);
        judge
            .change_user(&mut self.stream, early.into(), payload, &self.facts, limit)
            .await
    }
}

/// `COM_CHANGE_USER` to `user` on database `other`, collation 224, no attributes.
fn change_to(user: &str, response: &[u8]) -> Vec<u8> {
    let len = u8::try_from(response.len()).unwrap();
    let (user, plugin) = (user.as_bytes(), SHA2.as_bytes());
    [
        &[0x11],
        user,
        &[0, len],
        response,
        b"other\0\xe0\x00",
        plugin,
        b"\0\0",
    ]
    .concat()
}

#[tokio::test]
async fn a_change_of_user_by_the_full_exchange_uses_what_was_read_ahead() {
    let mut session = session().await;
    session.far.write_all(b"cret\0").await.unwrap();
    let payload = change_to("new", &[7; 32]);
    let changing = session.change(b"\x07\0\0\x02se", &payload).await.unwrap();
    assert_eq!(changing.facts().account.user(), &b"new"[..]);
    let (facts, early) = changing.accept(&LoginOk::default()).await.unwrap();
    assert!(early.is_empty());
    assert_eq!(facts.database.as_deref(), Some(&b"other"[..]));
    assert_eq!(facts.collation, 224);
    assert_eq!(facts.attributes, [("program_name".into(), "till".into())]);
    let far = &mut session.far;
    assert_eq!(read_packet(far).await, (1, b"\x01\x04".to_vec()));
    assert_eq!(read_packet(far).await, (3, b"\0\0\0\0\0\0\0".to_vec()));
}

#[tokio::test]
async fn a_change_of_user_answers_to_the_nonce_of_the_greeting() {
    let mut session = session().await;
    let payload = change_to("app", &session.scramble.clone());
    let changing = session.change(b"NEXT", &payload).await.unwrap();
    let (facts, early) = changing.accept(&LoginOk::default()).await.unwrap();
    assert_eq!(&early[..], b"NEXT");
    assert_eq!(facts.account.id(), session.facts.account.id());
    let far = &mut session.far;
    assert_eq!(read_packet(far).await, (1, b"\x01\x03".to_vec()));
    assert_eq!(read_packet(far).await, (2, b"\0\0\0\0\0\0\0".to_vec()));
}

#[tokio::test]
async fn a_refused_change_of_user_says_what_is_left_of_the_connection() {
    let mut session = session().await;
    let refused = session
        .change(b"", &change_to("app", b""))
        .await
        .unwrap_err();
    assert_eq!(refused.rejected.reason, RejectReason::AccessDenied);
    assert_eq!(refused.connection, Connection::Whole);
    let (seq, payload) = read_packet(&mut session.far).await;
    assert_eq!((seq, &payload[..3]), (1, &b"\xff\x15\x04"[..]));

    let long = "x".repeat(513);
    let refused = session
        .change(b"", &change_to(&long, b""))
        .await
        .unwrap_err();
    assert_eq!(refused.rejected.reason, RejectReason::ProtocolError);
    assert_eq!(refused.connection, Connection::Broken);
    assert_eq!(refused.rejected.user.unwrap().len(), SHOWN_USER);
    let (seq, payload) = read_packet(&mut session.far).await;
    assert_eq!(
        (seq, &payload[..]),
        (1, &b"\xff\x13\x04#08S01Bad handshake"[..])
    );
}
