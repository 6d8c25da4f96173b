//! What the runbooks tell somebody to look at, typed by a shell on a host where both programs run and whose table somebody fills.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    process::{Command, Output},
};

use ipnet::Ipv4Net;
use regex::Regex;
use tests::{
    Result,
    programs::{Program, workspace},
    quiet::Stage,
    topology::Family,
};

/// What a line may be made of to be typed here. What is not of these needs systemd, a Prometheus, the internet, or time.
const READERS: [&str; 22] = [
    "awk",
    "cat",
    "conntrack",
    "conntrack-actioner",
    "conntrack-exporter",
    "curl",
    "df",
    "grep",
    "head",
    "ip6tables",
    "ipset",
    "iptables",
    "jq",
    "ls",
    "nstat",
    "sort",
    "ss",
    "sysctl",
    "tail",
    "top",
    "uniq",
    "wc",
];

/// Lines and inline code of a page, each as one line.
fn code(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut begun = String::new();
    for line in page.lines() {
        let Some(line) = line.strip_prefix("    ") else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
            continue;
        };
        begun += line.trim_end_matches('\\');
        if !line.ends_with('\\') && !line.trim_end().ends_with('|') {
            found.push(std::mem::take(&mut begun));
        }
    }
    found
}

/// The commands of a line: what stands between `|`, `;`, `&&` and parentheses, outside quotes and before a comment.
fn commands(line: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if at == 0 || line[..at].ends_with(' ') => break,
            (None, '|' | ';' | '&' | '(' | ')' | '\n') => parts.push(String::new()),
            (None, '\'' | '"') => (quote, parts) = (Some(c), with(parts, c)),
            (Some(open), _) if c == open => (quote, parts) = (None, with(parts, c)),
            _ => parts = with(parts, c),
        }
    }
    parts
        .into_iter()
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty() && !part.starts_with("2>"))
        .collect()
}

fn with(mut parts: Vec<String>, c: char) -> Vec<String> {
    parts.last_mut().unwrap().push(c);
    parts
}

/// Whether a command only looks.
fn reads(command: &str) -> bool {
    let words: Vec<&str> = command.split_whitespace().collect();
    let has = |one: &[&str]| words.iter().any(|word| one.contains(word));
    let asks = |first: &[&str]| words.get(1).is_some_and(|word| first.contains(word));
    let elsewhere = ["…", "HOST", ":9090"].iter().any(|word| command.contains(word));
    let of_files = words.first() == Some(&"grep") && command.contains(" /etc/");
    let whole = words.len() > 1 && !elsewhere && !of_files;
    READERS.contains(words.first().unwrap_or(&""))
        && match words[0] {
            "conntrack" => asks(&["-L", "-C", "-S"]),
            "conntrack-actioner" => asks(&["status", "bans", "explain", "report", "check-policy"]),
            "conntrack-exporter" => asks(&["advise"]),
            "ipset" => asks(&["list"]),
            "iptables" | "ip6tables" => has(&["-S"]),
            "ss" => !has(&["-K"]),
            "sysctl" => !has(&["-w"]),
            "head" | "sort" | "uniq" | "tail" => true,
            _ => whole,
        }
        && (whole || ["head", "sort", "uniq", "tail"].contains(&words[0]))
}

/// Every line to be typed, and the page in which it stands first.
fn lines() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(workspace().join("docs/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let page = path.file_stem().unwrap().to_string_lossy().into_owned();
        for line in code(&fs::read_to_string(&path).unwrap()) {
            let parts = commands(&line);
            // A word alone is a name and no command: `conntrack`.
            if !parts.is_empty() && parts.iter().all(|part| reads(part)) {
                found.entry(line).or_insert(page.clone());
            }
        }
    }
    found
}

/// The words of a page and what stands for them here, and what a shell needs to know of our programs.
struct Shell {
    preamble: String,
    words: Vec<(&'static str, String)>,
}

impl Shell {
    fn new(stage: &Stage) -> Result<Self> {
        let at = |name: &str| stage.directory.path().join(name).display().to_string();
        let (storage, socket) = (at("storage"), at("socket"));
        let policy = workspace().join("packaging/policy.yaml").display().to_string();
        let [exporter, actioner] = &stage.programs;
        let source = stage.scene.peer("attacker").address(Family::V4);
        let IpAddr::V4(address) = source else { panic!("{source} is of IPv4") };
        let net = Ipv4Net::new(address, 24).unwrap().trunc();
        let directory = Program::Actioner.path()?.parent().unwrap().display().to_string();
        let preamble = format!(
            "set -o pipefail; export LC_ALL=C PATH={directory}:$PATH
             conntrack-actioner() {{
               case $1 in
                 check-policy) command conntrack-actioner \"$@\";;
                 report) command conntrack-actioner \"$@\" --storage.path {storage};;
                 *) command conntrack-actioner \"$@\" --admin.socket {socket};;
               esac
             }}
             pidof() {{ case $1 in *exporter) echo {};; *) echo {};; esac; }}\n",
            exporter.process.id(),
            actioner.process.id(),
        );
        let words = vec![
            ("/var/lib/conntrack-guard", storage),
            ("/run/conntrack-guard/actioner.sock", socket),
            ("/etc/conntrack-guard/policy.yaml", policy.clone()),
            ("198.51.100.0/24", net.to_string()),
            ("198.51.100.7", source.to_string()),
            ("ADDR", source.to_string()),
            ("REASON", "other_host".to_owned()),
            ("FILE", policy),
        ];
        Ok(Self { preamble, words })
    }

    fn types(&self, stage: &Stage, line: &str) -> Output {
        let line = self.words.iter().fold(line.to_owned(), |line, (word, here)| line.replace(word, here));
        let script = format!("{}{line}", self.preamble);
        stage.scene.server.run(|| Command::new("bash").args(["-c", &script]).output()).expect("bash starts")
    }
}

#[test]
fn every_line_that_looks_answers_where_both_programs_run() -> Result<()> {
    let lines = lines();
    assert!(lines.len() > 70, "{} lines: {lines:#?}", lines.len());
    let stage = Stage::start()?;
    let shell = Shell::new(&stage)?;
    // In dry run there are no sets; an actioner that enforces has these.
    for (set, family) in [("conntrack-guard-4", "inet"), ("conntrack-guard-6", "inet6")] {
        stage
            .scene
            .server
            .command(&["ipset", "create", set, "hash:net", "family", family, "timeout", "0"])?;
    }
    let complaint =
        Regex::new(r"(?im)^(usage|error)|unknown|invalid|syntax|not found|no such|bad argument|try .*help")
            .unwrap();
    let mut wrong = Vec::new();
    for (line, page) in &lines {
        let output = shell.types(&stage, line);
        let (said, complained) =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).into();
        // What is counted since the start may be nothing: then grep finds no line.
        let nothing = line.contains("grep -v ' 0$'") && output.status.code() == Some(1);
        if !(output.status.success() || nothing) || complaint.is_match(&complained) {
            wrong.push(format!("{page}: {line}\n  {}\n  {said}\n  {complained}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The attacker stands where somebody looks for him, with all he holds.
    let holders =
        "curl -s localhost:10048/metrics | grep '^nf_conntrack_source_entries' | sort -k2 -rn | head";
    assert!(lines.contains_key(holders), "{lines:#?}");
    let said = String::from_utf8(shell.types(&stage, holders).stdout).unwrap();
    let first = said.lines().next().unwrap_or_default().to_owned();
    assert!(first.ends_with(" 60"), "{said}");
    let from_the_kernel =
        lines.keys().find(|line| line.contains("conntrack -L -f ipv6")).expect("such a line");
    let said = String::from_utf8(shell.types(&stage, from_the_kernel).stdout).unwrap();
    assert!(said.trim_start().starts_with("60 "), "{said}");
    Ok(())
}

#[test]
fn lines_are_taken_apart_as_a_shell_does() {
    let page = "text `ss -tn dst ADDR` and `conntrack`\n\n    conntrack -L | awk '{print $1; x|y}' |\n      sort -rn    # who; what\n    iptables -t raw -I X\n";
    let found: Vec<_> = code(page).iter().map(|line| commands(line)).collect();
    let expected = [
        vec!["ss -tn dst ADDR"],
        vec!["conntrack"],
        vec!["conntrack -L", "awk '{print $1; x|y}'", "sort -rn"],
        vec!["iptables -t raw -I X"],
    ];
    assert_eq!(found, expected);
    let looks: Vec<bool> = found.iter().map(|parts| parts.iter().all(|part| reads(part))).collect();
    assert_eq!(looks, [true, false, true, false]);
    let refused = [
        "conntrack -D -s ADDR",
        "ss -K dst ADDR",
        "sysctl -w a=1",
        "conntrack-actioner unban ADDR",
        "ipset del",
        "rm -r /",
    ];
    assert!(refused.iter().all(|command| !reads(command)));
}
