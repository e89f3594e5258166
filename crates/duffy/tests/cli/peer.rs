//! A server that gives every request the same reply.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

pub struct Peer {
    pub address: SocketAddr,
    thread: JoinHandle<Vec<String>>,
}

impl Peer {
    /// Starts a server that replies to every request with these bytes.
    pub fn start(reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut requests = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let request = read_request(&mut stream);
                if request.is_empty() {
                    return requests;
                }
                requests.push(request);
                let _ = stream.write_all(&reply);
            }
        });
        Self { address, thread }
    }

    pub fn json(status: u16, body: &str) -> Self {
        let length = body.len();
        Self::start(format!(
            "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// Stops the server, and returns the requests: request line, `Authorization`, body.
    pub fn finish(self) -> Vec<String> {
        // A connection without a request ends the thread.
        drop(TcpStream::connect(self.address).unwrap());
        self.thread.join().unwrap()
    }
}

fn read_request(stream: &mut TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return String::new();
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let mut body = vec![0; header("content-length").map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    let line = head.lines().next().unwrap();
    let authorization = header("authorization").unwrap_or_default();
    format!(
        "{line}\n{authorization}\n{}",
        String::from_utf8(body).unwrap()
    )
}
