//! The fill of some hosts over the day, as a small SVG that reads in light and dark.

use std::fmt::Write;

use super::{DAY, scrapes::Seen};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 44.0;
const TOP: f64 = 12.0;
/// A point each ten minutes is enough for the eye.
const POINT: u32 = 600;
/// Legible on white and on black, and told apart by people who see few colours: Okabe and Ito.
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// A curve: its name, limit, and what was seen each `interval` seconds of both days.
pub struct Curve<'a> {
    /// Its name.
    pub name: &'a str,
    /// `nf_conntrack_max`.
    pub limit: u64,
    /// The scrapes.
    pub seen: &'a [Seen],
}

fn x(second: u32) -> f64 {
    LEFT + f64::from(second) / f64::from(DAY) * WIDTH
}

fn y(fill: f64) -> f64 {
    TOP + (1.0 - fill.clamp(0.0, 1.0)) * HEIGHT
}

/// The second day of some curves, five at the most.
pub fn svg(curves: &[Curve<'_>], interval: u32) -> String {
    let (width, height) = (LEFT + WIDTH + 110.0, TOP + HEIGHT + 26.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <title>Fill of the table over the day</title>\n"
    );
    for percent in [0, 25, 50, 75, 100] {
        let at = y(f64::from(percent) / 100.0);
        grid(&mut text, [LEFT, at, LEFT + WIDTH, at], (LEFT - 6.0, at + 4.0, "end"), &format!("{percent} %"));
    }
    for hour in (0..=24).step_by(4) {
        let at = x(hour * 3600);
        grid(
            &mut text,
            [at, TOP, at, TOP + HEIGHT],
            (at, TOP + HEIGHT + 16.0, "middle"),
            &format!("{hour:02}:00"),
        );
    }
    for (index, (curve, colour)) in curves.iter().zip(COLOURS).enumerate() {
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/>",
            points(curve, interval)
        );
        let at = TOP + 14.0 + 16.0 * index as f64;
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{at}\" fill=\"{colour}\">{}</text>",
            LEFT + WIDTH + 8.0,
            curve.name
        );
    }
    text + "</svg>\n"
}

fn grid(text: &mut String, [x1, y1, x2, y2]: [f64; 4], (x, y, anchor): (f64, f64, &str), label: &str) {
    let _ = writeln!(
        text,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#888\" stroke-opacity=\"0.35\"/>\
         <text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#888\">{label}</text>"
    );
}

fn points(curve: &Curve<'_>, interval: u32) -> String {
    let mut points = String::new();
    for second in (0..DAY).step_by(POINT as usize) {
        if let Some(Seen::Scraped(scrape)) = curve.seen.get(((DAY + second) / interval) as usize) {
            let _ = write!(points, "{:.1},{:.1} ", x(second), y(scrape.entries() / curve.limit as f64));
        }
    }
    points.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::{host::Host, scrapes::scrapes};

    #[test]
    fn a_full_table_reaches_the_top_and_a_quiet_one_does_not() {
        let host = Host::named("endless").expect("a host");
        let seen = scrapes(host, 600);
        let drawn = points(&Curve { name: host.name, limit: host.limit, seen: &seen }, 600);
        let heights: Vec<f64> = drawn
            .split(' ')
            .map(|point| point.split_once(',').expect("x,y").1.parse().expect("a number"))
            .collect();
        // Two of 144 scrapes went missing.
        assert_eq!(heights.len(), 142);
        assert!(heights.iter().copied().fold(f64::MAX, f64::min) <= TOP + 1.0, "{heights:?}");
        assert!(heights[0] > TOP + 0.9 * HEIGHT);
    }
}
