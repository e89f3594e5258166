//! A real `sshd` on loopback, which runs as the user of the test, with a home of its own for its root.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use duffy_config::{Ssh as Settings, SshClient};
use duffy_server::nodes::ssh::{Ssh, Target};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};
use tempfile::TempDir;

pub const SEPARATOR: &str = "### DUFFY tenant credentials";
pub const BOTH: [SshClient; 2] = [SshClient::Native, SshClient::OpenSsh];

const SSHD: &str = "/usr/sbin/sshd";
const STARTUP: Duration = Duration::from_secs(20);

/// A node: an `sshd` that accepts the keys of `admin_keys` and of its root's `authorized_keys`.
pub struct Node {
    directory: TempDir,
    pub address: Ipv4Addr,
    pub port: u16,
    daemon: Child,
}

impl Node {
    pub fn start() -> Self {
        assert!(
            Path::new(SSHD).exists(),
            "{SSHD} is missing; run `make test-deps`"
        );
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        // The `sshd` of a real root must be able to read it as any user.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(path.join("home/.ssh")).unwrap();
        for (name, algorithm) in [
            ("host_ed25519", Algorithm::Ed25519),
            (
                "host_ecdsa",
                Algorithm::Ecdsa {
                    curve: EcdsaCurve::NistP256,
                },
            ),
        ] {
            write_key(&path.join(name), &make_key(algorithm));
        }
        let admin = make_key(Algorithm::Ed25519);
        write_key(&path.join("admin"), &admin);
        let line = admin.public_key().to_openssh().unwrap();
        fs::write(path.join("admin_keys"), format!("{line}\n")).unwrap();
        fs::write(path.join("home/.ssh/authorized_keys"), "").unwrap();

        let random = std::process::id() % 200 + 20;
        let address = Ipv4Addr::new(127, 3, random as u8, 1);
        let port = TcpListener::bind((address, 0))
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let config = format!(
            "ListenAddress {address}:{port}\n\
             HostKey {dir}/host_ed25519\n\
             HostKey {dir}/host_ecdsa\n\
             AuthorizedKeysFile {dir}/admin_keys {dir}/home/.ssh/authorized_keys\n\
             SetEnv HOME={dir}/home\n\
             PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\n\
             MaxStartups 100\nLogLevel VERBOSE\nUseDNS no\n",
            dir = path.display()
        );
        fs::write(path.join("sshd_config"), config).unwrap();
        if nix::unistd::geteuid().is_root() {
            // `sshd` confines its unprivileged part there; the system's start script makes the directory.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let log = fs::File::create(path.join("log")).unwrap();
        let daemon = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(path.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut node = Self {
            directory,
            address,
            port,
            daemon,
        };
        let started = Instant::now();
        while !node.answers() {
            let ended = node.daemon.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < STARTUP,
                "sshd does not start: {}",
                node.log()
            );
            std::thread::yield_now();
        }
        node
    }

    fn answers(&self) -> bool {
        let mut banner = [0; 4];
        TcpStream::connect((self.address, self.port))
            .and_then(|mut stream| stream.read_exact(&mut banner))
            .is_ok_and(|()| &banner == b"SSH-")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn authorized_keys(&self) -> PathBuf {
        self.path("home/.ssh/authorized_keys")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    pub fn target(&self) -> Target {
        Target {
            host: self.address.to_string(),
            port: Some(self.port),
            host_keys: Vec::new(),
            fence: None,
        }
    }

    /// The public half of a key of this node.
    pub fn public(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap()
    }

    /// A client that logs in with this key of the node's directory.
    pub fn ssh_as(&self, client: SshClient, key: &str) -> Ssh {
        Ssh::new(self.settings(client, key)).unwrap()
    }

    pub fn settings(&self, client: SshClient, key: &str) -> Settings {
        let user = user_name();
        let config = self.path("client_config");
        fs::write(&config, format!("Host *\n  User {user}\n")).unwrap();
        Settings {
            client,
            timeout: Duration::from_secs(30),
            identity_files: vec![self.path(key)],
            config_file: Some(config),
            ..Settings::default()
        }
    }

    /// Makes a key that no node accepts, and returns its public half.
    pub fn new_key(&self, name: &str, algorithm: Algorithm) -> String {
        write_key(&self.path(name), &make_key(algorithm));
        self.public(name).trim().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// The user who runs the test: no other one can log in to its `sshd`.
pub fn user_name() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    user.unwrap().unwrap().name
}

pub fn make_key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), algorithm).unwrap()
}

pub fn write_key(path: &Path, key: &PrivateKey) {
    fs::write(path, key.to_openssh(LineEnding::LF).unwrap()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let public = key.public_key().to_openssh().unwrap();
    fs::write(path.with_extension("pub"), format!("{public}\n")).unwrap();
}
