//! Lists of networks, in the policy itself and in files with one on each line.

use super::super::fields::Field;
use super::super::problem::{Log, Place};
use super::super::settings::NeverBan;
use super::super::{files, network};
use super::Walk;

/// A list of addresses and networks, and the word `private`.
pub(super) fn list(field: &Field<'_>, log: &mut Log<'_>) -> NeverBan {
    let mut never = NeverBan::default();
    for item in field.items(log).unwrap_or_default() {
        if item.is("private") {
            never.private = true;
        } else if let Some(network) = item.network(" or the word private", log) {
            never.networks.push(network);
        }
    }
    never
}

/// Adds what the files named by these patterns list.
pub(super) fn files(field: &Field<'_>, never: &mut NeverBan, walk: &mut Walk<'_>, log: &mut Log<'_>) {
    walk.each_file(field, files::MAX_NETWORKS, log, |walk, name, text| {
        let mut log = Log::new(name, text);
        for (index, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            let column = 1 + line.chars().take_while(|c| c.is_whitespace()).count();
            let place = Place { line: index + 1, column, width: entry.chars().count() };
            match (entry, network::parse(entry)) {
                ("", _) => {}
                ("private", _) => never.private = true,
                (_, Ok(network)) => never.networks.push(network),
                (_, Err(error)) => log.error(place, error.to_string()),
            }
        }
        walk.included.absorb(log);
    });
}

impl Walk<'_> {
    /// Reads each file that the field's patterns name, once, in name order.
    pub(super) fn each_file(
        &mut self,
        field: &Field<'_>,
        limit: u64,
        log: &mut Log<'_>,
        mut each: impl FnMut(&mut Self, &str, &str),
    ) {
        let mut seen = std::collections::BTreeSet::new();
        for item in field.items(log).unwrap_or_default() {
            let Some(pattern) = item.text("a file's path, in which * ? and [] are wildcards", log) else {
                continue;
            };
            let paths = match files::matching(self.base, pattern) {
                Ok(paths) => paths,
                Err(reason) => {
                    log.error(item.place(), format!("`{}`: `{pattern}` {reason}", item.path));
                    continue;
                }
            };
            self.directories.extend(files::directories(self.base, pattern, &paths));
            if paths.is_empty() {
                nothing_found(&item, pattern, log);
            }
            for path in paths {
                let name = path.display().to_string();
                if !seen.insert(path.clone()) {
                    continue;
                }
                match files::read(&path, limit) {
                    Ok(text) => {
                        self.hash(&name, &text);
                        each(self, &name, &text);
                    }
                    Err(error) => log.error(item.place(), format!("`{}`: {name} {error}", item.path)),
                }
            }
        }
    }
}

/// An empty directory of additions is normal; one file that was named and is not there is a slip, and where it lists
/// who must not be banned, a dangerous one.
fn nothing_found(item: &Field<'_>, pattern: &str, log: &mut Log<'_>) {
    if files::is_literal(pattern) {
        log.error(item.place(), format!("`{}`: the file `{pattern}` is not there", item.path));
    } else {
        log.warn(item.place(), format!("`{}`: no file matches `{pattern}`", item.path));
    }
}
