//! Which of several routes a command takes: a pure function over what is known of each.

use sledge_nvme::log_page::AnaState;

use super::options::{PathMode, PathPolicy, PathSelector};

/// What is known of a route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Its state, if it can take a command now.
    pub(crate) usable: Option<AnaState>,
    pub(crate) preferred: bool,
    pub(crate) outstanding: usize,
}

/// Where the last commands went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    at: usize,
    /// Commands there in a row.
    run: u32,
}

/// How good a route is; higher is better.
fn rank(candidate: &Candidate) -> u8 {
    match candidate.usable {
        Some(AnaState::Optimized) => 2,
        Some(AnaState::NonOptimized) => 1,
        _ => 0,
    }
}

/// Chooses among `count` routes; none when no route can take a command. Optimized routes come before the others; the
/// preferred one comes before those of its state, and so does, without failback, the one in use.
pub(crate) fn choose(
    policy: &PathPolicy,
    failback: bool,
    cursor: &mut Cursor,
    count: usize,
    candidate: impl Fn(usize) -> Candidate,
) -> Option<usize> {
    if count == 1 {
        // Nearly always so.
        return (rank(&candidate(0)) > 0).then_some(0);
    }
    let best = (0..count).map(|at| rank(&candidate(at))).max().filter(|best| *best > 0)?;
    let good = |at: &usize| rank(&candidate(*at)) == best;
    let chosen = match (policy.mode, policy.selector) {
        (PathMode::ActivePassive, _) => {
            let preferred = (0..count).filter(good).find(|at| candidate(*at).preferred);
            let stay = Some(cursor.at).filter(|at| !failback && *at < count && good(at));
            preferred.or(stay).or_else(|| (0..count).find(good))
        }
        (PathMode::ActiveActive, PathSelector::QueueDepth) => {
            // From the one after the last on, so that idle routes take turns.
            let turns = (1..=count).map(|step| (cursor.at + step) % count);
            turns.filter(good).min_by_key(|at| candidate(*at).outstanding)
        }
        (PathMode::ActiveActive, PathSelector::RoundRobin) => {
            let stay = cursor.run < policy.min_io.max(1) && cursor.at < count && good(&cursor.at);
            let next = || (1..=count).map(|step| (cursor.at + step) % count).find(good);
            if stay { Some(cursor.at) } else { next() }
        }
    }?;
    cursor.run = if chosen == cursor.at { cursor.run.saturating_add(1) } else { 1 };
    if policy.min_io.max(1) < cursor.run && chosen == cursor.at {
        cursor.run = 1;
    }
    cursor.at = chosen;
    Some(chosen)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NO: Candidate = Candidate { usable: None, preferred: false, outstanding: 0 };
    const GOOD: Candidate = Candidate { usable: Some(AnaState::Optimized), ..NO };
    const POOR: Candidate = Candidate { usable: Some(AnaState::NonOptimized), ..NO };

    fn run(policy: PathPolicy, failback: bool, cursor: &mut Cursor, routes: &[Candidate]) -> Option<usize> {
        choose(&policy, failback, cursor, routes.len(), |at| routes[at])
    }

    // Deleting this lets I/O go over a path that is inaccessible, or slow while a better one is there.
    #[test]
    fn the_best_state_comes_first() {
        let passive = PathPolicy::default();
        let mut cursor = Cursor::default();
        assert_eq!(run(passive, true, &mut cursor, &[NO, POOR, GOOD]), Some(2));
        assert_eq!(run(passive, true, &mut cursor, &[NO, POOR, NO]), Some(1));
        assert_eq!(run(passive, true, &mut cursor, &[NO, NO]), None);
        assert_eq!(run(passive, true, &mut cursor, &[]), None);
        let closed = Candidate { usable: Some(AnaState::Inaccessible), preferred: true, ..NO };
        assert_eq!(run(passive, true, &mut cursor, &[closed, POOR]), Some(1));
        let preferred = Candidate { preferred: true, ..GOOD };
        assert_eq!(run(passive, true, &mut cursor, &[GOOD, preferred]), Some(1));
        // Back to the first when it returns, or not.
        assert_eq!(run(passive, true, &mut cursor, &[GOOD, GOOD]), Some(0));
        assert_eq!(run(passive, false, &mut cursor, &[NO, GOOD]), Some(1));
        assert_eq!(run(passive, false, &mut cursor, &[GOOD, GOOD]), Some(1));
    }

    // Deleting this lets one of several good paths carry all I/O.
    #[test]
    fn good_paths_share() {
        let policy =
            PathPolicy { mode: PathMode::ActiveActive, selector: PathSelector::RoundRobin, min_io: 2 };
        let mut cursor = Cursor::default();
        let order: Vec<_> =
            (0..8).map(|_| run(policy, true, &mut cursor, &[GOOD, POOR, GOOD]).unwrap()).collect();
        assert_eq!(order, [0, 0, 2, 2, 0, 0, 2, 2]);
        let policy = PathPolicy { selector: PathSelector::QueueDepth, ..policy };
        let busy = Candidate { outstanding: 5, ..GOOD };
        assert_eq!(run(policy, true, &mut cursor, &[busy, GOOD, POOR]), Some(1));
        assert_eq!(run(policy, true, &mut cursor, &[NO, NO, POOR]), Some(2));
    }
}
