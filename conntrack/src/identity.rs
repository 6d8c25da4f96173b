//! Which table this is: the same word in both programs, another after a reboot or in another namespace.

use sha2::{Digest, Sha256};
use std::io;
use std::os::unix::fs::MetadataExt;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The `table_id` of the calling thread's network namespace: 16 hex digits of SHA-256 over boot id and namespace.
/// Errors: procfs is not mounted; the error names the file.
pub fn table_id() -> io::Result<String> {
    let named =
        |path: &str, error: io::Error| io::Error::new(error.kind(), format!("cannot read {path}: {error}"));
    let boot = std::fs::read_to_string(BOOT_ID).map_err(|error| named(BOOT_ID, error))?;
    let namespace = std::fs::metadata(NAMESPACE).map_err(|error| named(NAMESPACE, error))?;
    let mut hash = Sha256::new();
    hash.update(boot.trim());
    hash.update(namespace.dev().to_be_bytes());
    hash.update(namespace.ino().to_be_bytes());
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_stable_and_sixteen_digits() {
        let id = super::table_id().unwrap();
        assert_eq!(id, super::table_id().unwrap());
        assert!(id.len() == 16 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    }
}
