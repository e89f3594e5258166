//! Python's regular expressions, as `re.match` applies them.

use fancy_regex::{Regex, RegexBuilder};

/// A regular expression that is matched at the beginning of a text.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    /// Whether the end can be before a final line break, as with Python's `$` and not with its `\\Z`.
    overlooks_break: bool,
}

/// Limit of backtracking steps per match: a text from a client must not keep a core busy. Python has no limit.
const STEPS: usize = 100_000;

impl Pattern {
    /// Parses a regular expression. Returns the problem in one line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // Each alternative of `^a|b$` must match at the beginning of the text.
        let anchored = format!("\\A(?:{})", translate(text));
        RegexBuilder::new(&anchored)
            .backtrack_limit(STEPS)
            .build()
            .map(|regex| Self {
                regex,
                overlooks_break: !text.contains("\\Z"),
            })
            .map_err(|error| {
                let words = error.to_string();
                words.split_whitespace().collect::<Vec<_>>().join(" ")
            })
    }

    /// Whether it matches. It does not if that takes too many steps.
    pub fn matches(&self, text: &str) -> bool {
        let found = |text| self.regex.is_match(text).unwrap_or(false);
        found(text) || (self.overlooks_break && text.strip_suffix('\n').is_some_and(found))
    }
}

/// Translates Python's syntax where it has another meaning in Rust.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    // Inside brackets: how many characters of the set were seen.
    let mut set: Option<usize> = None;
    while let Some(c) = rest.next() {
        match (c, set) {
            ('\\', _) => match (rest.next(), set) {
                (Some('Z'), None) => out.push_str("\\z"),
                (Some('b'), Some(_)) => out.push_str("\\x08"),
                (Some(escaped), _) => out.extend(['\\', escaped]),
                (None, _) => out.push('\\'),
            },
            ('[', None) => {
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                set = Some(0);
                continue;
            }
            (']', Some(1..)) => {
                out.push(']');
                set = None;
            }
            // Only Rust has sets in sets and operations on them.
            ('[' | ']' | '&' | '~', Some(_)) => out.extend(['\\', c]),
            ('{', None) => match quantifier(&rest.clone().collect::<String>()) {
                Some((min, length)) => {
                    out.push('{');
                    out.push_str(&min);
                    for _ in 0..length {
                        out.extend(rest.next());
                    }
                }
                None => out.push_str("\\{"),
            },
            ('}', None) => out.push_str("\\}"),
            _ => out.push(c),
        }
        set = set.map(|seen| seen + 1);
    }
    out
}

/// If the text after `{` is a quantifier, returns a missing minimum, and the length up to and including `}`.
fn quantifier(rest: &str) -> Option<(String, usize)> {
    let (inner, _) = rest.split_once('}')?;
    let (min, max) = inner.split_once(',').unwrap_or((inner, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let counts = !min.is_empty() || inner.contains(',');
    // `{,}` is a quantifier in Python too.
    let missing = if min.is_empty() { "0" } else { "" };
    (counts && digits(min) && digits(max)).then(|| (missing.to_owned(), inner.len() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn each_alternative_begins_at_the_beginning() {
        assert!(matches("^aarch64|ppc64le$", "ppc64le"));
        assert!(matches("^aarch64|ppc64le$", "aarch64_be"));
        assert!(!matches("^aarch64|ppc64le$", "xppc64le"));
    }

    #[test]
    fn a_pattern_that_would_take_for_ever_matches_nothing() {
        let pattern = Pattern::parse(r"^(?:(a+)+\1)+$").unwrap();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(60))));
    }

    #[test]
    fn wrong_patterns_are_told_in_one_line() {
        for text in ["^(a$", "^a**b)$", "^[b-a]$", "^(?P<n>a)(?P=m)$"] {
            let cause = Pattern::parse(text).unwrap_err();
            assert!(
                !cause.is_empty() && !cause.contains('\n'),
                "{text}: {cause}"
            );
        }
    }

    #[test]
    fn braces_are_text_unless_they_count() {
        assert_eq!(
            translate("^a{2}b{,3}c{1,}d{x}{}$"),
            r"^a{2}b{0,3}c{1,}d\{x\}\{\}$"
        );
        assert_eq!(translate(r"^[]a\]]\}{,}$"), r"^[\]a\]]\}{0,}$");
    }
}
