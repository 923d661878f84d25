//! Reading the fields of a packet one by one, each with a name for the error.

use bytes::{Buf, Bytes};

use super::{Attributes, HandshakeError};
use crate::protocol::packet::{take_lenenc_int, take_lenenc_str};

/// What is left of a packet, and its name for errors.
pub(super) struct Input<'a> {
    packet: &'static str,
    /// Not read yet.
    pub(super) rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) const fn new(packet: &'static str, rest: &'a [u8]) -> Self {
        Self { packet, rest }
    }

    pub(super) const fn malformed(&self, field: &'static str) -> HandshakeError {
        HandshakeError::Malformed {
            packet: self.packet,
            field,
        }
    }

    pub(super) fn bytes(
        &mut self,
        len: usize,
        field: &'static str,
    ) -> Result<&'a [u8], HandshakeError> {
        let (value, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(self.malformed(field))?;
        self.rest = rest;
        Ok(value)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, HandshakeError> {
        Ok(self.bytes(1, field)?.get_u8())
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, HandshakeError> {
        Ok(self.bytes(2, field)?.get_u16_le())
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, HandshakeError> {
        Ok(self.bytes(4, field)?.get_u32_le())
    }

    pub(super) fn u8_str(&mut self, field: &'static str) -> Result<Bytes, HandshakeError> {
        let len = usize::from(self.u8(field)?);
        Ok(Bytes::copy_from_slice(self.bytes(len, field)?))
    }

    pub(super) fn lenenc_str(&mut self, field: &'static str) -> Result<Bytes, HandshakeError> {
        let value = take_lenenc_str(&mut self.rest).ok_or(self.malformed(field))?;
        Ok(Bytes::copy_from_slice(value))
    }

    pub(super) fn nul_str(&mut self, field: &'static str) -> Result<Bytes, HandshakeError> {
        let end = memchr::memchr(0, self.rest).ok_or(self.malformed(field))?;
        let value = Bytes::copy_from_slice(&self.rest[..end]);
        self.rest = &self.rest[end + 1..];
        Ok(value)
    }

    /// A NUL-terminated string whose NUL may be missing at the end of the packet: some senders forget it.
    pub(super) fn nul_str_or_rest(&mut self) -> Bytes {
        let end = memchr::memchr(0, self.rest).unwrap_or(self.rest.len());
        let value = Bytes::copy_from_slice(&self.rest[..end]);
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        value
    }

    /// The attributes' area. Some clients leave it out altogether although they set the bit.
    pub(super) fn attributes(&mut self) -> Result<Attributes, HandshakeError> {
        if self.rest.is_empty() {
            return Ok(Attributes::new());
        }
        let error = self.malformed("attributes");
        let len = take_lenenc_int(&mut self.rest).ok_or(error.clone())?;
        let len = usize::try_from(len).map_err(|_| error.clone())?;
        let mut area = self.bytes(len, "attributes")?;
        let mut attributes = Attributes::new();
        while !area.is_empty() {
            let name = take_lenenc_str(&mut area).ok_or(error.clone())?;
            let value = take_lenenc_str(&mut area).ok_or(error.clone())?;
            attributes.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
        }
        Ok(attributes)
    }
}
