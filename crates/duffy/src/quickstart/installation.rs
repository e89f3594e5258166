//! The directory of a quickstart: made once, used again.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duffy_api::TenantCreate;
use duffy_config::Config;
use duffy_server::context::{Context, open_database};
use duffy_server::db::{migrate, tenants};
use duffy_server::lifecycle;
use duffy_server::nodes::ssh::generate_key;
use serde_json::json;

use crate::commands::quickstart::QuickstartArgs;
use crate::failure::Failure;

/// The tenant's name.
const TENANT: &str = "tenant";
/// Where the web API listens if nothing else is asked for, and the port is free.
const PORT: u16 = 8080;

/// The files of a quickstart.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    directory: PathBuf,
}

impl Installation {
    /// Makes what is missing.
    pub(super) fn open(args: &QuickstartArgs) -> Result<Self, Failure> {
        let directory = match &args.dir {
            Some(directory) => std::path::absolute(directory).map_err(Failure::new)?,
            None => default_directory()?,
        };
        let this = Self { directory };
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&this.directory)
            .map_err(|error| cannot("create", &this.directory, &error))?;
        for key in [this.service_key(), this.tenant_key()] {
            if !key.exists() {
                generate_key(&key).map_err(|error| cannot("make the key", &key, &error))?;
            }
        }
        if this.config_file().exists() {
            block_on(this.upgrade())??;
        } else {
            this.set_up(args)?;
        }
        Ok(this)
    }

    /// The configuration, as any other command would read it.
    pub(super) fn config(&self) -> Result<Arc<Config>, Failure> {
        duffy_config::load_files(&[self.config_file()])
            .map(Arc::new)
            .map_err(Failure::new)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.directory.join("duffy.yaml")
    }

    /// For `ssh -F`: the nodes by name.
    pub(super) fn ssh_config(&self) -> PathBuf {
        self.directory.join("ssh_config")
    }

    pub(super) fn tenant_key(&self) -> PathBuf {
        self.directory.join("tenant_key")
    }

    fn service_key(&self) -> PathBuf {
        self.directory.join("duffy_key")
    }

    /// Writes a file that others cannot read, whole or not at all.
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

    /// Database, tenant, configuration. The configuration comes last: without it all is done
    /// once more.
    fn set_up(&self, args: &QuickstartArgs) -> Result<(), Failure> {
        let draft = self.directory.join("duffy.draft.yaml");
        let host = args.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
        let port = args.port.unwrap_or_else(|| free_port(&host));
        Self::write(&draft, &self.config_text(&host, port, &uuid_nil()))?;
        let config = duffy_config::load_files(std::slice::from_ref(&draft))
            .map(Arc::new)
            .map_err(Failure::new)?;
        let key = block_on(self.set_up_database(config))??;
        Self::write(&self.config_file(), &self.config_text(&host, port, &key))?;
        fs::remove_file(&draft).map_err(|error| cannot("remove", &draft, &error))
    }

    /// Makes the schema and the tenant; its API key is returned.
    async fn set_up_database(&self, config: Arc<Config>) -> Result<String, Failure> {
        let db = open_database(&config, true).await.map_err(Failure::new)?;
        match migrate::setup_db(&db).await {
            Ok(()) | Err(migrate::MigrateError::TablesPresent(_)) => {}
            Err(error) => return Err(Failure::new(error)),
        }
        db.close().await;
        let ctx = Context::open(config).await.map_err(Failure::new)?;
        let public = self.tenant_key().with_extension("pub");
        let ssh_key = fs::read_to_string(&public)
            .map_err(|error| cannot("read", &public, &error))?
            .trim()
            .to_owned();
        let known = tenants::find_tenant_by_name(&ctx.db, TENANT)
            .await
            .map_err(Failure::new)?;
        let key = match known {
            None => {
                let create = TenantCreate {
                    name: TENANT.to_owned(),
                    is_admin: false,
                    ssh_key,
                    node_quota: None,
                    session_lifetime: None,
                    session_lifetime_max: None,
                };
                let created = lifecycle::tenants::create_tenant(&ctx, create).await;
                created.map_err(Failure::new)?.api_key
            }
            // A start that did not get to the end.
            Some(tenant) => {
                let update = duffy_api::TenantUpdate {
                    api_key: Some(duffy_api::ApiKeyUpdate::Reset),
                    ssh_key: Some(ssh_key),
                    ..duffy_api::TenantUpdate::default()
                };
                let updated = lifecycle::tenants::update_tenant(&ctx, tenant.id, update).await;
                updated.map_err(Failure::new)?.api_key.unwrap_or_default()
            }
        };
        ctx.db.close().await;
        Ok(key)
    }

    /// Brings the database of an older version up to date.
    async fn upgrade(&self) -> Result<(), Failure> {
        let config = self.config()?;
        let db = open_database(&config, true).await.map_err(Failure::new)?;
        let upgraded = migrate::upgrade(&db, "head", &crate::output::words).await;
        db.close().await;
        upgraded.map(|_| ()).map_err(Failure::new)
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
            "ssh": { "identity-files": [self.service_key()] },
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
            "# The configuration of this quickstart. Change it as you like; it is read at each start.\n{}",
            duffy_config::yaml::dump(&tree)
        )
    }

    fn database_url(&self, scheme: &str) -> String {
        format!(
            "{scheme}:///{}",
            self.directory.join("duffy.sqlite").display()
        )
    }
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    let path = path.display();
    Failure(format!(
        "cannot {what} {path}: {error}; choose another directory with --dir"
    ))
}

/// `host:port` as URLs have it.
pub(super) fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The usual port if it is free, else any that is.
fn free_port(host: &str) -> u16 {
    let bind = |port| TcpListener::bind((host, port)).and_then(|listener| listener.local_addr());
    bind(PORT)
        .or_else(|_| bind(0))
        .map_or(PORT, |address| address.port())
}

fn uuid_nil() -> String {
    "00000000-0000-0000-0000-000000000000".to_owned()
}

fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure(format!("cannot start a thread: {error}")))?;
    Ok(runtime.block_on(future))
}

fn default_directory() -> Result<PathBuf, Failure> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .and_then(absolute);
    let home = || {
        std::env::home_dir()
            .and_then(absolute)
            .map(|home| home.join(".local/state"))
    };
    state
        .or_else(home)
        .map(|state| state.join("duffy/quickstart"))
        .ok_or_else(|| Failure("there is no home directory; say where with --dir".to_owned()))
}
