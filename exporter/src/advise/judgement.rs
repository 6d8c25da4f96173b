//! What to change, worst first. Pure: facts in, advice out.

use super::boot;
use super::facts::Facts;
use super::sizing;
use super::timeouts;
use super::weaknesses;

/// How soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Urgency {
    /// It hurts already, or will at the next boot, or whoever tries can do it.
    Now,
    /// It makes an attack easier.
    Should,
    /// It costs something and may have its reason.
    Could,
}

/// What an advice is about: for scripts, one word that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Topic {
    Size,
    Ruleset,
    EstablishedTimeout,
    DeferringListeners,
    ListenersNotAsked,
    SynackRetries,
    OtherTimeouts,
    BeLiberal,
    Loose,
    Accounting,
    ModuleOption,
    LoadedTooLate,
}

/// A sysctl and what it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) now: u64,
    pub(super) value: u64,
}

/// One thing to change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Advice {
    pub(super) urgency: Urgency,
    pub(super) topic: Topic,
    /// What is wrong, in a line.
    pub(super) title: String,
    /// Why it matters, what it costs and what it may break, in paragraphs.
    pub(super) why: Vec<String>,
    pub(super) settings: Vec<Setting>,
    /// What no sysctl does.
    pub(super) steps: Vec<String>,
}

impl Advice {
    pub(super) fn new(urgency: Urgency, topic: Topic, title: impl Into<String>) -> Advice {
        Advice {
            urgency,
            topic,
            title: title.into(),
            why: Vec::new(),
            settings: Vec::new(),
            steps: Vec::new(),
        }
    }

    pub(super) fn because(mut self, why: impl Into<String>) -> Advice {
        self.why.push(why.into());
        self
    }

    pub(super) fn set(mut self, key: &'static str, now: u64, value: u64) -> Advice {
        self.settings.push(Setting { key, now, value });
        self
    }

    pub(super) fn step(mut self, step: impl Into<String>) -> Advice {
        self.steps.push(step.into());
        self
    }
}

/// All there is to say, worst first; nothing where nothing is wrong. No sysctl is named twice.
pub(super) fn judge(facts: &Facts) -> Vec<Advice> {
    let mut advice: Vec<Advice> = [
        boot::rulesets(facts),
        sizing::size(facts),
        weaknesses::deferring(facts),
        timeouts::established(facts),
        weaknesses::synack_retries(facts),
        weaknesses::liberal(facts),
        timeouts::others(facts),
        boot::module_option(facts),
        weaknesses::not_asked(facts),
        weaknesses::loose(facts),
        weaknesses::accounting(facts),
    ]
    .into_iter()
    .flatten()
    .collect();
    let sets_conntrack =
        advice.iter().flat_map(|one| &one.settings).any(|setting| setting.key.starts_with("net.netfilter"));
    if sets_conntrack {
        advice.extend(boot::loaded_too_late(facts));
    }
    advice.sort_by_key(|one| one.urgency);
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::facts::tests::as_it_comes;
    use crate::advise::facts::{Counters, Timeouts};
    use crate::advise::listeners::{Deferring, Listeners};
    use crate::advise::persisted::{Persisted, Trap, TrappedLine};
    use crate::sysctl;

    /// A host that follows the advice.
    fn well_set() -> Facts {
        let came = as_it_comes();
        Facts { timeouts: Timeouts { tcp_established: Some(7440), ..came.timeouts }, ..came }
    }

    type Host = (&'static str, Facts, Vec<(Urgency, Topic)>);

    fn topics(facts: &Facts) -> Vec<(Urgency, Topic)> {
        judge(facts).iter().map(|one| (one.urgency, one.topic)).collect()
    }

    fn deferring() -> Listeners {
        let listener = Deferring {
            address: "0.0.0.0:80".parse().unwrap(),
            seconds: 31,
            program: "apache2".into(),
            pid: 7,
        };
        Listeners { deferring: vec![listener], asked: 3, ..Listeners::default() }
    }

    #[test]
    fn what_a_host_is_told() {
        use Topic::*;
        use Urgency::*;
        let came = as_it_comes;
        let trapped = TrappedLine {
            file: "/etc/nftables.conf".into(),
            line: 3,
            text: "xt match set drop".into(),
            trap: Trap::NftXtMatch,
        };
        let cases: Vec<Host> = vec![
            ("well set", well_set(), vec![]),
            ("as Linux comes", came(), vec![(Should, EstablishedTimeout)]),
            (
                "the article's host: deferring and five days",
                Facts { listeners: deferring(), ..came() },
                vec![(Now, DeferringListeners), (Now, EstablishedTimeout), (Could, SynackRetries)],
            ),
            (
                "deferring, and set well",
                Facts { listeners: deferring(), synack_retries: Some(3), ..well_set() },
                vec![(Could, DeferringListeners)],
            ),
            ("liberal", Facts { tcp_be_liberal: Some(1), ..well_set() }, vec![(Should, BeLiberal)]),
            (
                "strict about the middle of a stream",
                Facts { tcp_loose: Some(0), ..well_set() },
                vec![(Could, Loose)],
            ),
            ("counting bytes", Facts { acct: Some(1), ..well_set() }, vec![(Could, Accounting)]),
            (
                "a firewall that will not load",
                Facts {
                    persisted: Persisted { trapped: vec![trapped], ..well_set().persisted },
                    ..well_set()
                },
                vec![(Now, Ruleset)],
            ),
            (
                "a module that comes after sysctl.d, and something to set",
                Facts { persisted: Persisted::default(), ..came() },
                vec![(Should, EstablishedTimeout), (Should, LoadedTooLate)],
            ),
            ("the same with nothing to set", Facts { persisted: Persisted::default(), ..well_set() }, vec![]),
            (
                "more retries than Linux has",
                Facts { synack_retries: Some(8), ..well_set() },
                vec![(Could, SynackRetries)],
            ),
            (
                "a limit of zero",
                Facts { size: sysctl::Size { limit: 0, ..came().size }, ..well_set() },
                vec![(Should, Size)],
            ),
            (
                "was full",
                Facts { counters: Some(Counters { early_drop: 1, ..Counters::default() }), ..well_set() },
                vec![(Now, Size), (Could, OtherTimeouts)],
            ),
            (
                "a kernel that tells nothing but the size",
                Facts {
                    entry: came().entry,
                    memory: None,
                    counters: None,
                    timeouts: Timeouts::default(),
                    tcp_loose: None,
                    tcp_be_liberal: None,
                    acct: None,
                    timestamp: None,
                    synack_retries: None,
                    keepalive_time: None,
                    ..came()
                },
                vec![],
            ),
        ];
        for (host, facts, expected) in cases {
            assert_eq!(topics(&facts), expected, "{host}");
        }
    }

    #[test]
    fn no_sysctl_is_advised_twice_and_none_to_what_it_is() {
        let everything_wrong = Facts {
            size: sysctl::Size { entries: 250_000, limit: 262_144, buckets: Some(16_384) },
            counters: Some(Counters { drop: 9, early_drop: 9, insert_failed: 1, chain_too_long: 3 }),
            timeouts: Timeouts { tcp_syn_recv: Some(600), udp: Some(3600), ..as_it_comes().timeouts },
            tcp_be_liberal: Some(1),
            tcp_loose: Some(0),
            acct: Some(1),
            timestamp: Some(1),
            synack_retries: Some(9),
            listeners: deferring(),
            persisted: Persisted {
                hashsize: Some(("/etc/modprobe.d/x.conf".into(), 16_384)),
                ..Persisted::default()
            },
            ..as_it_comes()
        };
        let advice = judge(&everything_wrong);
        let settings: Vec<_> = advice.iter().flat_map(|one| &one.settings).collect();
        let keys: std::collections::BTreeSet<_> = settings.iter().map(|setting| setting.key).collect();
        assert_eq!(keys.len(), settings.len(), "{settings:?}");
        assert!(settings.iter().all(|setting| setting.now != setting.value), "{settings:?}");
        assert!(advice.is_sorted_by_key(|one| one.urgency), "worst first");
        assert!(advice.iter().all(|one| !one.why.is_empty()), "each says why");
    }
}
