//! What would have to be otherwise for a refusal not to come again, said to the one who asks.

/// By the refusal's word; None where the sentence of the refusal says all there is.
pub(crate) fn what_would_change_it(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "other_host" => {
            "the alert must carry this host's table_id (status shows it), or the policy's this_host must say whom to believe"
        }
        "no_rule" => "a rule whose matchers hold for the alert's labels",
        "not_a_source" => "the label that the rule names must hold one address",
        "evidence_unavailable" => {
            "the evidence that the rule requires must be measurable: the log says what is missing"
        }
        "require_not_met" => "more of it in the live table, or a lower threshold in the rule's require",
        "never_ban" => "taking it off never_ban and never_ban_files",
        "prefix_too_wide" => {
            "a narrower ipv4_prefix or ipv6_prefix in the rule, or a wider limits.widest_prefix"
        }
        "budget_exhausted" => {
            "time, or a larger limits.bans_per_minute, bans_per_hour or active_bans; `ban` by hand is not bound by the budget"
        }
        "unbanned_by_hand" => "time: a person's word holds for 24 h; `ban` by hand overrides it",
        "breaker_open" => "`conntrack-actioner resume`, or an hour",
        "spoofed_flood" => {
            "the end of the flood, or a rule that requires socketless entries, which nobody can forge: `delete: socketless` goes on meanwhile"
        }
        "paused" | "panicked" => "`conntrack-actioner resume`",
        "loopback" | "link_local" | "multicast" | "unspecified" | "broadcast" | "own_address" | "gateway"
        | "resolver" | "ssh_session" | "webhook_peer" | "outbound" => {
            "nothing in a policy: such addresses are never banned while this is so"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;

    #[test]
    fn every_refusal_says_what_would_change_it() {
        for reason in Refusal::REASONS {
            assert!(what_would_change_it(reason).is_some(), "{reason}");
        }
    }
}
