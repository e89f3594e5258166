//! Decodes values with positions into typed settings, as leniently as the Python original and no more.
//!
//! Decoding goes on after a problem, so that an operator sees all problems at once.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use duffy_api::duration;
use strsim::levenshtein;

use crate::error::{Mark, Problem};
use crate::template;
use crate::yaml::{Data, Entry, Map, Node};

/// The problems and warnings so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) problems: RefCell<Vec<Problem>>,
    pub(crate) warnings: RefCell<Vec<String>>,
}

/// A value, its position, and the keys that lead to it.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    pub(crate) node: &'a Node,
    pub(crate) mark: &'a Mark,
    pub(crate) path: String,
    pub(crate) report: &'a Report,
}

impl<'a> Cursor<'a> {
    /// The value of a key in this mapping.
    pub(crate) fn below(&self, key: &str, entry: &'a Entry) -> Self {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        Self {
            node: &entry.value,
            mark: &entry.key_mark,
            path,
            report: self.report,
        }
    }

    /// A problem with this value.
    pub(crate) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem {
            mark: Some(self.mark.clone()),
            path: self.path.clone(),
            message: message.into(),
        }
    }

    /// Reports a problem with this value. Returns `None`, for decoders to return.
    pub(crate) fn refuse<T>(&self, message: impl Into<String>) -> Option<T> {
        let problem = self.problem(message);
        self.report.problems.borrow_mut().push(problem);
        None
    }

    fn expected<T>(&self, wanted: &str) -> Option<T> {
        self.refuse(format!("must be {wanted}, not {}", self.node.describe()))
    }

    /// Reports something that works but is probably a mistake.
    pub(crate) fn warn(&self, message: impl std::fmt::Display) {
        let warning = format!("{}: {}: {message}", self.mark, self.path);
        self.report.warnings.borrow_mut().push(warning);
    }

    pub(crate) fn map(&self) -> Option<&'a Map> {
        match &self.node.data {
            Data::Map(map) => Some(map),
            _ => self.expected("a mapping"),
        }
    }

    /// The entries of a mapping with any keys, which must be text.
    pub(crate) fn entries(&self) -> Option<Vec<(&'a str, Self)>> {
        let entries = self.map()?.iter().filter_map(|(key, entry)| {
            let cursor = self.below(key, entry);
            if entry.is_text {
                Some((key.as_str(), cursor))
            } else {
                cursor.refuse("this key must be text; quote it")
            }
        });
        Some(entries.collect())
    }

    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        let Data::List(items) = &self.node.data else {
            return self.expected("a list");
        };
        let at = |(index, node): (usize, &'a Node)| Self {
            node,
            mark: &node.mark,
            path: format!("{}[{index}]", self.path),
            report: self.report,
        };
        Some(items.iter().enumerate().map(at).collect())
    }

    /// Any text. Numbers are refused, as they may have lost digits: `7.10`.
    pub(crate) fn text(&self) -> Option<&'a str> {
        self.as_text().or_else(|| match &self.node.data {
            Data::Int(_) | Data::Float(_) | Data::Bool(_) | Data::Timestamp(_) => {
                let found = self.node.describe();
                self.refuse(format!("must be text, not {found}; put it in quotes"))
            }
            _ => self.expected("text"),
        })
    }

    pub(crate) fn owned_text(&self) -> Option<String> {
        self.text().map(ToOwned::to_owned)
    }

    fn as_text(&self) -> Option<&'a str> {
        match &self.node.data {
            Data::Text(text) => Some(text),
            Data::Binary(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(crate) fn path_name(&self) -> Option<PathBuf> {
        self.text().map(PathBuf::from)
    }

    /// A template with correct syntax.
    pub(crate) fn template(&self) -> Option<String> {
        let text = self.owned_text()?;
        self.check_template(&text);
        Some(text)
    }

    /// Reports a problem if the syntax of a template is wrong.
    pub(crate) fn check_template(&self, text: &str) {
        if let Err(message) = template::check(text) {
            self.refuse::<()>(message);
        }
    }

    /// A URL with the scheme `http` or `https`, kept as written except for surrounding whitespace.
    pub(crate) fn http_url(&self) -> Option<String> {
        let text = self.text()?.trim();
        match url::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                Some(text.to_owned())
            }
            _ => self.refuse("must be a URL that starts with http:// or https://"),
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let chosen = choices
            .iter()
            .find(|(word, _)| self.as_text() == Some(word));
        chosen.map(|(_, choice)| *choice).or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.refuse(format!("must be one of {}", words.join(", ")))
        })
    }

    /// Yes or no; also as text (`"yes"`, `"off"`, `"1"`, …) or as 1 or 0.
    pub(crate) fn boolean(&self) -> Option<bool> {
        let text = self.as_text().map(str::to_lowercase);
        match (self.as_number(), text.as_deref()) {
            (Some(0.0), _) | (_, Some("0" | "off" | "f" | "false" | "n" | "no")) => Some(false),
            (Some(1.0), _) | (_, Some("1" | "on" | "t" | "true" | "y" | "yes")) => Some(true),
            _ => self.expected("yes or no (true or false)"),
        }
    }

    /// A whole number in the range, which must fit `T`; also as text (`"8080"`), or with a fraction of zero (`8080.0`).
    pub(crate) fn integer<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Option<T> {
        let wanted = match (*range.start(), *range.end()) {
            (start, i64::MAX) => format!("a whole number of at least {start}"),
            (start, end) => format!("a whole number from {start} to {end}"),
        };
        let Some(value) = self.as_integer() else {
            return self.expected(&wanted);
        };
        match i64::try_from(value) {
            Ok(value) if range.contains(&value) => T::try_from(value).ok(),
            _ => self.refuse(format!("must be {wanted}, not {value}")),
        }
    }

    pub(crate) fn as_integer(&self) -> Option<i128> {
        match &self.node.data {
            Data::Int(value) => Some(*value),
            Data::Bool(value) => Some(i128::from(*value)),
            Data::Float(value) if value.fract() == 0.0 && value.abs() < 1e18 => {
                Some(*value as i128)
            }
            _ => parse_integer(self.as_text()?),
        }
    }

    /// A whole number of at least `min`. Any number beyond `u32::MAX` counts as that.
    pub(crate) fn count(&self, min: i64) -> Option<u32> {
        let count: i64 = self.integer(min..=i64::MAX)?;
        Some(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// A TCP port.
    pub(crate) fn port(&self) -> Option<u16> {
        self.integer(1..=65535)
    }

    /// A number in the range; also as text.
    pub(crate) fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let wanted = if range.end().is_infinite() {
            format!("a number of at least {}", range.start())
        } else {
            format!("a number from {} to {}", range.start(), range.end())
        };
        let parse = || self.as_text()?.trim().parse().ok();
        let Some(value) = self.as_number().or_else(parse) else {
            return self.expected(&wanted);
        };
        if range.contains(&value) {
            Some(value)
        } else {
            self.refuse(format!("must be {wanted}, not {value}"))
        }
    }

    fn as_number(&self) -> Option<f64> {
        match &self.node.data {
            Data::Int(value) => Some(*value as f64),
            Data::Float(value) => Some(*value),
            Data::Bool(value) => Some(f64::from(*value)),
            _ => None,
        }
    }

    /// A length of time: seconds, or text like `1h30m`.
    pub(crate) fn delta(&self) -> Option<TimeDelta> {
        let parsed = match self.as_number() {
            Some(seconds) => duration::from_seconds(seconds).ok(),
            None => self
                .as_text()
                .and_then(|text| duration::parse_lifetime(text).ok()),
        };
        match parsed {
            Some(delta) if delta >= TimeDelta::zero() => Some(delta),
            Some(_) => self.refuse("must not be negative"),
            None => {
                self.refuse("must be a length of time: seconds, or text like 6h or 1w2d3h4m5s6ms")
            }
        }
    }

    /// A length of time of at least `min`.
    pub(crate) fn duration(&self, min: Duration) -> Option<Duration> {
        let found = self.delta()?.to_std().ok()?;
        if found < min {
            return self.refuse(format!("must be at least {} s", min.as_secs_f64()));
        }
        Some(found)
    }

    /// Decodes a mapping and refuses each key that `decode` does not read. `decode` must read all its keys, also after a
    /// problem.
    pub(crate) fn section<T>(&self, decode: impl FnOnce(&Fields<'a>) -> Option<T>) -> Option<T> {
        let fields = self.fields()?;
        let start = self.report.problems.borrow().len();
        let decoded = decode(&fields);
        let known = fields.known.into_inner();
        let unknown = fields.map.iter().filter_map(|(key, entry)| {
            if known.contains(&key.as_str()) && entry.is_text {
                return None;
            }
            let hint = match nearest(key, &known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let cursor = self.below(key, entry);
            Some(cursor.problem(format!("unknown key; {hint}")))
        });
        // Before the problems with the values of known keys.
        let unknown: Vec<_> = unknown.collect();
        let mut problems = self.report.problems.borrow_mut();
        problems.splice(start..start, unknown);
        decoded
    }

    /// The fields of a mapping that can have any other keys too.
    pub(crate) fn fields(&self) -> Option<Fields<'a>> {
        Some(Fields {
            map: self.map()?,
            cursor: self.clone(),
            known: RefCell::default(),
        })
    }
}

/// The keys of one mapping.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) map: &'a Map,
    cursor: Cursor<'a>,
    /// The keys that were read so far: those that the section knows.
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    /// Returns a key's value. A key without a value counts as absent.
    pub(crate) fn get(&self, key: &'static str) -> Option<Cursor<'a>> {
        self.known.borrow_mut().push(key);
        let entry = self.map.get(key)?;
        (!matches!(entry.value.data, Data::Null)).then(|| self.cursor.below(key, entry))
    }

    /// Decodes a key's value.
    pub(crate) fn read<T>(
        &self,
        key: &'static str,
        decode: impl FnOnce(&Cursor<'a>) -> Option<T>,
    ) -> Option<T> {
        decode(&self.get(key)?)
    }

    /// Decodes a key's value. Returns `default` if the key is absent or its value is wrong.
    pub(crate) fn read_or<T>(
        &self,
        key: &'static str,
        default: T,
        decode: impl FnOnce(&Cursor<'a>) -> Option<T>,
    ) -> T {
        self.read(key, decode).unwrap_or(default)
    }

    /// Decodes the value of a required key.
    pub(crate) fn read_required<T>(
        &self,
        key: &'static str,
        decode: impl FnOnce(&Cursor<'a>) -> Option<T>,
    ) -> Option<T> {
        decode(&self.require(key)?)
    }

    /// Returns the value of a required key.
    pub(crate) fn require(&self, key: &'static str) -> Option<Cursor<'a>> {
        self.get(key).or_else(|| {
            self.cursor
                .refuse(format!("the key {key} is missing; add it"))
        })
    }
}

/// Parses a whole number: whitespace around it, a sign, single underscores between digits, a fraction of zeros.
fn parse_integer(text: &str) -> Option<i128> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let well_formed = digits
        .split('_')
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if !well_formed || fraction.is_empty() || fraction.bytes().any(|b| b != b'0') {
        return None;
    }
    whole.replace('_', "").parse().ok()
}

/// The known word that is most similar to a mistyped word, if one is similar enough.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let word = plain(word);
    known
        .iter()
        .map(|candidate| (levenshtein(&word, &plain(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance * 2 <= candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
