//! A dashboard's file, read, and the expressions in it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::Value;
use tests::programs::workspace;

/// Annotations with such a metric are rightly empty while all is well, each with its reason: they are asked all the same. Keep it short.
const RIGHTLY_EMPTY: [(&str, &str); 1] =
    [("conntrack_actioner_breaker_open", "the bans of this attack help")];

/// An expression, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) place: String,
    pub(crate) expression: String,
    /// It marks moments of a graph, and is empty where nothing has happened.
    annotation: bool,
}

impl Asked {
    pub(crate) fn may_be_empty(&self) -> bool {
        self.annotation && RIGHTLY_EMPTY.iter().any(|(metric, _)| self.expression.contains(metric))
    }
}

/// A dashboard's file, read.
pub(crate) struct Dashboard {
    pub(crate) name: String,
    pub(crate) json: Value,
}

impl Dashboard {
    pub(crate) fn all() -> Vec<Self> {
        let directory = workspace().join("dashboards");
        let files = fs::read_dir(&directory)
            .expect("dashboards/ is there")
            .map(|entry| entry.expect("an entry").path());
        let mut files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|ext| ext == "json")).collect();
        files.sort();
        assert!(files.len() >= 3, "{files:?}");
        let read = |file: PathBuf| {
            let text = fs::read_to_string(&file).expect("a readable file");
            let json =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            Self { name: file.file_name().expect("a file").to_string_lossy().into_owned(), json }
        };
        files.into_iter().map(read).collect()
    }

    /// Every panel, those within rows and the rows included.
    pub(crate) fn panels(&self) -> Vec<&Value> {
        let mut found = Vec::new();
        below(&self.json["panels"], &mut found);
        found
    }

    pub(crate) fn variables(&self) -> &[Value] {
        self.json["templating"]["list"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Those that ask Prometheus; not Grafana's own, of alerts.
    pub(crate) fn annotations(&self) -> Vec<&Value> {
        let all = self.json["annotations"]["list"].as_array().into_iter().flatten();
        all.filter(|annotation| annotation["expr"].is_string()).collect()
    }

    /// What Grafana puts in place of each variable on first sight.
    fn values(&self) -> BTreeMap<String, String> {
        // A data source's choice stands in no expression.
        let queried = self.variables().iter().filter(|variable| variable["type"] != "datasource");
        let value = |variable: &Value| {
            let name = variable["name"].as_str().expect("a variable has a name").to_owned();
            let value = match variable["includeAll"].as_bool() {
                Some(true) => variable["allValue"].as_str().unwrap_or(".+"),
                _ => {
                    variable["current"]["value"].as_str().unwrap_or_else(|| panic!("{variable} has no value"))
                }
            };
            (name, value.to_owned())
        };
        let mut values: BTreeMap<_, _> = queried.map(value).collect();
        for (name, time) in [("__rate_interval", "1m"), ("__interval", "15s"), ("__range", "1h")] {
            values.insert(name.into(), time.into());
        }
        values
    }

    /// Every expression in it, its variables filled in; those of query variables too.
    pub(crate) fn expressions(&self) -> Vec<Asked> {
        let name = &self.name;
        let mut found = Vec::new();
        for panel in self.panels() {
            let title = panel["title"].as_str().unwrap_or_default();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression =
                    target["expr"].as_str().unwrap_or_else(|| panic!("{title}: {target} has no expr"));
                found.push((format!("{name}: {title}"), expression.to_owned()));
            }
        }
        assert!(found.len() >= 10, "{name} has expressions: {found:?}");
        for variable in self.variables() {
            let query = variable["query"]["query"].as_str().unwrap_or_default();
            if let Some(inside) = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'))
            {
                let (series, label) = inside.rsplit_once(", ").expect("a series and a label");
                let place = format!("{name}: variable {}", variable["name"]);
                found.push((place, format!("count by ({label}) ({series})")));
            }
        }
        let panels = found.len();
        for annotation in self.annotations() {
            let expression = annotation["expr"].as_str().unwrap_or_default().to_owned();
            found.push((format!("{name}: annotation {}", annotation["name"]), expression));
        }
        let values = self.values();
        let filled = |(index, (place, expression)): (usize, (String, String))| {
            let expression =
                filled(&expression, &values).unwrap_or_else(|name| panic!("{place}: what is ${name}?"));
            Asked { place, expression, annotation: index >= panels }
        };
        found.into_iter().enumerate().map(filled).collect()
    }
}

fn below<'a>(list: &'a Value, found: &mut Vec<&'a Value>) {
    for panel in list.as_array().into_iter().flatten() {
        found.push(panel);
        below(&panel["panels"], found);
    }
}

/// `$name` and `${name}` replaced; a name that is not known is the error.
fn filled(expression: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = expression;
    while let Some((before, after)) = rest.split_once('$') {
        text += before;
        let braced = after.starts_with('{');
        let after = after.strip_prefix('{').unwrap_or(after);
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        let name = &after[..end];
        text += values.get(name).ok_or(name)?;
        rest = &after[end + usize::from(braced)..];
    }
    Ok(text + rest)
}

#[test]
fn variables_are_read_as_meant() {
    let values =
        BTreeMap::from([("job".to_owned(), "j".to_owned()), ("__range".to_owned(), "1h".to_owned())]);
    assert_eq!(filled("a{job=\"$job\"}[$__range] + ${job}x", &values), Ok("a{job=\"j\"}[1h] + jx".into()));
    assert_eq!(filled("a[$__unknown]", &values), Err("__unknown".into()));
}
