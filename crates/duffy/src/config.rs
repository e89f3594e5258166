//! The configuration as the commands see it. All that this program knows of `duffy_config` as a
//! whole stands here.

use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "client")]
use secrecy::SecretString;
use serde_json::Value;

use crate::failure::Failure;
use crate::logging::LogLevel;

/// The configuration, and what the command line says beside it.
#[derive(Debug)]
pub struct Loaded {
    config: Arc<stand_in::Config>,
    loglevel: Option<LogLevel>,
}

/// Whom the `client` command asks.
#[cfg(feature = "client")]
#[derive(Debug)]
pub struct ClientSection {
    /// Base URL of the API.
    pub url: String,
    /// Name of the tenant.
    pub name: String,
    /// Key of the tenant.
    pub key: SecretString,
}

impl Loaded {
    /// Reads these files and directories, or the default ones.
    pub fn load(paths: &[PathBuf], loglevel: Option<LogLevel>) -> Result<Self, Failure> {
        let config = stand_in::load(paths).map_err(Failure::new)?;
        Ok(Self {
            config: Arc::new(config),
            loglevel,
        })
    }

    /// The top-level keys, in the order of the files.
    pub fn sections(&self) -> &[String] {
        &self.config.sections
    }

    /// All files merged.
    pub fn tree(&self) -> &Value {
        &self.config.tree
    }

    /// What is odd, but no error.
    pub fn warnings(&self) -> &[String] {
        &self.config.warnings
    }

    /// The `client` section, if there is one.
    #[cfg(feature = "client")]
    pub fn client(&self) -> Option<ClientSection> {
        let text = |path| self.config.tree.pointer(path).and_then(Value::as_str);
        Some(ClientSection {
            url: text("/client/url")?.to_owned(),
            name: text("/client/auth/name")?.to_owned(),
            key: SecretString::from(text("/client/auth/key")?),
        })
    }

    /// How much a command logs that ends by itself.
    pub fn command_level(&self) -> LogLevel {
        self.loglevel.unwrap_or(LogLevel::Warning)
    }

    /// How much `serve`, `worker` and `run` log.
    pub fn server_level(&self) -> LogLevel {
        let configured = self
            .config
            .tree
            .pointer("/app/loglevel")
            .and_then(Value::as_str);
        self.loglevel
            .or_else(|| configured.and_then(LogLevel::from_name))
            .unwrap_or(LogLevel::Info)
    }
}

/// Stands where `duffy_config::load` will: reads and merges, checks the names of sections only.
mod stand_in {
    use std::path::PathBuf;

    use serde_json::{Map, Value};

    #[derive(Debug)]
    pub struct Config {
        pub sections: Vec<String>,
        pub tree: Value,
        pub warnings: Vec<String>,
    }

    const SECTIONS: [&str; 7] = [
        "client",
        "app",
        "metaclient",
        "tasks",
        "database",
        "defaults",
        "nodepools",
    ];

    pub fn load(paths: &[PathBuf]) -> Result<Config, String> {
        let mut tree = Map::new();
        for path in paths {
            let file = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| format!("{file}: {error}"))?;
            let documents =
                duffy_config::yaml::parse(&text, &file).map_err(|error| error.to_string())?;
            for document in documents {
                if let Value::Object(members) = document {
                    tree.extend(members);
                }
            }
        }
        if let Some(key) = tree.keys().find(|key| !SECTIONS.contains(&key.as_str())) {
            return Err(format!(
                "{key}: unknown section, there are {}",
                SECTIONS.join(", ")
            ));
        }
        Ok(Config {
            sections: tree.keys().cloned().collect(),
            tree: Value::Object(tree),
            warnings: Vec::new(),
        })
    }
}
