//! Who may call the routes that list clients and settings (and later change them).
//!
//! With a token: whoever shows it, on every address. Without: only a listener on a loopback address, and
//! only requests that name it by address or as `localhost`; a page of a foreign site whose name was made
//! to resolve to 127.0.0.1 (DNS rebinding) sends its own name and is turned away.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{HeaderMap, Uri};

/// The bearer token of `admin.token_file`. Only its digest is kept.
#[derive(Debug, Clone)]
pub struct Token(Digest);

/// The token file held nothing, which would let everybody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the admin token is empty")]
pub struct EmptyToken;

impl Token {
    /// From a file's text; white space around the token (the newline that editors add) is not part of it.
    pub fn parse(text: &str) -> Result<Self, EmptyToken> {
        match text.trim() {
            "" => Err(EmptyToken),
            token => Ok(Self(digest(&SHA256, token.as_bytes()))),
        }
    }

    /// Compares digests in constant time, which hides the token's length too.
    fn matches(&self, shown: &[u8]) -> bool {
        let shown = digest(&SHA256, shown);
        verify_slices_are_equal(self.0.as_ref(), shown.as_ref()).is_ok()
    }
}

/// Why a guarded route was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// No token or a wrong one was shown.
    #[error(
        "this needs the header `Authorization: Bearer <token>` with the token of admin.token_file"
    )]
    Unauthorized,
    /// There is no token to show.
    #[error("this is served on a loopback address only, unless admin.token_file is set")]
    NotLoopback,
    /// The request was meant for another site.
    #[error(
        "without admin.token_file this is served only to requests for localhost or a plain address"
    )]
    ForeignHost,
}

/// Decides on a request to a guarded route; `local` is the address that its listener is bound to.
pub(super) fn admit(
    token: Option<&Token>,
    local: IpAddr,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    match token {
        Some(token) => match bearer(headers) {
            Some(shown) if token.matches(shown) => Ok(()),
            _ => Err(Refusal::Unauthorized),
        },
        None if !local.to_canonical().is_loopback() => Err(Refusal::NotLoopback),
        None if !names_this_host(headers) => Err(Refusal::ForeignHost),
        None => Ok(()),
    }
}

/// The credentials of an `Authorization: Bearer` header; the scheme's name is not case-sensitive.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| rest.trim_ascii())
}

/// Whether `Host` is an address or `localhost`. Absent is fine: browsers always send it.
fn names_this_host(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(HOST) else {
        return true;
    };
    let Ok(uri) = Uri::try_from(value.as_bytes()) else {
        return false;
    };
    uri.host().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    fn headers(pairs: &[(hyper::header::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_token_must_be_shown_whole_on_every_address() {
        let token = Token::parse("s3cret\n").unwrap();
        for address in [LOOPBACK, ANY] {
            let admits =
                |value: &str| admit(Some(&token), address, &headers(&[(AUTHORIZATION, value)]));
            assert_eq!(admits("Bearer s3cret"), Ok(()));
            assert_eq!(admits("bearer  s3cret"), Ok(()));
            for wrong in [
                "Bearer s3cre",
                "Bearer s3crets",
                "Bearer",
                "Bearer ",
                "Basic s3cret",
                "s3cret",
                "ü",
            ] {
                assert_eq!(admits(wrong), Err(Refusal::Unauthorized), "{wrong}");
            }
            assert_eq!(
                admit(Some(&token), address, &HeaderMap::new()),
                Err(Refusal::Unauthorized)
            );
        }
        assert_eq!(Token::parse(" \n").unwrap_err(), EmptyToken);
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn without_a_token_only_loopback_asked_for_by_its_own_name() {
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        for host in [
            "127.0.0.1:9136",
            "localhost",
            "LOCALHOST:1",
            "[::1]:9136",
            "10.0.0.1",
        ] {
            for address in [LOOPBACK, mapped] {
                assert_eq!(
                    admit(None, address, &headers(&[(HOST, host)])),
                    Ok(()),
                    "{host}"
                );
            }
            assert_eq!(
                admit(None, ANY, &headers(&[(HOST, host)])),
                Err(Refusal::NotLoopback)
            );
        }
        assert_eq!(admit(None, LOOPBACK, &HeaderMap::new()), Ok(()));
        for host in [
            "evil.example:9136",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "",
        ] {
            assert_eq!(
                admit(None, LOOPBACK, &headers(&[(HOST, host)])),
                Err(Refusal::ForeignHost),
                "{host}"
            );
        }
    }
}
