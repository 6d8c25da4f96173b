//! `basic_auth_users`: passwords against their bcrypt hashes, one at a time and off the async thread.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::{HashParts, Version};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_rustls::rustls::crypto::ring;

/// Passwords found right, as exporter-toolkit remembers them; a check takes 50 ms and more.
const REMEMBERED: usize = 100;

/// So many checks may wait for the one that runs; a stranger must not make the others wait for minutes.
const WAITING: usize = 64;

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
        let nobody = NOBODY.replace("$10$", &format!("${cost:02}$"));
        let text = |hash: &HashParts| hash.format_for_version(Version::TwoY);
        let hashes = users.iter().map(|(name, hash)| (name.clone(), text(hash))).collect();
        Self { hashes, nobody }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
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
    right: RefCell<VecDeque<[u8; 32]>>,
    /// One check at a time, as in exporter-toolkit: it is CPU that a stranger makes us spend.
    turn: Semaphore,
    places: Semaphore,
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
        Self { key, right: RefCell::default(), turn: Semaphore::new(1), places: Semaphore::new(WAITING) }
    }

    /// Whether this is a user and his password.
    pub(super) async fn check(&self, users: &Users, claim: Claim) -> Verdict {
        let known = users.hashes.get(&claim.user);
        let hash = known.unwrap_or(&users.nobody).clone();
        let digest = self.digest(&[claim.user.as_bytes(), hash.as_bytes(), &claim.password]);
        if self.remembers(&digest) {
            return Verdict::Right;
        }
        let Ok(_place) = self.places.try_acquire() else { return Verdict::Busy };
        let _turn = self.turn.acquire().await.expect("it is never closed");
        // Meanwhile another request may have shown the same password.
        if self.remembers(&digest) {
            return Verdict::Right;
        }
        let password = claim.password;
        let checked = spawn_blocking(move || bcrypt::verify(&password, &hash)).await;
        let right = known.is_some() && matches!(checked, Ok(Ok(true)));
        if !right {
            return Verdict::Wrong;
        }
        let mut remembered = self.right.borrow_mut();
        // Only what is right is kept, so that nobody can push it out by guessing.
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(digest);
        Verdict::Right
    }

    /// The hash is part of it: a password that was changed is forgotten by itself.
    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(self.key);
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// Looks at all of them, whichever it is.
    fn remembers(&self, digest: &[u8; 32]) -> bool {
        let remembered = self.right.borrow();
        let any = remembered.iter().fold(Choice::from(0), |any, one| any | one.ct_eq(digest));
        any.into()
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;
    use std::time::Instant;

    use super::*;

    /// `secret`, at the least cost there is.
    fn users() -> Users {
        let hash = bcrypt::hash("secret", 4).unwrap();
        Users::new(&HashMap::from([("alice".to_owned(), HashParts::from_str(&hash).unwrap())]))
    }

    fn claim(user: &str, password: &str) -> Claim {
        Claim::read(&STANDARD.encode(format!("{user}:{password}"))).unwrap()
    }

    #[tokio::test]
    async fn only_a_user_with_his_password_is_right_the_second_time_too() {
        let (checker, users) = (Checker::new(), users());
        for _ in 0..2 {
            assert_eq!(checker.check(&users, claim("alice", "secret")).await, Verdict::Right);
            for wrong in [claim("alice", "Secret"), claim("bob", "secret"), claim("", "fakepassword")] {
                assert_eq!(checker.check(&users, wrong).await, Verdict::Wrong);
            }
        }
        assert_eq!(checker.right.borrow().len(), 1);
    }

    #[tokio::test]
    async fn the_password_of_nobody_opens_nothing() {
        let checker = Checker::new();
        let nobody = Users::new(&HashMap::from([("alice".to_owned(), HashParts::from_str(NOBODY).unwrap())]));
        assert!(bcrypt::verify("fakepassword", &nobody.nobody).unwrap());
        assert_eq!(checker.check(&nobody, claim("bob", "fakepassword")).await, Verdict::Wrong);
    }

    #[test]
    fn nobody_costs_as_much_as_the_dearest_user() {
        let hash = HashParts::from_str(&NOBODY.replace("$10$", "$13$")).unwrap();
        let users = Users::new(&HashMap::from([("alice".to_owned(), hash)]));
        assert_eq!(HashParts::from_str(&users.nobody).unwrap().get_cost(), 13);
        assert!(users.hashes["alice"].starts_with("$2y$13$"));
    }

    #[tokio::test]
    async fn a_changed_password_is_asked_for_at_once() {
        let checker = Checker::new();
        assert_eq!(checker.check(&users(), claim("alice", "secret")).await, Verdict::Right);
        let hash = HashParts::from_str(&bcrypt::hash("other", 4).unwrap()).unwrap();
        let changed = Users::new(&HashMap::from([("alice".to_owned(), hash)]));
        assert_eq!(checker.check(&changed, claim("alice", "secret")).await, Verdict::Wrong);
    }

    /// What comes of all these passwords of alice's, asked at once.
    async fn crowd(checker: Checker, users: Users, passwords: Vec<String>) -> Vec<Verdict> {
        let (checker, users) = (std::rc::Rc::new(checker), std::rc::Rc::new(users));
        let local = tokio::task::LocalSet::new();
        let ask = |password: String| {
            let (users, checker) = (std::rc::Rc::clone(&users), std::rc::Rc::clone(&checker));
            local.spawn_local(async move { checker.check(&users, claim("alice", &password)).await })
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
        let verdicts = crowd(Checker::new(), users, vec!["secret".to_owned(); WAITING]).await;
        assert_eq!(verdicts, [Verdict::Right; WAITING]);
        assert!(began.elapsed() < one * 16, "{:?} after {one:?} for one", began.elapsed());
    }

    #[tokio::test]
    async fn a_crowd_of_guesses_is_turned_away() {
        let guesses = (0..WAITING + 5).map(|guess| guess.to_string()).collect();
        let verdicts = crowd(Checker::new(), users(), guesses).await;
        let busy = verdicts.iter().filter(|verdict| **verdict == Verdict::Busy).count();
        let wrong = verdicts.iter().filter(|verdict| **verdict == Verdict::Wrong).count();
        assert_eq!((busy, wrong), (5, WAITING));
    }
}
