//! What happens at the next boot: rulesets that name our set, options of the module.

use std::fs;
use std::path::{Path, PathBuf};

/// Why a file can cost the host its firewall (DOMAIN.md 4, measured).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Trap {
    /// `nft list ruleset` prints a rule made by iptables-nft as `xt match`, which `nft -f` refuses, and with it the whole file.
    NftXtMatch,
    /// `iptables-restore` refuses a file that names a set which does not exist yet, and loads nothing of it.
    IptablesSet,
}

/// A line of a ruleset that is loaded at boot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct TrappedLine {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) trap: Trap,
}

/// What is read below /etc.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Persisted {
    pub(super) trapped: Vec<TrappedLine>,
    /// `options nf_conntrack hashsize=N`, and where.
    pub(super) hashsize: Option<(PathBuf, u64)>,
    /// The module is loaded before sysctl.d is read, or is built in.
    pub(super) loaded_at_boot: bool,
}

const NFT: [&str; 4] = ["etc/nftables.conf", "etc/nftables", "etc/nftables.d", "etc/sysconfig/nftables.conf"];
const IPTABLES: [&str; 3] = ["etc/iptables", "etc/sysconfig/iptables", "etc/sysconfig/ip6tables"];

impl Persisted {
    /// Reads below the host's root. What is not there says nothing.
    pub(super) fn read(rootfs: &Path, set: &str) -> Persisted {
        let mut trapped = Vec::new();
        for (places, trap) in [(&NFT[..], Trap::NftXtMatch), (&IPTABLES[..], Trap::IptablesSet)] {
            for (file, text) in places.iter().flat_map(|place| files(&rootfs.join(place))) {
                trapped.extend(trapped_lines(&text, trap, set).map(|(line, text)| TrappedLine {
                    file: file.clone(),
                    line,
                    text,
                    trap,
                }));
            }
        }
        let options = files(&rootfs.join("etc/modprobe.d"));
        let hashsize = options.into_iter().rev().find_map(|(file, text)| Some((file, hashsize(&text)?)));
        let lists =
            files(&rootfs.join("etc/modules-load.d")).into_iter().chain(files(&rootfs.join("etc/modules")));
        let listed =
            lists.into_iter().any(|(_, text)| text.lines().any(|line| line.trim() == "nf_conntrack"));
        // A module that is built in has no initstate (Documentation/ABI/testing/sysfs-module).
        let module = rootfs.join("sys/module/nf_conntrack");
        let built_in = module.exists() && !module.join("initstate").exists();
        Persisted { trapped, hashsize, loaded_at_boot: listed || built_in }
    }
}

/// The file, or those of the directory in the order of their names.
fn files(place: &Path) -> Vec<(PathBuf, String)> {
    let mut paths = match fs::read_dir(place) {
        Ok(directory) => directory.flatten().map(|file| file.path()).collect(),
        Err(_) => vec![place.to_owned()],
    };
    paths.sort();
    paths.into_iter().filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text))).collect()
}

/// Lines that would stop the file from loading, with their numbers.
fn trapped_lines<'a>(text: &'a str, trap: Trap, set: &'a str) -> impl Iterator<Item = (usize, String)> + 'a {
    text.lines().enumerate().filter_map(move |(place, line)| {
        let words: Vec<&str> = line.split('#').next()?.split_whitespace().collect();
        let trapped = match trap {
            Trap::NftXtMatch => {
                words.windows(2).any(|two| two[0] == "xt" && matches!(two[1], "match" | "target"))
            }
            Trap::IptablesSet => words.windows(2).any(|two| {
                let name = two[1].strip_suffix("-4").or(two[1].strip_suffix("-6")).unwrap_or(two[1]);
                two[0] == "--match-set" && name == set
            }),
        };
        trapped.then(|| (place + 1, line.trim().to_owned()))
    })
}

/// The last `options nf_conntrack … hashsize=N`.
fn hashsize(text: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| {
        let rest = line.trim().strip_prefix("options")?.trim_start().strip_prefix("nf_conntrack")?;
        rest.split_whitespace().find_map(|option| option.strip_prefix("hashsize=")?.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn rulesets_that_will_not_load_are_found_and_others_are_not() {
        let root = tempfile::tempdir().unwrap();
        let nothing = Persisted::read(root.path(), "conntrack-guard");
        assert_eq!(nothing, Persisted::default());
        write(
            root.path(),
            "etc/nftables.conf",
            "table ip raw {\n\tchain P {\n\t\txt match set counter drop\n}}\n",
        );
        write(
            root.path(),
            "etc/nftables.d/good.nft",
            "# xt match set would not load\ntable inet f { set xt { type ipv4_addr; } }\n",
        );
        let save = "*raw\n-A PREROUTING -m set --match-set conntrack-guard-4 src -j DROP\nCOMMIT\n";
        write(root.path(), "etc/iptables/rules.v4", save);
        write(root.path(), "etc/iptables/rules.v6", &save.replace("conntrack-guard-4", "blocklist-6"));
        let found = Persisted::read(root.path(), "conntrack-guard").trapped;
        let found: Vec<_> = found
            .iter()
            .map(|line| (line.file.strip_prefix(root.path()).unwrap(), line.line, line.trap))
            .collect();
        let expected = [
            (Path::new("etc/nftables.conf"), 3, Trap::NftXtMatch),
            (Path::new("etc/iptables/rules.v4"), 2, Trap::IptablesSet),
        ];
        assert_eq!(found, expected);
        assert_eq!(
            Persisted::read(root.path(), "blocklist").trapped[1].line,
            2,
            "another set, as --firewall.set says"
        );
    }

    #[test]
    fn the_modules_options_are_read_and_what_loads_it_at_boot() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "etc/modprobe.d/nf.conf",
            "# options nf_conntrack hashsize=1\noptions nf_conntrack acct=1 hashsize=32768\n",
        );
        write(root.path(), "etc/modprobe.d/a.conf", "options nf_conntrack_ftp ports=21\n");
        write(root.path(), "sys/module/nf_conntrack/initstate", "live\n");
        let persisted = Persisted::read(root.path(), "conntrack-guard");
        assert_eq!(persisted.hashsize, Some((root.path().join("etc/modprobe.d/nf.conf"), 32_768)));
        assert!(!persisted.loaded_at_boot);
        write(root.path(), "etc/modules-load.d/conntrack.conf", "nf_conntrack\n");
        assert!(Persisted::read(root.path(), "conntrack-guard").loaded_at_boot);
    }
}
