//! What the kernel and the audit log show at the user's level.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde_json::Value;
use tests::{Result, listing::list, wait::wait_until};

use crate::scene::Scene;

/// As long as a deferred request takes to die, its grace, and others who want the machine.
const PATIENCE: Duration = Duration::from_secs(240);
pub(crate) const FILLER: &str = "198.51.100.69";
pub(crate) const HOARDER: &str = "198.51.100.67";
pub(crate) const SPRAYER: &str = "198.51.100.68";
pub(crate) const NETWORK: &str = "198.18.5.0/24";

/// Where a scene's decisions are read.
pub(crate) struct Record<'s>(&'s Scene);

impl<'s> Record<'s> {
    pub(crate) fn new(scene: &'s Scene) -> Self {
        Self(scene)
    }

    /// Waits for a line of that source (or network), with that verdict, or that reason for a refusal.
    pub(crate) fn wait_for(&self, source: &str, rule: &str, word: &str) -> Result<Value> {
        let what = format!("{rule} to say {word} of {source}");
        wait_until(&what, PATIENCE, || {
            let lines = self.0.guard.audit().map_err(|failure| failure.to_string())?;
            let meant = |line: &&Value| {
                let about = line["source"] == source || line["net"] == source;
                about && line["rule"] == rule && (line["verdict"] == word || line["reason"] == word)
            };
            let found = lines.iter().find(meant).cloned();
            found.ok_or_else(|| format!("{}\n{}", last(&lines), self.0.guard.running.process.log()))
        })
    }

    /// Waits until dead slots were deleted whoever made them; how many so far.
    pub(crate) fn buried(&self) -> Result<f64> {
        let sample = "deleted_entries_total{rule=\"dead-slots\"}";
        wait_until("dead slots to be deleted", PATIENCE, || match self.0.guard.metric(sample) {
            Ok(some) if some > 0.0 => Ok(some),
            other => Err(format!("{other:?}")),
        })
    }

    /// Waits until the actioner says that sources are being forged, where an alert asks for it and where people read.
    pub(crate) fn flood_is_said(&self) -> Result<()> {
        wait_until("the flood to be noticed", PATIENCE, || match self.0.guard.metric("spoofed_flood") {
            Ok(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        let log = self.0.guard.running.process.log();
        assert!(log.contains("sources are being forged") && log.contains("tcp_syncookies"), "{log}");
        Ok(())
    }

    /// Exactly the attackers are banned, in the kernel; nothing of theirs is in the table; nobody else was ever banned.
    pub(crate) fn only_attackers_were_touched(&self) -> Result<()> {
        let server = &self.0.topology.server;
        let mut banned = Vec::new();
        for set in ["conntrack-guard-4", "conntrack-guard-6"] {
            let saved = server.output(&["ipset", "save", set])?;
            banned.extend(
                saved
                    .lines()
                    .filter_map(|line| line.strip_prefix("add ")?.split(' ').nth(1).map(str::to_owned)),
            );
        }
        banned.sort_unstable();
        assert_eq!(banned, [NETWORK, HOARDER, FILLER]);
        let audit = self.0.guard.audit()?;
        let verdicts =
            |verdict: &str| audit.iter().filter(|line| line["verdict"] == verdict).collect::<Vec<_>>();
        let mut nets: Vec<&str> =
            verdicts("ban").iter().map(|line| line["result"]["net"].as_str().unwrap()).collect();
        nets.sort_unstable();
        nets.dedup();
        assert_eq!(nets.iter().map(|net| net.trim_end_matches("/32")).collect::<Vec<_>>(), banned);
        assert!(
            verdicts("ban").iter().all(|line| line["result"]["ban"] == "in_force"),
            "{:#?}",
            verdicts("ban")
        );
        let nets: Vec<IpNet> = [NETWORK.to_owned(), format!("{FILLER}/32"), format!("{HOARDER}/32")]
            .map(|net| net.parse().unwrap())
            .to_vec();
        let theirs = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            nets.iter().any(|net| net.contains(&address))
        };
        let left: Vec<_> = list(server)?.into_iter().filter(|entry| theirs(entry.source())).collect();
        assert!(left.is_empty(), "{} entries of the banned: {:#?}", left.len(), left.first());
        Ok(())
    }
}

fn last(lines: &[Value]) -> String {
    let last = lines.iter().rev().take(30).map(|line| {
        let words =
            ["rule", "source", "net", "verdict", "reason"].map(|key| line[key].as_str().unwrap_or("-"));
        format!("{} {}", words.join(" "), line["evidence"])
    });
    last.collect::<Vec<_>>().join("\n")
}
