//! Anonymous clients that ask for lists, many at once, and never read what they asked for.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::dice::Dice;
use super::record::{Finding, Record};

/// The most connections at once to each server.
const CONNECTIONS: usize = 40;
/// Requests that a connection sends without reading a reply.
const REQUESTS: usize = 20;
/// What a server may take of memory, in KiB. The build of the tests is not optimised; the limits promise less.
const MOST_MEMORY: u64 = 300 * 1024;

/// See the module.
pub struct Crowd<'a> {
    ports: [u16; 2],
    dice: Dice,
    record: &'a Record,
}

impl<'a> Crowd<'a> {
    pub fn new(ports: [u16; 2], seed: u64, record: &'a Record) -> Self {
        Self {
            ports,
            dice: Dice::new(seed, "crowd"),
            record,
        }
    }

    /// Comes and goes until it is time to stop.
    pub fn run(&mut self) {
        let pause = self.dice.millis(500, 3000);
        let mut stop = self.record.wait(pause);
        while !stop {
            let port = self.dice.pick(&self.ports);
            let quantity = 1 + self.dice.below(CONNECTIONS);
            let stay = self.dice.millis(500, 4000);
            let waiting: Vec<TcpStream> = (0..quantity).filter_map(|_| self.ask(port)).collect();
            self.record
                .count(&format!("crowd asked, connected: {}", !waiting.is_empty()));
            stop = self.record.wait(stay);
            self.look_at_memory();
            drop(waiting);
            let pause = self.dice.millis(500, 6000);
            stop = stop || self.record.wait(pause);
        }
    }

    fn ask(&mut self, port: u16) -> Option<TcpStream> {
        let path = self.dice.pick(&["nodes", "pools", "pools/cloud"]);
        let request = format!("GET /api/v1/{path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream
            .set_write_timeout(Some(Duration::from_millis(200)))
            .ok()?;
        // The server may stop reading: then the rest stays unsent.
        stream.write_all(request.repeat(REQUESTS).as_bytes()).ok();
        Some(stream)
    }

    /// Looks at the processes that listen on the servers' ports.
    fn look_at_memory(&self) {
        for port in self.ports {
            let Some(memory) = memory_of_server(port) else {
                continue;
            };
            if memory > MOST_MEMORY {
                let what = format!("the server on port {port} takes {memory} KiB");
                self.record.find(Finding::new(what));
            }
        }
    }
}

/// The resident memory, in KiB, of the process whose command line ends with `-p PORT`. `None` while it does not run.
fn memory_of_server(port: u16) -> Option<u64> {
    let wanted = format!("-p\0{port}\0");
    let mut processes = std::fs::read_dir("/proc").ok()?.flatten();
    let process = processes.find(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).ends_with(&wanted))
    })?;
    let status = std::fs::read_to_string(process.path().join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
