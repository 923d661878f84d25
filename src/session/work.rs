//! A command of the client's on its way to a server.

use bytes::BytesMut;
use tokio::time::Instant;

use super::plan::Plan;
use super::scan::LexMode;
use super::statements::text::NamesWork;
use super::statements::{Errand, Text};
use crate::protocol::command::Command;

/// A command to be carried out.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) command: Command,
    pub(super) body: Body,
    pub(super) plan: Plan,
    /// When its first byte had come.
    pub(super) began: Instant,
    pub(super) text: Text,
    /// What it does to statements prepared by SQL text.
    pub(super) names: Option<Box<NamesWork>>,
    /// What it has to do with prepared statements.
    pub(super) errand: Option<Errand>,
}

impl Work {
    /// A command in one packet, without SQL that anybody looks at.
    pub(super) const fn plain(command: Command, packet: BytesMut, began: Instant) -> Self {
        Self {
            command,
            body: Body::Whole(packet),
            plan: Plan::PLAIN,
            began,
            text: Text::None,
            names: None,
            errand: None,
        }
    }

    /// A command in several packets.
    pub(super) const fn streamed(command: Command, began: Instant) -> Self {
        Self {
            command,
            body: Body::Streamed,
            plan: Plan::PLAIN,
            began,
            text: Text::None,
            names: None,
            errand: None,
        }
    }

    /// The one or the other.
    pub(super) fn of(command: Command, packet: Option<BytesMut>, began: Instant) -> Self {
        match packet {
            Some(packet) => Self::plain(command, packet, began),
            None => Self::streamed(command, began),
        }
    }

    /// The text of the statement that is run or prepared; empty where it has none.
    pub(super) fn text(&self) -> &[u8] {
        match (&self.body, &self.text) {
            (Body::Whole(packet), Text::At(at)) => packet.get(*at..).unwrap_or_default(),
            (_, Text::Of(key, _)) => key.text(),
            (_, Text::Inner(text, _)) => text,
            _ => &[],
        }
    }

    /// How its text is to be read, if the session's next is to be read as `now`.
    pub(super) const fn lex(&self, now: LexMode) -> LexMode {
        match &self.text {
            Text::Of(_, then) | Text::Inner(_, then) => *then,
            Text::None | Text::At(_) => now,
        }
    }

    /// Bytes of the command, headers included, as far as they are known here.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Whole(packet) => packet.len(),
            Body::Streamed => 0,
        }
    }
}

/// The command's bytes.
#[derive(Debug)]
pub(super) enum Body {
    /// Its one packet, header and all.
    Whole(BytesMut),
    /// Still in the client's input and stream, in one or several packets; to be streamed.
    Streamed,
}
