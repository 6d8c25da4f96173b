//! A strict reader of both forms that `/metrics` is written in: <https://prometheus.io/docs/specs/om/open_metrics_spec/>
//! and <https://prometheus.io/docs/instrumenting/exposition_formats/>.
//!
//! Stricter than Prometheus, which lets much pass: every family has a type and a help text, once, before its samples; families
//! are not interleaved, no series comes twice, names end as their types ask, and nothing but metrics is written.

use std::collections::{BTreeMap, BTreeSet};

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Classic,
}

impl Form {
    /// What to ask for in `Accept`.
    pub fn accept(self) -> &'static str {
        match self {
            Self::OpenMetrics => "Accept: application/openmetrics-text;version=1.0.0",
            Self::Classic => "Accept: text/plain;version=0.0.4",
        }
    }

    fn types(self) -> &'static [&'static str] {
        match self {
            Self::OpenMetrics => {
                &["counter", "gauge", "histogram", "gaugehistogram", "stateset", "info", "summary", "unknown"]
            }
            Self::Classic => &["counter", "gauge", "histogram", "summary", "untyped"],
        }
    }

    /// How the names of a family's samples end.
    fn suffixes(self, kind: &str) -> &'static [&'static str] {
        match (self, kind) {
            (Self::OpenMetrics, "counter") => &["_total", "_created"],
            (Self::OpenMetrics, "info") => &["_info"],
            (Self::OpenMetrics, "histogram") => &["_bucket", "_count", "_sum", "_created"],
            (Self::Classic, "histogram") => &["_bucket", "_count", "_sum"],
            _ => &[""],
        }
    }
}

/// A series without its value: the name, and its labels in order. `le` is written as Prometheus 3 does.
pub type Series = (String, BTreeMap<String, String>);

/// What was exposed.
#[derive(Debug, Default)]
pub struct Exposed {
    /// The type of each family, by its name.
    pub types: BTreeMap<String, String>,
    /// The help text of each family.
    pub helps: BTreeMap<String, String>,
    /// Every sample.
    pub samples: BTreeMap<Series, f64>,
}

impl Exposed {
    /// Reads a whole answer.
    ///
    /// # Errors
    /// The first line that is wrong, and what is wrong with it.
    pub fn parse(text: &str, form: Form) -> Result<Self, String> {
        let mut reader = Reader { form, exposed: Self::default(), family: None, closed: BTreeSet::new() };
        let Some(body) = text.strip_suffix('\n') else { return Err("no line feed at the end".into()) };
        let mut lines: Vec<&str> = body.split('\n').collect();
        if form == Form::OpenMetrics && lines.pop() != Some("# EOF") {
            return Err("the last line is not `# EOF`".into());
        }
        for (number, line) in lines.iter().enumerate() {
            reader.line(line).map_err(|wrong| format!("line {}: {wrong}: {line}", number + 1))?;
        }
        histograms(&reader.exposed)?;
        Ok(reader.exposed)
    }

    /// Every series that was exposed.
    pub fn series(&self) -> BTreeSet<Series> {
        self.samples.keys().cloned().collect()
    }
}

struct Reader {
    form: Form,
    exposed: Exposed,
    /// The family being read, and whether a sample of it has come.
    family: Option<(String, bool)>,
    closed: BTreeSet<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.contains(['\r', '\t']) {
            return Err("an empty line, a tab or a carriage return".into());
        }
        match line.strip_prefix("# ") {
            Some(said) => self.metadata(said),
            None if line.starts_with('#') => Err("a comment".into()),
            None => self.sample(line),
        }
    }

    fn metadata(&mut self, said: &str) -> Result<(), String> {
        let mut words = said.splitn(3, ' ');
        let (Some(keyword), Some(name), Some(text)) = (words.next(), words.next(), words.next()) else {
            return Err("not a keyword, a name and a text".into());
        };
        self.enter(name)?;
        match keyword {
            "TYPE" if !self.form.types().contains(&text) => {
                return Err(format!("no type of this form: {text}"));
            }
            "TYPE" if self.form == Form::Classic && text == "counter" && !name.ends_with("_total") => {
                return Err("a counter that does not end in _total".into());
            }
            "TYPE" if self.exposed.types.insert(name.into(), text.into()).is_some() => {
                return Err("a second TYPE".into());
            }
            "HELP" if self.exposed.helps.insert(name.into(), unescaped(text, self.form)?).is_some() => {
                return Err("a second HELP".into());
            }
            "TYPE" | "HELP" => {}
            "UNIT" if self.form == Form::OpenMetrics && name.ends_with(&format!("_{text}")) => {}
            other => return Err(format!("keyword {other}")),
        }
        Ok(())
    }

    fn enter(&mut self, name: &str) -> Result<(), String> {
        if !is_name(name, true) {
            return Err(format!("no name of a family: {name}"));
        }
        match &self.family {
            Some((family, false)) if family == name => return Ok(()),
            Some((family, true)) if family == name => return Err("metadata behind samples".into()),
            Some((family, false)) => return Err(format!("{family} has no samples")),
            Some((family, true)) => drop(self.closed.insert(family.clone())),
            None => {}
        }
        if self.closed.contains(name) {
            return Err(format!("{name} was closed by another family"));
        }
        self.family = Some((name.into(), false));
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let (name, labels, value) = sample(line)?;
        let Some((family, began)) = &mut self.family else { return Err("a sample of no family".into()) };
        let (Some(kind), Some(_)) = (self.exposed.types.get(family), self.exposed.helps.get(family)) else {
            return Err(format!("{family} lacks its TYPE or HELP"));
        };
        let suffix = name.strip_prefix(family.as_str()).ok_or_else(|| format!("no sample of {family}"))?;
        if !self.form.suffixes(kind).contains(&suffix) {
            return Err(format!("a {kind} {family} has no {name}"));
        }
        if (suffix == "_bucket") != labels.contains_key("le") {
            return Err("a bucket without `le`, or `le` without a bucket".into());
        }
        let accumulates = ["counter", "histogram"].contains(&kind.as_str());
        if accumulates && (value.is_nan() || value < 0.0) || kind == "info" && value != 1.0 {
            return Err(format!("no value of a {kind}: {value}"));
        }
        *began = true;
        match self.exposed.samples.insert((name, labels), value) {
            None => Ok(()),
            Some(_) => Err("a second time the same series".into()),
        }
    }
}

/// `name{label="value",…} number`, without a timestamp, which none of our metrics has.
fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err(format!("no name of a metric: {name}"));
    }
    let mut labels = BTreeMap::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        while !inside.starts_with('}') {
            let (label, after) = inside.split_once("=\"").ok_or("a label without a value in quotes")?;
            if !is_name(label, false) {
                return Err(format!("no name of a label: {label}"));
            }
            let (text, after) = quoted(after)?;
            let text = if label == "le" { float(&text)?.to_string() } else { text };
            if labels.insert(label.to_owned(), text).is_some() {
                return Err(format!("label {label} twice"));
            }
            inside = match after.strip_prefix(',') {
                Some(next) if !next.starts_with('}') => next,
                None if after.starts_with('}') => after,
                _ => return Err("neither a comma and a label nor the end of the labels".into()),
            };
        }
        rest = &inside[1..];
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    Ok((name.into(), labels, float(value)?))
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(escaped(characters.next().map(|(_, character)| character), true)?),
            other => value.push(other),
        }
    }
    Err("a label's value without an end".into())
}

/// Help texts: only OpenMetrics escapes quotes in them.
fn unescaped(text: &str, form: Form) -> Result<String, String> {
    let mut value = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => value.push(escaped(characters.next(), form == Form::OpenMetrics)?),
            other => value.push(other),
        }
    }
    Ok(value)
}

fn escaped(character: Option<char>, quotes: bool) -> Result<char, String> {
    match character {
        Some('n') => Ok('\n'),
        Some('\\') => Ok('\\'),
        Some('"') if quotes => Ok('"'),
        other => Err(format!("no such escape: {other:?}")),
    }
}

fn float(text: &str) -> Result<f64, String> {
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        text if plain(text) => text.parse().map_err(|_| format!("no number: {text}")),
        text => Err(format!("no number: {text}")),
    }
}

fn is_name(text: &str, colons: bool) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || colons && byte == b':';
    !text.is_empty() && text.bytes().all(good) && !text.as_bytes()[0].is_ascii_digit()
}

/// Buckets rise, the last is infinite, and it holds as many as the count.
fn histograms(exposed: &Exposed) -> Result<(), String> {
    for family in exposed.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(family, _)| family) {
        let mut buckets = BTreeMap::<BTreeMap<String, String>, Vec<(f64, f64)>>::new();
        let bucket = format!("{family}_bucket");
        for ((_, labels), value) in exposed.samples.iter().filter(|((name, _), _)| *name == bucket) {
            let mut labels = labels.clone();
            let le = float(&labels.remove("le").unwrap_or_default().replace("inf", "+Inf"))?;
            buckets.entry(labels).or_default().push((le, *value));
        }
        for (labels, mut of_one) in buckets {
            of_one.sort_by(|a, b| a.0.total_cmp(&b.0));
            let count = exposed.samples.get(&(format!("{family}_count"), labels.clone()));
            let rises = of_one.windows(2).all(|pair| pair[0].1 <= pair[1].1);
            let last = of_one.last().copied();
            if !rises || last.is_none_or(|(le, all)| le != f64::INFINITY || Some(&all) != count) {
                return Err(format!("{family}{labels:?}: buckets {of_one:?}, count {count:?}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP x_total ignored\n";

    fn open(text: &str) -> Result<Exposed, String> {
        Exposed::parse(text, Form::OpenMetrics)
    }

    #[test]
    fn what_is_right_is_read() {
        let text = "# HELP a Words.\n# TYPE a counter\na_total{x=\"1\\\"\\\\\\n,}\",y=\"\"} 3\n# HELP b B.\n# TYPE b histogram\n\
                    b_bucket{le=\"1.0\"} 1\nb_bucket{le=\"+Inf\"} 2\nb_count 2\nb_sum 3.5\n# EOF\n";
        let exposed = open(text).unwrap();
        let labels = BTreeMap::from([("x".into(), "1\"\\\n,}".into()), ("y".into(), String::new())]);
        assert_eq!(exposed.samples[&("a_total".into(), labels)], 3.0);
        assert_eq!(exposed.types["b"], "histogram");
        let classic = "# HELP a_total Words.\n# TYPE a_total counter\na_total 3\n";
        assert!(Exposed::parse(classic, Form::Classic).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let head = "# HELP a A.\n# TYPE a gauge\n";
        for (text, wrong) in [
            (format!("{head}a 1\n"), "# EOF"),
            (format!("{head}a 1\n# EOF"), "line feed"),
            (format!("{head}a 1\na 1\n# EOF\n"), "second time"),
            (format!("{head}a_total 1\n# EOF\n"), "has no a_total"),
            (format!("{head}a one\n# EOF\n"), "no number"),
            (format!("{head}a inf\n# EOF\n"), "no number"),
            (format!("{head}a{{x=\"\\t\"}} 1\n# EOF\n"), "escape"),
            (format!("{head}a{{x=\"1\",x=\"2\"}} 1\n# EOF\n"), "twice"),
            (format!("{head}a{{x=\"1\",}} 1\n# EOF\n"), "comma"),
            (format!("{head}a 1 1700000000\n# EOF\n"), "no number"),
            (format!("{head}a 1\n{head}# EOF\n"), "behind samples"),
            (format!("{head}b 1\n# EOF\n"), "no sample of a"),
            (format!("{head}\na 1\n# EOF\n"), "empty line"),
            (format!("{head}# HELP b B.\n# TYPE b gauge\nb 1\n# EOF\n"), "no samples"),
            ("# TYPE a gauge\na 1\n# EOF\n".to_owned(), "lacks"),
            ("# HELP a A.\n# TYPE a untyped\na 1\n# EOF\n".to_owned(), "no type"),
            ("# HELP a A.\n# TYPE a counter\na_total -1\n# EOF\n".to_owned(), "no value"),
            (GOOD.to_owned() + "# EOF\n# EOF\n", "not a keyword"),
        ] {
            let said = open(&text).unwrap_err();
            assert!(said.contains(wrong), "{text}: {said}");
        }
        let counter = "# HELP a A.\n# TYPE a counter\na 1\n";
        assert!(Exposed::parse(counter, Form::Classic).unwrap_err().contains("_total"));
    }
}
