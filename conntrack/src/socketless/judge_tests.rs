use super::*;
use crate::flow::{Family, Protocol, Status, Zone};
use crate::timeouts::Timeouts;

const TIMEOUTS: Timeouts = Timeouts { established: 432_000, unacknowledged: 300, max_retrans: 300 };
const ASSURED: Status = Status(0b1110);

fn tuple(src: &str, dst: &str) -> Tuple {
    let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let l4 = L4::Ports { src: src.port(), dst: dst.port() };
    Tuple { src: src.ip(), dst: dst.ip(), protocol: Protocol::TCP, l4 }
}

fn flow(original: (&str, &str), reply: (&str, &str)) -> Flow {
    Flow {
        family: Family::Ipv4,
        original: tuple(original.0, original.1),
        reply: tuple(reply.0, reply.1),
        zone: Zone::Both(0),
        status: ASSURED,
        state: State::Tcp(TcpState::Established),
        timeout: Some(431_000),
        id: 1,
        mark: 0,
        counters: None,
        synproxy: false,
        picked_up: false,
    }
}

fn inbound() -> Flow {
    flow(("198.51.100.7:4000", "192.0.2.1:80"), ("192.0.2.1:80", "198.51.100.7:4000"))
}

fn behind(sockets: &[(&str, &str, Kind)], flow: &Flow) -> Behind {
    let mut connected = Connected::none();
    for (local, peer, kind) in sockets {
        connected.add(local.parse().unwrap(), peer.parse().unwrap(), *kind);
    }
    let own = OwnAddresses::of(["192.0.2.1/32", "127.0.0.0/8"].map(|net| net.parse().unwrap()), []);
    Judge::new(&connected, &own, TcpTimeouts::of(TIMEOUTS, []), Duration::from_secs(30)).unwrap().judge(flow)
}

#[test]
fn a_slot_is_dead_only_where_no_socket_of_any_kind_stands_behind_it() {
    assert_eq!(behind(&[], &inbound()), Behind::Nothing);
    let alive = [("192.0.2.1:80", "198.51.100.7:4000", Kind::Socket)];
    assert_eq!(behind(&alive, &inbound()), Behind::Socket);
    let deferred = [("192.0.2.1:80", "198.51.100.7:4000", Kind::Request)];
    assert_eq!(behind(&deferred, &inbound()), Behind::Request);
    let mapped = [("[::ffff:192.0.2.1]:80", "[::ffff:198.51.100.7]:4000", Kind::Socket)];
    assert_eq!(behind(&mapped, &inbound()), Behind::Socket, "a dual-stack socket");
    let another = [("192.0.2.1:80", "198.51.100.7:4001", Kind::Socket)];
    assert_eq!(behind(&another, &inbound()), Behind::Nothing);
}

#[test]
fn what_may_be_busy_young_or_not_ours_is_not_judged() {
    type Change = fn(&mut Flow);
    let unjudged: [(&str, Change); 8] = [
        ("busy", |f| f.timeout = Some(300)),
        ("within the grace", |f| f.timeout = Some(431_970)),
        ("a timeout by hand", |f| f.timeout = Some(432_001)),
        ("offloaded", |f| f.timeout = None),
        ("not assured", |f| f.status = Status(0b1010)),
        ("no reply seen", |f| f.status = Status(0b1100)),
        ("closing", |f| f.state = State::Tcp(TcpState::FinWait)),
        ("behind SYNPROXY", |f| f.synproxy = true),
    ];
    for (what, change) in unjudged {
        let mut flow = inbound();
        change(&mut flow);
        assert_eq!(behind(&[], &flow), Behind::NotJudged, "{what}");
    }
    let dnat = flow(("198.51.100.7:4000", "192.0.2.1:80"), ("10.0.0.2:8080", "198.51.100.7:4000"));
    assert_eq!(behind(&[], &dnat), Behind::NotJudged, "to a container");
    let masqueraded = flow(("10.0.0.2:4000", "203.0.113.1:443"), ("203.0.113.1:443", "192.0.2.1:4000"));
    assert_eq!(behind(&[], &masqueraded), Behind::NotJudged, "from a container");
}

#[test]
fn redirect_own_calls_and_loopback_are_found_by_either_end() {
    let redirected = flow(("198.51.100.7:4000", "192.0.2.1:80"), ("192.0.2.1:8080", "198.51.100.7:4000"));
    assert_eq!(behind(&[("192.0.2.1:8080", "198.51.100.7:4000", Kind::Socket)], &redirected), Behind::Socket);
    let own_call = flow(("192.0.2.1:4000", "203.0.113.1:443"), ("203.0.113.1:443", "192.0.2.1:4000"));
    assert_eq!(behind(&[("192.0.2.1:4000", "203.0.113.1:443", Kind::Socket)], &own_call), Behind::Socket);
    assert_eq!(behind(&[], &own_call), Behind::Nothing);
    let loopback = flow(("127.0.0.1:4000", "127.0.0.1:80"), ("127.0.0.1:80", "127.0.0.1:4000"));
    assert_eq!(behind(&[("127.0.0.1:4000", "127.0.0.1:80", Kind::Socket)], &loopback), Behind::Socket);
}

#[test]
fn what_the_dump_of_sockets_passed_over_is_looked_up_or_read_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (from, to) = (client.local_addr().unwrap().to_string(), listener.local_addr().unwrap().to_string());
    let flow = flow((&from, &to), (&to, &from));
    let none = Connected::none();
    let own = OwnAddresses::of(["127.0.0.0/8".parse().unwrap()], []);
    // Two look-ups: both ends are this host's.
    for look_ups_left in [2, 0] {
        let timeouts = TcpTimeouts::of(TIMEOUTS, []);
        let mut judge = Judge::new(&none, &own, timeouts, Duration::from_secs(30)).unwrap();
        judge.missed.look_ups_left = look_ups_left;
        assert_eq!(judge.judge(&flow), Behind::Socket);
        assert_eq!(judge.judge(&inbound()), Behind::NotJudged);
        assert_eq!(judge.missed.again.is_some(), look_ups_left == 0);
        judge.in_time().unwrap();
    }
}

#[test]
fn timeouts_without_room_and_slow_dumps_are_said_not_guessed() {
    let connected = Connected::none();
    let own = OwnAddresses::default();
    let short = TcpTimeouts::of(Timeouts { established: 300, ..TIMEOUTS }, []);
    assert!(matches!(
        Judge::new(&connected, &own, short, Duration::from_secs(30)),
        Err(CannotJudge::Timeouts { established: 300, busy: 300 })
    ));
    let judge = Judge::new(&connected, &own, TcpTimeouts::of(TIMEOUTS, []), Duration::ZERO).unwrap();
    assert!(matches!(judge.in_time(), Err(CannotJudge::TooSlow { .. })));
}
