//! Plain JSON values to YAML, in the form that PyYAML's safe dumper gives them: block style, sorted keys, ASCII.

use serde_json::{Map, Value};

use super::scalar::{self, Tag};

/// Lines are folded at the first blank after this column.
const WIDTH: usize = 80;
/// Keys of this many characters or more get the long form: PyYAML's 128, of which it keeps five for a tag.
const MAX_SIMPLE_KEY: usize = 123;

/// The value as YAML text that ends in a line break, byte for byte as Python's `yaml.safe_dump(value)` prints it.
pub fn dump(value: &Value) -> String {
    let mut emitter = Emitter::default();
    emitter.emit(value, Context::default());
    emitter.write_indent();
    if emitter.open_ended {
        emitter.out.push_str("...\n");
    }
    emitter.out
}

/// Where a node stands.
#[derive(Default, Clone, Copy)]
struct Context {
    in_mapping: bool,
    simple_key: bool,
    in_collection: bool,
}

const IN_SEQUENCE: Context = Context {
    in_mapping: false,
    simple_key: false,
    in_collection: true,
};
const IN_MAPPING: Context = Context {
    in_mapping: true,
    simple_key: false,
    in_collection: true,
};
const SIMPLE_KEY: Context = Context {
    in_mapping: true,
    simple_key: true,
    in_collection: true,
};

struct Emitter {
    out: String,
    column: usize,
    indent: Option<usize>,
    /// Whether the last character was a blank, a line break or nothing.
    whitespace: bool,
    /// Whether the line holds only indentation and `-` or `?` so far.
    indention: bool,
    /// Whether a plain scalar at the root needs the end marker.
    open_ended: bool,
}

impl Default for Emitter {
    fn default() -> Self {
        Self {
            out: String::new(),
            column: 0,
            indent: None,
            whitespace: true,
            indention: true,
            open_ended: false,
        }
    }
}

impl Emitter {
    fn emit(&mut self, value: &Value, context: Context) {
        match value {
            Value::Null => self.emit_plain("null", context),
            Value::Bool(true) => self.emit_plain("true", context),
            Value::Bool(false) => self.emit_plain("false", context),
            Value::Number(number) => self.emit_plain(&print_number(number), context),
            Value::String(text) => self.emit_text(text, context),
            Value::Array(items) if items.is_empty() => self.write_indicator("[]", true, false),
            Value::Array(items) => self.emit_sequence(items, context),
            Value::Object(map) if map.is_empty() => self.write_indicator("{}", true, false),
            Value::Object(map) => self.emit_mapping(map),
        }
    }

    fn emit_sequence(&mut self, items: &[Value], context: Context) {
        let saved = self.indent;
        let indentless = context.in_mapping && !self.indention;
        self.indent = Some(match saved {
            None => 0,
            Some(indent) if indentless => indent,
            Some(indent) => indent + 2,
        });
        for item in items {
            self.write_indent();
            self.write_indicator("-", true, true);
            self.emit(item, IN_SEQUENCE);
        }
        self.indent = saved;
    }

    fn emit_mapping(&mut self, map: &Map<String, Value>) {
        let saved = self.indent;
        self.indent = Some(saved.map_or(0, |indent| indent + 2));
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        for (key, value) in entries {
            self.write_indent();
            let is_simple = !key.is_empty()
                && key.chars().count() < MAX_SIMPLE_KEY
                && !key.chars().any(is_line_break);
            if is_simple {
                self.emit_text(key, SIMPLE_KEY);
                self.write_indicator(":", false, false);
            } else {
                self.write_indicator("?", true, true);
                self.emit_text(key, IN_MAPPING);
                self.write_indent();
                self.write_indicator(":", true, true);
            }
            self.emit(value, IN_MAPPING);
        }
        self.indent = saved;
    }

    fn emit_text(&mut self, text: &str, context: Context) {
        let forms = analyze(text);
        if forms.plain && scalar::resolve(text) == Tag::Str && !text.is_empty() {
            self.emit_plain(text, context);
            return;
        }
        let saved = self.indent;
        self.indent = Some(saved.map_or(2, |indent| indent + 2));
        let chars: Vec<char> = text.chars().collect();
        if forms.single_quoted {
            self.write_single_quoted(&chars, !context.simple_key);
        } else {
            self.write_double_quoted(&chars, !context.simple_key);
        }
        self.indent = saved;
    }

    fn emit_plain(&mut self, text: &str, context: Context) {
        let saved = self.indent;
        self.indent = Some(saved.map_or(2, |indent| indent + 2));
        if !context.in_collection {
            self.open_ended = true;
        }
        if !self.whitespace {
            self.write(" ");
        }
        self.whitespace = false;
        self.indention = false;
        let mut rest = text;
        // Words and runs of blanks in turn; a line is broken at a single blank only.
        while !rest.is_empty() {
            let end = rest.find(' ').unwrap_or(rest.len());
            self.write(&rest[..end]);
            rest = &rest[end..];
            let blanks = rest.len() - rest.trim_start_matches(' ').len();
            if blanks == 1 && self.column > WIDTH && !context.simple_key {
                self.write_indent();
                self.whitespace = false;
                self.indention = false;
            } else {
                self.write(&rest[..blanks]);
            }
            rest = &rest[blanks..];
        }
        self.indent = saved;
    }

    fn write_single_quoted(&mut self, text: &[char], split: bool) {
        self.write_indicator("'", true, false);
        let mut index = 0;
        while let Some(&c) = text.get(index) {
            let same = |same: &dyn Fn(char) -> bool| {
                text[index..].iter().take_while(|c| same(**c)).count()
            };
            if c == ' ' {
                let count = same(&|c| c == ' ');
                let inside = index != 0 && index + count != text.len();
                if count == 1 && self.column > WIDTH && split && inside {
                    self.write_indent();
                } else {
                    self.write(&" ".repeat(count));
                }
                index += count;
            } else if is_line_break(c) {
                let count = same(&is_line_break);
                // A break in quotes reads as a blank: one more of them makes it a break again.
                if c == '\n' {
                    self.write_line_break('\n');
                }
                for &line_break in &text[index..index + count] {
                    self.write_line_break(line_break);
                }
                self.write_indent();
                index += count;
            } else if c == '\'' {
                self.write("''");
                index += 1;
            } else {
                let count = same(&|c| c != ' ' && c != '\'' && !is_line_break(c));
                let word: String = text[index..index + count].iter().collect();
                self.write(&word);
                index += count;
            }
        }
        self.write_indicator("'", false, false);
    }

    fn write_double_quoted(&mut self, text: &[char], split: bool) {
        self.write_indicator("\"", true, false);
        let (mut start, mut end) = (0, 0);
        while end <= text.len() {
            let next = text.get(end).copied();
            if next.is_none_or(|c| c == '"' || c == '\\' || !(' '..='~').contains(&c)) {
                if start < end {
                    let run: String = text[start..end].iter().collect();
                    self.write(&run);
                    start = end;
                }
                if let Some(c) = next {
                    self.write(&escape(c));
                    start = end + 1;
                }
            }
            let inside = 0 < end && end + 1 < text.len();
            // `start` is one past `end` after an escape.
            let column = (self.column + end).saturating_sub(start);
            if inside && (next == Some(' ') || start >= end) && column > WIDTH && split {
                let mut run: String = if start < end {
                    text[start..end].iter().collect()
                } else {
                    String::new()
                };
                run.push('\\');
                start = start.max(end);
                self.write(&run);
                self.write_indent();
                self.whitespace = false;
                self.indention = false;
                if text.get(start) == Some(&' ') {
                    self.write("\\");
                }
            }
            end += 1;
        }
        self.write_indicator("\"", false, false);
    }

    fn write(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn write_indicator(&mut self, indicator: &str, needs_blank: bool, indention: bool) {
        if needs_blank && !self.whitespace {
            self.write(" ");
        }
        self.write(indicator);
        self.whitespace = false;
        self.indention = self.indention && indention;
    }

    fn write_indent(&mut self) {
        let indent = self.indent.unwrap_or(0);
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.write_line_break('\n');
        }
        if self.column < indent {
            self.whitespace = true;
            let missing = indent - self.column;
            self.write(&" ".repeat(missing));
        }
    }

    fn write_line_break(&mut self, line_break: char) {
        self.whitespace = true;
        self.indention = true;
        self.column = 0;
        self.out.push(line_break);
    }
}

/// In which forms a text can stand.
struct Forms {
    plain: bool,
    single_quoted: bool,
}

fn is_line_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(c: Option<char>) -> bool {
    c.is_none_or(|c| matches!(c, '\0' | ' ' | '\t' | '\r') || is_line_break(c))
}

fn analyze(text: &str) -> Forms {
    let mut indicators = text.starts_with("---") || text.starts_with("...");
    let mut special = false;
    let mut breaks = false;
    let mut break_space = false;
    let mut space_break = false;
    let mut previous = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let followed_by_blank = is_blank(chars.peek().copied());
        indicators |= match c {
            '#' => is_blank(previous),
            ':' => followed_by_blank,
            ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
            | '`' => previous.is_none(),
            '?' | '-' => previous.is_none() && followed_by_blank,
            _ => false,
        };
        special |= !(c == '\n' || (' '..='~').contains(&c));
        breaks |= is_line_break(c);
        break_space |= c == ' ' && previous.is_some_and(is_line_break);
        space_break |= is_line_break(c) && previous == Some(' ');
        previous = Some(c);
    }
    let at_edge = |c: char| c == ' ' || is_line_break(c);
    let edges = text.starts_with(at_edge) || text.ends_with(at_edge);
    let quotable = !(break_space || space_break || special);
    Forms {
        plain: quotable && !edges && !breaks && !indicators,
        single_quoted: quotable,
    }
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            let code = u32::from(c);
            return match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

fn print_number(number: &serde_json::Number) -> String {
    let printed = crate::python::number_repr(number);
    // YAML 1.1 has no floats without a point.
    if printed.contains('.') {
        printed
    } else {
        printed.replacen('e', ".0e", 1)
    }
}
