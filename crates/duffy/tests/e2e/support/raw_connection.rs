//! Sends arbitrary bytes to a server.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// The timeout of reads and writes.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A connection to a server.
#[derive(Debug)]
pub struct RawConnection(TcpStream);

impl RawConnection {
    /// Connects to this port of 127.0.0.1.
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self(stream))
    }

    /// Sends bytes. Fails if the server has closed the connection.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.write_all(bytes.as_ref())
    }

    /// Sends a piece this many times, or until the server closes the connection.
    pub fn send_repeatedly(&mut self, piece: &[u8], times: usize) {
        for _ in 0..times {
            if self.send(piece).is_err() {
                return;
            }
        }
    }

    /// Reads until the server closes the connection. Returns status and body; status 0 if there is no reply.
    pub fn reply(&mut self) -> (u16, String) {
        let mut bytes = Vec::new();
        // The connection may be reset after the reply.
        self.0.read_to_end(&mut bytes).ok();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let status = text.get(9..12).map_or(Ok(0), str::parse).unwrap();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status, body.unwrap_or_default())
    }

    /// Returns the status of the reply, and its `detail`.
    pub fn refusal(&mut self) -> (u16, Value) {
        let (status, body) = self.reply();
        let json: Value = serde_json::from_str(&body).unwrap_or_default();
        (status, json["detail"].clone())
    }

    /// Waits for the first bytes of a reply, and keeps the connection open.
    pub fn wait_for_reply(&mut self) {
        let read = self.0.read(&mut [0; 64]).unwrap();
        assert_ne!(read, 0, "the server closed the connection without a reply");
    }

    /// Whether the server has closed the connection. Does not wait, and drops the data that it receives.
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
