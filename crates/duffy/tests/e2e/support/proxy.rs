//! A way to a server that can be cut off without a word, as a network does it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Passes connections on to a server, until it is told to stall. Its threads end with the test's process.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    stalled: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Returns when nothing is in the way.
    fn pass(&self) {
        let stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        let _open = self.opened.wait_while(stalled, |stalled| *stalled);
    }
}

impl Proxy {
    /// Starts to pass on connections to this port of 127.0.0.1.
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let gate = Arc::new(Gate::default());
        let theirs = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let address = SocketAddr::from(([127, 0, 0, 1], to));
                let Ok(server) = TcpStream::connect(address) else {
                    continue;
                };
                let (client2, server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                for (from, into) in [(client, server), (server2, client2)] {
                    let gate = Arc::clone(&theirs);
                    std::thread::spawn(move || pass_on(from, into, &gate));
                }
            }
        });
        Self { port, gate }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing gets through, in either direction; connections stay open.
    pub fn stall(&self) {
        *self.gate.stalled.lock().unwrap() = true;
    }

    /// Lets everything through that has waited.
    pub fn resume(&self) {
        *self.gate.stalled.lock().unwrap() = false;
        self.gate.opened.notify_all();
    }
}

fn pass_on(mut from: TcpStream, mut into: TcpStream, gate: &Gate) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        gate.pass();
        if into.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    gate.pass();
    into.shutdown(Shutdown::Write).ok();
}
