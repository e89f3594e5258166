//! Jinja2's filters that the template engine lacks or implements differently.
#![expect(
    clippy::needless_pass_by_value,
    reason = "the engine passes arguments by value"
)]

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, State};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::wrong;
use super::methods;
use super::print::print;
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
    state: &mut State<'_, '_>,
    value: &Value,
    joiner: Option<Value>,
    attribute: Option<Value>,
    named: Kwargs,
) -> Result<String, Error> {
    let joiner = joiner.or(named.get("d")?);
    let attribute = attribute.or(named.get("attribute")?);
    named.assert_all_used()?;
    if value.is_undefined() {
        return Ok(String::new());
    }
    let items = match attribute {
        Some(attribute) => {
            let attribute = Kwargs::from_iter([("attribute", attribute)]);
            state.apply_filter("map", &[value.clone(), attribute.into()])?
        }
        None => value.clone(),
    };
    let parts: Vec<_> = items.try_iter()?.map(|item| print(&item)).collect();
    Ok(parts.join(&joiner.as_ref().map(print).unwrap_or_default()))
}

/// Converts a value to a whole number. Returns the default if that is not possible.
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
    if value.is_integer() {
        return Ok(value.clone());
    }
    let digits = value.as_str().and_then(|text| parse_int(text, base));
    let truncate = || {
        let number = to_float(value)?;
        // Larger values do not fit.
        (number.abs() < 1e38).then_some(number.trunc() as i128)
    };
    Ok(digits.or_else(truncate).map_or(default, Value::from))
}

/// Parses digits with single underscores between them, a sign, and the base's prefix.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim().to_lowercase();
    let body = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    // An underscore may follow a prefix. Otherwise it must be between digits.
    let digits = match body.strip_prefix(prefix) {
        Some(rest) if !prefix.is_empty() => rest.strip_prefix('_').unwrap_or(rest),
        _ => body,
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
    Ok(to_float(value).map_or(default, Value::from))
}

fn to_float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::String => parse_float(value.as_str()?),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::Bool => Some(f64::from(value.is_true())),
        _ => None,
    }
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

/// Cuts a text to a length, by default at the end of a word. A text that is only slightly longer stays as it is.
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

/// Prints JSON as Python does, with sorted keys, and safe inside HTML as in Jinja2.
fn tojson(value: &Value, indent: Option<usize>, named: Kwargs) -> Result<String, Error> {
    let indent = indent.or(named.get("indent")?).map(|indent| indent.min(16));
    named.assert_all_used()?;
    Ok(print_json(value, indent, 0)?
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\'', "\\u0027"))
}

fn print_json(value: &Value, indent: Option<usize>, depth: usize) -> Result<String, Error> {
    let (open, close, members): (_, _, Vec<_>) = match value.kind() {
        ValueKind::None => return Ok("null".into()),
        ValueKind::Bool => return Ok(value.is_true().to_string()),
        ValueKind::Number => {
            let float = f64::try_from(value.clone()).ok();
            let float = float.filter(|_| !value.is_integer());
            return Ok(float.map_or_else(|| value.to_string(), float_repr));
        }
        ValueKind::String => return Ok(json_text(value.as_str().unwrap_or_default())),
        ValueKind::Seq => {
            let items = value.try_iter()?;
            let items = items.map(|item| print_json(&item, indent, depth + 1));
            ('[', ']', items.collect::<Result<_, _>>()?)
        }
        ValueKind::Map => {
            let mut keys: Vec<_> = value.try_iter()?.map(|key| (print(&key), key)).collect();
            keys.sort_by(|(one, _), (two, _)| one.cmp(two));
            let members = keys.iter().map(|(text, key)| {
                let member = print_json(&value.get_item(key)?, indent, depth + 1)?;
                Ok(format!("{}: {member}", json_text(text)))
            });
            ('{', '}', members.collect::<Result<_, Error>>()?)
        }
        other => return Err(wrong(format!("{other} cannot be written as JSON"))),
    };
    let Some(indent) = indent.filter(|_| !members.is_empty()) else {
        return Ok(format!("{open}{}{close}", members.join(", ")));
    };
    let line = format!("\n{}", " ".repeat(indent * (depth + 1)));
    let last_line = format!("\n{}", " ".repeat(indent * depth));
    let members = members.join(&format!(",{line}"));
    Ok(format!("{open}{line}{members}{last_line}{close}"))
}

/// Percent-encodes a text, or the pairs of a mapping or list as a query.
fn urlencode(value: &Value) -> Result<String, Error> {
    let encode = |value: &Value| {
        let encoded = utf8_percent_encode(&print(value), IN_QUERY).to_string();
        encoded.replace("%20", "+")
    };
    let pair = |key: &Value, value: &Value| format!("{}={}", encode(key), encode(value));
    let pairs: Result<Vec<_>, Error> = match value.kind() {
        ValueKind::Map => {
            let keys = value.try_iter()?;
            keys.map(|key| Ok(pair(&key, &value.get_item(&key)?)))
                .collect()
        }
        ValueKind::Seq => {
            let items = value.try_iter()?;
            let member = Value::get_item_by_index;
            items
                .map(|item| Ok(pair(&member(&item, 0)?, &member(&item, 1)?)))
                .collect()
        }
        _ => return Ok(utf8_percent_encode(&print(value), IN_PATH).to_string()),
    };
    Ok(pairs?.join("&"))
}

/// Characters that are encoded in a query: all but the unreserved characters of RFC 3986.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Characters that are encoded in a path.
const IN_PATH: &AsciiSet = &IN_QUERY.remove(b'/');

fn escape(value: &Value) -> Value {
    if value.is_safe() {
        value.clone()
    } else {
        forceescape(value)
    }
}

fn forceescape(value: &Value) -> Value {
    let escaped = print(value)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
        .replace('"', "&#34;");
    Value::from_safe_string(escaped)
}
