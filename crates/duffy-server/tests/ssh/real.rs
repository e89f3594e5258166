//! Against a real `sshd`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use duffy_config::Ssh as Settings;
use duffy_server::nodes::ssh::{Ssh, SshError, Target};
use russh::keys::{Algorithm, EcdsaCurve};

use crate::sshd::{BOTH, Node, SEPARATOR, make_key, write_key};

const OWN: &str = "# kept\nfrom=\"10.0.0.0/8\",no-pty ssh-ed25519 AAAA admin@example\n\n";

#[tokio::test]
async fn keys_come_and_go_and_all_else_stays() {
    for client in BOTH {
        let node = Node::start();
        let ssh = node.ssh_as(client, "admin");
        let file = node.authorized_keys();
        fs::write(&file, OWN).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let mut owner = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        if owner.0 == 0 {
            owner = (12_345, 23_456);
            std::os::unix::fs::chown(&file, Some(owner.0), Some(owner.1)).unwrap();
        }
        let check = |content: &str| {
            assert_eq!(fs::read_to_string(&file).unwrap(), content, "{client:?}");
            let meta = fs::metadata(&file).unwrap();
            assert_eq!(meta.permissions().mode() & 0o7777, 0o640, "{client:?}");
            assert_eq!((meta.uid(), meta.gid()), owner, "{client:?}");
            let files = fs::read_dir(node.path("home/.ssh")).unwrap();
            assert_eq!(files.count(), 1, "{client:?}");
        };
        let keys = "ssh-ed25519 AAAA one'; touch $HOME/x; '\nssh-rsa BBBB \"two\" `id` \\ !!";
        ssh.install_keys(&node.target(), keys).await.unwrap();
        check(&format!("{OWN}{SEPARATOR}\n{keys}\n"));
        ssh.install_keys(&node.target(), "ssh-rsa CCCC three")
            .await
            .unwrap();
        check(&format!("{OWN}{SEPARATOR}\nssh-rsa CCCC three\n"));
        ssh.remove_keys(&node.target()).await.unwrap();
        check(OWN);
        ssh.remove_keys(&node.target()).await.unwrap();
        check(OWN);
        assert!(!node.path("home/x").exists());
    }
}

#[tokio::test]
async fn work_that_comes_late_changes_nothing() {
    for client in BOTH {
        let node = Node::start();
        let ssh = node.ssh_as(client, "admin");
        let at = |fence: i64| Target {
            fence: Some(fence),
            ..node.target()
        };
        let check = |fence: i64, keys: &str| {
            let content = fs::read_to_string(node.authorized_keys()).unwrap();
            let then = format!("{SEPARATOR}\n# duffy fence {fence}\n{keys}");
            assert_eq!(content, then, "{client:?}");
        };
        let late = |error: SshError| {
            assert!(!error.is_own_fault(), "{client:?}: {error:?}");
            match error {
                SshError::FencedOff { fence, kept, .. } => (fence, kept),
                other => panic!("{client:?}: {other:?}"),
            }
        };
        assert_eq!(ssh.read_tenant_keys(&node.target()).await.unwrap(), None);
        ssh.install_keys(&at(41), "new\nkeys").await.unwrap();
        ssh.install_keys(&at(41), "new\nkeys").await.unwrap();
        let error = ssh.install_keys(&at(40), "late").await.unwrap_err();
        assert_eq!(late(error), (40, 41));
        let error = ssh.remove_keys(&at(39)).await.unwrap_err();
        assert_eq!(late(error), (39, 41));
        check(41, "new\nkeys\n");
        let read = ssh.read_tenant_keys(&at(40)).await.unwrap();
        assert_eq!(read.as_deref(), Some("new\nkeys"));
        ssh.remove_keys(&at(42)).await.unwrap();
        let error = ssh.install_keys(&at(41), "late").await.unwrap_err();
        assert_eq!(late(error), (41, 42));
        check(42, "");
        assert_eq!(ssh.read_tenant_keys(&node.target()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_tenant_whose_number_is_written_in_is_still_let_in() {
    for client in BOTH {
        let node = Node::start();
        let target = Target {
            fence: Some(7),
            ..node.target()
        };
        let key = node.new_key("tenant", Algorithm::Ed25519);
        let admin = node.ssh_as(client, "admin");
        admin.install_keys(&target, &key).await.unwrap();
        let tenant = node.ssh_as(client, "tenant");
        let read = tenant.read_tenant_keys(&target).await.unwrap();
        assert_eq!(read, Some(key), "{client:?}");
    }
}

#[tokio::test]
async fn a_file_without_an_end_is_not_read_to_it() {
    for client in BOTH {
        let node = Node::start();
        let ssh = node.ssh_as(client, "admin");
        let long = format!("{SEPARATOR}\n{}\n", "k".repeat((1 << 20) - 30));
        fs::write(node.authorized_keys(), &long).unwrap();
        let read = ssh.read_tenant_keys(&node.target()).await.unwrap();
        assert_eq!(read.map(|keys| keys.len()), Some((1 << 20) - 30));
        fs::write(node.authorized_keys(), long.replace('k', "kk")).unwrap();
        let error = ssh.read_tenant_keys(&node.target()).await.unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
        fs::remove_file(node.authorized_keys()).unwrap();
        assert_eq!(ssh.read_tenant_keys(&node.target()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn commands_that_meet_all_succeed() {
    for client in BOTH {
        let node = Node::start();
        let ssh = node.ssh_as(client, "admin");
        let own = fs::read_to_string(node.authorized_keys()).unwrap();
        let target = node.target();
        let results = futures::future::join_all(
            (0..5).map(|_| ssh.install_keys(&target, "ssh-rsa CCCC same")),
        )
        .await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let content = fs::read_to_string(node.authorized_keys()).unwrap();
        assert_eq!(content, format!("{own}{SEPARATOR}\nssh-rsa CCCC same\n"));
    }
}

#[tokio::test]
async fn a_tenant_gets_in_while_its_key_is_there() {
    for client in BOTH {
        let node = Node::start();
        let admin = node.ssh_as(client, "admin");
        let tenant_key = node.new_key("tenant", Algorithm::Ed25519);
        let tenant = node.ssh_as(client, "tenant");
        let error = tenant.remove_keys(&node.target()).await.unwrap_err();
        assert!(
            matches!(error, SshError::Auth { .. }),
            "{client:?}: {error:?}"
        );
        admin
            .install_keys(&node.target(), &tenant_key)
            .await
            .unwrap();
        tenant
            .install_keys(&node.target(), &tenant_key)
            .await
            .unwrap();
        admin.remove_keys(&node.target()).await.unwrap();
        let error = tenant.remove_keys(&node.target()).await.unwrap_err();
        assert!(
            matches!(error, SshError::Auth { .. }),
            "{client:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_missing_file_matters_only_for_installing() {
    for client in BOTH {
        let node = Node::start();
        let ssh = node.ssh_as(client, "admin");
        fs::remove_file(node.authorized_keys()).unwrap();
        ssh.remove_keys(&node.target()).await.unwrap();
        let error = ssh.install_keys(&node.target(), "key").await.unwrap_err();
        let SshError::Command { exit, stderr, .. } = &error else {
            panic!("{client:?}: {error:?}");
        };
        assert_eq!(exit, "status 65");
        assert!(
            stderr.contains("/home/.ssh/authorized_keys: there is no such file"),
            "{stderr}"
        );
        assert!(!error.to_string().contains('\n'));
    }
}

#[tokio::test]
async fn a_link_is_followed() {
    for client in BOTH {
        let node = Node::start();
        let file = node.path("elsewhere");
        fs::rename(node.authorized_keys(), &file).unwrap();
        fs::write(&file, "own").unwrap();
        std::os::unix::fs::symlink(&file, node.authorized_keys()).unwrap();
        let ssh = node.ssh_as(client, "admin");
        ssh.install_keys(&node.target(), "key").await.unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            format!("own\n{SEPARATOR}\nkey\n")
        );
        let link = fs::symlink_metadata(node.authorized_keys()).unwrap();
        assert!(link.is_symlink(), "{client:?}");
    }
}

#[tokio::test]
async fn announced_host_keys_are_insisted_on() {
    for client in BOTH {
        let node = Node::start();
        let ssh = node.ssh_as(client, "admin");
        let mut target = node.target();
        // Either of the node's keys is enough, even if the node prefers to show the other one.
        for name in ["host_ed25519", "host_ecdsa"] {
            target.host_keys = vec![node.public(name)];
            ssh.remove_keys(&target).await.unwrap();
        }
        let rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC5K9D2bvrOFEHibQFQo9/XuXBxyPspDVC2x7rcA6o/9Vgi2oQfy6evE+iBc0GCtwISb9xwtlmzITeqCncNFCSSq8mFno7xUE+xfGNl6xEKqgU0JzPL4x/RH9Ca9Gem7n7gMMvPSnu+uxFlb2OL9z3wrPF5SidaCSmVBoIFgs3zvlZ15Rgwa1vUwt80ISPXvuOBmXcLO20tErey7p1ySjBdxdi/WA9M9kDAlvj0njejVCFXv7XN3Be+4UzrO5gd271kdIqKvqTV1c4RPf9T4tYbmh8CjyjFRa//u+zqHsx5qPCRR4gE5Zi0P7AZhG9WnG+PufI6ha2D6ObRfqd2ewP5";
        for other in [node.public("admin"), rsa.to_owned()] {
            target.host_keys = vec![other];
            let error = ssh.install_keys(&target, "key").await.unwrap_err();
            assert!(
                matches!(error, SshError::HostKey { .. }),
                "{client:?}: {error:?}"
            );
        }
        assert_eq!(fs::read_to_string(node.authorized_keys()).unwrap(), "");
    }
}

#[tokio::test]
async fn who_was_not_let_in_and_with_what_is_said() {
    for client in BOTH {
        let node = Node::start();
        node.new_key("stranger", Algorithm::Ed25519);
        let ssh = node.ssh_as(client, "stranger");
        let error = ssh.remove_keys(&node.target()).await.unwrap_err();
        let SshError::Auth { host, user, tried } = &error else {
            panic!("{client:?}: {error:?}");
        };
        assert!(host.contains(&node.address.to_string()), "{host}");
        assert_eq!(*user, crate::sshd::user_name());
        assert!(tried.contains("/stranger"), "{tried}");
    }
}

#[tokio::test]
async fn keys_of_all_usual_kinds_let_in() {
    let node = Node::start();
    let mut allowed = fs::read_to_string(node.path("admin_keys")).unwrap();
    let mut names = vec!["admin".to_owned()];
    for curve in [
        EcdsaCurve::NistP256,
        EcdsaCurve::NistP384,
        EcdsaCurve::NistP521,
    ] {
        let name = curve.as_str().to_owned();
        allowed.push_str(&node.new_key(&name, Algorithm::Ecdsa { curve }));
        allowed.push('\n');
        names.push(name);
    }
    // Made by the real `ssh-keygen`: an RSA key in both of its file formats.
    for format in ["RFC4716", "PEM"] {
        let path = node.path(format);
        let made = std::process::Command::new("ssh-keygen")
            .args([
                "-q", "-t", "rsa", "-b", "2048", "-N", "", "-m", format, "-f",
            ])
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
        allowed.push_str(&node.public(format));
        names.push(format.to_owned());
    }
    fs::write(node.path("admin_keys"), allowed).unwrap();
    for client in BOTH {
        for name in &names {
            let ssh = node.ssh_as(client, name);
            let result = ssh.remove_keys(&node.target()).await;
            assert!(
                result.is_ok(),
                "{client:?} {name}: {result:?}\n{}",
                node.log()
            );
        }
    }
}

#[tokio::test]
async fn nodes_that_do_not_answer_are_given_up_in_time() {
    for client in BOTH {
        let node = Node::start();
        // The system accepts connections by itself, and nothing is ever sent.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target {
            host: "127.0.0.1".to_owned(),
            port: Some(silent.local_addr().unwrap().port()),
            host_keys: Vec::new(),
            fence: None,
        };
        let settings = Settings {
            timeout: Duration::from_secs(1),
            ..node.settings(client, "admin")
        };
        let ssh = Ssh::new(settings).unwrap();
        let started = Instant::now();
        let error = ssh.install_keys(&target, "key").await.unwrap_err();
        assert!(
            matches!(error, SshError::Timeout { .. }),
            "{client:?}: {error:?}"
        );
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{client:?}: {:?}",
            started.elapsed()
        );

        drop(silent);
        let ssh = node.ssh_as(client, "admin");
        let started = Instant::now();
        let error = ssh.install_keys(&target, "key").await.unwrap_err();
        assert!(
            matches!(error, SshError::Connect { .. }),
            "{client:?}: {error:?}"
        );
        assert!(error.to_string().contains("refused"), "{error}");
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{client:?}: {:?}",
            started.elapsed()
        );

        let nowhere = Target {
            host: "node.invalid".to_owned(),
            ..target
        };
        let error = ssh.install_keys(&nowhere, "key").await.unwrap_err();
        assert!(
            matches!(error, SshError::Resolve { .. }),
            "{client:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn many_nodes_are_reached_at_once() {
    let nodes: Vec<Node> = (0..8).map(|_| Node::start()).collect();
    // All nodes accept the first node's key.
    let admin = fs::read(nodes[0].path("admin_keys")).unwrap();
    for node in &nodes {
        fs::write(node.path("admin_keys"), &admin).unwrap();
    }
    let key = "k".repeat(100_000);
    for client in BOTH {
        let ssh = nodes[0].ssh_as(client, "admin");
        let targets: Vec<Target> = nodes.iter().map(Node::target).collect();
        let installing = targets.iter().map(|target| ssh.install_keys(target, &key));
        let started = Instant::now();
        for result in futures::future::join_all(installing).await {
            result.unwrap();
        }
        println!("{client:?}: {:?} for 8 nodes", started.elapsed());
        for node in &nodes {
            assert_eq!(
                fs::read_to_string(node.authorized_keys()).unwrap(),
                format!("{SEPARATOR}\n{key}\n")
            );
        }
    }
}

#[tokio::test]
async fn unusable_keys_are_refused_at_the_start() {
    let node = Node::start();
    fs::write(node.path("garbage"), "no key").unwrap();
    for name in ["missing", "garbage", "home"] {
        let error = Ssh::new(node.settings(BOTH[0], name)).unwrap_err();
        assert!(error.to_string().contains(&format!("/{name}: ")), "{error}");
        assert!(matches!(error, SshError::Config(_)), "{error:?}");
    }
    let locked = make_key(Algorithm::Ed25519)
        .encrypt(&mut rand::rng(), "secret")
        .unwrap();
    write_key(&node.path("locked"), &locked);
    if std::env::var_os("SSH_AUTH_SOCK").is_none() {
        let error = Ssh::new(node.settings(BOTH[0], "locked")).unwrap_err();
        assert!(error.to_string().contains("passphrase"), "{error}");
    }
}
