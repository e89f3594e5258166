//! The directory of a quickstart: created once, used again.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duffy_api::{ApiKeyUpdate, TenantCreate, TenantUpdate};
use duffy_config::Config;
use duffy_server::context::Ctx;
use duffy_server::db::migrate::{self, MigrateError};
use duffy_server::db::tenants::find_tenant_by_name;
use duffy_server::lifecycle::tenants;
use duffy_server::nodes::ssh::generate_key;
use serde_json::json;

use crate::args::servers::QuickstartArgs;
use crate::commands::database::{with_context, with_database};
use crate::failure::Failure;
use crate::output;

/// The tenant's name.
const TENANT: &str = "tenant";
/// The tenant's key in the configuration, while there is no tenant.
const NO_KEY: &str = "00000000-0000-0000-0000-000000000000";
/// Where the web API listens if no other port is given and this one is free.
const PORT: u16 = 8080;

/// The files of a quickstart.
#[derive(Debug)]
pub(super) struct Installation {
    pub(super) directory: PathBuf,
    pub(super) config_file: PathBuf,
    /// The nodes by name, for `ssh -F`.
    pub(super) ssh_config: PathBuf,
    pub(super) tenant_key: PathBuf,
    service_key: PathBuf,
}

impl Installation {
    /// Creates what is missing, and upgrades the database.
    pub(super) fn open(args: &QuickstartArgs) -> Result<Self, Failure> {
        let directory = match &args.dir {
            Some(directory) => std::path::absolute(directory)?,
            None => default_directory()?,
        };
        let this = Self {
            config_file: directory.join("duffy.yaml"),
            ssh_config: directory.join("ssh_config"),
            tenant_key: directory.join("tenant_key"),
            service_key: directory.join("duffy_key"),
            directory,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&this.directory)
            .map_err(|error| cannot("create", &this.directory, &error))?;
        for key in [&this.service_key, &this.tenant_key] {
            if !key.exists() {
                generate_key(key).map_err(|error| cannot("create the key", key, &error))?;
            }
        }
        if this.config_file.exists() {
            let config = this.config()?;
            with_database(&config, true, async |db| {
                migrate::upgrade(db, "head", &output::words).await?;
                Ok(())
            })?;
        } else {
            this.set_up(args)?;
        }
        Ok(this)
    }

    /// Loads the configuration, as any other command does.
    pub(super) fn config(&self) -> Result<Arc<Config>, Failure> {
        let config = duffy_config::load_files(std::slice::from_ref(&self.config_file))?;
        Ok(Arc::new(config))
    }

    /// Writes a file that others cannot read, completely or not at all.
    pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
        let part = path.with_extension("part");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&part)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .and_then(|()| fs::rename(&part, path))
            .map_err(|error| cannot("write", path, &error))
    }

    /// Creates database, tenant and configuration. The configuration comes last: without it, the next start does everything
    /// again.
    fn set_up(&self, args: &QuickstartArgs) -> Result<(), Failure> {
        let host = args.host.as_deref().unwrap_or("127.0.0.1");
        let port = args.port.unwrap_or_else(|| free_port(host));
        let draft = duffy_config::load_text(&self.config_text(host, port, NO_KEY), "draft")?;
        with_database(&draft, true, async |db| match migrate::setup_db(db).await {
            Ok(()) | Err(MigrateError::TablesPresent(_)) => Ok(()),
            Err(error) => Err(error.into()),
        })?;
        let key = with_context(&Arc::new(draft), async |ctx| self.set_up_tenant(ctx).await)?;
        Self::write(&self.config_file, &self.config_text(host, port, &key))
    }

    /// Creates the tenant and returns its API key.
    async fn set_up_tenant(&self, ctx: &Ctx) -> Result<String, Failure> {
        let public = self.tenant_key.with_extension("pub");
        let ssh_key = fs::read_to_string(&public)
            .map_err(|error| cannot("read", &public, &error))?
            .trim()
            .to_owned();
        // An earlier start may have ended after it created the tenant.
        if let Some(tenant) = find_tenant_by_name(&ctx.db, TENANT).await? {
            let update = TenantUpdate {
                api_key: Some(ApiKeyUpdate::Reset),
                ssh_key: Some(ssh_key),
                ..TenantUpdate::default()
            };
            let updated = tenants::update_tenant(ctx, tenant.id, update).await?;
            return Ok(updated.api_key.unwrap_or_default());
        }
        let create = TenantCreate {
            name: TENANT.to_owned(),
            is_admin: false,
            ssh_key,
            node_quota: None,
            session_lifetime: None,
            session_lifetime_max: None,
        };
        Ok(tenants::create_tenant(ctx, create).await?.api_key)
    }

    fn config_text(&self, host: &str, port: u16, key: &str) -> String {
        let pool = |fill_level: u32| json!({ "extends": "simulated", "fill-level": fill_level });
        let tree = json!({
            "client": {
                "url": format!("http://{}/api/v1", with_port(host, port)),
                "auth": { "name": TENANT, "key": key },
            },
            "app": { "host": host, "port": port },
            "tasks": {
                "periodic": {
                    "fill-pools": { "interval": "5s" },
                    "expire-sessions": { "interval": "5s" },
                },
            },
            "database": {
                "sqlalchemy": {
                    "sync_url": self.database_url("sqlite"),
                    "async_url": self.database_url("sqlite+aiosqlite"),
                },
            },
            "defaults": {
                "session-lifetime": "1h",
                "session-lifetime-max": "12h",
                "node-quota": 10,
            },
            "ssh": { "identity-files": [self.service_key] },
            "nodepools": {
                "abstract": {
                    "simulated": {
                        "mechanism": {
                            "type": "simulated",
                            "simulated": {
                                "directory": self.directory.join("nodes"),
                                "provision-delay": "500ms",
                                "deprovision-delay": "200ms",
                                "hostname": "node-{{ id }}.{{ name }}",
                            },
                        },
                    },
                },
                "concrete": { "small": pool(3), "large": pool(2) },
            },
        });
        format!(
            "# The configuration of this quickstart. You can change it; it is read at each start.\n{}",
            duffy_config::yaml::dump(&tree)
        )
    }

    fn database_url(&self, scheme: &str) -> String {
        let file = self.directory.join("duffy.sqlite");
        format!("{scheme}:///{}", file.display())
    }
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    let path = path.display();
    Failure::new(format_args!(
        "cannot {what} {path}: {error}; choose another directory with --dir"
    ))
}

/// Formats `host:port` for a URL.
fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Returns the default port if it is free, or else any free port.
fn free_port(host: &str) -> u16 {
    let bind = |port| TcpListener::bind((host, port)).and_then(|listener| listener.local_addr());
    bind(PORT)
        .or_else(|_| bind(0))
        .map_or(PORT, |address| address.port())
}

fn default_directory() -> Result<PathBuf, Failure> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .and_then(absolute);
    let home = || {
        Some(
            std::env::home_dir()
                .and_then(absolute)?
                .join(".local/state"),
        )
    };
    match state.or_else(home) {
        Some(state) => Ok(state.join("duffy/quickstart")),
        None => Err(Failure::new(
            "there is no home directory; give a directory with --dir",
        )),
    }
}
