//! How Sidepool proves a password to the database: each plugin, in clear and under TLS.

use super::*;

const TLS_OFF: (&str, &str) = ("SIDEPOOL_BACKEND__TLS__MODE", "off");
const TLS_REQUIRED: (&str, &str) = ("SIDEPOOL_BACKEND__TLS__MODE", "required");
const BY_RSA: (&str, &str) = ("SIDEPOOL_BACKEND__ALLOW_PUBLIC_KEY_RETRIEVAL", "true");

/// Somebody whose password Sidepool proves gets in, works, and lets the next one in.
async fn gets_in(server: &Server, settings: &[(&str, &str)], user: &str) {
    let sidepool = Sidepool::start(server, &[settings, &[NEVER_RECHECKED]].concat());
    assert_eq!(refusal(&sidepool, user, "wrong").await.code, 1045);
    let mut first = connect(&sidepool, user, "right").await.unwrap();
    let shown = value(&mut first, "SELECT SUBSTRING_INDEX(USER(), '@', 1)").await;
    assert_eq!(shown, user);
    connect(&sidepool, user, "right").await.unwrap();
    logged_in(&sidepool, 1, 1);
}

/// MySQL's plugins that need the password itself: not over a connection that anybody may read.
#[tokio::test]
async fn mysql_s_sha256_plugins() {
    if !servers::makes().contains(&Make::MySql) {
        return;
    }
    let server = servers::shared(Make::MySql);
    for plugin in ["caching_sha2_password", "sha256_password"] {
        for (way, settings) in [
            ("plain", &[TLS_OFF][..]),
            ("rsa", &[TLS_OFF, BY_RSA]),
            ("tls", &[TLS_REQUIRED]),
        ] {
            let user = format!("l_{}_{way}", &plugin[..5]);
            create(
                server,
                &user,
                &format!("IDENTIFIED WITH {plugin} BY 'right'"),
            );
            if way != "plain" {
                gets_in(server, settings, &user).await;
                continue;
            }
            let sidepool = Sidepool::start(server, settings);
            let refused = refusal(&sidepool, &user, "right").await;
            assert!(
                refused
                    .message
                    .contains("backend.allow_public_key_retrieval"),
                "{refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn mariadb_s_native_and_ed25519() {
    let server = servers::shared(Make::MariaDb);
    create(server, "l_nat", &identified_by("right"));
    gets_in(server, &[TLS_OFF], "l_nat").await;
    if !servers::has_ed25519() {
        return;
    }
    server.root("INSTALL PLUGIN IF NOT EXISTS ed25519 SONAME 'auth_ed25519'");
    create(
        server,
        "l_ed25519",
        "IDENTIFIED VIA ed25519 USING PASSWORD('right')",
    );
    create(
        server,
        "l_both",
        "IDENTIFIED VIA ed25519 USING PASSWORD('else') OR mysql_native_password USING PASSWORD('right')",
    );
    for user in ["l_ed25519", "l_both"] {
        gets_in(server, &[TLS_OFF], user).await;
    }
}

/// Whoever reaches Sidepool would otherwise be whoever owns its process.
#[tokio::test]
async fn a_login_by_unix_socket_proves_nothing() {
    let out = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    let me = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    let server = Server::start(Make::MariaDb, &[]);
    let backend = format!("unix:{}", server.socket().display());
    let account = format!("'{me}'@'localhost'");
    let either = "mysql_native_password USING PASSWORD('right') OR unix_socket";
    for how in ["unix_socket", either] {
        server.root(&format!(
            "CREATE USER IF NOT EXISTS {account}; ALTER USER {account} IDENTIFIED VIA {how}"
        ));
        let sidepool = Sidepool::launch(&backend, &[]);
        sidepool.wait_ready();
        for password in ["wrong", "right", ""] {
            let refused = refusal(&sidepool, &me, password).await;
            assert_eq!(refused.code, 1045, "{how}: {refused:?}");
        }
        assert!(
            sidepool
                .log()
                .contains("lets this account in without its password")
        );
    }
    server.root(&format!(
        "ALTER USER {account} IDENTIFIED VIA mysql_native_password USING PASSWORD('right')"
    ));
    let sidepool = Sidepool::launch(&backend, &[NEVER_RECHECKED]);
    sidepool.wait_ready();
    assert_eq!(refusal(&sidepool, &me, "wrong").await.code, 1045);
    connect(&sidepool, &me, "right").await.unwrap();
}
