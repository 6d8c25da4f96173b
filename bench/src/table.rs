//! Tables filled for a measurement.

use std::{fs, net::SocketAddrV4, time::Duration};

use tests::{
    Result,
    entries::{Wanted, insert},
    netns::Namespace,
    wait::wait_until,
};

/// The first of the sources: 198.18.0.0, and on from there inside the namespace.
pub(crate) const FIRST: u32 = 0xc612_0000;
const GONE: Duration = Duration::from_secs(60);

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

/// A namespace in which connections are tracked, once the entries of those before it have gone: a dump walks them, too.
pub(crate) fn empty() -> Result<Namespace> {
    wait_until("the entries of earlier tables to go", GONE, || {
        let slab = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
        let entries = slab.lines().find_map(|line| {
            line.strip_prefix("nf_conntrack ")?.split_whitespace().next()?.parse::<u64>().ok()
        });
        match entries {
            Some(many) if many > 20_000 => Err(many),
            _ => Ok(()),
        }
    })?;
    let namespace = Namespace::new("bench")?;
    namespace.track_connections()?;
    Ok(namespace)
}
