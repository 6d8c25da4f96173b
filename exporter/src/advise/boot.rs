//! What the next boot would do.

use super::facts::Facts;
use super::judgement::{Advice, Topic, Urgency};
use super::persisted::Trap;

/// Rulesets that will not load: the host comes up without a firewall.
pub(super) fn rulesets(facts: &Facts) -> Option<Advice> {
    let trapped = &facts.persisted.trapped;
    if trapped.is_empty() {
        return None;
    }
    let mut advice =
        Advice::new(Urgency::Now, Topic::Ruleset, "The next boot may leave this host without a firewall");
    for line in trapped {
        let why = match line.trap {
            Trap::NftXtMatch => {
                "this is how `nft list ruleset` prints a rule that iptables made; `nft -f` refuses it, and then loads nothing of the file"
            }
            Trap::IptablesSet => {
                "the set is made by conntrack-actioner; where it does not exist yet, iptables-restore refuses this, and then loads nothing of the file"
            }
        };
        advice = advice.because(format!("{}:{}: `{}`: {why}.", line.file.display(), line.line, line.text));
    }
    Some(advice.step(
        "Take the lines out of the files: the drop rule is conntrack-actioner's, who puts it back when it starts. Save rulesets only after \
         `conntrack-actioner teardown`, or without the table raw. Try with `nft -c -f FILE` or `iptables-restore --test FILE`.",
    ))
}

/// `hashsize=` makes the kernel take eight times as many entries as buckets (`nf_conntrack_init_start`).
pub(super) fn module_option(facts: &Facts) -> Option<Advice> {
    let (file, hashsize) = facts.persisted.hashsize.as_ref()?;
    let buckets = facts.size.buckets?;
    let advice = Advice::new(
        Urgency::Could,
        Topic::ModuleOption,
        format!("The module is loaded with hashsize={hashsize}"),
    );
    let differs = if *hashsize == buckets {
        "so this host runs with it now".to_owned()
    } else {
        format!("and this host runs with {buckets} now: after the next boot that may differ")
    };
    Some(
        advice
            .because(format!(
                "{}: {differs}. Where that option is given the kernel also sets the limit, to eight times as many: a full table has 16 \
                 entries in each chain. Two places that set one number disagree sooner or later.",
                file.display()
            ))
            .step("Take hashsize= out, and set nf_conntrack_buckets and nf_conntrack_max in sysctl.d, both."),
    )
}

/// systemd-sysctl runs once, early; what does not exist then is not set, without an error that anybody sees.
pub(super) fn loaded_too_late(facts: &Facts) -> Option<Advice> {
    if facts.persisted.loaded_at_boot {
        return None;
    }
    let advice =
        Advice::new(Urgency::Should, Topic::LoadedTooLate, "These settings would be lost at the next boot");
    Some(
        advice
            .because(
                "sysctl.d is read before the first rule loads nf_conntrack, and until then the net.netfilter.nf_conntrack_* files do not \
                 exist: the settings are skipped. Nothing below /etc/modules-load.d or in /etc/modules loads it earlier here.",
            )
            .step("echo nf_conntrack > /etc/modules-load.d/nf_conntrack.conf"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advise::facts::tests::as_it_comes;
    use crate::advise::persisted::{Persisted, TrappedLine};

    #[test]
    fn a_line_that_stops_a_ruleset_is_named_with_its_place() {
        let line = TrappedLine {
            file: "/etc/iptables/rules.v4".into(),
            line: 2,
            text: "-A PREROUTING --match-set conntrack-guard-4 src -j DROP".into(),
            trap: Trap::IptablesSet,
        };
        let persisted = Persisted { trapped: vec![line], ..Persisted::default() };
        let advice = rulesets(&Facts { persisted, ..as_it_comes() }).unwrap();
        assert!(advice.why[0].starts_with("/etc/iptables/rules.v4:2: `-A PREROUTING"), "{advice:?}");
        assert!(advice.why[0].contains("iptables-restore refuses"), "{advice:?}");
    }

    #[test]
    fn a_module_option_is_held_against_what_runs() {
        let with = |hashsize| {
            let persisted = Persisted {
                hashsize: Some(("/etc/modprobe.d/n.conf".into(), hashsize)),
                ..Persisted::default()
            };
            module_option(&Facts { persisted, ..as_it_comes() }).unwrap().why[0].clone()
        };
        assert!(with(32_768).contains("runs with 262144 now"), "{}", with(32_768));
        assert!(with(262_144).contains("runs with it now"), "{}", with(262_144));
    }
}
