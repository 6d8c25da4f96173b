//! Which exposition format a scraper prefers (RFC 9110, 12.5.1).

use crate::exposition::Format;

/// A media range of an `Accept` header, by how closely it can fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Anything,
    Type,
    Exact,
    ExactVersion,
}

/// The format of greatest quality. OpenMetrics only for those who name it: a mere `*/*`, no header at all, or a header
/// that accepts neither gets the classic text, which everything can read.
pub(crate) fn negotiate(accept: Option<&str>) -> Format {
    let Some(accept) = accept else { return Format::Classic };
    let openmetrics = quality(accept, "application", "openmetrics-text", "1.0.0");
    let classic = quality(accept, "text", "plain", "0.0.4");
    match (openmetrics, classic) {
        (Some((_, 0)) | None, _) => Format::Classic,
        (Some((fit, ours)), Some((_, theirs))) if ours < theirs || ours == theirs && fit < Fit::Exact => {
            Format::Classic
        }
        (Some(_), _) => Format::OpenMetrics,
    }
}

/// How well the closest matching range fits, and its quality in thousandths.
fn quality(accept: &str, kind: &str, subtype: &str, version: &str) -> Option<(Fit, u16)> {
    let ranges = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let fit = match parts.next()?.split_once('/')? {
            ("*", "*") => Fit::Anything,
            (named, "*") if named.eq_ignore_ascii_case(kind) => Fit::Type,
            (named, sub) if named.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => {
                Fit::Exact
            }
            _ => return None,
        };
        parts.filter_map(|part| part.split_once('=')).try_fold(
            (fit, 1000),
            |(fit, quality), (name, value)| {
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => Some((fit, thousandths(value)?)),
                    "version" => (value == version).then_some((Fit::ExactVersion, quality)),
                    // charset, and Prometheus 3's escaping: our names need none.
                    _ => Some((fit, quality)),
                }
            },
        )
    });
    ranges.max()
}

fn thousandths(value: &str) -> Option<u16> {
    let quality: f64 = value.parse().ok()?;
    (0.0..=1.0).contains(&quality).then_some((quality * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn prefers(accept: &str, format: Format) {
        assert_eq!(negotiate(Some(accept)), format, "{accept}");
    }

    #[test]
    fn prometheus_gets_openmetrics() {
        // Sent by 2.42 (scrape/scrape.go, acceptHeader).
        prefers(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetrics,
        );
        // Sent by 3.5 with its default scrape protocols.
        prefers(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Format::OpenMetrics,
        );
        // 3.x with scrape_protocols: [PrometheusText0.0.4].
        prefers("text/plain;version=0.0.4;q=0.3,*/*;q=0.2", Format::Classic);
    }

    #[test]
    fn whoever_does_not_name_openmetrics_gets_the_classic_text() {
        assert_eq!(negotiate(None), Format::Classic);
        for accept in [
            "*/*",
            "",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/*",
            "image/png",
        ] {
            prefers(accept, Format::Classic);
        }
    }

    #[test]
    fn quality_decides_and_the_closest_range_gives_it() {
        prefers("application/openmetrics-text;q=0.4, text/plain;q=0.5", Format::Classic);
        prefers("Application/OpenMetrics-Text; q=0.5, text/plain;q=0.5", Format::OpenMetrics);
        prefers("application/openmetrics-text;q=0, */*", Format::Classic);
        prefers("application/openmetrics-text, */*;q=0", Format::OpenMetrics);
        prefers("application/openmetrics-text;version=0.0.1, text/plain;q=0.1", Format::Classic);
        prefers(
            "application/openmetrics-text;version=\"1.0.0\"; charset=utf-8, text/plain;q=0.9",
            Format::OpenMetrics,
        );
        prefers("application/*, text/*;q=0.5", Format::OpenMetrics);
        prefers("application/openmetrics-text;q=seven, text/plain;q=0.1", Format::Classic);
    }
}
