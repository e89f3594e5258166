//! A small server that sends exactly the bytes of a test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A request as it was received.
#[derive(Debug)]
pub struct Request {
    /// Number of its connection, from 0.
    pub connection: usize,
    /// Request line and headers.
    pub head: String,
    pub body: String,
}

impl Request {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What the peer does with a request.
pub enum Answer {
    /// Sends these bytes and keeps the connection.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes the connection.
    Last(Vec<u8>),
    /// Sends a head and then this many bytes in chunks, until the client hangs up.
    Flood(u64),
    /// Sends nothing until the client hangs up.
    Silence,
}

pub struct Peer {
    pub address: SocketAddr,
    pub requests: mpsc::Receiver<Request>,
    thread: JoinHandle<()>,
}

impl Peer {
    /// Answers requests with `answers`, in order, and ends.
    pub fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            let mut connection = 0;
            let mut next = answers.next();
            while next.is_some() {
                let (mut stream, _) = listener.accept().unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                while let Some(answer) = next.take() {
                    let Some(request) = read_request(&mut stream, connection) else {
                        next = Some(answer);
                        break;
                    };
                    let _ = sender.send(request);
                    next = answers.next();
                    if !give(&mut stream, answer) {
                        break;
                    }
                }
                connection += 1;
            }
        });
        Self {
            address,
            requests,
            thread,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    /// Waits until all answers are sent, and returns the requests.
    pub fn finish(self) -> Vec<Request> {
        self.thread.join().unwrap();
        self.requests.iter().collect()
    }
}

/// A whole reply with a JSON body.
pub fn reply(status: &str, headers: &str, body: &str) -> Answer {
    Answer::Bytes(
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

fn give(stream: &mut TcpStream, answer: Answer) -> bool {
    match answer {
        Answer::Bytes(bytes) => stream.write_all(&bytes).is_ok(),
        Answer::Last(bytes) => {
            let _ = stream.write_all(&bytes);
            false
        }
        Answer::Flood(bytes) => {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
            let chunk = vec![b'0'; 1024 * 1024];
            let mut sent = 0;
            while sent < bytes && stream.write_all(&chunk).is_ok() {
                sent += chunk.len() as u64;
            }
            false
        }
        Answer::Silence => {
            let _ = stream.read(&mut [0]);
            false
        }
    }
}

fn read_request(stream: &mut TcpStream, connection: usize) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut request = Request {
        connection,
        head,
        body: String::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}
