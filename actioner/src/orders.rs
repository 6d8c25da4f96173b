//! What the effects thread is told to do, and what comes together.

use crate::admin::{Answer, ByHand};
use crate::decided::Decided;
use crate::policy::Policy;
use crate::webhook::Notification;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// So many orders are taken together at most, so that a batch ends.
const BATCH: usize = 4096;

/// One alert of Alertmanager's seldom comes alone, and each dump costs more than this wait for the next.
const COMPANY: Duration = Duration::from_millis(3);
/// So long it is waited for at most.
const COMPANY_AT_MOST: Duration = Duration::from_millis(30);

/// An order to the effects thread.
#[derive(Debug)]
pub enum Order {
    /// A notification to be decided and answered.
    Decide(Notification, oneshot::Sender<Result<Decided, Unread>>),
    /// A policy to be put in force; the answer says whether it is.
    Reload(Box<Policy>, oneshot::Sender<Result<(), String>>),
    /// What a person orders, and who he is.
    ByHand {
        /// The order.
        order: ByHand,
        /// Who gave it.
        by: String,
        /// What became of it.
        reply: oneshot::Sender<Answer>,
    },
    /// Finish what is queued and end.
    Stop,
}

/// The live table could not be read, so nothing was decided: worth another try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread(pub String);

/// What is queued behind the first order and comes in its wake.
pub(crate) fn with_company(first: Order, orders: &Receiver<Order>) -> Vec<Order> {
    let began = Instant::now();
    let mut all = vec![first];
    while all.len() < BATCH && !matches!(all.last(), Some(Order::Stop)) {
        let patient = began.elapsed() < COMPANY_AT_MOST;
        match orders.recv_timeout(if patient { COMPANY } else { Duration::ZERO }) {
            Ok(order) => all.push(order),
            Err(_) => break,
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    fn reload() -> Order {
        let policy = Policy::parse("never_ban: []\n", std::path::Path::new(".")).unwrap();
        Order::Reload(Box::new(policy), oneshot::channel().0)
    }

    #[test]
    fn what_waits_is_taken_together_and_a_lonely_one_does_not_wait_long() {
        let (send, receive) = sync_channel(200);
        (0..99).for_each(|_| send.send(reload()).unwrap());
        assert_eq!(with_company(reload(), &receive).len(), 100);
        let began = Instant::now();
        assert_eq!(with_company(reload(), &receive).len(), 1);
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_stream_without_end_does_not_hold_a_batch_open() {
        let (send, receive) = sync_channel(1);
        let sender = std::thread::spawn(move || while send.send(reload()).is_ok() {});
        let taken = with_company(reload(), &receive).len();
        assert!(taken <= BATCH, "{taken}");
        drop(receive);
        sender.join().unwrap();
    }

    #[test]
    fn nothing_is_waited_for_behind_a_stop() {
        let (send, receive) = sync_channel(2);
        send.send(Order::Stop).unwrap();
        send.send(reload()).unwrap();
        let taken = with_company(reload(), &receive);
        assert!(taken.len() == 2 && matches!(taken[1], Order::Stop));
    }
}
