//! The load generator: HTTP/1.1 clients with keep-alive connections, one thread each, the same for both programs.

use std::io::{BufRead, BufReader, Error, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A client waits this long for a reply.
const TIMEOUT: Duration = Duration::from_mins(2);

/// A tenant's access to the web API of a server.
#[derive(Debug, Clone)]
pub struct Access {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// Name and API key, separated by a colon; empty for none.
    pub credentials: String,
}

/// The latencies of requests.
#[derive(Debug, Default, Clone)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    /// Adds those of another client.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// Their number.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the latency in milliseconds that this fraction of the requests does not exceed. 0 without requests.
    pub fn percentile(&self, fraction: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = (sorted.len() as f64 * fraction) as usize;
        sorted
            .get(index.min(sorted.len().saturating_sub(1)))
            .map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    }
}

impl Access {
    /// The same server without credentials.
    pub fn anonymous(&self) -> Self {
        Self {
            port: self.port,
            credentials: String::new(),
        }
    }
}

/// What a load gave.
#[derive(Debug, Default)]
pub struct Load {
    /// The latencies of requests with the expected reply.
    pub latencies: Latencies,
    /// The latencies of retiring, for sessions.
    pub retires: Latencies,
    /// From the first request to the last reply.
    pub elapsed: Duration,
    /// Other replies: their status and text.
    pub refused: Vec<String>,
}

impl Load {
    /// Expected replies per second.
    pub fn rate(&self) -> f64 {
        self.latencies.count() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Says how many requests of these loads were refused, and how the first one was, to add to a figure; empty if none was.
pub fn complaints<'a>(loads: impl IntoIterator<Item = &'a Load> + Clone) -> String {
    let refused: Vec<&String> = loads
        .clone()
        .into_iter()
        .flat_map(|load| &load.refused)
        .collect();
    let answered: usize = loads.into_iter().map(|load| load.latencies.count()).sum();
    refused
        .first()
        .map(|first| {
            format!(
                "; {} of {} refused ({first})",
                refused.len(),
                refused.len() + answered
            )
        })
        .unwrap_or_default()
}

/// A keep-alive connection. It is opened again if the server closes it.
struct Client {
    address: SocketAddr,
    /// The header with its line break.
    authorization: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    fn new(access: &Access) -> Self {
        let authorization = match access.credentials.as_str() {
            "" => String::new(),
            pair => format!("authorization: Basic {}\r\n", STANDARD.encode(pair)),
        };
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], access.port)),
            authorization,
            stream: None,
        }
    }

    /// Sends a request. A kept connection that the server has closed is opened again, once.
    fn call(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let text = format!(
            "{method} /api/v1/{path} HTTP/1.1\r\nhost: bench\r\n{}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.authorization,
            body.len()
        );
        let kept = self.stream.is_some();
        let reply = self.exchange(&text);
        match reply {
            Err(_) if kept => {
                self.stream = None;
                self.exchange(&text)
            }
            reply => reply,
        }
    }

    fn exchange(&mut self, text: &str) -> Result<(u16, String)> {
        let mut stream = if let Some(stream) = self.stream.take() {
            stream
        } else {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            BufReader::new(stream)
        };
        stream.get_mut().write_all(text.as_bytes())?;
        let (status, body, keep) = read_reply(&mut stream)?;
        if keep {
            self.stream = Some(stream);
        }
        Ok((status, body))
    }
}

/// Reads a reply: status, body, and whether the connection stays open.
fn read_reply(stream: &mut impl BufRead) -> Result<(u16, String, bool)> {
    let line = read_line(stream)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| Error::other(format!("no status in {line:?}")))?;
    let (mut length, mut chunked, mut keep) = (0, false, true);
    loop {
        let line = read_line(stream)?.to_ascii_lowercase();
        match line
            .split_once(':')
            .map(|(name, value)| (name, value.trim()))
        {
            None => break,
            Some(("content-length", value)) => length = value.parse().map_err(Error::other)?,
            Some(("transfer-encoding", value)) => chunked = value == "chunked",
            Some(("connection", value)) => keep = value != "close",
            Some(_) => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let size = read_line(stream)?;
            let size = usize::from_str_radix(&size, 16).map_err(Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            stream.read_exact(&mut body[start..])?;
            read_line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else {
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
    }
    Ok((status, String::from_utf8_lossy(&body).into_owned(), keep))
}

fn read_line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(Error::other("the server closed the connection"));
    }
    Ok(line.trim_end().to_owned())
}

/// Sends `GET path` with this many clients for this long.
pub fn get(access: &Access, clients: usize, duration: Duration, path: &str) -> Load {
    let start = Instant::now();
    run(clients, |load| {
        let mut client = Client::new(access);
        while start.elapsed() < duration {
            let begin = Instant::now();
            record(load, begin, client.call("GET", path, ""), 200);
        }
    })
}

/// Requests and retires `count` sessions of `quantity` nodes of a pool with this many clients.
pub fn sessions(access: &Access, clients: usize, count: usize, pool: &str, quantity: u32) -> Load {
    let left = AtomicUsize::new(count);
    let body = body_of(pool, quantity);
    let take = |left: usize| left.checked_sub(1);
    run(clients, |load| {
        let mut client = Client::new(access);
        while left
            .try_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
        {
            let begin = Instant::now();
            let reply = record(load, begin, client.call("POST", "sessions", &body), 201);
            let Some(reply) = reply else { continue };
            let path = format!("sessions/{}", session_id(&reply));
            let begin = Instant::now();
            match client.call("PUT", &path, RETIRE) {
                Ok((200, _)) => load.retires.add(begin.elapsed()),
                Ok((status, text)) => load.refused.push(format!("retire: {status} {text}")),
                Err(error) => load.refused.push(format!("retire: {error}")),
            }
        }
    })
}

/// Sends one `GET path` on a connection of its own. Returns its status and text.
pub fn get_once(access: &Access, path: &str) -> Result<(u16, String)> {
    Client::new(access).call("GET", path, "")
}

/// Requests a session, which must be granted. Returns its number.
pub fn request(access: &Access, pool: &str, quantity: u32) -> u64 {
    let (status, text) = Client::new(access)
        .call("POST", "sessions", &body_of(pool, quantity))
        .unwrap();
    assert_eq!(status, 201, "{text}");
    session_id(&text)
}

/// Retires a session.
pub fn retire(access: &Access, session: u64) {
    let path = format!("sessions/{session}");
    let (status, text) = Client::new(access).call("PUT", &path, RETIRE).unwrap();
    assert_eq!(status, 200, "{text}");
}

const RETIRE: &str = r#"{"active":false}"#;

fn body_of(pool: &str, quantity: u32) -> String {
    format!(r#"{{"nodes_specs":[{{"pool":"{pool}","quantity":{quantity}}}]}}"#)
}

fn session_id(reply: &str) -> u64 {
    let reply: Value = serde_json::from_str(reply).unwrap_or_default();
    reply["session"]["id"].as_u64().unwrap_or_default()
}

fn record(
    load: &mut Load,
    begin: Instant,
    reply: Result<(u16, String)>,
    expected: u16,
) -> Option<String> {
    match reply {
        Ok((status, text)) if status == expected => {
            load.latencies.add(begin.elapsed());
            return Some(text);
        }
        Ok((status, text)) => {
            let text: String = text.chars().take(70).collect();
            load.refused.push(format!("{status} {text}"));
        }
        Err(error) => load.refused.push(error.to_string()),
    }
    None
}

/// Runs clients in threads, and puts together what they saw.
fn run(clients: usize, work: impl Fn(&mut Load) + Sync) -> Load {
    let start = Instant::now();
    let mut all = Load::default();
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(move || {
                    let mut load = Load::default();
                    work(&mut load);
                    load
                })
            })
            .collect();
        for one in running {
            let one = one.join().unwrap();
            all.latencies.extend(&one.latencies);
            all.retires.extend(&one.retires);
            all.refused.extend(one.refused);
        }
    });
    all.elapsed = start.elapsed();
    all
}
