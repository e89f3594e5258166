//! A Rust file as the rules look at it: paths, string literals and attributes, each with its line, and whether it is test code.

use std::path::{Component, Path};

/// A file of the workspace, read.
pub struct Source {
    /// Its path from the root of the checkout, with `/`.
    pub path: String,
    /// All paths that the code names, `use` groups written out.
    pub paths: Vec<Item<Vec<String>>>,
    /// The contents of all string literals.
    pub strings: Vec<Item<String>>,
    /// The words of all attributes, such as `["cfg", "test"]`.
    pub attributes: Vec<Item<Vec<String>>>,
    /// How many lines there are before the first test module.
    pub lines: usize,
    /// The first line.
    pub first_line: String,
}

/// Something found in a file.
pub struct Item<T> {
    pub line: usize,
    pub in_test: bool,
    pub value: T,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    /// `::`
    Colons,
    Sign(char),
}

impl Source {
    /// Reads a file. `path` counts from the root of the checkout.
    pub fn parse(path: &str, text: &str) -> Self {
        let tokens = tokenize(text);
        let tests = test_ranges(&tokens);
        let all_test = is_test_file(path);
        let in_test =
            |index: usize| all_test || tests.iter().any(|(from, to)| (*from..*to).contains(&index));
        let first_test = tests.first().map(|(from, _)| tokens[*from].1);

        let mut source = Self {
            path: path.to_owned(),
            paths: Vec::new(),
            strings: Vec::new(),
            attributes: Vec::new(),
            lines: first_test.map_or_else(|| text.lines().count(), |line| line - 1),
            first_line: text.lines().next().unwrap_or_default().to_owned(),
        };
        let mut index = 0;
        while index < tokens.len() {
            let (token, line) = &tokens[index];
            let (line, in_test) = (*line, in_test(index));
            match token {
                Token::Text(text) => {
                    source.strings.push(Item {
                        line,
                        in_test,
                        value: text.clone(),
                    });
                    index += 1;
                }
                Token::Word(_) => {
                    let mut found = Vec::new();
                    index = read_path(&tokens, index, &[], &mut found);
                    let items = found.into_iter();
                    source.paths.extend(items.map(|(line, value)| Item {
                        line,
                        in_test,
                        value,
                    }));
                }
                Token::Sign('#') => {
                    if let Some(value) = read_attribute(&tokens, index) {
                        source.attributes.push(Item {
                            line,
                            in_test,
                            value,
                        });
                    }
                    index += 1;
                }
                _ => index += 1,
            }
        }
        source
    }

    /// Whether the whole file is test code.
    pub fn is_test_file(&self) -> bool {
        is_test_file(&self.path)
    }
}

fn is_test_file(path: &str) -> bool {
    Path::new(path).components().any(|part| {
        matches!(part, Component::Normal(name) if name == "tests" || name == "tests.rs" || name == "benches")
    })
}

/// Reads the path that starts at `start` (`a::b::{c, d::e}` gives `a::b::c` and `a::b::d::e`); the index after it.
fn read_path(
    tokens: &[(Token, usize)],
    start: usize,
    prefix: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut index = start;
    let line = tokens[start].1;
    while let Some((Token::Word(word), _)) = tokens.get(index) {
        path.push(word.clone());
        index += 1;
        if tokens.get(index).map(|(token, _)| token) != Some(&Token::Colons) {
            break;
        }
        match tokens.get(index + 1).map(|(token, _)| token) {
            Some(Token::Word(_)) => index += 1,
            Some(Token::Sign('{')) => {
                index += 2;
                while let Some((token, _)) = tokens.get(index) {
                    match token {
                        Token::Word(_) => index = read_path(tokens, index, &path, found),
                        Token::Sign('}') => return index + 1,
                        _ => index += 1,
                    }
                }
                return index;
            }
            // A turbofish, or a glob.
            _ => {
                index += 1;
                break;
            }
        }
    }
    found.push((line, path));
    index
}

/// The words of the attribute whose `#` stands at `start`.
fn read_attribute(tokens: &[(Token, usize)], start: usize) -> Option<Vec<String>> {
    let mut index = start + 1;
    if tokens.get(index)?.0 == Token::Sign('!') {
        index += 1;
    }
    if tokens.get(index)?.0 != Token::Sign('[') {
        return None;
    }
    let (mut depth, mut words) = (0, Vec::new());
    for (token, _) in &tokens[index..] {
        match token {
            Token::Sign('[') => depth += 1,
            Token::Sign(']') => depth -= 1,
            Token::Word(word) => words.push(word.clone()),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    Some(words)
}

/// The ranges of tokens of items under `#[cfg(test)]`, the attribute included.
fn test_ranges(tokens: &[(Token, usize)]) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let is_cfg_test = tokens[index].0 == Token::Sign('#')
            && read_attribute(tokens, index).is_some_and(|words| words == ["cfg", "test"]);
        if !is_cfg_test {
            index += 1;
            continue;
        }
        // To the end of the item: its `;`, or the brace that closes its body.
        let (mut depth, mut end) = (0_i32, index + 1);
        while let Some((token, _)) = tokens.get(end) {
            end += 1;
            match token {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') if depth == 1 => break,
                Token::Sign('}') => depth -= 1,
                Token::Sign(';') if depth == 0 => break,
                _ => {}
            }
        }
        ranges.push((index, end));
        index = end;
    }
    ranges
}

/// Splits a text into words, string literals and signs with their lines; comments fall away.
fn tokenize(text: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut index, mut line) = (0, 1);
    while index < chars.len() {
        let start = index;
        let rest = &chars[index..];
        match rest {
            ['/', '/', ..] => {
                index += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
            }
            ['/', '*', ..] => index += block_comment_length(rest),
            [':', ':', ..] => {
                tokens.push((Token::Colons, line));
                index += 2;
            }
            ['\'', ..] => index += quote_length(rest),
            [first, ..] if first.is_alphabetic() || *first == '_' => {
                let length = rest
                    .iter()
                    .take_while(|c| c.is_alphanumeric() || **c == '_')
                    .count();
                let word: String = rest[..length].iter().collect();
                let literal = match word.as_str() {
                    "r" | "br" | "cr" => raw_string(&rest[length..]),
                    "b" | "c" => plain_string(&rest[length..]),
                    _ => None,
                };
                index += length;
                if let Some((text, length)) = literal {
                    tokens.push((Token::Text(text), line));
                    index += length;
                } else {
                    tokens.push((Token::Word(word), line));
                }
            }
            ['"', ..] => {
                let (text, length) = plain_string(rest).unwrap_or_default();
                tokens.push((Token::Text(text), line));
                index += length.max(1);
            }
            [first, ..] => {
                if !first.is_whitespace() {
                    tokens.push((Token::Sign(*first), line));
                }
                index += 1;
            }
            [] => break,
        }
        line += chars[start..index].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// `"…"`: the contents and the length with its quotes. Escapes stay as they are written.
fn plain_string(rest: &[char]) -> Option<(String, usize)> {
    if rest.first() != Some(&'"') {
        return None;
    }
    let mut index = 1;
    while index < rest.len() && rest[index] != '"' {
        index += if rest[index] == '\\' { 2 } else { 1 };
    }
    let end = index.min(rest.len());
    Some((rest[1..end].iter().collect(), (end + 1).min(rest.len())))
}

/// `#"…"#` after an `r`: the contents and the length with hashes and quotes.
fn raw_string(rest: &[char]) -> Option<(String, usize)> {
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    if rest.get(hashes) != Some(&'"') {
        return None;
    }
    let body = &rest[hashes + 1..];
    let closing: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let end = body
        .windows(closing.len())
        .position(|window| window == closing)
        .unwrap_or(body.len());
    let length = (hashes + 1 + end + closing.len()).min(rest.len());
    Some((body[..end].iter().collect(), length))
}

/// A character literal, or the quote of a lifetime.
fn quote_length(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, tail @ ..] => 3 + tail.iter().take_while(|c| **c != '\'').count() + 1,
        ['\'', _, '\'', ..] => 3,
        _ => 1,
    }
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut depth, mut index) = (0, 0);
    while index < rest.len() {
        match rest[index..] {
            ['/', '*', ..] => (depth, index) = (depth + 1, index + 2),
            ['*', '/', ..] => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

#[test]
fn tokens_are_told_from_comments_and_literals() {
    let words = |text: &str| -> Vec<String> {
        let tokens = tokenize(text).into_iter();
        tokens
            .map(|(token, line)| match token {
                Token::Word(word) => format!("{line}:{word}"),
                Token::Text(text) => format!("{line}:{text:?}"),
                Token::Colons => "::".to_owned(),
                Token::Sign(sign) => sign.to_string(),
            })
            .collect()
    };
    assert_eq!(words("a::b // c\n d"), ["1:a", "::", "1:b", "2:d"]);
    assert_eq!(words("a /* b /* c\n */ d */ e"), ["1:a", "2:e"]);
    let code = r#"a("b \" // c", 'd', '\'', '"', 'e)"#;
    let found = words(code);
    assert_eq!(found.len(), 9, "{found:?}");
    assert_eq!(
        (found[0].as_str(), found[7].as_str(), found[8].as_str()),
        ("1:a", "1:e", ")")
    );
    assert_eq!(
        words("r#\"a \" b\"# c\nbr\"d\" r#type"),
        ["1:\"a \\\" b\"", "1:c", "2:\"d\"", "2:r", "#", "2:type"]
    );
    assert_eq!(words("\"a\nb\" c"), ["1:\"a\\nb\"", "2:c"]);
    for unfinished in [
        "\"a", "r#\"a\"", "/* a", "'", "'\\", "\"\\", "r#", "a::", "#[",
    ] {
        Source::parse("crates/x/src/a.rs", unfinished);
    }
}

#[test]
fn paths_are_written_out() {
    let source = Source::parse(
        "crates/x/src/a.rs",
        "use a::{b, c::{self, d as e}, f::*};\nlet x = g::h::<i::j>(k);",
    );
    let paths: Vec<String> = source
        .paths
        .iter()
        .map(|path| format!("{}:{}", path.line, path.value.join("::")))
        .collect();
    let expected = [
        "1:use",
        "1:a::b",
        "1:a::c::self",
        "1:a::c::d",
        "1:a::as",
        "1:a::e",
        "1:a::f",
    ];
    for path in expected
        .iter()
        .take(4)
        .chain([&"1:a::f", &"2:g::h", &"2:i::j", &"2:k"])
    {
        assert!(
            paths.iter().any(|found| found == path),
            "{path} in {paths:?}"
        );
    }
}

#[test]
fn test_code_is_told_apart() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { c() }\n}\nfn d() {}\n#[cfg(test)]\nmod e;\nfn f() {}";
    let source = Source::parse("crates/x/src/a.rs", text);
    let in_test = |name: &str| {
        source
            .paths
            .iter()
            .find(|path| path.value == [name])
            .unwrap()
            .in_test
    };
    assert!(
        !in_test("a")
            && in_test("b")
            && in_test("c")
            && !in_test("d")
            && in_test("e")
            && !in_test("f")
    );
    assert_eq!(source.lines, 1);
    assert!(Source::parse("crates/x/tests/a.rs", "").is_test_file());
    assert!(Source::parse("crates/x/src/db/tests.rs", "").is_test_file());
    assert!(!Source::parse("crates/x/src/tester.rs", "").is_test_file());
}
