//! The pages people read: each runbook answers the same questions in the same order, links lead somewhere, and our commands in them are commands.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use regex::Regex;
use tests::programs::{Program, workspace};

/// What somebody woken at night asks, in this order.
const QUESTIONS: [&str; 6] = [
    "**At once.**",
    "**What it means.**",
    "**See it yourself.**",
    "**What the actioner did, or why not.**",
    "**What to do now.**",
    "**How to prevent it.**",
];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a directory whose names end so.
fn below(directory: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let skipped = ["target", "node_modules"].iter().any(|name| path.ends_with(name));
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !skipped && !hidden {
            below(&path, end, found);
        } else if path.extension().is_some_and(|one| one == end) {
            found.push(path);
        }
    }
}

/// Every page of the repository.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    below(workspace(), "md", &mut found);
    found.sort();
    assert!(found.len() > 50, "{} pages", found.len());
    found
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Files, with an anchor where there is one, to which a page links; the web's are left out.
fn links(text: &str) -> Vec<&str> {
    let link = Regex::new(r#"\]\(([^)\s]+)\)|(?:srcset|src)="([^"]+)""#).unwrap();
    let targets = link.captures_iter(text).map(|found| found.get(1).or(found.get(2)).unwrap().as_str());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

#[test]
fn every_link_to_a_file_or_heading_leads_there() {
    let mut dead = Vec::new();
    let mut followed = 0;
    for page in pages() {
        let text = read(&page);
        for target in links(&text) {
            followed += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let there =
                path.exists() && (anchor.is_empty() || anchors(&read(&path)).iter().any(|one| one == anchor));
            if !there {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(followed > 150, "{followed} links were followed");
    assert!(dead.is_empty(), "{dead:#?}");
}

/// A page or picture that nobody links to is one that nobody finds.
#[test]
fn every_file_of_the_docs_is_found_from_their_index() {
    let mut waiting = vec![workspace().join("docs/README.md")];
    let mut seen = BTreeSet::new();
    while let Some(page) = waiting.pop() {
        let page = page.canonicalize().unwrap();
        if page.is_file() && seen.insert(page.clone()) && page.extension().is_some_and(|end| end == "md") {
            let (text, here) = (read(&page), page.parent().unwrap());
            let targets = links(&text).into_iter().map(|target| target.split('#').next().unwrap());
            waiting.extend(targets.filter(|file| !file.is_empty()).map(|file| here.join(file)));
        }
    }
    let mut files = Vec::new();
    for end in ["md", "png", "svg", "yaml"] {
        below(&workspace().join("docs"), end, &mut files);
    }
    assert!(files.len() > 70, "{}", files.len());
    let lost: Vec<_> = files.iter().filter(|file| !seen.contains(&file.canonicalize().unwrap())).collect();
    assert!(lost.is_empty(), "not to be found from docs/README.md: {lost:#?}");
}

#[test]
fn every_runbook_answers_the_same_questions_and_begins_with_what_ends_it() {
    let mut wrong = Vec::new();
    let runbooks = pages()
        .into_iter()
        .filter(|page| page.parent().unwrap().ends_with("docs/runbooks") && !page.ends_with("README.md"));
    let mut seen = 0;
    for page in runbooks {
        seen += 1;
        let text = read(&page);
        let name = page.file_stem().unwrap().to_string_lossy().into_owned();
        let at: Vec<Option<usize>> =
            QUESTIONS.iter().map(|question| text.find(&format!("\n{question}"))).collect();
        if at.contains(&None) || !at.is_sorted() {
            wrong.push(format!("{name}: not each of {QUESTIONS:?} in this order: {at:?}"));
        }
        let first: Vec<&str> = text.lines().take(3).collect();
        if first[0] != format!("# {name}") || !first[2].starts_with(QUESTIONS[0]) {
            wrong.push(format!("{name}: its first lines are not its name and what to do at once"));
        } else if !first[2].contains('`') && !first[2].contains("](") && !first[2].contains("Nothing") {
            wrong.push(format!("{name}: what to do at once names no command: {}", first[2]));
        }
    }
    assert!(seen > 40, "{seen} runbooks");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What stands where a reader puts his own. A word in a page that is none of these is taken as it is.
const PLACEHOLDERS: [(&str, &str); 9] = [
    ("COMMAND", "run"),
    ("ADDR[/PREFIX]", "198.51.100.7"),
    ("ADDR/PREFIX", "198.51.100.0/24"),
    ("ADDR", "198.51.100.7"),
    ("FILE", "/etc/conntrack-guard/policy.yaml"),
    ("YOURS", "/etc/conntrack-guard/policy.yaml"),
    ("NEW.yaml", "/etc/conntrack-guard/policy.yaml"),
    ("NEW", "/etc/conntrack-guard/policy.yaml"),
    ("SHELL", "bash"),
];

/// The words of a command as a shell makes them, up to what ends it or begins another: ; | & > # and the end of an inline code.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut started) = (String::new(), None, false);
    for c in text.chars() {
        match (quote, c) {
            (None, '\'' | '"') => (quote, started) = (Some(c), true),
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.push(c),
            (None, ' ') => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            (None, ';' | '|' | '&' | '>' | '<' | '`' | ')' | '…' | '→' | '─') => break,
            (None, '#') if !started => break,
            _ => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

/// Our commands in a page, in code, with where they stand first.
fn commands(page: &str) -> Vec<(Program, Vec<String>)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let code: Vec<&str> = if fenced || line.starts_with("    ") {
            vec![line]
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        for code in code {
            for program in [Program::Exporter, Program::Actioner] {
                let name = program.name();
                for (at, _) in code.match_indices(name) {
                    let (before, after) = (&code[..at], &code[at + name.len()..]);
                    // Where a command may stand, and not a unit, a job, a package or a file.
                    let begins = before.trim().is_empty()
                        || ["$ ", "| ", "; ", "&& ", "(", "sudo ", "PID "]
                            .iter()
                            .any(|end| before.ends_with(end));
                    if begins && (after.is_empty() || after.starts_with(' ')) {
                        found.push((program, words(after)));
                    }
                }
            }
        }
    }
    found
}

/// Optional parts in brackets are kept: what they hold must exist as well.
fn filled(word: &str) -> Option<String> {
    let known = PLACEHOLDERS.iter().find(|(name, _)| *name == word).map(|(_, value)| (*value).to_owned());
    let bare = word.trim_start_matches('[').trim_end_matches([',', '.', ']']);
    known.or_else(|| {
        let known = PLACEHOLDERS.iter().find(|(name, _)| *name == bare).map(|(_, value)| (*value).to_owned());
        known.or_else(|| (!bare.is_empty()).then(|| bare.to_owned()))
    })
}

/// With `--help` behind it a command is read whole and not carried out.
#[test]
fn every_command_of_ours_in_a_page_is_one() {
    let mut tried: BTreeMap<(&str, Vec<String>), PathBuf> = BTreeMap::new();
    for page in pages().into_iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        for (program, words) in commands(&read(&page)) {
            let words = words.iter().filter_map(|word| filled(word)).collect();
            tried.entry((program.name(), words)).or_insert_with(|| page.clone());
        }
    }
    assert!(tried.len() > 30, "only {} commands were found", tried.len());
    let mut wrong = Vec::new();
    let top = read(&workspace().join("docs/top.md"));
    for ((name, words), page) in tried {
        // A feature that the programs of these tests are built without; exporter/tests/top tries the flags that its page names.
        if name == Program::Exporter.name() && words.first().is_some_and(|word| word == "top") {
            let unknown =
                words.iter().filter(|word| word.starts_with("--") && !top.contains(&format!("`{word}")));
            wrong.extend(
                unknown.map(|flag| format!("{}: {name} top {flag}: not in docs/top.md", page.display())),
            );
            continue;
        }
        let program =
            [Program::Exporter, Program::Actioner].into_iter().find(|one| one.name() == name).unwrap();
        let answer = Command::new(program.path().unwrap()).args(&words).arg("--help").output().unwrap();
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr).lines().next().unwrap_or_default().to_owned();
            wrong.push(format!("{}: {name} {}: {said}", page.display(), words.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The threat model shows each answer by a test: they are there, under these names.
#[test]
fn tests_that_the_threat_model_names_exist() {
    let page = read(&workspace().join("docs/threat-model.md"));
    let mut sources = Vec::new();
    for directory in ["tests/tests", "actioner/tests", "exporter/tests"] {
        below(&workspace().join(directory), "rs", &mut sources);
    }
    let sources: String = sources.iter().map(|path| read(path)).collect();
    let named = Regex::new(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})(?:_…)?`").unwrap();
    let ours: Vec<&str> = named
        .captures_iter(&page)
        .map(|found| found.get(1).unwrap().as_str())
        .filter(|name| !name.starts_with("conntrack_") && !name.starts_with("nf_"))
        .collect();
    assert!(ours.len() > 12, "only {ours:?}");
    let missing: Vec<_> = ours.iter().filter(|name| !sources.contains(&format!("fn {name}"))).collect();
    assert!(missing.is_empty(), "named in docs/threat-model.md, and no test: {missing:#?}");
}

/// What the programs withstand is shown by tests: each is in the file that the page says.
#[test]
fn tests_that_the_attacks_page_names_stand_in_their_files() {
    let page = read(&workspace().join("docs/attacks.md"));
    let named = Regex::new(r"`([a-z0-9/_]+)::([a-z0-9_]+)`").unwrap();
    let named: Vec<_> = named.captures_iter(&page).map(|found| found.extract::<2>().1).collect();
    assert!(named.len() > 30, "only {named:?}");
    let stands = |file: &str, name: &str| {
        let text = fs::read_to_string(workspace().join(format!("{file}.rs"))).unwrap_or_default();
        text.contains(&format!("fn {name}("))
    };
    let missing: Vec<_> = named.iter().filter(|[file, name]| !stands(file, name)).collect();
    assert!(missing.is_empty(), "named in docs/attacks.md, and not there: {missing:#?}");
}

#[test]
fn commands_and_anchors_are_read_as_people_write_them() {
    let page = "Use `conntrack-actioner ban ADDR --for 1h --reason \"two words\"` or\n\n    $ conntrack-exporter top --once | head\n    systemctl status conntrack-actioner\n";
    let found = commands(page);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].1, ["ban", "ADDR", "--for", "1h", "--reason", "two words"]);
    assert_eq!(found[1].1, ["top", "--once"]);
    assert_eq!(anchors("# Who holds the table?\ntext\n## a `b`_c"), ["who-holds-the-table", "a-b_c"]);
}
