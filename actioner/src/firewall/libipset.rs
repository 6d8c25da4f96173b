//! The sets through libipset (crate `ipset`), behind the cargo feature `libipset`.
//!
//! The library was made for a program that ends: it keeps types and cached sets in globals, `restore` exits the
//! process, `list` panics on timeouts, `exists` on an absent set breaks the session (DOMAIN.md, 8). So: one thread of
//! its own, one library call at a time in the whole process, sessions dropped after any error, listings by `save`.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek},
    os::fd::AsRawFd,
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use ipnet::IpNet;
use ipset::{
    Session,
    types::{AddOption, EnvOption, Error, HashNet, NetDataType},
};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{
    Client, Config, Family, FirewallError, KernelError, SetFirewall,
    reply::{Header, Held},
    saved,
    sets::{self, Refusal, Sets},
    wire::{DEFAULT_TIMEOUT, Existing, Write, hash_size},
};

type Job = Box<dyn FnOnce(&mut Sessions) + Send>;

/// The firewall on libipset.
pub type LibIpset = SetFirewall<Library>;

impl LibIpset {
    /// Opens the firewall of the calling thread's network namespace. Changes nothing.
    ///
    /// # Errors
    /// A configuration that can never work, no thread, or no netlink socket.
    pub fn open(config: Config) -> Result<LibIpset, FirewallError> {
        Ok(SetFirewall::new(sets::checked(config)?, Library::start()?))
    }
}

/// The thread that the library lives on. It ends when this is dropped.
#[derive(Debug)]
pub struct Library {
    jobs: mpsc::Sender<Job>,
    /// For the count of rules that refer to a set, which `save` does not print.
    netlink: Client,
}

/// One session a set, for a session's data belong to its last command.
#[derive(Default)]
struct Sessions(HashMap<String, Session<HashNet>>);

/// Held during every call into the library, and while its sessions come and go.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LIBRARY: Mutex<()> = Mutex::new(());
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    fn run<T>(
        &mut self,
        set: &str,
        call: impl FnOnce(&mut Session<HashNet>) -> Result<T, Error>,
    ) -> Result<T, Refused> {
        let _alone = one_at_a_time();
        let mut session = self.0.remove(set).unwrap_or_else(|| Session::new(set.to_owned()));
        let done = call(&mut session).map_err(Refused::from)?;
        self.0.insert(set.to_owned(), session);
        Ok(done)
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        let _alone = one_at_a_time();
        self.0.clear();
    }
}

/// The library's message. It has no error codes (errcode.c turns them into words).
struct Refused(String);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused(match error {
            Error::Cmd(words, _) | Error::DataSet(words, _) | Error::TypeGet(words, _) => {
                words.trim().to_owned()
            }
            other => other.to_string(),
        })
    }
}

impl Refused {
    fn says(&self, words: &str) -> bool {
        self.0.contains(words)
    }

    fn no_such_set(&self) -> bool {
        self.says("The set with the given name does not exist")
    }

    fn refusal(self) -> Refusal {
        if self.says("Hash is full") {
            Refusal::Kernel(KernelError::HashFull)
        } else if self.no_such_set() {
            Refusal::Kernel(KernelError::NO_SUCH_SET)
        } else {
            Refusal::Library(self.0)
        }
    }

    fn error(self, command: &'static str, set: &str) -> FirewallError {
        FirewallError::Library { command, set: set.to_owned(), reason: self.0 }
    }
}

fn data(net: &IpNet) -> NetDataType {
    NetDataType::new(net.network(), net.prefix_len())
}

impl Library {
    fn start() -> Result<Library, FirewallError> {
        let failed = |reason: String| FirewallError::Library { command: "start", set: String::new(), reason };
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("libipset".to_owned())
            .spawn(move || {
                let mut sessions = Sessions::default();
                queue.into_iter().for_each(|job| job(&mut sessions));
            })
            .map_err(|error| failed(format!("no thread: {error}")))?;
        Ok(Library { jobs, netlink: Client::open()? })
    }

    fn on_its_thread<T: Send + 'static>(
        &self,
        command: &'static str,
        set: &str,
        call: impl FnOnce(&mut Sessions) -> T + Send + 'static,
    ) -> Result<T, FirewallError> {
        let (answer, answered) = mpsc::channel();
        let job: Job = Box::new(move |sessions| {
            let _ = answer.send(call(sessions));
        });
        let gone = || Refused("its thread is gone: it panicked".to_owned()).error(command, set);
        self.jobs.send(job).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())
    }

    /// What `ipset save` prints; `None` if there is no such set.
    fn saved(&self, set: &str) -> Result<Option<String>, FirewallError> {
        let failed = |error: std::io::Error| Refused(format!("a file in memory: {error}")).error("save", set);
        let file = memfd_create("ipset-save", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let mut file = File::from(file);
        let (path, name) = (format!("/proc/self/fd/{}", file.as_raw_fd()), set.to_owned());
        let saved = self
            .on_its_thread("save", set, move |sessions| sessions.run(&name, |session| session.save(path)))?;
        match saved {
            Ok(_) => (),
            Err(refused) if refused.no_such_set() => return Ok(None),
            Err(refused) => return Err(refused.error("save", set)),
        }
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).map_err(failed)?;
        Ok(Some(text))
    }

    /// Runs `call` for each item on the library's thread; the numbers of the refused.
    fn each<I: Send + 'static>(
        &self,
        command: &'static str,
        set: &str,
        items: Vec<I>,
        existing: Existing,
        call: impl Fn(&mut Session<HashNet>, &I) -> Result<bool, Error> + Send + 'static,
    ) -> Result<Vec<(usize, Option<Refused>)>, FirewallError> {
        let name = set.to_owned();
        self.on_its_thread(command, set, move |sessions| {
            let one = |item: &I| {
                sessions.run(&name, |session| {
                    match existing {
                        Existing::Overwrite => session.set_option(EnvOption::Exist),
                        Existing::Refuse => session.unset_option(EnvOption::Exist),
                    }
                    call(session, item)
                })
            };
            let refused = |(number, done)| match done {
                Ok(true) => None,
                Ok(false) => Some((number, None)),
                Err(refused) => Some((number, Some(refused))),
            };
            items.iter().map(one).enumerate().filter_map(refused).collect()
        })
    }
}

impl Sets for Library {
    fn header(&mut self, set: &str) -> Result<Option<Header>, FirewallError> {
        let Some(text) = self.saved(set)? else { return Ok(None) };
        let mut header = saved::header(&text).map_err(|reason| Refused(reason).error("save", set))?;
        header.references = self.netlink.header(set)?.map_or(0, |header| header.references);
        Ok(Some(header))
    }

    fn create(&mut self, set: &str, family: Family, max_elements: u32) -> Result<bool, FirewallError> {
        let name = set.to_owned();
        let created = self.on_its_thread("create", set, move |sessions| {
            sessions.run(&name, |session| {
                session.create(|set| {
                    set.with_ipv6(family == Family::Ipv6)?
                        .with_timeout(DEFAULT_TIMEOUT)?
                        .with_hash_size(hash_size(max_elements))?
                        .with_max_elem(max_elements)?
                        .build()
                })
            })
        })?;
        match created {
            Ok(_) => Ok(true),
            Err(refused) if refused.says("set with the same name already exists") => Ok(false),
            Err(refused) => Err(refused.error("create", set)),
        }
    }

    fn destroy(&mut self, set: &str) -> Result<bool, FirewallError> {
        let name = set.to_owned();
        let destroyed = self.on_its_thread("destroy", set, move |sessions| {
            sessions.run(&name, |session| session.destroy())
        })?;
        match destroyed {
            Ok(_) => Ok(true),
            Err(refused) if refused.no_such_set() => Ok(false),
            Err(refused) if refused.says("in use by a kernel component") => {
                Err(FirewallError::InUse { set: set.to_owned() })
            }
            Err(refused) => Err(refused.error("destroy", set)),
        }
    }

    fn visit(&mut self, set: &str, each: &mut dyn FnMut(Held)) -> Result<bool, FirewallError> {
        let Some(text) = self.saved(set)? else { return Ok(false) };
        saved::elements(&text, each).map_err(|reason| Refused(reason).error("save", set))?;
        Ok(true)
    }

    fn add(
        &mut self,
        set: &str,
        writes: &[Write],
        existing: Existing,
    ) -> Result<Vec<(usize, Refusal)>, FirewallError> {
        let refused = self.each("add", set, writes.to_vec(), existing, |session, write| {
            session.add(data(&write.net), &[AddOption::Timeout(write.seconds)])
        })?;
        let refusal =
            |refused: Option<Refused>| refused.map_or(Refusal::Kernel(KernelError::Exist), Refused::refusal);
        Ok(refused.into_iter().map(|(number, refused)| (number, refusal(refused))).collect())
    }

    fn delete(&mut self, set: &str, nets: &[IpNet]) -> Result<usize, FirewallError> {
        let absent =
            self.each("del", set, nets.to_vec(), Existing::Refuse, |session, net| session.del(data(net)))?;
        let kept = absent.len();
        match absent.into_iter().find_map(|(_, refused)| refused.filter(|refused| !refused.no_such_set())) {
            Some(refused) => Err(refused.error("del", set)),
            None => Ok(nets.len() - kept),
        }
    }
}
