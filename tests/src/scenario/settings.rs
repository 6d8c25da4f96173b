//! The files we ship, with the few lines changed that a small and fast stage needs. A line that is not there any more is
//! an error: the scenario plays what is shipped, or nothing.

use std::fs;

use crate::{Failure, Result, failure::Tried, programs::workspace};

/// A source with so many dead slots is a hoarder, here and as shipped (`alerts/thresholds.yaml`).
pub const THRESHOLD: usize = 300;
/// Idle for so long without a socket is dead; 30 s as shipped. Requests live for seconds here, and for a minute elsewhere. Not shorter: dumps
/// are polite, and take seconds where others want every CPU; and not longer than a request lives after the kernel's last word to it.
pub const GRACE: &str = "4s";
/// Where the actioner hears Alertmanager and nobody else, so that webhooks can be told from scrapes.
pub const WEBHOOK: &str = "127.0.0.2:10049";
/// Where people hear.
pub const PEOPLE: &str = "127.0.0.1:9099";

/// Who sees the attack first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seer {
    /// The actioner's own watch; no Prometheus anywhere.
    Watch,
    /// Prometheus and Alertmanager, at one second; the watch is off.
    Prometheus,
    /// Both.
    Both,
}

impl Seer {
    /// Whether the actioner watches for itself.
    pub fn watches(self) -> bool {
        self != Self::Prometheus
    }

    /// Whether Prometheus and Alertmanager run.
    pub fn scrapes(self) -> bool {
        self != Self::Watch
    }
}

/// What makes a source a hoarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Dead slots, as shipped.
    Socketless,
    /// Assured entries, living ones too: the change that the packaged policy's comment speaks of.
    Assured,
}

/// `packaging/policy.yaml`, enforcing, with the grace above. `nf_conntrack_max` is global and no concern of a namespace, so how
/// full the table is has no part in it.
///
/// # Errors
/// When it no longer says what is changed here.
pub fn policy(seer: Seer, evidence: Evidence) -> Result<String> {
    let hoarder = format!("source: {{socketless: {THRESHOLD}}}");
    let by = match evidence {
        Evidence::Socketless => hoarder.clone(),
        Evidence::Assured => hoarder.replace("socketless", "assured"),
    };
    let mut shipped = Shipped::read("packaging/policy.yaml")?
        .with("\nenforce: false\n", "\nenforce: true\n")?
        .with(&hoarder, &by)?
        .with("\nsocketless_grace: 30s\n", &format!("\nsocketless_grace: {GRACE}\n"))?
        .with("table: {fill_percent: 50}", "table: {fill_percent: 0.001}")?;
    if !seer.watches() {
        shipped = shipped.without("\nwatch:\n", "\n# An established entry that is idle")?;
    }
    Ok(shipped.text)
}

/// `alerts/conntrack-guard.rules.yml`.
///
/// # Errors
/// When it no longer says what is changed here.
pub fn rules() -> Result<String> {
    let fill = "and on (job, instance) instance:nf_conntrack_fill:ratio >= 0.5\n";
    let shipped = format!(
        "        max_over_time(nf_conntrack_source_socketless_entries[2m]) >= {THRESHOLD}\n        {fill}"
    );
    let scaled = shipped.replace(">= 0.5", ">= 0");
    Ok(Shipped::read("alerts/conntrack-guard.rules.yml")?.with(&shipped, &scaled)?.text)
}

/// `alerts/alertmanager.example.yml`: the actioner at [`WEBHOOK`], people at [`PEOPLE`], told at once.
///
/// # Errors
/// When it no longer says what is changed here.
pub fn alertmanager() -> Result<String> {
    let mail = "  email_configs:\n  - to: team@example.org\n";
    let heard = format!("  webhook_configs:\n  - url: http://{PEOPLE}/team\n");
    let shipped = Shipped::read("alerts/alertmanager.example.yml")?
        .with("http://127.0.0.1:10049/webhook", &format!("http://{WEBHOOK}/webhook"))?
        .with(mail, &heard)?
        .with("https://pager.example.org/alertmanager", &format!("http://{PEOPLE}/pager"))?
        .with("\n  group_wait: 30s\n", "\n  group_wait: 1s\n")?;
    Ok(shipped.text)
}

/// `alerts/prometheus.example.yml`: every second.
///
/// # Errors
/// When it no longer says what is changed here.
pub fn prometheus() -> Result<String> {
    let shipped = Shipped::read("alerts/prometheus.example.yml")?
        .with("\n  scrape_interval: 15s\n", "\n  scrape_interval: 1s\n  scrape_timeout: 1s\n")?
        .with("\n  evaluation_interval: 15s\n", "\n  evaluation_interval: 1s\n")?
        .with("\n  scrape_timeout: 10s\n", "\n  scrape_timeout: 1s\n")?;
    Ok(shipped.text)
}

struct Shipped {
    file: &'static str,
    text: String,
}

impl Shipped {
    fn read(file: &'static str) -> Result<Self> {
        let path = workspace().join(file);
        Ok(Self { file, text: fs::read_to_string(&path).tried(|| path.display().to_string())? })
    }

    fn with(self, shipped: &str, here: &str) -> Result<Self> {
        if !self.text.contains(shipped) {
            return Err(self.lacks(shipped));
        }
        Ok(Self { text: self.text.replace(shipped, here), ..self })
    }

    /// Leaves out what begins with `from` and ends before `to`.
    fn without(self, from: &str, to: &str) -> Result<Self> {
        let start = self.text.find(from).ok_or_else(|| self.lacks(from))?;
        let end = self.text[start..].find(to).ok_or_else(|| self.lacks(to))?;
        Ok(Self { text: format!("{}{}", &self.text[..start], &self.text[start + end..]), ..self })
    }

    fn lacks(&self, shipped: &str) -> Failure {
        let detail = format!("it no longer says {shipped:?}, which the scenario changes: mend {}", file!());
        Failure::answer(self.file, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_says_what_is_changed() {
        let policy = |seer| policy(seer, Evidence::Socketless);
        for text in [policy(Seer::Watch), policy(Seer::Prometheus), rules(), alertmanager(), prometheus()] {
            assert!(!text.unwrap().is_empty());
        }
    }

    #[test]
    fn the_watch_is_left_out_whole() {
        let policy = |seer| policy(seer, Evidence::Socketless).unwrap();
        assert!(policy(Seer::Watch).contains("\nwatch:\n"));
        let without = policy(Seer::Prometheus);
        assert!(!without.contains("\nwatch:\n") && !without.contains("- alert:"), "{without}");
        assert!(
            without.contains("\nrules:\n") && without.contains(&format!("\nsocketless_grace: {GRACE}\n"))
        );
    }
}
