//! TLS on either side: which modes take whom, and what a failure says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

on_every_server! {
    clients_meet_tls_as_the_listener_says => listener_modes;
    a_certificate_of_one_s_own_is_shown => own_certificate;
    a_mariadb_client_is_shown_that_its_password_is_known => proof_of_the_password;
}

const CLIENT_TLS: &str = "SIDEPOOL_LISTENER__0__TLS__MODE";

async fn listener_modes(server: &Server) {
    for (mode, plain, tls) in [
        ("off", None, false),
        ("optional", None, true),
        ("required", Some(3159), true),
    ] {
        let sidepool = Sidepool::start(server, &[(CLIENT_TLS, mode)]);
        let address = sidepool.address();
        let in_clear = Wire::connect(&Login::to(&address)).await;
        assert_eq!(in_clear.err().map(|error| error.code), plain, "{mode}");
        let offered = greeting::greeting(&address).await.capabilities;
        let has_tls = offered.contains(sidepool::protocol::capability::Capabilities::SSL);
        assert_eq!(has_tls, tls, "{mode}");
        if tls {
            let over_tls = Login {
                tls: true,
                ..Login::to(&address)
            };
            let mut client = Wire::connect(&over_tls).await.unwrap();
            assert_eq!(value(&mut client, "SELECT 1").await, "1", "{mode}");
        } else {
            assert_eq!(rejected(&sidepool, "tls_required"), 0.0);
        }
    }
}

/// Writes a certificate authority and a certificate for `localhost` by it.
fn write_certificates(dir: &Path, prefix: &str) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("{prefix} authority"));
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    write(&format!("{prefix}-ca.pem"), &authority.pem());
    write(&format!("{prefix}-cert.pem"), &certificate.pem());
    write(&format!("{prefix}-key.pem"), &key.serialize_pem());
}

async fn own_certificate(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    write_certificates(dir.path(), "client");
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let sidepool = Sidepool::start(
        server,
        &[
            (CLIENT_TLS, "required"),
            (
                "SIDEPOOL_LISTENER__0__TLS__CERTIFICATE",
                &path("client-cert.pem"),
            ),
            (
                "SIDEPOOL_LISTENER__0__TLS__PRIVATE_KEY",
                &path("client-key.pem"),
            ),
        ],
    );
    // Sidepool itself is the client that verifies: one in front of the other.
    let in_front = |ca: &str, mode: &'static str| {
        let sidepool = Sidepool::launch(
            &format!("localhost:{}", sidepool.port),
            &[
                ("SIDEPOOL_BACKEND__TLS__MODE", mode),
                ("SIDEPOOL_BACKEND__TLS__CA", ca),
            ],
        );
        sidepool.wait_ready();
        sidepool
    };
    let verifying = in_front(&path("client-ca.pem"), "verify_identity");
    let mut client = connect(&verifying, servers::USER, servers::PASSWORD)
        .await
        .unwrap();
    assert_eq!(value(&mut client, "SELECT 1").await, "1");
}

async fn proof_of_the_password(server: &Server) {
    create(server, "l_proof", &identified_by("right"));
    let sidepool = Sidepool::start(server, &[NEVER_RECHECKED]);
    let address = sidepool.address();
    let login = Login {
        user: "l_proof",
        password: "right",
        tls: true,
        plugin: Some(NATIVE),
        // Bit 0 unset is MariaDB's dialect.
        without: 1,
        ..Login::to(&address)
    };
    let info = |wire: &Wire| wire::parse_ok(&wire.login_ok).rest;
    let first = Wire::connect(&login).await.unwrap();
    assert!(
        info(&first).is_empty(),
        "proved by the password itself, not by its hash"
    );
    let second = Wire::connect(&login).await.unwrap();
    let proof = info(&second);
    assert_eq!((proof.len(), &proof[..2]), (66, &[65, 1][..]));
    assert!(proof[2..].iter().all(u8::is_ascii_hexdigit));
    // Another connection, another nonce: another proof.
    assert_ne!(info(&Wire::connect(&login).await.unwrap()), proof);
    let in_clear = Login {
        tls: false,
        ..login.clone()
    };
    assert!(info(&Wire::connect(&in_clear).await.unwrap()).is_empty());
    if !is_mariadb(server) {
        // Bit 0 is answered as MySQL's, to a client that does not call itself MariaDB's.
        let of_mysql = Login {
            without: 0,
            ..login
        };
        assert!(info(&Wire::connect(&of_mysql).await.unwrap()).is_empty());
    }
}

/// A private server with a certificate for `localhost` by an authority in that directory, where there is a foreign
/// one too.
fn server_with_certificate(make: Make, dir: &Path) -> Server {
    // The server runs as another user.
    let allow = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    allow(dir, 0o755);
    write_certificates(dir, "db");
    write_certificates(dir, "foreign");
    for entry in fs::read_dir(dir).unwrap() {
        allow(&entry.unwrap().path(), 0o644);
    }
    let option = |name: &str, file: &str| format!("--{name}={}", dir.join(file).display());
    Server::start(
        make,
        &[
            &option("ssl-ca", "db-ca.pem"),
            &option("ssl-cert", "db-cert.pem"),
            &option("ssl-key", "db-key.pem"),
        ],
    )
}

/// Each way to look at a server's certificate.
async fn backend_modes(make: Make) {
    if !servers::makes().contains(&make) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_certificate(make, dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (right, wrong) = (&path("db-ca.pem")[..], &path("foreign-ca.pem")[..]);
    let (named, numbered) = (format!("localhost:{}", server.port), server.address());
    for (mode, ca, address, expected) in [
        ("off", "", &numbered, Ok(false)),
        ("preferred", "", &numbered, Ok(true)),
        ("required", "", &numbered, Ok(true)),
        ("verify_ca", right, &numbered, Ok(true)),
        ("verify_identity", right, &named, Ok(true)),
        (
            "verify_identity",
            right,
            &numbered,
            Err("not valid for name"),
        ),
        ("verify_ca", wrong, &numbered, Err("UnknownIssuer")),
        ("verify_identity", wrong, &named, Err("UnknownIssuer")),
    ] {
        let case = format!("{make:?} {mode} {address} {ca}");
        let seen = encrypted(address, mode, ca).await;
        match (seen, expected) {
            (Ok(encrypted), Ok(expected)) => assert_eq!(encrypted, expected, "{case}"),
            (Err(error), Err(part)) => {
                assert_eq!(error.code, 2003, "{case}: {error:?}");
                assert!(error.message.contains(part), "{case}: {error:?}");
                assert!(error.message.contains(&address[..]), "{case}: {error:?}");
            }
            (seen, expected) => panic!("{case}: {seen:?} instead of {expected:?}"),
        }
    }
}

/// Whether a client's statements reach that server under TLS, or why not at all.
async fn encrypted(address: &str, mode: &str, ca: &str) -> Result<bool, ServerError> {
    let mut settings = vec![
        ("SIDEPOOL_BACKEND__TLS__MODE", mode),
        ("SIDEPOOL_BACKEND__ALLOW_PUBLIC_KEY_RETRIEVAL", "true"),
    ];
    if !ca.is_empty() {
        settings.push(("SIDEPOOL_BACKEND__TLS__CA", ca));
    }
    let sidepool = Sidepool::launch(address, &settings);
    sidepool.wait_ready();
    let mut client = connect(&sidepool, servers::USER, servers::PASSWORD).await?;
    let status = client.query("SHOW STATUS LIKE 'Ssl_cipher'").await.rows();
    Ok(status[0][1]
        .as_ref()
        .is_some_and(|cipher| !cipher.is_empty()))
}

#[tokio::test]
async fn a_mariadb_is_checked_as_the_mode_says() {
    backend_modes(Make::MariaDb).await;
}

#[tokio::test]
async fn a_mysql_is_checked_as_the_mode_says() {
    backend_modes(Make::MySql).await;
}

/// Debian's MariaDB 10.11 has no certificate unless it is given one.
#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_where_tls_is_required() {
    let server = servers::shared(Make::MariaDb);
    let sidepool = Sidepool::start(server, &[("SIDEPOOL_BACKEND__TLS__MODE", "required")]);
    let refused = refusal(&sidepool, servers::USER, servers::PASSWORD).await;
    assert_eq!(refused.code, 2003);
    assert!(refused.message.contains("backend.tls.mode"), "{refused:?}");
}
