//! Python's methods of strings and lists that the template engine lacks or implements differently.

use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, State};

use super::error::wrong;

/// Maximum width of a padded text.
const MAX_WIDTH: usize = 1 << 20;

/// Calls a method that the engine does not know.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = call_on_text(text, method, args)?
    {
        return Ok(result);
    }
    if value.kind() == ValueKind::Seq && method == "index" {
        let (wanted,): (&Value,) = from_args(args)?;
        let position = value.try_iter()?.position(|item| item == *wanted);
        return position
            .map(Value::from)
            .ok_or_else(|| wrong(format!("{wanted} is not in the list")));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// Returns the result, or `None` if the method is not one of these.
fn call_on_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    if let Some(result) = call_without_args(text, method) {
        let () = from_args(args)?;
        return Ok(Some(result));
    }
    Ok(Some(match method {
        "split" => split(text, args, false)?,
        "rsplit" => split(text, args, true)?,
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let parts = match method {
                _ if separator.is_empty() => return Err(wrong("empty separator")),
                "partition" => text.split_once(separator),
                _ => text.rsplit_once(separator),
            };
            let parts = match parts {
                Some((left, right)) => [left, separator, right],
                None if method == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            let missing = missing_width(text, width)?;
            Value::from(format!("{sign}{}{digits}", "0".repeat(missing)))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            Value::from(pad(text, method, width, fill.unwrap_or(" "))?)
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "find" | "rfind" => {
            let position = find(text, args, method == "rfind")?;
            Value::from(position.map_or(-1, |at| at as i64))
        }
        "index" | "rindex" => {
            let position = find(text, args, method == "rindex")?;
            Value::from(position.ok_or_else(|| wrong("substring not found"))?)
        }
        "count" => {
            let (needle, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let part = slice(text, start, end).map_or("", |(_, part)| part);
            // There is an empty text between all characters, and at both ends.
            Value::from(if needle.is_empty() {
                part.chars().count() + 1
            } else {
                part.matches(needle).count()
            })
        }
        _ => return Ok(None),
    }))
}

fn call_without_args(text: &str, method: &str) -> Option<Value> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    Some(match method {
        "casefold" => text.to_lowercase().into(),
        "isdecimal" => (!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())).into(),
        "isidentifier" => {
            let starts_well = text.starts_with(|c: char| c.is_alphabetic() || c == '_');
            (starts_well && text.chars().all(is_word)).into()
        }
        "swapcase" => swapcase(text).into(),
        "title" => title(text).into(),
        _ => return None,
    })
}

fn swapcase(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
    }
    out
}

/// Capitalizes each run of letters; digits end a run.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

fn missing_width(text: &str, width: usize) -> Result<usize, Error> {
    if width > MAX_WIDTH {
        return Err(wrong(format!("a width of {width} is too large")));
    }
    Ok(width.saturating_sub(text.chars().count()))
}

/// Pads a text on the sides that the method determines.
pub(super) fn pad(text: &str, method: &str, width: usize, fill: &str) -> Result<String, Error> {
    if fill.chars().count() != 1 {
        return Err(wrong(
            "the fill character must be exactly one character long",
        ));
    }
    let missing = missing_width(text, width)?;
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        // In Python the width determines the side of an odd character.
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(format!(
        "{}{text}{}",
        fill.repeat(left),
        fill.repeat(missing - left)
    ))
}

fn split(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        None => named.get::<Option<Value>>("sep")?,
        given => given,
    };
    let most = most.or(named.get::<Option<i64>>("maxsplit")?);
    named.assert_all_used()?;
    // To split from the right, the engine splits the reversed text.
    let turn = |text: &str| -> String {
        if from_right {
            text.chars().rev().collect()
        } else {
            text.to_owned()
        }
    };
    let separator = match separator.filter(|value| !value.is_none()) {
        None => None,
        Some(value) => match value.as_str() {
            None | Some("") => return Err(wrong("empty separator")),
            Some(separator) => Some(turn(separator).into()),
        },
    };
    let parts = minijinja::filters::split(&turn(text).into(), separator, most)?;
    let parts = parts.try_iter()?;
    let mut parts: Vec<_> = parts.filter_map(|part| part.as_str().map(turn)).collect();
    if from_right {
        parts.reverse();
    }
    Ok(parts.into())
}

/// Returns the part of a text between two positions in characters, and its first position.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    let length = text.chars().count();
    let position = |index: i64| {
        let index = if index < 0 {
            index.saturating_add(length as i64).max(0)
        } else {
            index
        };
        usize::try_from(index).unwrap_or(usize::MAX)
    };
    let start = position(start.unwrap_or(0));
    let end = end.map_or(length, position).min(length);
    if start > end {
        return None;
    }
    let byte = |index: usize| {
        text.char_indices()
            .nth(index)
            .map_or(text.len(), |(at, _)| at)
    };
    Some((start, &text[byte(start)..byte(end)]))
}

fn find(text: &str, args: &[Value], from_right: bool) -> Result<Option<usize>, Error> {
    let (needle, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    Ok(slice(text, start, end).and_then(|(start, part)| {
        let at = if from_right {
            part.rfind(needle)
        } else {
            part.find(needle)
        }?;
        Some(start + part[..at].chars().count())
    }))
}
