//! Decides whose fault it is when nodes cannot be reached: theirs, or Duffy's own network or key.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

/// So many nodes may leave their pools while there are no others to compare them with.
const FEW: usize = 2;
/// For how long a node counts that has left its pool.
const MEMORY: Duration = Duration::from_mins(10);

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The node's.
    Node,
    /// Probably Duffy's own.
    Own,
    /// The node's, if a login to most of a few others succeeds.
    AskOthers,
}

/// The nodes that cannot be reached.
#[derive(Debug, Default)]
pub(super) struct Reachability {
    lost: HashMap<i64, Lost>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// It is still in its pool.
    Ready,
    /// It left its pool at this time.
    Failed(Instant),
}

impl Reachability {
    /// Notes that a node answered, or is no longer ready.
    pub(super) fn forget(&mut self, node: i64) {
        self.lost.remove(&node);
    }

    /// Notes that a node cannot be reached.
    pub(super) fn note_loss(&mut self, node: i64) {
        self.lost.insert(node, Lost::Ready);
    }

    /// Notes that a node has left its pool. It counts for a while, because the nodes are not all lost at the same moment
    /// when Duffy's network breaks.
    pub(super) fn note_failure(&mut self, node: i64, now: Instant) {
        self.lost.insert(node, Lost::Failed(now));
    }

    /// Forgets nodes that failed long ago, and lost nodes that nobody watches.
    pub(super) fn tidy(&mut self, watched: &HashSet<i64>, now: Instant) {
        self.lost.retain(|node, lost| match lost {
            Lost::Ready => watched.contains(node),
            Lost::Failed(at) => now.duration_since(*at) < MEMORY,
        });
    }

    /// Returns the lost nodes.
    pub(super) fn lost(&self) -> Vec<i64> {
        self.lost.keys().copied().collect()
    }
}

/// Says whose fault it is that this number of nodes is lost, while `others` are ready.
pub(super) fn blame(lost: usize, others: usize) -> Fault {
    match others {
        0 if lost <= FEW => Fault::Node,
        0 => Fault::Own,
        _ if lost > others.max(FEW) => Fault::Own,
        _ => Fault::AskOthers,
    }
}

/// Whether most of the nodes that were asked answered.
pub(super) fn is_most(answered: usize, asked: usize) -> bool {
    answered * 2 > asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_nodes_are_not_at_fault() {
        for (lost, others, fault) in [
            // A small pool loses a node or two, and no more without a comparison.
            (1, 0, Fault::Node),
            (2, 0, Fault::Node),
            (3, 0, Fault::Own),
            (2, 1, Fault::AskOthers),
            (3, 1, Fault::Own),
            // A rack of a hundred nodes.
            (40, 60, Fault::AskOthers),
            (60, 40, Fault::Own),
        ] {
            assert_eq!(blame(lost, others), fault, "{lost} of {others} others");
        }
        assert!(is_most(1, 1) && is_most(2, 3));
        assert!(!is_most(0, 0) && !is_most(1, 2) && !is_most(1, 3));
    }

    #[test]
    fn nodes_that_failed_count_for_a_while() {
        let mut reachability = Reachability::default();
        let now = Instant::now();
        reachability.note_failure(1, now);
        reachability.note_loss(2);
        reachability.note_loss(3);
        reachability.note_loss(4);
        reachability.forget(4);
        reachability.tidy(&HashSet::from([2]), now);
        let mut lost = reachability.lost();
        lost.sort_unstable();
        assert_eq!(lost, [1, 2]);
        reachability.tidy(&HashSet::from([2]), now + MEMORY);
        assert_eq!(reachability.lost(), [2]);
    }
}
