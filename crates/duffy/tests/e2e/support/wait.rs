//! Waiting for a condition with a deadline; free ports.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Asks `probe` again and again until it answers `Ok`, and returns that. After `within`, fails with what
/// was waited for and what the probe last saw instead (its `Err`).
pub fn eventually<T>(
    within: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, String>,
) -> T {
    // Nobody sends: receiving is a wait that ends by its timeout.
    let (_sender, pause) = mpsc::channel::<()>();
    let start = Instant::now();
    let mut interval = Duration::from_millis(5);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() >= within => {
                panic!("waited {within:?} for: {what}; last seen: {seen}")
            }
            Err(_) => {
                pause.recv_timeout(interval).ok();
                interval = (interval * 2).min(Duration::from_millis(100));
            }
        }
    }
}

/// A port on 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    free_port_on(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A port on a loopback address that nobody listens on. It lies below the range from which the system gives ports to
/// outgoing connections, so that none of those takes it between this look and its use.
pub fn free_port_on(address: IpAddr) -> u16 {
    let random = RandomState::new().hash_one(address);
    let start = 10_000 + u16::try_from(random % 20_000).unwrap();
    (start..32_000)
        .find(|port| TcpListener::bind((address, *port)).is_ok())
        .unwrap_or_else(|| panic!("no free port on {address}"))
}
