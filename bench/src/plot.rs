//! Lines over entries, both axes logarithmic, as SVG text. Pure.

use std::fmt::Write;

/// A line.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One plot.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) series: Vec<Series>,
}

const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 4] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"];

/// The plots side by side.
pub(crate) fn svg(panels: &[Panel]) -> String {
    let width = (WIDTH + MARGIN + 20.0) * panels.len() as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        HEIGHT + 2.0 * MARGIN
    );
    for (place, panel) in panels.iter().enumerate() {
        let _ = writeln!(
            text,
            "<g transform=\"translate({} {MARGIN})\">",
            MARGIN + place as f64 * (WIDTH + MARGIN + 20.0)
        );
        draw(panel, &mut text);
        text += "</g>\n";
    }
    text + "</svg>\n"
}

/// The whole decades that hold all values.
fn decades(values: impl Iterator<Item = f64> + Clone) -> (i32, i32) {
    let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor() as i32;
    let high = values.fold(0.0, f64::max).log10().ceil() as i32;
    (low, high.max(low + 1))
}

fn draw(panel: &Panel, text: &mut String) {
    let points = panel.series.iter().flat_map(|series| &series.points);
    if points.clone().next().is_none() {
        return;
    }
    let (x, y) = (decades(points.clone().map(|point| point.0)), decades(points.map(|point| point.1)));
    let place = |value: f64, (low, high): (i32, i32), length: f64| {
        (value.log10() - f64::from(low)) / f64::from(high - low) * length
    };
    let _ = writeln!(
        text,
        "<text x=\"0\" y=\"-18\" font-size=\"13\">{}</text><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">entries</text>",
        panel.title,
        WIDTH / 2.0,
        HEIGHT + 38.0
    );
    for decade in x.0..=x.1 {
        let at = place(10f64.powi(decade), x, WIDTH);
        let _ = writeln!(
            text,
            "<path d=\"M{at:.1} 0V{HEIGHT}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT + 18.0,
            10f64.powi(decade)
        );
    }
    for decade in y.0..=y.1 {
        let at = HEIGHT - place(10f64.powi(decade), y, HEIGHT);
        let _ = writeln!(
            text,
            "<path d=\"M0 {at:.1}H{WIDTH}\" stroke=\"#ddd\"/><text x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            at + 4.0,
            10f64.powi(decade)
        );
    }
    for (number, (series, colour)) in panel.series.iter().zip(COLOURS).enumerate() {
        let at =
            |(entries, value): &(f64, f64)| (place(*entries, x, WIDTH), HEIGHT - place(*value, y, HEIGHT));
        let line: Vec<String> = series.points.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for (x, y) in series.points.iter().map(at) {
            let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let _ = writeln!(
            text,
            "<text x=\"10\" y=\"{}\" fill=\"{colour}\">{}</text>",
            16 + 15 * number,
            series.name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_lie_within_the_decades() {
        assert_eq!(decades([1000.0, 1e6].into_iter()), (3, 6));
        assert_eq!(decades([0.7, 12.0].into_iter()), (-1, 2));
        assert_eq!(decades([10.0].into_iter()), (1, 2));
    }

    #[test]
    fn ten_times_as_much_is_as_far_everywhere() {
        let series = Series { name: "s".into(), points: vec![(10.0, 1.0), (100.0, 10.0), (1000.0, 100.0)] };
        let text = svg(&[Panel { title: "t", series: vec![series] }]);
        assert!(text.contains("points=\"0.0,300.0 215.0,150.0 430.0,0.0\""), "{text}");
    }
}
