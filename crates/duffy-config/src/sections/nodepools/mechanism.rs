//! `mechanism`: how a pool's nodes are provisioned and deprovisioned.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map as JsonMap, Value};

use crate::decode::{Cursor, Fields};
use crate::yaml::{Data, map_to_json};

/// How nodes are provisioned and deprovisioned.
#[derive(Debug, Clone)]
pub enum Mechanism {
    /// By Ansible playbooks.
    Ansible(Box<Ansible>),
    /// As simulated nodes in the worker itself. An addition to the original.
    Simulated(Simulated),
}

/// Settings of the mechanism `ansible`. The last two fields are additions to the original.
#[derive(Clone)]
pub struct Ansible {
    /// Directory of the playbooks, in which they run; relative to the current directory.
    pub topdir: PathBuf,
    /// Variables for all playbooks, with templates in them.
    pub extra_vars: JsonMap<String, Value>,
    /// Provisions nodes.
    pub provision: Option<Playbook>,
    /// Deprovisions nodes; `None` if there is nothing to do.
    pub deprovision: Option<Playbook>,
    /// Timeout of one playbook run.
    pub timeout: Duration,
    /// The program; a bare name is looked up in PATH.
    pub ansible_playbook: PathBuf,
}

/// One playbook.
#[derive(Clone)]
pub struct Playbook {
    /// The file; relative to `topdir`.
    pub playbook: PathBuf,
    /// Variables for this playbook, with templates in them.
    pub extra_vars: JsonMap<String, Value>,
}

/// Without the variables, which can contain secrets.
impl fmt::Debug for Ansible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ansible")
            .field("topdir", &self.topdir)
            .field("provision", &self.provision)
            .field("deprovision", &self.deprovision)
            .finish_non_exhaustive()
    }
}

/// Without the variables, which can contain secrets.
impl fmt::Debug for Playbook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Playbook")
            .field("playbook", &self.playbook)
            .finish_non_exhaustive()
    }
}

impl Ansible {
    /// Returns the variables for one of its playbooks: those for all, overridden by the playbook's own. Templates are not
    /// rendered.
    pub fn extra_vars_for(&self, playbook: &Playbook) -> JsonMap<String, Value> {
        let mut vars = self.extra_vars.clone();
        vars.extend(playbook.extra_vars.clone());
        vars
    }
}

/// Settings of the mechanism `simulated`.
#[derive(Debug, Clone, Default)]
pub struct Simulated {
    /// How long provisioning takes.
    pub provision_delay: Duration,
    /// How long deprovisioning takes.
    pub deprovision_delay: Duration,
    /// Probability that provisioning fails, from 0 to 1.
    pub provision_failure_rate: f64,
    /// Probability that deprovisioning fails, from 0 to 1.
    pub deprovision_failure_rate: f64,
    /// How long a node waits before it responds to an SSH connection.
    pub ssh_delay: Duration,
    /// Probability that an SSH connection fails, from 0 to 1.
    pub ssh_failure_rate: f64,
    /// Template of the nodes' host names.
    pub hostname: Option<String>,
    /// Where nodes keep their files; `None` leaves it to the worker.
    pub directory: Option<PathBuf>,
}

#[derive(Clone, Copy)]
enum Kind {
    Ansible,
    Simulated,
}

/// Checks one pool's own settings. Missing settings may be inherited.
pub(super) fn check(cursor: &Cursor<'_>) -> Option<()> {
    cursor.section(|fields| {
        fields.read("type", decode_kind);
        fields.read("ansible", |at| decode_ansible(at, false));
        fields.read("simulated", decode_simulated);
        Some(())
    })
}

fn decode_kind(cursor: &Cursor<'_>) -> Option<Kind> {
    cursor.choice(&[("ansible", Kind::Ansible), ("simulated", Kind::Simulated)])
}

impl Mechanism {
    /// Decodes a pool's mechanism, including inherited settings. [`check`] has refused unknown keys.
    pub(super) fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        let fields = cursor.fields()?;
        Some(match fields.read_required("type", decode_kind)? {
            Kind::Ansible => {
                let ansible = fields.read_required("ansible", |at| decode_ansible(at, true))?;
                Self::Ansible(Box::new(ansible))
            }
            Kind::Simulated => {
                Self::Simulated(fields.read_or("simulated", Simulated::default(), decode_simulated))
            }
        })
    }
}

fn decode_ansible(cursor: &Cursor<'_>, complete: bool) -> Option<Ansible> {
    cursor.section(|fields| {
        let topdir = fields.read("topdir", Cursor::path_name);
        let extra_vars = decode_extra_vars(fields);
        let provision = fields.read("provision", |at| decode_playbook(at, complete));
        let deprovision = fields.read("deprovision", |at| decode_playbook(at, complete));
        if complete && topdir.is_none() {
            cursor.warn(
                "the key topdir is missing; playbooks are looked for in the current directory",
            );
        }
        if complete && provision.is_none() {
            cursor.warn("the key provision is missing; this pool cannot get nodes");
        }
        let timeout = |at: &Cursor<'_>| at.duration(Duration::from_secs(1));
        Some(Ansible {
            topdir: topdir.unwrap_or_else(|| ".".into()),
            extra_vars,
            provision,
            deprovision,
            timeout: fields.read_or("timeout", Duration::from_hours(1), timeout),
            ansible_playbook: fields
                .read("ansible-playbook", Cursor::path_name)
                .unwrap_or_else(|| "ansible-playbook".into()),
        })
    })
}

fn decode_playbook(cursor: &Cursor<'_>, complete: bool) -> Option<Playbook> {
    cursor.section(|fields| {
        let extra_vars = decode_extra_vars(fields);
        let at = if complete {
            fields.require("playbook")
        } else {
            fields.get("playbook")
        };
        Some(Playbook {
            playbook: at?.path_name()?,
            extra_vars,
        })
    })
}

fn decode_extra_vars(fields: &Fields<'_>) -> JsonMap<String, Value> {
    let vars = fields.read("extra-vars", |at| {
        for (_, variable) in at.entries()? {
            check_templates(&variable);
        }
        at.map().map(map_to_json)
    });
    vars.unwrap_or_default()
}

/// Checks the texts that are rendered later: those in mappings, not those in lists.
fn check_templates(cursor: &Cursor<'_>) {
    match &cursor.node.data {
        Data::Text(text) => cursor.check_template(text),
        Data::Map(map) => {
            for (key, entry) in map {
                check_templates(&cursor.below(key, entry));
            }
        }
        _ => {}
    }
}

fn decode_simulated(cursor: &Cursor<'_>) -> Option<Simulated> {
    cursor.section(|fields| {
        let delay = |key| {
            fields
                .read(key, |at| at.duration(Duration::ZERO))
                .unwrap_or_default()
        };
        let rate = |key| {
            fields
                .read(key, |at| at.number(0.0..=1.0))
                .unwrap_or_default()
        };
        Some(Simulated {
            provision_delay: delay("provision-delay"),
            deprovision_delay: delay("deprovision-delay"),
            provision_failure_rate: rate("provision-failure-rate"),
            deprovision_failure_rate: rate("deprovision-failure-rate"),
            ssh_delay: delay("ssh-delay"),
            ssh_failure_rate: rate("ssh-failure-rate"),
            hostname: fields.read("hostname", Cursor::template),
            directory: fields.read("directory", Cursor::path_name),
        })
    })
}
