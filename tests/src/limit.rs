//! The global limit of entries, raised for a measurement and put back however that ends.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
};

use crate::{Result, failure::Tried};

const PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const LOCK: &str = "/run/conntrack-guard-limit.lock";

/// `nf_conntrack_max`, raised. A child writes the old value back when this is dropped, or this process dies; and one
/// process at a time has it.
#[derive(Debug)]
pub struct Limit {
    child: Child,
    _lock: File,
}

impl Limit {
    /// Raises it, after whoever raised it before has put it back.
    ///
    /// # Errors
    /// When it cannot be written: it is global, so only the first network namespace may.
    pub fn raise(to: u32) -> Result<Self> {
        let lock = File::create(LOCK).tried(|| LOCK)?;
        lock.lock().tried(|| LOCK)?;
        let before = fs::read_to_string(PATH).tried(|| PATH)?;
        let back = format!("read -r line; echo {} > {PATH}", before.trim());
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", &back]).stdin(Stdio::piped());
        let child = command.spawn().tried(|| "a child that puts nf_conntrack_max back")?;
        // Made before the write: from here on it is put back.
        let raised = Self { child, _lock: lock };
        fs::write(PATH, to.to_string()).tried(|| PATH)?;
        Ok(raised)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
