//! The message's JSON. Bounds stand here, where the bytes become memory: the sender may be anyone who reaches the port.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::foreign::shorten;

/// Alertmanager sends whole groups; 20,000 is forty times the largest we ever saw, and about 8 MiB of body.
const MAX_ALERTS: usize = 20_000;
/// Labels, or annotations, of one alert.
const MAX_LABELS: usize = 256;
/// Bytes of a label's name.
const MAX_NAME: usize = 1024;
/// Bytes of a label's or annotation's value.
const MAX_VALUE: usize = 64 * 1024;

/// An object, and nothing else: serde's derived code would take a list for one as well, its items in the fields' order.
pub(super) struct Object<T>(pub(super) T);

/// What an object is called in "…, expected …".
pub(super) trait Called {
    const NAME: &'static str;
}

impl Called for Message {
    const NAME: &'static str = "Alertmanager's message, an object";
}

impl Called for SentAlert {
    const NAME: &'static str = "an alert, an object";
}

impl<'de, T: Deserialize<'de> + Called> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Called> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::NAME)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// template.Data and webhook.Message of Alertmanager, as far as we read them. Doubled fields are errors.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub(super) version: Option<String>,
    #[serde(default)]
    pub(super) receiver: String,
    #[serde(default)]
    pub(super) group_key: String,
    #[serde(default, rename = "externalURL")]
    pub(super) external_url: String,
    #[serde(default)]
    pub(super) truncated_alerts: u64,
    pub(super) alerts: Option<Alerts>,
}

/// Only the version, whatever else there is.
#[derive(Deserialize)]
pub(super) struct Head {
    pub(super) version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SentAlert {
    pub(super) status: Status,
    pub(super) labels: Labels,
    #[serde(default)]
    pub(super) annotations: Labels,
    #[serde(default)]
    pub(super) fingerprint: String,
    #[serde(default)]
    pub(super) starts_at: String,
}

#[derive(PartialEq, Eq)]
pub(super) enum Status {
    Firing,
    Resolved,
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Status;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an alert's status, \"firing\" or \"resolved\"")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Status, E> {
                match word {
                    "firing" => Ok(Status::Firing),
                    "resolved" => Ok(Status::Resolved),
                    other => Err(E::custom(format_args!(
                        "the alert's status is \"{}\", which is neither \"firing\" nor \"resolved\"",
                        shorten(other, 40)
                    ))),
                }
            }
        }
        deserializer.deserialize_str(Word)
    }
}

#[derive(Default)]
pub(super) struct Alerts(pub(super) Vec<SentAlert>);

impl<'de> Deserialize<'de> for Alerts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Alerts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of alerts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Alerts, A::Error> {
                let mut alerts = Vec::new();
                while let Some(Object(alert)) = list.next_element()? {
                    if alerts.len() == MAX_ALERTS {
                        return Err(A::Error::custom(format_args!(
                            "more than {MAX_ALERTS} alerts in one message; group by source, or set max_alerts"
                        )));
                    }
                    alerts.push(alert);
                }
                Ok(Alerts(alerts))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Names and values; a name may stand only once, for which of two would count is anybody's guess.
#[derive(Default)]
pub(super) struct Labels(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels, an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    check_name(&name, &labels)?;
                    let value: String = map.next_value()?;
                    if value.len() > MAX_VALUE {
                        return Err(A::Error::custom(format_args!(
                            "the value of \"{}\" is longer than {MAX_VALUE} bytes",
                            shorten(&name, 60)
                        )));
                    }
                    labels.insert(name, value);
                }
                Ok(Labels(labels))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

fn check_name<E: Error>(name: &str, labels: &BTreeMap<String, String>) -> Result<(), E> {
    if name.len() > MAX_NAME {
        return Err(E::custom(format_args!("a label's name is longer than {MAX_NAME} bytes")));
    }
    if labels.contains_key(name) {
        return Err(E::custom(format_args!("\"{}\" stands twice in one object", shorten(name, 60))));
    }
    if labels.len() == MAX_LABELS {
        return Err(E::custom(format_args!("more than {MAX_LABELS} labels or annotations on one alert")));
    }
    Ok(())
}
