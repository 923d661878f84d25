//! Makes a script that shows a difference as short as it can be.

use super::run::{Difference, run};
use super::script::Script;
use super::stage::Stage;

/// So many runs are enough for what one finds by removing steps.
const RUNS: usize = 400;

/// The shortest script found that still differs, and how.
pub(super) async fn shrink(
    stage: &mut Stage,
    script: &Script,
    difference: &Difference,
) -> (Script, Difference) {
    let mut best = (script.clone(), difference.clone());
    best.0.steps.truncate(difference.at + 1);
    let mut runs = 0;
    // All other clients at once, then ever smaller pieces, then what single steps are left.
    for client in 0..script.clients.len() {
        let mut less = best.0.clone();
        less.steps.retain(|step| step.client != client);
        attempt(stage, less, &mut best, &mut runs).await;
    }
    let mut size = best.0.steps.len().div_ceil(2);
    while size > 0 && runs < RUNS {
        let mut at = 0;
        let before = best.0.steps.len();
        while at < best.0.steps.len() && runs < RUNS {
            let mut less = best.0.clone();
            less.steps.drain(at..(at + size).min(less.steps.len()));
            if !attempt(stage, less, &mut best, &mut runs).await {
                at += size;
            }
        }
        if size > 1 || best.0.steps.len() == before {
            size /= 2;
        }
    }
    best
}

/// Takes a script if it differs too.
async fn attempt(
    stage: &mut Stage,
    less: Script,
    best: &mut (Script, Difference),
    runs: &mut usize,
) -> bool {
    *runs += 1;
    if less.steps.is_empty() {
        return false;
    }
    let Some(difference) = run(stage, &less, 1).await.difference else {
        return false;
    };
    *best = (less, difference.clone());
    best.0.steps.truncate(difference.at + 1);
    true
}
