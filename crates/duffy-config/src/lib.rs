//! Duffy's configuration: YAML files to typed sections.
//!
//! [`load`] reads files and directories, merges them, checks every key and value, and resolves which pool extends which.
//! It accepts what the Python original accepts. An error names the file, the line, the key and the fix.

mod config;
mod database_url;
mod decode;
mod error;
mod files;
mod merge;
mod pattern;
pub mod python;
mod sections;
mod template;
pub mod yaml;

pub use config::{Config, load, load_files, load_text};
pub use database_url::{DatabaseUrl, PostgresUrl, SslMode};
pub use error::{ConfigError, Mark, Problem, YamlError};
pub use files::default_paths;
pub use pattern::Pattern;
pub use sections::{
    Ansible, App, Client, Database, Defaults, Hold, LogLevel, Mechanism, Metaclient, NodePools,
    Playbook, Pool, PoolMap, PoolRequest, RenderedVar, RenderedVars, ReuseValue, Selector,
    Simulated, Ssh, SshClient, Tasks, TrustedProxies,
};
pub use template::{Rendered, TemplateError, render as render_template};
