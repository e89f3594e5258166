//! Deep merge: mappings are joined key by key, anything else is replaced.

use crate::error::Problem;
use crate::yaml::{Data, Entry, Map};

/// Merges `from` into `into`. Values of `from` have precedence.
///
/// # Errors
/// One has a mapping where the other has something else. The message names both positions.
pub(crate) fn merge(into: &mut Map, from: &Map, path: &str) -> Result<(), Problem> {
    for (key, entry) in from {
        let Some(present) = into.get_mut(key) else {
            into.insert(key.clone(), entry.clone());
            continue;
        };
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match (&mut present.value.data, &entry.value.data) {
            (Data::Map(present), Data::Map(added)) => merge(present, added, &path)?,
            (Data::Map(_), _) | (_, Data::Map(_)) => return Err(conflict(path, present, entry)),
            _ => *present = entry.clone(),
        }
    }
    Ok(())
}

fn conflict(path: String, present: &Entry, added: &Entry) -> Problem {
    Problem {
        mark: Some(added.key_mark.clone()),
        path,
        message: format!(
            "this is {}, but {} has {} here, and the two cannot be merged; make both mappings or remove one",
            added.value.describe(),
            present.key_mark,
            present.value.describe()
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Mark;
    use crate::yaml::{Node, map_to_json};

    fn entry(data: Data) -> Entry {
        let mark = Mark::whole("test");
        Entry {
            key_mark: mark.clone(),
            is_text: true,
            value: Node { data, mark },
        }
    }

    /// Mappings of mappings: keys in capitals have mappings as values, others numbers, so that any two can be merged.
    fn maps() -> impl Strategy<Value = Map> {
        let leaf = prop::collection::btree_map("[a-c]", 0..100_i128, 0..4).prop_map(|map| {
            map.into_iter()
                .map(|(key, value)| (key, entry(Data::Int(value))))
                .collect::<Map>()
        });
        leaf.prop_recursive(4, 40, 4, |inner| {
            (
                prop::collection::btree_map("[A-C]", inner, 0..4),
                prop::collection::btree_map("[a-c]", 0..100_i128, 0..3),
            )
                .prop_map(|(maps, numbers)| {
                    let maps = maps
                        .into_iter()
                        .map(|(key, map)| (key, entry(Data::Map(map))));
                    maps.chain(
                        numbers
                            .into_iter()
                            .map(|(key, number)| (key, entry(Data::Int(number)))),
                    )
                    .collect()
                })
        })
    }

    fn merged(parts: &[&Map]) -> Map {
        let mut result = Map::new();
        for part in parts {
            merge(&mut result, part, "").unwrap();
        }
        result
    }

    proptest! {
        #[test]
        fn merging_is_associative(a in maps(), b in maps(), c in maps()) {
            let left = merged(&[&merged(&[&a, &b]), &c]);
            let right = merged(&[&a, &merged(&[&b, &c])]);
            prop_assert_eq!(map_to_json(&left), map_to_json(&right));
        }

        #[test]
        fn merging_again_changes_nothing(a in maps(), b in maps()) {
            let once = merged(&[&a, &b]);
            prop_assert_eq!(map_to_json(&merged(&[&once, &b])), map_to_json(&once));
        }
    }
}
