//! The PROXY header, versions 1 and 2: who a load balancer says the client is.
//!
//! [`parse`] is sans-IO and tells how many more bytes are certainly part of the header, so that
//! [`read_header`] never reads past it: what follows belongs to the MySQL connection phase or TLS.
//! Source: HAProxy's "The PROXY protocol, versions 1 & 2", sections 2.1 and 2.2.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The 12 bytes that begin a version 2 header.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest version 1 header, with its line end (section 2.1).
const V1_MAX: usize = 107;

/// The longest version 2 body believed. The addresses take at most 216 bytes, the rest is for
/// extensions that are skipped; more than this is somebody filling memory.
const V2_BODY_MAX: usize = 4096;

/// No header is shorter: `PROXY UNKNOWN\r\n` has 15 bytes, version 2 has 16.
const SHORTEST: usize = 15;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The load balancer speaks for itself (a health check), or knows no address: the connection's
    /// own peer is the client.
    Local,
    /// The connection is made on behalf of `source`.
    Proxied {
        /// The client's address.
        source: SocketAddr,
        /// The address the client connected to.
        destination: SocketAddr,
    },
}

/// How far the parser came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// At least this many further bytes belong to the header.
    NeedAtLeast(usize),
    /// The header ends after `len` bytes.
    Done {
        /// What it says.
        header: ProxyHeader,
        /// Bytes it took.
        len: usize,
    },
}

/// Why bytes are not a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The bytes begin like neither version.
    #[error("no PROXY header at the start of the connection")]
    Missing,
    /// A version 1 line that is too long, or whose fields are wrong.
    #[error("malformed PROXY version 1 header")]
    MalformedV1,
    /// A version 2 header whose version, command or length is wrong.
    #[error("malformed PROXY version 2 header")]
    MalformedV2,
}

/// Why no header could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadHeaderError {
    /// The bytes are not a header.
    #[error(transparent)]
    Malformed(#[from] ProxyError),
    /// The connection ended or failed first.
    #[error("reading the PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Reads one header and not a byte more. Not cancel-safe: bytes read are lost with the future.
///
/// # Errors
/// [`ReadHeaderError`]; an end of stream is [`io::ErrorKind::UnexpectedEof`].
pub async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<ProxyHeader, ReadHeaderError> {
    let mut buf = Vec::with_capacity(V1_MAX);
    loop {
        match parse(&buf)? {
            Parsed::Done { header, .. } => return Ok(header),
            Parsed::NeedAtLeast(more) => {
                let have = buf.len();
                buf.resize(have + more, 0);
                stream.read_exact(&mut buf[have..]).await?;
            }
        }
    }
}

/// Parses the header at the start of `buf`.
///
/// # Errors
/// [`ProxyError`], as soon as the bytes show it.
pub fn parse(buf: &[u8]) -> Result<Parsed, ProxyError> {
    let common = buf.len().min(V2_SIGNATURE.len());
    if buf[..common] == V2_SIGNATURE[..common] && common > 0 {
        return parse_v2(buf);
    }
    let prefix = b"PROXY ";
    let common = buf.len().min(prefix.len());
    if buf[..common] != prefix[..common] {
        return Err(ProxyError::Missing);
    }
    parse_v1(buf)
}

fn parse_v1(buf: &[u8]) -> Result<Parsed, ProxyError> {
    if buf.len() < SHORTEST {
        return Ok(Parsed::NeedAtLeast(SHORTEST - buf.len()));
    }
    let line = &buf[..buf.len().min(V1_MAX)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        if buf.len() >= V1_MAX {
            return Err(ProxyError::MalformedV1);
        }
        // After a CR only the LF is certain, else both are.
        let more = if line.ends_with(b"\r") { 1 } else { 2 };
        return Ok(Parsed::NeedAtLeast(more));
    };
    let text = line[..end]
        .strip_suffix(b"\r")
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(ProxyError::MalformedV1)?;
    let header = v1_header(text).ok_or(ProxyError::MalformedV1)?;
    let len = end + 1;
    Ok(Parsed::Done { header, len })
}

fn v1_header(line: &str) -> Option<ProxyHeader> {
    let mut fields = line.split(' ').skip(1);
    let family = fields.next()?;
    if family == "UNKNOWN" {
        // Whatever else is on the line must be ignored.
        return Some(ProxyHeader::Local);
    }
    let [source, destination] = match family {
        "TCP4" => {
            let mut ip = || Some(IpAddr::V4(fields.next()?.parse::<Ipv4Addr>().ok()?));
            [ip()?, ip()?]
        }
        "TCP6" => {
            let mut ip = || Some(IpAddr::V6(fields.next()?.parse::<Ipv6Addr>().ok()?));
            [ip()?, ip()?]
        }
        _ => return None,
    };
    let mut port = || {
        let text = fields.next()?;
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (from, to) = (port()?, port()?);
    fields.next().is_none().then_some(ProxyHeader::Proxied {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

fn parse_v2(buf: &[u8]) -> Result<Parsed, ProxyError> {
    const FIXED: usize = 16;
    let Some(&fixed) = buf.first_chunk::<FIXED>() else {
        return Ok(Parsed::NeedAtLeast(FIXED - buf.len()));
    };
    let [.., command, family, len_high, len_low] = fixed;
    let body = usize::from(u16::from_be_bytes([len_high, len_low]));
    if command >> 4 != 2 || command & 0xf > 1 || body > V2_BODY_MAX {
        return Err(ProxyError::MalformedV2);
    }
    let len = FIXED + body;
    let Some(body) = buf.get(FIXED..len) else {
        return Ok(Parsed::NeedAtLeast(len - buf.len()));
    };
    let header = match (command & 0xf, family) {
        (1, 0x11) => v2_ipv4(body).ok_or(ProxyError::MalformedV2)?,
        (1, 0x21) => v2_ipv6(body).ok_or(ProxyError::MalformedV2)?,
        // LOCAL, Unix sockets, unspecified: the address is absent or says nothing about the network.
        _ => ProxyHeader::Local,
    };
    Ok(Parsed::Done { header, len })
}

fn v2_ipv4(body: &[u8]) -> Option<ProxyHeader> {
    let b = body.first_chunk::<12>()?;
    let source = Ipv4Addr::new(b[0], b[1], b[2], b[3]);
    let destination = Ipv4Addr::new(b[4], b[5], b[6], b[7]);
    Some(ProxyHeader::Proxied {
        source: SocketAddr::from((source, u16::from_be_bytes([b[8], b[9]]))),
        destination: SocketAddr::from((destination, u16::from_be_bytes([b[10], b[11]]))),
    })
}

fn v2_ipv6(body: &[u8]) -> Option<ProxyHeader> {
    let (&source, rest) = body.split_first_chunk::<16>()?;
    let (&destination, rest) = rest.split_first_chunk::<16>()?;
    let p = rest.first_chunk::<4>()?;
    Some(ProxyHeader::Proxied {
        source: SocketAddr::from((Ipv6Addr::from(source), u16::from_be_bytes([p[0], p[1]]))),
        destination: SocketAddr::from((
            Ipv6Addr::from(destination),
            u16::from_be_bytes([p[2], p[3]]),
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn done(buf: &[u8]) -> (ProxyHeader, usize) {
        match parse(buf) {
            Ok(Parsed::Done { header, len }) => (header, len),
            other => panic!("{other:?}"),
        }
    }

    fn proxied(source: &str, destination: &str) -> ProxyHeader {
        ProxyHeader::Proxied {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn version_1_lines() {
        let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 3306\r\n\x20\x00\x00\x01";
        assert_eq!(
            done(line),
            (
                proxied("192.168.0.1:56324", "192.168.0.11:3306"),
                line.len() - 4
            )
        );
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n";
        assert_eq!(done(line).0, proxied("[2001:db8::1]:1", "[::1]:65535"));
        assert_eq!(done(b"PROXY UNKNOWN\r\n"), (ProxyHeader::Local, 15));
        let line = b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n";
        assert_eq!(done(line).0, ProxyHeader::Local);
    }

    #[test]
    fn malformed_version_1_lines_are_refused() {
        for line in [
            &b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n"[..],
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 3306 1\r\n",
            b"PROXY TCP4 ::1 ::1 56324 3306\r\n",
            b"PROXY TCP4 192.168.0.1 192.168.0.11 +56324 3306\r\n",
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 65536\r\n",
            b"PROXY TCP4  192.168.0.1 192.168.0.11 56324 3306\r\n",
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 3306\n",
            b"PROXY UDP4 192.168.0.1 192.168.0.11 56324 3306\r\n",
            &[&b"PROXY "[..], &[b'1'; 101]].concat(),
        ] {
            assert_eq!(parse(line), Err(ProxyError::MalformedV1), "{line:?}");
        }
        assert_eq!(parse(b"\x20\x00\x00\x01\x85"), Err(ProxyError::Missing));
        assert_eq!(parse(b"proxy "), Err(ProxyError::Missing));
    }

    #[test]
    fn version_2_headers() {
        // PROXY, TCP over IPv4, with one extension (type 0x04, 1 byte) behind the addresses.
        let bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10\x0a\x00\x00\x07\x0a\x00\x00\x01\xdc\x04\x0c\xea\x04\x00\x01\x00REST";
        let expected = proxied("10.0.0.7:56324", "10.0.0.1:3306");
        assert_eq!(done(bytes), (expected, bytes.len() - 4));
        let mut v6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24".to_vec();
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend(b"\x00\x01\x0c\xea");
        assert_eq!(done(&v6).0, proxied("[::1]:1", "[2001:db8::1]:3306"));
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
        assert_eq!(done(local), (ProxyHeader::Local, 16));
        // A health check may carry addresses all the same; they mean nothing.
        let local =
            b"\r\n\r\n\0\r\nQUIT\n\x20\x11\x00\x0c\x0a\x00\x00\x07\x0a\x00\x00\x01\xdc\x04\x0c\xea";
        assert_eq!(done(local).0, ProxyHeader::Local);
    }

    #[test]
    fn malformed_version_2_headers_are_refused() {
        for tail in [
            &b"\x11\x11\x00\x0c"[..],            // version 1 in a version 2 header
            b"\x22\x11\x00\x0c",                 // no such command
            b"\x21\x11\xff\xff",                 // longer than is believed
            b"\x21\x11\x00\x04\x0a\x00\x00\x07", // too short for two addresses
        ] {
            let bytes = [&V2_SIGNATURE[..], tail].concat();
            assert_eq!(parse(&bytes), Err(ProxyError::MalformedV2), "{tail:?}");
        }
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_read() {
        for header in [
            &b"PROXY TCP4 10.0.0.7 10.0.0.1 56324 3306\r\n"[..],
            b"PROXY UNKNOWN\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
        ] {
            let bytes = [header, b"REST"].concat();
            let mut rest = &bytes[..];
            read_header(&mut rest).await.unwrap();
            assert_eq!(rest, b"REST");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, v2: bool) {
            let start = if v2 { &V2_SIGNATURE[..] } else { b"PROXY " };
            let _ = parse(&bytes);
            let _ = parse(&[start, &bytes].concat());
        }

        #[test]
        fn version_1_round_trips_and_cuts_ask_for_no_more_than_there_is(
            source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16), cut in 0..100usize,
        ) {
            let ((s, sp), (d, dp)) = (source, destination);
            let line = format!("PROXY TCP6 {s} {d} {sp} {dp}\r\n").into_bytes();
            let header = ProxyHeader::Proxied { source: (s, sp).into(), destination: (d, dp).into() };
            prop_assert_eq!(parse(&line), Ok(Parsed::Done { header, len: line.len() }));
            if cut < line.len() {
                match parse(&line[..cut]) {
                    Ok(Parsed::NeedAtLeast(more)) => prop_assert!(more > 0 && cut + more <= line.len()),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
