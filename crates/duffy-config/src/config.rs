//! The whole configuration.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::decode::{Cursor, Report};
use crate::error::{ConfigError, Mark};
use crate::files;
use crate::sections::{App, Client, Database, Defaults, Metaclient, NodePools, Ssh, Tasks};
use crate::yaml::{Data, Entry, Map, Node, map_to_json};

const SECTIONS: &[&str] = &[
    "client",
    "app",
    "metaclient",
    "tasks",
    "database",
    "defaults",
    "ssh",
    "nodepools",
];

/// The whole configuration, checked.
#[derive(Clone)]
pub struct Config {
    /// The command line client.
    pub client: Option<Client>,
    /// The web API; `App::default()` holds where it is absent.
    pub app: Option<App>,
    /// The old API.
    pub metaclient: Option<Metaclient>,
    /// The worker; all defaults when the section is absent.
    pub tasks: Tasks,
    /// Where the data is.
    pub database: Option<Database>,
    /// What holds for tenants and sessions that say nothing else.
    pub defaults: Option<Defaults>,
    /// How nodes are reached; all defaults when the section is absent.
    pub ssh: Ssh,
    /// The pools.
    pub nodepools: Option<NodePools>,
    /// Names of the sections in the order of the files.
    pub sections: Vec<String>,
    /// All of it as merged, before defaults and inheritance. It contains secrets.
    pub tree: Value,
    /// What works but may not be meant, a line each.
    pub warnings: Vec<String>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
}

/// Without the tree, which contains secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("files", &self.files)
            .field("sections", &self.sections)
            .finish_non_exhaustive()
    }
}

/// Reads the configuration from these files and directories in order, or from the default places when there are none.
///
/// # Errors
/// A path that cannot be read, unless it is a default one that does not exist or a directory closed to the user; text that is no YAML; keys and values
/// that are wrong: all of them, a line each.
pub fn load(explicit: &[PathBuf]) -> Result<Config, ConfigError> {
    if !explicit.is_empty() {
        return load_files(explicit);
    }
    let mut present = Vec::new();
    let mut warnings = Vec::new();
    for path in files::default_paths() {
        // What is not there is fine. So is a directory that is closed to this user, who may have one of their own: the
        // server's holds secrets.
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(metadata) if metadata.is_dir() && is_closed(&path) => {
                warnings.push(format!(
                    "{}: this directory may not be read and is ignored",
                    path.display()
                ));
            }
            _ => present.push(path),
        }
    }
    let mut config = load_files(&present)?;
    config.warnings.splice(0..0, warnings);
    Ok(config)
}

fn is_closed(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Reads the configuration from these files and directories in order.
///
/// # Errors
/// As [`load`].
pub fn load_files(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let files = files::expand(paths)?;
    let (merged, warnings) = files::read(&files)?;
    decode(merged, warnings, files)
}

/// Reads the configuration from a text, which errors call `file`.
///
/// # Errors
/// As [`load`], of the text.
pub fn load_text(text: &str, file: &str) -> Result<Config, ConfigError> {
    let mut merged = Map::new();
    let warnings = files::merge_text(&mut merged, text, file)?;
    decode(merged, warnings, Vec::new())
}

fn decode(merged: Map, warnings: Vec<String>, files: Vec<PathBuf>) -> Result<Config, ConfigError> {
    let sections = merged.keys().cloned().collect();
    let tree = Value::Object(map_to_json(&merged));
    let mut report = Report {
        problems: Vec::new(),
        warnings,
    };
    let mark = Mark::whole("configuration");
    let root = Entry {
        key_mark: mark.clone(),
        is_text: true,
        value: Node {
            data: Data::Map(merged),
            mark,
        },
    };
    let Some(fields) = Cursor::new(&root, "").fields(&mut report, SECTIONS) else {
        return Err(ConfigError::Invalid(report.problems));
    };
    let client = fields.read(&mut report, "client", Client::decode);
    let app = fields.read(&mut report, "app", App::decode);
    let metaclient = fields.read(&mut report, "metaclient", Metaclient::decode);
    let tasks = fields.read(&mut report, "tasks", Tasks::decode);
    let database = fields.read(&mut report, "database", Database::decode);
    let defaults = fields.read(&mut report, "defaults", Defaults::decode);
    let ssh = fields.read(&mut report, "ssh", Ssh::decode);
    let nodepools = fields.read(&mut report, "nodepools", NodePools::decode);
    if !report.problems.is_empty() {
        return Err(ConfigError::Invalid(report.problems));
    }
    Ok(Config {
        client,
        app,
        metaclient,
        tasks: tasks.unwrap_or_default(),
        database,
        defaults,
        ssh: ssh.unwrap_or_default(),
        nodepools,
        sections,
        tree,
        warnings: report.warnings,
        files,
    })
}
