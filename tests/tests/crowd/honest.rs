//! The two hundred.

use std::{collections::BTreeMap, fmt::Write, net::SocketAddr, time::Duration};

use tests::{Result, flood::nth_host, netns::Namespace, wait::wait_until};

use crate::{
    Length,
    client::{Client, Diary, Habit},
    scene::{ADMIN, ANSWERS, DATABASE, DEFERRING, MONITORING, SPEAKS, SSH, Scene, WEB},
};

const OFTEN: Duration = Duration::from_millis(500);
/// Others may want the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// All of them, at work.
pub(crate) struct Honest(Vec<Client>);

impl Honest {
    /// Starts them, and waits until each has had its first answer.
    pub(crate) fn start(scene: &Scene, length: &Length) -> Result<Self> {
        let honest = &scene.topology.peer("honest").namespace;
        let known = &scene.topology.peer("known").namespace;
        let (four, six) = ("198.51.100.128/25".parse().unwrap(), "2001:db8:a11::/64".parse().unwrap());
        let six_web = SocketAddr::new(tests::topology::SERVER_V6.into(), WEB);
        let web = scene.to(WEB);
        let (keep, short) = (Habit::Keep(OFTEN), Habit::Short(length.short));
        let mut clients = Vec::new();
        let mut add =
            |count: usize, kind, namespace: &Namespace, source: &dyn Fn(usize) -> SocketAddr, target| {
                for number in 0..count {
                    clients.push(Client::start(namespace, kind, source(number), target)?);
                }
                Ok::<_, tests::Failure>(())
            };
        // Each of an address of its own.
        let own = |first: usize| move |number| SocketAddr::new(nth_host(four, first + number), 0);
        let own_six = |first: usize| move |number| SocketAddr::new(nth_host(six, first + number), 0);
        let any = |_| SocketAddr::from(([0, 0, 0, 0], 0));
        let at = |address: &'static str| move |_| SocketAddr::new(address.parse().unwrap(), 0);
        add(40, ("keep-alive", keep), honest, &own(0), web)?;
        add(40, ("short connections", short), honest, &own(40), web)?;
        add(
            40,
            ("idle for longer than the grace", Habit::Keep(length.idle)),
            honest,
            &own(80),
            scene.to(DEFERRING),
        )?;
        // The prefix has 126 addresses: these share with the first.
        add(
            30,
            ("connect ahead, then ask", Habit::Ahead(Duration::from_secs(2))),
            honest,
            &own(126),
            scene.to(DEFERRING),
        )?;
        add(12, ("behind the carrier's NAT, keep-alive", keep), &scene.customers, &any, web)?;
        add(12, ("behind the carrier's NAT, short", short), &scene.customers, &any, web)?;
        add(10, ("IPv6, keep-alive", keep), honest, &own_six(0), six_web)?;
        add(10, ("IPv6, short", short), honest, &own_six(10), six_web)?;
        add(
            1,
            ("monitoring, scrapes the exporter", Habit::Scrape(length.short)),
            known,
            &at(MONITORING),
            scene.to(10048),
        )?;
        add(1, ("ssh session", keep), known, &at(ADMIN), scene.to(SSH))?;
        let server = &scene.topology.server;
        let own = SocketAddr::new(tests::topology::SERVER_V4.into(), 0);
        let database = |port| SocketAddr::new(DATABASE.parse().unwrap(), port);
        add(2, ("the server's calls to its database", keep), server, &|_| own, database(ANSWERS))?;
        add(2, ("the same, the database speaks first", Habit::Listen), server, &|_| own, database(SPEAKS))?;
        assert_eq!(clients.len(), 200);
        let honest = Self(clients);
        honest.advance(&vec![0; 200], PATIENCE)?;
        Ok(honest)
    }

    /// Waits until every one has had answers after what has been until now.
    pub(crate) fn all_go_on(&self, length: &Length) -> Result<()> {
        let before: Vec<usize> = self.0.iter().map(|client| client.so_far().answers).collect();
        self.advance(&before, length.idle + PATIENCE)
    }

    fn advance(&self, before: &[usize], patience: Duration) -> Result<()> {
        wait_until("an answer to every honest client", patience, || {
            let pages: Vec<Diary> = self.0.iter().map(Client::so_far).collect();
            let lost: Vec<&String> = pages.iter().flat_map(|page| &page.lost).collect();
            assert!(lost.is_empty(), "{} lost: {lost:#?}", lost.len());
            let waiting = pages.iter().zip(before).zip(&self.0);
            let mut waiting = waiting.filter(|((page, before), _)| page.answers <= **before);
            waiting.next().map_or(Ok(()), |(_, client)| Err(client.kind))
        })
    }

    /// Ends them and says, as a table, what they have lived through; nothing of it may be lost.
    pub(crate) fn finish(self) -> String {
        let mut kinds: BTreeMap<&str, (usize, Diary)> = BTreeMap::new();
        self.0.iter().for_each(Client::stop);
        let mut lost = Vec::new();
        for client in self.0 {
            let (clients, sum) = kinds.entry(client.kind).or_default();
            let page = client.finish();
            *clients += 1;
            sum.connections += page.connections;
            sum.answers += page.answers;
            sum.bytes += page.bytes;
            lost.extend(page.lost);
        }
        let mut table = String::from(
            "| honest | clients | connections | answers | bytes | lost |\n|---|---|---|---|---|---|\n",
        );
        for (kind, (clients, sum)) in kinds {
            let Diary { connections, answers, bytes, .. } = sum;
            writeln!(table, "| {kind} | {clients} | {connections} | {answers} | {bytes} | 0 |").unwrap();
        }
        assert!(lost.is_empty(), "{} lost: {lost:#?}\n{table}", lost.len());
        table
    }
}
