//! User variables and routines: what a statement may have set or created that no tracker names.
//!
//! Trackers never name a user variable; `SET @a` reports a change of state and nothing else, `:=` and
//! `INTO @a` not even that, and neither do triggers, functions and routines (measured on both servers).
//! So names come from the statement, from what the session carries, and on MariaDB from the server's list.

use super::Session;
use super::pins::Pins;
use super::scan::{Mentions, mentions, runs_code};
use super::work::Work;
use crate::backend::state::{MOST_VARIABLES, Value, is_plain_name};
use crate::protocol::command::Command;
use crate::reason::PinReason;
use crate::relay::Answer;

/// Reasons whose causes [`BackendConnection::put_created`] counts.
///
/// [`BackendConnection::put_created`]: crate::backend::connection::BackendConnection::put_created
const CREATORS: [PinReason; 4] = [
    PinReason::TemporaryTable,
    PinReason::PreparedStatement,
    PinReason::Handler,
    PinReason::Routine,
];

impl Session {
    /// Whether a `CALL` need not pin: MariaDB shows what it leaves, or the operator trusts the routines.
    pub(super) fn watches_routines(&mut self) -> bool {
        self.is_mariadb() || self.effective().trust_routines
    }

    /// Notes which user variables must be read back. `true`: the state changed, and these do not explain
    /// it either.
    pub(super) fn note_variables(
        &mut self,
        answer: &Answer,
        work: &Work,
        unexplained: bool,
    ) -> bool {
        let after = work.plan.after;
        let carries = !self.carried.state.user().is_empty();
        let pins = work.plan.pins.any();
        let creates = CREATORS.iter().any(|&reason| work.plan.pins.has(reason));
        if !after.user_variables && !after.routine && !carries && !unexplained && !pins {
            return false;
        }
        let named = match after.user_variables {
            true => mentions(work.text(), work.lex(self.carried.lex)),
            false => Mentions::default(),
        };
        if named.assigns {
            self.note_names(&named, work.text());
        }
        // It went past without being kept to be read.
        if after.user_variables && work.text().is_empty() {
            self.pin_for_variables(b"");
        }
        if carries && self.runs_code(work) {
            self.note_own_names();
        }
        let lists = self.is_mariadb();
        let Some(hold) = &mut self.hold else {
            return unexplained;
        };
        // What these pin for is counted with what they create.
        hold.pending.user.recount |= lists && creates;
        if after.routine {
            if lists {
                hold.pending.user.list = true;
                // MariaDB's trackers are silent about `SET @@x = DEFAULT`.
                hold.pending.everything = true;
                if answer.trackers.state_changed() || answer.error().is_some() {
                    hold.pending.user.residue = Some(PinReason::Routine);
                }
            }
            return false;
        }
        if !unexplained || named.assigns && named.only_assigns {
            return false;
        }
        // A trigger or a function has set a variable, or has created something.
        let runs = matches!(
            work.command,
            Command::Query | Command::StmtExecute | Command::StmtBulkExecute
        );
        // What a pin's own causes create is not told from what hides behind them.
        let listed = lists && !pins && runs && !self.pinned.pins.any();
        if listed {
            hold.pending.user.list = true;
            hold.pending
                .user
                .residue
                .get_or_insert(PinReason::UnknownState);
        }
        !listed
    }

    /// Whether the session is pinned for nothing but the size or number of its user variables, and these
    /// may have changed.
    pub(super) fn may_carry_variables_again(&self) -> bool {
        let alone: Pins = [PinReason::UserVariable].into_iter().collect();
        let changed = |unread: &super::pending::Unread| !unread.names.is_empty();
        self.pinned.pins == alone
            && !self.pinned.odd_variables
            && self
                .hold
                .as_ref()
                .is_some_and(|hold| changed(&hold.pending.user))
    }

    /// Pins the session for user variables that cannot be carried.
    pub(super) fn pin_for_variables(&mut self, text: &[u8]) {
        self.pinned.odd_variables = true;
        self.pin(PinReason::UserVariable, text);
    }

    fn note_names(&mut self, named: &Mentions, text: &[u8]) {
        let client = self.carried.state.get_named("character_set_client");
        // Under `swe7` names are read in another alphabet.
        let foreign = client.and_then(Value::as_bytes) == Some(b"swe7");
        let Some(hold) = &mut self.hold else { return };
        let names = &mut hold.pending.user.names;
        let mut odd = named.others || foreign || !hold.lease.takes_user_variables();
        for name in &named.names {
            let full = names.len() >= MOST_VARIABLES && !names.contains(name);
            match is_plain_name(name) && !full && !foreign {
                true => drop(names.insert(name.clone())),
                false => odd = true,
            }
        }
        if odd {
            self.pin_for_variables(text);
        }
    }

    fn note_own_names(&mut self) {
        let Some(hold) = &mut self.hold else { return };
        let names = self.carried.state.user().names();
        hold.pending.user.names.extend(names.map(Box::from));
    }

    /// Whether the command may have run code that sets variables it does not name.
    fn runs_code(&self, work: &Work) -> bool {
        match work.command {
            // One that went past without being kept to be read may have done anything.
            Command::Query | Command::StmtExecute => {
                work.text().is_empty() || runs_code(work.text(), work.lex(self.carried.lex))
            }
            Command::StmtBulkExecute => true,
            _ => false,
        }
    }
}
