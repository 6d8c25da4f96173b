//! Advice as a file for sysctl.d, and as JSON. Pure.

use std::fmt::Write;

use super::facts::Facts;
use super::judgement::{Advice, Urgency};
use super::sizing::{Memory, bytes, chain_when_full};

/// Columns of a comment, "# " included.
const WIDTH: usize = 110;

/// A file that sysctl.d takes as it is: everything but the settings is a comment. What could be changed is commented out.
pub(super) fn sysctl_d(facts: &Facts, advice: &[Advice]) -> String {
    let mut out = String::new();
    paragraph(
        &mut out,
        "# ",
        "conntrack-exporter advise: nothing was changed. As a file: conntrack-exporter advise > /etc/sysctl.d/80-conntrack.conf; read it, then sysctl --system.",
    );
    out.push_str("#\n");
    paragraph(&mut out, "# ", &table(facts));
    paragraph(&mut out, "# ", &count(advice));
    for (place, one) in advice.iter().enumerate() {
        let word = match one.urgency {
            Urgency::Now => "NOW",
            Urgency::Should => "SHOULD",
            Urgency::Could => "COULD",
        };
        let _ = writeln!(out, "\n# {}. {word}: {}", place + 1, one.title);
        for why in &one.why {
            paragraph(&mut out, "#    ", why);
        }
        for step in &one.steps {
            paragraph(&mut out, "#    - ", step);
        }
        for setting in &one.settings {
            let off = if one.urgency == Urgency::Could { "#" } else { "" };
            let _ = writeln!(out, "# now {}\n{off}{} = {}", setting.now, setting.key, setting.value);
        }
    }
    out
}

/// The same for scripts: `{"table": …, "listeners": …, "counters": …, "timeouts": …, "advice": […]}`.
pub(super) fn json(facts: &Facts, advice: &[Advice]) -> Result<String, std::io::Error> {
    let size = facts.size;
    let value = serde_json::json!({
        "table": {
            "entries": size.entries,
            "entries_limit": size.limit,
            "buckets": size.buckets,
            "entry_bytes": facts.entry,
            "full_bytes": Memory::when_full(facts, size.limit, size.buckets),
            "memory_bytes": facts.memory,
        },
        "counters": facts.counters,
        "timeouts": facts.timeouts,
        "tcp_loose": facts.tcp_loose,
        "tcp_be_liberal": facts.tcp_be_liberal,
        "tcp_synack_retries": facts.synack_retries,
        "listeners": facts.listeners,
        "advice": advice,
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// How full, and what a full one takes.
fn table(facts: &Facts) -> String {
    let (size, entry) = (facts.size, facts.entry);
    let memory = Memory::when_full(facts, size.limit, size.buckets);
    let origin = if entry.measured { "slabinfo" } else { "assumed: slabinfo is for root" };
    let limit = match size.limit {
        0 => format!("The table: {} entries, no limit", size.entries),
        limit => {
            format!(
                "The table: {} of {limit} entries ({:.1} %)",
                size.entries,
                size.entries as f64 * 100.0 / limit as f64
            )
        }
    };
    let buckets = match size.buckets {
        Some(buckets) if size.limit > 0 => {
            format!(
                "; {buckets} buckets, {:.1} entries in a chain when full",
                chain_when_full(size.limit, buckets)
            )
        }
        Some(buckets) => format!("; {buckets} buckets"),
        None => String::new(),
    };
    let full = match facts.memory {
        _ if size.limit == 0 => format!(". Memory: {} B an entry ({origin}), without bound.", entry.bytes),
        Some(all) => format!(
            ". Full, it takes {} of {}: {} B an entry ({origin}), 8 B a bucket.",
            bytes(memory.total()),
            bytes(all),
            entry.bytes
        ),
        None => format!(
            ". Full, it takes {}: {} B an entry ({origin}), 8 B a bucket.",
            bytes(memory.total()),
            entry.bytes
        ),
    };
    format!("{limit}{buckets}{full}")
}

fn count(advice: &[Advice]) -> String {
    let of = |urgency| advice.iter().filter(|one| one.urgency == urgency).count();
    match advice.len() {
        0 => "Nothing to change.".to_owned(),
        _ => format!(
            "{} to change now, {} that should be, {} that could be (commented out); worst first.",
            of(Urgency::Now),
            of(Urgency::Should),
            of(Urgency::Could)
        ),
    }
}

/// Wraps at spaces; lines after the first are indented as far as the text of the first.
fn paragraph(out: &mut String, begin: &str, text: &str) {
    let rest = format!("#{}", " ".repeat(begin.len() - 1));
    let mut line = begin.to_owned();
    let mut bare = true;
    for word in text.split_whitespace() {
        if !bare && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            (line, bare) = (rest.clone(), true);
        }
        if !bare {
            line.push(' ');
        }
        line.push_str(word);
        bare = false;
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::facts::tests::as_it_comes;
    use crate::advise::judgement::judge;
    use crate::sysctl::Size;

    #[test]
    fn the_file_is_one_that_sysctl_takes() {
        let facts = Facts {
            size: Size { entries: 200_000, limit: 262_144, buckets: Some(65_536) },
            acct: Some(1),
            tcp_be_liberal: Some(1),
            ..as_it_comes()
        };
        let text = sysctl_d(&facts, &judge(&facts));
        let settings: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        let expected = [
            "net.netfilter.nf_conntrack_buckets = 524288",
            "net.netfilter.nf_conntrack_max = 524288",
            "net.netfilter.nf_conntrack_tcp_timeout_established = 7440",
            "net.netfilter.nf_conntrack_tcp_be_liberal = 0",
        ];
        assert_eq!(settings, expected, "{text}");
        assert!(
            text.contains("\n#net.netfilter.nf_conntrack_acct = 0\n"),
            "what could be is commented out: {text}"
        );
        assert!(text.contains("# now 432000\nnet.netfilter.nf_conntrack_tcp_timeout_established"), "{text}");
        let long = text.lines().find(|line| line.chars().count() > WIDTH);
        assert_eq!(long, None, "lines fit");
    }

    #[test]
    fn the_table_says_what_it_costs_and_how_that_is_known() {
        let mut facts = as_it_comes();
        let text = sysctl_d(&facts, &[]);
        assert!(
            text.contains("83 of 262144 entries (0.0 %); 262144 buckets, 2.0 entries in a chain when full"),
            "{text}"
        );
        assert!(
            text.replace("\n# ", " ")
                .contains("Full, it takes 66.0 MiB of 8.0 GiB: 256 B an entry (slabinfo)"),
            "{text}"
        );
        assert!(text.ends_with("# Nothing to change.\n"), "{text}");
        facts.entry.measured = false;
        assert!(sysctl_d(&facts, &[]).replace("\n# ", " ").contains("(assumed: slabinfo is for root)"));
    }

    #[test]
    fn json_has_the_same() {
        let facts = as_it_comes();
        let value: serde_json::Value = serde_json::from_str(&json(&facts, &judge(&facts)).unwrap()).unwrap();
        assert_eq!(value["table"]["full_bytes"]["entries"], 67_108_864);
        let advice = &value["advice"][0];
        assert_eq!((&advice["urgency"], &advice["topic"]), (&"should".into(), &"established_timeout".into()));
        assert_eq!(advice["settings"][0]["value"], 7440);
    }
}
