use std::sync::LazyLock;

use aws_lc_rs::rsa::{OaepPublicEncryptingKey, PublicEncryptingKey};
use proptest::prelude::*;

use super::*;

const CACHING_SHA2: &[u8] = b"caching_sha2_password";
const NATIVE: &[u8] = b"mysql_native_password";
const CLEAR: &[u8] = b"mysql_clear_password";

const NONCE: Nonce = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
];
const SWITCH_NONCE: Nonce = [b's'; NONCE_LEN];

// Computed with another implementation (Python's hashlib): password "secret", nonce NONCE.
const NATIVE_SCRAMBLE: [u8; 20] = [
    0xb3, 0x2b, 0xb3, 0xa5, 0x83, 0xe1, 0x34, 0x0c, 0x0a, 0x11, 0x08, 0xd5, 0x8b, 0x1b, 0xe4, 0x97,
    0x81, 0xad, 0x8c, 0x2f,
];
const SHA2_SCRAMBLE: [u8; 32] = [
    0x74, 0x6e, 0xbe, 0x20, 0x5d, 0x56, 0xa0, 0x70, 0x7a, 0xcb, 0x3e, 0x79, 0x6e, 0x83, 0x4e, 0x0d,
    0xd7, 0xb1, 0xd6, 0x17, 0x43, 0xb2, 0x6b, 0xd5, 0x20, 0x2c, 0x7a, 0x62, 0x32, 0x30, 0xc7, 0xc9,
];

static RSA: LazyLock<Arc<RsaKey>> = LazyLock::new(|| Arc::new(RsaKey::generate().unwrap()));

fn auth(channel: Channel, secrets: &[&str]) -> ServerAuth {
    ServerAuth {
        nonce: NONCE,
        switch_nonce: SWITCH_NONCE,
        channel,
        can_switch: CanSwitch::Yes,
        rsa: Arc::clone(&RSA),
        candidates: secrets.iter().map(|s| secret(s)).collect(),
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes())
}

fn sent(step: Step) -> (Exchange, Vec<u8>) {
    match step {
        Step::Send(exchange, payload) => (exchange, payload),
        Step::Done(verdict) => panic!("{verdict:?}"),
    }
}

fn verdict(step: Step) -> Verdict {
    match step {
        Step::Done(verdict) => verdict,
        Step::Send(_, payload) => panic!("{payload:?}"),
    }
}

#[track_caller]
fn assert_known(step: Step, index: usize, plugin: ProvedBy) {
    match verdict(step) {
        Verdict::Known(known) => assert_eq!(known, KnownSecret { index, plugin }),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_cleartext(step: Step, password: &str) {
    match verdict(step) {
        Verdict::Cleartext(got) => assert_eq!(got.expose(), password.as_bytes()),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_failed(step: Step, failure: AuthFailure) {
    match verdict(step) {
        Verdict::Failed(got) => assert_eq!(got, failure),
        other => panic!("{other:?}"),
    }
}

#[test]
fn scrambles_of_known_secrets_are_enough() {
    let both = ["old", "secret"];
    let step = auth(Channel::Plain, &both).start(Some(NATIVE), &NATIVE_SCRAMBLE);
    assert_known(step, 1, ProvedBy::Native);
    // A client without PLUGIN_AUTH names no plugin.
    let step = auth(Channel::Plain, &both).start(None, &NATIVE_SCRAMBLE);
    assert_known(step, 1, ProvedBy::Native);
    let step = auth(Channel::Plain, &both).start(Some(CACHING_SHA2), &SHA2_SCRAMBLE);
    assert_known(step, 1, ProvedBy::CachingSha2);
    assert_eq!(ProvedBy::CachingSha2.prelude(), Some([0x01, 0x03]));
}

#[test]
fn a_scramble_that_fits_nothing_leads_to_the_full_exchange() {
    let step = auth(Channel::Secure, &["other"]).start(Some(CACHING_SHA2), &SHA2_SCRAMBLE);
    let (exchange, payload) = sent(step);
    assert_eq!(payload, b"\x01\x04");
    assert_cleartext(exchange.next(b"secret\0"), "secret");
}

#[test]
fn a_native_client_is_switched_and_its_second_scramble_counts() {
    let step = auth(Channel::Secure, &["other"]).start(Some(NATIVE), &NATIVE_SCRAMBLE);
    let (exchange, payload) = sent(step);
    assert_eq!(
        payload,
        b"\xfecaching_sha2_password\0ssssssssssssssssssss\0"
    );
    assert_eq!(exchange.nonce(), SWITCH_NONCE);
    let right = scramble_sha256(&SWITCH_NONCE, b"other").unwrap();
    assert_known(exchange.next(&right), 0, ProvedBy::CachingSha2);
    // The answer to the first nonce is worth nothing for the second.
    let step = auth(Channel::Secure, &["secret"]).start(Some(b"dialog"), b"");
    let (exchange, _) = sent(step);
    let (exchange, payload) = sent(exchange.next(&SHA2_SCRAMBLE));
    assert_eq!(payload, b"\x01\x04");
    assert_cleartext(exchange.next(b"x\0"), "x");
}

#[test]
fn a_client_that_cannot_switch_is_told_so() {
    let mut auth = auth(Channel::Secure, &[]);
    auth.can_switch = CanSwitch::No;
    assert_failed(
        auth.start(None, &NATIVE_SCRAMBLE),
        AuthFailure::CannotSwitch,
    );
}

#[test]
fn empty_passwords() {
    for (plugin, response) in [
        (NATIVE, &b""[..]),
        (CACHING_SHA2, b""),
        (CACHING_SHA2, b"\0"),
    ] {
        let step = auth(Channel::Plain, &["secret"]).start(Some(plugin), response);
        assert_cleartext(step, "");
        let step = auth(Channel::Plain, &["secret", ""]).start(Some(plugin), response);
        assert_known(step, 1, ProvedBy::Empty);
    }
    // A known empty password is not proved by just any scramble.
    let step = auth(Channel::Plain, &[""]).start(Some(CACHING_SHA2), &SHA2_SCRAMBLE);
    assert_eq!(sent(step).1, b"\x01\x04");
    let step = auth(Channel::Plain, &[""]).start(Some(NATIVE), &NATIVE_SCRAMBLE);
    assert_eq!(sent(step).1[0], 0xfe);
}

#[test]
fn clear_passwords_are_taken_on_secure_channels_only() {
    let step = auth(Channel::Secure, &[]).start(Some(CLEAR), b"secret\0");
    assert_cleartext(step, "secret");
    let (exchange, payload) = sent(auth(Channel::Secure, &[]).start(Some(CLEAR), b""));
    assert_eq!(payload, b"\xfemysql_clear_password\0ssssssssssssssssssss\0");
    assert_cleartext(exchange.next(b"secret\0"), "secret");
    let step = auth(Channel::Plain, &["secret"]).start(Some(CLEAR), b"secret\0");
    let (exchange, payload) = sent(step);
    assert!(payload.starts_with(b"\xfecaching_sha2_password\0"));
    let (exchange, _) = sent(exchange.next(&[7; 32]));
    assert_failed(exchange.next(b"secret\0"), AuthFailure::Undecipherable);
}

/// What a client does: the key out of the PEM, the password XOR the nonce under OAEP.
fn encrypt(pem: &[u8], password: &[u8], nonce: &Nonce) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).unwrap();
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(&der).unwrap()).unwrap();
    let plain: Vec<u8> = password
        .iter()
        .zip(nonce.iter().cycle())
        .map(|(a, b)| a ^ b)
        .collect();
    let mut out = vec![0; key.ciphertext_size()];
    let len = key
        .encrypt(&OAEP_SHA1_MGF1SHA1, &plain, &mut out, None)
        .unwrap()
        .len();
    out.truncate(len);
    out
}

#[test]
fn over_a_plain_channel_the_password_comes_encrypted() {
    let long = "a password that is longer than the nonce it is mixed with";
    let step = auth(Channel::Plain, &[]).start(Some(CACHING_SHA2), &SHA2_SCRAMBLE);
    let (exchange, payload) = sent(step);
    assert_eq!(payload, b"\x01\x04");
    let (exchange, payload) = sent(exchange.next(b"\x02"));
    let pem = payload.strip_prefix(b"\x01").unwrap();
    assert!(pem.starts_with(b"-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"));
    assert!(pem.ends_with(b"\n-----END PUBLIC KEY-----\n"));
    let packet = encrypt(pem, format!("{long}\0").as_bytes(), &NONCE);
    assert_eq!(packet.len(), 256);
    assert_cleartext(exchange.next(&packet), long);
}

#[test]
fn the_key_may_be_known_beforehand_and_is_given_on_secure_channels_too() {
    let step = auth(Channel::Plain, &[]).start(Some(CACHING_SHA2), &SHA2_SCRAMBLE);
    let packet = encrypt(RSA.public_pem(), b"secret\0", &NONCE);
    assert_cleartext(sent(step).0.next(&packet), "secret");
    let step = auth(Channel::Secure, &[]).start(Some(CACHING_SHA2), &SHA2_SCRAMBLE);
    let (exchange, payload) = sent(sent(step).0.next(b"\x02"));
    assert_eq!(payload[..11], *b"\x01-----BEGIN");
    assert_cleartext(exchange.next(&packet), "secret");
}

#[test]
fn wrong_nonce_wrong_key_and_garbage_fail() {
    let start = || sent(auth(Channel::Plain, &[]).start(Some(CACHING_SHA2), &[1; 32])).0;
    let stale = encrypt(RSA.public_pem(), b"secret\0", &SWITCH_NONCE);
    assert_failed(start().next(&stale), AuthFailure::Malformed);
    let other = RsaKey::generate().unwrap();
    let packet = encrypt(other.public_pem(), b"secret\0", &NONCE);
    assert_failed(start().next(&packet), AuthFailure::Undecipherable);
    assert_failed(start().next(b""), AuthFailure::Undecipherable);
    let secure = || sent(auth(Channel::Secure, &[]).start(Some(CACHING_SHA2), &[1; 32])).0;
    for packet in [&b""[..], b"no end", b"a\0b\0"] {
        assert_failed(secure().next(packet), AuthFailure::Malformed);
    }
}

#[test]
fn pem_pads() {
    assert_eq!(
        pem("X", b"a"),
        b"-----BEGIN X-----\nYQ==\n-----END X-----\n"
    );
    assert_eq!(
        pem("X", b"ab"),
        b"-----BEGIN X-----\nYWI=\n-----END X-----\n"
    );
    assert_eq!(
        pem("X", b"abc"),
        b"-----BEGIN X-----\nYWJj\n-----END X-----\n"
    );
}

#[test]
fn the_proof_of_a_self_signed_certificate() {
    // Computed with Python's hashlib from the definition.
    let expected = b"\x01F3A48196F33A26CEE9FAB9A6E4AC7B620FF0E1E3E503C5317EC632DB1F594151";
    assert_eq!(tls_proof(&secret("secret"), &NONCE, &[7; 32]), expected);
}

proptest! {
    #[test]
    fn whatever_comes_nothing_panics_and_nothing_unproved_is_known(
        plugin in prop_oneof![Just(NATIVE.to_vec()), Just(CACHING_SHA2.to_vec()), Just(CLEAR.to_vec()), any::<Vec<u8>>()],
        packets in proptest::collection::vec(any::<Vec<u8>>(), 1..6),
        secure: bool,
    ) {
        let channel = if secure { Channel::Secure } else { Channel::Plain };
        let mut packets = packets.into_iter();
        let first = packets.next().unwrap();
        let mut step = auth(channel, &["secret"]).start(Some(&plugin), &first);
        for packet in packets {
            match step {
                Step::Send(exchange, _) => step = exchange.next(&packet),
                Step::Done(_) => break,
            }
        }
        prop_assert!(!matches!(step, Step::Done(Verdict::Known(_))));
    }
}
