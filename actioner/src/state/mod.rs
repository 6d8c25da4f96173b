//! What earlier decisions left: bans in force, offences, budget, breaker, what people ordered. No clock of its own.
//!
//! There are two ledgers, one of what is enforced and one of what was only decided (dry run). A rule on trial neither
//! spends the budget of the others nor hides or lengthens their bans. Every time in it is a deadline on the boot clock, so
//! that a store can carry it over a reboot ([`saved`]).

mod breaker;
mod bucket;
mod ledger;
mod milliseconds;
pub mod saved;

pub use breaker::{Breaker, Open};
pub use ledger::{Cause, Row, Standing};

use crate::firewall::Ban;
use crate::now::Now;
use crate::plan::{Decision, Plan};
use crate::policy::{BanAction, Limits};
use crate::refusal::Refusal;
use crate::spared::Memory;
use ipnet::IpNet;
use ledger::Ledger;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Whom a person unbanned, no rule bans again for so long.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Bans in force, offences, budget, breaker, grace, pause.
#[derive(Debug, Default)]
pub struct State {
    enforced: Ledger,
    shadow: Ledger,
    grace: BTreeMap<IpNet, Grace>,
    breaker: Breaker,
    pause: Option<Pause>,
    /// Who panicked. Not stored here: a file of its own says it, which also a dead actioner's user can make.
    panicked: Option<String>,
    /// Peers who passed authentication, carried for [`crate::surroundings::Surroundings`].
    remembered: Vec<Memory>,
    /// Goes up with every change, so that only changes are stored.
    revision: u64,
}

/// Somebody unbanned a network by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grace {
    /// On the boot clock.
    #[serde(with = "milliseconds")]
    pub until: Duration,
    /// Who it was.
    pub by: String,
}

/// Somebody paused all actions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// On the boot clock; None: until somebody resumes.
    #[serde(with = "milliseconds::optional")]
    pub until: Option<Duration>,
    /// Milliseconds since 1970: for people.
    pub since: u64,
    /// Who it was.
    pub by: String,
}

impl State {
    /// Nothing banned, a full budget.
    pub fn new() -> State {
        State::default()
    }

    fn ledger(&self, enforce: bool) -> &Ledger {
        if enforce { &self.enforced } else { &self.shadow }
    }

    fn ledger_mut(&mut self, enforce: bool) -> &mut Ledger {
        self.revision += 1;
        if enforce { &mut self.enforced } else { &mut self.shadow }
    }

    /// Another number than before: something changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The ban in force on exactly this network that answers an offence under `rule`, if any. What was only decided in
    /// dry run answers nothing that is to be enforced.
    pub fn standing(&self, net: &IpNet, rule: &str, enforce: bool, now: Now) -> Option<Standing> {
        let real = self.enforced.standing(net, rule, now);
        real.or_else(|| if enforce { None } else { self.shadow.standing(net, rule, now) })
    }

    /// How many networks should be banned in the kernel.
    pub fn active(&self, now: Now) -> usize {
        self.enforced.active(now)
    }

    /// Every ban that should be in the kernel, with the time it has left.
    pub fn enforced(&self, now: Now) -> impl Iterator<Item = Ban> + '_ {
        self.enforced.bans.iter().filter_map(move |(net, rows)| {
            let longest = rows.iter().filter_map(|row| row.until).max()?;
            let timeout = longest.checked_sub(now.boot).filter(|left| !left.is_zero())?;
            Some(Ban { net: *net, timeout })
        })
    }

    /// Until when exactly this network is banned, by anybody; None: it is not.
    pub fn banned_until(&self, net: &IpNet, now: Now) -> Option<Standing> {
        self.enforced.until(net, now)
    }

    /// Whether a network is banned for ever, which is somebody else's doing.
    pub fn is_permanent(&self, net: &IpNet) -> bool {
        self.enforced.bans.get(net).is_some_and(|rows| rows.iter().any(|row| row.until.is_none()))
    }

    /// Every reason for which a network is banned: those that are enforced, or those of dry run.
    pub fn rows(&self, enforce: bool, now: Now) -> impl Iterator<Item = (IpNet, &Row)> {
        self.ledger(enforce).rows(now)
    }

    /// Every network that is banned, or would be in dry run; as often as there are reasons.
    pub fn nets(&self, now: Now) -> impl Iterator<Item = IpNet> {
        self.rows(true, now).chain(self.rows(false, now)).map(|(net, _)| net)
    }

    /// How long the next ban of this network under this rule lasts, and the how-manieth offence it would be.
    pub fn next_ban(
        &self,
        net: IpNet,
        rule: &str,
        action: &BanAction,
        enforce: bool,
        now: Now,
    ) -> (Duration, u32) {
        self.ledger(enforce).next(net, rule, action, now)
    }

    /// Whether one more ban may be made beside `planned` others that are not applied yet: budget, then breaker.
    ///
    /// # Errors
    /// Which limit is used up, or why the breaker is open.
    pub fn afford(&self, limits: &Limits, planned: usize, enforce: bool, now: Now) -> Result<(), Refusal> {
        self.ledger(enforce).afford(limits, planned, now)?;
        self.breaker.check(now)
    }

    /// Whether there is room for one more ban by hand: budget and breaker are for rules.
    ///
    /// # Errors
    /// [`Refusal::TooManyActiveBans`].
    pub fn has_room(&self, limits: &Limits, now: Now) -> Result<(), Refusal> {
        self.enforced.has_room(limits, 0, now)
    }

    /// Whether a person has unbanned something of this network lately.
    ///
    /// # Errors
    /// [`Refusal::UnbannedByHand`].
    pub fn grace(&self, net: &IpNet, now: Now) -> Result<(), Refusal> {
        let touches = |graced: &IpNet| graced.contains(net) || net.contains(graced);
        let graced = self.grace.iter().find(|(graced, grace)| grace.until > now.boot && touches(graced));
        graced.map_or(Ok(()), |(graced, grace)| {
            let left = Duration::from_secs((grace.until - now.boot).as_secs());
            Err(Refusal::UnbannedByHand { net: *graced, by: grace.by.clone(), left })
        })
    }

    /// Whether anything may be done at all.
    ///
    /// # Errors
    /// [`Refusal::Panicked`], [`Refusal::Paused`].
    pub fn may_act(&self, now: Now) -> Result<(), Refusal> {
        if let Some(by) = &self.panicked {
            return Err(Refusal::Panicked { by: by.clone() });
        }
        self.paused(now).map_or(Ok(()), |pause| Err(Refusal::Paused { by: pause.by.clone() }))
    }

    /// The pause in force.
    pub fn paused(&self, now: Now) -> Option<&Pause> {
        self.pause.as_ref().filter(|pause| pause.until.is_none_or(|until| until > now.boot))
    }

    /// The breaker. Bans of dry run cannot help, so they are never on trial; an open one refuses theirs too, as it would.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Bans left in this minute's and this hour's budget.
    pub fn budget(&self, limits: &Limits, enforce: bool, now: Now) -> [f64; 2] {
        self.ledger(enforce).budget(limits, now)
    }

    /// Folds a plan in: its bans are in force from now, spend the budget and count as offences. One that the kernel then does
    /// not take stays due: the next alert and the reconciler try again.
    pub fn apply(&mut self, plan: &Plan, limits: &Limits, now: Now) {
        let Some(rule) = &plan.rule else { return };
        for verdict in &plan.verdicts {
            if let Decision::Ban(ban) = &verdict.decision {
                self.ledger_mut(plan.enforce).ban(rule, ban, limits, now);
            }
        }
    }

    /// Networks were banned and their entries deleted, of which there were so many: the breaker waits for the effect.
    pub fn banned(&mut self, held: impl IntoIterator<Item = (IpNet, u64)>, now: Now) {
        self.revision += 1;
        self.breaker.banned(held, now);
    }

    /// The table was read, and `held` says what networks hold in it: the breaker looks whether bans helped. Returns why it opened, if
    /// it did just now.
    pub fn measure(&mut self, held: impl FnOnce(&[IpNet]) -> u64, now: Now) -> Option<&Open> {
        let enforced = &self.enforced;
        let open = self.breaker.measure(|net| enforced.holds(net, now), held, now);
        self.revision += u64::from(open.is_some());
        open
    }

    /// Somebody bans by hand, in place of what somebody banned by hand before, or what nobody knows of. What was unbanned before is in
    /// grace no more.
    pub fn ban_by_hand(&mut self, net: IpNet, lasts: Duration, by: &str, reason: &str, now: Now) {
        self.grace.retain(|graced, _| !(graced.contains(&net) || net.contains(graced)));
        let cause = Cause::Hand { by: by.to_owned(), reason: reason.to_owned() };
        let ledger = self.ledger_mut(true);
        ledger.keep_rows_of(&net, |row| row.is_a_rules() || row.until.is_none());
        ledger.put(net, cause, Some(now.boot + lasts), now);
    }

    /// Somebody unbans by hand: no rule bans it again for [`GRACE`]. Returns whether it was banned, or would have been.
    pub fn unban_by_hand(&mut self, net: IpNet, by: &str, now: Now) -> bool {
        let was_banned = self.unban(&net);
        self.grace.insert(net, Grace { until: now.boot + GRACE, by: by.to_owned() });
        was_banned
    }

    /// Ends a ban, in both ledgers. Offences are remembered.
    pub fn unban(&mut self, net: &IpNet) -> bool {
        self.revision += 1;
        let enforced = self.enforced.bans.remove(net).is_some();
        self.shadow.bans.remove(net).is_some() || enforced
    }

    /// Who panicked, if somebody did.
    pub fn panicked(&self) -> Option<&str> {
        self.panicked.as_deref()
    }

    /// Somebody panicked: every ban ends, and nothing is done. Returns how many there were.
    pub fn panic(&mut self, by: &str) -> usize {
        self.panicked = Some(by.to_owned());
        self.lift_all()
    }

    /// Every ban ends, in both ledgers; offences are remembered. Returns how many were enforced.
    pub fn lift_all(&mut self) -> usize {
        self.revision += 1;
        self.shadow.bans.clear();
        std::mem::take(&mut self.enforced.bans).len()
    }

    /// Peers who passed authentication, as they were last written down.
    pub fn remembered(&self) -> &[Memory] {
        &self.remembered
    }

    /// Others did, or some of them are forgotten.
    pub fn remember(&mut self, peers: Vec<Memory>) {
        self.revision += 1;
        self.remembered = peers;
    }

    /// No rule acts until the pause ends; orders by hand go on.
    pub fn set_pause(&mut self, lasts: Option<Duration>, by: &str, now: Now) {
        self.revision += 1;
        let until = lasts.map(|lasts| now.boot + lasts);
        self.pause = Some(Pause { until, since: now.milliseconds(), by: by.to_owned() });
    }

    /// Ends a panic and a pause and closes the breaker. Returns what of them there was.
    pub fn resume(&mut self, now: Now) -> Vec<&'static str> {
        self.revision += 1;
        let panicked = self.panicked.take().map(|_| "the panic is over");
        let paused = self.paused(now).map(|_| "the pause is over");
        self.pause = None;
        let breaker = self.breaker.close(now).then_some("the breaker is closed");
        [panicked, paused, breaker].into_iter().flatten().collect()
    }

    /// Takes in a ban that the kernel already held when we started and that the store does not know: it was lost, or could not be
    /// written. One that a person lifted is not taken in: the kernel was not told in time.
    pub fn adopt(&mut self, net: IpNet, remaining: Option<Duration>, now: Now) {
        let until = remaining.map(|remaining| now.boot + remaining);
        let lifted = self.grace(&net, now).is_err();
        if !lifted && !self.enforced.bans.contains_key(&net) {
            self.ledger_mut(true).put(net, Cause::Adopted, until, now);
        }
    }

    /// A ban without end is somebody else's doing, and so is its end: `in_kernel` says what still stands.
    pub fn forget_permanent(&mut self, in_kernel: impl Fn(&IpNet) -> bool) {
        let before = self.enforced.bans.len();
        self.enforced.keep_rows(|net, row| row.until.is_some() || in_kernel(net));
        self.revision += u64::from(self.enforced.bans.len() < before);
    }

    /// Forgets what has ended, and the offences that have decayed. Returns how many enforced bans ended.
    pub fn expire(&mut self, now: Now) -> usize {
        let shadows = self.shadow.expire(now);
        let ended = self.enforced.expire(now);
        self.grace.retain(|_, grace| grace.until > now.boot);
        self.revision += u64::from(ended + shadows > 0);
        ended
    }

    /// Enforcement was turned on: what was only decided in dry run is forgotten.
    pub fn discard_shadows(&mut self) {
        self.revision += 1;
        self.shadow = Ledger::default();
    }
}
