use super::*;
use crate::protocol::auth::Plugin;
use Side::{Client, Server};

use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Who sent a packet of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// Captured, MariaDB 10.11.19: an account `ed25519 OR mysql_native_password`, logged in by its second password.
const MARIADB_EITHER: &[(Side, &str)] = &[
    (
        Server,
        "640000000a352e352e352d31302e31312e31392d4d6172696144422d302b6465623132753100f90000005463\
        7440217e7e7b00feff080200ff81150000000000001d000000703e253b3b55787e31767e37006d7973716c5f\
        6e61746976655f70617373776f726400",
    ),
    (
        Client,
        "4900000106a2bf01000000402d000000000000000000000000000000000000000000000065646f726e617400\
        0073696465706f6f6c00160c70726f6772616d5f6e616d650873696465706f6f6c",
    ),
    (
        Server,
        "30000002fe636c69656e745f656432353531390001383a1286d6040a8af5ebceaa04ea8867c9be39fafb5430\
        5a47ddb60986d1b9",
    ),
    (
        Client,
        "40000003295db0e58391157fffd9e0132df6e8185206279f2007a4bff0dd9bdf9ff6a78bfdb246ed2031f894\
        3db6e57dfec3ffb096f5b90f562d4a4314c96533bf763908",
    ),
    (
        Server,
        "2c000004fe6d7973716c5f6e61746976655f70617373776f72640054637440217e7e7b703e253b3b55787e31\
        767e3700",
    ),
    (Client, "14000005b63149a94e69f973d5aac0188c380456ccbc4499"),
    (Server, "0700000600000002000000"),
];
/// Captured, MySQL 9.7.4: the fast path of caching_sha2_password. The last two packets came in one segment.
const MYSQL_FAST: &[(Side, &str)] = &[
    (
        Server,
        "4b0000000a392e372e342d3200762600005d7e1b03265a496500ffffff0200ffdf1500000000000000000000\
        1242596320296d44183d182c0063616368696e675f736861325f70617373776f726400",
    ),
    (
        Client,
        "7600000107a2bf01000000402d000000000000000000000000000000000000000000000077617574685f6300\
        207c8cb4f35a0884bee61d7bb7c96fe7ab9e1749da73e127d42959fde03a7ee17563616368696e675f736861\
        325f70617373776f726400160c70726f6772616d5f6e616d650873696465706f6f6c",
    ),
    (Server, "0200000201030700000300000002000000"),
];

const MARIADB_GREETING: &str = MARIADB_EITHER[0].1;
const MYSQL_GREETING: &str = MYSQL_FAST[0].1;
const OK: &[u8] = b"\0\0\0\x02\0\0\0";
const DENIED: &[u8] = b"\xff\x15\x04#28000Access denied for user 'u'@'h' (using password: YES)";
const NATIVE_SWITCH: &[u8] = b"\xfemysql_native_password\0abcdefghijklmnopqrst\0";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// MariaDB's, of a server that has no certificate.
fn greeting_without_tls() -> Vec<u8> {
    let mut greeting = Greeting::parse(&hex(MARIADB_GREETING)[HEADER_LEN..]).unwrap();
    greeting.capabilities = greeting.capabilities.without(Capabilities::SSL);
    let mut out = BytesMut::new();
    greeting.encode(&mut out);
    out.to_vec()
}

/// As the captures were made.
fn params(user: &'static str, password: &str) -> LoginParams {
    LoginParams {
        user: Bytes::from_static(user.as_bytes()),
        secret: Secret::new(password.as_bytes()),
        database: None,
        collation: 45,
        wanted: Capabilities::FOUND_ROWS | Capabilities::MULTI_STATEMENTS,
        attributes: vec![(Bytes::from("program_name"), Bytes::from("sidepool"))],
        tls: BackendTls::off(),
        timeout: Duration::from_secs(10),
        allow_public_key_retrieval: false,
        proof: ProofDemand::Required,
    }
}

async fn listen() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = "127.0.0.1".to_owned();
    (listener, Address::Tcp { host, port })
}

/// The server's end, packet by packet.
struct Peer(Stream);

impl Peer {
    async fn accept(listener: TcpListener) -> Self {
        Self(listener.accept().await.unwrap().0.into())
    }

    async fn put(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn put_payload(&mut self, seq: u8, payload: &[u8]) {
        let mut out = BytesMut::new();
        crate::protocol::packet::put_packet(&mut out, seq, payload);
        self.put(&out).await;
    }

    /// The next packet's sequence id and payload; `None` at the end of the stream.
    async fn get(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; HEADER_LEN];
        self.0.read_exact(&mut head).await.ok()?;
        let header = Header::peek(&head).unwrap();
        let mut payload = vec![0; header.len];
        self.0.read_exact(&mut payload).await.unwrap();
        Some((header.seq, payload))
    }

    async fn login(&mut self) -> (u8, LoginRequest) {
        let (seq, payload) = self.get().await.unwrap();
        (seq, LoginRequest::parse(&payload).unwrap())
    }

    /// `COM_QUIT`, then the end.
    async fn quit_comes(&mut self) -> bool {
        self.get().await == Some((0, vec![1])) && self.get().await.is_none()
    }
}

/// A server that speaks one script once, and insists on the client's part of it.
async fn scripted(script: &'static [(Side, &'static str)]) -> (Address, JoinHandle<Peer>) {
    let (listener, address) = listen().await;
    let serving = tokio::spawn(async move {
        let mut peer = Peer::accept(listener).await;
        for &(side, text) in script {
            let bytes = hex(text);
            if side == Server {
                peer.put(&bytes).await;
            } else {
                let mut got = vec![0; bytes.len()];
                peer.0.read_exact(&mut got).await.unwrap();
                assert_eq!(got, bytes);
            }
        }
        peer
    });
    (address, serving)
}

/// A server that runs `serve` on its one connection.
async fn served<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(Peer) -> F + Send + 'static,
) -> (Address, JoinHandle<()>) {
    let (listener, address) = listen().await;
    let serving = tokio::spawn(async move { serve(Peer::accept(listener).await).await });
    (address, serving)
}

#[tokio::test]
async fn mariadb_byte_for_byte() {
    let (address, serving) = scripted(MARIADB_EITHER).await;
    let logged_in = login(&address, &params("edornat", "nativepw"))
        .await
        .unwrap();
    assert_eq!(logged_in.proof, Proof::SecretUsed(Plugin::MysqlNative));
    assert_eq!((logged_in.status, &logged_in.ok[..]), (2, OK));
    assert_eq!(
        &logged_in.greeting.auth_plugin[..],
        b"mysql_native_password"
    );
    assert!(logged_in.capabilities.is_mariadb() && !logged_in.stream.is_tls());
    assert!(logged_in.read_buffer.is_empty());
    serving.await.unwrap();
}

#[tokio::test]
async fn mysql_byte_for_byte() {
    let (address, serving) = scripted(MYSQL_FAST).await;
    let logged_in = login(&address, &params("wauth_c", "p$ w-sécret"))
        .await
        .unwrap();
    assert_eq!(logged_in.proof, Proof::SecretUsed(Plugin::CachingSha2));
    let wanted = Capabilities::DEPRECATE_EOF | Capabilities::SESSION_TRACK;
    assert!(
        logged_in
            .capabilities
            .contains(wanted | Capabilities::FOUND_ROWS)
    );
    assert!(
        !logged_in
            .capabilities
            .contains(Capabilities::CONNECT_WITH_DB)
    );
    assert!(logged_in.read_buffer.is_empty());
    serving.await.unwrap();
}

#[tokio::test]
async fn a_database_and_no_more_than_the_server_has_is_asked_for() {
    let (address, serving) = served(|mut peer| async move {
        peer.put(&hex(MARIADB_GREETING)).await;
        let (seq, request) = peer.login().await;
        assert_eq!((seq, request.database.as_deref()), (1, Some(&b"shop"[..])));
        assert!(
            !request
                .capabilities
                .contains(Capabilities::QUERY_ATTRIBUTES)
        );
        assert!(!request.capabilities.contains(Capabilities::INTERACTIVE));
        // As MariaDB answers a login with a database: status and schema tracker.
        peer.put_payload(2, b"\0\0\0\x02\x40\0\0\0\x06\x01\x04\x03app")
            .await;
    })
    .await;
    let mut params = params("u", "pw");
    params.database = Some(Bytes::from("shop"));
    params.wanted = Capabilities::from_bits(u64::MAX);
    params.proof = ProofDemand::NotNeeded;
    let logged_in = login(&address, &params).await.unwrap();
    assert_eq!(
        (logged_in.status, logged_in.proof),
        (0x4002, Proof::NotProof)
    );
    serving.await.unwrap();
}

#[tokio::test]
async fn a_login_that_proves_nothing_is_refused_and_ended() {
    let (address, serving) = served(|mut peer| async move {
        peer.put(&hex(MARIADB_GREETING)).await;
        peer.login().await;
        peer.put_payload(2, OK).await;
        assert!(peer.quit_comes().await);
    })
    .await;
    let error = login(&address, &params("root", "wrong")).await.unwrap_err();
    assert!(matches!(error, LoginError::NotProof), "{error}");
    serving.await.unwrap();
}

/// MariaDB over a Unix socket; the native plugin accepts, and `SHOW CREATE USER` is answered so.
async fn over_unix_socket(answer: Vec<&'static [u8]>) -> Result<LoggedIn, LoginError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let mut peer = Peer(listener.accept().await.unwrap().0.into());
        peer.put(&hex(MARIADB_GREETING)).await;
        peer.login().await;
        peer.put_payload(2, NATIVE_SWITCH).await;
        assert_eq!(peer.get().await.unwrap().0, 3);
        peer.put_payload(4, OK).await;
        assert_eq!(
            peer.get().await,
            Some((0, b"\x03SHOW CREATE USER".to_vec()))
        );
        for (seq, payload) in (1..).zip(answer) {
            peer.put_payload(seq, payload).await;
        }
        peer.get().await
    });
    let result = login(&Address::Unix(path), &params("u", "pw")).await;
    if let Err(LoginError::NotProof) = result {
        assert_eq!(serving.await.unwrap(), Some((0, vec![1])));
    }
    result
}

#[tokio::test]
async fn on_a_unix_socket_an_account_with_unix_socket_as_well_proves_nothing() {
    // As SHOW CREATE USER showed it on MariaDB 10.11.19, where a wrong password was followed by OK.
    let rows = |row| -> Vec<&'static [u8]> {
        let definition = b"\x03def\0\0\0\x0bCREATE USER\0\x0c\x2d\0\0\x10\0\0\xfd\x01\0\x27\0\0";
        vec![b"\x01", definition, row, b"\xfe\0\0\x02\0\0\0"]
    };
    let either = b"\x75CREATE USER `root`@`localhost` IDENTIFIED VIA mysql_native_password USING '*78D8E4AEC8940BC13034D1A9F9D1622A961DCEF2' OR unix_socket";
    let error = over_unix_socket(rows(either)).await.unwrap_err();
    assert!(matches!(error, LoginError::NotProof), "{error}");

    let alone = b"\x36CREATE USER `nat`@`%` IDENTIFIED BY PASSWORD '*78D8'";
    let alone = over_unix_socket(rows(alone)).await.unwrap();
    assert_eq!(alone.proof, Proof::SecretUsed(Plugin::MysqlNative));
    assert!(alone.read_buffer.is_empty());

    let expired = b"\xff\x1c\x07#HY000You must SET PASSWORD before executing this statement";
    let expired = over_unix_socket(vec![expired]).await.unwrap_err();
    assert_eq!(expired.denial(), Some(Denial::Account));
}

#[tokio::test]
async fn refusals_are_sorted() {
    for (packet, full, denial) in [
        (&b"\xff\x10\x04#08004Too many connections"[..], true, None),
        (b"\xff\xb3\x04#42000User u already has more", true, None),
        (b"\xff\xca\x04#42000User 'u' has exceeded", true, None),
        (DENIED, false, Some(Denial::Credentials)),
        (
            b"\xff\x14\x04#42000Access denied to database",
            false,
            Some(Denial::Database),
        ),
        (
            b"\xff\x19\x04#42000Unknown database",
            false,
            Some(Denial::Database),
        ),
        (
            b"\xff\x46\x07#HY000Your password has expired",
            false,
            Some(Denial::Account),
        ),
        (
            b"\xff\x73\x0f#HY000Account is blocked for 1 day(s)",
            false,
            Some(Denial::Blocked),
        ),
        (
            b"\xff\x1d\x04#08S01Server shutdown in progress",
            false,
            None,
        ),
    ] {
        let (address, serving) = served(move |mut peer| async move {
            peer.put(&hex(MYSQL_GREETING)).await;
            peer.login().await;
            peer.put_payload(2, packet).await;
        })
        .await;
        let error = login(&address, &params("u", "pw")).await.unwrap_err();
        assert_eq!((error.is_full(), error.denial()), (full, denial), "{error}");
        assert_eq!(error.is_access_denied(), denial.is_some());
        assert!(error.server_error().is_some());
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_full_says_so_instead_of_greeting() {
    for (packet, full) in [
        (&b"\xff\x10\x04Too many connections"[..], true),
        (b"\xff\x69\x04Host 'h' is blocked", false),
    ] {
        let (address, _serving) =
            served(move |mut peer| async move { peer.put_payload(0, packet).await }).await;
        let error = login(&address, &params("u", "pw")).await.unwrap_err();
        assert_eq!(
            (error.is_full(), error.is_access_denied()),
            (full, false),
            "{error}"
        );
    }
}

#[tokio::test]
async fn tls_that_is_demanded_and_not_offered_still_ends_the_handshake() {
    let (address, serving) = served(|mut peer| async move {
        peer.put_payload(0, &greeting_without_tls()).await;
        let (_, request) = peer.login().await;
        assert_eq!(&request.user[..], NOBODY);
        peer.put_payload(2, NATIVE_SWITCH).await;
        assert_eq!(peer.get().await, Some((3, vec![])));
        peer.put_payload(4, DENIED).await;
        assert!(peer.get().await.is_none());
    })
    .await;
    let mut params = params("u", "pw");
    params.tls = BackendTls::new(TlsMode::Required, None).unwrap();
    let error = login(&address, &params).await.unwrap_err();
    assert!(matches!(error, LoginError::TlsNotOffered(_)), "{error}");
    serving.await.unwrap();
}

#[tokio::test]
async fn preferred_goes_on_in_clear_only_where_tls_is_not_offered() {
    let (address, serving) = served(|mut peer| async move {
        peer.put_payload(0, &greeting_without_tls()).await;
        let (seq, request) = peer.login().await;
        assert_eq!(seq, 1);
        assert!(!request.capabilities.contains(Capabilities::SSL));
        peer.put_payload(2, NATIVE_SWITCH).await;
        peer.get().await;
        peer.put_payload(4, OK).await;
        peer.get().await;
    })
    .await;
    let mut params = params("u", "pw");
    params.tls = BackendTls::new(TlsMode::Preferred, None).unwrap();
    assert!(!login(&address, &params).await.unwrap().stream.is_tls());
    serving.await.unwrap();

    // Offered, asked for, and then no TLS: an error.
    let (address, serving) = served(|mut peer| async move {
        peer.put(&hex(MYSQL_GREETING)).await;
        let (seq, request) = peer.get().await.unwrap();
        assert_eq!((seq, request.len()), (1, 32));
        peer.put_payload(2, DENIED).await;
    })
    .await;
    let error = login(&address, &params).await.unwrap_err();
    assert!(matches!(error, LoginError::Tls { .. }), "{error}");
    serving.await.unwrap();
}

#[tokio::test]
async fn bytes_smuggled_in_front_of_tls_are_noticed() {
    let (address, _serving) = served(|mut peer| async move {
        let mut bytes = hex(MYSQL_GREETING);
        bytes.extend(b"\x07\0\0\x02\0\0\0\x02\0\0\0");
        peer.put(&bytes).await;
        peer.get().await;
    })
    .await;
    let mut params = params("u", "pw");
    params.tls = BackendTls::new(TlsMode::Preferred, None).unwrap();
    let error = login(&address, &params).await.unwrap_err();
    assert!(matches!(error, LoginError::Protocol { .. }), "{error}");
}

fn acceptor() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["db.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn under_tls_the_password_goes_in_clear_and_sequence_ids_go_on() {
    let (address, serving) = served(|mut peer| async move {
        peer.put(&hex(MYSQL_GREETING)).await;
        let (seq, request) = peer.get().await.unwrap();
        assert_eq!((seq, request.len()), (1, 32));
        let Stream::Plain(socket) = peer.0 else {
            unreachable!()
        };
        let tls = acceptor().accept(socket).await.unwrap();
        let mut peer = Peer(Stream::Tls(Box::new(tls.into())));
        let (seq, request) = peer.login().await;
        assert_eq!(seq, 2);
        assert!(request.capabilities.contains(Capabilities::SSL));
        peer.put_payload(3, &[1, 4]).await;
        assert_eq!(peer.get().await, Some((4, b"pw\0".to_vec())));
        peer.put_payload(5, OK).await;
        peer.get().await;
    })
    .await;
    let mut params = params("u", "pw");
    params.tls = BackendTls::new(TlsMode::Required, None).unwrap();
    let logged_in = login(&address, &params).await.unwrap();
    assert!(logged_in.stream.is_tls());
    assert_eq!(logged_in.proof, Proof::SecretUsed(Plugin::CachingSha2));
    drop(logged_in);
    serving.await.unwrap();
}

#[tokio::test]
async fn without_tls_the_password_is_kept_and_the_setting_named() {
    let (address, serving) = served(|mut peer| async move {
        peer.put(&hex(MYSQL_GREETING)).await;
        peer.login().await;
        peer.put_payload(2, &[1, 4]).await;
        assert_eq!(peer.get().await, Some((3, vec![0])));
        peer.put_payload(4, DENIED).await;
    })
    .await;
    let error = login(&address, &params("u", "pw")).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("backend.allow_public_key_retrieval"),
        "{error}"
    );
    assert!(!error.is_access_denied());
    serving.await.unwrap();
}

#[tokio::test]
async fn a_greeting_is_read_by_a_login_that_is_refused() {
    let (address, serving) = served(|mut peer| async move {
        peer.put(&hex(MYSQL_GREETING)).await;
        let (_, request) = peer.login().await;
        assert_eq!(
            (&request.user[..], request.auth_response.len()),
            (NOBODY, 0)
        );
        peer.put_payload(2, b"\xfesha256_password\0abcdefghijklmnopqrst\0")
            .await;
        assert_eq!(peer.get().await, Some((3, vec![0])));
        peer.put_payload(4, DENIED).await;
        assert!(peer.get().await.is_none());
    })
    .await;
    let greeting = read_greeting(&address, Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(&greeting.server_version[..], b"9.7.4-2");
    serving.await.unwrap();

    // An anonymous account lets nobody in.
    let (address, serving) = served(|mut peer| async move {
        peer.put(&hex(MARIADB_GREETING)).await;
        peer.login().await;
        peer.put_payload(2, OK).await;
        assert!(peer.quit_comes().await);
    })
    .await;
    read_greeting(&address, Duration::from_secs(10))
        .await
        .unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_before_it_was_answered_is_heard() {
    let (address, serving) = served(|mut peer| async move {
        let mut bytes = hex(MYSQL_GREETING);
        bytes.extend(b"\x1f\0\0\x01\xff\x1d\x04#08S01Server shutdown in prog");
        peer.put(&bytes).await;
    })
    .await;
    let error = login(&address, &params("u", "pw")).await.unwrap_err();
    assert_eq!(error.server_error().map(|e| e.code), Some(1053), "{error}");
    serving.await.unwrap();
}

#[tokio::test]
async fn broken_servers_are_told_apart() {
    let (_, gone) = listen().await;
    let error = login(&gone, &params("u", "pw")).await.unwrap_err();
    assert!(matches!(error, LoginError::Unreachable { .. }), "{error}");

    let (address, _serving) = served(|mut peer| async move {
        peer.put(&hex(MYSQL_GREETING)).await;
        peer.get().await;
    })
    .await;
    let error = login(&address, &params("u", "pw")).await.unwrap_err();
    assert!(matches!(error, LoginError::Lost { .. }), "{error}");

    for bytes in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"\x03\0\0\0SSH"] {
        let (address, _serving) = served(move |mut peer| async move {
            peer.put(bytes).await;
            peer.get().await;
        })
        .await;
        let error = login(&address, &params("u", "pw")).await.unwrap_err();
        assert!(matches!(error, LoginError::Protocol { .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_times_out() {
    let (address, _serving) = served(|mut peer| async move {
        peer.get().await;
    })
    .await;
    let error = login(&address, &params("u", "pw")).await.unwrap_err();
    assert!(
        error.to_string().ends_with("took longer than 10s"),
        "{error}"
    );
}
