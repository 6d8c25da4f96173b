//! Five kinds of attackers, each until it is known what becomes of him.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use tests::{
    Result,
    attack::{Attack, Pace, hoard, slow_fill},
    flood::{nth_host, syn_flood, udp_spray},
    wait::wait_until,
};

use crate::{
    Length,
    record::{FILLER, HOARDER, NETWORK, Record, SPRAYER},
    scene::{ADMIN, DATABASE, DEFERRING, FLOODED, MONITORING, NAT, Scene, WEB},
};

const SOON: Duration = Duration::from_secs(60);
/// Above `hoarder`'s 300, below `network-hoarder`'s 400: his neighbours in the /24 are honest.
const FILLED: usize = 380;
const BEHIND_NAT: usize = 320;
/// Six for each of a hundred addresses.
const OF_A_NETWORK: usize = 600;
const HOARDED: usize = 1100;
const SPRAYED: usize = 1500;
/// Dead slots of those who must be spared, as many as a hoarder's.
const SUSPICIOUS: usize = 320;

/// What still goes on.
pub(crate) struct Attackers {
    rows: Vec<[String; 3]>,
    /// Of the banned, who try again and again.
    again: Vec<(&'static str, Attack)>,
    _hoard: Attack,
}

fn pace(count: usize, per_second: u32) -> Pace {
    Pace { count, per_second, within: SOON }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Attackers {
    /// All of them, one after the other where one would hide the other, and again until the time is over.
    pub(crate) fn attack(scene: &Scene, length: &Length, record: &Record<'_>) -> Result<Self> {
        let begun = Instant::now();
        let attacker = &scene.topology.peer("attacker").namespace;
        let (deferring, web) = (scene.to(DEFERRING), scene.to(WEB));
        let for_ever =
            || Pace { count: usize::MAX, per_second: 2, within: length.total + Duration::from_secs(600) };
        let mut rows = Vec::new();
        let mut row = |who: &str, did: String, became: String| {
            println!("{:4.0} s: {who}: {became}", begun.elapsed().as_secs_f64());
            rows.push([who.to_owned(), did, became]);
        };
        let after = |begun: Instant| format!("{:.0} s after his first packet", begun.elapsed().as_secs_f64());

        let filling = slow_fill(attacker, vec![address(FILLER)], deferring, pace(FILLED, u32::MAX))?;
        made(filling, FILLED);
        let behind =
            slow_fill(&scene.culprit, vec![address("10.0.2.2")], deferring, pace(BEHIND_NAT, u32::MAX))?;
        made(behind, BEHIND_NAT);
        let hoarded = Instant::now();
        let hoarding = hoard(attacker, vec![address(HOARDER)], web, pace(HOARDED, 400))?;
        record.wait_for(HOARDER, "living-hoarder", "ban")?;
        row(
            "hoards connections with real sockets",
            format!("{HOARDED} connections, kept open"),
            format!(
                "banned by the example rule `living-hoarder`, {}; the packaged policy leaves living connections alone",
                after(hoarded)
            ),
        );
        let mut again = vec![(HOARDER, hoard(attacker, vec![address(HOARDER)], web, for_ever())?)];

        spray(scene)?;
        let why = record.wait_for(SPRAYER, "living-hoarder", "require_not_met")?;
        row(
            "sprays UDP",
            format!("{SPRAYED} datagrams from as many ports"),
            format!("named, not banned, for his address may be forged: \"{}\"", why["why"].as_str().unwrap()),
        );

        record.wait_for(FILLER, "hoarder", "ban")?;
        row(
            "slow fill of a deferring listener",
            format!("{FILLED} handshakes, no word"),
            format!("banned by the packaged rule `hoarder`, {}", after(begun)),
        );
        again.push((FILLER, slow_fill(attacker, vec![address(FILLER)], deferring, for_ever())?));
        let why = record.wait_for(NAT, "hoarder", "never_ban")?;
        row(
            "slow fill from behind a carrier's NAT",
            format!("{BEHIND_NAT} handshakes, no word"),
            format!("named, not banned: \"{}\"; his dead slots are deleted", why["why"].as_str().unwrap()),
        );

        let many: Vec<IpAddr> = (0..100).map(|host| nth_host(NETWORK.parse().unwrap(), host)).collect();
        let network = Instant::now();
        let filling = slow_fill(attacker, many.clone(), deferring, pace(OF_A_NETWORK, u32::MAX))?;
        made(filling, OF_A_NETWORK);
        record.wait_for(NETWORK, "network-hoarder", "ban")?;
        row(
            "many addresses of one /24",
            "100 addresses, 6 handshakes each".into(),
            format!(
                "the /24 banned by the example rule `network-hoarder`, {}; the packaged policy deletes their dead slots",
                after(network)
            ),
        );
        again.push((NETWORK, slow_fill(attacker, many, deferring, for_ever())?));

        suspect(scene)?;
        for (who, reason) in [(MONITORING, "never_ban"), (ADMIN, "ssh_session"), (DATABASE, "outbound")] {
            record.wait_for(who, "hoarder", reason)?;
        }
        let buried = record.buried()?;
        row(
            "*honest, and looks like a hoarder*: monitoring, ssh session, database",
            format!("{SUSPICIOUS} dead slots each"),
            format!(
                "spared: never_ban, ssh_session, outbound; {buried} dead slots deleted, theirs and the NAT's"
            ),
        );

        let flood = || {
            syn_flood(
                attacker,
                "198.19.0.0/16".parse().unwrap(),
                scene.to(FLOODED),
                pace(length.flood, 20_000),
            )
        };
        let flooding = flood()?;
        record.flood_is_said()?;
        row("SYN flood from forged sources", format!("{} sources", length.flood), "nobody banned, for whoever stands in the packets is innocent; `spoofed_flood` in metric, log and alert".into());
        drop(flooding);

        // The first ban lasts ten minutes, and shall still be in force when all is judged.
        let until = length.total.saturating_sub(length.idle * 2);
        let mut waves = 0;
        while begun.elapsed() < until {
            thread::sleep(Duration::from_secs(1).min(until.saturating_sub(begun.elapsed())));
            if begun.elapsed().as_secs() / 60 > waves {
                waves = begun.elapsed().as_secs() / 60;
                drop(
                    slow_fill(&scene.culprit, vec![address("10.0.2.2")], deferring, pace(BEHIND_NAT, 100))?
                        .finish(),
                );
                spray(scene)?;
                drop(flood()?.finish());
            }
        }
        Ok(Self { rows, again, _hoard: hoarding })
    }

    /// Ends them; not one packet of the banned may have arrived.
    pub(crate) fn end(self, record: &Record<'_>) -> Result<String> {
        let buried = record.buried()?;
        let mut table = String::from("| attacker | does | becomes |\n|---|---|---|\n");
        for row in self.rows {
            table += &format!("| {} |\n", row.join(" | "));
        }
        for (who, attack) in self.again {
            wait_until("another attempt of the banned", SOON, || match attack.tried() {
                0 | 1 => Err("none"),
                _ => Ok(()),
            })?;
            let tally = attack.end();
            assert_eq!(tally.made, 0, "{who} got through: {tally:?}");
            table += &format!("\n{who} tried {} times again, and never got through.", tally.tried);
        }
        table += &format!("\n{buried} dead slots were deleted.");
        Ok(table)
    }
}

/// All of it was done.
fn made(attack: Attack, count: usize) {
    let tally = attack.finish();
    assert_eq!(tally.made, count, "{tally:?}");
}

fn spray(scene: &Scene) -> Result<()> {
    let attacker = &scene.topology.peer("attacker").namespace;
    let sprayer = format!("{SPRAYER}/32").parse().unwrap();
    let spraying = udp_spray(attacker, sprayer, scene.to(9999), pace(SPRAYED, 2000))?;
    made(spraying, SPRAYED);
    Ok(())
}

/// Whom this host knows gets dead slots as well: say, their network lost what ended their connections.
fn suspect(scene: &Scene) -> Result<()> {
    let line = |who: &str, port: usize| {
        format!(
            "-I -s {who} -d 192.0.2.1 -p tcp --sport {port} --dport 80 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 431000\n"
        )
    };
    let lines: String = [MONITORING, ADMIN, DATABASE]
        .into_iter()
        .flat_map(|who| (0..SUSPICIOUS).map(move |number| line(who, 2000 + number)))
        .collect();
    scene.topology.server.command_with_input(&["conntrack", "--load-file", "-"], &lines).map(drop)
}
