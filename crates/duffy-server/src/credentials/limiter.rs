//! Limits how many checks of keys by bcrypt a peer gets, and how many wrong keys it may send.
//!
//! Counts per peer and tenant, and per peer: a flood of a tenant's name from elsewhere does not lock the tenant out at
//! its own address, and a flood of one name takes little from other names at the same address.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// After how many checks buckets that are full again are forgotten.
const SWEEP_EVERY: u32 = 1_000;

pub(super) struct Limiter {
    clock: DefaultClock,
    peers: DefaultKeyedRateLimiter<Option<IpAddr>>,
    tenants: DefaultKeyedRateLimiter<(Option<IpAddr>, u64)>,
    hasher: std::hash::RandomState,
    checks: AtomicU32,
}

/// This many checks at the same time, then one each period.
pub(super) fn quota(burst: u32, period: Duration) -> Quota {
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(period);
    quota
        .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
        .allow_burst(burst)
}

impl Default for Limiter {
    fn default() -> Self {
        let peer = quota(200, Duration::from_millis(500));
        Self::new(peer, quota(30, Duration::from_secs(2)))
    }
}

impl Limiter {
    /// Limits checks for one peer, for all tenants together (a proxy is one peer), and those for one tenant among them.
    pub(super) fn new(peer: Quota, tenant: Quota) -> Self {
        Self {
            clock: DefaultClock::default(),
            peers: RateLimiter::keyed(peer),
            tenants: RateLimiter::keyed(tenant),
            hasher: std::hash::RandomState::new(),
            checks: AtomicU32::new(0),
        }
    }

    /// Counts a check, or returns how long to wait for the next one.
    pub(super) fn check(&self, peer: Option<IpAddr>, name: &str) -> Result<(), Duration> {
        // The name first: a check that is refused to it takes nothing from other names.
        self.check_reserved(peer, name)?;
        let checked = self.peers.check_key(&peer.map(network));
        checked.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// The same for a name that does not share the limit of its address with other names.
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

/// The network of a peer: a client that has one address of an IPv6 network has all of them.
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
        let each_hour = |burst| quota(burst, Duration::from_hours(1));
        let limiter = Limiter::new(each_hour(5), each_hour(2));
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
