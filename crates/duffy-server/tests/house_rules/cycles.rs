//! Finds cycles: files of a crate that use each other's items, directly or through other files.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;

/// The files of a crate by their modules.
#[derive(Default)]
struct Crate<'a>(BTreeMap<&'a [String], &'a Source>);

/// For each file, the files whose items it uses, with the first line of a use.
type Uses<'a> = BTreeMap<&'a str, BTreeMap<&'a str, usize>>;

/// Returns all cycles: the names of their files, and a line for each use.
pub fn find(sources: &[Source]) -> BTreeMap<String, String> {
    let mut crates: BTreeMap<&str, Crate> = BTreeMap::new();
    for source in sources {
        if let Some((name, _)) = source.path.split_once("/src/") {
            let files = &mut crates.entry(name).or_default().0;
            files.insert(&source.module, source);
        }
    }
    let mut cycles = BTreeMap::new();
    for (name, files) in crates {
        let uses = files.uses();
        for file in uses.keys() {
            let cycle: BTreeSet<&str> = reach(&uses, file)
                .into_iter()
                .filter(|other| reach(&uses, other).contains(file))
                .collect();
            if cycle.is_empty() {
                continue;
            }
            let name = cycle
                .iter()
                .fold(name.replace("crates/", "") + ":", |text, file| {
                    text + " " + file.split_once("/src/").unwrap().1
                });
            let within = cycle.iter().flat_map(|from| {
                let to = uses[from].iter().filter(|(to, _)| cycle.contains(*to));
                to.map(move |(to, line)| format!("  {from}:{line}: uses {to}\n"))
            });
            cycles.insert(name, within.collect());
        }
    }
    cycles
}

fn reach<'a>(uses: &Uses<'a>, from: &'a str) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        open.extend(uses[file].keys().filter(|to| found.insert(**to)));
    }
    found
}

impl<'a> Crate<'a> {
    /// A `mod` item does not count as a use, and neither does a `pub use` of something below the file. A name that goes through
    /// a re-export counts as a use of the file that defines the item. Tests do not count. Method calls are not visible.
    fn uses(&self) -> Uses<'a> {
        let mut uses = Uses::new();
        for file in self.0.values() {
            let to = uses.entry(&file.path).or_default();
            for name in file.names.iter().filter(|name| !name.in_test) {
                if let Some(other) = self.follow(file, &name.path, 0)
                    && other.path != file.path
                    && !(name.reexported && other.module.starts_with(&file.module))
                {
                    to.entry(other.path.as_str()).or_insert(name.line);
                }
            }
        }
        uses
    }

    /// Returns the file that defines the item at `path`, as seen from a file.
    fn follow(&self, from: &Source, path: &[String], depth: u8) -> Option<&'a Source> {
        let (first, rest) = path.split_first()?;
        if first == "crate" {
            return self.find(rest, depth);
        }
        let inside = [&from.module[..], path].concat();
        let is_module = !rest.is_empty() && self.0.contains_key(&inside[..=from.module.len()]);
        (is_module || from.uses.contains_key(first)).then(|| self.find(&inside, depth))?
    }

    /// Returns the file that defines the item at a path from the root of the crate.
    fn find(&self, path: &[String], depth: u8) -> Option<&'a Source> {
        let mut file = *self.0.get(&[][..])?;
        for (index, part) in path.iter().enumerate() {
            if let Some(inner) = self.0.get(&path[..=index]) {
                file = inner;
            } else if let Some(target) = file.uses.get(part).filter(|_| depth < 9) {
                let path = [&target[..], &path[index + 1..]].concat();
                return self.follow(file, &path, depth + 1);
            } else {
                break;
            }
        }
        Some(file)
    }
}
