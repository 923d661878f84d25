//! Pins: the reasons for which a session may not give its backend connection back.
//!
//! A session is pinned while at least one reason stands. Some reasons also decide what becomes of
//! the backend connection afterwards: what a reset does not undo must be closed.

use crate::reason::PinReason;

/// The set of reasons that stand for one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pins(u32);

/// What must be done with a pinned backend connection before anybody else may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleaning {
    /// Nothing: no reason ever stood, or what caused it is gone without a trace.
    None,
    /// `COM_RESET_CONNECTION` undoes it.
    Reset,
    /// No reset undoes it: the connection is closed.
    Close,
}

impl Pins {
    /// No reason.
    pub const NONE: Self = Self(0);

    /// Whether any reason stands.
    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether `reason` stands.
    pub const fn has(self, reason: PinReason) -> bool {
        self.0 & bit(reason) != 0
    }

    /// Adds a reason. `true`: it did not stand before.
    pub const fn add(&mut self, reason: PinReason) -> bool {
        let fresh = !self.has(reason);
        self.0 |= bit(reason);
        fresh
    }

    /// Removes a reason whose cause has ended. `true`: it stood until now.
    pub const fn remove(&mut self, reason: PinReason) -> bool {
        let stood = self.has(reason);
        self.0 &= !bit(reason);
        stood
    }

    /// The reasons that stand, in the order of their declaration.
    pub fn iter(self) -> impl Iterator<Item = PinReason> {
        PinReason::ALL
            .iter()
            .copied()
            .filter(move |&reason| self.has(reason))
    }

    /// The reasons that a `COM_RESET_CONNECTION` ends.
    pub fn ended_by_reset(self) -> impl Iterator<Item = PinReason> {
        self.iter()
            .filter(|&reason| cleaning(reason) as u8 <= Cleaning::Reset as u8)
    }

    /// What must happen to the backend connection when the session lets it go.
    pub fn cleaning(self) -> Cleaning {
        self.iter()
            .map(cleaning)
            .max_by_key(|c| *c as u8)
            .unwrap_or(Cleaning::None)
    }
}

impl FromIterator<PinReason> for Pins {
    fn from_iter<I: IntoIterator<Item = PinReason>>(reasons: I) -> Self {
        let mut pins = Self::default();
        for reason in reasons {
            pins.add(reason);
        }
        pins
    }
}

const fn bit(reason: PinReason) -> u32 {
    1 << reason.index()
}

/// What undoes the cause of a pin. `COM_RESET_CONNECTION` drops temporary tables, user variables,
/// prepared statements, handlers, every lock that a session owns (`GET_LOCK`, `FLUSH TABLES … WITH READ
/// LOCK`, `… FOR EXPORT`, `LOCK INSTANCE`, `BACKUP STAGE`, `BACKUP LOCK`) and what `LASTVAL` reads, and it
/// sets back all variables that are never replayed (measured on both servers); it keeps an active role
/// (hazard 6). A routine may have set one too, so a reset looks whether the login's is active. What a
/// resource group leaves [`Open`](super::open::Open) tells.
const fn cleaning(reason: PinReason) -> Cleaning {
    match reason {
        PinReason::Diagnostics | PinReason::RowCount | PinReason::ConnectionId => Cleaning::None,
        PinReason::Role | PinReason::LargeStatement | PinReason::NoTrackers => Cleaning::Close,
        PinReason::PreparedStatement
        | PinReason::UserVariable
        | PinReason::TemporaryTable
        | PinReason::Handler
        | PinReason::LockTables
        | PinReason::Lock
        | PinReason::SessionVariable
        | PinReason::SessionTrack
        | PinReason::Routine
        | PinReason::UnknownState => Cleaning::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_reason_decides_the_cleaning() {
        let pins: Pins = [PinReason::UserVariable, PinReason::Role]
            .into_iter()
            .collect();
        assert_eq!(pins.cleaning(), Cleaning::Close);
        let pins: Pins = [PinReason::UserVariable, PinReason::Diagnostics]
            .into_iter()
            .collect();
        assert_eq!(pins.cleaning(), Cleaning::Reset);
        assert_eq!(Pins::default().cleaning(), Cleaning::None);
    }

    #[test]
    fn reasons_come_and_go_once() {
        let mut pins = Pins::default();
        assert!(pins.add(PinReason::Lock) && !pins.add(PinReason::Lock));
        assert!(pins.remove(PinReason::Lock) && !pins.remove(PinReason::Lock));
        assert!(!pins.any());
    }

    #[test]
    fn every_reason_has_its_own_bit() {
        let all: Pins = PinReason::ALL.iter().copied().collect();
        assert_eq!(all.iter().count(), PinReason::ALL.len());
    }
}
