//! Nodes that lie: they cost bounded time and memory, the error is about the node, and it is safe to show.

mod liar;
mod raw;

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use duffy_config::{Ssh as Settings, SshClient};
use duffy_server::nodes::ssh::{Ssh, SshError, Target};
use liar::{LiarServer, Lie};
use nix::sys::resource::{UsageWho, getrusage};
use raw::{EVIL, RawServer, Then, debug, disconnect, kex_init, packet, usual_kex_init, version};
use russh::keys::Algorithm;
use tempfile::TempDir;

use crate::sshd::{BOTH, make_key, write_key};

/// How long a node may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How much later its error may come on a busy machine.
const MARGIN: Duration = Duration::from_secs(8);
/// Resident memory that a node may cost, in this process and in `ssh`.
const MEMORY: u64 = 48 << 20;
/// The longest error.
const LONGEST: usize = 1_500;

struct Clients {
    directory: TempDir,
}

impl Clients {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_key(&directory.path().join("key"), &make_key(Algorithm::Ed25519));
        fs::write(directory.path().join("config"), "").unwrap();
        Self { directory }
    }

    fn ssh(&self, client: SshClient) -> Ssh {
        Ssh::new(Settings {
            client,
            timeout: TIMEOUT,
            identity_files: vec![self.directory.path().join("key")],
            config_file: Some(self.directory.path().join("config")),
            ..Settings::default()
        })
        .unwrap()
    }

    /// Has both clients install a key at a server that lies, and checks what they make of it.
    async fn meet(&self, name: &str, address: SocketAddr, host_keys: &[String]) {
        let target = Target {
            host: address.ip().to_string(),
            port: Some(address.port()),
            host_keys: host_keys.to_vec(),
            fence: Some(7),
        };
        for client in BOTH {
            let ssh = self.ssh(client);
            forget_peak();
            let before = peak();
            let started = Instant::now();
            // More than fits in a window of 1.
            let error = ssh.install_keys(&target, &"k".repeat(10_000)).await;
            let (took, grown) = (started.elapsed(), peak().saturating_sub(before));
            let Err(error) = error else {
                panic!("{client:?}: {name} is believed");
            };
            check_error(&format!("{client:?}: {name}"), &error);
            assert!(
                !error.to_string().contains("ssh_config"),
                "{client:?}: {name}: {error}"
            );
            assert!(took < TIMEOUT + MARGIN, "{client:?}: {name}: {took:?}");
            assert!(grown < MEMORY, "{client:?}: {name}: {grown} bytes");
        }
        let of_ssh = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
        assert!((of_ssh as u64) << 10 < MEMORY, "{name}: {of_ssh} KiB");
    }

    async fn meet_raw(&self, name: &str, first: &[Vec<u8>], then: Then) {
        let server = RawServer::start(first.concat(), then).await;
        self.meet(name, server.address, &[]).await;
    }

    async fn meet_liar(&self, lie: Lie) {
        let server = LiarServer::start(lie.clone()).await;
        let name: String = format!("{lie:?}").chars().take(60).collect();
        self.meet(&name, server.address, &[]).await;
    }
}

fn check_error(name: &str, error: &SshError) {
    assert!(!error.is_own_fault(), "{name}: {error:?}");
    let text = error.to_string();
    let harmful = |c: char| c.is_control() || c == '\u{202e}';
    assert!(!text.contains(harmful), "{name}: {text:?}");
    assert!(text.chars().count() < LONGEST, "{name}: {text}");
}

/// The most resident memory of this process since [`forget_peak`], in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() << 10
}

fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_and_in_the_version() {
    let clients = Clients::new();
    let evil_lines = Then::Repeat(EVIL.repeat(100).into_bytes());
    clients.meet_raw("lines", &[], evil_lines).await;
    let text = Then::Repeat(vec![b'x'; 8192]);
    clients.meet_raw("no line break", &[], text.clone()).await;
    let start = b"SSH-2.0-".to_vec();
    clients.meet_raw("an endless version", &[start], text).await;
    clients.meet_raw("silence", &[], Then::Hang).await;
    clients.meet_raw("closed at once", &[], Then::Close).await;
    let evil = format!("SSH-2.0-\x1b[2J{EVIL}\r\n").into_bytes();
    clients
        .meet_raw("an evil version", &[evil], Then::Close)
        .await;
    let old = format!("SSH-1.5-\x1b[2J{EVIL}\r\n").into_bytes();
    clients.meet_raw("an old version", &[old], Then::Hang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_key_exchange() {
    let clients = Clients::new();
    clients
        .meet_raw("no exchange", &[version()], Then::Hang)
        .await;
    clients
        .meet_raw("closed after the version", &[version()], Then::Close)
        .await;
    let usual = [version(), usual_kex_init()];
    clients
        .meet_raw("a stalled exchange", &usual, Then::Hang)
        .await;
    clients
        .meet_raw("closed in the exchange", &usual, Then::Close)
        .await;
    let noise = Then::Repeat(vec![0xff; 8192]);
    clients.meet_raw("noise", &usual, noise.clone()).await;
    let huge = [version(), vec![0xff, 0xff, 0xff, 0xff]];
    clients.meet_raw("a huge packet", &huge, noise).await;
    let large = [version(), vec![0, 3, 0xff, 0xf0, 4]];
    clients
        .meet_raw("a large packet", &large, Then::Repeat(vec![0; 8192]))
        .await;
    let said = [version(), disconnect()];
    clients
        .meet_raw("an evil farewell", &said, Then::Hang)
        .await;
    let remarks = Then::Repeat(debug());
    clients.meet_raw("remarks", &[version()], remarks).await;
    let ignored = Then::Repeat(packet(&[&[2, 0, 0, 0x10, 0][..], &[b'x'; 4096]].concat()));
    clients.meet_raw("packets to ignore", &usual, ignored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_names_of_algorithms() {
    let clients = Clients::new();
    // Characters that are not ASCII are refused first.
    let many = vec!["\x1b]0;evil\x07\x1b[2J\r\nfake line\x7f"; 500].join(",");
    let exchange = kex_init(&many, "ssh-ed25519");
    clients
        .meet_raw("exchanges", &[version(), exchange], Then::Hang)
        .await;
    let host_key = kex_init("curve25519-sha256", &many);
    let server = RawServer::start([version(), host_key].concat(), Then::Hang).await;
    let announced = make_key(Algorithm::Ed25519)
        .public_key()
        .to_openssh()
        .unwrap();
    clients
        .meet("host keys", server.address, &[announced])
        .await;
    clients
        .meet("host keys, any of which would do", server.address, &[])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_what_comes_before_the_command() {
    let clients = Clients::new();
    for lie in [
        Lie::Banner,
        Lie::CloseAtLogin,
        Lie::CloseAtChannel,
        Lie::RefuseChannel,
        Lie::CloseAtCommand,
        Lie::RefuseCommand,
        Lie::Silence,
        Lie::NoWindow,
    ] {
        clients.meet_liar(lie).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_what_the_command_says() {
    let clients = Clients::new();
    for lie in [
        Lie::Endless(None, b"x"),
        Lie::Endless(Some(1), b"x"),
        Lie::Endless(Some(1), EVIL.as_bytes()),
        Lie::Endless(Some(7), b"x"),
    ] {
        clients.meet_liar(lie).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_how_the_command_ends() {
    let clients = Clients::new();
    let evil = || EVIL.repeat(1_000);
    for lie in [
        Lie::NoStatus,
        Lie::Exit(1, evil()),
        Lie::Exit(255, evil()),
        Lie::Exit(255, format!("Permission denied ({}", evil())),
        Lie::Exit(u32::MAX, evil()),
        // The server claims that the command was overtaken each time, or fenced off.
        Lie::Exit(67, evil()),
        Lie::Exit(68, "# duffy fence 99".to_owned()),
        Lie::Exit(68, format!("# duffy fence {}", "9".repeat(100_000))),
        Lie::Signal("TERM".to_owned()),
        Lie::Signal(evil()),
        Lie::Signal(String::new()),
    ] {
        clients.meet_liar(lie).await;
    }
}

/// A node may say that the command was overtaken although it did its work. An error after that does not mean that the
/// node is unchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_of_our_own_after_a_command_is_a_lost_answer() {
    let clients = Clients::new();
    let server = LiarServer::start(Lie::Exit(67, String::new())).await;
    let target = Target {
        host: server.address.ip().to_string(),
        port: Some(server.address.port()),
        ..Target::default()
    };
    let ssh = clients.ssh(SshClient::Auto);
    let config = clients.directory.path().join("config");
    let (result, ()) = tokio::join!(ssh.install_keys(&target, "key"), async {
        server.commanded().await;
        fs::write(&config, "User x\nNonsense y\n").unwrap();
    });
    let error = result.unwrap_err();
    assert!(matches!(error, SshError::Lost { .. }), "{error:?}");
    assert!(error.to_string().contains("onsense"), "{error}");
    check_error("overtaken", &error);
}
