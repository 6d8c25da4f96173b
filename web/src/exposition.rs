//! A registry as text, in the two formats that Prometheus reads.

use std::fmt;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

use crate::{Response, StatusCode};

/// A text format of Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format 0.0.4, which everything reads.
    Classic,
}

impl Format {
    /// The `Content-Type` of an answer in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The format that a scraper with this `Accept` header prefers, by its q values (RFC 9110, 12.5.1). Those who do not name
/// OpenMetrics get the classic text.
pub fn negotiate(accept: Option<&str>) -> Format {
    crate::negotiate::negotiate(accept)
}

/// The answer to a scrape: all of `registry` in `format`; 500 when a metric fails to encode itself.
///
/// Help texts must be one line each (prometheus-client writes them as they are), and exemplars are not for the classic
/// format: our programs have none.
pub fn encode(registry: &Registry, format: Format) -> Response {
    match text(registry, format) {
        Ok(text) => Response::new(StatusCode::OK, format.content_type(), text),
        Err(fmt::Error) => {
            tracing::error!("a metric failed to encode itself: the scrape gets 500");
            Response::text(StatusCode::INTERNAL_SERVER_ERROR, "A metric failed to encode itself.\n")
        }
    }
}

fn text(registry: &Registry, format: Format) -> Result<String, fmt::Error> {
    let mut encoded = String::new();
    encode_registry(&mut encoded, registry)?;
    let mut text = String::with_capacity(encoded.len() + 64);
    let mut help = "";
    for line in encoded.lines() {
        if let Some(named) = line.strip_prefix("# HELP ") {
            help = named;
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.rsplit_once(' ').ok_or(fmt::Error)?;
            let help = help.split_once(' ').map_or("", |(_, help)| help);
            let (suffix, kind) = match format {
                Format::OpenMetrics => ("", kind),
                Format::Classic => classic(kind),
            };
            push(&mut text, &["# HELP ", name, suffix, " ", &escape(help, format), "\n"]);
            push(&mut text, &["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if format == Format::OpenMetrics || !line.starts_with("# UNIT ") {
            push(&mut text, &[line, "\n"]);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    Ok(text)
}

/// The classic format's headers name the sample itself, where OpenMetrics names the family, and it knows fewer types.
fn classic(openmetrics: &str) -> (&'static str, &str) {
    match openmetrics {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        "unknown" => ("", "untyped"),
        same => ("", same),
    }
}

/// Help texts come unescaped from prometheus-client. OpenMetrics 1.0.0 wants `"` escaped too, the classic format not.
fn escape(help: &str, format: Format) -> String {
    let escaped = help.replace('\\', "\\\\");
    match format {
        Format::OpenMetrics => escaped.replace('"', "\\\""),
        Format::Classic => escaped,
    }
}

fn push(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Unit;

    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        let drops = Counter::<u64>::default();
        drops.inc_by(7);
        registry.register("nf_conntrack_stat_drop", "Packets dropped: \"table full\" or a \\ failure", drops);
        let sources = Family::<Vec<(String, String)>, Gauge>::default();
        let label = |value: &str| vec![("source".to_owned(), value.to_owned())];
        sources.get_or_create(&label("192.0.2.1\n# TYPE x \"y\" \\")).set(-3);
        registry.register("nf_conntrack_source_entries", "Entries by source", sources);
        registry.register("nf_conntrack_table", "This table", Info::new(vec![("table_id", "0a")]));
        let age = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        age.set(1.5);
        registry.register_with_unit("age", "Age", Unit::Seconds, age);
        let duration = Histogram::new([0.5, 1.0]);
        duration.observe(0.75);
        registry.register("duration", "Duration", duration);
        registry.register("empty", "No series", Family::<Vec<(String, String)>, Counter>::default());
        registry
    }

    #[test]
    fn openmetrics() {
        let expected = r##"# HELP nf_conntrack_stat_drop Packets dropped: \"table full\" or a \\ failure.
# TYPE nf_conntrack_stat_drop counter
nf_conntrack_stat_drop_total 7
# HELP nf_conntrack_source_entries Entries by source.
# TYPE nf_conntrack_source_entries gauge
nf_conntrack_source_entries{source="192.0.2.1\n# TYPE x \"y\" \\"} -3
# HELP nf_conntrack_table This table.
# TYPE nf_conntrack_table info
nf_conntrack_table_info{table_id="0a"} 1
# HELP age_seconds Age.
# TYPE age_seconds gauge
# UNIT age_seconds seconds
age_seconds 1.5
# HELP duration Duration.
# TYPE duration histogram
duration_sum 0.75
duration_count 1
duration_bucket{le="0.5"} 0
duration_bucket{le="1.0"} 1
duration_bucket{le="+Inf"} 1
# EOF
"##;
        assert_eq!(text(&registry(), Format::OpenMetrics).unwrap(), expected);
    }

    #[test]
    fn classic_text() {
        let expected = r##"# HELP nf_conntrack_stat_drop_total Packets dropped: "table full" or a \\ failure.
# TYPE nf_conntrack_stat_drop_total counter
nf_conntrack_stat_drop_total 7
# HELP nf_conntrack_source_entries Entries by source.
# TYPE nf_conntrack_source_entries gauge
nf_conntrack_source_entries{source="192.0.2.1\n# TYPE x \"y\" \\"} -3
# HELP nf_conntrack_table_info This table.
# TYPE nf_conntrack_table_info gauge
nf_conntrack_table_info{table_id="0a"} 1
# HELP age_seconds Age.
# TYPE age_seconds gauge
age_seconds 1.5
# HELP duration Duration.
# TYPE duration histogram
duration_sum 0.75
duration_count 1
duration_bucket{le="0.5"} 0
duration_bucket{le="1.0"} 1
duration_bucket{le="+Inf"} 1
"##;
        assert_eq!(text(&registry(), Format::Classic).unwrap(), expected);
    }

    #[test]
    fn an_empty_registry_is_a_valid_answer() {
        assert_eq!(text(&Registry::default(), Format::OpenMetrics).unwrap(), "# EOF\n");
        assert_eq!(text(&Registry::default(), Format::Classic).unwrap(), "");
    }
}
