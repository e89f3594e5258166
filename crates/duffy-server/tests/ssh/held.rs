//! Connections that are opened in advance, against a real `sshd`.

use std::fs;
use std::time::Duration;

use duffy_config::SshClient;
use duffy_server::nodes::ssh::{HoldEnd, Ssh, SshError, Target};
use russh::keys::Algorithm;

use crate::sshd::{Node, make_key};

#[tokio::test]
async fn a_held_connection_serves_one_command() {
    let node = Node::start();
    let ssh = Ssh::new(node.settings(SshClient::Native, "admin")).unwrap();
    let logins = || node.log().matches("Accepted publickey").count();
    let target = Target {
        host_keys: vec![node.public("host_ed25519")],
        ..node.target()
    };

    // Without room, a login is only a check.
    ssh.log_in(&target, true).await.unwrap();
    assert!(ssh.held_connection(&target).is_none());

    ssh.hold_up_to(1);
    assert!(ssh.can_hold(&target).await);
    ssh.log_in(&target, false).await.unwrap();
    assert!(ssh.held_connection(&target).is_none());
    ssh.log_in(&target, true).await.unwrap();
    let held = ssh.held_connection(&target).unwrap();
    let (soon, patience) = (Duration::ZERO, Duration::from_secs(20));
    assert_eq!(held.check_after(soon, patience).await, None);
    ssh.install_keys(&target, "tenant key").await.unwrap();
    assert_eq!(logins(), 3);
    assert!(
        fs::read_to_string(node.authorized_keys())
            .unwrap()
            .contains("tenant key")
    );
    // The watching side notices it immediately.
    let long = Duration::from_mins(10);
    assert_eq!(held.check_after(long, patience).await, Some(HoldEnd::Taken));
    assert!(ssh.held_connection(&target).is_none());
    ssh.remove_keys(&target).await.unwrap();
    assert_eq!(logins(), 4);

    // Another machine may be at the address now.
    ssh.log_in(&target, true).await.unwrap();
    let other = make_key(Algorithm::Ed25519)
        .public_key()
        .to_openssh()
        .unwrap();
    let replaced = Target {
        host_keys: vec![other],
        ..target.clone()
    };
    let error = ssh.remove_keys(&replaced).await.unwrap_err();
    assert!(matches!(error, SshError::HostKey { .. }), "{error:?}");
    assert!(ssh.held_connection(&target).is_none());

    // A node that is not wanted for a moment may be about to get a command.
    ssh.log_in(&target, true).await.unwrap();
    let held = ssh.held_connection(&target).unwrap();
    ssh.retain_held([].into_iter());
    ssh.retain_held([&target].into_iter());
    ssh.retain_held([].into_iter());
    assert!(ssh.held_connection(&target).is_some());
    ssh.retain_held([].into_iter());
    assert_eq!(held.check_after(long, patience).await, Some(HoldEnd::Taken));

    // A connection from the time before another session is not held for the next one.
    ssh.log_in(&target, true).await.unwrap();
    let later = Target {
        fence: Some(7),
        ..target.clone()
    };
    assert!(ssh.held_connection(&later).is_none());
    ssh.retain_held([&later].into_iter());
    ssh.retain_held([&later].into_iter());
    assert!(ssh.held_connection(&target).is_none());
}

#[tokio::test]
async fn openssh_logs_in_but_holds_nothing() {
    let node = Node::start();
    let ssh = Ssh::new(node.settings(SshClient::OpenSsh, "admin")).unwrap();
    ssh.hold_up_to(1);
    assert!(!ssh.can_hold(&node.target()).await);
    ssh.log_in(&node.target(), true).await.unwrap();
    assert!(ssh.held_connection(&node.target()).is_none());
    let stranger = Ssh::new(node.settings(SshClient::OpenSsh, "host_ed25519")).unwrap();
    let error = stranger.log_in(&node.target(), true).await.unwrap_err();
    assert!(matches!(error, SshError::Auth { .. }), "{error:?}");
}
