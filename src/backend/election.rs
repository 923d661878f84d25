//! Which backends serve writes and reads, decided from what probes say. No I/O.

use super::probe::{Condition, Promotion, Replication, Standing};

/// Who serves whom: places in the list of backends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Election {
    /// Where writes go; `None`: nowhere at the moment.
    pub writer: Option<usize>,
    /// Where reads go: the replicas, else the writer.
    pub readers: Vec<usize>,
    /// Writable servers that follow nobody and are not the writer: two of them take writes that the other does not have.
    pub rivals: Vec<usize>,
    /// Writable servers that follow another one and were therefore not taken as the writer, though there is none.
    pub doubtful: Vec<usize>,
}

/// Elects. `incumbent` is where writes went until now.
///
/// 1. The incumbent stays as long as it accepts writes, or answers without saying what it is while nobody else does.
/// 2. Else the first that accepts writes and follows nobody.
/// 3. Else one that accepts writes although it follows another server, but only if that cannot be a replica on which
///    `read_only` was forgotten: somebody made it writable while Sidepool looked on, or all others are up and read-only.
///    A write on a forgotten replica is lost for its source.
pub fn elect(conditions: &[Condition], incumbent: Option<usize>) -> Election {
    let writable = |at: usize| conditions[at].standing == Standing::Writer;
    let independent = |at: usize| writable(at) && !follows(&conditions[at]);
    let places = 0..conditions.len();
    let stays = incumbent.filter(|&at| {
        let alone = || {
            !places
                .clone()
                .any(|other| other != at && independent(other))
        };
        writable(at) || conditions[at].standing == Standing::Unknown && alone()
    });
    let others_read_only = |at: usize| {
        let mut others = places.clone().filter(|&other| other != at);
        others.all(|other| conditions[other].standing == Standing::Replica)
    };
    let meant = |at: &usize| {
        writable(*at) && (conditions[*at].promotion == Promotion::Possible || others_read_only(*at))
    };
    let writer = stays
        .or_else(|| places.clone().find(|&at| independent(at)))
        .or_else(|| places.clone().find(meant));
    let is_reader = |at: &usize| {
        let condition = &conditions[*at];
        let reads = match condition.standing {
            Standing::Replica => true,
            Standing::Writer => follows(condition),
            Standing::Unknown | Standing::Down(_) => false,
        };
        Some(*at) != writer && reads && condition.replication != Replication::Stopped
    };
    let mut readers: Vec<usize> = places.clone().filter(is_reader).collect();
    if readers.is_empty() {
        readers.extend(writer);
    }
    let doubtful = |at: &usize| writer.is_none() && writable(*at);
    Election {
        writer,
        readers,
        rivals: places
            .clone()
            .filter(|&at| Some(at) != writer && independent(at))
            .collect(),
        doubtful: places.clone().filter(doubtful).collect(),
    }
}

fn follows(condition: &Condition) -> bool {
    matches!(condition.replication, Replication::Running { .. })
}

#[cfg(test)]
mod tests {
    use super::super::probe::DownReason;
    use super::*;
    use tokio::time::Instant;

    const FOLLOWS: Replication = Replication::Running { lag: None };
    const DOWN: Standing = Standing::Down(DownReason::Unreachable);

    fn is(standing: Standing, replication: Replication) -> Condition {
        Condition {
            standing,
            replication,
            ..Condition::new(Instant::now())
        }
    }

    fn promoted(mut condition: Condition) -> Condition {
        condition.promotion = Promotion::Possible;
        condition
    }

    fn writer() -> Condition {
        is(Standing::Writer, Replication::None)
    }

    fn replica() -> Condition {
        is(Standing::Replica, FOLLOWS)
    }

    fn down() -> Condition {
        is(DOWN, Replication::None)
    }

    fn served(conditions: &[Condition], incumbent: Option<usize>) -> (Option<usize>, Vec<usize>) {
        let election = elect(conditions, incumbent);
        (election.writer, election.readers)
    }

    #[test]
    fn the_writable_one_writes_and_the_others_read() {
        let unknown = is(Standing::Unknown, Replication::None);
        assert_eq!(
            elect(&[unknown.clone(), unknown.clone()], None),
            Election::default()
        );
        assert_eq!(served(&[replica(), writer()], None), (Some(1), vec![0]));
        assert_eq!(
            served(&[writer(), replica(), replica()], Some(0)),
            (Some(0), vec![1, 2])
        );
        // Nobody reads where replication has stopped, nobody replicates, or nobody answers.
        let stopped = is(Standing::Replica, Replication::Stopped);
        for other in [stopped, down(), unknown] {
            assert_eq!(served(&[writer(), other], None), (Some(0), vec![0]));
        }
        // What the monitor may not see is no reason against a replica (nor is a cluster without replication).
        for replication in [Replication::Hidden, Replication::None] {
            let other = is(Standing::Replica, replication);
            assert_eq!(served(&[writer(), other], None), (Some(0), vec![1]));
        }
        assert_eq!(served(&[replica(), replica()], Some(0)), (None, vec![0, 1]));
        assert_eq!(served(&[down(), down()], Some(0)), (None, vec![]));
    }

    #[test]
    fn of_two_writers_the_one_in_use_stays() {
        let both = [writer(), writer()];
        for incumbent in [0, 1] {
            let election = elect(&both, Some(incumbent));
            assert_eq!(election.writer, Some(incumbent));
            assert_eq!(election.rivals, [1 - incumbent]);
            assert_eq!(election.readers, [incumbent], "a rival's data is its own");
        }
        let election = elect(&both, None);
        assert_eq!((election.writer, election.rivals), (Some(0), vec![1]));
        // An old writer that comes back writable does not get its clients back.
        assert_eq!(elect(&[writer(), writer()], Some(1)).writer, Some(1));
    }

    #[test]
    fn a_writer_that_cannot_be_asked_stays_until_there_is_another() {
        let mute = is(Standing::Unknown, Replication::None);
        assert_eq!(elect(&[mute.clone(), replica()], Some(0)).writer, Some(0));
        assert_eq!(elect(&[mute.clone(), writer()], Some(0)).writer, Some(1));
        assert_eq!(elect(&[mute, replica()], None).writer, None);
        assert_eq!(elect(&[down(), replica()], Some(0)).writer, None);
    }

    #[test]
    fn a_replica_on_which_read_only_was_forgotten_never_becomes_the_writer() {
        let forgotten = is(Standing::Writer, FOLLOWS);
        let election = elect(&[writer(), forgotten.clone()], None);
        assert_eq!((election.writer, election.readers), (Some(0), vec![1]));
        assert!(election.rivals.is_empty());
        let election = elect(&[down(), forgotten.clone()], Some(0));
        assert_eq!((election.writer, election.readers), (None, vec![1]));
        assert_eq!(election.doubtful, [1]);
        // Made writable while Sidepool looked on; or it follows a read-only partner.
        let meant = promoted(forgotten.clone());
        assert_eq!(elect(&[down(), meant.clone()], Some(0)).writer, Some(1));
        assert_eq!(elect(&[replica(), forgotten], None).writer, Some(1));
        // Not before the old writer is gone.
        assert_eq!(elect(&[writer(), meant], Some(0)).writer, Some(0));
    }
}
