//! The keys of a whole dump, kept for a deletion that is decided once the dump has ended.

use crate::flow::Flow;
use crate::key::{FlowKey, FlowKeys};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A key whose entry is translated, and the ends of its answers.
type Translated = (FlowKey, [IpAddr; 2]);
/// So much is taken out of the bound at a time, so that threads which share it do not meet at each entry.
const PORTION: usize = 64 * 1024;

/// A number of bytes that the threads of one dump keep keys in.
#[derive(Debug, Clone)]
pub struct Room(Arc<AtomicUsize>);

impl Room {
    /// For so many bytes.
    pub fn of(bytes: usize) -> Room {
        Room(Arc::new(AtomicUsize::new(bytes)))
    }

    fn portion(&self) -> usize {
        let less = |left: usize| Some(left.saturating_sub(PORTION));
        let before = self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.unwrap_or(0).min(PORTION)
    }
}

/// Keys of entries with what is at either end of them: 20 bytes for IPv4, 44 for IPv6, 96 where the addresses are translated.
#[derive(Debug)]
pub struct Kept {
    keys: FlowKeys,
    translated: Vec<Translated>,
    room: Room,
    portion: usize,
    left_out: u64,
}

impl Kept {
    /// None yet, in the room that is left.
    pub fn within(room: &Room) -> Kept {
        let keys = FlowKeys::bounded(usize::MAX);
        Kept { keys, translated: Vec::new(), room: room.clone(), portion: 0, left_out: 0 }
    }

    /// Keeps an entry's key if there is room.
    #[inline]
    pub fn keep(&mut self, flow: &Flow) {
        let answers = [flow.reply.src, flow.reply.dst];
        let translated = answers != [flow.original.dst, flow.original.src];
        let key = flow.key();
        let size = if translated { size_of::<Translated>() } else { key.size() };
        if self.portion < size {
            self.portion += self.room.portion();
        }
        let Some(portion) = self.portion.checked_sub(size) else {
            self.left_out += 1;
            return;
        };
        self.portion = portion;
        if translated {
            self.translated.push((key, answers));
        } else {
            self.keys.push(key);
        }
    }

    /// Whether every entry found room.
    pub fn is_whole(&self) -> bool {
        self.left_out == 0
    }

    /// The keys of the entries that have an address at either end, in either direction, for which `wanted` gives something.
    pub fn with_end<T>(
        &self,
        wanted: impl Fn(IpAddr) -> Option<T> + Copy,
    ) -> impl Iterator<Item = (T, FlowKey)> {
        let plain = self.keys.of_ends(move |ends| ends.into_iter().find_map(wanted));
        let translated = self.translated.iter().filter_map(move |(key, answers)| {
            let found = key.ends().into_iter().chain(*answers).find_map(wanted)?;
            Some((found, *key))
        });
        plain.chain(translated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;
    use crate::netlink::Messages;

    fn flows() -> Vec<Flow> {
        let dump = include_bytes!("testdata/dump-6.18.bin");
        Messages(dump).map(|message| decode::flow(message.unwrap().payload).unwrap().unwrap()).collect()
    }

    #[test]
    fn an_entry_is_found_by_any_of_its_ends() {
        let mut kept = Kept::within(&Room::of(1 << 20));
        flows().iter().for_each(|flow| kept.keep(flow));
        assert!(kept.is_whole());
        assert_eq!(kept.translated.len(), 1, "the DNATed one");
        for address in ["198.51.100.16", "10.0.0.2", "192.0.2.1", "2001:db8::9", "203.0.113.99"] {
            let address: IpAddr = address.parse().unwrap();
            let mut found: Vec<_> = kept
                .with_end(|end| (end == address).then_some(()))
                .map(|((), key)| format!("{key:?}"))
                .collect();
            let touching = flows().into_iter().filter(|flow| flow.touches(address));
            let mut expected: Vec<_> = touching.map(|flow| format!("{:?}", flow.key())).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn two_share_a_bound_and_say_when_it_was_too_small() {
        let flow = flows().into_iter().find(|flow| flow.original.src.is_ipv4()).unwrap();
        let size = flow.key().size();
        let room = Room::of(PORTION + 10 * size);
        let mut both = [Kept::within(&room), Kept::within(&room)];
        for number in 0..2 * PORTION / size {
            both[number % 2].keep(&flow);
        }
        let kept: usize = both.iter().map(|kept| kept.keys.len()).sum();
        assert_eq!(kept, PORTION / size + 10);
        assert!(both.iter().all(|kept| !kept.is_whole()));
    }
}
