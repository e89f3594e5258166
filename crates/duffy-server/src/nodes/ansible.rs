//! The mechanism `ansible`: playbooks make the machines and take them down.
//!
//! A playbook is run by `ansible-playbook` in the configured directory, with `duffy_in` among its extra variables, and
//! gives its result by `set_fact` of `duffy_out`; the last one counts. A small callback of ours (`duffy_events.py`)
//! tells us of that and of failures, next to whatever callbacks the site has.

mod events;
mod outcome;
mod site;
mod vars;
mod workdir;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use duffy_config::RenderedVars;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::mechanism::{Mechanism, MechanismError, MechanismNode};
use crate::process::{self, ProcessError, Spec, find_program};
use events::Events;
use outcome::judge_run;
use vars::to_yaml;
use workdir::Workdir;
pub use workdir::sweep_workdirs;

/// The variable in which the callback finds its file.
const EVENTS: &str = "DUFFY_ANSIBLE_EVENTS";

/// Where the playbooks are and how they run.
#[derive(Debug, Clone)]
pub struct AnsibleSettings {
    /// `ansible-playbook`, by name or by path.
    pub program: PathBuf,
    /// The directory in which playbooks run, and which their names are relative to.
    pub topdir: PathBuf,
    /// Makes machines.
    pub provision: Option<Playbook>,
    /// Takes them down; without it there is nothing to do.
    pub deprovision: Option<Playbook>,
    /// How long a playbook may take.
    pub timeout: Duration,
}

/// A playbook of a pool.
#[derive(Debug, Clone)]
pub struct Playbook {
    /// Its file, relative to [`AnsibleSettings::topdir`].
    pub playbook: PathBuf,
}

/// What a playbook is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaybookKind {
    /// Making machines.
    Provision,
    /// Taking them down.
    Deprovision,
}

/// Merges the extra variables of the mechanism and of the playbook, and renders the templates in them, in which the given
/// ones can be used as well. The given ones hold `duffy_in`, and win.
pub type RenderVars =
    Arc<dyn Fn(PlaybookKind, &Map<String, Value>) -> Result<RenderedVars, String> + Send + Sync>;

/// See the module.
pub struct AnsibleMechanism {
    settings: AnsibleSettings,
    render: RenderVars,
}

impl fmt::Debug for AnsibleMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnsibleMechanism")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Mechanism for AnsibleMechanism {
    async fn provision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let playbook = self.settings.provision.as_ref().ok_or_else(|| {
            setup("no playbook for provisioning is configured; set provision.playbook")
        })?;
        self.run_playbook(
            PlaybookKind::Provision,
            &playbook.playbook,
            nodes.iter().map(describe_node).collect(),
            stop,
        )
        .await
    }

    async fn deprovision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let Some(playbook) = &self.settings.deprovision else {
            // Nothing to do is done for all of them.
            return Ok(nodes.iter().map(describe_node).collect());
        };
        let input = nodes.iter().map(|node| {
            let mut described = describe_node(node);
            described["data"] = node.data.clone();
            described
        });
        self.run_playbook(
            PlaybookKind::Deprovision,
            &playbook.playbook,
            input.collect(),
            stop,
        )
        .await
    }

    fn check(&self) -> Result<(), MechanismError> {
        let AnsibleSettings {
            program,
            topdir,
            provision,
            deprovision,
            ..
        } = &self.settings;
        if find_program(program.as_os_str()).is_none() {
            return Err(setup(format!(
                "{}: program not found; {REMEDY}",
                program.display()
            )));
        }
        if !topdir.is_dir() {
            return Err(setup(format!(
                "topdir {} is not a directory; create it or correct topdir",
                topdir.display()
            )));
        }
        if provision.is_none() {
            return Err(setup(
                "no playbook for provisioning is configured; set provision.playbook",
            ));
        }
        for (key, playbook) in [("provision", provision), ("deprovision", deprovision)] {
            let Some(playbook) = playbook else { continue };
            let path = topdir.join(&playbook.playbook);
            if let Err(error) = std::fs::File::open(&path)
                .and_then(|file| file.metadata())
                .and_then(|meta| {
                    if meta.is_file() {
                        Ok(())
                    } else {
                        Err(io::Error::other("not a file"))
                    }
                })
            {
                return Err(setup(format!(
                    "cannot read playbook {}: {error}; correct {key}.playbook or topdir",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

const REMEDY: &str = "install ansible-core, or see that ansible-playbook is in the service's PATH";

impl AnsibleMechanism {
    /// Nothing is looked at before [`Mechanism::check`] or the first run.
    pub fn new(settings: AnsibleSettings, render: RenderVars) -> Self {
        Self { settings, render }
    }

    async fn run_playbook(
        &self,
        kind: PlaybookKind,
        playbook: &Path,
        nodes: Vec<Value>,
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        let started = Instant::now();
        let count = nodes.len();
        let mut given = Map::new();
        given.insert("duffy_in".to_owned(), json!({ "nodes": nodes }));
        let vars = (self.render)(kind, &given).map_err(|error| {
            setup(format!(
                "extra-vars for playbook {}: {error}",
                playbook.display()
            ))
        })?;

        let workdir = Workdir::prepare(&to_yaml(&vars, &given)).map_err(|error| {
            setup(format!(
                "cannot prepare a directory in {} for a playbook: {error}; make room or set TMPDIR",
                std::env::temp_dir().display()
            ))
        })?;
        let spec = self.spec(playbook, &workdir)?;
        info!(playbook = %playbook.display(), ?kind, nodes = count, "playbook started");
        let output = process::run(spec, stop)
            .await
            .map_err(|error| match error {
                ProcessError::Deadline { after, tail, .. } => {
                    MechanismError::Deadline { after, log: tail }
                }
                ProcessError::Stopped { .. } => MechanismError::Stopped,
                ProcessError::NotFound { .. }
                | ProcessError::Start { .. }
                | ProcessError::Io { .. } => setup(error.to_string()),
            })?;
        let duration_ms = started.elapsed().as_millis() as u64;
        info!(playbook = %playbook.display(), ?kind, nodes = count, duration_ms, status = %output.status, "playbook ended");
        debug!(log = %output.tail, "last lines of the playbook");

        let events =
            Events::read(&workdir.events()).map_err(|error| MechanismError::BadResult {
                detail: format!(
                    "playbook {}: its events cannot be read: {error}",
                    playbook.display()
                ),
                log: output.tail.clone(),
            })?;
        judge_run(playbook, output, events)
    }

    fn spec(&self, playbook: &Path, workdir: &Workdir) -> Result<Spec, MechanismError> {
        // A path that is relative to our directory has to hold in the playbooks' one as well.
        let topdir = std::path::absolute(&self.settings.topdir).map_err(|error| {
            setup(format!(
                "topdir {}: {error}",
                self.settings.topdir.display()
            ))
        })?;
        let mut vars = OsString::from("@");
        vars.push(workdir.vars());
        let env = |name: &str| std::env::var_os(name);
        let spec = Spec::new(&self.settings.program)
            .remedy(REMEDY)
            .args(["-e".into(), vars, playbook.as_os_str().to_owned()])
            .env(
                site::CALLBACK_PLUGINS,
                site::callback_dirs(&workdir.callbacks(), &topdir, &env),
            )
            .env(EVENTS, workdir.events())
            .env("ANSIBLE_FORCE_COLOR", "False")
            .env("ANSIBLE_RETRY_FILES_ENABLED", "False")
            .cwd(topdir)
            .deadline(self.settings.timeout);
        // New machines have new keys all the time, and nobody is there to be asked about them.
        Ok(match env("ANSIBLE_HOST_KEY_CHECKING") {
            Some(_) => spec,
            None => spec.env("ANSIBLE_HOST_KEY_CHECKING", "False"),
        })
    }
}

fn setup(detail: impl Into<String>) -> MechanismError {
    MechanismError::Setup {
        detail: detail.into(),
    }
}

fn describe_node(node: &MechanismNode) -> Value {
    json!({ "id": node.id, "hostname": node.hostname, "ipaddr": node.ipaddr })
}

/// What a playbook that left these events, this end of its output and this exit status comes to. A door for fuzzing.
#[cfg(feature = "fuzzing")]
pub fn judge_events(events: &[u8], tail: String, code: u8) -> Result<Vec<Value>, MechanismError> {
    use std::os::unix::process::ExitStatusExt as _;

    let output = process::Output {
        status: std::process::ExitStatus::from_raw(i32::from(code) << 8),
        stdout: Vec::new(),
        tail,
    };
    let events = Events::read_from(events).map_err(|error| setup(error.to_string()))?;
    judge_run(Path::new("fuzz.yml"), output, events)
}
