//! From values with places to typed settings, as lenient as the Python original was and no more.
//!
//! Decoding goes on after a problem, so that an operator sees all of them at once.

use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use duffy_api::duration;
use strsim::levenshtein;

use crate::error::{Mark, Problem};
use crate::yaml::{Data, Entry, Map, Node};

/// What was found wrong or odd so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
}

/// A value, its place, and the keys that lead to it.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    pub(crate) node: &'a Node,
    pub(crate) mark: &'a Mark,
    pub(crate) path: String,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(entry: &'a Entry, path: impl Into<String>) -> Self {
        Self {
            node: &entry.value,
            mark: &entry.key_mark,
            path: path.into(),
        }
    }

    fn below(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes a problem with this value. `None`, to end a decoder with.
    pub(crate) fn refuse<T>(&self, report: &mut Report, message: impl Into<String>) -> Option<T> {
        report.problems.push(Problem {
            mark: Some(self.mark.clone()),
            path: self.path.clone(),
            message: message.into(),
        });
        None
    }

    fn expected<T>(&self, report: &mut Report, wanted: &str) -> Option<T> {
        self.refuse(
            report,
            format!("must be {wanted}, not {}", self.node.describe()),
        )
    }

    /// Notes something that works but may not be meant.
    pub(crate) fn warn(&self, report: &mut Report, message: impl std::fmt::Display) {
        report
            .warnings
            .push(format!("{}: {}: {message}", self.mark, self.path));
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.data, Data::Null)
    }

    pub(crate) fn map(&self, report: &mut Report) -> Option<&'a Map> {
        match &self.node.data {
            Data::Map(map) => Some(map),
            _ => self.expected(report, "a mapping"),
        }
    }

    /// The entries of a mapping whose keys are free to choose, but text.
    pub(crate) fn entries(&self, report: &mut Report) -> Option<Vec<(&'a str, Cursor<'a>)>> {
        let map = self.map(report)?;
        let mut entries = Vec::with_capacity(map.len());
        for (key, entry) in map {
            let cursor = Cursor::new(entry, self.below(key));
            if entry.is_text {
                entries.push((key.as_str(), cursor));
            } else {
                cursor.refuse::<()>(report, "this key must be text; quote it");
            }
        }
        Some(entries)
    }

    pub(crate) fn items(&self, report: &mut Report) -> Option<Vec<Cursor<'a>>> {
        let Data::List(items) = &self.node.data else {
            return self.expected(report, "a list");
        };
        let at = |(index, node): (usize, &'a Node)| Cursor {
            node,
            mark: &node.mark,
            path: format!("{}[{index}]", self.path),
        };
        Some(items.iter().enumerate().map(at).collect())
    }

    /// Text, without a look at what it says. Numbers are refused, as they may have lost digits: `7.10`.
    pub(crate) fn text(&self, report: &mut Report) -> Option<&'a str> {
        match self.as_text() {
            Some(text) => Some(text),
            None if matches!(
                self.node.data,
                Data::Int(_) | Data::Float(_) | Data::Bool(_) | Data::Timestamp(_)
            ) =>
            {
                self.refuse(
                    report,
                    format!(
                        "must be text, not {}; put it in quotes",
                        self.node.describe()
                    ),
                )
            }
            None => self.expected(report, "text"),
        }
    }

    pub(crate) fn owned_text(&self, report: &mut Report) -> Option<String> {
        self.text(report).map(ToOwned::to_owned)
    }

    fn as_text(&self) -> Option<&'a str> {
        match &self.node.data {
            Data::Text(text) => Some(text),
            Data::Binary(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(crate) fn path_name(&self, report: &mut Report) -> Option<PathBuf> {
        self.text(report).map(PathBuf::from)
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, report: &mut Report, choices: &[(&str, T)]) -> Option<T> {
        if let Some(text) = self.as_text()
            && let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text)
        {
            return Some(*choice);
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        self.refuse(report, format!("must be one of {}", words.join(", ")))
    }

    /// Yes or no; also as text (`"yes"`, `"off"`, `"1"`, …) or as 1 or 0.
    pub(crate) fn boolean(&self, report: &mut Report) -> Option<bool> {
        let found = match &self.node.data {
            Data::Bool(value) => Some(*value),
            Data::Int(0) => Some(false),
            Data::Int(1) => Some(true),
            Data::Float(value) if *value == 0.0 => Some(false),
            Data::Float(value) if (*value - 1.0).abs() < f64::EPSILON => Some(true),
            _ => match self.as_text().map(str::to_lowercase).as_deref() {
                Some("0" | "off" | "f" | "false" | "n" | "no") => Some(false),
                Some("1" | "on" | "t" | "true" | "y" | "yes") => Some(true),
                _ => None,
            },
        };
        found.or_else(|| self.expected(report, "yes or no (true or false)"))
    }

    /// A whole number in the range; also as text (`"8080"`), or with a fraction of nothing (`8080.0`).
    pub(crate) fn integer(
        &self,
        report: &mut Report,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let wanted = match (*range.start(), *range.end()) {
            (start, i64::MAX) => format!("a whole number of at least {start}"),
            (start, end) => format!("a whole number from {start} to {end}"),
        };
        let Some(value) = self.as_integer() else {
            return self.expected(report, &wanted);
        };
        match i64::try_from(value) {
            Ok(value) if range.contains(&value) => Some(value),
            _ => self.refuse(report, format!("must be {wanted}, not {value}")),
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

    /// A number in the range; also as text.
    pub(crate) fn number(
        &self,
        report: &mut Report,
        range: std::ops::RangeInclusive<f64>,
    ) -> Option<f64> {
        let wanted = if range.end().is_infinite() {
            format!("a number of at least {}", range.start())
        } else {
            format!("a number from {} to {}", range.start(), range.end())
        };
        let value = match &self.node.data {
            Data::Int(value) => Some(*value as f64),
            Data::Float(value) => Some(*value),
            Data::Bool(value) => Some(f64::from(*value)),
            _ => self.as_text().and_then(|text| text.trim().parse().ok()),
        };
        let Some(value) = value else {
            return self.expected(report, &wanted);
        };
        if range.contains(&value) {
            Some(value)
        } else {
            self.refuse(report, format!("must be {wanted}, not {value}"))
        }
    }

    /// A length of time: seconds, or text like `1h30m`.
    pub(crate) fn delta(&self, report: &mut Report) -> Option<TimeDelta> {
        let parsed = match &self.node.data {
            Data::Int(value) => i64::try_from(*value).map_or(Err(()), |value| {
                duration::from_seconds(value as f64).map_err(drop)
            }),
            Data::Bool(value) => Ok(TimeDelta::seconds(i64::from(*value))),
            Data::Float(value) => duration::from_seconds(*value).map_err(drop),
            _ => self
                .as_text()
                .ok_or(())
                .and_then(|text| duration::parse_lifetime(text).map_err(drop)),
        };
        match parsed {
            Ok(delta) if delta >= TimeDelta::zero() => Some(delta),
            Ok(_) => self.refuse(report, "must not be negative"),
            Err(()) => self.refuse(
                report,
                "must be a length of time: seconds, or text like 6h or 1w2d3h4m5s6ms",
            ),
        }
    }

    /// A length of time that is no shorter than `min`.
    pub(crate) fn duration(&self, report: &mut Report, min: Duration) -> Option<Duration> {
        let found = self.delta(report)?.to_std().ok()?;
        if found < min {
            return self.refuse(report, format!("must be at least {} s", min.as_secs_f64()));
        }
        Some(found)
    }

    /// The fields of a section that has these keys and no others.
    pub(crate) fn fields(
        &self,
        report: &mut Report,
        known: &'static [&'static str],
    ) -> Option<Fields<'a>> {
        let map = self.map(report)?;
        for (key, entry) in map {
            if known.contains(&key.as_str()) && entry.is_text {
                continue;
            }
            let cursor = Cursor::new(entry, self.below(key));
            let hint = match nearest(key, known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known here: {}", known.join(", ")),
            };
            cursor.refuse::<()>(report, format!("unknown key; {hint}"));
        }
        Some(Fields {
            cursor: self.clone(),
            map,
        })
    }

    /// The fields of a mapping that may have others too.
    pub(crate) fn open_fields(&self, report: &mut Report) -> Option<Fields<'a>> {
        self.map(report).map(|map| Fields {
            cursor: self.clone(),
            map,
        })
    }
}

/// The keys of one section.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    cursor: Cursor<'a>,
    pub(crate) map: &'a Map,
}

impl<'a> Fields<'a> {
    /// A key's value. One without a value counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<Cursor<'a>> {
        let entry = self.map.get(key)?;
        Some(Cursor::new(entry, self.cursor.below(key))).filter(|cursor| !cursor.is_null())
    }

    /// The same, decoded.
    pub(crate) fn read<T>(
        &self,
        report: &mut Report,
        key: &str,
        decode: impl FnOnce(&Cursor<'a>, &mut Report) -> Option<T>,
    ) -> Option<T> {
        decode(&self.get(key)?, report)
    }

    /// The same of a key that must be there.
    pub(crate) fn read_required<T>(
        &self,
        report: &mut Report,
        key: &str,
        decode: impl FnOnce(&Cursor<'a>, &mut Report) -> Option<T>,
    ) -> Option<T> {
        decode(&self.require(report, key)?, report)
    }

    /// A key's value, which must be there.
    pub(crate) fn require(&self, report: &mut Report, key: &str) -> Option<Cursor<'a>> {
        self.get(key).or_else(|| {
            self.cursor
                .refuse(report, format!("the key {key} is missing; add it"))
        })
    }
}

/// Whole numbers in text: blanks around, a sign, single underscores between digits, a fraction of zeros.
fn parse_integer(text: &str) -> Option<i128> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let well_formed = digits
        .split('_')
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if !well_formed
        || fraction.bytes().any(|b| b != b'0')
        || (text.contains('.') && fraction.is_empty())
    {
        return None;
    }
    whole.replace('_', "").parse().ok()
}

/// The known word that is closest to a mistyped one, if any is close.
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
