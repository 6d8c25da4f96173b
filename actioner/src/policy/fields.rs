//! Walking the tree: mappings whose every key must be asked for, lists, and the path that names each in messages.

use super::problem::{Log, Place};
use super::tree::{Key, Kind, Node};
use crate::foreign::shorten;

/// A value and the path to it, such as `rules[].require.source`.
#[derive(Debug, Clone)]
pub(super) struct Field<'n> {
    pub(super) path: String,
    pub(super) node: &'n Node,
}

impl<'n> Field<'n> {
    pub(super) fn new(path: impl Into<String>, node: &'n Node) -> Self {
        Self { path: path.into(), node }
    }

    pub(super) fn place(&self) -> Place {
        self.node.place
    }

    /// "`path` must be `what`, found …". Silent about what was refused already.
    pub(super) fn expected(&self, what: &str, log: &mut Log<'_>) {
        if !matches!(self.node.kind, Kind::Refused) {
            let path = if self.path.is_empty() { "the file".to_owned() } else { format!("`{}`", self.path) };
            log.error(self.place(), format!("{path} must be {what}, found {}", self.node.describe()));
        }
    }

    /// The mapping that must stand here.
    pub(super) fn fields(&self, log: &mut Log<'_>) -> Option<Fields<'n>> {
        let fields = self.fields_quietly();
        if fields.is_none() {
            self.expected("a mapping of keys to values", log);
        }
        fields
    }

    /// The mapping, if one stands here.
    pub(super) fn fields_quietly(&self) -> Option<Fields<'n>> {
        let Kind::Map(entries) = &self.node.kind else { return None };
        Some(Fields { path: self.path.clone(), place: self.place(), entries, known: Vec::new() })
    }

    /// The items of the list that must stand here.
    pub(super) fn items(&self, log: &mut Log<'_>) -> Option<Vec<Field<'n>>> {
        let items = self.items_quietly();
        if items.is_none() {
            self.expected("a list, such as [a, b]", log);
        }
        items
    }

    /// The items, if a list stands here.
    pub(super) fn items_quietly(&self) -> Option<Vec<Field<'n>>> {
        let Kind::List(items) = &self.node.kind else { return None };
        Some(items.iter().map(|node| Field { path: format!("{}[]", self.path), node }).collect())
    }

    /// The items of a list that must not be empty; `item` is the word for one of them.
    pub(super) fn filled(&self, item: &str, log: &mut Log<'_>) -> Option<Vec<Field<'n>>> {
        let items = self.items(log)?;
        if items.is_empty() {
            log.error(self.place(), format!("`{}` is empty: it needs at least one {item}", self.path));
            return None;
        }
        Some(items)
    }

    /// Whether exactly this word stands here.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(&self.node.kind, Kind::Text { text, .. } if text == word)
    }
}

/// A mapping being read. What was not asked for by the time of [`Fields::close`] is an unknown key.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    path: String,
    place: Place,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Where its path is empty the mapping is the file itself.
    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn take(&mut self, name: &'static str) -> Option<Field<'n>> {
        self.known.push(name);
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        Some(Field { path: self.path_of(name), node })
    }

    /// `why` completes the sentence that starts with "`path` is missing:".
    pub(super) fn require(&mut self, name: &'static str, why: &str, log: &mut Log<'_>) -> Option<Field<'n>> {
        let field = self.take(name);
        // A key that is nearly right is reported as such by `close`; "missing" beside it would say the same twice.
        if field.is_none() && !self.entries.iter().any(|(key, _)| nearest(&key.name, &[name]).is_some()) {
            let place = Place { width: 1, ..self.place };
            log.error(place, format!("`{}` is missing: {why}", self.path_of(name)));
        }
        field
    }

    /// All entries, for mappings whose keys are the user's.
    pub(super) fn every(self) -> impl Iterator<Item = (&'n Key, Field<'n>)> {
        self.entries.iter().map(move |(key, node)| {
            (key, Field { path: format!("{}.{}", self.path, shorten(&key.name, 40)), node })
        })
    }

    pub(super) fn close(self, log: &mut Log<'_>) {
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.known.contains(&key.name.as_str())) {
            let advice = match nearest(&key.name, &self.known) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            log.error(
                key.place,
                format!("unknown key `{}`; {advice}", shorten(&self.path_of(&key.name), 60)),
            );
        }
    }
}

/// The known word a slip of the finger away: two, or one in a short word.
fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    if word.len() > 40 {
        return None;
    }
    let folded = word.to_lowercase().replace('-', "_");
    let reach = if folded.len() <= 4 { 1 } else { 2 };
    let alike = known.iter().filter(|known| known.len().abs_diff(folded.len()) <= reach);
    let near = alike.map(|known| (distance(&folded, known), *known)).min()?;
    (near.0 <= reach).then_some(near.1)
}

/// Levenshtein's distance, two neighbours exchanged counting as one slip.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (index, row) in rows.iter_mut().enumerate() {
        row[0] = index;
    }
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[from.len()][to.len()]
}
