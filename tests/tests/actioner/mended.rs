//! Another program takes our sets or rules away: they come back by themselves, with the bans.

use tests::{Result, wait::wait_until};

use crate::lab::{HIM, Home, POLICY, SOON, count, fill, members, quiet, raw_rules};

#[test]
fn a_flushed_raw_table_and_destroyed_sets_are_back_with_their_bans() -> Result<()> {
    let lab = quiet("mended")?;
    fill(&lab, HIM, 30)?;
    let home = Home::new(POLICY);
    let actioner = home.start(&lab)?;
    assert_eq!(count(&actioner.alert(&[HIM])?, "banned"), 1);
    let whole = || {
        let rules = raw_rules(&lab).unwrap().matches("-j DROP").count();
        let banned = members(&lab, "conntrack-guard-4").unwrap_or_default();
        match (rules, &banned[..]) {
            (2, [(net, seconds)]) if net == HIM && (500..=600).contains(seconds) => Ok(()),
            _ => Err(format!("{rules} drop rules, {banned:?}\n{}", actioner.log())),
        }
    };
    wait_until("the ban", SOON, whole)?;

    lab.output(&["iptables", "-t", "raw", "-F"])?;
    wait_until("the drop rule again", SOON, whole)?;
    assert!(actioner.log().contains("our drop rule was gone"), "{}", actioner.log());

    lab.output(&["iptables", "-t", "raw", "-F"])?;
    wait_until("the set to be free", SOON, || lab.output(&["ipset", "destroy", "conntrack-guard-4"]))?;
    wait_until("the set again, with its ban", SOON, whole)?;
    assert!(actioner.log().contains("bans were gone from the kernel: put back"), "{}", actioner.log());
    Ok(())
}
