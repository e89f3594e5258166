//! Converts parser events to a graph of raw nodes: resolves anchors and aliases, and limits what these expand to.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::error::{Mark, YamlError};

/// Limit of the nodes of one document after its aliases are resolved: far more than a real configuration has, and few
/// enough that a document of nested aliases cannot exhaust the memory.
const MAX_NODES: usize = 250_000;
/// Limit of the text in one document after its aliases are resolved, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// Limit of the nesting, aliases included.
const MAX_DEPTH: usize = 100;

/// A node before its tag is resolved.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) mark: Mark,
    /// The full tag as written; `None` if there is none, and for the non-specific `!`.
    pub(super) tag: Option<String>,
    pub(super) kind: Kind,
    /// The items of a sequence, or the keys and values of a mapping in turn.
    pub(super) children: Vec<Rc<Self>>,
    size: Size,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// `implicit`: written plain, so that its text decides its type.
    Scalar {
        text: String,
        implicit: bool,
    },
    Seq,
    Map,
}

/// The size of a node once its aliases are resolved.
#[derive(Debug, Clone, Copy)]
struct Size {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

impl Raw {
    /// The keys and values of a mapping.
    pub(super) fn pairs(&self) -> &[[Rc<Self>; 2]] {
        self.children.as_chunks().0
    }
}

pub(super) fn compose(text: &str, file: &str) -> Result<Vec<Rc<Raw>>, YamlError> {
    let options = granit_parser::options! {
        emit_comments: false,
        block_scalar_eof_without_line_feed: true,
        emit_unresolved_aliases: true,
    };
    let mut composer = Composer {
        file: Arc::from(file),
        open: Vec::new(),
        anchors: HashMap::new(),
        documents: Vec::new(),
    };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| YamlError {
            mark: composer.mark(error.marker()),
            message: format!("this is not YAML: {}", error.info()),
        })?;
        let start = span.tag_start().unwrap_or(span.start);
        composer.accept(event, composer.mark(&start))?;
    }
    Ok(composer.documents)
}

struct Composer {
    file: Arc<str>,
    /// The collections that have not ended yet, with the numbers of their anchors.
    open: Vec<(Raw, usize)>,
    anchors: HashMap<usize, Rc<Raw>>,
    documents: Vec<Rc<Raw>>,
}

impl Composer {
    fn mark(&self, marker: &Marker) -> Mark {
        Mark {
            file: Arc::clone(&self.file),
            line: marker.line(),
            column: marker.col() + 1,
        }
    }

    fn accept(&mut self, event: Event<'_>, mark: Mark) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let (tag, non_specific) = read_tag(tag.as_deref());
                // PyYAML resolves a scalar with the tag `!` by its text, whatever its style.
                let implicit = non_specific || (tag.is_none() && style == ScalarStyle::Plain);
                let text = text.into_owned();
                self.finish(raw(mark, tag, Kind::Scalar { text, implicit }), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let tag = read_tag(tag.as_deref()).0;
                self.open.push((raw(mark, tag, Kind::Seq), anchor));
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                let tag = read_tag(tag.as_deref()).0;
                self.open.push((raw(mark, tag, Kind::Map), anchor));
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some((raw, anchor)) => self.finish(raw, anchor),
                None => Ok(()),
            },
            Event::Alias(id) => self.resolve_alias(id, mark),
            Event::UnresolvedAlias(name) => Err(YamlError {
                mark,
                message: format!(
                    "the alias *{name} has no anchor; write &{name} before the value it stands for, earlier in the document"
                ),
            }),
            _ => Ok(()),
        }
    }

    fn resolve_alias(&mut self, id: usize, mark: Mark) -> Result<(), YamlError> {
        if let Some(target) = self.anchors.get(&id) {
            return self.attach(Rc::clone(target), &mark);
        }
        let message = if self.open.iter().any(|(_, anchor)| *anchor == id) {
            "this alias is inside the value that it names, which would never end; write the value out"
        } else {
            "this alias has no anchor; define it earlier in the document"
        };
        Err(YamlError {
            mark,
            message: message.into(),
        })
    }

    fn finish(&mut self, raw: Raw, anchor: usize) -> Result<(), YamlError> {
        let mark = raw.mark.clone();
        let raw = Rc::new(raw);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&raw));
        }
        self.attach(raw, &mark)
    }

    /// Adds a node to the collection that it is in.
    fn attach(&mut self, raw: Rc<Raw>, mark: &Mark) -> Result<(), YamlError> {
        let Size {
            nodes,
            bytes,
            depth,
        } = raw.size;
        let message = if nodes > MAX_NODES || bytes > MAX_BYTES {
            format!(
                "aliases make this more than {MAX_NODES} values or {MAX_BYTES} bytes; use fewer aliases inside one another"
            )
        } else if depth + self.open.len() > MAX_DEPTH {
            format!("values are nested more than {MAX_DEPTH} deep here; flatten them")
        } else {
            match self.open.last_mut() {
                Some((parent, _)) => {
                    parent.size.nodes = parent.size.nodes.saturating_add(nodes);
                    parent.size.bytes = parent.size.bytes.saturating_add(bytes);
                    parent.size.depth = parent.size.depth.max(depth + 1);
                    parent.children.push(raw);
                }
                None => self.documents.push(raw),
            }
            return Ok(());
        };
        Err(YamlError {
            mark: mark.clone(),
            message,
        })
    }
}

/// A node without children.
fn raw(mark: Mark, tag: Option<String>, kind: Kind) -> Raw {
    let bytes = match &kind {
        Kind::Scalar { text, .. } => text.len(),
        Kind::Seq | Kind::Map => 0,
    };
    Raw {
        mark,
        tag,
        kind,
        children: Vec::new(),
        size: Size {
            nodes: 1,
            bytes,
            depth: 1,
        },
    }
}

/// Returns the full tag, and whether it is the non-specific `!`.
fn read_tag(tag: Option<&Tag>) -> (Option<String>, bool) {
    let full = tag.map(|tag| format!("{}{}", tag.handle(), tag.suffix()));
    let non_specific = full.as_deref() == Some("!");
    (full.filter(|_| !non_specific), non_specific)
}
