//! A policy's text as a tree in which every key and value knows its place. serde would stop at the first thing it
//! does not like; from this tree all of them can be reported.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use serde_yaml::granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Span};

use super::problem::{Log, Place};
use crate::foreign::shorten;

/// Keys, values, lists and mappings of one file together.
const MAX_NODES: usize = 100_000;
/// A policy nests six deep.
const MAX_DEPTH: usize = 32;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// `plain`: without quotes.
    Text {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// Already reported; readers pass over it.
    Refused,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

impl Node {
    /// What stands there, for a sentence "…, found …".
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Text { .. } if self.is_nothing() => "nothing".to_owned(),
            Kind::Text { text, plain: true } => format!("`{}`", shorten(text, 60)),
            Kind::Text { text, plain: false } => format!("the quoted text \"{}\"", shorten(text, 60)),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a mapping".to_owned(),
            Kind::Refused => "what is refused above".to_owned(),
        }
    }

    /// YAML's null in each of its spellings.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(&self.kind, Kind::Text { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }
}

/// Reads one document. `None` after an error that leaves no tree; errors beside which a tree makes sense (a doubled
/// key, an alias) are logged and the tree is returned.
pub(super) fn parse(text: &str, log: &mut Log<'_>) -> Option<Node> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder { open: Vec::new(), root: None, nodes: 0 };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.take(event, &span, log).ok()?,
            Err(error) => {
                log.error(point(*error.marker()), format!("not valid YAML: {}", shorten(&error.info(), 200)));
                return None;
            }
        }
    }
    if builder.root.is_none() {
        log.error(
            Place::default(),
            "the file is empty: a policy needs at least `never_ban`, and rules to do anything",
        );
    }
    builder.root
}

/// The tree cannot be finished; why is in the log.
struct GivenUp;

struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

/// A list or mapping whose end has not come yet.
struct Open {
    place: Place,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        /// `Some(None)`: a key that was refused.
        key: Option<Option<Key>>,
        first_lines: HashMap<String, usize, RandomState>,
    },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span, log: &mut Log<'_>) -> Result<(), GivenUp> {
        let place = extent(span);
        if event.is_node() || event.is_alias() {
            self.count(place, log)?;
            if event.anchor_id().is_some() {
                log.error(
                    place,
                    "anchors (&name) are not accepted in a policy: write the value out where it counts",
                );
            }
            if event.tag().is_some() {
                log.error(place, "tags (!name) are not accepted in a policy");
            }
        }
        match event {
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                self.add(Node { place, kind: Kind::Text { text: text.into_owned(), plain } }, log);
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                log.error(
                    place,
                    "aliases (*name) are not accepted in a policy: write the value out where it counts",
                );
                self.add(Node { place, kind: Kind::Refused }, log);
            }
            Event::SequenceStart(..) => self.descend(place, Content::List(Vec::new()), log)?,
            Event::MappingStart(..) => {
                let content =
                    Content::Map { entries: Vec::new(), key: None, first_lines: HashMap::default() };
                self.descend(place, content, log)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.ascend(log),
            Event::DocumentStart(..) if self.root.is_some() => {
                log.error(place, "a second document (---) begins here: a policy is one document");
                return Err(GivenUp);
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, place: Place, log: &mut Log<'_>) -> Result<(), GivenUp> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            log.error(
                place,
                format!(
                    "more than {MAX_NODES} keys and values: put long lists of networks into never_ban_files"
                ),
            );
            return Err(GivenUp);
        }
        Ok(())
    }

    fn descend(&mut self, place: Place, content: Content, log: &mut Log<'_>) -> Result<(), GivenUp> {
        if self.open.len() == MAX_DEPTH {
            log.error(place, format!("nested more than {MAX_DEPTH} deep"));
            return Err(GivenUp);
        }
        self.open.push(Open { place, content });
        Ok(())
    }

    fn ascend(&mut self, log: &mut Log<'_>) {
        let Some(Open { place, content }) = self.open.pop() else { return };
        let kind = match content {
            Content::List(items) => Kind::List(items),
            Content::Map { entries, .. } => Kind::Map(entries),
        };
        self.add(Node { place, kind }, log);
    }

    fn add(&mut self, node: Node, log: &mut Log<'_>) {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key, first_lines }) => match key.take() {
                None => *key = Some(as_key(node, first_lines, log)),
                Some(Some(key)) => entries.push((key, node)),
                Some(None) => {}
            },
        }
    }
}

/// A doubled key is refused with its value; the first stays, so that what follows is judged as if it stood alone.
fn as_key(
    node: Node,
    first_lines: &mut HashMap<String, usize, RandomState>,
    log: &mut Log<'_>,
) -> Option<Key> {
    let place = node.place;
    let Kind::Text { text: name, .. } = node.kind else {
        if !matches!(node.kind, Kind::Refused) {
            log.error(place, "a key must be a word, not a list or mapping");
        }
        return None;
    };
    if let Some(first) = first_lines.get(&name) {
        log.error(
            place,
            format!("the key `{}` stands twice: the first is on line {first}", shorten(&name, 60)),
        );
        return None;
    }
    first_lines.insert(name.clone(), place.line);
    Some(Key { place, name })
}

fn point(marker: Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1, width: 1 }
}

fn extent(span: &Span) -> Place {
    let (start, end) = (span.start, span.end);
    // What goes on over more lines is marked to the end of its first; the excerpt cuts it there.
    let width = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { usize::MAX };
    Place { width: width.max(1), ..point(start) }
}
