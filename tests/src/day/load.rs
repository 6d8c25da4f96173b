//! What an ordinary day brings to a server: visitors by the hour, name lookups, deployments, the nightly backup.

use std::f64::consts::TAU;

use super::{
    DAY,
    table::{Kind, Life},
};

/// A page fetched and the connection closed: 3 s, then 120 s in `TIME_WAIT`.
pub const SHORT: Life = &[(Kind::Established, 3), (Kind::TimeWait, 120)];
/// A browser that keeps its connection for a minute.
pub const KEPT: Life = &[(Kind::Established, 65), (Kind::TimeWait, 120)];
/// A question to a resolver and its answer (`nf_conntrack_udp_timeout`).
pub const LOOKUP: Life = &[(Kind::Replied, 30)];
/// UDP that goes on: `nf_conntrack_udp_timeout_stream` after half a minute of it.
pub const STREAM: Life = &[(Kind::Replied, 30), (Kind::Stream, 120)];
/// A phone on a bad line: its handshake takes long, or is never completed.
pub const SLOW_HANDSHAKE: Life = &[(Kind::HalfOpen, 60)];
/// A port scanner of the ordinary sort, refused.
pub const REFUSED: Life = &[(Kind::Close, 10)];
/// A worker that is connected anew after a deployment, for as long as its client keeps it.
pub const WORKER: Life = &[(Kind::Established, 480), (Kind::TimeWait, 120)];
/// A stream of the nightly backup.
pub const BACKUP: Life = &[(Kind::Established, 2400), (Kind::TimeWait, 120)];

/// How much of the day's most an hour brings: least at four in the morning, most at four in the afternoon, a dent at noon.
pub fn diurnal(second: u32) -> f64 {
    let of_day = f64::from(second % DAY) / f64::from(DAY);
    let wave = 0.6 - 0.4 * (TAU * (of_day - 4.0 / 24.0)).cos();
    let noon = 0.05 * (-((of_day - 12.5 / 24.0) / 0.02).powi(2)).exp();
    wave - noon
}

/// Numbers that look random and are the same each time: splitmix64, public domain, <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Debug)]
pub struct Noise(u64);

impl Noise {
    /// Its seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From −1 to 1.
    pub fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// An ordinary day. `connections` is what comes in a second at the busiest; all else is in proportion.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// New TCP connections a second at the busiest.
    pub connections: f64,
    /// Seconds of the day at which a deployment begins; its workers connect anew within two minutes.
    pub deployments: &'static [u32],
    /// Whether a backup runs from 02:00 to 03:20.
    pub backup: bool,
    /// 1: a fifth of the day's most at night. 2: the square of it, a twenty-fifth.
    pub swing: i32,
}

impl Load {
    /// What comes in a second at `second` (of either day): lives, and how many begin each. `slow` is the hour's mood, around 1.
    pub fn at(&self, second: u32, slow: f64) -> Vec<(Life, f64)> {
        let visitors = self.connections * diurnal(second).powi(self.swing) * slow;
        let mut arrivals = vec![
            (SHORT, 0.8 * visitors),
            (KEPT, 0.2 * visitors),
            (LOOKUP, 0.9 * visitors),
            (STREAM, 0.05 * visitors),
            (SLOW_HANDSHAKE, 0.004 * visitors),
            (REFUSED, 0.2),
        ];
        let of_day = second % DAY;
        if self.deployments.iter().any(|&begins| (begins..begins + 120).contains(&of_day)) {
            arrivals.push((WORKER, self.connections / 4.0));
        }
        arrivals
    }

    /// Streams that the backup opens in a second: by and by for forty minutes, from one address.
    pub fn backup_at(&self, second: u32) -> f64 {
        let of_day = second % DAY;
        let runs = self.backup && (2 * 3600..2 * 3600 + 2400).contains(&of_day);
        if runs { self.connections / 300.0 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_night_is_quiet_and_the_afternoon_is_not() {
        assert!((diurnal(4 * 3600) - 0.2).abs() < 0.001);
        assert!((diurnal(DAY + 16 * 3600) - 1.0).abs() < 0.001);
        assert!((0..DAY).step_by(60).all(|second| (0.19..=1.0).contains(&diurnal(second))));
    }

    #[test]
    fn noise_is_the_same_each_time_and_has_no_bias() {
        let first: Vec<f64> = std::iter::repeat_with({
            let mut noise = Noise::new(7);
            move || noise.draw()
        })
        .take(10_000)
        .collect();
        assert_eq!(first[0], Noise::new(7).draw());
        assert!(first.iter().all(|one| (-1.0..=1.0).contains(one)));
        assert!(first.iter().sum::<f64>().abs() / 10_000.0 < 0.02);
    }
}
