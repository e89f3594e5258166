//! A node: a real sshd on a loopback address, with its own root home directory.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid, User};
use serde_json::{Value, json};

use super::key::SshKey;
use super::program::Program;
use super::scratch::{MARK, Scratch};
use super::ssh::SshEndpoint;
use super::wait::free_port_on;
use super::{eventually, tools};

/// A running sshd. Logins are as the user who runs the tests (`user()`), but `~` and `$HOME` belong to this node.
#[derive(Debug)]
pub struct SshNode {
    scratch: Scratch,
    name: String,
    address: SocketAddr,
    host_key: SshKey,
    server: Option<Program>,
}

/// Gives each loopback address its own home directory below the one of the node.
const HOME_PER_ADDRESS: &str = "\
AllowUsers *@127.0.0.0/8
ForceCommand d=$HOME/$(echo $SSH_CONNECTION | cut -d' ' -f3); mkdir -p $d/.ssh; \
[ -e $d/.ssh/authorized_keys ] || cp $HOME/.ssh/authorized_keys $d/.ssh/; HOME=$d exec sh -c \"$SSH_ORIGINAL_COMMAND\"
";

impl SshNode {
    /// Starts a node that serves all loopback addresses on the same port.
    pub fn start_everywhere(authorized: &[&str]) -> Self {
        Self::start("0.0.0.0", authorized)
    }

    /// Starts a node on a loopback address, with these public keys in its authorized_keys.
    pub fn start(ip: &str, authorized: &[&str]) -> Self {
        let ip: IpAddr = ip.parse().unwrap();
        let scratch = Scratch::new("node");
        let host_key = SshKey::generate(&scratch.join("host_key"), "host");
        let name = format!("node-{}.test", ip.to_string().replace(['.', ':'], "-"));
        let mut node = Self {
            scratch,
            name,
            address: SocketAddr::new(ip, 0),
            host_key,
            server: None,
        };
        fs::create_dir_all(node.home().join(".ssh")).unwrap();
        let mut lines = String::new();
        for key in authorized {
            writeln!(lines, "{key}").unwrap();
        }
        fs::write(node.authorized_keys_file(), lines).unwrap();
        fs::set_permissions(node.authorized_keys_file(), Permissions::from_mode(0o600)).unwrap();
        make_privilege_separation_directory();
        // Another process may take the port before the start.
        for _ in 0..5 {
            node.address.set_port(free_port_on(ip));
            if node.try_start() {
                return node;
            }
        }
        panic!("sshd does not start:\n{}", node.log())
    }

    /// The user to log in as: the user who runs the tests.
    pub fn user() -> String {
        User::from_uid(Uid::effective())
            .unwrap()
            .expect("the user who runs the tests has no name")
            .name
    }

    /// Its host name, which DNS does not know.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its loopback address.
    pub fn ip(&self) -> String {
        self.address.ip().to_string()
    }

    /// The port of its sshd.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The root home directory of this node.
    pub fn home(&self) -> PathBuf {
        self.scratch.join("root")
    }

    /// Its authorized_keys file.
    pub fn authorized_keys_file(&self) -> PathBuf {
        self.home().join(".ssh/authorized_keys")
    }

    /// The content of its authorized_keys file.
    pub fn authorized_keys(&self) -> String {
        fs::read_to_string(self.authorized_keys_file()).unwrap()
    }

    /// The content of its authorized_keys file without Duffy's separator and fence, which stay when the tenant's keys are removed.
    pub fn own_keys(&self) -> String {
        let keys = self.authorized_keys();
        let lines = keys.lines().filter(|line| {
            *line != "### DUFFY tenant credentials" && !line.starts_with("# duffy fence ")
        });
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    /// The log of its sshd.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.join("sshd.log")).unwrap_or_default()
    }

    /// The result of a provisioning playbook for this node.
    pub fn result(&self) -> Value {
        json!({
            "hostname": self.name,
            "ipaddr": self.ip(),
            "ssh_port": self.port(),
            "ssh_host_keys": [self.host_key.public()],
        })
    }

    /// Runs a command on the node with the system's ssh and this key only.
    pub fn login(&self, key: &SshKey, command: &str) -> Output {
        let endpoint = SshEndpoint {
            ip: self.ip(),
            port: self.port(),
            host_key: self.host_key.public().to_owned(),
        };
        endpoint.login(self.scratch.path(), &Self::user(), key, command)
    }

    /// Whether a login with this key succeeds.
    pub fn lets_in(&self, key: &SshKey) -> bool {
        self.login(key, "true").status.success()
    }

    /// Refuses new connections. Open ones continue.
    pub fn refuse(&mut self) {
        let server = self.server.take().expect("sshd is not running");
        server.kill9();
    }

    /// The number of logins with a key so far.
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// The number of logged-in connections that are open.
    pub fn open_connections(&self) -> usize {
        self.session_processes().len()
    }

    /// Stops the processes of all open connections until the result is dropped: the node does not answer on them.
    #[must_use]
    pub fn stall_connections(&self) -> StalledConnections {
        let stalled = self.session_processes();
        for pid in &stalled {
            nix::sys::signal::kill(*pid, Signal::SIGSTOP).ok();
        }
        StalledConnections(stalled)
    }

    /// Refuses new connections and breaks the open ones.
    pub fn die(&mut self) {
        // First no new ones: Duffy logs in again at once.
        let open = self.session_processes();
        self.refuse();
        for pid in open {
            nix::sys::signal::kill(pid, Signal::SIGKILL).ok();
        }
    }

    /// The children of sshd that serve a connection after its login.
    fn session_processes(&self) -> Vec<Pid> {
        let server = self.server.as_ref().expect("sshd is not running").pid();
        let processes = fs::read_dir("/proc").unwrap();
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
            let status = read("status").unwrap_or_default();
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            let is_child = parent.is_some_and(|parent| parent.trim() == server.to_string());
            // Before the login its title has [priv], [accepted], [preauth] or [net].
            is_child && !read("cmdline").unwrap_or_default().contains('[')
        })
        .map(Pid::from_raw)
        .collect()
    }

    /// Accepts new connections without any response. Open ones continue.
    pub fn stall(&self) {
        self.server
            .as_ref()
            .expect("sshd is not running")
            .signal(Signal::SIGSTOP);
    }

    /// Ends `refuse` or `stall`.
    pub fn recover(&mut self) {
        if let Some(server) = &self.server {
            server.signal(Signal::SIGCONT);
        } else {
            assert!(
                self.try_start(),
                "sshd does not start again:\n{}",
                self.log()
            );
        }
    }

    /// Starts sshd and waits for its greeting. Returns false if it ends instead.
    fn try_start(&mut self) -> bool {
        let config = self.write_config();
        let mut command = Command::new(tools::sshd());
        command.args(["-D", "-e", "-f"]).arg(config);
        let server = Program::start(&self.scratch, "sshd", command);
        let ready = eventually(Duration::from_secs(20), "sshd to greet", || {
            match greet(self.address) {
                Ok(()) => Ok(true),
                Err(_) if !server.is_running() => Ok(false),
                Err(error) => Err(format!("{error}, log {:?}", self.log())),
            }
        });
        self.server = ready.then_some(server);
        ready
    }

    fn write_config(&self) -> PathBuf {
        let mut config = format!(
            "ListenAddress {}\n\
             HostKey {}\n\
             AuthorizedKeysFile {}\n\
             SetEnv HOME={} {MARK}={}\n\
             PidFile none\n\
             StrictModes no\n\
             UsePAM no\n\
             PermitRootLogin prohibit-password\n\
             PasswordAuthentication no\n\
             PrintMotd no\n\
             MaxStartups 1000\n\
             Subsystem sftp internal-sftp\n",
            self.address,
            self.host_key.path().display(),
            self.authorized_keys_file().display(),
            self.home().display(),
            self.scratch.mark(),
        );
        if self.address.ip().is_unspecified() {
            config += HOME_PER_ADDRESS;
        }
        // Newer versions block an address for a while after failed logins. Older ones do not know this option.
        let path = self.scratch.join("sshd_config");
        let lenient = format!("{config}PerSourcePenalties no\n");
        fs::write(&path, &lenient).unwrap();
        let mut test = Command::new(tools::sshd());
        let output = test
            .args(["-t", "-f"])
            .arg(&path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.success() {
            config = lenient;
        }
        fs::write(&path, config).unwrap();
        path
    }
}

/// Processes of sshd that do not run. They do not end with sshd, so they are killed when this is dropped.
#[derive(Debug)]
pub struct StalledConnections(Vec<Pid>);

impl Drop for StalledConnections {
    fn drop(&mut self) {
        for pid in &self.0 {
            nix::sys::signal::kill(*pid, Signal::SIGKILL).ok();
        }
    }
}

/// Checks that an SSH server responds at the address.
fn greet(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting)?;
    if &greeting == b"SSH-" {
        Ok(())
    } else {
        Err(std::io::Error::other("not an SSH server"))
    }
}

/// Debian's sshd needs a directory that only its service unit creates.
fn make_privilege_separation_directory() {
    if Uid::effective().is_root() {
        fs::create_dir_all("/run/sshd").unwrap();
        fs::set_permissions("/run/sshd", Permissions::from_mode(0o755)).unwrap();
    }
}
