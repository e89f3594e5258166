//! `mechanism`: how a pool's nodes are made and done away with.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map as JsonMap, Value};

use crate::decode::{Cursor, Fields, Report};
use crate::sections::decode_template;
use crate::template;
use crate::yaml::{Data, map_to_json};

/// How nodes are made and done away with.
#[derive(Debug, Clone)]
pub enum Mechanism {
    /// By Ansible playbooks.
    Ansible(Box<Ansible>),
    /// Pretended nodes in the worker itself. An addition to the original.
    Simulated(Simulated),
}

/// Settings of the mechanism `ansible`.
#[derive(Clone)]
pub struct Ansible {
    /// Directory that playbooks are in and run in; a relative one counts from the current directory.
    pub topdir: PathBuf,
    /// Variables for all playbooks, with templates in them.
    pub extra_vars: JsonMap<String, Value>,
    /// What makes nodes.
    pub provision: Option<Playbook>,
    /// What does away with nodes; without it there is nothing to do.
    pub deprovision: Option<Playbook>,
    /// How long one playbook may run. An addition to the original.
    pub timeout: Duration,
    /// The program; a bare name is looked for in PATH. An addition to the original.
    pub ansible_playbook: PathBuf,
}

/// One playbook.
#[derive(Clone)]
pub struct Playbook {
    /// The file; a relative one counts from `topdir`.
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
    /// The variables for one of its playbooks: those for all, then the playbook's own, which win. Templates stay.
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
    /// How often provisioning fails, from 0 to 1.
    pub provision_failure_rate: f64,
    /// How often deprovisioning fails, from 0 to 1.
    pub deprovision_failure_rate: f64,
    /// How long a node waits before it answers on SSH.
    pub ssh_delay: Duration,
    /// How often a node refuses SSH, from 0 to 1.
    pub ssh_failure_rate: f64,
    /// Template of nodes' host names.
    pub hostname: Option<String>,
    /// Where nodes keep their files; `None` leaves it to the worker.
    pub directory: Option<PathBuf>,
}

#[derive(Clone, Copy)]
enum Kind {
    Ansible,
    Simulated,
}

/// Checks what one pool says by itself. What is missing may be inherited.
pub(super) fn check(cursor: &Cursor<'_>, report: &mut Report) -> Option<()> {
    let fields = mechanism_fields(cursor, report)?;
    fields.read(report, "type", decode_kind);
    fields.read(report, "ansible", |at, report| {
        decode_ansible(at, false, report)
    });
    fields.read(report, "simulated", decode_simulated);
    Some(())
}

fn decode_kind(cursor: &Cursor<'_>, report: &mut Report) -> Option<Kind> {
    let kinds = [("ansible", Kind::Ansible), ("simulated", Kind::Simulated)];
    cursor.choice(report, &kinds)
}

fn mechanism_fields<'a>(cursor: &Cursor<'a>, report: &mut Report) -> Option<Fields<'a>> {
    cursor.fields(report, &["type", "ansible", "simulated"])
}

impl Mechanism {
    /// Decodes a pool's mechanism with all that it inherits.
    pub(super) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let fields = mechanism_fields(cursor, report)?;
        match fields.read_required(report, "type", decode_kind)? {
            Kind::Ansible => fields
                .read_required(report, "ansible", |at, report| {
                    decode_ansible(at, true, report)
                })
                .map(|ansible| Self::Ansible(Box::new(ansible))),
            Kind::Simulated => match fields.get("simulated") {
                Some(at) => decode_simulated(&at, report).map(Self::Simulated),
                None => Some(Self::Simulated(Simulated::default())),
            },
        }
    }
}

fn decode_ansible(cursor: &Cursor<'_>, complete: bool, report: &mut Report) -> Option<Ansible> {
    let known = &[
        "topdir",
        "extra-vars",
        "provision",
        "deprovision",
        "timeout",
        "ansible-playbook",
    ];
    let fields = cursor.fields(report, known)?;
    let topdir = fields.read(report, "topdir", Cursor::path_name);
    let extra_vars = decode_extra_vars(&fields, report);
    let mut playbook = |key| {
        fields.read(report, key, |at, report| {
            decode_playbook(at, complete, report)
        })
    };
    let (provision, deprovision) = (playbook("provision"), playbook("deprovision"));
    if complete && topdir.is_none() {
        cursor.warn(
            report,
            "the key topdir is missing; playbooks are looked for in the current directory",
        );
    }
    if complete && provision.is_none() {
        cursor.warn(
            report,
            "the key provision is missing; this pool cannot get nodes",
        );
    }
    let timeout = fields.read(report, "timeout", |at, report| {
        at.duration(report, Duration::from_secs(1))
    });
    let program = fields.read(report, "ansible-playbook", Cursor::path_name);
    Some(Ansible {
        topdir: topdir.unwrap_or_else(|| PathBuf::from(".")),
        extra_vars,
        provision,
        deprovision,
        timeout: timeout.unwrap_or(Duration::from_hours(1)),
        ansible_playbook: program.unwrap_or_else(|| PathBuf::from("ansible-playbook")),
    })
}

fn decode_playbook(cursor: &Cursor<'_>, complete: bool, report: &mut Report) -> Option<Playbook> {
    let fields = cursor.fields(report, &["playbook", "extra-vars"])?;
    let extra_vars = decode_extra_vars(&fields, report);
    let at = if complete {
        fields.require(report, "playbook")
    } else {
        fields.get("playbook")
    };
    let playbook = at.and_then(|at| at.path_name(report))?;
    Some(Playbook {
        playbook,
        extra_vars,
    })
}

fn decode_extra_vars(fields: &Fields<'_>, report: &mut Report) -> JsonMap<String, Value> {
    let Some(at) = fields.get("extra-vars") else {
        return JsonMap::new();
    };
    let entries = at.entries(report).unwrap_or_default();
    for (_, variable) in &entries {
        check_templates(variable, report);
    }
    at.map(report).map(map_to_json).unwrap_or_default()
}

/// Checks the texts that are rendered later: those in mappings, not those in lists.
fn check_templates(cursor: &Cursor<'_>, report: &mut Report) {
    match &cursor.node.data {
        Data::Text(text) => template::check(cursor, text, report),
        Data::Map(map) => {
            for (key, entry) in map {
                check_templates(
                    &Cursor::new(entry, format!("{}.{key}", cursor.path)),
                    report,
                );
            }
        }
        _ => {}
    }
}

fn decode_simulated(cursor: &Cursor<'_>, report: &mut Report) -> Option<Simulated> {
    let known = &[
        "provision-delay",
        "deprovision-delay",
        "provision-failure-rate",
        "deprovision-failure-rate",
        "ssh-delay",
        "ssh-failure-rate",
        "hostname",
        "directory",
    ];
    let fields = cursor.fields(report, known)?;
    let mut delay = |key| {
        let delay = fields.read(report, key, |at, report| {
            at.duration(report, Duration::ZERO)
        });
        delay.unwrap_or_default()
    };
    let (provision_delay, deprovision_delay) =
        (delay("provision-delay"), delay("deprovision-delay"));
    let ssh_delay = delay("ssh-delay");
    let mut rate = |key| {
        let rate = fields.read(report, key, |at, report| at.number(report, 0.0..=1.0));
        rate.unwrap_or_default()
    };
    let provision_failure_rate = rate("provision-failure-rate");
    let deprovision_failure_rate = rate("deprovision-failure-rate");
    let ssh_failure_rate = rate("ssh-failure-rate");
    let hostname = fields.read(report, "hostname", decode_template);
    let directory = fields.read(report, "directory", Cursor::path_name);
    Some(Simulated {
        provision_delay,
        deprovision_delay,
        provision_failure_rate,
        deprovision_failure_rate,
        ssh_delay,
        ssh_failure_rate,
        hostname,
        directory,
    })
}
