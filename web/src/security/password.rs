//! `basic_auth_users`: passwords against their bcrypt hashes, one at a time and off the async thread.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::{HashParts, Version};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio_rustls::rustls::crypto::ring;

use crate::neighbourhood::Neighbourhood;

/// Passwords found right, as exporter-toolkit remembers them; a check takes 50 ms and more.
const REMEMBERED: usize = 100;

/// So many checks may wait for the one that runs; a stranger must not make the others wait for minutes.
const WAITING: usize = 64;

/// So many of them for one address, so that whoever guesses from a few does not keep out, after a restart, the client whose
/// password is right and not yet remembered.
const WAITING_FOR_ONE: usize = 2;

/// A bcrypt hash of `fakepassword`, exporter-toolkit's, for users that do not exist: their check takes as long as one that does.
const NOBODY: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

/// The users of one configuration.
#[derive(Default)]
pub(super) struct Users {
    hashes: HashMap<String, String>,
    nobody: String,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} users", self.hashes.len())
    }
}

impl Users {
    pub(super) fn new(users: &HashMap<String, HashParts>) -> Self {
        // As expensive as the dearest, or the time would tell who exists.
        let cost = users.values().map(HashParts::get_cost).max().unwrap_or(10);
        if let Some((name, least)) = sooner_told(users, cost) {
            tracing::warn!(
                user = name,
                least,
                cost,
                "basic_auth_users: the bcrypt costs differ, so the time of an answer tells strangers which users exist: hash all passwords at one cost"
            );
        }
        let nobody = NOBODY.replace("$10$", &format!("${cost:02}$"));
        let text = |hash: &HashParts| hash.format_for_version(Version::TwoY);
        let hashes = users.iter().map(|(name, hash)| (name.clone(), text(hash))).collect();
        Self { hashes, nobody }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// A user whose password takes less time to check than that of one who does not exist, and its cost.
fn sooner_told(users: &HashMap<String, HashParts>, cost: u32) -> Option<(&str, u32)> {
    let costs = users.iter().map(|(name, hash)| (name.as_str(), hash.get_cost()));
    costs.filter(|(_, least)| *least < cost).min_by_key(|(_, least)| *least)
}

/// A name and a password, as `Authorization: Basic` has them.
pub(super) struct Claim {
    pub(super) user: String,
    password: Vec<u8>,
}

impl Claim {
    /// From what follows the word `Basic`.
    pub(super) fn read(encoded: &str) -> Option<Self> {
        let decoded = STANDARD.decode(encoded).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
        Some(Self { user, password: decoded[colon + 1..].to_vec() })
    }
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// Too many wait already.
    Busy,
}

/// Checks passwords, and remembers which were right: as digests under a key of this process, never as text.
pub(super) struct Checker {
    key: [u8; 32],
    right: RefCell<VecDeque<Digested>>,
    /// One check at a time, as in exporter-toolkit: it is CPU that a stranger makes us spend.
    turn: Semaphore,
    /// The passwords that wait or are being checked: for whom, and where its verdict will be. The same password asked for once
    /// more, as after a restart by all connections of one client, takes no other place.
    waiting: RefCell<HashMap<Digested, Waiting>>,
}

type Digested = [u8; 32];

struct Waiting {
    whose: Neighbourhood,
    verdict: watch::Receiver<Verdict>,
}

/// A password's place among those that wait, left when its check ends or is given up.
struct Place<'c> {
    checker: &'c Checker,
    digest: Digested,
    verdict: watch::Sender<Verdict>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.checker.waiting.borrow_mut().remove(&self.digest);
    }
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Checker")
    }
}

impl Checker {
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        ring::default_provider().secure_random.fill(&mut key).expect("the kernel gives random bytes");
        Self { key, right: RefCell::default(), turn: Semaphore::new(1), waiting: RefCell::default() }
    }

    /// Whether this is a user and his password, which somebody of there shows.
    pub(super) async fn check(&self, users: &Users, claim: Claim, whose: Neighbourhood) -> Verdict {
        let known = users.hashes.get(&claim.user);
        let hash = known.unwrap_or(&users.nobody).clone();
        let digest = self.digest(&[claim.user.as_bytes(), hash.as_bytes(), &claim.password]);
        if self.remembers(&digest) {
            return Verdict::Right;
        }
        let asked = self.waiting.borrow().get(&digest).map(|waiting| waiting.verdict.clone());
        if let Some(mut asked) = asked {
            // An error: the other's check was given up.
            return asked.changed().await.map_or(Verdict::Busy, |()| *asked.borrow());
        }
        let Some(place) = self.place(digest, whose) else { return Verdict::Busy };
        let _turn = self.turn.acquire().await.expect("it is never closed");
        let password = claim.password;
        let checked = spawn_blocking(move || bcrypt::verify(&password, &hash)).await;
        let right = known.is_some() && matches!(checked, Ok(Ok(true)));
        if right {
            self.remember(digest);
        }
        let verdict = if right { Verdict::Right } else { Verdict::Wrong };
        place.verdict.send_replace(verdict);
        verdict
    }

    /// A place among those that wait, if there is one.
    fn place(&self, digest: Digested, whose: Neighbourhood) -> Option<Place<'_>> {
        let mut waiting = self.waiting.borrow_mut();
        let of_one = waiting.values().filter(|waiting| waiting.whose == whose).count();
        if waiting.len() == WAITING || of_one == WAITING_FOR_ONE {
            return None;
        }
        let (sender, verdict) = watch::channel(Verdict::Busy);
        waiting.insert(digest, Waiting { whose, verdict });
        Some(Place { checker: self, digest, verdict: sender })
    }

    fn remember(&self, digest: Digested) {
        let mut remembered = self.right.borrow_mut();
        // Only what is right is kept, so that nobody can push it out by guessing.
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(digest);
    }

    /// The hash is part of it: a password that was changed is forgotten by itself.
    fn digest(&self, parts: &[&[u8]]) -> Digested {
        let mut hash = Sha256::new_with_prefix(self.key);
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// Looks at all of them, whichever it is.
    fn remembers(&self, digest: &Digested) -> bool {
        let remembered = self.right.borrow();
        let any = remembered.iter().fold(Choice::from(0), |any, one| any | one.ct_eq(digest));
        any.into()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::str::FromStr;
    use std::time::Instant;

    use super::*;
    use crate::Peer;

    /// `secret`, at the least cost there is.
    fn users() -> Users {
        users_at(4)
    }

    fn users_at(cost: u32) -> Users {
        let hash = bcrypt::hash("secret", cost).unwrap();
        Users::new(&HashMap::from([("alice".to_owned(), HashParts::from_str(&hash).unwrap())]))
    }

    fn from(address: &str) -> Neighbourhood {
        Neighbourhood::of(Peer::Tcp((address.parse::<IpAddr>().unwrap(), 1).into()))
    }

    fn claim(user: &str, password: &str) -> Claim {
        Claim::read(&STANDARD.encode(format!("{user}:{password}"))).unwrap()
    }

    #[tokio::test]
    async fn only_a_user_with_his_password_is_right_the_second_time_too() {
        let (checker, users) = (Checker::new(), users());
        for _ in 0..2 {
            assert_eq!(
                checker.check(&users, claim("alice", "secret"), from("192.0.2.1")).await,
                Verdict::Right
            );
            for wrong in [claim("alice", "Secret"), claim("bob", "secret"), claim("", "fakepassword")] {
                assert_eq!(checker.check(&users, wrong, from("192.0.2.1")).await, Verdict::Wrong);
            }
        }
        assert_eq!(checker.right.borrow().len(), 1);
    }

    #[tokio::test]
    async fn the_password_of_nobody_opens_nothing() {
        let checker = Checker::new();
        let nobody = Users::new(&HashMap::from([("alice".to_owned(), HashParts::from_str(NOBODY).unwrap())]));
        assert!(bcrypt::verify("fakepassword", &nobody.nobody).unwrap());
        assert_eq!(
            checker.check(&nobody, claim("bob", "fakepassword"), from("192.0.2.1")).await,
            Verdict::Wrong
        );
    }

    #[test]
    fn nobody_costs_as_much_as_the_dearest_user() {
        let hash = HashParts::from_str(&NOBODY.replace("$10$", "$13$")).unwrap();
        let users = Users::new(&HashMap::from([("alice".to_owned(), hash)]));
        assert_eq!(HashParts::from_str(&users.nobody).unwrap().get_cost(), 13);
        assert!(users.hashes["alice"].starts_with("$2y$13$"));
    }

    #[test]
    fn a_user_whose_check_is_sooner_over_is_named() {
        let hash = |cost: u32| HashParts::from_str(&NOBODY.replace("$10$", &format!("${cost:02}$"))).unwrap();
        let users = |costs: [u32; 3]| {
            ["a", "b", "c"].map(str::to_owned).into_iter().zip(costs.map(hash)).collect::<HashMap<_, _>>()
        };
        assert_eq!(sooner_told(&users([12, 10, 11]), 12), Some(("b", 10)));
        assert_eq!(sooner_told(&users([12, 12, 12]), 12), None);
    }

    #[tokio::test]
    async fn a_changed_password_is_asked_for_at_once() {
        let checker = Checker::new();
        assert_eq!(
            checker.check(&users(), claim("alice", "secret"), from("192.0.2.1")).await,
            Verdict::Right
        );
        let hash = HashParts::from_str(&bcrypt::hash("other", 4).unwrap()).unwrap();
        let changed = Users::new(&HashMap::from([("alice".to_owned(), hash)]));
        assert_eq!(
            checker.check(&changed, claim("alice", "secret"), from("192.0.2.1")).await,
            Verdict::Wrong
        );
    }

    /// What comes of all these passwords of alice's, asked at once.
    async fn crowd(
        checker: Checker,
        users: Users,
        passwords: impl IntoIterator<Item = (String, Neighbourhood)>,
    ) -> Vec<Verdict> {
        let (checker, users) = (std::rc::Rc::new(checker), std::rc::Rc::new(users));
        let local = tokio::task::LocalSet::new();
        let ask = |(password, whose): (String, Neighbourhood)| {
            let (users, checker) = (std::rc::Rc::clone(&users), std::rc::Rc::clone(&checker));
            local.spawn_local(async move { checker.check(&users, claim("alice", &password), whose).await })
        };
        let asked: Vec<_> = passwords.into_iter().map(ask).collect();
        let answers = async {
            let mut verdicts = Vec::new();
            for one in asked {
                verdicts.push(one.await.unwrap());
            }
            verdicts
        };
        local.run_until(answers).await
    }

    #[tokio::test]
    async fn many_with_the_same_right_password_cost_one_check() {
        let hash = bcrypt::hash("secret", 8).unwrap();
        let began = Instant::now();
        assert!(bcrypt::verify("secret", &hash).unwrap());
        let one = began.elapsed();
        let users = Users::new(&HashMap::from([("alice".to_owned(), HashParts::from_str(&hash).unwrap())]));
        let began = Instant::now();
        let verdicts =
            crowd(Checker::new(), users, vec![("secret".to_owned(), from("192.0.2.1")); WAITING]).await;
        assert_eq!(verdicts, [Verdict::Right; WAITING]);
        assert!(began.elapsed() < one * 16, "{:?} after {one:?} for one", began.elapsed());
    }

    #[tokio::test]
    async fn a_crowd_of_guesses_is_turned_away() {
        let guesses = (0..WAITING + 5).map(|guess| (guess.to_string(), from(&format!("192.0.2.{guess}"))));
        let verdicts = crowd(Checker::new(), users_at(8), guesses).await;
        let busy = verdicts.iter().filter(|verdict| **verdict == Verdict::Busy).count();
        let wrong = verdicts.iter().filter(|verdict| **verdict == Verdict::Wrong).count();
        // On a busy machine a check may end, and its place be free, before the last has come.
        assert!((1..=5).contains(&busy) && busy + wrong == WAITING + 5, "{busy} busy, {wrong} wrong");
    }

    #[tokio::test]
    async fn a_crowd_of_guesses_from_one_place_keeps_nobody_else_out() {
        for guesser in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
            let guesses = (0..WAITING).map(|guess| (guess.to_string(), from(guesser)));
            // Out of one /64 everybody has as many addresses as he likes.
            let neighbours = (0..WAITING).map(|n| (format!("n{n}"), from(&format!("2001:db8::1:{n:x}"))));
            let honest = [("secret".to_owned(), from("192.0.2.2"))];
            let crowded = guesses.chain(neighbours).chain(honest);
            let verdicts = crowd(Checker::new(), users_at(8), crowded).await;
            assert_eq!(verdicts.last(), Some(&Verdict::Right), "{guesser}");
            assert!(
                verdicts.iter().filter(|verdict| **verdict == Verdict::Wrong).count() <= 2 * WAITING_FOR_ONE
            );
        }
    }

    #[tokio::test]
    async fn the_same_wrong_password_again_and_again_costs_one_check() {
        let guesses = vec![("guess".to_owned(), from("192.0.2.1")); 10 * WAITING];
        let hash = bcrypt::hash("secret", 8).unwrap();
        let began = Instant::now();
        assert!(bcrypt::verify("secret", &hash).unwrap());
        let one = began.elapsed();
        let users = Users::new(&HashMap::from([("alice".to_owned(), HashParts::from_str(&hash).unwrap())]));
        let began = Instant::now();
        let verdicts = crowd(Checker::new(), users, guesses).await;
        assert_eq!(verdicts, [Verdict::Wrong; 10 * WAITING]);
        assert!(began.elapsed() < one * 64, "{:?} after {one:?} for one", began.elapsed());
    }
}
