//! The life of a node: its states, and the transitions between them.
//!
//! This module is the specification. `db/transitions.rs` writes what a [`Rule`] says, and nothing else writes a node's
//! state. `duffy admin check` judges rows by it, and a test compares `docs/node-states.md` with it.

use duffy_api::NodeState::{
    self, Contextualizing, Deployed, Deprovisioning, Done, Failed, Provisioning, Ready, Unused,
};

use crate::cause::Cause;

/// Who acts on a node in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Nobody: the node waits until it is needed.
    Nobody,
    /// A worker, under a lease. When the lease lapses, another worker takes over.
    Worker,
    /// The request for a session, under a lease. When the lease lapses, a worker rolls the session back.
    Request,
    /// The tenant, until the session ends.
    Session,
}

/// Who acts on a node in this state.
pub const fn actor(state: NodeState) -> Actor {
    match state {
        Unused | Ready | Failed | Done => Actor::Nobody,
        Provisioning | Deprovisioning => Actor::Worker,
        Contextualizing => Actor::Request,
        Deployed => Actor::Session,
    }
}

/// Whether nodes in this state are worked on under a lease.
pub fn is_leased(state: NodeState) -> bool {
    matches!(actor(state), Actor::Worker | Actor::Request)
}

/// Whether a session has the nodes in this state.
pub fn is_in_session(state: NodeState) -> bool {
    matches!(actor(state), Actor::Request | Actor::Session)
}

/// What a transition requires of the node's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseCheck {
    /// Nothing.
    Any,
    /// The caller has it.
    Own,
    /// Nobody has it.
    Free,
}

/// How a value changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It stays.
    Keep,
    /// It is set.
    Set,
    /// It is cleared.
    End,
}

/// How a counter changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// It stays.
    Keep,
    /// 0.
    Zero,
    /// 1.
    One,
    /// One more.
    Up,
    /// One less, at least 0.
    Down,
}

/// What a transition requires of a node's row, and what it writes.
///
/// For all transitions, the row must not be retired. A change of the state sets `state_since`, `done` also sets
/// `retired_at`, and a node that is `unused` or `done` belongs to no pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The states in which it is allowed.
    pub from: &'static [NodeState],
    /// The state after it; `None` when the state stays.
    pub to: Option<NodeState>,
    /// What it requires of the lease.
    pub requires: LeaseCheck,
    /// Whether the node must be held, or must not be.
    pub held: Option<bool>,
    /// Whether the node must be reusable, or must not be.
    pub reusable: Option<bool>,
    /// How the lease changes. A new one is the caller's, and raises the fence.
    pub lease: Effect,
    /// How the number of attempts changes.
    pub attempts: Counter,
    /// How the number of repairs since the node was last lent changes.
    pub repairs: Counter,
    /// How `retry_at` changes, the time before which nobody acts on the node. With `Set`, the caller gives it.
    pub pause: Effect,
    /// Whether the node is not reusable from now on.
    pub use_up: bool,
    /// How `held_at` changes, the time since which an operator holds the node.
    pub hold: Effect,
    /// Whether workers have something to do after it.
    pub wakes: bool,
    /// Its cause in the history.
    pub cause: Cause,
}

/// Changes nothing.
const STAY: Rule = Rule {
    from: &[],
    to: None,
    requires: LeaseCheck::Any,
    held: None,
    reusable: None,
    lease: Effect::Keep,
    attempts: Counter::Keep,
    repairs: Counter::Keep,
    pause: Effect::Keep,
    use_up: false,
    hold: Effect::Keep,
    wakes: false,
    cause: Cause::Registered,
};
/// Ends work under the caller's lease, with any result.
const END_WORK: Rule = Rule {
    requires: LeaseCheck::Own,
    lease: Effect::End,
    pause: Effect::End,
    ..STAY
};
/// Ends work that succeeded.
const SUCCEED: Rule = Rule {
    attempts: Counter::Zero,
    ..END_WORK
};
/// Begins a state without lease, attempts and pause.
const RESET: Rule = Rule {
    lease: Effect::End,
    attempts: Counter::Zero,
    pause: Effect::End,
    wakes: true,
    ..STAY
};
/// An operator decides, about a node that is not held.
const BY_HAND: Rule = Rule {
    held: Some(false),
    pause: Effect::End,
    wakes: true,
    ..STAY
};

/// A session ends. A process that is still installing a key keeps the lease, and hands it back.
const RELEASE: Rule = Rule {
    lease: Effect::Keep,
    ..RESET
};

/// Declares [`Transition`]. A line is: name { [states in which it is allowed] -> state after it, cause: rest of its rule }.
macro_rules! transitions {
    ($(
        $(#[$doc:meta])*
        $name:ident { [$($from:ident)+] $(-> $to:ident)?, $cause:ident: $($rest:tt)+ }
    )+) => {
        /// A step in the life of a node.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Transition {
            $($(#[$doc])* $name,)+
        }

        impl Transition {
            /// All transitions.
            pub const ALL: &[Transition] = &[$(Transition::$name),+];

            /// What it requires and what it writes.
            pub const fn rule(self) -> Rule {
                match self {
                    $(Transition::$name => Rule {
                        from: &[$($from),+],
                        to: first(&[$($to)?]),
                        cause: Cause::$cause,
                        $($rest)+
                    },)+
                }
            }
        }
    };
}

const fn first(states: &[NodeState]) -> Option<NodeState> {
    match states {
        [] => None,
        [state, ..] => Some(*state),
    }
}

transitions! {
    /// A pool that lacks nodes takes an unused one.
    Fill { [Unused] -> Provisioning, Filled: held: Some(false), ..RESET }
    /// A worker begins an attempt.
    Claim { [Provisioning Deprovisioning], Claimed:
        requires: LeaseCheck::Free, lease: Effect::Set, attempts: Counter::Up, pause: Effect::End, ..STAY }
    /// A worker stops before the end of an attempt, which does not count. The pause ends now, because nobody works on
    /// the node.
    HandBack { [Provisioning Deprovisioning], HandedBack:
        attempts: Counter::Down, pause: Effect::Set, wakes: true, ..END_WORK }
    /// As `HandBack`, for a node that an operator holds: an attempt without a lease would mean that the key is off.
    HandBackHeld { [Deprovisioning], HandedBack:
        held: Some(true), attempts: Counter::Zero, pause: Effect::Set, wakes: true, ..END_WORK }
    /// An attempt failed, and another one follows.
    Postpone { [Provisioning Deprovisioning], Postponed: pause: Effect::Set, ..END_WORK }
    /// The last attempt failed. The pause is the one before a repair.
    Fail { [Provisioning Contextualizing Deprovisioning] -> Failed, Failed:
        pause: Effect::Set, wakes: true, ..END_WORK }
    /// The mechanism made the node.
    MakeReady { [Provisioning] -> Ready, Provisioned: ..SUCCEED }
    /// The mechanism made a node that an operator retired meanwhile. The row keeps what was made, to take it down.
    KeepMade { [Deprovisioning], Provisioned: wakes: true, ..SUCCEED }
    /// The mechanism took a reusable node down. A pool may want it.
    MakeUnused { [Deprovisioning] -> Unused, Deprovisioned: reusable: Some(true), wakes: true, ..SUCCEED }
    /// The mechanism took a node down that is not used again.
    Finish { [Deprovisioning] -> Done, Deprovisioned: reusable: Some(false), ..END_WORK }
    /// The tenant's key is off a node that an operator holds. Nothing else is done to it.
    RemoveKeys { [Deprovisioning], KeysRemoved: attempts: Counter::One, ..END_WORK }
    /// The tenant's key could not be taken off a held node. Another attempt follows.
    PostponeKeys { [Deprovisioning], Postponed: attempts: Counter::Zero, pause: Effect::Set, ..END_WORK }

    /// A session takes the node. Its pool lacks one now.
    Reserve { [Ready] -> Contextualizing, Reserved: held: Some(false),
        lease: Effect::Set, attempts: Counter::One, pause: Effect::End, wakes: true, ..STAY }
    /// The tenant's key is on the node.
    Deploy { [Contextualizing] -> Deployed, Deployed: repairs: Counter::Zero, ..SUCCEED }
    /// The session is not granted, and the node is ready again.
    Return { [Contextualizing] -> Ready, Returned: ..SUCCEED }
    /// The tenant or an administrator retired the session.
    Retire { [Contextualizing Deployed] -> Deprovisioning, Retired: ..RELEASE }
    /// The session expired.
    Expire { [Contextualizing Deployed] -> Deprovisioning, Expired: ..RELEASE }
    /// The session could not be granted.
    Refuse { [Contextualizing Deployed] -> Deprovisioning, Refused: ..RELEASE }
    /// The process that worked on the request for the session died.
    Abandon { [Contextualizing Deployed] -> Deprovisioning, Abandoned: ..RELEASE }
    /// A worker found the node in use by no running session.
    ReleaseOrphan { [Contextualizing Deployed] -> Deprovisioning, Orphaned: requires: LeaseCheck::Free, ..RESET }

    /// A ready node cannot be reached. The pause is the one before a repair.
    FailProbe { [Ready] -> Failed, ProbeFailed: requires: LeaseCheck::Free, held: Some(false),
        pause: Effect::Set, wakes: true, ..STAY }
    /// The node's pool is drained.
    Drain { [Provisioning Ready] -> Deprovisioning, Drained:
        requires: LeaseCheck::Free, held: Some(false), ..RESET }
    /// The pause of a failed node is over.
    Repair { [Failed] -> Deprovisioning, Repaired: held: Some(false), repairs: Counter::Up, ..RESET }
    /// A failed node is not repaired again.
    StopRepairs { [Failed], Failed: pause: Effect::End, ..STAY }

    /// An operator deprovisions a failed node.
    RepairByHand { [Failed] -> Deprovisioning, Repaired: held: Some(false), repairs: Counter::Zero, ..RESET }
    /// An operator returns a failed node without a pool to use.
    Reuse { [Failed] -> Unused, Repaired: held: Some(false), repairs: Counter::Zero, ..RESET }
    /// An operator ends the pause before the next attempt.
    RetryNow { [Provisioning Deprovisioning], Repaired:
        requires: LeaseCheck::Free, attempts: Counter::Zero, ..BY_HAND }
    /// An operator retires a node, and it is deprovisioned. A process that works on it keeps the lease, but its next
    /// write fails.
    TakeDown { [Provisioning Ready Failed] -> Deprovisioning, NodeRetired:
        attempts: Counter::Zero, use_up: true, ..BY_HAND }
    /// An operator retires a node that is in use or being deprovisioned. It is not used again after that.
    ForbidReuse { [Deployed Deprovisioning], NodeRetired: use_up: true, ..BY_HAND }
    /// An operator retires a node that nothing can deprovision.
    Forget { [Unused Provisioning Ready Failed Done] -> Done, NodeRetired:
        lease: Effect::End, use_up: true, ..BY_HAND }
    /// An operator holds a node.
    Hold { [Unused Provisioning Ready Contextualizing Deployed Failed], Held:
        pause: Effect::Keep, hold: Effect::Set, ..BY_HAND }
    /// An operator holds a node whose session has ended. The tenant's key is taken off immediately.
    HoldReturned { [Deprovisioning], Held: attempts: Counter::Zero, hold: Effect::Set, ..BY_HAND }
    /// An operator releases a held node.
    Release { [Unused Provisioning Ready Contextualizing Deployed Failed], Released:
        held: Some(true), pause: Effect::Keep, hold: Effect::End, ..BY_HAND }
    /// An operator releases a held node. Its deprovisioning continues immediately.
    LetGoReturned { [Deprovisioning], Released: held: Some(true), hold: Effect::End, ..BY_HAND }
}

/// The part of a row that the rules constrain, whichever transitions led to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The state.
    pub state: NodeState,
    /// Whether there is a lease, even a lapsed one.
    pub leased: bool,
    /// Whether the row is retired.
    pub retired: bool,
}

impl Shape {
    /// Returns what is wrong with it; `None` when transitions can lead to such a row.
    pub fn contradiction(self) -> Option<&'static str> {
        if self.leased && !is_leased(self.state) {
            Some("has a lease in a state without work")
        } else if self.retired && self.state != Done {
            Some("is retired, but not done")
        } else if self.state == Done && !self.retired {
            Some("is done, but not retired")
        } else {
            None
        }
    }
}

#[cfg(test)]
#[path = "node_state_tests.rs"]
mod tests;
