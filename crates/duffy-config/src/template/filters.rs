//! Jinja2's filters, where the template engine has none or others.
#![expect(
    clippy::needless_pass_by_value,
    reason = "the engine passes arguments by value"
)]

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::print::print;
use super::{methods, wrong};
use crate::python::{float_repr, json_text};

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("string", string);
    environment.add_filter("join", join);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("center", center);
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    environment.add_filter("tojson", tojson);
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("e", escape);
    environment.add_filter("escape", escape);
    environment.add_filter("forceescape", forceescape);
}

fn string(value: &Value) -> String {
    print(value)
}

fn join(
    value: &Value,
    joiner: Option<Value>,
    attribute: Option<Value>,
    named: Kwargs,
) -> Result<String, Error> {
    let joiner = joiner
        .or(named.get("d")?)
        .map(|joiner| print(&joiner))
        .unwrap_or_default();
    let attribute = attribute.or(named.get("attribute")?);
    named.assert_all_used()?;
    let mut parts = Vec::new();
    if !value.is_undefined() {
        for item in value.try_iter()? {
            parts.push(match &attribute {
                Some(attribute) => print(&lookup(&item, attribute)?),
                None => print(&item),
            });
        }
    }
    Ok(parts.join(&joiner))
}

/// A member of an item, or one of a member: `data.arch`, `0`.
fn lookup(item: &Value, attribute: &Value) -> Result<Value, Error> {
    let Some(path) = attribute.as_str() else {
        return item.get_item(attribute);
    };
    let mut found = item.clone();
    for part in path.split('.') {
        found = match part.parse::<i64>() {
            Ok(index) => found.get_item(&Value::from(index))?,
            Err(_) => found.get_item(&Value::from(part))?,
        };
    }
    Ok(found)
}

/// A whole number of anything; what is none gives the default.
fn int(
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    named: Kwargs,
) -> Result<Value, Error> {
    let default = default
        .or(named.get("default")?)
        .unwrap_or_else(|| Value::from(0));
    let base = base.or(named.get("base")?).unwrap_or(10);
    named.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(wrong(format!("a base of {base} is not supported")));
    }
    let parsed = match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            parse_int(text, base)
                .map(Value::from)
                .or_else(|| parse_float(text).and_then(truncated))
        }
        ValueKind::Number if value.is_integer() => Some(value.clone()),
        ValueKind::Number => f64::try_from(value.clone()).ok().and_then(truncated),
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        _ => None,
    };
    Ok(parsed.unwrap_or(default))
}

fn truncated(number: f64) -> Option<Value> {
    // Beyond this there are no exact values to give.
    (number.abs() < 1e38).then(|| Value::from(number.trunc() as i128))
}

/// Digits with single underscores between them, a sign and a prefix that fits the base.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim().to_lowercase();
    let body = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let stripped = body.strip_prefix(prefix).unwrap_or(body);
    // An underscore may follow a prefix, but nothing else than a digit may be next to one otherwise.
    let digits = if stripped.len() < body.len() {
        stripped.strip_prefix('_').unwrap_or(stripped)
    } else {
        stripped
    };
    if digits
        .split('_')
        .any(|part| part.is_empty() || !part.chars().all(|c| c.is_digit(base)))
    {
        return None;
    }
    let number = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if text.starts_with('-') {
        -number
    } else {
        number
    })
}

fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let between_digits = |(at, _): (usize, &str)| {
        let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        at > 0 && digit(text.as_bytes().get(at - 1)) && digit(text.as_bytes().get(at + 1))
    };
    if !text.match_indices('_').all(between_digits) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn float(value: &Value, default: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let default = default
        .or(named.get("default")?)
        .unwrap_or_else(|| Value::from(0.0));
    named.assert_all_used()?;
    let parsed = match value.kind() {
        ValueKind::String => parse_float(value.as_str().unwrap_or_default()),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::Bool => Some(f64::from(value.is_true())),
        _ => None,
    };
    Ok(parsed.map_or(default, Value::from))
}

fn center(value: &Value, width: Option<usize>) -> Result<String, Error> {
    methods::pad(&print(value), "center", width.unwrap_or(80), " ")
}

fn wordcount(value: &Value) -> usize {
    print(value)
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .count()
}

/// Cuts a text to a length, at the end of a word unless told otherwise; one that is hardly longer stays.
fn truncate(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    type Arguments = (
        Option<usize>,
        Option<bool>,
        Option<String>,
        Option<usize>,
        Kwargs,
    );
    let args = args.into_values();
    let (length, killwords, end, leeway, named): Arguments = from_args(&args)?;
    let text = print(value);
    let length = length.or(named.get("length")?).unwrap_or(255);
    let killwords = killwords.or(named.get("killwords")?).unwrap_or(false);
    let end = end
        .or(named.get("end")?)
        .unwrap_or_else(|| "...".to_owned());
    let leeway = leeway.or(named.get("leeway")?).unwrap_or(5);
    named.assert_all_used()?;
    let Some(room) = length.checked_sub(end.chars().count()) else {
        return Err(wrong(format!(
            "the length must be at least that of {end:?}"
        )));
    };
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let mut kept: String = text.chars().take(room).collect();
    if !killwords && let Some(blank) = kept.rfind(' ') {
        kept.truncate(blank);
    }
    Ok(kept + &end)
}

/// JSON as Python writes it, with sorted keys, and safe inside HTML as Jinja2 has it.
fn tojson(value: &Value, indent: Option<usize>, named: Kwargs) -> Result<String, Error> {
    let indent = indent.or(named.get("indent")?).map(|indent| indent.min(16));
    named.assert_all_used()?;
    let mut out = String::new();
    write_json(&mut out, value, indent, 0)?;
    Ok(out
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\'', "\\u0027"))
}

fn write_json(
    out: &mut String,
    value: &Value,
    indent: Option<usize>,
    depth: usize,
) -> Result<(), Error> {
    let new_line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => out
            .push_str(&f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float_repr)),
        ValueKind::String => out.push_str(&json_text(value.as_str().unwrap_or_default())),
        ValueKind::Seq => {
            let items: Vec<_> = value.try_iter()?.collect();
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { comma } else { "" });
                new_line(out, depth + 1);
                write_json(out, item, indent, depth + 1)?;
            }
            if !items.is_empty() {
                new_line(out, depth);
            }
            out.push(']');
        }
        ValueKind::Map => {
            let mut keys: Vec<(String, Value)> =
                value.try_iter()?.map(|key| (print(&key), key)).collect();
            keys.sort_by(|one, two| one.0.cmp(&two.0));
            out.push('{');
            for (index, (text, key)) in keys.iter().enumerate() {
                out.push_str(if index > 0 { comma } else { "" });
                new_line(out, depth + 1);
                out.push_str(&json_text(text));
                out.push_str(": ");
                write_json(out, &value.get_item(key)?, indent, depth + 1)?;
            }
            if !keys.is_empty() {
                new_line(out, depth);
            }
            out.push('}');
        }
        other => return Err(wrong(format!("{other} cannot be written as JSON"))),
    }
    Ok(())
}

/// Percent-encodes a text, or the pairs of a mapping or list as a query.
fn urlencode(value: &Value) -> Result<String, Error> {
    let pair = |key: &Value, value: &Value| {
        format!(
            "{}={}",
            quote(&print(key), true),
            quote(&print(value), true)
        )
    };
    Ok(match value.kind() {
        ValueKind::Map => {
            let pairs: Result<Vec<_>, Error> = value
                .try_iter()?
                .map(|key| Ok(pair(&key, &value.get_item(&key)?)))
                .collect();
            pairs?.join("&")
        }
        ValueKind::Seq => {
            let pairs: Result<Vec<_>, Error> = value
                .try_iter()?
                .map(|item| {
                    Ok(pair(
                        &item.get_item_by_index(0)?,
                        &item.get_item_by_index(1)?,
                    ))
                })
                .collect();
            pairs?.join("&")
        }
        _ => quote(&print(value), false),
    })
}

/// What is encoded in a query, blanks aside: all but the unreserved characters of RFC 3986.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// What is encoded in a path.
const IN_PATH: &AsciiSet = &IN_QUERY.remove(b'/');

fn quote(text: &str, query: bool) -> String {
    if query {
        let encoded = utf8_percent_encode(text, IN_QUERY).to_string();
        encoded.replace("%20", "+")
    } else {
        utf8_percent_encode(text, IN_PATH).to_string()
    }
}

fn escape(value: &Value) -> Value {
    if value.is_safe() {
        value.clone()
    } else {
        forceescape(value)
    }
}

fn forceescape(value: &Value) -> Value {
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '\'' => "&#39;".to_owned(),
        '"' => "&#34;".to_owned(),
        _ => c.to_string(),
    };
    Value::from_safe_string(print(value).chars().map(escape).collect())
}
