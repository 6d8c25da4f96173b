//! A dump that was recorded instead of asked for: what the walker costs without the kernel. For `make bench-paths`, not for programs.

use crate::flow::Flow;
use crate::link::{Answer, read_answer};
use crate::netlink::Messages;
use crate::reader::Reader;
use crate::table::Dump;
use std::time::Duration;

/// Shows every entry of these bytes to `each`, by the way that a dump's bytes take: see [`Table::visit`](crate::Table::visit).
pub fn visit(bytes: &[u8], each: impl FnMut(&Flow)) -> Dump {
    let mut reader = Reader::whole(each);
    let mut answer = Answer::default();
    let sequence = Messages(bytes).find_map(Result::ok).map_or(0, |message| message.sequence);
    // What was recorded whole has no message that ends the walk early.
    let _ = read_answer(bytes, sequence, &mut answer.interrupted, &mut |message| reader.see(message));
    reader.dump(answer, Duration::ZERO)
}
