//! A collector thread whose dumps end when the test says so.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Instant, SystemTime};

use conntrack::Summary;
use tokio::task::JoinSet;

use super::*;
use crate::flows::{Flows, Seen};
use conntrack::socketless::Unjudged;

fn snapshot() -> Snapshot {
    let flows = Flows::of(&Summary::new(), &mut Seen::default());
    let (ended, ended_at) = (Instant::now(), SystemTime::now());
    let took = Duration::ZERO;
    Snapshot {
        flows,
        sources: Err("none".into()),
        sockets: Err(Unjudged::NotAsked),
        ended,
        ended_at,
        dump_took: took,
        sockets_took: took,
        took,
    }
}

/// The dumps, a channel that tells when each begins, and one by which each is ended.
fn controlled(max_age: Duration) -> (Arc<Dumps>, Receiver<()>, Sender<Result<(), Missing>>) {
    let (began, begins) = channel();
    let (end, ends) = channel();
    let dumps = Dumps::with(max_age, move || {
        move || {
            began.send(()).unwrap();
            ends.recv().unwrap_or(Ok(())).map(|()| snapshot())
        }
    });
    (Arc::new(dumps.unwrap()), begins, end)
}

const NO_TIME: Option<Duration> = Some(Duration::ZERO);

#[tokio::test]
async fn scrapes_that_wait_share_one_dump() {
    let (dumps, begins, end) = controlled(Duration::ZERO);
    let mut scrapes = JoinSet::new();
    for _ in 0..20 {
        let dumps = Arc::clone(&dumps);
        scrapes.spawn(async move { dumps.get(None).await.unwrap() });
    }
    while dumps.board.receiver_count() < 20 {
        tokio::task::yield_now().await;
    }
    end.send(Ok(())).unwrap();
    let shared = scrapes.join_all().await;
    assert!(shared.iter().all(|snapshot| Arc::ptr_eq(snapshot, &shared[0])));
    assert_eq!(begins.try_iter().count(), 1);

    end.send(Ok(())).unwrap();
    let next = dumps.get(None).await.unwrap();
    assert!(!Arc::ptr_eq(&next, &shared[0]), "a later scrape gets a later dump");
}

#[tokio::test]
async fn a_late_dump_serves_the_next_scrape_and_no_other() {
    let (dumps, begins, end) = controlled(Duration::ZERO);
    assert_eq!(dumps.get(NO_TIME).await.unwrap_err(), Missing::Late);
    assert_eq!(dumps.get(NO_TIME).await.unwrap_err(), Missing::Late);
    let mut board = dumps.board.subscribe();
    end.send(Ok(())).unwrap();
    board.wait_for(|board| board.ended == 1).await.unwrap();
    let late = dumps.get(NO_TIME).await.unwrap();
    assert_eq!(dumps.get(NO_TIME).await.unwrap_err(), Missing::Late);

    // It waits for the dump that is under way, so it must ask before that ends.
    let (next, sent) = tokio::join!(biased; dumps.get(None), async { end.send(Ok(())) });
    sent.unwrap();
    assert!(next.unwrap().ended > late.ended);
    assert_eq!(begins.try_iter().count(), 2, "those who came too late asked for no dump of their own");
}

#[tokio::test]
async fn a_young_dump_is_served_again() {
    let (dumps, begins, end) = controlled(Duration::from_secs(3600));
    end.send(Ok(())).unwrap();
    let first = dumps.get(None).await.unwrap();
    let second = dumps.get(NO_TIME).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(begins.try_iter().count(), 1);
}

#[tokio::test]
async fn a_failure_is_told_to_those_who_waited_and_not_kept() {
    let (dumps, _begins, end) = controlled(Duration::ZERO);
    end.send(Err(Missing::Failed("EPERM".into()))).unwrap();
    assert_eq!(dumps.get(None).await.unwrap_err(), Missing::Failed("EPERM".into()));
    end.send(Ok(())).unwrap();
    assert!(dumps.get(None).await.is_ok());
}
