//! Against simulated nodes, including nodes that misbehave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duffy_config::{Ssh as Settings, SshClient};
use duffy_server::nodes::ssh::{Ssh, SshError, Target};
use duffy_sim::{Cloud, CloudSettings, Fault, Faults, Machine, Moment};
use russh::keys::Algorithm;
use tempfile::TempDir;

use crate::sshd::{BOTH, SEPARATOR, make_key, write_key};

struct World {
    directory: TempDir,
    cloud: Arc<Cloud>,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = make_key(Algorithm::Ed25519);
        write_key(&directory.path().join("key"), &key);
        fs::write(directory.path().join("config"), "").unwrap();
        let cloud = Cloud::open(CloudSettings {
            directory: directory.path().join("cloud"),
            admin_keys: vec![key.public_key().to_openssh().unwrap()],
            faults: Faults::default(),
        })
        .await
        .unwrap();
        Self { directory, cloud }
    }

    fn ssh(&self, client: SshClient, timeout: Duration) -> Ssh {
        Ssh::new(Settings {
            client,
            timeout,
            identity_files: vec![self.directory.path().join("key")],
            config_file: Some(self.directory.path().join("config")),
            ..Settings::default()
        })
        .unwrap()
    }

    fn keys_of(&self, machine: &Machine) -> String {
        let home = self.cloud.home_of(&machine.name).unwrap();
        fs::read_to_string(home.join(".ssh/authorized_keys")).unwrap()
    }
}

fn target(machine: &Machine) -> Target {
    Target {
        host: machine.ipaddr.to_string(),
        port: Some(machine.ssh_port),
        host_keys: vec![machine.host_key.clone()],
        fence: None,
    }
}

#[tokio::test]
async fn keys_come_and_go() {
    let world = World::new().await;
    for client in BOTH {
        let ssh = world.ssh(client, Duration::from_secs(30));
        let machine = world.cloud.create_machine("node").await.unwrap();
        let own = world.keys_of(&machine);
        ssh.install_keys(&target(&machine), "key").await.unwrap();
        assert_eq!(world.keys_of(&machine), format!("{own}{SEPARATOR}\nkey\n"));
        let home = world.cloud.home_of("node").unwrap();
        let meta = fs::metadata(home.join(".ssh/authorized_keys")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        ssh.remove_keys(&target(&machine)).await.unwrap();
        assert_eq!(world.keys_of(&machine), own);

        // Another machine in its place is not mistaken for it.
        let mut wrong = target(&world.cloud.create_machine("other").await.unwrap());
        wrong.host_keys = target(&machine).host_keys;
        let error = ssh.install_keys(&wrong, "key").await.unwrap_err();
        assert!(
            matches!(error, SshError::HostKey { .. }),
            "{client:?}: {error:?}"
        );
    }
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn work_that_comes_late_changes_nothing() {
    let world = World::new().await;
    for client in BOTH {
        let ssh = world.ssh(client, Duration::from_secs(30));
        let machine = world.cloud.create_machine("node").await.unwrap();
        let own = world.keys_of(&machine);
        let at = |fence: i64| Target {
            fence: Some(fence),
            ..target(&machine)
        };
        ssh.install_keys(&at(2), "key").await.unwrap();
        for result in [
            ssh.install_keys(&at(1), "late").await,
            ssh.remove_keys(&at(1)).await,
        ] {
            assert!(
                matches!(result, Err(SshError::FencedOff { kept: 2, .. })),
                "{client:?}: {result:?}"
            );
        }
        let now = format!("{own}{SEPARATOR}\n# duffy fence 2\nkey\n");
        assert_eq!(world.keys_of(&machine), now);
        let read = ssh.read_tenant_keys(&target(&machine)).await.unwrap();
        assert_eq!(read.as_deref(), Some("key"));
        // A machine that is made anew has no number.
        world.cloud.destroy_machine("node").await.unwrap();
        let machine = world.cloud.create_machine("node").await.unwrap();
        let anew = Target {
            fence: Some(1),
            ..target(&machine)
        };
        ssh.install_keys(&anew, "key").await.unwrap();
        world.cloud.destroy_machine("node").await.unwrap();
    }
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn machines_that_misbehave_are_told_apart() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let own = world.keys_of(&machine);
    for client in BOTH {
        let install = async |fault: Fault| {
            // Short where a timeout is certain, long where it must not happen.
            let timeout = match fault {
                Fault::Stall | Fault::Delay(_) => Duration::from_millis(300),
                _ => Duration::from_secs(30),
            };
            let ssh = world.ssh(client, timeout);
            world.cloud.set_fault("node", Some(fault)).unwrap();
            let started = Instant::now();
            let result = ssh.install_keys(&target(&machine), "key").await;
            assert!(
                started.elapsed() < Duration::from_secs(8),
                "{client:?} {fault:?}"
            );
            result
        };
        let error = install(Fault::Refuse).await.unwrap_err();
        assert!(
            matches!(error, SshError::Connect { .. }),
            "{client:?}: {error:?}"
        );
        let error = install(Fault::Stall).await.unwrap_err();
        assert!(
            matches!(error, SshError::Timeout { .. }),
            "{client:?}: {error:?}"
        );
        let error = install(Fault::Delay(Duration::from_mins(1)))
            .await
            .unwrap_err();
        assert!(
            matches!(error, SshError::Timeout { .. }),
            "{client:?}: {error:?}"
        );
        let error = install(Fault::FailCommand(9)).await.unwrap_err();
        let SshError::Command { exit, stderr, .. } = &error else {
            panic!("{client:?}: {error:?}");
        };
        assert_eq!(exit, "status 9");
        assert!(stderr.contains("simulated failure"), "{stderr}");
        assert_eq!(world.keys_of(&machine), own);

        let error = install(Fault::DropDuringCommand).await.unwrap_err();
        assert!(
            matches!(error, SshError::Lost { .. }),
            "{client:?}: {error:?}"
        );
        // Before or after, never in between.
        let now = world.keys_of(&machine);
        assert!(
            now == own || now == format!("{own}{SEPARATOR}\nkey\n"),
            "{now}"
        );
        world.cloud.set_fault("node", None).unwrap();
        let ssh = world.ssh(client, Duration::from_secs(30));
        ssh.remove_keys(&target(&machine)).await.unwrap();
        assert_eq!(world.keys_of(&machine), own);
    }
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn machines_that_die_or_fall_silent_are_told_apart() {
    let world = World::new().await;
    for client in BOTH {
        let install = async |fault: Fault, timeout: Duration| {
            let machine = world.cloud.create_machine("node").await.unwrap();
            world.cloud.set_fault("node", Some(fault)).unwrap();
            let ssh = world.ssh(client, timeout);
            let result = ssh.install_keys(&target(&machine), "key").await;
            let keys = world.keys_of(&machine);
            world.cloud.destroy_machine("node").await.unwrap();
            (result, keys.contains("key\n"))
        };
        let long = Duration::from_secs(30);
        for fault in [
            Fault::Reset,
            Fault::Die(Moment::BeforeCommand),
            Fault::Die(Moment::DuringCommand),
        ] {
            let (result, _) = install(fault, long).await;
            assert!(
                matches!(result, Err(SshError::Lost { .. })),
                "{client:?} {fault:?}: {result:?}"
            );
        }
        let (result, there) = install(Fault::Die(Moment::AfterCommand), long).await;
        assert!(result.is_ok() && there, "{client:?}: {result:?}");
        let (result, there) = install(Fault::StallDuringCommand, Duration::from_secs(2)).await;
        assert!(
            matches!(result, Err(SshError::Timeout { .. })) && there,
            "{client:?}: {result:?}"
        );
    }
    world.cloud.shutdown().await;
}
