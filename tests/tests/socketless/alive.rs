//! No false positive: connections of every kind that must never be taken for dead slots, all at once.

use conntrack::{State, TcpState};
use tests::{Result, wait::wait_until};

use crate::{
    PATIENCE, Verdicts,
    churn::Churn,
    has_port,
    kinds::{BUSY, EXPECTED, Kinds, port},
};

const CHURNED: usize = 3000;

#[test]
fn nothing_alive_is_taken_for_dead() -> Result<()> {
    let kinds = Kinds::new()?;
    let churn = Churn::start(&kinds.scene)?;
    let mut looks = 0;
    while looks < 50 || churn.made() < CHURNED {
        let verdicts = Verdicts::of(kinds.server());
        verdicts.assert_dead_only_at(&[port::DEAD]);
        assert!(!verdicts.at(port::CHURN).is_empty());
        looks += 1;
    }
    churn.end();

    let verdicts = wait_until("each kind to be what it is when idle", PATIENCE, || {
        let verdicts = Verdicts::of(kinds.server());
        verdicts.assert_dead_only_at(&[port::DEAD]);
        for (port, word, count) in EXPECTED {
            let found = verdicts.at(port);
            if found.get(word) != Some(&count) || found.len() != 1 {
                return Err(format!("port {port}: {found:?}, not {count} {word}"));
            }
        }
        Ok(verdicts)
    })?;
    for (flow, _) in
        verdicts.flows.iter().filter(|(flow, _)| has_port(flow, &[port::VANISHED, port::PICKED_UP]))
    {
        let busy = flow.state == State::Tcp(TcpState::Established) && flow.timeout.unwrap() <= BUSY;
        assert!(busy, "established, and not judged because it may be busy: {flow:?}");
    }
    kinds.assert_still_connected();
    Ok(())
}
