//! Whether what pins a session is still there: by what its statements open and close, and, after the
//! client has its answer, by asking the server.

use super::Session;
use super::finish::PARSE_ERROR;
use super::open::{Open, Outcome};
use super::pins::Pins;
use super::scan::{Deed, Deeds, deeds};
use super::work::Work;
use crate::backend::connection::StatementError;
use crate::backend::state::{Catalog, Class};
use crate::protocol::command::Command;
use crate::reason::PinReason;
use crate::relay::Answer;

/// Errors by which a server says that an account may not do that: for want of a privilege of the
/// server, on a table, on a database.
const DENIED: [u16; 3] = [1227, 1142, 1044];

impl Session {
    /// Notes what a statement has opened and closed. Of the reasons that this decides about, `pins`
    /// keeps those that stand, and the session loses those that do not.
    pub(super) fn note_open(
        &mut self,
        answer: &Answer,
        work: &Work,
        pins: &mut Pins,
        unexplained: bool,
    ) {
        let never_replayed = self.take_never_replayed();
        let concerned = Open::REASONS.iter().any(|&reason| pins.has(reason));
        if self.pinned.open.is_none() && !concerned && never_replayed.is_empty() {
            return;
        }
        let mut open = self.pinned.open.take().unwrap_or_default();
        for name in &never_replayed {
            open.changed(name);
        }
        let found = match concerned || !is_bulk(work.text()) {
            true => deeds(work.text(), work.lex(self.carried.lex)),
            false => Deeds {
                calls: true,
                ..Deeds::default()
            },
        };
        if work.command == Command::StmtPrepare || work.text().is_empty() || found.doubtful {
            // What is only prepared may run any time.
            for reason in Open::REASONS {
                if pins.has(reason) {
                    open.doubt(reason);
                }
            }
        }
        if work.command != Command::StmtPrepare {
            let outcome = match answer.error().map(|error| error.code) {
                None => Outcome::Done { rows: answer.rows },
                Some(PARSE_ERROR) if answer.status.is_none() => Outcome::NotRun,
                Some(code) if DENIED.contains(&code) => Outcome::Denied,
                Some(_) => Outcome::Failed,
            };
            open.note(&found, outcome, self.current_database());
            if unexplained && (found.calls || work.text().is_empty()) {
                open.unexplained();
            }
        }
        for reason in Open::REASONS {
            if open.holds(reason) {
                pins.add(reason);
            } else {
                pins.remove(reason);
                self.unpin(reason);
            }
        }
        if open.holds(PinReason::SessionVariable) {
            pins.add(PinReason::SessionVariable);
        }
        self.pinned.open = Some(open).filter(|open| !open.is_empty());
    }

    /// Whether the statement does nothing but drop tables. `DROP TEMPORARY TABLE IF EXISTS` reports a change
    /// on both servers, even if there was none to drop.
    pub(super) fn only_drops(&self, work: &Work) -> bool {
        let found = deeds(work.text(), work.lex(self.carried.lex));
        let drops = |deed: &Deed<'_>| matches!(deed, Deed::Drop(..));
        !found.doubtful && !found.calls && !found.list.is_empty() && found.list.iter().all(drops)
    }

    /// Takes the names of variables that are never replayed out of those to be read back.
    fn take_never_replayed(&mut self) -> Vec<Box<[u8]>> {
        let Some(hold) = &mut self.hold else {
            return Vec::new();
        };
        let names = &mut hold.pending.names;
        if names.is_empty() {
            return Vec::new();
        }
        let facts = hold.lease.facts();
        names
            .extract_if(.., |name| is_never_replayed(&facts.catalog, name))
            .collect()
    }

    /// The current database of the held connection, if it has one.
    fn current_database(&self) -> Option<&[u8]> {
        match &self.hold.as_ref()?.pending.schema {
            Some(reported) => reported.as_deref(),
            None => self.carried.state.schema().map(|name| &name[..]),
        }
    }

    /// Asks the server about those pins whose causes may have ended unseen: user-level locks, of which
    /// only the server knows how often they were taken, and variables that were set back.
    ///
    /// # Errors
    /// [`StatementError`]: the session's own state is then unknown.
    pub(super) async fn review_pins(&mut self) -> Result<(), StatementError> {
        let pins = self.pinned.pins;
        // With its own trackers off, or with none, a settled connection is not told from another.
        if pins.has(PinReason::SessionTrack) || pins.has(PinReason::NoTrackers) {
            return Ok(());
        }
        if pins.has(PinReason::SessionVariable) {
            self.review_variables().await?;
        }
        let only_lock = [PinReason::Lock].into_iter().collect();
        if self.pinned.pins == only_lock {
            self.review_locks().await?;
        }
        Ok(())
    }

    async fn review_variables(&mut self) -> Result<(), StatementError> {
        let open = self.pinned.open.as_ref();
        if open.is_some_and(|open| open.holds(PinReason::SessionVariable)) {
            return Ok(());
        }
        let Some(hold) = &self.hold else {
            return Ok(());
        };
        if !hold.pending.names.is_empty() || hold.pending.everything {
            self.settle().await?;
        }
        let reason = self.carried.state.pin_reason(&self.login.first);
        if reason != Some(PinReason::SessionVariable) {
            self.unpin(PinReason::SessionVariable);
        }
        Ok(())
    }

    async fn review_locks(&mut self) -> Result<(), StatementError> {
        let Some(hold) = &self.hold else {
            return Ok(());
        };
        let thread = hold.lease.thread_id().into();
        let open = self.pinned.open.as_ref();
        let Some(question) = open.and_then(|open| open.lock_question(thread)) else {
            return Ok(());
        };
        // What the client may still ask about its own statement is saved first.
        self.settle().await?;
        let (Some(hold), Some(open)) = (&mut self.hold, &mut self.pinned.open) else {
            return Ok(());
        };
        hold.lease.put_query(question.as_bytes());
        hold.lease.send().await?;
        let set = hold.lease.read_rows().await?;
        hold.pending.asked();
        let row = set.rows.first().ok_or(StatementError::NoRow)?;
        // 1 in any character set; NULL: nobody has it.
        let held = |column: &Option<bytes::Bytes>| {
            column.as_ref().is_some_and(|value| value.contains(&b'1'))
        };
        open.answer_locks(&row.iter().map(held).collect::<Vec<_>>());
        if !open.holds(PinReason::Lock) {
            self.unpin(PinReason::Lock);
        }
        if self
            .pinned
            .open
            .as_ref()
            .is_some_and(|open| open.is_empty())
        {
            self.pinned.open = None;
        }
        Ok(())
    }
}

/// A long single statement about rows: it opens nothing that its flags have not told, and what it may
/// release is asked for behind another.
fn is_bulk(sql: &[u8]) -> bool {
    const LONG: usize = 4096;
    const ROWS: [&[u8]; 4] = [b"insert", b"replace", b"update", b"delete"];
    let head = |word: &&[u8]| {
        sql.get(..word.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    sql.len() > LONG && ROWS.iter().any(head) && memchr::memchr(b';', sql).is_none()
}

fn is_never_replayed(catalog: &Catalog, name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| catalog.class(name) == Some(Class::NeverReplayed))
}
