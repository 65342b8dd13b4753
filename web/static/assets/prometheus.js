// The text format of Prometheus (and of OpenMetrics, as far as they agree).

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?(?:\s+#.*)?$/;
const LABEL = /\s*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?/y;
const ESCAPES = { n: "\n", '"': '"', "\\": "\\" };

/** Parses an exposition; a line that is none is left out. */
export function parseMetrics(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : SAMPLE.exec(line.trim());
    const labels = match && parseLabels(match[2] ?? "");
    if (!labels) continue;
    const value = parseValue(match[3]);
    if (Number.isNaN(value) && match[3] !== "NaN") continue;
    if (!samples.has(match[1])) samples.set(match[1], []);
    samples.get(match[1]).push({ labels, value });
  }
  return new Metrics(samples);
}

function parseLabels(text) {
  const labels = {};
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < text.length) {
    const match = LABEL.exec(text);
    if (!match) return null;
    labels[match[1]] = match[2].replace(/\\(.)/g, (whole, char) => ESCAPES[char] ?? whole);
  }
  return labels;
}

function parseValue(text) {
  if (/^\+?Inf$/i.test(text)) return Infinity;
  return /^-Inf$/i.test(text) ? -Infinity : Number(text);
}

/** Samples by name. */
export class Metrics {
  constructor(samples) {
    this.samples = samples;
  }

  /** The samples of a name, those with these labels. */
  all(name, labels = {}) {
    const wanted = Object.entries(labels);
    return (this.samples.get(name) ?? []).filter((sample) => wanted.every(([key, value]) => sample.labels[key] === value));
  }

  /** The sum over all label sets, or null without a sample. */
  sum(name, labels) {
    const found = this.all(name, labels);
    return found.length ? found.reduce((sum, { value }) => sum + value, 0) : null;
  }

  /** Sums by the values of one label, in the order in which they come. */
  by(name, label) {
    const sums = {};
    for (const { labels, value } of this.all(name)) sums[labels[label] ?? ""] = (sums[labels[label] ?? ""] ?? 0) + value;
    return sums;
  }

  /** A histogram over all label sets: `{sum, count, buckets}`, buckets `[upper bound, cumulative count]`; or null. */
  histogram(name) {
    const count = this.sum(`${name}_count`);
    if (count === null) return null;
    const bounds = new Map();
    for (const { labels, value } of this.all(`${name}_bucket`)) {
      const bound = parseValue(labels.le ?? "");
      bounds.set(bound, (bounds.get(bound) ?? 0) + value);
    }
    return { sum: this.sum(`${name}_sum`) ?? 0, count, buckets: [...bounds].sort(([a], [b]) => a - b) };
  }
}

/** A quantile of what a histogram counted between two looks at it (the earlier may be null), as Prometheus estimates it. */
export function quantile(q, later, earlier) {
  const before = new Map(earlier?.buckets ?? []);
  const buckets = later.buckets.map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]);
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  const rank = q * total;
  const at = buckets.findIndex(([, count]) => count >= rank);
  const [low, below] = at > 0 ? buckets[at - 1] : [0, 0];
  const [high, count] = buckets[at];
  if (high === Infinity) return low;
  return low + (high - low) * ((rank - below) / (count - below || 1));
}
