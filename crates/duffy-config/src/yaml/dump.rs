//! Prints plain JSON values as YAML, in the form of PyYAML's safe dumper: block style, sorted keys, ASCII.

use serde_json::{Map, Value};

use super::scalar::{self, Tag};

/// Lines are folded at the first blank after this column.
const WIDTH: usize = 80;
/// Keys of this many characters or more get the long form: PyYAML's 128, of which it reserves five for a tag.
const MAX_SIMPLE_KEY: usize = 123;
/// Characters whose escapes are a single letter, and these letters in the same order.
const ESCAPED: &str = "\0\u{7}\u{8}\t\n\u{b}\u{c}\r\u{1b}\"\\\u{85}\u{a0}\u{2028}\u{2029}";
const ESCAPES: &str = "0abtnvfre\"\\N_LP";

/// Prints the value as YAML text that ends with a line break, byte for byte as Python's `yaml.safe_dump(value)`.
pub fn dump(value: &Value) -> String {
    let mut emitter = Emitter {
        out: String::new(),
        column: 0,
        indent: None,
        whitespace: true,
        indention: true,
        open_ended: false,
    };
    emitter.emit(value, Position::Root);
    emitter.write_indent();
    if emitter.open_ended {
        emitter.out.push_str("...\n");
    }
    emitter.out
}

/// Where a node is.
#[derive(Clone, Copy, PartialEq)]
enum Position {
    Root,
    Item,
    /// A key before a colon on the same line.
    SimpleKey,
    /// A mapping's value, or a key after a question mark.
    Value,
}

struct Emitter {
    out: String,
    column: usize,
    indent: Option<usize>,
    /// Whether the last character was a blank, a line break or nothing.
    whitespace: bool,
    /// Whether the line contains only indentation and `-` or `?` so far.
    indention: bool,
    /// Whether a plain scalar at the root needs the end marker.
    open_ended: bool,
}

impl Emitter {
    fn emit(&mut self, value: &Value, position: Position) {
        match value {
            Value::Null | Value::Bool(_) => self.emit_scalar("", &value.to_string(), position),
            Value::Number(number) => self.emit_scalar("", &print_number(number), position),
            Value::String(text) => self.emit_text(text, position),
            Value::Array(items) if items.is_empty() => self.write_indicator("[]", true, false),
            Value::Array(items) => self.emit_sequence(items, position),
            Value::Object(map) if map.is_empty() => self.write_indicator("{}", true, false),
            Value::Object(map) => self.emit_mapping(map),
        }
    }

    /// Runs `write` with a larger indentation: `root` if there is none yet.
    fn indented(&mut self, root: usize, more: usize, write: impl FnOnce(&mut Self)) {
        let saved = self.indent;
        self.indent = Some(saved.map_or(root, |indent| indent + more));
        write(self);
        self.indent = saved;
    }

    fn emit_sequence(&mut self, items: &[Value], position: Position) {
        let indentless = position == Position::Value && !self.indention;
        self.indented(0, if indentless { 0 } else { 2 }, |emitter| {
            for item in items {
                emitter.write_indent();
                emitter.write_indicator("-", true, true);
                emitter.emit(item, Position::Item);
            }
        });
    }

    fn emit_mapping(&mut self, map: &Map<String, Value>) {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        self.indented(0, 2, |emitter| {
            for (key, value) in entries {
                emitter.write_indent();
                let is_simple = !key.is_empty()
                    && key.chars().count() < MAX_SIMPLE_KEY
                    && !key.contains(['\n', '\u{85}', '\u{2028}', '\u{2029}']);
                if is_simple {
                    emitter.emit_text(key, Position::SimpleKey);
                    emitter.write_indicator(":", false, false);
                } else {
                    emitter.write_indicator("?", true, true);
                    emitter.emit_text(key, Position::Value);
                    emitter.write_indent();
                    emitter.write_indicator(":", true, true);
                }
                emitter.emit(value, Position::Value);
            }
        });
    }

    fn emit_text(&mut self, text: &str, position: Position) {
        let fits_single_quotes =
            text.chars().all(is_printable) && !text.contains("\n ") && !text.contains(" \n");
        let quote = match fits_single_quotes {
            true if is_plain(text) => "",
            true => "'",
            false => "\"",
        };
        self.emit_scalar(quote, text, position);
    }

    /// Prints a text between quotes, or plain if `quote` is empty.
    fn emit_scalar(&mut self, quote: &str, text: &str, position: Position) {
        self.open_ended |= quote.is_empty() && position == Position::Root;
        let split = position != Position::SimpleKey;
        self.write_indicator(quote, true, false);
        self.indented(2, 2, |emitter| match quote {
            "" => emitter.write_folded(text, split),
            "'" => emitter.write_folded(&text.replace('\'', "''"), split),
            _ => emitter.write_escaped(text, split),
        });
        self.write_indicator(quote, false, false);
    }

    /// Writes runs of blanks, of line breaks and of other characters. Folds a line at a single blank inside the text.
    fn write_folded(&mut self, text: &str, split: bool) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let kind = |c| (c == ' ', c == '\n');
            let end = rest.find(|c| kind(c) != kind(first));
            let (run, after) = rest.split_at(end.unwrap_or(rest.len()));
            let inside = rest.len() < text.len() && !after.is_empty();
            if first == '\n' {
                // A line break in quotes reads as a blank: one more makes it a line break again.
                for _ in 0..=run.len() {
                    self.write_line_break();
                }
                self.write_indent();
            } else if run == " " && inside && split && self.column > WIDTH {
                self.write_indent();
            } else {
                self.write(run);
            }
            rest = after;
        }
    }

    /// Writes a text for double quotes. Folds a line at blanks and escapes, as PyYAML does.
    fn write_escaped(&mut self, text: &str, split: bool) {
        let mut after_escape = false;
        let mut chars = text.chars().enumerate().peekable();
        while let Some((index, c)) = chars.next() {
            let is_escape = matches!(c, '"' | '\\' | '\n') || !is_printable(c);
            if is_escape {
                self.write(&escape(c));
            }
            let next = chars.peek().map(|(_, next)| *next);
            // PyYAML folds after an escape, but before another character; and it counts one column less after an escape.
            let (column, continued) = if is_escape {
                (self.column - 1, next)
            } else {
                (self.column, Some(c))
            };
            let may_fold = is_escape || after_escape || c == ' ';
            if may_fold && index > 0 && next.is_some() && split && column > WIDTH {
                self.write("\\");
                self.write_indent();
                if continued == Some(' ') {
                    self.write("\\");
                }
            }
            if !is_escape {
                self.write(c.encode_utf8(&mut [0; 4]));
            }
            after_escape = is_escape;
        }
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
            self.write_line_break();
        }
        if self.column < indent {
            self.whitespace = true;
            let missing = indent - self.column;
            self.write(&" ".repeat(missing));
        }
    }

    fn write_line_break(&mut self) {
        self.whitespace = true;
        self.indention = true;
        self.column = 0;
        self.out.push('\n');
    }
}

/// Whether a character needs no escape in a text; of the line breaks, only `\n`.
fn is_printable(c: char) -> bool {
    c == '\n' || (' '..='~').contains(&c)
}

/// Whether a text of printable characters reads back as the same text without quotes.
fn is_plain(text: &str) -> bool {
    let starts_as_syntax = text.starts_with([
        '#', ',', '[', ']', '{', '}', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', ' ',
    ]);
    let is_syntax = starts_as_syntax
        || text.ends_with([':', ' '])
        || matches!(text, "?" | "-")
        || ["? ", "- ", "---", "..."]
            .iter()
            .any(|start| text.starts_with(start))
        || [": ", " #", "\n"].iter().any(|part| text.contains(part));
    !is_syntax && !text.is_empty() && scalar::resolve(text) == Tag::Str
}

fn escape(c: char) -> String {
    let mut letters = ESCAPED.chars().zip(ESCAPES.chars());
    if let Some((_, letter)) = letters.find(|(escaped, _)| *escaped == c) {
        return format!("\\{letter}");
    }
    let code = u32::from(c);
    match code {
        0..=0xff => format!("\\x{code:02X}"),
        0x100..=0xffff => format!("\\u{code:04X}"),
        _ => format!("\\U{code:08X}"),
    }
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
