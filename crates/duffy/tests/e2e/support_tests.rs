//! Tests of `support`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Duffy, Pool, Postgres, Program, Scratch, Site, SshKey, SshNode, eventually, free_port, http,
};

const TIMEOUT: Duration = Duration::from_secs(20);

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Whether a process runs. A zombie does not.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn wait_until_gone(pid: &str) {
    eventually(TIMEOUT, &format!("the end of process {pid}"), || {
        if is_alive(pid) {
            Err("alive".to_owned())
        } else {
            Ok(())
        }
    });
}

#[test]
fn a_program_has_a_log_and_an_exit_code() {
    let scratch = Scratch::new("support");
    let program = Program::start(&scratch, "talker", sh("echo out; echo err >&2; exit 7"));
    assert_eq!(program.wait_exit(TIMEOUT), 7);
    assert_eq!(program.log(), "out\nerr\n");
    assert!(!program.is_running());
}

#[test]
fn a_program_can_be_terminated_and_killed() {
    let scratch = Scratch::new("support");
    let polite = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let program = Program::start(&scratch, "polite", sh(polite));
    let up = |program: &Program| {
        eventually(TIMEOUT, "a start", || {
            program
                .log()
                .contains("up")
                .then_some(())
                .ok_or(program.log())
        });
    };
    up(&program);
    program.terminate();
    assert_eq!(program.wait_exit(TIMEOUT), 3);
    assert_eq!(program.log(), "up\nbye\n");

    let program = Program::start(
        &scratch,
        "deaf",
        sh("trap '' TERM; echo up; exec sleep 1000"),
    );
    up(&program);
    program.terminate();
    assert!(program.is_running());
    program.kill9();
    assert_eq!(program.wait_exit(TIMEOUT), 128 + 9);
}

#[test]
fn nothing_outlives_a_scratch_directory() {
    let scratch = Scratch::new("support");
    let path = scratch.path().to_owned();
    // An orphan in its own session: neither its group nor its parent identifies it.
    let program = Program::start(&scratch, "parent", sh("setsid sleep 1000 & echo $!"));
    assert_eq!(program.wait_exit(TIMEOUT), 0);
    eventually(TIMEOUT, "the orphan", || {
        let seen = scratch.processes();
        if seen.iter().any(|line| line.ends_with(" sleep 1000")) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    let orphan = scratch.processes()[0].split(' ').next().unwrap().to_owned();
    drop(program);
    assert!(is_alive(&orphan), "only the end of the directory kills it");
    drop(scratch);
    wait_until_gone(&orphan);
    assert!(!path.exists(), "{} still exists", path.display());
}

/// `nothing_outlives_a_killed_test` runs this in its own process and kills it. Otherwise it does nothing.
#[test]
fn victim() {
    if std::env::var_os("DUFFY_TEST_VICTIM").is_none() {
        return;
    }
    let postgres = Postgres::start();
    let scratch = Scratch::new("victim");
    let program = Program::start(&scratch, "long", sh("sleep 1000 & exec sleep 1000"));
    let directories = [scratch.path().to_owned(), postgres.socket_directory()];
    let server = std::fs::read_to_string(
        postgres
            .socket_directory()
            .with_file_name("data/postmaster.pid"),
    );
    let server = server.unwrap().lines().next().unwrap().to_owned();
    println!(
        "\nVICTIM {} {server} {} {}",
        program.pid(),
        directories[0].display(),
        directories[1].display()
    );
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn nothing_outlives_a_killed_test() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "support_tests::victim", "--nocapture"])
        .env("DUFFY_TEST_VICTIM", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines
        .map_while(Result::ok)
        .find(|line| line.starts_with("VICTIM "));
    let line = line.expect("the victim exited");
    let words: Vec<&str> = line.split(' ').collect();
    assert!(is_alive(words[1]) && is_alive(words[2]), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until_gone(words[1]);
    wait_until_gone(words[2]);
    for directory in &words[3..] {
        eventually(TIMEOUT, &format!("the end of {directory}"), || {
            if std::path::Path::new(directory).exists() {
                Err("there".to_owned())
            } else {
                Ok(())
            }
        });
    }
}

#[test]
#[should_panic(expected = "waited 10ms for: a miracle; last seen: nothing")]
fn a_failed_wait_shows_the_last_error() {
    eventually(Duration::from_millis(10), "a miracle", || {
        Err::<(), _>("nothing".to_owned())
    });
}

#[test]
fn postgres_keeps_its_data_after_crashes_and_restarts() {
    let mut postgres = Postgres::start();
    postgres.psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)");
    postgres.stop_immediately();
    postgres.start_again();
    postgres.psql("INSERT INTO kept VALUES (2)");
    postgres.restart();
    assert_eq!(postgres.psql("SELECT n FROM kept ORDER BY n"), "1\n2");
    assert!(
        postgres.log().contains("ready to accept connections"),
        "{}",
        postgres.log()
    );
}

#[test]
fn postgres_has_databases_and_loads_dumps() {
    let scratch = Scratch::new("support");
    let postgres = Postgres::start();
    let url = postgres.create_database("other");
    assert!(
        url.starts_with("postgresql://postgres@127.0.0.1:") && url.ends_with("/other"),
        "{url}"
    );
    assert!(postgres.url().ends_with("/duffy"));
    let dump = scratch.join("dump.sql");
    std::fs::write(
        &dump,
        "CREATE TABLE t (a int, b text);\nCOPY t FROM stdin;\n1\tx\n\\.\n",
    )
    .unwrap();
    postgres.load_file(&dump);
    assert_eq!(postgres.psql("SELECT a, b FROM t"), "1|x");
}

#[test]
fn clusters_are_independent() {
    let (one, two) = (Postgres::start(), Postgres::start());
    one.psql("CREATE TABLE mine (n int)");
    assert_eq!(
        two.psql("SELECT count(*) FROM pg_tables WHERE tablename = 'mine'"),
        "0"
    );
}

#[test]
fn a_node_has_its_own_root_home() {
    let scratch = Scratch::new("support");
    let key = SshKey::generate(&scratch.join("key"), "me");
    let stranger = SshKey::generate(&scratch.join("stranger"), "stranger");
    let node = SshNode::start("127.77.9.1", &[key.public()]);
    assert_eq!(node.authorized_keys(), format!("{}\n", key.public()));
    assert_eq!(node.ip(), "127.77.9.1");
    let home = node.home();

    let output = node.login(&key, "echo $HOME; echo ~; echo hello > ~/made; exit 4");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        printed,
        format!("{0}\n{0}\n", home.display()),
        "{}",
        node.log()
    );
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        std::fs::read_to_string(home.join("made")).unwrap(),
        "hello\n"
    );
    let mode = std::fs::metadata(node.authorized_keys_file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    assert!(!node.lets_in(&stranger));
    std::fs::write(
        node.authorized_keys_file(),
        format!("{}\n", stranger.public()),
    )
    .unwrap();
    assert!(node.lets_in(&stranger));
    assert!(!node.lets_in(&key));
}

#[test]
fn a_node_can_refuse_and_stall_and_recover() {
    let scratch = Scratch::new("support");
    let key = SshKey::generate(&scratch.join("key"), "me");
    let mut node = SshNode::start("127.77.9.2", &[key.public()]);
    let address = (node.ip(), node.port());
    let connect = || std::net::TcpStream::connect((address.0.as_str(), address.1));

    node.refuse();
    assert_eq!(
        connect().unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    node.recover();
    assert!(node.lets_in(&key));

    node.stall();
    let mut stream = connect().unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert_eq!(
        stream.read(&mut [0]).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    node.recover();
    assert!(node.lets_in(&key));
}

#[test]
fn remote_commands_end_with_their_node() {
    let scratch = Scratch::new("support");
    let key = SshKey::generate(&scratch.join("key"), "me");
    let node = SshNode::start("127.77.9.3", &[key.public()]);
    let output = node.login(&key, "sleep 1000 >/dev/null 2>&1 </dev/null & echo $!");
    let pid = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(is_alive(&pid));
    drop(node);
    wait_until_gone(&pid);
}

#[test]
fn the_binary_runs() {
    let scratch = Scratch::new("support");
    let duffy = Duffy::new(&scratch).with_env("NO_COLOR", "1");
    let version = duffy.succeed(&["--version"]);
    assert!(version.starts_with("Duffy, version "), "{version}");
    let output = duffy.run(&["--no-such-option"]);
    assert_eq!((output.code, output.stdout.as_str()), (2, ""));
    assert!(
        output.stderr.contains("--no-such-option"),
        "{}",
        output.stderr
    );
    let program = duffy.spawn(&["--help"]);
    assert_eq!(program.wait_exit(TIMEOUT), 0);
    assert!(program.log().contains("Usage:"), "{}", program.log());
}

#[test]
fn requests_are_sent_and_replies_read() {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).unwrap();
        }
        let mut body = [0; 7];
        reader.read_exact(&mut body).unwrap();
        let reply = "HTTP/1.1 418 Short\r\nx-request-id: 9\r\ncontent-length: 8\r\n\r\n{\"b\": 2}";
        reader.get_mut().write_all(reply.as_bytes()).unwrap();
        (head.to_ascii_lowercase(), body)
    });
    let url = format!("http://127.0.0.1:{port}/api/v1/sessions");
    let reply = http("POST", &url, Some(("me", "a:b")), Some(&json!({"a": 1}))).unwrap();
    assert_eq!((reply.status, &reply.json), (418, &json!({"b": 2})));
    assert_eq!(
        (reply.header("x-request-id"), reply.text.as_str()),
        (Some("9"), "{\"b\": 2}")
    );
    let (head, body) = server.join().unwrap();
    assert!(
        head.starts_with("post /api/v1/sessions http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("authorization: basic bwu6ytpi\r\n"), "{head}");
    assert_eq!(&body, b"{\"a\":1}");
    let refused = http("GET", &format!("http://127.0.0.1:{port}/"), None, None).unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
}

/// Runs a playbook of a site for these nodes, like Duffy.
fn play(site: &Site, name: &str, action: &str, nodes: &serde_json::Value) -> Program {
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(site.config()).unwrap()).unwrap();
    let ansible = &config["nodepools"]["concrete"]["pool"]["mechanism"]["ansible"];
    let mut vars = ansible["extra-vars"].clone();
    vars["duffy_in"] = json!({ "nodes": nodes });
    let vars_file = site.scratch().join(&format!("{name}.json"));
    std::fs::write(&vars_file, vars.to_string()).unwrap();
    let mut command = Command::new(crate::support::ansible_playbook());
    command
        .arg("-v")
        .arg(ansible[action]["playbook"].as_str().unwrap());
    command.arg("-e").arg(format!("@{}", vars_file.display()));
    command.current_dir(ansible["topdir"].as_str().unwrap());
    command.env("HOME", site.scratch().join("home"));
    Program::start(site.scratch(), name, command)
}

const PLAYBOOK_TIMEOUT: Duration = Duration::from_mins(1);

#[test]
fn playbooks_take_and_return_machines() {
    let mut site = Site::sqlite(&[Pool::new("pool", 2)], &json!({"app": {"port": 8080}}));
    let addresses: Vec<String> = site.nodes().map(SshNode::ip).collect();
    assert_eq!(addresses, ["127.77.0.1", "127.77.0.2"]);
    let key = site.service_key().clone();
    assert!(site.node("127.77.0.1").lets_in(&key));
    let tenant = site.tenant_key().clone();
    assert!(!site.node("127.77.0.1").lets_in(&tenant));

    // The node gets the machine with its previous address.
    let wanted = json!([{"id": 7, "hostname": null, "ipaddr": "127.77.0.2"}]);
    let playbook = play(&site, "first", "provision", &wanted);
    assert_eq!(
        playbook.wait_exit(PLAYBOOK_TIMEOUT),
        0,
        "{}",
        playbook.log()
    );
    assert!(playbook.log().contains("127.77.0.2"), "{}", playbook.log());
    assert_eq!(site.taken("pool"), 1);

    // After a playbook is killed before its result, the node keeps the machine.
    site.pause("pool", "provision");
    let wanted = json!([{"id": 8, "hostname": null, "ipaddr": null}]);
    let playbook = play(&site, "second", "provision", &wanted);
    site.wait_until_paused("pool", "provision");
    assert_eq!(site.taken("pool"), 2);
    playbook.kill9();
    site.resume("pool", "provision");
    let playbook = play(&site, "third", "provision", &wanted);
    assert_eq!(
        playbook.wait_exit(PLAYBOOK_TIMEOUT),
        0,
        "{}",
        playbook.log()
    );
    assert!(playbook.log().contains("127.77.0.1"), "{}", playbook.log());

    // There is no third machine.
    let playbook = play(
        &site,
        "fourth",
        "provision",
        &json!([{"id": 9, "ipaddr": null}]),
    );
    assert_eq!(
        playbook.wait_exit(PLAYBOOK_TIMEOUT),
        2,
        "{}",
        playbook.log()
    );
    assert!(
        playbook.log().contains("no machine is free"),
        "{}",
        playbook.log()
    );

    let provision = site.node("127.77.0.1").result();
    let given = json!([{"id": 8, "ipaddr": "127.77.0.1", "data": {"provision": provision}}]);
    site.set_failing("pool", "deprovision", true);
    let playbook = play(&site, "fifth", "deprovision", &given);
    assert_eq!(
        playbook.wait_exit(PLAYBOOK_TIMEOUT),
        2,
        "{}",
        playbook.log()
    );
    assert_eq!(site.taken("pool"), 2);
    site.set_failing("pool", "deprovision", false);
    let playbook = play(&site, "sixth", "deprovision", &given);
    assert_eq!(
        playbook.wait_exit(PLAYBOOK_TIMEOUT),
        0,
        "{}",
        playbook.log()
    );
    assert_eq!(site.taken("pool"), 1);
    let events = [
        "provision 7",
        "provision 8",
        "provision 8",
        "provision 9",
        "deprovision 8",
    ];
    let events = [&events[..], &["deprovision 8"]].concat();
    assert_eq!(site.events("pool"), events);
}

#[test]
fn a_site_writes_its_configuration() {
    let pool = Pool::new("pool", 0).with(&json!({"fill-level": 5, "reuse-nodes": {"a": 1}}));
    let mut site = Site::new("postgresql://x/y", &[pool], &json!({"app": {"port": 1}}));
    site.reconfigure(&json!({"app": {"host": "::1", "port": null}, "tasks": {"concurrency": 2}}));
    let text = std::fs::read_to_string(site.config()).unwrap();
    let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(tree["app"], json!({"host": "::1"}));
    assert_eq!(tree["tasks"], json!({"concurrency": 2}));
    assert_eq!(
        tree["database"]["sqlalchemy"]["sync_url"],
        "postgresql://x/y"
    );
    let pool = &tree["nodepools"]["concrete"]["pool"];
    assert_eq!(
        (&pool["fill-level"], &pool["reuse-nodes"]["a"]),
        (&json!(5), &json!(1))
    );
    assert_eq!(pool["mechanism"]["type"], "ansible");
    assert_eq!(site.duffy().run(&["--no-such-option"]).code, 2);
}
