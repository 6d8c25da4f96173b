//! What happens on the stage, when, and whether it ended well.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use super::{HABITS, Look, Scenario, THRESHOLD};
use crate::{Failure, Result, attack::Attack, honest::HonestReport};

/// From the attack's first packet to the ban and its proof; slots take 7 s to die.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks, each of which starts six programs and takes as long: what is watched must not starve.
const LOOK: Duration = Duration::from_millis(50);
/// After the ban he must have tried so often again, 1.5 s each, and the honest client made so many new connections.
const KNOCKS: usize = 3;
const VISITS: usize = 8;

/// A step on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The attacker's first packet reached the server.
    FirstPacket,
    /// The attacker holds as many dead slots as the rule and the policy ask for, by our own count.
    Threshold,
    /// The alert fires: by Prometheus' account, or the watch's.
    Alert,
    /// Alertmanager's first packet reached the actioner's webhook.
    Webhook,
    /// His address is in the kernel's set.
    Ban,
    /// The last packet of his that the drop rule let pass.
    LastPacket,
    /// No entry has his address at either end.
    Gone,
}

impl Stage {
    /// In the order in which they come.
    pub const ALL: [Self; 7] = [
        Self::FirstPacket,
        Self::Threshold,
        Self::Alert,
        Self::Webhook,
        Self::Ban,
        Self::LastPacket,
        Self::Gone,
    ];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::FirstPacket => "attacker's first packet",
            Self::Threshold => "threshold crossed",
            Self::Alert => "alert firing",
            Self::Webhook => "webhook received",
            Self::Ban => "ban in the kernel",
            Self::LastPacket => "attacker's last packet let in",
            Self::Gone => "his entries gone",
        }
    }
}

/// When each stage was reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timeline([Option<SystemTime>; Stage::ALL.len()]);

impl Timeline {
    /// When.
    pub fn at(&self, stage: Stage) -> Option<SystemTime> {
        self.0[stage as usize]
    }

    /// How long after the attacker's first packet.
    pub fn after_first_packet(&self, stage: Stage) -> Option<Duration> {
        let first = self.at(Stage::FirstPacket)?;
        self.at(stage)?.duration_since(first).ok()
    }

    /// How long after the threshold was crossed.
    pub fn after_threshold(&self, stage: Stage) -> Option<Duration> {
        self.at(stage)?.duration_since(self.at(Stage::Threshold)?).ok()
    }

    fn reach(&mut self, stage: Stage, at: SystemTime) -> bool {
        let slot = &mut self.0[stage as usize];
        let news = slot.is_none();
        slot.get_or_insert(at);
        news
    }
}

/// What is told while it happens.
#[derive(Debug)]
pub struct Progress<'a> {
    /// The kernel now.
    pub look: &'a Look,
    /// So far.
    pub timeline: &'a Timeline,
    /// Stages reached since the last time.
    pub news: Vec<Stage>,
    /// The honest client so far.
    pub honest: HonestReport,
}

/// How it ended.
#[derive(Debug)]
pub struct Story {
    /// When each stage was reached.
    pub timeline: Timeline,
    /// The table when he held most.
    pub worst: Look,
    /// The table at the end, after his last knocks.
    pub end: Look,
    /// His packets that passed after the ban was seen in the kernel.
    pub passed_after_ban: u64,
    /// The most entries he had after they had been gone.
    pub returned: usize,
    /// How often he tried again after the ban.
    pub knocks: usize,
    /// The honest client's life.
    pub honest: HonestReport,
    findings: Vec<Finding>,
}

/// What must hold, and whether it does.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The claim.
    pub claim: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// What was seen.
    pub seen: String,
}

impl Story {
    /// What must hold at the end of every story.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Those that do not.
    pub fn broken(&self) -> Vec<&Finding> {
        self.findings.iter().filter(|finding| !finding.holds).collect()
    }
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
struct Memory {
    timeline: Timeline,
    passed: u64,
    /// At the first look that showed the ban: packets passed, attempts, the honest client's new connections.
    at_ban: Option<(u64, usize, usize)>,
    worst: Option<Look>,
    returned: usize,
}

impl Scenario {
    /// Follows the attack until the ban has proved itself; `tell` hears of every look and may end it with a failure.
    ///
    /// # Errors
    /// When a stage is not reached within a minute, or a look fails.
    pub fn follow(&self, attack: &Attack, mut tell: impl FnMut(Progress<'_>) -> Result<()>) -> Result<Story> {
        let mut memory = Memory::default();
        let start = SystemTime::now();
        loop {
            let (look, honest) = (self.look()?, self.honest());
            let news = self.take_in(&mut memory, &look, attack, &honest)?;
            tell(Progress { look: &look, timeline: &memory.timeline, news, honest: honest.clone() })?;
            if let Some((passed, tried, opened)) = memory.at_ban {
                let knocks = attack.tried() - tried;
                let busy = self.busy().is_none() || look.busy_assured >= THRESHOLD;
                let proved = knocks >= KNOCKS && honest.opened >= opened + VISITS && busy;
                if proved && memory.timeline.at(Stage::Gone).is_some() {
                    let passed_after_ban = look.passed - passed;
                    return Ok(self.end(memory, look, passed_after_ban, knocks, honest));
                }
            }
            if start.elapsed().unwrap_or_default() > PATIENCE {
                return Err(self.unfinished(&memory, &look));
            }
            thread::sleep(LOOK);
        }
    }

    fn take_in(
        &self,
        memory: &mut Memory,
        look: &Look,
        attack: &Attack,
        honest: &HonestReport,
    ) -> Result<Vec<Stage>> {
        let timeline = &mut memory.timeline;
        let mut news = Vec::new();
        let mut reached = |stage, at| {
            if timeline.reach(stage, at) {
                news.push(stage);
            }
        };
        if look.came > 0 {
            reached(Stage::FirstPacket, look.at);
        }
        if look.counted(self.evidence()) >= THRESHOLD {
            reached(Stage::Threshold, look.at);
        }
        if look.webhook > 0 {
            reached(Stage::Webhook, look.at);
        }
        let banned = look.bans(self.attackers());
        if banned {
            reached(Stage::Ban, look.at);
        }
        if banned && look.his == 0 {
            reached(Stage::Gone, look.at);
        }
        // Each question to Prometheus is an entry in the table: none before there can be an answer.
        if timeline.at(Stage::Threshold).is_some()
            && timeline.at(Stage::Alert).is_none()
            && let Some(since) = self.alert_since()?
        {
            timeline.reach(Stage::Alert, since);
            news.push(Stage::Alert);
        }
        if timeline.at(Stage::Gone).is_some() {
            memory.returned = memory.returned.max(look.his);
        }
        if look.passed > memory.passed {
            memory.passed = look.passed;
            timeline.0[Stage::LastPacket as usize] = Some(look.at);
        }
        if banned && memory.at_ban.is_none() {
            memory.at_ban = Some((look.passed, attack.tried(), honest.opened));
            news.push(Stage::LastPacket);
        }
        if memory.worst.as_ref().is_none_or(|worst| look.his >= worst.his) && !banned {
            memory.worst = Some(look.clone());
        }
        news.sort_unstable();
        Ok(news)
    }

    fn end(
        &self,
        memory: Memory,
        end: Look,
        passed_after_ban: u64,
        knocks: usize,
        honest: HonestReport,
    ) -> Story {
        let his = self.attackers();
        let others: Vec<_> = end.banned.iter().filter(|net| **net != his).collect();
        let knocked = end.came - end.passed;
        let finding = |claim, holds, seen| Finding { claim, holds, seen };
        let mut findings = vec![
            finding(
                "the attacker's packets no longer arrive",
                passed_after_ban == 0 && knocked > 0,
                format!("{knocked} came after the ban, {passed_after_ban} passed"),
            ),
            finding(
                "none of his slots remains",
                end.his == 0 && memory.returned == 0,
                format!(
                    "conntrack -L shows {}, and {} at most since they were gone",
                    end.his, memory.returned
                ),
            ),
            finding(
                "the honest client lost no connection",
                honest.lost.is_empty() && honest.kept == HABITS.keep,
                lived(&honest),
            ),
            finding("nobody else is banned", others.is_empty(), format!("{} in the sets", end.banned.len())),
        ];
        findings.extend(self.busy().map(|busy| {
            let left_alone = busy.lost.is_empty() && !end.bans(self.busy_address().into());
            finding(
                "a busy client with more entries in TIME_WAIT than that is left alone",
                end.busy_assured >= THRESHOLD && left_alone,
                format!(
                    "{} assured entries, {} connections made, {} lost",
                    end.busy_assured,
                    busy.opened,
                    busy.lost.len()
                ),
            )
        }));
        let worst = memory.worst.unwrap_or_else(|| end.clone());
        let Memory { timeline, returned, .. } = memory;
        Story { timeline, worst, end, passed_after_ban, returned, knocks, honest, findings }
    }

    fn unfinished(&self, memory: &Memory, look: &Look) -> Failure {
        let missing: Vec<_> = Stage::ALL
            .into_iter()
            .filter(|stage| memory.timeline.at(*stage).is_none())
            .map(Stage::words)
            .collect();
        let log = self.actioner().process.log();
        let lines: Vec<_> = log.lines().collect();
        let decided = match self.decisions().as_deref() {
            Ok([.., last]) => format!("last {last:?}"),
            Ok([]) => "nothing".to_owned(),
            Err(failure) => failure.to_string(),
        };
        Failure::TimedOut {
            what: format!("the story to end; not reached: {}", missing.join(", ")),
            waited: PATIENCE,
            last: format!(
                "{} of his {} entries assured, {} dead, {} of {} packets let in, in the sets: {:?}; the actioner decided {decided}, and \
                 its log ends:\n{}",
                look.his_assured,
                look.his,
                look.his_dead,
                look.passed,
                look.came,
                look.banned,
                lines[lines.len().saturating_sub(4)..].join("\n")
            ),
        }
    }
}

/// The honest client's life in words.
pub fn lived(honest: &HonestReport) -> String {
    let lost = match honest.lost.as_slice() {
        [] => "none lost".to_owned(),
        [first, ..] => format!("{} LOST, the first: {first}", honest.lost.len()),
    };
    format!("{} of {} kept open, {} new ones made, {lost}", honest.kept, HABITS.keep, honest.opened)
}
