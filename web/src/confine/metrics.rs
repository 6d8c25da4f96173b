//! What holds, for Prometheus.

use super::Confined;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct By {
    by: &'static str,
}

impl Confined {
    /// The help of the metric `…_confined`.
    pub const HELP: &'static str = "Whether the program gave up what it does not need by this means (1) or the system or --no-confine left it (0).";

    /// Puts `PREFIX_confined{by="…"}` into a registry.
    pub fn register(&self, registry: &mut Registry, prefix: &str) {
        let family = Family::<By, Gauge>::default();
        for (by, holds) in self.by_name() {
            family.get_or_create_owned(&By { by }).set(i64::from(holds));
        }
        registry.register(format!("{prefix}_confined"), Self::HELP.trim_end_matches('.'), family);
    }
}
