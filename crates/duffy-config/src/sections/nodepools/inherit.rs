//! Which pool extends which, and what comes of it.

use indexmap::IndexMap;

use crate::decode::{Cursor, Report, nearest};
use crate::error::ConfigError;
use crate::merge::merge;
use crate::yaml::{Data, Map};

/// Longer chains than this are a mistake.
const MAX_CHAIN: usize = 100;

/// All pools by name, and those that are merged already.
pub(super) struct Lineage<'a> {
    pools: IndexMap<&'a str, Cursor<'a>>,
    merged: IndexMap<String, Option<Map>>,
    /// The pools that are being merged, each extending the next.
    chain: Vec<String>,
}

type Named<'a> = (&'a str, Cursor<'a>);

impl<'a> Lineage<'a> {
    pub(super) fn new(
        abstracts: &[Named<'a>],
        concrete: &[Named<'a>],
        report: &mut Report,
    ) -> Self {
        let mut pools = IndexMap::new();
        for (name, at) in abstracts.iter().chain(concrete) {
            if let Some(earlier) = pools.insert(*name, at.clone()) {
                at.refuse::<()>(
                    report,
                    format!(
                        "there is a pool of this name already, at {}; rename one",
                        earlier.mark
                    ),
                );
            }
        }
        let mut lineage = Self {
            pools,
            merged: IndexMap::new(),
            chain: Vec::new(),
        };
        // Abstract pools that nobody uses must be sound too.
        for (name, _) in abstracts {
            lineage.resolve(name, report);
        }
        lineage
    }

    /// A pool with all that it extends, without `extends` itself; later ones win over earlier, its own over all.
    pub(super) fn resolve(&mut self, name: &str, report: &mut Report) -> Option<Map> {
        if let Some(known) = self.merged.get(name) {
            return known.clone();
        }
        let at = self.pools.get(name)?.clone();
        self.chain.push(name.to_owned());
        let merged = self.merge_parents(&at, report);
        self.chain.pop();
        self.merged.insert(name.to_owned(), merged.clone());
        merged
    }

    fn merge_parents(&mut self, at: &Cursor<'a>, report: &mut Report) -> Option<Map> {
        let Data::Map(own) = &at.node.data else {
            return None;
        };
        let mut merged = Map::new();
        for parent in parents(at, own, report)? {
            let base = self.resolve_parent(&parent, report)?;
            join(&mut merged, &base, at, report)?;
        }
        let mut own = own.clone();
        own.shift_remove("extends");
        join(&mut merged, &own, at, report)?;
        Some(merged)
    }

    fn resolve_parent(
        &mut self,
        (name, at): &(String, Cursor<'a>),
        report: &mut Report,
    ) -> Option<Map> {
        if !self.pools.contains_key(name.as_str()) {
            let known: Vec<_> = self.pools.keys().copied().collect();
            let hint = nearest(name, &known).map_or_else(
                || format!("known: {}", known.join(", ")),
                |near| format!("did you mean {near}?"),
            );
            return at.refuse(
                report,
                format!("there is no pool {name:?} to extend; {hint}"),
            );
        }
        if let Some(start) = self.chain.iter().position(|link| link == name) {
            let circle = self.chain[start..].join(" → ");
            return at.refuse(
                report,
                format!("pools extend one another in a circle: {circle} → {name}; remove one link"),
            );
        }
        if self.chain.len() >= MAX_CHAIN {
            return at.refuse(
                report,
                format!("more than {MAX_CHAIN} pools extend one another in a row; use fewer"),
            );
        }
        self.resolve(name, report)
    }
}

fn join(into: &mut Map, from: &Map, at: &Cursor<'_>, report: &mut Report) -> Option<()> {
    match merge(into, from, &at.path) {
        Ok(()) => Some(()),
        Err(ConfigError::Conflict(problem)) => {
            // A parent's conflict is seen by each of its heirs: once is enough.
            if !report.problems.contains(&problem) {
                report.problems.push(problem);
            }
            None
        }
        Err(other) => at.refuse(report, other.to_string()),
    }
}

/// The names that a pool extends, with their places.
fn parents<'a>(
    at: &Cursor<'a>,
    own: &'a Map,
    report: &mut Report,
) -> Option<Vec<(String, Cursor<'a>)>> {
    let Some(entry) = own.get("extends") else {
        return Some(Vec::new());
    };
    let extends = Cursor::new(entry, format!("{}.extends", at.path));
    match &entry.value.data {
        Data::Null => Some(Vec::new()),
        Data::Text(name) if name.is_empty() => Some(Vec::new()),
        Data::Text(name) => Some(vec![(name.clone(), extends)]),
        Data::List(_) => extends
            .items(report)?
            .into_iter()
            .map(|item| item.owned_text(report).map(|name| (name, item)))
            .collect(),
        _ => extends.refuse(report, "must be the name of a pool, or a list of names"),
    }
}
