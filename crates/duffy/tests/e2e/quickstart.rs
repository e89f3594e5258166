//! `duffy quickstart`, with the commands that it prints.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Duffy, Program, Scratch, eventually};

const TIMEOUT: Duration = Duration::from_mins(1);

/// The commands that it prints, in separate indented lines.
struct Guide {
    request: String,
    login: String,
    retire: String,
}

/// Starts it, in a directory with a space in its name, and reads the commands.
fn start(duffy: &Duffy, port: u16) -> (Program, Guide) {
    let program = duffy.spawn(&["quickstart", "--dir", "my duffy", "-p", &port.to_string()]);
    let said = eventually(TIMEOUT, "the three commands", || {
        let log = program.log();
        assert!(program.is_running(), "it exited:\n{log}");
        let said = log.rsplit("Duffy runs at").next().unwrap_or_default();
        said.contains("retire-session")
            .then(|| said.to_owned())
            .ok_or(log)
    });
    let mut commands = said
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .map(ToOwned::to_owned);
    let guide = Guide {
        request: commands.next().unwrap(),
        login: commands.next().unwrap(),
        retire: commands.next().unwrap(),
    };
    assert_eq!(commands.next(), None, "{said}");
    (program, guide)
}

/// Runs a command in a shell. Returns its stdout if it succeeds.
fn shell(scratch: &Scratch, command: &str) -> Result<String, String> {
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(scratch.path())
        .env("HOME", scratch.join("home"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(stdout)
    } else {
        Err(format!(
            "{command}: {}\n{stdout}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Checks the permissions of its files.
fn assert_private(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory), 0o700);
    for secret in ["duffy.yaml", "duffy_key", "tenant_key"] {
        assert_eq!(mode(&directory.join(secret)), 0o600, "{secret}");
    }
}

#[test]
fn its_commands_work_and_its_data_survive_a_restart() {
    let scratch = Scratch::new("quickstart");
    let duffy = Duffy::new(&scratch);
    let port = crate::support::free_port();
    let (program, guide) = start(&duffy, port);
    assert_private(&scratch.join("my duffy"));

    let reply = json(&shell(&scratch, &guide.request).unwrap());
    let session = &reply["session"];
    let hostname = session["nodes"][0]["hostname"].as_str().unwrap();
    assert!(
        guide.login.ends_with(hostname),
        "{} {hostname}",
        guide.login
    );
    let login = |command: &str| shell(&scratch, &format!("{} {command}", guide.login));
    assert_eq!(
        login("'echo $HOME; pwd; touch mine' | sort -u | wc -l")
            .unwrap()
            .trim(),
        "1"
    );
    // The login also works with a terminal.
    let with_terminal = guide.login.replacen("ssh ", "ssh -tt ", 1);
    let command = format!("{with_terminal} 'stty size; tty' </dev/null");
    let seen = shell(&scratch, &command).unwrap();
    assert!(seen.contains("/dev/"), "{seen}");

    // After Ctrl-C and a restart, the session and the files on its node still exist.
    program.signal(Signal::SIGINT);
    assert_eq!(program.wait_exit(TIMEOUT), 0, "{}", program.log());
    assert!(login("true").is_err(), "the node is off");
    drop(program);
    let (program, again) = start(&duffy, port);
    assert_eq!(again.request, guide.request);
    assert_ne!(
        again.login, guide.login,
        "the next session has another node"
    );
    assert_eq!(login("ls").unwrap(), "mine\n");
    let list = guide.request.replace("request-session", "list-sessions");
    let list = list.split(" pool=").next().unwrap().to_owned();
    let sessions = json(&shell(&scratch, &list).unwrap());
    assert_eq!(sessions["sessions"][0]["id"], session["id"], "{sessions}");

    // The same after SIGKILL.
    program.kill9();
    let (program, _) = start(&duffy, port);
    assert_eq!(login("ls").unwrap(), "mine\n");

    let retired = json(&shell(&scratch, &guide.retire).unwrap());
    assert_eq!(retired["session"]["active"], false, "{retired}");
    assert_eq!(retired["session"]["id"], session["id"]);
    eventually(TIMEOUT, "the node to be gone", || match login("true") {
        Err(_) => Ok(()),
        Ok(text) => Err(text),
    });
    program.terminate();
    assert_eq!(program.wait_exit(TIMEOUT), 0, "{}", program.log());
}

#[test]
fn a_second_process_in_the_same_directory_is_refused() {
    let scratch = Scratch::new("quickstart");
    let duffy = Duffy::new(&scratch);
    let port = crate::support::free_port();
    let (program, _) = start(&duffy, port);
    let other = crate::support::free_port().to_string();
    for arguments in [&[][..], &["-p", &other]] {
        let arguments = [&["quickstart", "--dir", "my duffy"], arguments].concat();
        let output = duffy.run(&arguments);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        assert!(output.stderr.starts_with("error: "), "{output:?}");
    }
    assert!(program.is_running());
}
