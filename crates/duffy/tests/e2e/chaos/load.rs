//! Anonymous clients that request many lists and never read the replies.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::log::{Finding, Log};
use super::rng::Rng;

/// The maximum number of open connections to each server.
const CONNECTIONS: usize = 40;
/// Requests that a connection sends without reading a reply.
const REQUESTS: usize = 20;
/// The maximum memory of a server, in KiB. The documented limits are lower; the build of the tests is not optimized.
const MAX_MEMORY: u64 = 300 * 1024;

/// See the module.
pub struct Load<'a> {
    ports: [u16; 2],
    rng: Rng,
    log: &'a Log,
}

impl<'a> Load<'a> {
    pub fn new(ports: [u16; 2], seed: u64, log: &'a Log) -> Self {
        Self {
            ports,
            rng: Rng::new(seed, "load"),
            log,
        }
    }

    /// Opens and closes connections until the run stops.
    pub fn run(&mut self) {
        let pause = self.rng.millis(500, 3000);
        let mut stop = self.log.wait(pause);
        while !stop {
            let port = self.rng.choose(&self.ports);
            let quantity = 1 + self.rng.below(CONNECTIONS);
            let stay = self.rng.millis(500, 4000);
            let unread: Vec<TcpStream> = (0..quantity)
                .filter_map(|_| self.send_requests(port))
                .collect();
            self.log
                .count(&format!("load, connected: {}", !unread.is_empty()));
            stop = self.log.wait(stay);
            self.check_memory();
            drop(unread);
            let pause = self.rng.millis(500, 6000);
            stop = stop || self.log.wait(pause);
        }
    }

    fn send_requests(&mut self, port: u16) -> Option<TcpStream> {
        let path = self.rng.choose(&["nodes", "pools", "pools/cloud"]);
        let request = format!("GET /api/v1/{path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream
            .set_write_timeout(Some(Duration::from_millis(200)))
            .ok()?;
        // If the server stops reading, the rest is not sent.
        stream.write_all(request.repeat(REQUESTS).as_bytes()).ok();
        Some(stream)
    }

    /// Checks the memory of the servers.
    fn check_memory(&self) {
        for port in self.ports {
            let Some(memory) = memory_of_server(port) else {
                continue;
            };
            if memory > MAX_MEMORY {
                let what = format!("the server on port {port} uses {memory} KiB");
                self.log.report(Finding::new(what));
            }
        }
    }
}

/// Returns the resident memory, in KiB, of the process whose command line ends with `-p PORT`, if it runs.
fn memory_of_server(port: u16) -> Option<u64> {
    let suffix = format!("-p\0{port}\0");
    let mut processes = std::fs::read_dir("/proc").ok()?.flatten();
    let process = processes.find(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).ends_with(&suffix))
    })?;
    let status = std::fs::read_to_string(process.path().join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
