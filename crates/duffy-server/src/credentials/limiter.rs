//! Limits how many checks of keys by bcrypt a peer gets, and how many wrong keys it may send.
//!
//! Counted per peer and tenant, and per peer: somebody elsewhere who floods a tenant's name locks the tenant out nowhere
//! else, and a flood of one name takes little from other names at the same address.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// After how many checks buckets that are full again are forgotten.
const SWEEP_EVERY: u32 = 1_000;

/// So many at once, then one each period.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) burst: NonZeroU32,
    pub(super) period: Duration,
}

/// How many checks are allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// To one peer, for all tenants together (a proxy is one peer).
    pub(super) peer: Rate,
    /// To one peer for one tenant.
    pub(super) tenant: Rate,
}

const fn burst(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            peer: Rate {
                burst: burst(200),
                period: Duration::from_millis(500),
            },
            tenant: Rate {
                burst: burst(30),
                period: Duration::from_secs(2),
            },
        }
    }
}

pub(super) struct Limiter {
    clock: DefaultClock,
    peers: DefaultKeyedRateLimiter<Option<IpAddr>>,
    tenants: DefaultKeyedRateLimiter<(Option<IpAddr>, u64)>,
    hasher: std::hash::RandomState,
    checks: AtomicU32,
}

fn quota(rate: Rate) -> Quota {
    Quota::with_period(rate.period)
        .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
        .allow_burst(rate.burst)
}

impl Limiter {
    pub(super) fn new(rates: Rates) -> Self {
        Self {
            clock: DefaultClock::default(),
            peers: RateLimiter::keyed(quota(rates.peer)),
            tenants: RateLimiter::keyed(quota(rates.tenant)),
            hasher: std::hash::RandomState::new(),
            checks: AtomicU32::new(0),
        }
    }

    /// Counts a check, or says how long to wait for the next one.
    pub(super) fn check(&self, peer: Option<IpAddr>, name: &str) -> Result<(), Duration> {
        // The name first: what is refused to it is taken from no other name.
        self.check_reserved(peer, name)?;
        let checked = self.peers.check_key(&peer.map(network));
        checked.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// The same for a name that need not share with others of the same address.
    pub(super) fn check_reserved(&self, peer: Option<IpAddr>, name: &str) -> Result<(), Duration> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.peers.retain_recent();
            self.tenants.retain_recent();
        }
        let name = std::hash::BuildHasher::hash_one(&self.hasher, name);
        let checked = self.tenants.check_key(&(peer.map(network), name));
        checked.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// A client that has one address of an IPv6 network has all of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_from_one_peer_is_limited_and_others_are_not() {
        let limiter = Limiter::new(Rates {
            peer: Rate {
                burst: burst(5),
                period: Duration::from_hours(1),
            },
            tenant: Rate {
                burst: burst(2),
                period: Duration::from_hours(1),
            },
        });
        let peer = |text: &str| Some(text.parse().unwrap());
        let first = peer("2001:db8::1");
        assert!(limiter.check(first, "a").is_ok());
        assert!(limiter.check(first, "a").is_ok());
        let wait = limiter.check(peer("2001:db8::2"), "a").unwrap_err();
        assert!(wait > Duration::from_mins(50), "{wait:?}");
        assert!(limiter.check(first, "b").is_ok());
        assert!(limiter.check(peer("192.0.2.1"), "a").is_ok());
        // The refused check of `a` did not count for the peer.
        assert!(limiter.check(first, "c").is_ok());
        assert!(limiter.check(first, "d").is_ok());
        assert!(limiter.check(first, "e").is_err());
        assert!(limiter.check_reserved(first, "f").is_ok());
        assert!(limiter.check(peer("192.0.2.1"), "d").is_ok());
    }
}
