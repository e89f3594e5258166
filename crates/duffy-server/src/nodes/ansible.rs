//! The mechanism `ansible`: playbooks make the machines and take them down.
//!
//! `ansible-playbook` runs a playbook in the configured directory, with `duffy_in` among its extra variables. The
//! playbook gives its result by `set_fact` of `duffy_out`; the last one counts. A small callback (`duffy_events.py`)
//! reports results and failures, next to whatever callbacks the site has.

mod events;
mod outcome;
mod site;
mod vars;
mod workdir;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Instant;

use duffy_config::{Ansible, Playbook, Pool};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::mechanism::{MechanismError, MechanismNode};
use crate::process::{self, ProcessError, Spec, find_program};
use events::Events;
use outcome::judge_run;
use vars::to_yaml;
use workdir::Workdir;
pub use workdir::sweep_workdirs;

/// The variable in which the callback finds its file.
const EVENTS: &str = "DUFFY_ANSIBLE_EVENTS";
const REMEDY: &str = "install ansible-core, or see that ansible-playbook is in the service's PATH";
const NO_PLAYBOOK: &str = "no playbook for provisioning is configured; set provision.playbook";

/// The mechanism `ansible`.
#[derive(Debug)]
pub struct AnsibleMechanism {
    /// Its values can be used in templates of extra variables.
    pub pool: Pool,
    /// Playbooks, and how they run.
    pub settings: Box<Ansible>,
}

impl AnsibleMechanism {
    /// Runs the playbook that makes machines. See [`super::mechanisms::Mechanism::provision`].
    pub async fn provision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        let input: Vec<_> = nodes.iter().map(describe_node).collect();
        if input.is_empty() {
            return Ok(input);
        }
        let playbook = self.settings.provision.as_ref();
        let playbook = playbook.ok_or_else(|| setup(NO_PLAYBOOK))?;
        self.run_playbook("Provision", playbook, input, stop).await
    }

    /// Runs the playbook that takes machines down. See [`super::mechanisms::Mechanism::deprovision`].
    pub async fn deprovision(
        &self,
        nodes: &[MechanismNode],
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        let mut input: Vec<_> = nodes.iter().map(describe_node).collect();
        let Some(playbook) = self
            .settings
            .deprovision
            .as_ref()
            .filter(|_| !nodes.is_empty())
        else {
            // Without a playbook there is nothing to do, and it is done for all nodes.
            return Ok(input);
        };
        for (described, node) in input.iter_mut().zip(nodes) {
            described["data"] = node.data.clone();
        }
        self.run_playbook("Deprovision", playbook, input, stop)
            .await
    }

    /// Says at the start, before any node is touched, what would keep playbooks from running.
    pub fn check(&self) -> Result<(), MechanismError> {
        let settings = &self.settings;
        let (program, topdir) = (&settings.ansible_playbook, &settings.topdir);
        if find_program(program.as_os_str()).is_none() {
            let program = program.display();
            return Err(setup(format!("{program}: program not found; {REMEDY}")));
        }
        if !topdir.is_dir() {
            return Err(setup(format!(
                "topdir {} is not a directory; create it or correct topdir",
                topdir.display()
            )));
        }
        if settings.provision.is_none() {
            return Err(setup(NO_PLAYBOOK));
        }
        let playbooks = [
            ("provision", &settings.provision),
            ("deprovision", &settings.deprovision),
        ];
        for (key, playbook) in playbooks {
            let Some(playbook) = playbook else { continue };
            let path = topdir.join(&playbook.playbook);
            let error = match File::open(&path).and_then(|file| file.metadata()) {
                Ok(meta) if meta.is_file() => continue,
                Ok(_) => io::Error::other("not a file"),
                Err(error) => error,
            };
            return Err(setup(format!(
                "cannot read playbook {}: {error}; correct {key}.playbook or topdir",
                path.display()
            )));
        }
        Ok(())
    }

    async fn run_playbook(
        &self,
        kind: &str,
        playbook: &Playbook,
        nodes: Vec<Value>,
        stop: &CancellationToken,
    ) -> Result<Vec<Value>, MechanismError> {
        let started = Instant::now();
        let count = nodes.len();
        let given = Map::from_iter([("duffy_in".to_owned(), json!({ "nodes": nodes }))]);
        let vars = self.settings.extra_vars_for(playbook);
        let playbook = playbook.playbook.as_path();
        let name = playbook.display();
        let vars = self
            .pool
            .render_vars(&vars, &given)
            .map_err(|error| setup(format!("extra-vars for playbook {name}: {error}")))?;

        let workdir = Workdir::prepare(&to_yaml(&vars, &given)).map_err(|error| {
            setup(format!(
                "cannot prepare a directory in {} for a playbook: {error}; make room or set TMPDIR",
                std::env::temp_dir().display()
            ))
        })?;
        let spec = self.spec(playbook, &workdir)?;
        info!(playbook = %name, kind = %kind, nodes = count, "playbook started");
        let output = process::run(spec, stop)
            .await
            .map_err(|error| match error {
                ProcessError::Deadline { after, tail, .. } => {
                    MechanismError::Deadline { after, log: tail }
                }
                ProcessError::Stopped => MechanismError::Stopped,
                ProcessError::NotFound { .. }
                | ProcessError::Start { .. }
                | ProcessError::Io { .. } => setup(error.to_string()),
            })?;
        let duration_ms = started.elapsed().as_millis() as u64;
        info!(playbook = %name, kind = %kind, nodes = count, duration_ms, status = %output.status, "playbook ended");
        debug!(log = %output.tail, "last lines of the playbook");

        let events =
            Events::read(&workdir.events()).map_err(|error| MechanismError::BadResult {
                detail: format!("playbook {name}: its events cannot be read: {error}"),
                log: output.tail.clone(),
            })?;
        judge_run(playbook, output, events)
    }

    fn spec(&self, playbook: &Path, workdir: &Workdir) -> Result<Spec, MechanismError> {
        // The program and Ansible run in topdir, so a relative path would mean another directory there.
        let topdir = std::path::absolute(&self.settings.topdir).map_err(|error| {
            setup(format!(
                "topdir {}: {error}",
                self.settings.topdir.display()
            ))
        })?;
        let mut vars = OsString::from("@");
        vars.push(workdir.vars());
        let env = |name: &str| std::env::var_os(name);
        let mut spec = Spec::new(&self.settings.ansible_playbook)
            .args(["-e".into(), vars, playbook.as_os_str().to_owned()])
            .env(
                site::CALLBACK_PLUGINS,
                site::callback_dirs(&workdir.callbacks(), &topdir, &env),
            )
            .env(EVENTS, workdir.events())
            .env("ANSIBLE_FORCE_COLOR", "False")
            .env("ANSIBLE_RETRY_FILES_ENABLED", "False");
        // New machines have new keys all the time, and nobody can be asked about them.
        if env("ANSIBLE_HOST_KEY_CHECKING").is_none() {
            spec = spec.env("ANSIBLE_HOST_KEY_CHECKING", "False");
        }
        Ok(Spec {
            cwd: Some(topdir),
            deadline: self.settings.timeout,
            remedy: REMEDY,
            ..spec
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

/// The result of a playbook that left these events, this end of its output and this exit status. For fuzzing.
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
