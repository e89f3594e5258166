//! The whole configuration.

use std::cell::RefCell;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::decode::{Cursor, Report};
use crate::error::{ConfigError, Mark};
use crate::files;
use crate::sections::{App, Client, Database, Defaults, Metaclient, NodePools, Ssh, Tasks};
use crate::yaml::{Data, Map, Node, map_to_json};

/// The whole configuration, checked.
#[derive(Clone)]
pub struct Config {
    /// The command line client.
    pub client: Option<Client>,
    /// The web API; `App::default()` applies if it is absent.
    pub app: Option<App>,
    /// The old API.
    pub metaclient: Option<Metaclient>,
    /// The worker; all defaults if the section is absent.
    pub tasks: Tasks,
    /// The database.
    pub database: Option<Database>,
    /// What applies to tenants and sessions without settings of their own.
    pub defaults: Option<Defaults>,
    /// How Duffy reaches nodes; all defaults if the section is absent.
    pub ssh: Ssh,
    /// The pools.
    pub nodepools: Option<NodePools>,
    /// Names of the sections, in the order of the files.
    pub sections: Vec<String>,
    /// The merged configuration, before defaults and inheritance. It contains secrets.
    pub tree: Value,
    /// What works but is probably a mistake, a line each.
    pub warnings: Vec<String>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
}

/// Omits the tree, which contains secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("files", &self.files)
            .field("sections", &self.sections)
            .finish_non_exhaustive()
    }
}

/// Reads the configuration from these files and directories in order, or from the default paths if there are none.
///
/// # Errors
/// A path cannot be read, unless it is a default path that does not exist or is a directory without permission; text is
/// not YAML; keys and values are wrong: all of them, a line each.
pub fn load(explicit: &[PathBuf]) -> Result<Config, ConfigError> {
    if !explicit.is_empty() {
        return load_files(explicit);
    }
    let mut present = Vec::new();
    let mut warnings = Vec::new();
    for path in files::default_paths() {
        // A default path may be missing. The server's directory contains secrets and may be closed to this user, who may
        // have a directory of their own.
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(metadata) if metadata.is_dir() && is_closed(&path) => {
                warnings.push(format!(
                    "{}: no permission to read this directory; it is ignored",
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

/// Reads the configuration from a text. Errors name it `file`.
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
    let report = Report {
        warnings: RefCell::new(warnings),
        ..Report::default()
    };
    let root = Node {
        data: Data::Map(merged),
        mark: Mark::whole("configuration"),
    };
    let cursor = Cursor {
        node: &root,
        mark: &root.mark,
        path: String::new(),
        report: &report,
    };
    let config = cursor.section(|fields| {
        Some(Config {
            client: fields.read("client", Client::decode),
            app: fields.read("app", App::decode),
            metaclient: fields.read("metaclient", Metaclient::decode),
            tasks: fields.read_or("tasks", Tasks::default(), Tasks::decode),
            database: fields.read("database", Database::decode),
            defaults: fields.read("defaults", Defaults::decode),
            ssh: fields.read_or("ssh", Ssh::default(), Ssh::decode),
            nodepools: fields.read("nodepools", NodePools::decode),
            sections,
            tree,
            warnings: Vec::new(),
            files,
        })
    });
    let problems = report.problems.into_inner();
    match config {
        Some(config) if problems.is_empty() => Ok(Config {
            warnings: report.warnings.into_inner(),
            ..config
        }),
        _ => Err(ConfigError::Invalid(problems)),
    }
}
