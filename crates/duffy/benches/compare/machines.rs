//! Real sshd nodes: an sshd per node on a loopback address, and a playbook that makes them ready.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::{Uid, User};

use crate::programs::{find, user_name};
use crate::support::{Program, Scratch, eventually, free_port};

/// The variable by which [`Scratch`] finds the processes of sessions.
const MARK: &str = "DUFFY_TEST_MARK";

/// The nodes of an installation. All have the same port and host key.
pub struct Machines {
    /// Their addresses.
    pub addresses: Vec<String>,
    /// Their port.
    pub port: u16,
    _servers: Vec<Program>,
}

/// sshd writes the keys of root to `~root/.ssh`, and the Python original names it so: each node has its own there.
const WITH_OWN_DIRECTORY: &str = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;

/// Returns a command that sees this directory as `.ssh` of the user who runs it. `/usr/bin/ssh` reads its configuration there. Without
/// root there is no such command: the program runs without it.
pub fn with_ssh_directory(directory: &Path, program: &Path) -> Command {
    if !Uid::effective().is_root() {
        return Command::new(program);
    }
    let home = User::from_uid(Uid::effective()).unwrap().unwrap().dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home.join(".ssh"))
        .unwrap();
    let mut command = Command::new(find("unshare"));
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.args([WITH_OWN_DIRECTORY, "sh"]);
    command.arg(directory).arg(home.join(".ssh")).arg(program);
    command
}

impl Machines {
    /// Starts this number of nodes in the network 127.`network`.0.0, which accept a key.
    pub fn start(scratch: &Scratch, network: u8, count: usize, authorized: &str) -> Self {
        let host_key = scratch.join("host_key");
        let status = Command::new(find("ssh-keygen"))
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&host_key)
            .stdin(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "ssh-keygen failed");
        if Uid::effective().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
            fs::set_permissions("/run/sshd", Permissions::from_mode(0o755)).unwrap();
        }
        let ip = |index: usize| [127, network, (index / 200) as u8, (index % 200) as u8 + 1];
        let port = free_port();
        let start = |index: usize| {
            let address = SocketAddr::from((ip(index), port));
            start_one(scratch, address, authorized)
        };
        let servers: Vec<Program> = (0..count).map(start).collect();
        let addresses = (0..count).map(|index| SocketAddr::from((ip(index), port)));
        let addresses: Vec<SocketAddr> = addresses.collect();
        for (address, server) in addresses.iter().zip(&servers) {
            eventually(Duration::from_secs(30), "sshd to greet", || {
                greet(*address).map_err(|error| format!("{error}, log {:?}", server.log()))
            });
        }
        Self {
            addresses: addresses.iter().map(|one| one.ip().to_string()).collect(),
            port,
            _servers: servers,
        }
    }
}

fn start_one(scratch: &Scratch, address: SocketAddr, authorized: &str) -> Program {
    let name = format!("node-{}", address.ip());
    let home = scratch.join(&name);
    let directory = home.join(".ssh");
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    let keys = directory.join("authorized_keys");
    fs::write(&keys, format!("{authorized}\n")).unwrap();
    fs::set_permissions(&keys, Permissions::from_mode(0o600)).unwrap();
    let config = format!(
        "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nSetEnv HOME={} {MARK}={}\nPidFile none\n\
         StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
         PrintMotd no\nMaxStartups 1000\nLogLevel ERROR\n",
        scratch.join("host_key").display(),
        keys.display(),
        home.display(),
        scratch.mark(),
    );
    let file = home.join("sshd_config");
    fs::write(&file, config).unwrap();
    let mut command = with_ssh_directory(&directory, &find("sshd"));
    command.args(["-D", "-e", "-f"]).arg(file);
    Program::start(scratch, &name, command)
}

fn greet(address: SocketAddr) -> Result<(), String> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2));
    let mut stream = stream.map_err(|error| error.to_string())?;
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut greeting = [0; 4];
    stream
        .read_exact(&mut greeting)
        .map_err(|error| error.to_string())
}

/// The playbook of both programs: reusable nodes keep their addresses. The original only knows the short name `set_fact`.
pub const PROVISION: &str = "\
- name: Provision
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Set the result
      set_fact:
        duffy_out:
          nodes: \"{{ duffy_in.nodes }}\"
";

/// The ssh_config with which a program reaches the nodes.
pub fn ssh_config(port: u16, identity: &str) -> String {
    let user = user_name();
    format!(
        "Host *\n  Port {port}\n  User {user}\n  IdentityFile {identity}\n  IdentityAgent none\n"
    )
}
