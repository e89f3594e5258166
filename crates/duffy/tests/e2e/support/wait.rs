//! Waits for a condition with a deadline, and finds free ports.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Calls `probe` until it returns `Ok`, and returns the value. After `within`, panics with the description `what` and the last `Err` of
/// the probe.
pub fn eventually<T>(
    within: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, String>,
) -> T {
    // Nothing is sent, so `recv_timeout` is a wait.
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

/// Returns a free port on 127.0.0.1.
pub fn free_port() -> u16 {
    free_port_on(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Returns a free port on a loopback address. It is below the range that the system uses for outgoing connections, so that none of
/// them takes the port before its use.
pub fn free_port_on(address: IpAddr) -> u16 {
    let random = RandomState::new().hash_one(address);
    let start = 10_000 + u16::try_from(random % 20_000).unwrap();
    (start..32_000)
        .find(|port| TcpListener::bind((address, *port)).is_ok())
        .unwrap_or_else(|| panic!("no free port on {address}"))
}
