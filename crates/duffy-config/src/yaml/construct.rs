//! Raw nodes to values: tags, merge keys, keys that are no text.

use std::rc::Rc;

use super::compose::{Kind, Raw};
use super::scalar::{self, Tag};
use super::{Data, Entry, Map, Node};
use crate::error::YamlError;

const PREFIX: &str = "tag:yaml.org,2002:";

/// A mapping's pairs; the flag says that the pair came by a merge key.
type Pairs = Vec<(Rc<Raw>, Rc<Raw>, bool)>;

/// The value of a raw node. Recursion is bounded by the composer's depth limit.
pub(super) fn construct(raw: &Raw, warnings: &mut Vec<String>) -> Result<Node, YamlError> {
    let data = match &raw.kind {
        Kind::Scalar { text, .. } => construct_scalar(raw, text)?,
        Kind::Seq(items) => construct_seq(raw, items, warnings)?,
        Kind::Map(_) => construct_map(raw, warnings)?,
    };
    Ok(Node {
        data,
        mark: raw.mark.clone(),
    })
}

/// The tag of a scalar: the written one, or what its text says.
fn scalar_tag(raw: &Raw, text: &str, implicit: bool) -> Result<Tag, YamlError> {
    let Some(written) = &raw.tag else {
        return Ok(if implicit {
            scalar::resolve(text)
        } else {
            Tag::Str
        });
    };
    written
        .strip_prefix(PREFIX)
        .and_then(Tag::from_name)
        .ok_or_else(|| unknown_tag(raw, written))
}

fn unknown_tag(raw: &Raw, tag: &str) -> YamlError {
    let shown = tag
        .strip_prefix(PREFIX)
        .map_or_else(|| tag.to_owned(), |name| format!("!!{name}"));
    fail(
        raw,
        format!(
            "the tag {shown} does not belong here; leave it out, or use !!str, !!int, !!float, !!bool, !!seq or !!map"
        ),
    )
}

fn fail(raw: &Raw, message: impl Into<String>) -> YamlError {
    YamlError {
        mark: raw.mark.clone(),
        message: message.into(),
    }
}

fn construct_scalar(raw: &Raw, text: &str) -> Result<Data, YamlError> {
    let Kind::Scalar { implicit, .. } = &raw.kind else {
        return Ok(Data::Null);
    };
    let tag = scalar_tag(raw, text, *implicit)?;
    scalar::construct(tag, text).map_err(|message| fail(raw, message))
}

fn construct_seq(
    raw: &Raw,
    items: &[Rc<Raw>],
    warnings: &mut Vec<String>,
) -> Result<Data, YamlError> {
    match raw
        .tag
        .as_deref()
        .map(|tag| tag.strip_prefix(PREFIX).unwrap_or(tag))
    {
        None | Some("seq") => Ok(Data::List(
            items
                .iter()
                .map(|item| construct(item, warnings))
                .collect::<Result<_, _>>()?,
        )),
        // Python makes lists of pairs of these.
        Some("omap" | "pairs") => {
            let mut pairs = Vec::with_capacity(items.len());
            for item in items {
                let Kind::Map(entries) = &item.kind else {
                    return Err(fail(
                        item,
                        "an ordered mapping is a list of mappings with one key each",
                    ));
                };
                let [(key, value)] = entries.as_slice() else {
                    return Err(fail(
                        item,
                        "an ordered mapping is a list of mappings with exactly one key each",
                    ));
                };
                let pair = vec![construct(key, warnings)?, construct(value, warnings)?];
                pairs.push(Node {
                    data: Data::List(pair),
                    mark: item.mark.clone(),
                });
            }
            Ok(Data::List(pairs))
        }
        Some(_) => Err(unknown_tag(raw, raw.tag.as_deref().unwrap_or_default())),
    }
}

fn construct_map(raw: &Raw, warnings: &mut Vec<String>) -> Result<Data, YamlError> {
    let tag = raw
        .tag
        .as_deref()
        .map(|tag| tag.strip_prefix(PREFIX).unwrap_or(tag));
    if !matches!(tag, None | Some("map" | "set")) {
        return Err(unknown_tag(raw, raw.tag.as_deref().unwrap_or_default()));
    }
    let mut map = Map::new();
    let mut own_keys = std::collections::HashSet::new();
    for (key_raw, value_raw, merged) in flatten(raw)? {
        let key = construct_key(&key_raw, warnings)?;
        let (key, is_text) = key_text(&key_raw, &key)?;
        if !merged && !own_keys.insert(key.clone()) {
            // Without the key itself, which can be a secret.
            warnings.push(format!(
                "{}: this key is given twice in one mapping; the last one counts",
                key_raw.mark
            ));
        }
        let value = construct(&value_raw, warnings)?;
        map.insert(
            key,
            Entry {
                key_mark: key_raw.mark.clone(),
                is_text,
                value,
            },
        );
    }
    if tag == Some("set") {
        // JSON has no sets: a list of the members.
        let members = map
            .into_iter()
            .map(|(key, entry)| Node {
                data: Data::Text(key),
                mark: entry.key_mark,
            })
            .collect();
        return Ok(Data::List(members));
    }
    Ok(Data::Map(map))
}

fn is_merge(key: &Raw) -> bool {
    match (&key.kind, key.tag.as_deref()) {
        (
            Kind::Scalar {
                text,
                implicit: true,
            },
            None,
        ) => text == "<<",
        (Kind::Scalar { .. }, Some(tag)) => tag.strip_prefix(PREFIX) == Some("merge"),
        _ => false,
    }
}

/// A mapping's pairs with those of its merge keys before its own, so that its own win.
fn flatten(raw: &Raw) -> Result<Pairs, YamlError> {
    let Kind::Map(pairs) = &raw.kind else {
        return Err(fail(
            raw,
            "a merge key << takes a mapping or a list of mappings",
        ));
    };
    let mut merged = Pairs::new();
    let mut own = Pairs::new();
    for (key, value) in pairs {
        if !is_merge(key) {
            own.push((Rc::clone(key), Rc::clone(value), false));
            continue;
        }
        match &value.kind {
            Kind::Seq(items) => {
                // The first of the list wins, so it comes last.
                for item in items.iter().rev() {
                    merged.extend(flatten(item)?);
                }
            }
            _ => merged.extend(flatten(value)?),
        }
    }
    for pair in &mut merged {
        pair.2 = true;
    }
    merged.append(&mut own);
    Ok(merged)
}

fn construct_key(raw: &Raw, warnings: &mut Vec<String>) -> Result<Node, YamlError> {
    // A plain `=` is a type of its own in YAML 1.1, but text where it is a key.
    if let Kind::Scalar {
        text,
        implicit: true,
    } = &raw.kind
        && raw.tag.is_none()
        && text == "="
    {
        return Ok(Node {
            data: Data::Text(text.clone()),
            mark: raw.mark.clone(),
        });
    }
    construct(raw, warnings)
}

/// A key as text, as Python's `json` writes it, and whether it was text already.
fn key_text(raw: &Raw, key: &Node) -> Result<(String, bool), YamlError> {
    Ok(match &key.data {
        Data::Text(text) => (text.clone(), true),
        Data::Null => ("null".into(), false),
        Data::Bool(value) => (value.to_string(), false),
        Data::Int(value) => (value.to_string(), false),
        Data::Float(value) => (crate::python::float_repr(*value), false),
        Data::Timestamp(text) => (text.clone(), false),
        Data::Binary(_) | Data::List(_) | Data::Map(_) => {
            return Err(fail(
                raw,
                format!("{} cannot be a key; use text", key.describe()),
            ));
        }
    })
}
