//! A way to a server that can be cut off without a word, broken, made slow, as a network does it, or lose an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Passes connections on to a server, until it is told otherwise. Its threads end with the test's process.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    road: Mutex<Road>,
    opened: Condvar,
    loses: AtomicBool,
}

#[derive(Debug, Default)]
struct Road {
    stalled: bool,
    /// The connection that sends this next falls silent, in both directions.
    silencer: Option<&'static str>,
    silent: BTreeSet<u64>,
    lag: Duration,
    /// Both ends of each connection, by its number.
    open: BTreeMap<u64, [TcpStream; 2]>,
    next: u64,
}

impl Gate {
    fn road(&self) -> MutexGuard<'_, Road> {
        self.road.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when nothing is in the way of this connection.
    fn pass(&self, number: u64, sent: &[u8]) {
        let mut road = self.road();
        if let Some(word) = road.silencer
            && sent.windows(word.len()).any(|part| part == word.as_bytes())
        {
            road.silencer = None;
            road.silent.insert(number);
        }
        let lag = road.lag;
        let road = if lag.is_zero() {
            road
        } else {
            // Longer only if a stall ends meanwhile: a lag is no exact thing.
            let waited = self.opened.wait_timeout(road, lag);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        let _open = self
            .opened
            .wait_while(road, |road| road.stalled || road.silent.contains(&number));
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
                connect(&theirs, client, server);
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
        self.gate.road().stalled = true;
    }

    /// The connection that sends this next falls silent from then on, as if its server were gone. Others go on.
    pub fn silence_at(&self, sent: &'static str) {
        self.gate.road().silencer = Some(sent);
    }

    /// The next answer is taken from the server and thrown away, and its connection broken off.
    pub fn lose_next_answer(&self) {
        self.gate.loses.store(true, Ordering::SeqCst);
    }

    /// Lets everything through that has waited.
    pub fn resume(&self) {
        let mut road = self.gate.road();
        road.stalled = false;
        road.silent.clear();
        drop(road);
        self.gate.opened.notify_all();
    }

    /// From now on whatever is sent arrives so much later.
    pub fn lag(&self, by: Duration) {
        self.gate.road().lag = by;
    }

    /// Breaks all connections. New ones get through.
    pub fn cut(&self) {
        for stream in self.gate.road().open.values().flatten() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

fn connect(gate: &Arc<Gate>, client: TcpStream, server: TcpStream) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).ok();
    }
    let (client2, server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let number = {
        let ends = [client.try_clone().unwrap(), server.try_clone().unwrap()];
        let mut road = gate.road();
        road.next += 1;
        let number = road.next;
        road.open.insert(number, ends);
        number
    };
    let both = Arc::new(());
    for (from, into, is_answer) in [(client, server, false), (server2, client2, true)] {
        let (gate, both) = (Arc::clone(gate), Arc::clone(&both));
        std::thread::spawn(move || {
            pass_on(from, into, &gate, number, is_answer);
            // The last of both lets go of the connection.
            if Arc::into_inner(both).is_some() {
                gate.road().open.remove(&number);
            }
        });
    }
}

fn pass_on(mut from: TcpStream, mut into: TcpStream, gate: &Gate, number: u64, is_answer: bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let sent = if is_answer { &[][..] } else { &buffer[..read] };
        gate.pass(number, sent);
        if is_answer && gate.loses.swap(false, Ordering::SeqCst) {
            from.shutdown(Shutdown::Both).ok();
            into.shutdown(Shutdown::Both).ok();
            return;
        }
        if into.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    gate.pass(number, &[]);
    into.shutdown(Shutdown::Write).ok();
}
