//! A TCP proxy that can stall, cut and delay connections, and lose a reply.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Forwards connections to a server. Its threads end with the process of the test.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    resumed: Condvar,
    lose_next_reply: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    stalled: bool,
    /// The next connection that sends this text stalls, in both directions.
    stall_trigger: Option<&'static str>,
    stalled_connections: BTreeSet<u64>,
    delay: Duration,
    /// Both ends of each connection, by number.
    open: BTreeMap<u64, [TcpStream; 2]>,
    next: u64,
    /// The connections whose server has sent data since their client did.
    replied: BTreeSet<u64>,
    /// How often a client has sent data after a reply.
    round_trips: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, number: u64, is_reply: bool) {
        let mut state = self.state();
        if is_reply {
            state.replied.insert(number);
        } else if state.replied.remove(&number) {
            state.round_trips += 1;
        }
    }

    /// Waits until this connection may send data.
    fn wait(&self, number: u64, sent: &[u8]) {
        let mut state = self.state();
        if let Some(trigger) = state.stall_trigger
            && sent
                .windows(trigger.len())
                .any(|part| part == trigger.as_bytes())
        {
            state.stall_trigger = None;
            state.stalled_connections.insert(number);
        }
        let delay = state.delay;
        let state = if delay.is_zero() {
            state
        } else {
            // The delay is shorter if a stall ends in the meantime.
            let waited = self.resumed.wait_timeout(state, delay);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        let _open = self.resumed.wait_while(state, |state| {
            state.stalled || state.stalled_connections.contains(&number)
        });
    }
}

impl Proxy {
    /// Starts a proxy for this port of 127.0.0.1.
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let address = SocketAddr::from(([127, 0, 0, 1], to));
                let Ok(server) = TcpStream::connect(address) else {
                    continue;
                };
                connect(&theirs, client, server);
            }
        });
        Self { port, shared }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops all data, in both directions. Connections stay open.
    pub fn stall(&self) {
        self.shared.state().stalled = true;
    }

    /// Stalls the next connection that sends this text, as if its server were unreachable. Others continue.
    pub fn stall_at(&self, sent: &'static str) {
        self.shared.state().stall_trigger = Some(sent);
    }

    /// Drops the next reply of the server, and closes its connection.
    pub fn lose_next_reply(&self) {
        self.shared.lose_next_reply.store(true, Ordering::SeqCst);
    }

    /// Ends all stalls.
    pub fn resume(&self) {
        let mut state = self.shared.state();
        state.stalled = false;
        state.stalled_connections.clear();
        drop(state);
        self.shared.resumed.notify_all();
    }

    /// Returns how often clients have sent data after a reply.
    pub fn round_trips(&self) -> u64 {
        self.shared.state().round_trips
    }

    /// Delays all data by this time.
    pub fn delay(&self, by: Duration) {
        self.shared.state().delay = by;
    }

    /// Closes all connections. New ones work.
    pub fn cut(&self) {
        for stream in self.shared.state().open.values().flatten() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).ok();
    }
    let (client2, server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let number = {
        let ends = [client.try_clone().unwrap(), server.try_clone().unwrap()];
        let mut state = shared.state();
        state.next += 1;
        let number = state.next;
        state.open.insert(number, ends);
        number
    };
    let both = Arc::new(());
    for (from, into, is_reply) in [(client, server, false), (server2, client2, true)] {
        let (shared, both) = (Arc::clone(shared), Arc::clone(&both));
        std::thread::spawn(move || {
            forward(from, into, &shared, number, is_reply);
            // The last direction removes the connection.
            if Arc::into_inner(both).is_some() {
                shared.state().open.remove(&number);
            }
        });
    }
}

fn forward(mut from: TcpStream, mut into: TcpStream, shared: &Shared, number: u64, is_reply: bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let sent = if is_reply { &[][..] } else { &buffer[..read] };
        shared.wait(number, sent);
        shared.count(number, is_reply);
        if is_reply && shared.lose_next_reply.swap(false, Ordering::SeqCst) {
            from.shutdown(Shutdown::Both).ok();
            into.shutdown(Shutdown::Both).ok();
            return;
        }
        if into.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    shared.wait(number, &[]);
    into.shutdown(Shutdown::Write).ok();
}
