//! Shares the worker's slots among pools, so that work that hangs in one pool does not stop the others.

use std::collections::HashMap;

use duffy_api::NodeState;
use tokio::task::Id;

/// The slots of a worker. Each piece of work, on one node or on a batch, takes one.
#[derive(Debug)]
pub(super) struct Slots {
    /// The number of slots.
    all: usize,
    /// The number of slots that no single pool may use.
    for_others: usize,
    taken: HashMap<Id, (String, NodeState)>,
    /// Slots for work that is being claimed.
    reserved: Vec<(String, NodeState)>,
}

impl Slots {
    /// Makes this many slots. If there are several pools, none takes the last quarter of the slots.
    pub(super) fn new(all: usize, several_pools: bool) -> Self {
        Self {
            all,
            for_others: if several_pools { all.div_ceil(4) } else { 0 },
            taken: HashMap::new(),
            reserved: Vec::new(),
        }
    }

    /// Whether no slot is free.
    pub(super) fn are_taken(&self) -> bool {
        self.taken.len() + self.reserved.len() >= self.all
    }

    fn in_use(&self) -> impl Iterator<Item = &(String, NodeState)> {
        self.taken.values().chain(&self.reserved)
    }

    /// Whether a slot is free for this work of a pool. Provisioning leaves one slot to deprovisioning, besides those
    /// for other pools; each pool's first deprovisioning may use it. A single slot is used for everything, in turn.
    fn admit(&self, pool: &str, state: NodeState) -> bool {
        let limit = |slots: usize| slots.saturating_sub(self.for_others).max(1);
        let is_provisioning = |work: &&(String, NodeState)| work.1 == NodeState::Provisioning;
        let own = || self.in_use().filter(|work| work.0 == pool);
        let (own_work, own_provisioning) = (own().count(), own().filter(is_provisioning).count());
        if self.are_taken() {
            false
        } else if state == NodeState::Provisioning {
            let slots = self.all.saturating_sub(1).max(1);
            let provisioning = self.in_use().filter(is_provisioning).count();
            own_work < limit(self.all) && own_provisioning < limit(slots) && provisioning < slots
        } else {
            own_work == own_provisioning || own_work < limit(self.all)
        }
    }

    /// Reserves a slot for this work of a pool, if one is free: see [`Slots::admit`].
    pub(super) fn reserve(&mut self, pool: &str, state: NodeState) -> bool {
        let free = self.admit(pool, state);
        if free {
            self.reserved.push((pool.to_owned(), state));
        }
        free
    }

    /// Takes a reserved slot for a task.
    pub(super) fn take(&mut self, task: Id, pool: &str, state: NodeState) {
        let work = (pool.to_owned(), state);
        if let Some(position) = self.reserved.iter().position(|each| *each == work) {
            self.reserved.swap_remove(position);
        }
        self.taken.insert(task, work);
    }

    /// Frees the reserved slots that no task has taken.
    pub(super) fn free_reserved(&mut self) {
        self.reserved.clear();
    }

    /// Frees the slot of a task that ended.
    pub(super) fn free(&mut self, task: Id) {
        self.taken.remove(&task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeState::{Deprovisioning, Provisioning};

    /// Starts work of a pool as often as it is admitted. Returns how often, and the tasks.
    async fn fill(slots: &mut Slots, pool: &str, state: NodeState) -> Vec<Id> {
        let mut tasks = Vec::new();
        while slots.reserve(pool, state) {
            let task = tokio::spawn(std::future::ready(()));
            tasks.push(task.id());
            slots.take(task.id(), pool, state);
            task.await.unwrap();
        }
        tasks
    }

    #[tokio::test]
    async fn no_pool_takes_all_slots() {
        for (all, several, one_pool, other, removal) in [
            (8, true, 5, 2, 1),
            (8, false, 7, 0, 1),
            (4, true, 2, 1, 1),
            (3, true, 1, 1, 1),
            (2, true, 1, 0, 1),
            (1, true, 1, 0, 0),
        ] {
            let mut slots = Slots::new(all, several);
            let hanging = fill(&mut slots, "hanging", Provisioning).await;
            assert_eq!(hanging.len(), one_pool, "{slots:?}");
            assert_eq!(fill(&mut slots, "other", Provisioning).await.len(), other);
            assert_eq!(
                fill(&mut slots, "third", Deprovisioning).await.len(),
                removal
            );
            assert!(slots.are_taken());
            slots.free(hanging[0]);
            assert!(!slots.are_taken());
            assert!(slots.admit("other", Deprovisioning));
            assert!(slots.admit("hanging", Deprovisioning));
        }
    }

    #[tokio::test]
    async fn a_reserved_slot_is_not_free_until_it_is_given_up() {
        let mut slots = Slots::new(4, false);
        while slots.reserve("one", Provisioning) {}
        assert!(!slots.admit("other", Provisioning));
        assert!(slots.reserve("other", Deprovisioning));
        assert!(slots.are_taken());
        let task = tokio::spawn(std::future::ready(()));
        slots.take(task.id(), "one", Provisioning);
        assert!(slots.are_taken(), "the task has the reserved slot");
        slots.free_reserved();
        assert_eq!(fill(&mut slots, "other", Provisioning).await.len(), 2);
        slots.free(task.id());
        assert!(slots.admit("one", Provisioning));
    }
}
