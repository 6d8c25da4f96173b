//! Every metric that is named in a dashboard, a rule or the docs is one that we expose, and every metric that we expose is in
//! `docs/metrics.md`, which `make metrics` writes from what the programs say of themselves.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use regex::Regex;
use tests::{
    Result,
    exposition::{Exposed, Form},
    programs::{Program, workspace},
    quiet::Stage,
};

const TABLE: &str = "docs/metrics.md";
/// Names of the kernel's that look like metrics and are sysctls, files, or words in its sources: all that may be named without being exposed.
const NOT_OURS: [&str; 17] = [
    "nf_conntrack_max",
    "nf_conntrack_count",
    "nf_conntrack_acct",
    "nf_conntrack_timestamp",
    "nf_conntrack_tcp_loose",
    "nf_conntrack_tcp_be_liberal",
    "nf_conntrack_tcp_timeout_established",
    "nf_conntrack_tcp_timeout_syn_recv",
    "nf_conntrack_tcp_timeout_syn_sent",
    "nf_conntrack_tcp_timeout_time_wait",
    "nf_conntrack_udp_timeout",
    "nf_conntrack_generic_timeout",
    "nf_conntrack_helper",
    "nf_conntrack_core",
    "nf_conntrack_proto_tcp",
    "nf_conntrack_expect_max",
    "nf_conntrack_tcp_timeout_max_retrans",
];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Dashboards, rules and their configuration, README, changelog and docs.
fn files() -> Vec<PathBuf> {
    let root = workspace();
    let mut found = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for directory in
        ["alerts", "dashboards", "docs", "docs/runbooks", "docs/getting-started", "docs/migrating"]
    {
        let entries = fs::read_dir(root.join(directory)).unwrap().map(|entry| entry.unwrap().path());
        let text = |path: &PathBuf| {
            path.extension().is_some_and(|end| ["md", "yml", "json"].iter().any(|one| end == *one))
        };
        found.extend(entries.filter(text));
    }
    found.sort();
    found
}

/// A name as it was written; `whole` is false where it stands for all that begin so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    name: String,
    whole: bool,
}

/// The names in a text. `a_{b,c}_d` and `a_(b|c)_d` are two names; `a_` and `a_…` are all that begin so.
fn named(text: &str) -> BTreeSet<Named> {
    let start =
        Regex::new(r"(?:nf_conntrack|conntrack_(?:exporter|actioner|\{exporter,actioner\}))_").unwrap();
    let mut found = BTreeSet::new();
    for begin in start.find_iter(text) {
        // A path, a file's name, or the end of a longer word.
        let before = text[..begin.start()].chars().next_back();
        if before == Some(':') {
            // A recorded series: its level stands before, its operation behind.
            let rest = &text[begin.start()..];
            let part = |c: char| c.is_ascii_lowercase() || c == '_' || c == ':';
            let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
            found.insert(Named { name: format!("instance:{}", &rest[..end]), whole: true });
            continue;
        }
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        spell(String::new(), &text[begin.start()..], &mut found);
    }
    found
}

fn spell(so_far: String, rest: &str, found: &mut BTreeSet<Named>) {
    let end =
        rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_').unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    let name = so_far + word;
    let group = match after.chars().next() {
        Some('{') => {
            after.split_once('}').map(|(inside, rest)| (inside[1..].split(',').collect::<Vec<_>>(), rest))
        }
        Some('(') => after.split_once(')').map(|(inside, rest)| (inside[1..].split('|').collect(), rest)),
        _ => None,
    };
    match group {
        // After a whole word a brace holds labels, and a parenthesis a remark.
        Some((choices, rest)) if name.ends_with('_') => {
            choices.into_iter().for_each(|one| spell(format!("{name}{}", one.trim()), rest, found));
        }
        _ => {
            let whole = !name.ends_with('_')
                && !after.starts_with(['…', '*'])
                && !after.starts_with(".*")
                && !after.starts_with(".+");
            found.insert(Named { name, whole });
        }
    }
}

/// Series that rules record, by the name.
fn recorded() -> BTreeSet<String> {
    let rules = read(&workspace().join("alerts/conntrack-guard.rules.yml"));
    rules.lines().filter_map(|line| Some(line.trim().strip_prefix("- record: ")?.to_owned())).collect()
}

fn rows(exposed: &Exposed) -> Vec<String> {
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, of) in exposed.samples.keys() {
        let ends = ["_bucket", "_sum", "_count"].into_iter().filter_map(|end| name.strip_suffix(end));
        let family = ends.into_iter().find(|family| exposed.types.contains_key(*family)).unwrap_or(name);
        labels
            .entry(family)
            .or_default()
            .extend(of.keys().map(String::as_str).filter(|label| *label != "le"));
    }
    let row = |(name, kind): (&String, &String)| {
        let labels: Vec<_> = labels.get(name.as_str()).into_iter().flatten().copied().collect();
        format!(
            "| `{name}` | {kind} | {} | {} |",
            labels.join(", "),
            exposed.helps[name].trim_end_matches('.')
        )
    };
    exposed.types.iter().map(row).collect()
}

fn table(stage: &Stage) -> Result<String> {
    let mut text = String::from(
        "# Metrics\n\nWritten by `make metrics` from what the programs say of themselves; a test holds it against them. A *source* is the source\n\
         address of the original direction; addresses of this host are not ranked. All that comes from the dump comes from one dump:\n\
         Σ listed sources + other + local = Σ states. The actioner has no address in any label: addresses are in the audit log.\n\n\
         The rules record two series: `instance:nf_conntrack_fill:ratio` and `instance:nf_conntrack_half_open_entries:sum`.\n",
    );
    for program in [Program::Exporter, Program::Actioner] {
        let rows = rows(&stage.exposed(program, Form::Classic)?);
        text += &format!(
            "\n## {}\n\n| metric | type | labels | what |\n|---|---|---|---|\n{}\n",
            program.name(),
            rows.join("\n")
        );
    }
    Ok(text)
}

#[test]
fn every_metric_named_is_exposed_and_every_metric_exposed_is_documented() -> Result<()> {
    let stage = Stage::start()?;
    let (path, table) = (workspace().join(TABLE), table(&stage)?);
    if env::var_os("METRICS").is_some_and(|wanted| wanted == "write") {
        fs::write(&path, &table).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let missing: Vec<_> = table.lines().filter(|line| !written.lines().any(|one| one == *line)).collect();
    let stale: Vec<_> = written.lines().filter(|line| !table.lines().any(|one| one == *line)).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "run `make metrics`\nnot in {TABLE}: {missing:#?}\nonly there: {stale:#?}"
    );

    let mut known = recorded();
    assert_eq!(known.len(), 2, "{TABLE} names two: {known:?}");
    for program in [Program::Exporter, Program::Actioner] {
        let exposed = stage.exposed(program, Form::Classic)?;
        known.extend(exposed.types.into_keys());
        known.extend(exposed.samples.into_keys().map(|(name, _)| name));
    }
    let exists = |named: &Named| match named.whole {
        true => known.contains(&named.name) || NOT_OURS.contains(&&*named.name),
        false => {
            known.iter().any(|name| name.starts_with(&named.name))
                || NOT_OURS.iter().any(|name| name.starts_with(&named.name))
        }
    };
    let mut unknown = Vec::new();
    let mut seen = 0;
    for file in files() {
        let names = named(&read(&file));
        seen += names.len();
        unknown.extend(
            names.iter().filter(|one| !exists(one)).map(|one| format!("{}: {}", file.display(), one.name)),
        );
    }
    assert!(seen > 200, "{seen} names were looked at");
    assert!(unknown.is_empty(), "named, but exposed by nobody: {unknown:#?}");
    let exposed_too: Vec<_> = NOT_OURS.into_iter().filter(|name| known.contains(*name)).collect();
    assert!(exposed_too.is_empty(), "on the list of names that are not ours, and exposed: {exposed_too:?}");
    Ok(())
}

#[test]
fn names_are_read_as_people_write_them() {
    let names = |text: &str| -> Vec<String> {
        named(text)
            .into_iter()
            .map(|one| format!("{}{}", one.name, if one.whole { "" } else { "*" }))
            .collect()
    };
    assert_eq!(
        names("`nf_conntrack_a{x=\"1\"}` and nf_conntrack_b_total(no)"),
        ["nf_conntrack_a", "nf_conntrack_b_total"]
    );
    assert_eq!(
        names("nf_conntrack_{a,b}_entries{family}"),
        ["nf_conntrack_a_entries", "nf_conntrack_b_entries"]
    );
    assert_eq!(
        names("'^nf_conntrack_stat_(x|y)_total'"),
        ["nf_conntrack_stat_x_total", "nf_conntrack_stat_y_total"]
    );
    assert_eq!(names("grep ^nf_conntrack_prefix_ file"), ["nf_conntrack_prefix_*"]);
    assert_eq!(names("conntrack_{exporter,actioner}_x"), ["conntrack_actioner_x", "conntrack_exporter_x"]);
    assert_eq!(
        names("instance:nf_conntrack_fill:ratio is xnf_conntrack_a"),
        ["instance:nf_conntrack_fill:ratio"]
    );
}
