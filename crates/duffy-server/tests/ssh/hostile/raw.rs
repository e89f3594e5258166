//! What a server can send before anything is encrypted, written by hand.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Text with escape sequences and line breaks, which a terminal would interpret.
pub const EVIL: &str = "\x1b]0;evil\x07\x1b[2J\r\nfake line\u{9b}31m\u{202e}";

/// What the server does after the first bytes.
#[derive(Clone)]
pub enum Then {
    /// Sends the same for ever.
    Repeat(Vec<u8>),
    /// Sends nothing, and keeps the connection open.
    Hang,
    /// Closes the connection.
    Close,
}

/// A server that sends the same to every client.
pub struct RawServer {
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl RawServer {
    pub async fn start(first: Vec<u8>, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, first.clone(), then.clone()));
            }
        });
        Self { address, accepting }
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Ends when the client closes the connection.
async fn talk(mut stream: TcpStream, first: Vec<u8>, then: Then) {
    let (mut reader, mut writer) = stream.split();
    let talking = async {
        writer.write_all(&first).await?;
        if let Then::Repeat(again) = &then {
            loop {
                writer.write_all(again).await?;
            }
        }
        std::io::Result::Ok(())
    };
    let mut scrap = vec![0; 4096];
    let mut listening = async || while reader.read(&mut scrap).await.is_ok_and(|read| read > 0) {};
    match then {
        Then::Close => {
            let _ = talking.await;
        }
        Then::Hang => {
            let _ = talking.await;
            listening().await;
        }
        Then::Repeat(_) => tokio::select! {
            _ = talking => {}
            () = listening() => {}
        },
    }
}

pub fn version() -> Vec<u8> {
    b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec()
}

/// A packet before encryption: length, padding, payload.
pub fn packet(payload: &[u8]) -> Vec<u8> {
    let mut padding = 8 - (payload.len() + 5) % 8;
    if padding < 4 {
        padding += 8;
    }
    let mut packet = u32::try_from(payload.len() + padding + 1)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

pub fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&length[..], text.as_bytes()].concat()
}

/// The first packet of a key exchange.
pub fn kex_init(exchange: &str, host_key: &str) -> Vec<u8> {
    let ciphers = "aes256-ctr,chacha20-poly1305@openssh.com";
    let macs = "hmac-sha2-256";
    let lists = [
        exchange, host_key, ciphers, ciphers, macs, macs, "none", "none", "", "",
    ];
    let lists: Vec<u8> = lists.into_iter().flat_map(text).collect();
    packet(&[&[20], &[7; 16][..], &lists, &[0; 5]].concat())
}

/// A valid one.
pub fn usual_kex_init() -> Vec<u8> {
    kex_init("curve25519-sha256,ecdh-sha2-nistp256", "ssh-ed25519")
}

pub fn disconnect() -> Vec<u8> {
    let payload = [&[1, 0, 0, 0, 2][..], &text(&EVIL.repeat(500)), &text("")].concat();
    packet(&payload)
}

pub fn debug() -> Vec<u8> {
    packet(&[&[4, 1][..], &text(EVIL), &text("")].concat())
}
