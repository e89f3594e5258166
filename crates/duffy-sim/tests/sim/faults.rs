//! Faults of machines, tested with another client than OpenSSH.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{DEADLINE, World, wait_until};
use duffy_sim::{Fault, Faults, Machine, Moment, SimError};
use russh::ChannelMsg;
use russh::client::{Config, Handle, Handler};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

struct Trusting;

impl Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

async fn connect(world: &World, machine: &Machine) -> Result<Handle<Trusting>, russh::Error> {
    let address = (machine.ipaddr, machine.ssh_port);
    let config = Config {
        nodelay: true,
        ..Config::default()
    };
    let connecting = russh::client::connect(Arc::new(config), address, Trusting);
    let mut handle = tokio::time::timeout(DEADLINE, connecting).await??;
    let key = PrivateKeyWithHashAlg::new(Arc::new(world.key.clone()), None);
    let result = handle.authenticate_publickey("root", key).await?;
    assert!(result.success());
    Ok(handle)
}

/// Runs a command. Returns its exit status, if there is one.
async fn run(handle: &Handle<Trusting>, command: &str) -> Option<u32> {
    let mut channel = handle.channel_open_session().await.ok()?;
    channel.exec(true, command).await.ok()?;
    let mut status = None;
    while let Some(message) = tokio::time::timeout(DEADLINE, channel.wait())
        .await
        .unwrap()
    {
        if let ChannelMsg::ExitStatus { exit_status } = message {
            status = Some(exit_status);
        }
    }
    status
}

#[tokio::test]
async fn commands_run_side_by_side_on_one_connection() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let handle = connect(&world, &machine).await.unwrap();
    // Each waits for the other's file: in sequence they would never end.
    let wait_for = |mine: &str, other: &str| {
        format!("touch {mine}; until test -e {other}; do sleep 0.01; done; exit 5")
    };
    let (one, two) = (wait_for("one", "two"), wait_for("two", "one"));
    let both = tokio::join!(run(&handle, &one), run(&handle, &two));
    assert_eq!(both, (Some(5), Some(5)));
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn a_machine_refuses_and_serves_again() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    world.cloud.set_fault("node", Some(Fault::Refuse)).unwrap();
    let error = connect(&world, &machine).await.err().unwrap();
    assert!(
        matches!(&error, russh::Error::IO(error) if error.kind() == std::io::ErrorKind::ConnectionRefused),
        "{error:?}"
    );
    world.cloud.set_fault("node", None).unwrap();
    let handle = connect(&world, &machine).await.unwrap();
    assert_eq!(run(&handle, "exit 4").await, Some(4));
    let unknown = world.cloud.set_fault("other", None);
    assert!(matches!(unknown, Err(SimError::Unknown(_))));
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn a_stalled_machine_accepts_and_says_nothing() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    world.cloud.set_fault("node", Some(Fault::Stall)).unwrap();
    let mut stream = TcpStream::connect((machine.ipaddr, machine.ssh_port))
        .await
        .unwrap();
    let mut byte = [0];
    let silence = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut byte)).await;
    assert!(silence.is_err(), "{silence:?}");
    // Turning the machine off ends the connection.
    world.cloud.shutdown().await;
    let end = tokio::time::timeout(DEADLINE, stream.read(&mut byte))
        .await
        .unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn a_command_fails_as_told_without_running() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let handle = connect(&world, &machine).await.unwrap();
    world
        .cloud
        .set_fault("node", Some(Fault::FailCommand(77)))
        .unwrap();
    assert_eq!(run(&handle, "touch ran").await, Some(77));
    assert!(!world.cloud.home_of("node").unwrap().join("ran").exists());
    world.cloud.shutdown().await;
}

/// Returns a command's error stream up to `most` bytes, and its exit status, if there is one.
async fn listen(handle: &Handle<Trusting>, most: usize) -> (Vec<u8>, Option<u32>) {
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, "touch ran").await.unwrap();
    let (mut said, mut status) = (Vec::new(), None);
    while said.len() < most
        && let Some(message) = tokio::time::timeout(DEADLINE, channel.wait())
            .await
            .unwrap()
    {
        match message {
            ChannelMsg::ExtendedData { data, ext: 1 } => said.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    (said, status)
}

#[tokio::test]
async fn a_machine_says_what_it_is_told_once_or_without_end() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let handle = connect(&world, &machine).await.unwrap();
    let set = |fault| world.cloud.set_fault("node", Some(fault)).unwrap();
    set(Fault::FailCommandSaying("once\n"));
    assert_eq!(
        listen(&handle, usize::MAX).await,
        (b"once\n".to_vec(), Some(1))
    );
    set(Fault::FloodDuringCommand("again\n"));
    let (said, status) = listen(&handle, 4 << 20).await;
    assert!(said.starts_with(b"again\nagain\n") && said.len() >= 4 << 20);
    assert_eq!(status, None);
    drop(handle);
    assert!(!world.cloud.home_of("node").unwrap().join("ran").exists());
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn a_connection_drops_under_its_command() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let handle = connect(&world, &machine).await.unwrap();
    world
        .cloud
        .set_fault("node", Some(Fault::DropDuringCommand))
        .unwrap();
    assert_eq!(run(&handle, "exec sleep 1000").await, None);
    wait_until("the client has noticed", || handle.is_closed()).await;
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn connections_are_reset() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    world.cloud.set_fault("node", Some(Fault::Reset)).unwrap();
    let mut stream = TcpStream::connect((machine.ipaddr, machine.ssh_port))
        .await
        .unwrap();
    let read = tokio::time::timeout(DEADLINE, stream.read(&mut [0]))
        .await
        .unwrap();
    let error = read.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    world.cloud.set_fault("node", None).unwrap();
    connect(&world, &machine).await.unwrap();
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn a_command_runs_and_its_end_is_not_told() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let handle = connect(&world, &machine).await.unwrap();
    let stall = Some(Fault::StallDuringCommand);
    world.cloud.set_fault("node", stall).unwrap();
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, "echo; touch ran").await.unwrap();
    let ran = world.cloud.home_of("node").unwrap().join("ran");
    wait_until("the command has run", || ran.exists()).await;
    let silence = async {
        while let Some(message) = channel.wait().await {
            let harmless = matches!(
                message,
                ChannelMsg::Success | ChannelMsg::WindowAdjusted { .. }
            );
            assert!(harmless, "{message:?}");
        }
    };
    let ended = tokio::time::timeout(Duration::from_millis(300), silence).await;
    assert!(ended.is_err(), "the channel was closed");
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn a_machine_dies_for_good() {
    for (moment, ran, told) in [
        (Moment::BeforeCommand, Some(false), None),
        (Moment::DuringCommand, None, None),
        (Moment::AfterCommand, Some(true), Some(0)),
    ] {
        let mut world = World::new().await;
        let machine = world.cloud.create_machine("node").await.unwrap();
        let handle = connect(&world, &machine).await.unwrap();
        let die = Some(Fault::Die(moment));
        world.cloud.set_fault("node", die).unwrap();
        let status = run(&handle, "touch ran").await;
        assert_eq!(status, told, "{moment:?}");
        wait_until("the client has noticed", || handle.is_closed()).await;
        if let Some(ran) = ran {
            let home = world.cloud.home_of("node").unwrap();
            assert_eq!(home.join("ran").exists(), ran, "{moment:?}");
        }
        // The machine stays dead, and it can be destroyed.
        world.cloud.set_fault("node", None).unwrap();
        assert!(connect(&world, &machine).await.is_err(), "{moment:?}");
        world.reopen().await;
        assert_eq!(world.cloud.machines(), std::slice::from_ref(&machine));
        assert_eq!(world.cloud.create_machine("node").await.unwrap(), machine);
        assert!(connect(&world, &machine).await.is_err(), "{moment:?}");
        world.cloud.destroy_machine("node").await.unwrap();
        let anew = world.cloud.create_machine("node").await.unwrap();
        connect(&world, &anew).await.unwrap();
        world.cloud.shutdown().await;
    }
}

#[tokio::test]
async fn a_machine_dies_while_its_command_runs() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let handle = connect(&world, &machine).await.unwrap();
    let die = Some(Fault::Die(Moment::DuringCommand));
    world.cloud.set_fault("node", die).unwrap();
    let channel = handle.channel_open_session().await.unwrap();
    let command = "trap : HUP TERM; touch began; while :; do sleep 0.01; touch last; done";
    channel.exec(true, command).await.unwrap();
    let home = world.cloud.home_of("node").unwrap();
    wait_until("the command runs", || home.join("began").exists()).await;
    assert!(!handle.is_closed());
    channel.eof().await.unwrap();
    wait_until("the client has noticed", || handle.is_closed()).await;
    world.cloud.destroy_machine("node").await.unwrap();
    assert!(!home.exists());
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn delays_and_rates_are_kept() {
    let world = World::with(Faults {
        ssh_delay: Duration::from_millis(150),
        ..Faults::default()
    })
    .await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    world
        .cloud
        .set_fault("node", Some(Fault::Delay(Duration::from_millis(150))))
        .unwrap();
    let handle = connect(&world, &machine).await.unwrap();
    let started = Instant::now();
    assert_eq!(run(&handle, "true").await, Some(0));
    assert!(started.elapsed() >= Duration::from_millis(300));
    world.cloud.shutdown().await;

    let world = World::with(Faults {
        ssh_failure_rate: 1.0,
        ..Faults::default()
    })
    .await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    assert!(connect(&world, &machine).await.is_err());
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn machines_are_made_once_however_many_ask() {
    let world = World::new().await;
    let asked = (0..16).map(|n| {
        let cloud = Arc::clone(&world.cloud);
        async move {
            cloud
                .create_machine(&format!("node-{}", n % 4))
                .await
                .unwrap()
        }
    });
    let made = futures::future::join_all(asked).await;
    let machines = world.cloud.machines();
    assert_eq!(machines.len(), 4);
    assert!(made.iter().all(|machine| machines.contains(machine)));
    let mut addresses: Vec<_> = machines.iter().map(|machine| machine.ipaddr).collect();
    addresses.dedup();
    assert_eq!(addresses.len(), 4);
    world.cloud.shutdown().await;
    let late = world.cloud.create_machine("late").await;
    assert!(matches!(late, Err(SimError::Down)), "{late:?}");
}

#[tokio::test]
async fn a_taken_port_is_named_at_start() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    world.cloud.shutdown().await;
    let _squatter = std::net::TcpListener::bind((machine.ipaddr, machine.ssh_port)).unwrap();
    let settings = duffy_sim::CloudSettings {
        directory: world.directory.path().join("cloud"),
        admin_keys: Vec::new(),
        faults: Faults::default(),
    };
    let error = duffy_sim::Cloud::open(settings)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("\"node\""), "{error}");
    assert!(error.contains(&machine.ssh_port.to_string()), "{error}");
}
