//! `nodepools`: the pools, what they inherit, and how their nodes are provisioned.

mod inherit;
mod mechanism;

use std::fmt;

use indexmap::{IndexMap, IndexSet};
use serde_json::{Map as JsonMap, Value};

pub use mechanism::{Ansible, Mechanism, Playbook, Simulated};

use crate::decode::{Cursor, Fields, nearest};
use crate::template::{self, Rendered, TemplateError};
use crate::yaml::{Data, Map, Node, map_to_json};

/// The `nodepools` section, with inheritance resolved.
#[derive(Debug, Clone)]
pub struct NodePools {
    pools: IndexMap<String, Pool>,
    abstract_names: IndexSet<String>,
}

/// A pool that has nodes, with all inherited settings.
#[derive(Clone)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How many nodes are kept ready; `None` if the pool is not filled.
    pub fill_level: Option<u32>,
    /// Whether its nodes are provisioned individually in parallel, not as one batch.
    pub run_parallel: bool,
    /// Values that an unused node's data must have to be used in this pool; `None` if nodes are not reused.
    pub reuse_nodes: Option<IndexMap<String, ReuseValue>>,
    /// How its nodes are provisioned and deprovisioned.
    pub mechanism: Mechanism,
    /// The variables for templates: all keys of the pool, also unknown ones, and its name.
    pub vars: JsonMap<String, Value>,
}

/// A required value in a node's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReuseValue {
    /// This number.
    Number(i64),
    /// The text that this template renders to.
    Template(String),
}

/// Variables with rendered templates, by name.
pub type RenderedVars = IndexMap<String, RenderedVar>;

/// A variable with rendered templates.
#[derive(Debug, Clone, PartialEq)]
pub enum RenderedVar {
    /// A rendered template.
    Text(Rendered),
    /// A mapping of more variables.
    Mapping(RenderedVars),
    /// Any other value, as configured.
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
    /// Returns the pools that have nodes, in the order of the configuration.
    pub fn concrete(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    /// Returns the pool of this name, if it has nodes.
    pub fn get(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    /// Whether this is the name of a pool from which others inherit and which has no nodes.
    pub fn is_abstract(&self, name: &str) -> bool {
        self.abstract_names.contains(name)
    }

    pub(crate) fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        let (abstracts, concrete) = cursor.section(|fields| {
            let concrete = fields.read_required("concrete", Cursor::entries);
            let abstracts = fields.get("abstract").map(|at| at.entries());
            Some((abstracts.unwrap_or_else(|| Some(Vec::new()))?, concrete?))
        })?;
        let problem_count = || cursor.report.problems.borrow().len();
        let problems_before = problem_count();
        for (_, pool) in abstracts.iter().chain(&concrete) {
            check_pool(pool);
        }
        if problem_count() > problems_before {
            return None;
        }
        let mut lineage = inherit::Lineage::new(&abstracts, &concrete);
        let mut pools = IndexMap::new();
        for (name, at) in &concrete {
            let merged = lineage.resolve(name);
            if let Some(pool) = merged.and_then(|merged| Pool::decode(name, at, merged)) {
                pools.insert(pool.name.clone(), pool);
            }
        }
        let abstract_names = abstracts.iter().map(|(name, _)| (*name).to_owned());
        Some(Self {
            pools,
            abstract_names: abstract_names.collect(),
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

/// Checks one pool by itself, as written in the file. Unknown keys are for templates.
fn check_pool(cursor: &Cursor<'_>) {
    let Some(entries) = cursor.entries() else {
        return;
    };
    for (key, at) in &entries {
        if *key == "name" {
            at.refuse::<()>("a pool's name is the key of its mapping; remove this");
        } else if !POOL_KEYS.contains(key)
            && let Some(near) = nearest(key, &POOL_KEYS)
        {
            at.warn(format!(
                "this is passed on to templates only; did you mean {near}?"
            ));
        }
    }
    if let Some(fields) = cursor.fields() {
        decode_plain_keys(&fields);
        fields.read("mechanism", mechanism::check);
    }
}

/// The fill level, whether nodes are provisioned in parallel, and the values of reusable nodes.
type PlainKeys = (Option<u32>, Option<bool>, Option<ReuseValues>);
type ReuseValues = IndexMap<String, ReuseValue>;

fn decode_plain_keys(fields: &Fields<'_>) -> PlainKeys {
    (
        fields.read("fill-level", |at| at.count(1)),
        fields.read("run-parallel", Cursor::boolean),
        fields.read("reuse-nodes", decode_reuse),
    )
}

fn decode_reuse(cursor: &Cursor<'_>) -> Option<ReuseValues> {
    match &cursor.node.data {
        Data::Bool(false) | Data::Int(0) | Data::Float(0.0) => return None,
        Data::Map(_) => {}
        _ => {
            return cursor.refuse(
                "must be false, or a mapping of a node's data to values, such as arch: x86_64",
            );
        }
    }
    let mut values = IndexMap::new();
    for (key, at) in cursor.entries()? {
        let value = if let Data::Text(text) = &at.node.data {
            at.check_template(text);
            Some(ReuseValue::Template(text.clone()))
        } else {
            let number = at.as_integer().and_then(|number| number.try_into().ok());
            number.map(ReuseValue::Number)
        };
        let value = value.or_else(|| at.refuse("must be text or a whole number"));
        values.extend(value.map(|value| (key.to_owned(), value)));
    }
    // An empty mapping means that nodes are not reused, as in the original.
    Some(values).filter(|values| !values.is_empty())
}

impl Pool {
    fn decode(name: &str, own: &Cursor<'_>, merged: Map) -> Option<Self> {
        let vars = [("name".to_owned(), name.into())];
        let vars = vars.into_iter().chain(map_to_json(&merged)).collect();
        let node = Node {
            data: Data::Map(merged),
            mark: own.node.mark.clone(),
        };
        let cursor = Cursor {
            node: &node,
            ..own.clone()
        };
        let fields = cursor.fields()?;
        let (fill_level, run_parallel, reuse_nodes) = decode_plain_keys(&fields);
        let Some(at) = fields.get("mechanism") else {
            return own.refuse("the key mechanism is missing here and in what this pool extends; add mechanism: {type: ansible, …}");
        };
        Some(Self {
            name: name.to_owned(),
            fill_level,
            run_parallel: run_parallel.unwrap_or(true),
            reuse_nodes,
            mechanism: Mechanism::decode(&at)?,
            vars,
        })
    }

    /// Renders a template with this pool's variables. Those in `overrides` take precedence.
    ///
    /// # Errors
    /// The template is wrong, or uses a member of an undefined variable.
    pub fn render(
        &self,
        text: &str,
        overrides: &JsonMap<String, Value>,
    ) -> Result<String, TemplateError> {
        template::render_layered(text, &self.vars, overrides).map(|rendered| rendered.text)
    }

    /// Renders all texts in a mapping and in mappings inside it. Lists stay as they are, as in the original.
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
