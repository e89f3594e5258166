//! Simulated machines, tested with OpenSSH's clients.

use std::process::Stdio;

use crate::support::{World, finish, text, wait_until};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

#[tokio::test]
async fn a_command_runs_at_home_with_an_environment_of_its_own() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node-1").await.unwrap();
    let home = world.cloud.home_of("node-1").unwrap();
    let output = world
        .run(
            &machine,
            "pwd; echo ~; echo $USER $LOGNAME $HOSTNAME; env | sort",
        )
        .await;
    assert!(output.status.success(), "{output:?}");
    let out = text(&output.stdout);
    let mut lines = out.lines();
    assert_eq!(lines.next(), home.to_str());
    assert_eq!(lines.next(), home.to_str());
    assert_eq!(lines.next(), Some("root root node-1"));
    for variable in lines {
        let name = variable.split('=').next().unwrap();
        assert!(
            matches!(
                name,
                "PATH"
                    | "LANG"
                    | "HOME"
                    | "USER"
                    | "LOGNAME"
                    | "SHELL"
                    | "HOSTNAME"
                    | "PWD"
                    | "OLDPWD"
                    | "SHLVL"
                    | "_"
                    | "SSH_CONNECTION"
                    | "DUFFY_SIM_MACHINE"
            ),
            "{variable} got in"
        );
    }
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn status_signal_and_both_outputs_come_back() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let output = world.run(&machine, "echo out; echo err >&2; exit 42").await;
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(text(&output.stdout), "out\n");
    assert_eq!(text(&output.stderr), "err\n");
    let output = world.run(&machine, "kill -KILL $$").await;
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let output = world.run(&machine, "exec /nowhere").await;
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn much_goes_in_and_out_at_once() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let input: Vec<u8> = (0..24_u32 << 20).map(|i| (i % 251) as u8).collect();
    let child = world
        .ssh(&machine, &[])
        .arg("cat")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let output = finish(child, &input).await;
    assert!(output.status.success());
    assert!(output.stdout == input, "{} bytes", output.stdout.len());
    // A command that reads no input does not delay the end of the client.
    let child = world
        .ssh(&machine, &[])
        .arg("exit 3")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(finish(child, &input).await.status.code(), Some(3));
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn a_terminal_works() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node-7").await.unwrap();
    let child = world
        .ssh(&machine, &["-tt"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let output = finish(child, b"tty; echo term=$TERM; stty size; exit 7\n").await;
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let out = text(&output.stdout);
    assert!(out.contains("[root@node-7] # "), "{out}");
    assert!(out.contains("/dev/pts/"), "{out}");
    assert!(out.contains("term=xterm\r\n"), "{out}");
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn control_c_reaches_what_runs_in_a_terminal() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let mut child = world
        .ssh(&machine, &["-tt"])
        .arg("trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 1; done")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("ready"));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"\x03").await.unwrap();
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.contains("caught"), "{line}");
    assert_eq!(child.wait().await.unwrap().code(), Some(9));
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_command() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    for options in [&[][..], &["-tt"][..]] {
        let mut child = world
            .ssh(&machine, options)
            .arg("echo $$; sleep 1000 & sleep 1000")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let pid = lines.next_line().await.unwrap().unwrap();
        let process = format!("/proc/{}", pid.trim());
        assert!(std::path::Path::new(&process).exists());
        child.kill().await.unwrap();
        wait_until("the command is gone", || {
            !std::path::Path::new(&process).exists()
        })
        .await;
    }
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn files_are_copied_with_scp() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let home = world.cloud.home_of("node").unwrap();
    let ssh = world.ssh(&machine, &[]);
    let mut options: Vec<_> = ssh.as_std().get_args().map(ToOwned::to_owned).collect();
    options.pop();
    for option in &mut options {
        if option == "-p" {
            *option = "-P".into();
        }
    }
    let file = world.directory.path().join("file");
    std::fs::write(&file, "some content\n").unwrap();
    for (legacy, name) in [(&[][..], "by-sftp"), (&["-O"][..], "by-scp")] {
        let output = tokio::process::Command::new("scp")
            .args(&options)
            .args(legacy)
            .arg(&file)
            .arg(format!("root@{}:{name}", machine.ipaddr))
            .env_remove("SSH_AUTH_SOCK")
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let copied = std::fs::read_to_string(home.join(name)).unwrap();
        assert_eq!(copied, "some content\n");
    }
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn a_restart_keeps_address_key_and_files() {
    let mut world = World::new().await;
    let one = world.cloud.create_machine("one").await.unwrap();
    let two = world.cloud.create_machine("two").await.unwrap();
    assert_ne!(one.ipaddr, two.ipaddr);
    assert!(world.run(&one, "echo here > file").await.status.success());
    world.reopen().await;
    assert_eq!(world.cloud.machines(), [one.clone(), two]);
    assert_eq!(world.cloud.create_machine("one").await.unwrap(), one);
    let output = world.run(&one, "cat file").await;
    assert_eq!(text(&output.stdout), "here\n", "{output:?}");
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn a_destroyed_machine_is_gone_with_all_that_ran_on_it() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let home = world.cloud.home_of("node").unwrap();
    let daemon = "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!; mkdir -m 0 closed";
    let output = world.run(&machine, daemon).await;
    let daemon = format!("/proc/{}", text(&output.stdout).trim());
    assert!(std::path::Path::new(&daemon).exists(), "{output:?}");
    let mut child = world
        .ssh(&machine, &[])
        .arg("echo on; exec sleep 1000")
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .await
        .unwrap();

    world.cloud.destroy_machine("node").await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(255));
    assert!(!home.exists());
    assert_eq!(world.cloud.machines(), []);
    // Init may take a moment to reap it.
    wait_until("the daemon is gone", || {
        std::fs::read_to_string(format!("{daemon}/stat")).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
    world.cloud.destroy_machine("node").await.unwrap();
    let output = world.run(&machine, "true").await;
    assert!(text(&output.stderr).contains("refused"), "{output:?}");
    world.cloud.shutdown().await;
}

#[tokio::test]
async fn only_root_with_an_authorized_key_gets_in() {
    let world = World::new().await;
    let machine = world.cloud.create_machine("node").await.unwrap();
    let home = world.cloud.home_of("node").unwrap();
    let mut other = world.ssh(&machine, &["-l", "admin"]);
    let output = other.arg("true").output().await.unwrap();
    assert!(denied(&output), "{output:?}");
    assert!(world.run(&machine, "true").await.status.success());

    let keys = home.join(".ssh/authorized_keys");
    std::fs::write(&keys, "# nobody\n").unwrap();
    let output = world.run(&machine, "true").await;
    assert!(denied(&output), "{output:?}");
    // A reader of this would block.
    std::fs::remove_file(&keys).unwrap();
    nix::unistd::mkfifo(&keys, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = world.run(&machine, "true").await;
    assert!(denied(&output), "{output:?}");
    world.cloud.shutdown().await;
}

fn denied(output: &std::process::Output) -> bool {
    text(&output.stderr).contains("Permission denied (publickey)")
}
