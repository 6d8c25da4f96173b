//! Tables filled for a measurement.

use std::{fs, net::SocketAddrV4, sync::OnceLock, time::Duration};

use tests::{
    Result,
    entries::{Wanted, insert},
    netns::Namespace,
    wait::wait_until,
};

/// The first of the sources: 198.18.0.0, and on from there inside the namespace.
pub(crate) const FIRST: u32 = 0xc612_0000;
const GONE: Duration = Duration::from_secs(20);

/// The numberth of entries that go round so many sources; every `unreplied`th is unanswered, none if it is 0.
pub(crate) fn nth(number: u32, sources: u32, unreplied: u32) -> Wanted {
    let turn = number / sources;
    let source = SocketAddrV4::new((FIRST + number % sources).into(), 1024 + (turn % 60_000) as u16);
    let to = 80 + (turn / 60_000) as u16;
    Wanted { source, to, replied: unreplied == 0 || !number.is_multiple_of(unreplied) }
}

/// A namespace with so many entries of so many sources.
pub(crate) fn filled(entries: u32, sources: u32, unreplied: u32) -> Result<Namespace> {
    let namespace = empty()?;
    namespace.run(|| insert((0..entries).map(|number| nth(number, sources, unreplied))));
    Ok(namespace)
}

/// A namespace in which connections are tracked, once the entries of those before it have gone: a dump walks them, too. Other
/// people's on this machine are not waited for.
pub(crate) fn empty() -> Result<Namespace> {
    static OTHERS: OnceLock<u64> = OnceLock::new();
    let others = *OTHERS.get_or_init(|| in_all_namespaces().unwrap_or(0));
    let gone = wait_until("the entries of earlier tables to go", GONE, || match in_all_namespaces() {
        Some(entries) if entries > others + 20_000 => Err(entries),
        _ => Ok(()),
    });
    if let Err(left) = gone {
        eprintln!("bench: {left}: goes on beside them");
    }
    let namespace = Namespace::new("bench")?;
    namespace.track_connections()?;
    Ok(namespace)
}

/// Entries of all namespaces, as the slab counts them; None where it is not shown.
fn in_all_namespaces() -> Option<u64> {
    let slab = fs::read_to_string("/proc/slabinfo").ok()?;
    slab.lines().find_map(|line| line.strip_prefix("nf_conntrack ")?.split_whitespace().next()?.parse().ok())
}
