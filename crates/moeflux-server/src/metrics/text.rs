//! Prometheus's text format.

use std::fmt::Write;

use super::histogram::{Counts, Histogram};

/// A text in the making.
#[derive(Default)]
pub(super) struct Text {
    text: String,
    name: &'static str,
}

impl Text {
    /// Begins a metric; its samples follow.
    pub(super) fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// One value of the present metric.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.value("", labels, value);
    }

    /// A metric of one value.
    pub(super) fn one(
        &mut self,
        name: &'static str,
        kind: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        self.family(name, kind, help);
        self.sample(labels, value);
    }

    /// A histogram of the present metric.
    pub(super) fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let Counts { buckets, sum } = histogram.counts();
        let mut total = 0;
        let bounds = histogram.bounds().iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(buckets) {
            total += count;
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.value("_bucket", &labels, total as f64);
        }
        self.value("_sum", labels, sum);
        self.value("_count", labels, total as f64);
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn value(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let (name, labels) = (self.name, labels.join(","));
        if labels.is_empty() {
            self.line(format_args!("{name}{suffix} {value}"));
        } else {
            self.line(format_args!("{name}{suffix}{{{labels}}} {value}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        writeln!(self.text, "{line}").unwrap_or(());
    }
}
