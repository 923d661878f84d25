//! Who is the writer and who reads: elections after every probe, and what follows from a change.

use std::sync::Arc;

use tracing::{info, warn};

use super::targets::{Member, Targets};
use crate::admin::{Latch, Readiness};
use crate::backend::election::{Election, elect};
use crate::backend::probe::{Condition, Latest, Standing};
use crate::config::Role;
use crate::metrics::BackendRole;
use crate::reason::RetireReason;

/// What the last probes led to.
#[derive(Debug, Default)]
pub(super) struct Roles {
    election: Option<Election>,
    /// Where writes went last, whether they still can or not.
    incumbent: Option<usize>,
    usable: Usable,
}

/// Whether any backend can be used.
#[derive(Debug, Default)]
enum Usable {
    /// Nobody has answered yet, and the latch of the start is still held.
    #[default]
    NotYet,
    Yes,
    No(#[expect(dead_code, reason = "opens when it is dropped")] Latch),
}

impl Targets {
    /// Follows the probes' results for ever.
    pub(super) async fn follow_probes(self: Arc<Self>, readiness: Readiness) {
        let mut roles = Roles::default();
        loop {
            self.probed.notified().await;
            self.look_again(&mut roles, &readiness);
        }
    }

    /// Draws the conclusions from what the probes say now.
    pub(super) fn look_again(&self, roles: &mut Roles, readiness: &Readiness) {
        let members = self.members().iter();
        let conditions: Vec<Condition> = members.map(Member::condition).collect();
        for (member, condition) in self.members().iter().zip(&conditions) {
            member.note_condition(condition);
        }
        self.judge_readiness(&mut roles.usable, &conditions, readiness);
        // One server serves all, whatever it is. Of several the first to answer need not be the right one.
        let asked = conditions.iter().all(|one| one.latest != Latest::None);
        if conditions.len() < 2 || !asked {
            return;
        }
        let election = elect(&conditions, roles.incumbent);
        if roles.election.as_ref() != Some(&election) {
            self.announce(roles.election.as_ref(), &election);
            self.put_in_force(roles.election.as_ref(), &election);
            roles.incumbent = election.writer.or(roles.incumbent);
            roles.election = Some(election);
        }
    }

    fn judge_readiness(
        &self,
        usable: &mut Usable,
        conditions: &[Condition],
        readiness: &Readiness,
    ) {
        let is_down = |one: &Condition| matches!(one.standing, Standing::Down(_));
        let all_down = conditions.iter().all(is_down);
        match usable {
            Usable::NotYet if conditions.iter().any(Condition::is_known) => *usable = Usable::Yes,
            Usable::Yes if all_down => {
                warn!("not ready: no database server can be reached");
                *usable = Usable::No(self.latch(readiness));
            }
            Usable::No(_) if !all_down => {
                info!("ready again: a database server can be reached");
                *usable = Usable::Yes;
            }
            Usable::NotYet | Usable::Yes | Usable::No(_) => {}
        }
    }

    fn announce(&self, before: Option<&Election>, now: &Election) {
        let name = |at: usize| &*self.members()[at].name;
        let names = |places: &[usize]| {
            let names: Vec<_> = places.iter().map(|&at| name(at)).collect();
            names.join(", ")
        };
        let was = before.and_then(|before| before.writer);
        match now.writer {
            Some(writer) if was != now.writer || before.is_none() => {
                let was = was.map(name);
                info!(
                    writer = name(writer),
                    was, "clients' writes go to this server"
                );
            }
            None if was.is_some() || before.is_none() => {
                warn!(
                    was = was.map(name),
                    "no server accepts writes: commands wait up to pool.borrow_timeout for one"
                );
            }
            Some(_) | None => {}
        }
        if before.is_none_or(|before| before.readers != now.readers) {
            info!(
                readers = names(&now.readers),
                "readers' clients go to these servers"
            );
        }
        if !now.rivals.is_empty() && before.is_none_or(|before| before.rivals != now.rivals) {
            warn!(
                writer = now.writer.map(name),
                rivals = names(&now.rivals),
                "several servers accept writes; the one in use stays: \
                 make the others read-only, or their data differs"
            );
        }
        if !now.doubtful.is_empty() && before.is_none_or(|before| before.doubtful != now.doubtful) {
            warn!(
                servers = names(&now.doubtful),
                "replicas without read_only are not taken as the writer, since what is written there is \
                 lost for their source; set read_only on replicas, or stop replication on the new writer"
            );
        }
    }

    fn put_in_force(&self, before: Option<&Election>, now: &Election) {
        let targets = |places: &[usize]| {
            let targets = places.iter().map(|&at| self.members()[at].target.clone());
            targets.collect::<Vec<_>>()
        };
        let writer: Vec<usize> = now.writer.into_iter().collect();
        self.route(Role::Writer).set(targets(&writer));
        self.route(Role::Reader).set(targets(&now.readers));
        for (at, member) in self.members().iter().enumerate() {
            let role = match () {
                () if now.writer == Some(at) => BackendRole::Writer,
                () if now.readers.contains(&at) => BackendRole::Reader,
                () => BackendRole::Unknown,
            };
            member.set_role(role);
            let lost = before.is_some_and(|before| {
                let wrote = before.writer == Some(at) && now.writer != Some(at);
                let read = before.readers.contains(&at) && role == BackendRole::Unknown;
                wrote || read
            });
            if lost {
                let pool = member.target.pool();
                let idle = pool.retire_keys(|_| true, RetireReason::TargetLost);
                info!(
                    backend = member.name,
                    idle, "backend connections are closed: those in use when they are returned"
                );
            }
        }
    }
}
