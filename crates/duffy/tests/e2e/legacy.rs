//! The old API, in its own process and in `duffy run`, with recordings of the original and with a client of the old API.

mod cico;
mod outages;
mod recorded;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Duffy, Postgres, Program, Scratch, SshKey, SshNode, eventually};

/// The API key of the tenant `tenant` in the database of the original.
const KEY: &str = "a8b9899d-b128-59a1-aa86-754920b7f5ed";

/// The name and the key, as the proxy sends them to the web API.
const BASIC: &str = "dGVuYW50OmE4Yjk4OTlkLWIxMjgtNTlhMS1hYTg2LTc1NDkyMGI3ZjVlZA";

#[derive(Debug, Clone, Copy)]
enum Engine {
    Postgres,
    Sqlite,
}

/// A site with the database of the original and the configuration of the recordings. One sshd serves all nodes: 127.1.0.0 and following,
/// port 22.
struct Left {
    duffy: Duffy,
    _node: SshNode,
    _postgres: Option<Postgres>,
}

impl Left {
    fn new(engine: Engine) -> Self {
        let scratch = Scratch::new("legacy");
        let (url, postgres) = match engine {
            Engine::Postgres => {
                let postgres = Postgres::start();
                postgres.load_file(&data("duffy-3.4.0-postgresql.sql"));
                (postgres.url(), Some(postgres))
            }
            Engine::Sqlite => {
                let file = scratch.join("duffy.sqlite");
                fs::copy(data("duffy-3.4.0.sqlite"), &file).unwrap();
                (format!("sqlite:///{}", file.display()), None)
            }
        };
        let home = scratch.join("home/.ssh");
        fs::create_dir_all(&home).unwrap();
        let key = SshKey::generate(&home.join("id_ed25519"), "duffy");
        let node = SshNode::start("127.0.0.1", &[key.public()]);
        let ssh_config = scratch.join("ssh_config");
        let host = format!(
            "Host 127.1.*\n    HostName 127.0.0.1\n    Port {}\n    User {}\n    IdentityFile {}\n",
            node.port(),
            SshNode::user(),
            key.path().display(),
        );
        fs::write(&ssh_config, host).unwrap();
        let pool = json!({"mechanism": {"type": "simulated"}});
        let settings = json!({
            "database": {"sqlalchemy": {"sync_url": url, "async_url": url}},
            "ssh": {"config-file": ssh_config},
            "defaults": {
                "session-lifetime": "6h", "session-lifetime-max": "12h", "node-quota": 100_000,
            },
            "nodepools": {"abstract": {}, "concrete": {
                "physical-centos8stream-x86_64": pool,
                "virtual-centos9stream-aarch64-medium": pool,
            }},
            "metaclient": {
                "usermap": {KEY: "tenant"},
                "poolmap": [
                    {"arch": "^(aarch64|ppc64|ppc64le)$",
                     "pool": "virtual-centos{{ ver | replace('-', '') }}-{{ arch }}-{{ flavor | default('medium') }}"},
                    {"arch": "x86_64", "pool": "physical-centos{{ ver | replace('-', '') }}-{{ arch }}"},
                ],
                "mangle_hostname": "{{ hostname | replace('.lab.test', '') }}",
            },
        });
        let config = scratch.join("duffy.yaml");
        // JSON is YAML.
        fs::write(&config, settings.to_string()).unwrap();
        let duffy = Duffy::new(&scratch).with_config(&config);
        duffy.succeed(&["migration", "upgrade"]);
        Self {
            duffy,
            _node: node,
            _postgres: postgres,
        }
    }

    /// Starts the web API with the log level `trace`.
    fn serve(&self, port: &str) -> (Program, String) {
        let server = self.duffy.spawn(&["-l", "trace", "serve", "-p", port]);
        let url = served_at(&server, "serving the web API");
        (server, url)
    }

    /// Starts the old API with the log level `trace`.
    fn serve_legacy(&self, dest: &str) -> (Program, String) {
        let args = ["-l", "trace", "serve-legacy", "-p", "0", "-D", dest];
        let server = self.duffy.spawn(&args);
        let url = served_at(&server, "serving the old API");
        (server, url)
    }
}

/// Returns the address in a server's log.
fn served_at(server: &Program, what: &str) -> String {
    eventually(Duration::from_mins(1), what, || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains(what));
        let url = line.and_then(|line| line.split_once("docs=\"")?.1.split_once("/docs\""));
        url.map(|(url, _)| url.to_owned()).ok_or(log.clone())
    })
}

/// Returns the path of a test data file.
fn data(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    tests.join(name)
}

/// Returns the number of nodes in the web API's list of sessions.
fn lent(sessions: &Value) -> usize {
    let nodes = |session: &Value| session["nodes"].as_array().unwrap().len();
    sessions["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(nodes)
        .sum()
}
