//! python-cicoclient, a client of the old API, with real nodes.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Pool, Postgres, Site, SshNode, eventually, free_port};

const TIMEOUT: Duration = Duration::from_mins(2);
const POOL: &str = "physical-centos8stream-x86_64";

/// Runs `cico` with JSON output. Returns a list of hosts, or its messages.
fn cico(site: &Site, url: &str, key: &str, args: &[&str]) -> Result<Vec<Value>, String> {
    let python = std::env::var("DUFFY_TEST_PYTHON").expect("run `make test`");
    // Runs the module: the program contains the path of the virtual environment in which it was installed.
    let main = "import sys; from cicoclient.shell import main; sys.exit(main())";
    let output = Command::new(python)
        .args([
            "-c",
            main,
            "--endpoint",
            &format!("{url}/"),
            "--api-key",
            key,
        ])
        .args(args)
        .args(["-f", "json"])
        .env("HOME", site.scratch().join("home"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(stderr);
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {output:?}"))
}

#[test]
fn the_old_client_gets_and_returns_nodes() {
    let postgres = Postgres::start();
    let pools = [
        Pool::new(POOL, 3),
        Pool::new("virtual-centos9stream-aarch64-tiny", 1),
    ];
    let settings = json!({
        "defaults": {"session-lifetime": "1h", "session-lifetime-max": "12h", "node-quota": 10},
        "tasks": {"periodic": {"fill-pools": {"interval": 1}, "expire-sessions": {"interval": 1}}},
    });
    let mut site = Site::new(&postgres.url(), &pools, &settings);
    let duffy = site.duffy();
    duffy.succeed(&["setup-db"]);
    let tenant_key = site.tenant_key().clone();
    let created = duffy.succeed(&["admin", "create-tenant", "ci", tenant_key.public()]);
    let key = created.trim().rsplit(' ').next().unwrap().to_owned();
    let port = free_port();
    // Without `dest`, `run` uses its own web API.
    let service_key = site.service_key().path().to_owned();
    site.reconfigure(&json!({
        "ssh": {"identity-files": [service_key]},
        "metaclient": {
        "port": port,
        "usermap": {key.clone(): "ci"},
        "poolmap": [
            {"arch": "^aarch64$", "flavor": "^(tiny|small)$", "pool": "virtual-centos{{ ver | replace('-', '') }}-{{ arch }}-{{ flavor }}"},
            {"arch": "x86_64", "pool": "physical-centos{{ ver | replace('-', '') }}-{{ arch }}"},
        ],
        "mangle_hostname": "{{ hostname | replace('.test', '') }}",
        },
    }));
    let server = duffy.spawn(&["run", "-p", "0"]);
    let url = super::served_at(&server, "serving the old API");
    assert_eq!(url, format!("http://127.0.0.1:{port}"));

    // Until the pool is filled, there are no nodes, and the client fails.
    let get = [
        "node",
        "get",
        "--arch",
        "x86_64",
        "--release",
        "8-stream",
        "--count",
        "2",
    ];
    let hosts = eventually(TIMEOUT, "two nodes", || cico(&site, &url, &key, &get));
    assert_eq!(hosts.len(), 2, "{hosts:?}");
    for host in &hosts {
        let (name, ip) = (text(&host["hostname"]), text(&host["ip_address"]));
        assert!(
            name.starts_with("node-127-77-0-") && !name.contains(".test"),
            "{name}"
        );
        assert_eq!(
            (text(&host["current_state"]), text(&host["node_pool"])),
            ("deployed", POOL)
        );
        let output = site.node(ip).login(&tenant_key, "echo $HOME");
        let home = String::from_utf8(output.stdout).unwrap();
        assert_eq!(home.trim(), site.node(ip).home().to_str().unwrap());
    }
    let session = text(&hosts[0]["comment"]).to_owned();

    let sorted = |mut hosts: Vec<Value>| {
        hosts.sort_by_key(|host| text(&host["hostname"]).to_owned());
        hosts
    };
    let hosts = sorted(hosts);
    for args in [
        &["inventory"][..],
        &["inventory", "--all"],
        &["inventory", "--ssid", &session],
    ] {
        assert_eq!(
            sorted(cico(&site, &url, &key, args).unwrap()),
            hosts,
            "{args:?}"
        );
    }
    let get = [
        "node",
        "get",
        "--arch",
        "aarch64",
        "--release",
        "9-stream",
        "--flavor",
        "tiny",
    ];
    let more = eventually(TIMEOUT, "another node", || cico(&site, &url, &key, &get));
    assert_eq!(more.len(), 1, "{more:?}");
    let get = ["node", "get", "--arch", "ppc64le", "--release", "9-stream"];
    let refused = cico(&site, &url, &key, &get).unwrap_err();
    assert!(refused.contains("Failed to allocate nodes"), "{refused}");

    let done = cico(&site, &url, &key, &["node", "done", &session]).unwrap();
    assert_eq!(sorted(done), hosts);
    for host in &hosts {
        let node: &mut SshNode = site.node(text(&host["ip_address"]));
        let public = tenant_key.public();
        eventually(TIMEOUT, "the node without the key", || {
            let keys = node.authorized_keys();
            if keys.contains(public) {
                Err(keys)
            } else {
                Ok(())
            }
        });
    }
    let left = cico(&site, &url, &key, &["inventory"]).unwrap();
    assert_eq!(left, more);
    server.terminate();
    assert_eq!(server.wait_exit(TIMEOUT), 0);
    let log = server.log();
    assert!(!log.contains(&key), "{log}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}
