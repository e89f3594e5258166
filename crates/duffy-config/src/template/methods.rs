//! Python's methods of strings and lists, where the template engine has none or others.

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, State};

use super::wrong;

/// Longest text that padding may make.
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

/// The result, or `None` for a method that is not one of these.
fn call_on_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "split" => split(text, args, false)?,
        "rsplit" => split(text, args, true)?,
        "partition" => {
            let separator = separator(args)?;
            let (left, right) = text
                .split_once(separator)
                .map_or((text, None), |(left, right)| (left, Some(right)));
            triple(
                left,
                right.map_or("", |_| separator),
                right.unwrap_or_default(),
            )
        }
        "rpartition" => {
            let separator = separator(args)?;
            match text.rsplit_once(separator) {
                Some((left, right)) => triple(left, separator, right),
                None => triple("", "", text),
            }
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
        "swapcase" => {
            let () = from_args(args)?;
            let swap = |c: char| -> String {
                if c.is_uppercase() {
                    c.to_lowercase().collect()
                } else {
                    c.to_uppercase().collect()
                }
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.to_lowercase())
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "find" => Value::from(find(text, args, false)?.map_or(-1, |at| at as i64)),
        "rfind" => Value::from(find(text, args, true)?.map_or(-1, |at| at as i64)),
        "index" => found(find(text, args, false)?)?,
        "rindex" => found(find(text, args, true)?)?,
        "count" => {
            let (needle, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let part = slice(text, start, end).map_or("", |(_, part)| part);
            // Between all characters there is an empty text.
            Value::from(if needle.is_empty() {
                part.chars().count() + 1
            } else {
                part.matches(needle).count()
            })
        }
        "isdecimal" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit()))
        }
        "isidentifier" => {
            let () = from_args(args)?;
            let starts_well = text.starts_with(|c: char| c.is_alphabetic() || c == '_');
            Value::from(starts_well && text.chars().all(|c| c.is_alphanumeric() || c == '_'))
        }
        _ => return Ok(None),
    }))
}

/// Each run of letters with a capital; digits end a run.
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

fn separator(args: &[Value]) -> Result<&str, Error> {
    let (separator,): (&str,) = from_args(args)?;
    if separator.is_empty() {
        Err(wrong("empty separator"))
    } else {
        Ok(separator)
    }
}

fn triple(left: &str, middle: &str, right: &str) -> Value {
    Value::from(minijinja::value::Tuple::from([
        Value::from(left),
        Value::from(middle),
        Value::from(right),
    ]))
}

fn missing_width(text: &str, width: usize) -> Result<usize, Error> {
    if width > MAX_WIDTH {
        return Err(wrong(format!("a width of {width} is too large")));
    }
    Ok(width.saturating_sub(text.chars().count()))
}

/// Fills a text up on the sides that the method leaves free.
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
        // Where the odd one goes depends on the width, in Python.
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
    let separator = separator.filter(|value| !value.is_none());
    let most = most
        .or(named.get::<Option<i64>>("maxsplit")?)
        .and_then(|most| usize::try_from(most).ok());
    named.assert_all_used()?;
    let Some(separator) = separator else {
        return Ok(split_blanks(text, most, from_right).into());
    };
    let separator = separator
        .as_str()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| wrong("empty separator"))?;
    let pieces = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<&str> = if from_right {
        text.rsplitn(pieces, separator).collect()
    } else {
        text.splitn(pieces, separator).collect()
    };
    if from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Splits at runs of blanks, without empty parts at the ends.
fn split_blanks(text: &str, most: Option<usize>, from_right: bool) -> Vec<Value> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let full = most.is_some_and(|most| parts.len() >= most);
        let at = if from_right {
            rest.rfind(char::is_whitespace)
        } else {
            rest.find(char::is_whitespace)
        };
        let Some(at) = at.filter(|_| !full) else {
            // The last part keeps the blanks on its far side.
            let last = if full && from_right {
                text[..text.len() - text.trim_start().len() + rest.len()].trim_end()
            } else if full {
                &text[text.trim_end().len() - rest.len()..]
            } else {
                rest
            };
            parts.push(Value::from(last));
            break;
        };
        if from_right {
            parts.push(Value::from(rest[at..].trim_start()));
            rest = rest[..at].trim_end();
        } else {
            parts.push(Value::from(&rest[..at]));
            rest = rest[at..].trim_start();
        }
    }
    if from_right {
        parts.reverse();
    }
    parts
}

/// The part of a text between two positions in characters, and the position that it starts at.
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

fn found(position: Option<usize>) -> Result<Value, Error> {
    position
        .map(Value::from)
        .ok_or_else(|| wrong("substring not found"))
}
