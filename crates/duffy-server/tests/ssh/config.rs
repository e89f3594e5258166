//! Both clients follow ssh_config.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use duffy_config::{Ssh as Settings, SshClient};
use duffy_server::nodes::ssh::{Ssh, SshError, Target};
use russh::keys::Algorithm;

use crate::sshd::{BOTH, Node, make_key, user_name, write_key};

fn ssh_with(node: &Node, client: SshClient, config: &str) -> Ssh {
    let path = node.path("own_config");
    fs::write(&path, config).unwrap();
    Ssh::new(Settings {
        client,
        config_file: Some(path),
        ..Settings::default()
    })
    .unwrap()
}

fn target(host: &str) -> Target {
    Target {
        host: host.to_owned(),
        ..Target::default()
    }
}

#[tokio::test]
async fn names_ports_users_and_keys_of_a_host_are_taken() {
    let node = Node::start();
    let config = format!(
        "Host good\n  HostName {}\n  Port {}\n  User {}\n  IdentityFile {}\n\
         Host *\n  IdentityAgent none\n  IdentityFile /nowhere\n",
        node.address,
        node.port,
        user_name(),
        node.path("admin").display()
    );
    for client in BOTH {
        let ssh = ssh_with(&node, client, &config);
        ssh.install_keys(&target("good"), "key").await.unwrap();
        ssh.remove_keys(&target("good")).await.unwrap();
        let error = ssh.remove_keys(&target("other.invalid")).await.unwrap_err();
        assert!(
            matches!(error, SshError::Resolve { .. }),
            "{client:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn root_is_the_user_unless_something_else_is_said() {
    let node = Node::start();
    // Only the user differs, and only the user of the test can log in.
    let config = format!(
        "Host *\n  IdentityAgent none\n  IdentityFile {}\n",
        node.path("missing").display()
    );
    for client in BOTH {
        let ssh = ssh_with(&node, client, &config);
        let error = ssh.remove_keys(&node.target()).await.unwrap_err();
        let SshError::Auth { user, .. } = &error else {
            panic!("{client:?}: {error:?}");
        };
        assert_eq!(user, "root", "{client:?}");
    }
}

#[tokio::test]
async fn a_jump_host_is_left_to_openssh() {
    let gate = Node::start();
    let node = Node::start();
    let host = |name: &str, node: &Node| {
        format!(
            "Host {name}\n  HostName {}\n  Port {}\n  User {}\n  IdentityFile {}\n",
            node.address,
            node.port,
            user_name(),
            node.path("admin").display()
        )
    };
    let config = format!(
        "{}  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n\
         {}  ProxyJump gate\nHost *\n  IdentityAgent none\n  IdentitiesOnly yes\n",
        host("gate", &gate),
        host("inside", &node)
    );
    let ssh = ssh_with(&node, SshClient::Auto, &config);
    ssh.install_keys(&target("inside"), "key").await.unwrap();
    assert!(
        fs::read_to_string(node.authorized_keys())
            .unwrap()
            .contains("key")
    );
    assert!(gate.log().contains("Accepted publickey"), "{}", gate.log());

    let ssh = ssh_with(&node, SshClient::Native, &config);
    let error = ssh.remove_keys(&target("inside")).await.unwrap_err();
    assert!(matches!(error, SshError::Config(_)), "{error:?}");
    assert!(error.to_string().contains("ProxyJump"), "{error}");
}

/// An agent with one key that is in no file.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path, key: &Path) -> Self {
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("openssh-client is installed; run `make test-deps`");
        let agent = Self(child);
        let started = Instant::now();
        while !socket.exists() {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", socket)
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(added.success());
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn an_agents_keys_let_in() {
    let node = Node::start();
    let socket = node.path("agent");
    let _agent = Agent::start(&socket, &node.path("admin"));
    let common = format!("User {}\nIdentityAgent {}\n", user_name(), socket.display());

    // The agent's key alone; then one that a file only names, as it needs a passphrase.
    let admin = fs::read_to_string(node.path("admin")).unwrap();
    let admin = russh::keys::decode_secret_key(&admin, None).unwrap();
    write_key(
        &node.path("locked"),
        &admin.encrypt(&mut rand::rng(), "secret").unwrap(),
    );
    write_key(&node.path("other"), &make_key(Algorithm::Ed25519));
    let file = |name: &str| format!("{common}IdentityFile {}\n", node.path(name).display());
    let good = [
        common.clone(),
        file("other"),
        format!("{}IdentitiesOnly yes\n", file("locked")),
    ];
    for client in BOTH {
        for config in &good {
            let ssh = ssh_with(&node, client, config);
            let result = ssh.remove_keys(&node.target()).await;
            assert!(result.is_ok(), "{client:?} {config}: {result:?}");
        }
        let only_other = format!("{}IdentitiesOnly yes\n", file("other"));
        let ssh = ssh_with(&node, client, &only_other);
        let error = ssh.remove_keys(&node.target()).await.unwrap_err();
        assert!(
            matches!(error, SshError::Auth { .. }),
            "{client:?}: {error:?}"
        );
    }
}
