//! `nodepools`: which pools there are, what they inherit, and how their nodes are made.

mod inherit;
mod mechanism;

use std::fmt;

use indexmap::{IndexMap, IndexSet};
use serde_json::{Map as JsonMap, Value};

pub use mechanism::{Ansible, Mechanism, Playbook, Simulated};

use super::decode_count;
use crate::decode::{Cursor, Fields, Report, nearest};
use crate::template::{self, Rendered, TemplateError};
use crate::yaml::{Data, Entry, Map, map_to_json};

/// The `nodepools` section, with inheritance resolved.
#[derive(Debug, Clone)]
pub struct NodePools {
    pools: IndexMap<String, Pool>,
    abstract_names: IndexSet<String>,
}

/// A pool that has nodes, with all that it inherits.
#[derive(Clone)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How many ready nodes it is kept at; `None` if it is not filled.
    pub fill_level: Option<u32>,
    /// Whether its nodes are provisioned one by one at the same time, rather than as one batch.
    pub run_parallel: bool,
    /// What an unused node's data must say to be used again here; `None` if nodes are not reused.
    pub reuse_nodes: Option<IndexMap<String, ReuseValue>>,
    /// How its nodes are made and done away with.
    pub mechanism: Mechanism,
    /// All of the pool as templates see it, with its name and with keys that Duffy does not know.
    pub vars: JsonMap<String, Value>,
}

/// What a field of a node's data must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReuseValue {
    /// This number.
    Number(i64),
    /// What this template gives.
    Template(String),
}

/// Variables whose templates are rendered, by name.
pub type RenderedVars = IndexMap<String, RenderedVar>;

/// A variable whose templates are rendered.
#[derive(Debug, Clone, PartialEq)]
pub enum RenderedVar {
    /// What a template gave.
    Text(Rendered),
    /// A mapping with more of them.
    Mapping(RenderedVars),
    /// A number, a list or the like, as it stands in the configuration.
    Plain(Value),
}

/// Without the values, which can contain secrets.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl NodePools {
    /// The pools that have nodes, in the order of the configuration.
    pub fn concrete(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    /// The pool of this name, if it has nodes.
    pub fn get(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    /// Whether this name is that of a pool that others inherit from only.
    pub fn is_abstract(&self, name: &str) -> bool {
        self.abstract_names.contains(name)
    }

    pub(crate) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let fields = cursor.fields(report, &["abstract", "concrete"])?;
        let concrete = fields.read_required(report, "concrete", Cursor::entries);
        let abstracts = fields.get("abstract").map(|at| at.entries(report));
        let problems_before = report.problems.len();
        let (concrete, abstracts) = (concrete?, abstracts.unwrap_or_else(|| Some(Vec::new()))?);
        for (_, pool) in abstracts.iter().chain(&concrete) {
            check_pool(pool, report);
        }
        if report.problems.len() > problems_before {
            return None;
        }
        let mut pools = IndexMap::new();
        let mut lineage = inherit::Lineage::new(&abstracts, &concrete, report);
        for (name, at) in &concrete {
            let Some(merged) = lineage.resolve(name, report) else {
                continue;
            };
            if let Some(pool) = Pool::decode(name, at, &merged, report) {
                pools.insert((*name).to_owned(), pool);
            }
        }
        let abstract_names = abstracts
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        Some(Self {
            pools,
            abstract_names,
        })
    }
}

const POOL_KEYS: [&str; 5] = [
    "extends",
    "mechanism",
    "fill-level",
    "reuse-nodes",
    "run-parallel",
];

/// Checks one pool by itself, as it stands in the file. Other keys than the known ones are for templates.
fn check_pool(cursor: &Cursor<'_>, report: &mut Report) {
    let Some(entries) = cursor.entries(report) else {
        return;
    };
    for (key, at) in &entries {
        if *key == "name" {
            at.refuse::<()>(
                report,
                "a pool's name is the key that it stands under; remove this",
            );
        } else if !POOL_KEYS.contains(key)
            && let Some(near) = nearest(key, &POOL_KEYS)
        {
            at.warn(
                report,
                format!("this is passed on to templates only; did you mean {near}?"),
            );
        }
    }
    if let Some(fields) = cursor.open_fields(report) {
        decode_plain_keys(&fields, report);
        fields.read(report, "mechanism", mechanism::check);
    }
}

struct PlainKeys {
    fill_level: Option<u32>,
    run_parallel: Option<bool>,
    reuse_nodes: Option<IndexMap<String, ReuseValue>>,
}

fn decode_plain_keys(fields: &Fields<'_>, report: &mut Report) -> PlainKeys {
    PlainKeys {
        fill_level: fields.read(report, "fill-level", |at, report| {
            decode_count(at, report, 1)
        }),
        run_parallel: fields.read(report, "run-parallel", Cursor::boolean),
        reuse_nodes: fields.read(report, "reuse-nodes", decode_reuse),
    }
}

fn decode_reuse(cursor: &Cursor<'_>, report: &mut Report) -> Option<IndexMap<String, ReuseValue>> {
    match &cursor.node.data {
        Data::Bool(false) | Data::Int(0) => return None,
        Data::Float(value) if *value == 0.0 => return None,
        Data::Map(_) => {}
        _ => {
            return cursor.refuse(
                report,
                "must be false, or a mapping of a node's data to values, such as arch: x86_64",
            );
        }
    }
    let mut wanted = IndexMap::new();
    for (key, at) in cursor.entries(report)? {
        let value = if let Data::Text(text) = &at.node.data {
            template::check(&at, text, report);
            ReuseValue::Template(text.clone())
        } else if let Some(number) = at
            .as_integer()
            .and_then(|number| i64::try_from(number).ok())
        {
            ReuseValue::Number(number)
        } else {
            at.refuse::<()>(report, "must be text or a whole number");
            continue;
        };
        wanted.insert(key.to_owned(), value);
    }
    // Nothing to compare means no reuse, as an empty mapping did in the original.
    Some(wanted).filter(|wanted| !wanted.is_empty())
}

impl Pool {
    fn decode(name: &str, own: &Cursor<'_>, merged: &Map, report: &mut Report) -> Option<Self> {
        let entry = Entry {
            key_mark: own.mark.clone(),
            is_text: true,
            value: crate::yaml::Node {
                data: Data::Map(merged.clone()),
                mark: own.node.mark.clone(),
            },
        };
        let fields = Cursor::new(&entry, own.path.clone()).open_fields(report)?;
        let plain = decode_plain_keys(&fields, report);
        let Some(at) = fields.get("mechanism") else {
            return own.refuse(report, "the key mechanism is missing here and in what this pool extends; add mechanism: {type: ansible, …}");
        };
        let mechanism = Mechanism::decode(&at, report)?;
        let mut vars = JsonMap::new();
        vars.insert("name".into(), name.into());
        vars.extend(map_to_json(merged));
        Some(Self {
            name: name.to_owned(),
            fill_level: plain.fill_level,
            run_parallel: plain.run_parallel.unwrap_or(true),
            reuse_nodes: plain.reuse_nodes,
            mechanism,
            vars,
        })
    }

    /// What a template gives with this pool's values, of which `overrides` hides those of the same name.
    ///
    /// # Errors
    /// The template is wrong, or uses what is not there.
    pub fn render(
        &self,
        text: &str,
        overrides: &JsonMap<String, Value>,
    ) -> Result<String, TemplateError> {
        template::render_layered(text, &self.vars, overrides).map(|rendered| rendered.text)
    }

    /// The same for all texts in a mapping and in mappings inside it. Lists stay as they are, as in the original.
    ///
    /// # Errors
    /// The first template that is wrong.
    pub fn render_vars(
        &self,
        vars: &JsonMap<String, Value>,
        overrides: &JsonMap<String, Value>,
    ) -> Result<RenderedVars, TemplateError> {
        let render = |value: &Value| {
            Ok(match value {
                Value::String(text) => {
                    RenderedVar::Text(template::render_layered(text, &self.vars, overrides)?)
                }
                Value::Object(map) => RenderedVar::Mapping(self.render_vars(map, overrides)?),
                other => RenderedVar::Plain(other.clone()),
            })
        };
        vars.iter()
            .map(|(key, value)| Ok((key.clone(), render(value)?)))
            .collect()
    }
}
