//! Converts raw nodes to values: tags, merge keys, keys that are not text.

use std::collections::HashSet;
use std::rc::Rc;

use super::compose::{Kind, Raw};
use super::node::{Data, Entry, Map, Node};
use super::scalar::{self, Tag};
use crate::error::YamlError;
use crate::python::float_repr;

const PREFIX: &str = "tag:yaml.org,2002:";

/// A mapping's key and value, and whether a merge key added them.
type Pair<'a> = (&'a Raw, &'a Raw, bool);

/// Returns the value of a raw node. The composer's depth limit bounds the recursion.
pub(super) fn construct(raw: &Raw, warnings: &mut Vec<String>) -> Result<Node, YamlError> {
    let tag = raw.tag.as_deref().map(|tag| {
        tag.strip_prefix(PREFIX)
            .ok_or_else(|| unknown_tag(raw, tag))
    });
    let tag = tag.transpose()?;
    let data = match (&raw.kind, tag) {
        (Kind::Scalar { text, implicit }, tag) => {
            let tag = match tag {
                Some(name) => {
                    Tag::from_name(name).ok_or_else(|| unknown_tag(raw, &format!("!!{name}")))?
                }
                None if *implicit => scalar::resolve(text),
                None => Tag::Str,
            };
            scalar::construct(tag, text).map_err(|message| fail(raw, message))?
        }
        (Kind::Seq, None | Some("seq")) => Data::List(construct_all(&raw.children, warnings)?),
        (Kind::Seq, Some("omap" | "pairs")) => Data::List(construct_pairs(raw, warnings)?),
        (Kind::Map, None | Some("map")) => Data::Map(construct_map(raw, warnings)?),
        // JSON has no sets: a list of the members.
        (Kind::Map, Some("set")) => {
            let members = construct_map(raw, warnings)?.into_iter();
            let members = members.map(|(key, entry)| Node {
                data: Data::Text(key),
                mark: entry.key_mark,
            });
            Data::List(members.collect())
        }
        (Kind::Seq | Kind::Map, Some(name)) => {
            return Err(unknown_tag(raw, &format!("!!{name}")));
        }
    };
    Ok(Node {
        data,
        mark: raw.mark.clone(),
    })
}

fn construct_all(raws: &[Rc<Raw>], warnings: &mut Vec<String>) -> Result<Vec<Node>, YamlError> {
    raws.iter().map(|raw| construct(raw, warnings)).collect()
}

/// Python converts an ordered mapping to a list of pairs.
fn construct_pairs(raw: &Raw, warnings: &mut Vec<String>) -> Result<Vec<Node>, YamlError> {
    let pairs = raw.children.iter().map(|item| {
        if !matches!(item.kind, Kind::Map) || item.children.len() != 2 {
            let message = "an ordered mapping is a list of mappings with exactly one key each";
            return Err(fail(item, message));
        }
        Ok(Node {
            data: Data::List(construct_all(&item.children, warnings)?),
            mark: item.mark.clone(),
        })
    });
    pairs.collect()
}

fn unknown_tag(raw: &Raw, tag: &str) -> YamlError {
    fail(
        raw,
        format!(
            "the tag {tag} does not belong here; leave it out, or use !!str, !!int, !!float, !!bool, !!seq or !!map"
        ),
    )
}

fn fail(raw: &Raw, message: impl Into<String>) -> YamlError {
    YamlError {
        mark: raw.mark.clone(),
        message: message.into(),
    }
}

fn construct_map(raw: &Raw, warnings: &mut Vec<String>) -> Result<Map, YamlError> {
    let mut map = Map::new();
    let mut own_keys = HashSet::new();
    for (key_raw, value_raw, merged) in flatten(raw)? {
        let key_mark = key_raw.mark.clone();
        let (key, is_text) = construct_key(key_raw, warnings)?;
        if !merged && !own_keys.insert(key.clone()) {
            // Without the key itself, which can be a secret.
            warnings.push(format!(
                "{key_mark}: this key is given twice in one mapping; the last one counts"
            ));
        }
        let value = construct(value_raw, warnings)?;
        map.insert(
            key,
            Entry {
                key_mark,
                is_text,
                value,
            },
        );
    }
    Ok(map)
}

fn is_merge(key: &Raw) -> bool {
    match (&key.kind, key.tag.as_deref()) {
        (Kind::Scalar { text, implicit }, None) => *implicit && text == "<<",
        (Kind::Scalar { .. }, Some(tag)) => tag.strip_prefix(PREFIX) == Some("merge"),
        _ => false,
    }
}

/// Returns a mapping's pairs. Those of its merge keys come first, so that its own override them.
fn flatten(raw: &Raw) -> Result<Vec<Pair<'_>>, YamlError> {
    if !matches!(raw.kind, Kind::Map) {
        let message = "a merge key << takes a mapping or a list of mappings";
        return Err(fail(raw, message));
    }
    let (mut merged, mut own) = (Vec::new(), Vec::new());
    for [key, value] in raw.pairs() {
        if !is_merge(key) {
            own.push((&**key, &**value, false));
        } else if matches!(value.kind, Kind::Seq) {
            // The first of the list has precedence, so it comes last.
            for item in value.children.iter().rev() {
                merged.extend(flatten(item)?);
            }
        } else {
            merged.extend(flatten(value)?);
        }
    }
    for pair in &mut merged {
        pair.2 = true;
    }
    merged.append(&mut own);
    Ok(merged)
}

/// Returns a key as text, as Python's `json` writes it, and whether it is text in the file.
fn construct_key(raw: &Raw, warnings: &mut Vec<String>) -> Result<(String, bool), YamlError> {
    if let (Kind::Scalar { text, implicit }, None) = (&raw.kind, &raw.tag)
        && *implicit
        && text == "="
    {
        // A plain `=` is a type of its own in YAML 1.1, but text as a key.
        return Ok((text.clone(), true));
    }
    let key = construct(raw, warnings)?;
    let text = match key.data {
        Data::Text(text) => return Ok((text, true)),
        Data::Null => "null".into(),
        Data::Bool(value) => value.to_string(),
        Data::Int(value) => value.to_string(),
        Data::Float(value) => float_repr(value),
        Data::Timestamp(text) => text,
        Data::Binary(_) | Data::List(_) | Data::Map(_) => {
            let message = format!("{} cannot be a key; use text", key.describe());
            return Err(fail(raw, message));
        }
    };
    Ok((text, false))
}
