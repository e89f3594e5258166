//! Which pool extends which, and the merged result.

use indexmap::IndexMap;

use crate::decode::{Cursor, nearest};
use crate::merge::merge;
use crate::yaml::{Data, Map};

/// Longer chains than this are a mistake.
const MAX_CHAIN: usize = 100;

/// Resolves which pool extends which.
pub(super) struct Lineage<'a> {
    pools: IndexMap<&'a str, Cursor<'a>>,
    /// The pools that are resolved already, each merged with its parents; `None` after a problem.
    merged: IndexMap<String, Option<Map>>,
    /// The pools that are being merged, each extending the next.
    chain: Vec<String>,
}

type Named<'a> = (&'a str, Cursor<'a>);

impl<'a> Lineage<'a> {
    pub(super) fn new(abstracts: &[Named<'a>], concrete: &[Named<'a>]) -> Self {
        let mut pools = IndexMap::new();
        for (name, at) in abstracts.iter().chain(concrete) {
            if let Some(earlier) = pools.insert(*name, at.clone()) {
                at.refuse::<()>(format!(
                    "there is a pool of this name already, at {}; rename one",
                    earlier.mark
                ));
            }
        }
        let mut lineage = Self {
            pools,
            merged: IndexMap::new(),
            chain: Vec::new(),
        };
        // Unused abstract pools are checked too.
        for (name, _) in abstracts {
            lineage.resolve(name);
        }
        lineage
    }

    /// Merges a pool with all pools that it extends, without `extends` itself. Later parents override earlier ones, and the
    /// pool's own values override all.
    pub(super) fn resolve(&mut self, name: &str) -> Option<Map> {
        if let Some(known) = self.merged.get(name) {
            return known.clone();
        }
        let at = self.pools.get(name)?.clone();
        self.chain.push(name.to_owned());
        let merged = self.merge_parents(&at);
        self.chain.pop();
        self.merged.insert(name.to_owned(), merged.clone());
        merged
    }

    fn merge_parents(&mut self, at: &Cursor<'a>) -> Option<Map> {
        let Data::Map(own) = &at.node.data else {
            return None;
        };
        let mut merged = Map::new();
        for (name, parent) in parents(at, own)? {
            let base = self.resolve_parent(name, &parent)?;
            join(&mut merged, &base, at)?;
        }
        let mut own = own.clone();
        own.shift_remove("extends");
        join(&mut merged, &own, at)?;
        Some(merged)
    }

    fn resolve_parent(&mut self, name: &str, at: &Cursor<'a>) -> Option<Map> {
        if !self.pools.contains_key(name) {
            let known: Vec<_> = self.pools.keys().copied().collect();
            let hint = nearest(name, &known).map_or_else(
                || format!("known: {}", known.join(", ")),
                |near| format!("did you mean {near}?"),
            );
            return at.refuse(format!("there is no pool {name:?} to extend; {hint}"));
        }
        if let Some(start) = self.chain.iter().position(|link| link == name) {
            let circle = self.chain[start..].join(" → ");
            return at.refuse(format!(
                "pools extend one another in a circle: {circle} → {name}; remove one link"
            ));
        }
        if self.chain.len() >= MAX_CHAIN {
            return at.refuse(format!(
                "more than {MAX_CHAIN} pools extend one another in a row; use fewer"
            ));
        }
        self.resolve(name)
    }
}

fn join(into: &mut Map, from: &Map, at: &Cursor<'_>) -> Option<()> {
    let Err(problem) = merge(into, from, &at.path) else {
        return Some(());
    };
    let mut problems = at.report.problems.borrow_mut();
    // Each pool that extends the same parent finds the parent's conflict; one report is enough.
    if !problems.contains(&problem) {
        problems.push(problem);
    }
    None
}

/// Returns the names that a pool extends, with their positions.
fn parents<'a>(at: &Cursor<'a>, own: &'a Map) -> Option<Vec<Named<'a>>> {
    let Some(entry) = own.get("extends") else {
        return Some(Vec::new());
    };
    let extends = at.below("extends", entry);
    match &entry.value.data {
        Data::Null => Some(Vec::new()),
        Data::Text(name) if name.is_empty() => Some(Vec::new()),
        Data::Text(name) => Some(vec![(name, extends)]),
        Data::List(_) => {
            let items = extends.items()?.into_iter();
            items.map(|item| Some((item.text()?, item))).collect()
        }
        _ => extends.refuse("must be the name of a pool, or a list of names"),
    }
}
