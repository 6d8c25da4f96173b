//! A token in a file of its own, which exporter-toolkit's format has not.

use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::watched::Files;

/// The digest of the token: two of them are compared without telling how long the token is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Token([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads a file, less the white space around its text, as Alertmanager reads its `credentials_file`.
    pub(super) fn read(path: &Path, files: &mut Files) -> Result<Self, String> {
        let text = files.read(path).map_err(|error| error.to_string())?;
        match text.trim() {
            "" => Err("it is empty, so everybody would know the token".to_owned()),
            token if !token.bytes().all(|byte| byte.is_ascii_graphic()) => Err(
                "it must hold one line of visible ASCII without blanks, as `openssl rand -hex 32` makes it"
                    .to_owned(),
            ),
            token => Ok(Self(Sha256::digest(token).into())),
        }
    }

    /// Whether this is it, in the same time whatever is shown.
    pub(super) fn is(&self, shown: &str) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        self.0.ct_eq(&shown).into()
    }
}
