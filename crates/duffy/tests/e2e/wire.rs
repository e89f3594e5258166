//! Compares Duffy with recordings of the Python original, on a database of the original.

mod cli;
mod import;
mod openapi;
mod original_client;
mod pattern;
mod requests;
mod schemathesis;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Duffy, Postgres, Program, Scratch, SshKey, SshNode, eventually};

/// The tenants and keys in the README of the recordings.
const CREDENTIALS: &[(&str, &str, &str)] = &[
    ("admin", "admin", "ae6c10d0-0b13-554c-b976-a05d8a18f0cc"),
    ("tenant", "tenant", "a8b9899d-b128-59a1-aa86-754920b7f5ed"),
    ("other", "other", "7d0f4a0e-5d4c-4f3c-9d5a-0d2f3c1b2a19"),
    ("retired", "retired", "2f0c9a4e-6b1d-4a53-8f0e-5e1f7a9c3d21"),
    ("wrongkey", "tenant", "00000000-0000-4000-8000-000000000000"),
    ("notuuid", "tenant", "hunter2"),
    ("nobody", "nobody", "a8b9899d-b128-59a1-aa86-754920b7f5ed"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Postgres,
    Sqlite,
}

/// The site of the recordings: its database, its configuration, and nodes at its addresses.
#[derive(Debug)]
pub struct WireSite {
    duffy: Duffy,
    scratch: Scratch,
    config: PathBuf,
    _node: SshNode,
    _postgres: Option<Postgres>,
}

impl WireSite {
    /// Restores the database and upgrades it.
    pub fn new(engine: Engine) -> Self {
        let site = Self::restored(engine);
        site.duffy.succeed(&["migration", "upgrade"]);
        site
    }

    /// Restores the database without an upgrade.
    fn restored(engine: Engine) -> Self {
        let scratch = Scratch::new("wire");
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
        // The nodes of the recordings have the addresses 127.1.0.0 and following, and port 22.
        let key = SshKey::generate(&scratch.join("id_ed25519"), "duffy");
        let node = SshNode::start_everywhere(&[key.public()]);
        let ssh_config = format!(
            "Host 127.1.*\n    Port {}\n    User {}\n    IdentityFile {}\n",
            node.port(),
            SshNode::user(),
            key.path().display()
        );
        fs::write(scratch.join("ssh_config"), ssh_config).unwrap();
        let ssh = scratch.join("ssh_config").display().to_string();
        let ssh = format!("ssh: {{config-file: '{ssh}'}}\n");
        fs::write(scratch.join("ssh.yaml"), ssh).unwrap();

        let config = scratch.join("conf");
        fs::create_dir(&config).unwrap();
        let file = config.join("config.yaml");
        fs::copy(data("wire/config.yaml"), &file).unwrap();
        // The file contains keys. Duffy warns if other users can read it.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let database =
            format!("database: {{sqlalchemy: {{sync_url: '{url}', async_url: '{url}'}}}}\n");
        fs::write(config.join("local-database.yaml"), database).unwrap();
        Self {
            duffy: Duffy::new(&scratch).with_config(&config),
            scratch,
            config,
            _node: node,
            _postgres: postgres,
        }
    }

    /// The `duffy` command of this site.
    pub fn duffy(&self) -> &Duffy {
        &self.duffy
    }

    /// The directory of the site.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Starts the web API and writes its URL to the client's configuration. Returns the server and its URL.
    pub fn serve(&self) -> (Program, String) {
        let ssh = self.scratch.join("ssh.yaml");
        let arguments = ["-c", ssh.to_str().unwrap(), "-l", "info"];
        let server = self
            .duffy
            .spawn(&[&arguments[..], &["serve", "-p", "0"]].concat());
        let url = eventually(Duration::from_mins(1), "the web API", || {
            let log = server.log();
            let address = log
                .split_once("docs=\"http://")
                .and_then(|(_, rest)| rest.split_once("/docs"))
                .map(|(address, _)| format!("http://{address}"));
            address.ok_or(log)
        });
        let client = format!("client: {{url: '{url}/api/v1'}}\n");
        fs::write(self.config.join("local-url.yaml"), client).unwrap();
        (server, url)
    }
}

/// Returns the path of a test data file.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// Reads the steps of a recording.
fn steps(name: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(data("wire").join(name)).unwrap();
    let mut recording: serde_json::Value = serde_json::from_str(&text).unwrap();
    let serde_json::Value::Array(steps) = recording["steps"].take() else {
        panic!("{name} has no steps")
    };
    assert!(!steps.is_empty(), "{name} is empty");
    steps
}
