//! Who is spared from now on is free from now on: a ban that should not be ends with the reload that says so, or with the address.

use std::fs;

use tests::{Result, wait::wait_until};

use crate::{
    kept::banned,
    lab::{Actioner, HIM, Home, POLICY, SOON, count, fill, quiet},
};

const OTHER: &str = "198.51.100.67";

/// Why each ban was lifted, by whose word.
fn lifted(actioner: &Actioner<'_>) -> Vec<(String, String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let audit = actioner.audit();
    let unbans = audit.iter().filter(|line| line["event"] == "unban");
    unbans.map(|line| (text(&line["net"]), text(&line["actor"]), text(&line["reason"]))).collect()
}

#[test]
fn a_ban_ends_when_a_list_that_is_read_again_or_the_host_itself_says_that_it_should_not_be() -> Result<()> {
    let lab = quiet("spared")?;
    fill(&lab, HIM, 30)?;
    fill(&lab, OTHER, 30)?;
    let policy = POLICY.replace("never_ban: []", "never_ban: []\nnever_ban_files: [friends]");
    let home = Home::new(&policy);
    fs::write(home.path("friends"), "# nobody yet\n").unwrap();
    let mut actioner = home.start(&lab)?;
    assert_eq!(count(&actioner.alert(&[HIM, OTHER])?, "banned"), 2);

    // The policy is the same, to the letter: the list is another.
    fs::write(home.path("friends"), format!("{HIM} # the office\n")).unwrap();
    assert!(actioner.reload(&policy)?, "{}", actioner.log());
    assert_eq!(banned(&lab), [OTHER], "{}", actioner.log());
    assert_eq!(actioner.metric("unbans_total{cause=\"spared\"}")?, 1.0);
    let [(net, actor, why)] = &lifted(&actioner)[..] else { panic!("{:?}", lifted(&actioner)) };
    assert!(
        net == &format!("{HIM}/32") && actor == "policy" && why.contains("never_ban"),
        "{net} {actor} {why}"
    );
    fill(&lab, HIM, 30)?;
    assert_eq!(actioner.alert(&[HIM])?["reasons"]["never_ban"]["count"], 1);

    // Nobody reloads: the address becomes the host's own.
    lab.ip(&format!("addr add {OTHER}/32 dev lo\n"))?;
    wait_until("the ban of this host's own address to end", SOON, || match &banned(&lab)[..] {
        [] => Ok(()),
        bans => Err(format!("{bans:?}\n{}", actioner.log())),
    })?;
    wait_until("it to be counted", SOON, || match actioner.metric("unbans_total{cause=\"spared\"}") {
        Ok(2.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    assert_eq!(actioner.metric("active_bans")?, 0.0);
    Ok(())
}
