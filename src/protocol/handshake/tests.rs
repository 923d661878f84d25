use super::*;
use proptest::prelude::*;

/// MariaDB 10.11.19 without TLS.
const MARIADB_GREETING: &str = "0a352e352e352d31302e31312e31392d4d6172696144422d302b6465623132753100dc0000002f2b2b3566247c6a00fe\
    f7080200ff81150000000000001d0000007a4b4350464d34583e6e3146006d7973716c5f6e61746976655f7061737377\
    6f726400";
/// MySQL 9.7.4.
const MYSQL_GREETING: &str = "0a392e372e342d3200be000000520f42716e09316900ffffff0200ffdf15000000000000000000006316724c4e62326e\
    41113e050063616368696e675f736861325f70617373776f726400";
/// The mariadb shell (Connector/C 3.3.20), to MariaDB, with a database.
const MARIADB_SHELL: &str = "8ca2bf000000100021000000000000000000000000000000000000001d0000006170700014cbb4ff994f3fb31f8e718d\
    1affdbe9e93e67d598617070006d7973716c5f6e61746976655f70617373776f7264007f035f6f73054c696e75780c5f\
    636c69656e745f6e616d650a6c69626d617269616462045f7069640532393634350f5f636c69656e745f76657273696f\
    6e06332e332e3230095f706c6174666f726d067838365f36340c70726f6772616d5f6e616d65056d7973716c0c5f7365\
    727665725f686f7374093132372e302e302e31";
/// The mysql shell 9.7.4, to MySQL, without TLS.
const MYSQL_SHELL: &str = "85a2bf1900000001ff000000000000000000000000000000000000000000000061707000203c3f3d0700601993d01419\
    37f605c91e2786eebd2ffe720ad03104118bca28c963616368696e675f736861325f70617373776f72640072045f7069\
    64053239363438095f706c6174666f726d067838365f3634035f6f73054c696e75780c5f636c69656e745f6e616d6508\
    6c69626d7973716c076f735f7573657204726f6f740f5f636c69656e745f76657273696f6e05392e372e340c70726f67\
    72616d5f6e616d65056d7973716c";
/// PyMySQL 1.2.4, to MariaDB, with a database.
const PYMYSQL: &str = "0da23a00ffffff002d00000000000000000000000000000000000000000000006170700014ab111fd07cb9c7cb2550e2\
    ac6ea94c6c7cff6c1c617070006d7973716c5f6e61746976655f70617373776f726400360c5f636c69656e745f6e616d\
    650770796d7973716c0f5f636c69656e745f76657273696f6e05312e322e34045f706964053239363530";
/// The mariadb shell asking MySQL 9.7.4 for TLS.
const TLS_REQUEST: &str = "85aabf0000001000210000000000000000000000000000000000000000000000";
/// `COM_CHANGE_USER` of mysql-connector-python 26.10 (pure), to MySQL 9.7.4.
const CHANGE_USER: &str = "1161707000201258931a22e3668eba86d4b1d14302e7d2ce233cba7007ed027cd3735806c69861707000ff0063616368\
    696e675f736861325f70617373776f726400a00c70726f6772616d5f6e616d650473686f70045f706964053230343434\
    095f706c6174666f726d067838365f36340c5f736f757263655f686f737402766d0c5f636c69656e745f6e616d65166d\
    7973716c2d636f6e6e6563746f722d707974686f6e0f5f636c69656e745f6c6963656e73650747504c2d322e300f5f63\
    6c69656e745f76657273696f6e0732362e31302e30035f6f730944656269616e2d3132";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(&mut out);
    out.to_vec()
}

#[test]
fn mariadb_greets_with_extended_capabilities() {
    let greeting = Greeting::parse(&hex(MARIADB_GREETING)).unwrap();
    assert_eq!(
        &greeting.server_version[..],
        b"5.5.5-10.11.19-MariaDB-0+deb12u1"
    );
    assert_eq!(greeting.connection_id, 0xdc);
    assert_eq!(&greeting.nonce[..], b"/++5f$|jzKCPFM4X>n1F");
    assert_eq!(
        greeting.capabilities,
        Capabilities::from_wire(0x81ff_f7fe, 0x1d)
    );
    assert_eq!((greeting.collation, greeting.status), (8, 2));
    assert_eq!(&greeting.auth_plugin[..], b"mysql_native_password");
    assert_eq!(encoded(|out| greeting.encode(out)), hex(MARIADB_GREETING));
}

#[test]
fn mysql_greets_with_a_nonce_of_any_bytes() {
    let greeting = Greeting::parse(&hex(MYSQL_GREETING)).unwrap();
    assert_eq!(&greeting.server_version[..], b"9.7.4-2");
    assert_eq!(greeting.nonce.len(), NONCE_LEN);
    assert_eq!(greeting.capabilities.lower(), 0xdfff_ffff);
    assert_eq!(greeting.collation, 0xff);
    assert_eq!(&greeting.auth_plugin[..], b"caching_sha2_password");
    assert_eq!(encoded(|out| greeting.encode(out)), hex(MYSQL_GREETING));
}

#[test]
fn an_error_in_the_greetings_place_has_no_sqlstate() {
    // MariaDB 10.11.19, error 1129.
    let payload = b"\xff\x69\x04Host '127.0.0.2' is blocked because of many connection errors";
    let Err(HandshakeError::Refused(error)) = Greeting::parse(payload) else {
        panic!("not refused")
    };
    assert_eq!((error.code, error.sqlstate), (1129, SqlState::HY000));
    assert!(error.message.starts_with(b"Host '127.0.0.2'"));
    let error = ServerError::parse(b"\xff\x15\x04#28000Access denied").unwrap();
    assert_eq!(error.to_string(), "1045 (28000): Access denied");
}

#[test]
fn what_is_no_mysql_is_told() {
    // An SSH server, and a greeting of protocol 9.
    assert_eq!(
        Greeting::parse(b"SSH-2.0-OpenSSH_9.2\r\n"),
        Err(HandshakeError::ProtocolVersion(b'S'))
    );
    assert_eq!(
        Greeting::parse(b"\x093.20.1\0\x01\0\0\0abcdefgh\0"),
        Err(HandshakeError::ProtocolVersion(9))
    );
    assert!(Greeting::parse(b"").is_err());
}

#[test]
fn shells_and_drivers_log_in() {
    let login = LoginRequest::parse(&hex(MARIADB_SHELL)).unwrap();
    assert_eq!(login.capabilities.extended(), 0x1d);
    assert_eq!((login.collation, login.max_packet), (0x21, 1 << 20));
    assert_eq!(&login.user[..], b"app");
    assert_eq!(login.auth_response.len(), 20);
    assert_eq!(login.database.as_deref(), Some(&b"app"[..]));
    assert_eq!(
        login.auth_plugin.as_deref(),
        Some(&b"mysql_native_password"[..])
    );
    assert_eq!(login.attributes.len(), 7);
    assert_eq!(
        login.attributes[0],
        (Bytes::from("_os"), Bytes::from("Linux"))
    );
    assert_eq!(encoded(|out| login.encode(out)), hex(MARIADB_SHELL));

    let login = LoginRequest::parse(&hex(MYSQL_SHELL)).unwrap();
    assert_eq!(
        (login.database.clone(), login.auth_response.len()),
        (None, 32)
    );
    assert!(login.capabilities.contains(Capabilities::QUERY_ATTRIBUTES));
    assert_eq!(encoded(|out| login.encode(out)), hex(MYSQL_SHELL));

    let login = LoginRequest::parse(&hex(PYMYSQL)).unwrap();
    assert!(!login.capabilities.contains(Capabilities::DEPRECATE_EOF));
    assert_eq!(login.attributes.len(), 3);
    assert_eq!(encoded(|out| login.encode(out)), hex(PYMYSQL));
}

#[test]
fn a_tls_request_is_a_login_cut_short() {
    let payload = hex(TLS_REQUEST);
    let request = TlsRequest::parse(&payload).unwrap().unwrap();
    assert!(request.capabilities.contains(Capabilities::SSL));
    assert_eq!((request.collation, request.max_packet), (0x21, 1 << 20));
    assert_eq!(encoded(|out| request.encode(out)), payload);
    assert_eq!(TlsRequest::parse(&hex(MYSQL_SHELL)), Ok(None));
}

#[test]
fn old_clients_are_told_apart() {
    // Protocol 3.20: two bytes of capabilities, three of packet size, user.
    assert_eq!(
        LoginRequest::parse(b"\x05\x24\x00\x00\x00old\0"),
        Err(HandshakeError::Pre41)
    );
    // 4.1 without SECURE_CONNECTION: the auth response ends at a NUL.
    let mut payload = 0x0000_0200_u32.to_le_bytes().to_vec();
    payload.extend([0; 28]);
    payload.extend(b"u\0scramble\0");
    let login = LoginRequest::parse(&payload).unwrap();
    assert_eq!(&login.auth_response[..], b"scramble");
    assert_eq!(login.auth_plugin, None);
}

#[test]
fn bytes_that_are_no_utf8_and_repeated_attributes_survive() {
    let mut login = LoginRequest::parse(&hex(MYSQL_SHELL)).unwrap();
    login.user = Bytes::from_static(b"\xff\xfe");
    login.attributes = vec![
        (Bytes::from_static(b"k"), Bytes::from_static(b"\xe9")),
        (Bytes::from_static(b"k"), Bytes::new()),
    ];
    let again = LoginRequest::parse(&encoded(|out| login.encode(out))).unwrap();
    assert_eq!(again, login);
}

#[test]
fn a_debug_line_shows_no_auth_response() {
    let mut login = LoginRequest::parse(&hex(MYSQL_SHELL)).unwrap();
    login.auth_response = Bytes::from_static(b"hunter2");
    assert!(!format!("{login:?}").contains("hunter2"));
}

#[test]
fn change_user_ends_where_the_client_likes() {
    let capabilities =
        Capabilities::SECURE_CONNECTION | Capabilities::PLUGIN_AUTH | Capabilities::CONNECT_ATTRS;
    let captured = ChangeUser::parse(&hex(CHANGE_USER), capabilities).unwrap();
    assert_eq!(
        (&captured.user[..], captured.auth_response.len()),
        (&b"app"[..], 32)
    );
    assert_eq!(
        (captured.database, captured.collation),
        (Some(Bytes::from("app")), Some(255))
    );
    assert_eq!(
        captured.auth_plugin,
        Some(Bytes::from("caching_sha2_password"))
    );
    assert_eq!(captured.attributes.len(), 8);
    assert_eq!(
        captured.attributes[0],
        (Bytes::from("program_name"), Bytes::from("shop"))
    );

    let whole = b"\x11bob\0\x02ABshop\0\x2d\0mysql_native_password\0\x04\x01k\x01v";
    let change = ChangeUser::parse(whole, capabilities).unwrap();
    assert_eq!(
        (&change.user[..], &change.auth_response[..]),
        (&b"bob"[..], &b"AB"[..])
    );
    assert_eq!(change.database.as_deref(), Some(&b"shop"[..]));
    assert_eq!(change.collation, Some(0x2d));
    assert_eq!(
        change.auth_plugin.as_deref(),
        Some(&b"mysql_native_password"[..])
    );
    assert_eq!(
        change.attributes,
        vec![(Bytes::from("k"), Bytes::from("v"))]
    );

    let no_attributes = ChangeUser::parse(&whole[..whole.len() - 5], capabilities).unwrap();
    assert!(no_attributes.attributes.is_empty());
    let old = ChangeUser::parse(b"\x11bob\0\0\0", capabilities).unwrap();
    assert_eq!(
        (old.database, old.collation, old.auth_plugin),
        (None, None, None)
    );
    assert!(ChangeUser::parse(b"\x11bob\0\x09AB", capabilities).is_err());
    assert!(ChangeUser::parse(b"\x03bob\0\0\0", capabilities).is_err());
}

#[test]
fn a_nonce_holds_neither_nul_nor_dollar() {
    for _ in 0..200 {
        assert!(
            random_nonce()
                .iter()
                .all(|&b| (1..128).contains(&b) && b != b'$')
        );
    }
    assert_ne!(random_nonce(), random_nonce());
}

fn text() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(1..=255_u8, 0..40).prop_map(Bytes::from)
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

proptest! {
    #[test]
    fn logins_round_trip(
        bits: u64,
        head in (any::<u32>(), any::<u8>()),
        user in text(),
        auth_response in any_bytes(),
        database in text(),
        auth_plugin in text(),
        attributes in prop::collection::vec((any_bytes(), any_bytes()), 0..4),
    ) {
        let capabilities = Capabilities::from_wire(bits as u32, (bits >> 32) as u32)
            | Capabilities::PROTOCOL_41
            | Capabilities::PLUGIN_AUTH_LENENC;
        let has = |flag| capabilities.contains(flag);
        let login = LoginRequest {
            capabilities,
            max_packet: head.0,
            collation: head.1,
            user,
            auth_response,
            database: Some(database)
                .filter(|name| has(Capabilities::CONNECT_WITH_DB) && !name.is_empty()),
            auth_plugin: Some(auth_plugin).filter(|_| has(Capabilities::PLUGIN_AUTH)),
            attributes: if has(Capabilities::CONNECT_ATTRS) { attributes } else { Vec::new() },
        };
        let payload = encoded(|out| login.encode(out));
        prop_assert_eq!(LoginRequest::parse(&payload), Ok(login));
    }

    #[test]
    fn greetings_round_trip(
        bits: u64,
        numbers in (any::<u32>(), any::<u8>(), any::<u16>()),
        version in text(),
        plugin in text(),
        nonce: [u8; NONCE_LEN],
    ) {
        let capabilities = Capabilities::from_wire(bits as u32, (bits >> 32) as u32)
            | Capabilities::PROTOCOL_41
            | Capabilities::SECURE_CONNECTION;
        let greeting = Greeting {
            server_version: version,
            connection_id: numbers.0,
            nonce: Bytes::copy_from_slice(&nonce),
            capabilities,
            collation: numbers.1,
            status: numbers.2,
            auth_plugin: if capabilities.contains(Capabilities::PLUGIN_AUTH) { plugin } else { Bytes::new() },
        };
        let payload = encoded(|out| greeting.encode(out));
        prop_assert_eq!(Greeting::parse(&payload), Ok(greeting));
    }

    #[test]
    fn cut_and_garbled_packets_never_panic(
        which in 0..5_usize,
        cut in 0..400_usize,
        flips in prop::collection::vec((0..400_usize, any::<u8>()), 0..4),
        bits: u64,
    ) {
        let mut payload =
            hex([MARIADB_GREETING, MYSQL_GREETING, MARIADB_SHELL, MYSQL_SHELL, PYMYSQL][which]);
        for (at, byte) in flips {
            if let Some(old) = payload.get_mut(at) {
                *old = byte;
            }
        }
        payload.truncate(cut);
        let _ = Greeting::parse(&payload);
        let _ = TlsRequest::parse(&payload);
        let _ = LoginRequest::parse(&payload);
        let _ = ServerError::parse(&payload);
        let _ = ChangeUser::parse(&payload, Capabilities::from_bits(bits));
        payload.insert(0, 0x11);
        let _ = ChangeUser::parse(&payload, Capabilities::from_bits(bits));
    }

    #[test]
    fn random_bytes_never_panic(payload: Vec<u8>, bits: u64) {
        let _ = Greeting::parse(&payload);
        let _ = LoginRequest::parse(&payload);
        let _ = ChangeUser::parse(&payload, Capabilities::from_bits(bits));
    }
}
