//! Bytes on a connection, as no proper client sends them.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long a server may keep its client waiting.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection to a server.
#[derive(Debug)]
pub struct Wire(TcpStream);

impl Wire {
    /// To this port of 127.0.0.1.
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends bytes; `Err` when the server takes no more.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.write_all(bytes.as_ref())
    }

    /// Sends pieces until the server takes no more, or there are so many of them.
    pub fn pour(&mut self, piece: &[u8], times: usize) {
        for _ in 0..times {
            if self.send(piece).is_err() {
                return;
            }
        }
    }

    /// All that comes until the server closes: status and body. Status 0 when it says nothing.
    pub fn reply(&mut self) -> (u16, String) {
        let mut bytes = Vec::new();
        // It may be reset after the reply; what came, came.
        self.0.read_to_end(&mut bytes).ok();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let status = text.get(9..12).map_or(Ok(0), str::parse).unwrap();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status, body.unwrap_or_default())
    }

    /// The reply's status, and its `detail`.
    pub fn refusal(&mut self) -> (u16, Value) {
        let (status, body) = self.reply();
        let json: Value = serde_json::from_str(&body).unwrap_or_default();
        (status, json["detail"].clone())
    }

    /// Waits for the first bytes of a reply, which keeps the connection open.
    pub fn wait_answered(&mut self) {
        let read = self.0.read(&mut [0; 64]).unwrap();
        assert_ne!(read, 0, "closed instead of answered");
    }

    /// Whether the server has closed it, without waiting. What it sent before is thrown away.
    pub fn is_closed(&mut self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let closed = loop {
            match self.0.read(&mut [0; 4096]) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        self.0.set_nonblocking(false).unwrap();
        closed
    }
}
