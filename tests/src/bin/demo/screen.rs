//! What is shown: plain lines, so that it reads the same on a terminal, in a file and in a README.

use std::{
    env,
    io::{self, IsTerminal},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use tests::{
    Result,
    listing::list,
    scenario::{
        ALERT, AtDefaults, GRACE, Look, Progress, SLOW_FILL, Scenario, Seer, Stage, Story, THRESHOLD,
    },
    topology::SERVER_V4,
};

/// Between two rows of the table.
const ROW: Duration = Duration::from_millis(500);

/// The terminal, or the pipe.
pub(crate) struct Screen {
    bold: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { bold: io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() }
    }

    fn strong(&self, text: &str) -> String {
        if self.bold { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn opening(&self) {
        println!(
            "{}",
            self.strong("conntrack-guard: a slow fill of the connection tracking table, and what stops it")
        );
        println!(
            "
  attacker 198.51.100.66 ───┐
  honest   203.0.113.7   ───┼─── server {SERVER_V4}:80, TCP_DEFER_ACCEPT, as Apache listens
  busy     192.0.2.70    ───┘

The attacker completes the handshake and says nothing more. The server waits in SYN_RECV, gives up and forgets him,
but each handshake leaves an entry that says ESTABLISHED [ASSURED] and stays for five days: a dead slot.
The honest client keeps 20 connections busy and opens four new ones a second. The busy one is a proxy's look-alike:
30 finished connections a second, each of which stays in the table for two minutes (TIME_WAIT).

The policy and the rules are those we ship: 300 dead slots of one source. What differs from a real server:
he makes {} slots a second and not 19 a minute; the server gives up after seconds and not a minute
(tcp_synack_retries=1); a slot must be idle for {GRACE} and not 30 s to be called dead (socketless_grace); and the table
need not be half full, for its size is the host's and no business of a demo.

All of this happens in network namespaces of this process: your host's network and firewall are not touched.",
            SLOW_FILL.per_second
        );
    }

    pub(crate) fn act(&self, seer: Seer) {
        let (number, title) = match seer {
            Seer::Watch => (1, "the actioner watches the table by itself, once a second; no Prometheus"),
            Seer::Prometheus | Seer::Both => {
                (2, "exporter, Prometheus, Alertmanager, actioner; scrape and evaluation every second")
            }
        };
        println!("\n{}\n", self.strong(&format!("{number} of 2: {title}")));
    }

    pub(crate) fn ready(&self, took: Duration) {
        println!(
            "  everything is up after {:.1} s, the honest clients at work; the attack begins\n",
            took.as_secs_f64()
        );
    }

    pub(crate) fn rows<'a>(&'a self, scenario: &'a Scenario) -> Rows<'a> {
        println!(
            "                 entries in the table          attacker's packets      honest client      busy"
        );
        println!(
            "     time      all   attacker's     dead     let in    dropped    open    new   lost   assured"
        );
        Rows { screen: self, scenario, next: Duration::ZERO }
    }

    pub(crate) fn outcome(&self, scenario: &Scenario, story: &Story) -> Result<()> {
        let decisions = scenario.decisions()?;
        for ban in decisions.iter().filter(|decision| decision.verdict == "ban") {
            let source = ban.source.map_or_else(|| "-".into(), |source| source.to_string());
            let result = ban.result.as_ref();
            let ban = result.and_then(|result| result.ban.as_deref()).unwrap_or("-").replace('_', " ");
            let deleted = result.and_then(|result| result.entries_deleted).unwrap_or_default();
            println!("\n  the actioner's audit log: ban of {source} {ban}, {deleted} entries deleted");
        }
        println!("\n  entries by source          at the worst    at the end");
        for (source, worst) in story.worst.sources.iter().take(3) {
            let name = named(scenario, *source);
            println!("    {name:<26}{worst:>9}{:>14}", count(&story.end, *source));
        }
        println!(
            "    {:<26}{:>9}{:>14}\n",
            "whole table, with loopback", story.worst.entries, story.end.entries
        );
        for finding in story.findings() {
            let word = if finding.holds { "ok    " } else { "FAILED" };
            println!("  {}  {} ({})", self.strong(word), finding.claim, finding.seen);
        }
        Ok(())
    }

    pub(crate) fn times(&self, watch: &Story, prometheus: &Story) {
        println!("\n{}\n", self.strong("Times from the attacker's first packet"));
        println!("  {:<48}{:>12}{:>18}", "", "own watch", "Prometheus, 1 s");
        let row = |words: &str, of: &dyn Fn(&Story) -> Option<Duration>| {
            println!("  {words:<48}{:>12}{:>18}", seconds(of(watch)), seconds(of(prometheus)));
        };
        for stage in Stage::ALL {
            let words = match stage {
                Stage::Threshold => format!("threshold crossed: {THRESHOLD} dead slots"),
                other => other.words().to_owned(),
            };
            row(&words, &|story| story.timeline.after_first_packet(stage));
        }
        println!();
        row("from the threshold to the ban", &|story| story.timeline.after_threshold(Stage::Ban));
        row("from the threshold to the last entry gone", &|story| {
            story.timeline.after_threshold(Stage::Gone)
        });
        self.last_packet(watch, prometheus);
        println!("\n  The kernel is asked about ten times a second, so times are good to about 0.1 s.");
    }

    fn last_packet(&self, watch: &Story, prometheus: &Story) {
        println!("\n{}\n", self.strong("From the attacker's first packet to his last one that arrives"));
        let row = |words: &str, time, how: &str| println!("  {words:<72}{:>10}   {how}", seconds(time));
        let first = "his own pace: the threshold could not be crossed sooner (own watch's run)";
        row(first, watch.timeline.after_first_packet(Stage::Threshold), "measured");
        let last = |story: &Story| story.timeline.after_first_packet(Stage::LastPacket);
        row("own watch, a look each second", last(watch), "measured");
        row("Prometheus, scrape and evaluation each second", last(prometheus), "measured");
        if let Some(AtDefaults { usual, longest }) = AtDefaults::of(&prometheus.timeline) {
            let how = format!("computed; at most {}", seconds(Some(longest)));
            row(
                "Prometheus at its defaults: scrape 15 s, evaluation 1 m, group_wait 30 s",
                Some(usual),
                &how,
            );
            println!(
                "    (computed: the run above to the threshold and from the webhook on, and between them half of each interval \
                 and the group_wait)"
            );
        }
        println!("  Our example configurations have 15 s, 15 s and 0 s.");
    }

    pub(crate) fn closing(&self, well: bool) {
        let words =
            if well { "The loop closed, both ways." } else { "FAILED: see the lines marked so above." };
        println!("\n{}", self.strong(words));
    }
}

/// The live part: a row now and then, and a line for each stage.
pub(crate) struct Rows<'a> {
    screen: &'a Screen,
    scenario: &'a Scenario,
    next: Duration,
}

impl Rows<'_> {
    pub(crate) fn show(&mut self, progress: &Progress<'_>) -> Result<()> {
        let Some(since) = since_first_packet(progress, progress.look.at) else { return Ok(()) };
        for stage in &progress.news {
            self.stage(*stage, progress)?;
        }
        if since >= self.next || progress.news.contains(&Stage::Ban) {
            self.next = since + ROW;
            row(since, progress);
        }
        Ok(())
    }

    fn stage(&self, stage: Stage, progress: &Progress<'_>) -> Result<()> {
        let source = self.scenario.attackers().addr();
        let look = progress.look;
        let (word, text) = match stage {
            Stage::FirstPacket | Stage::LastPacket => return Ok(()),
            Stage::Threshold => ("THRESHOLD", format!("{} dead slots of {source}", look.his_dead)),
            Stage::Alert => {
                let late = progress.timeline.at(Stage::Ban).is_some();
                let whence = if late { " (as the audit log says afterwards)" } else { "" };
                ("ALERT", format!("{ALERT}{{source=\"{source}\"}} is firing{whence}"))
            }
            Stage::Webhook => ("WEBHOOK", "Alertmanager has reached the actioner".to_owned()),
            Stage::Ban => (
                "BAN",
                format!("{source} is in the ipset conntrack-guard-4: dropped before it takes an entry"),
            ),
            Stage::Gone => ("DELETED", "no entry with his address is left".to_owned()),
        };
        let at = progress.timeline.after_first_packet(stage);
        println!("{:>9}   {} {text}", seconds(at), self.screen.strong(&format!("{word:<9}")));
        if stage == Stage::Threshold {
            self.top_sources(look)?;
        }
        Ok(())
    }

    fn top_sources(&self, look: &Look) -> Result<()> {
        let sources = look.sources.iter().take(3);
        let shown: Vec<_> =
            sources.map(|(source, count)| format!("{} {count}", named(self.scenario, *source))).collect();
        println!("{:>22} top sources: {}", "", shown.join(", "));
        let server = &self.scenario.topology().server;
        let source = self.scenario.attackers().addr().to_string();
        if let Some(entry) = list(server)?.iter().find(|entry| entry.source() == source) {
            let state = entry.state.as_deref().unwrap_or_default();
            let flags: Vec<_> = entry.flags.iter().map(|flag| format!("[{flag}]")).collect();
            let left = entry.timeout.unwrap_or_default();
            println!("{:>22} one of his: tcp {state} {}, {left} s left", "", flags.join(" "));
        }
        let waiting = server.output(&["ss", "-Htn", "state", "syn-recv"])?.lines().count();
        println!(
            "{:>22} what netstat would show of him: {waiting} in SYN_RECV, and nothing of the other {}",
            "", look.his_dead
        );
        Ok(())
    }
}

fn row(since: Duration, progress: &Progress<'_>) {
    let (look, honest) = (progress.look, &progress.honest);
    println!(
        "{:>9}{:>9}{:>13}{:>9}{:>11}{:>11}{:>8}{:>7}{:>7}{:>10}",
        seconds(Some(since)),
        look.entries,
        look.his,
        look.his_dead,
        look.passed,
        look.came - look.passed,
        honest.kept,
        honest.opened,
        honest.lost.len(),
        look.busy_assured
    );
}

fn since_first_packet(progress: &Progress<'_>, at: SystemTime) -> Option<Duration> {
    at.duration_since(progress.timeline.at(Stage::FirstPacket)?).ok()
}

fn named(scenario: &Scenario, source: IpAddr) -> String {
    if scenario.attackers().contains(&source) {
        format!("{source} (attacker)")
    } else if scenario.is_honest(source) {
        format!("{source} (honest)")
    } else if scenario.busy_address() == source {
        format!("{source} (busy)")
    } else {
        source.to_string()
    }
}

fn count(look: &Look, source: IpAddr) -> usize {
    look.sources.iter().find(|(other, _)| *other == source).map_or(0, |(_, count)| *count)
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
}
