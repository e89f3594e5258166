//! Parser events to a graph of raw nodes: anchors, aliases, and limits on what they expand to.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::{MAX_BYTES, MAX_DEPTH, MAX_NODES};
use crate::error::{Mark, YamlError};

/// A node before its tag is resolved.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) mark: Mark,
    /// The full tag as written, `None` when there is none or the non-specific `!`.
    pub(super) tag: Option<String>,
    pub(super) kind: Kind,
    size: Size,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// `implicit`: written plain, so that its text decides its type.
    Scalar {
        text: String,
        implicit: bool,
    },
    Seq(Vec<Rc<Raw>>),
    Map(Vec<(Rc<Raw>, Rc<Raw>)>),
}

/// How much a node holds once its aliases are resolved.
#[derive(Debug, Clone, Copy)]
struct Size {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

/// A collection whose end has not come yet.
struct Open {
    mark: Mark,
    tag: Option<String>,
    anchor: usize,
    is_map: bool,
    children: Vec<Rc<Raw>>,
}

pub(super) fn compose(text: &str, file: &str) -> Result<Vec<Rc<Raw>>, YamlError> {
    let options = granit_parser::options! {
        emit_comments: false,
        block_scalar_eof_without_line_feed: true,
        emit_unresolved_aliases: true,
    };
    let mut composer = Composer {
        file: Arc::from(file),
        stack: Vec::new(),
        anchors: HashMap::new(),
        unfinished: HashSet::new(),
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
    stack: Vec<Open>,
    anchors: HashMap<usize, Rc<Raw>>,
    unfinished: HashSet<usize>,
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
                let size = Size {
                    nodes: 1,
                    bytes: text.len(),
                    depth: 1,
                };
                let kind = Kind::Scalar {
                    text: text.into_owned(),
                    implicit,
                };
                self.finish_node(
                    Raw {
                        mark,
                        tag,
                        kind,
                        size,
                    },
                    anchor,
                )
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(mark, read_tag(tag.as_deref()).0, anchor, false);
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(mark, read_tag(tag.as_deref()).0, anchor, true);
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
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

    fn open(&mut self, mark: Mark, tag: Option<String>, anchor: usize, is_map: bool) {
        if anchor != 0 {
            self.unfinished.insert(anchor);
        }
        self.stack.push(Open {
            mark,
            tag,
            anchor,
            is_map,
            children: Vec::new(),
        });
    }

    fn close(&mut self) -> Result<(), YamlError> {
        let Some(open) = self.stack.pop() else {
            return Ok(());
        };
        let size = open.children.iter().fold(
            Size {
                nodes: 1,
                bytes: 0,
                depth: 1,
            },
            |sum, child| Size {
                nodes: sum.nodes.saturating_add(child.size.nodes),
                bytes: sum.bytes.saturating_add(child.size.bytes),
                depth: sum.depth.max(child.size.depth + 1),
            },
        );
        let kind = if open.is_map {
            let mut pairs = Vec::with_capacity(open.children.len() / 2);
            let mut children = open.children.into_iter();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                pairs.push((key, value));
            }
            Kind::Map(pairs)
        } else {
            Kind::Seq(open.children)
        };
        self.unfinished.remove(&open.anchor);
        self.finish_node(
            Raw {
                mark: open.mark,
                tag: open.tag,
                kind,
                size,
            },
            open.anchor,
        )
    }

    fn resolve_alias(&mut self, id: usize, mark: Mark) -> Result<(), YamlError> {
        if let Some(target) = self.anchors.get(&id) {
            let target = Rc::clone(target);
            return self.attach(target, &mark);
        }
        let message = if self.unfinished.contains(&id) {
            "this alias stands inside the value that it names, which would never end; write the value out"
        } else {
            "this alias has no anchor; define it earlier in the document"
        };
        Err(YamlError {
            mark,
            message: message.into(),
        })
    }

    fn finish_node(&mut self, raw: Raw, anchor: usize) -> Result<(), YamlError> {
        let mark = raw.mark.clone();
        let raw = Rc::new(raw);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&raw));
        }
        self.attach(raw, &mark)
    }

    fn attach(&mut self, raw: Rc<Raw>, mark: &Mark) -> Result<(), YamlError> {
        let Size {
            nodes,
            bytes,
            depth,
        } = raw.size;
        if nodes > MAX_NODES || bytes > MAX_BYTES {
            let message = format!(
                "aliases make this more than {MAX_NODES} values or {MAX_BYTES} bytes; use fewer aliases inside one another"
            );
            return Err(YamlError {
                mark: mark.clone(),
                message,
            });
        }
        if depth + self.stack.len() > MAX_DEPTH {
            let message =
                format!("values are nested more than {MAX_DEPTH} deep here; flatten them");
            return Err(YamlError {
                mark: mark.clone(),
                message,
            });
        }
        match self.stack.last_mut() {
            Some(parent) => parent.children.push(raw),
            None => self.documents.push(raw),
        }
        Ok(())
    }
}

/// The full tag, and whether it is the non-specific `!`.
fn read_tag(tag: Option<&Tag>) -> (Option<String>, bool) {
    let Some(tag) = tag else { return (None, false) };
    let full = format!("{}{}", tag.handle(), tag.suffix());
    if full == "!" {
        (None, true)
    } else {
        (Some(full), false)
    }
}
