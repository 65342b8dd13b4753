// Measures over time, from what the server counts.

import { METRICS } from "./metric-names.js";
import { quantile } from "./prometheus.js";

/** How long measures are kept, in seconds. */
export const WINDOW = 600;
// Rates are taken over a few looks: at five tokens per second, one second alone would count four, five or six.
const RATE_SPAN = 3;

/** Collects looks at the metrics and keeps the measures of the last ten minutes. */
export class History {
  points = [];
  #looks = [];

  /** Adds a look; `time` in seconds. */
  add(time, metrics) {
    const look = { time, metrics };
    // A server that was restarted counts from zero: what was counted before says nothing about it.
    const last = this.#looks.at(-1);
    if (last && restarted(last.metrics, metrics)) this.#looks = [];
    this.#looks.push(look);
    while (this.#looks.length > 2 && this.#looks[1].time <= time - RATE_SPAN) this.#looks.shift();
    this.points.push(measure(look, this.#looks[0], this.#looks.at(-2)));
    while (this.points[0].time < time - WINDOW) this.points.shift();
  }

  /** Adds a moment without an answer: a gap. */
  miss(time) {
    this.points.push({ time });
    this.#looks = [];
  }

  /** The mean of a measure over the last `seconds`, or null. */
  mean(name, seconds) {
    const values = this.#values(name, seconds);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  }

  highest(name) {
    return this.#values(name, WINDOW).reduce((high, value) => (high === null || value > high ? value : high), null);
  }

  #values(name, seconds) {
    const end = this.points.at(-1)?.time ?? 0;
    return this.points.filter(({ time }) => time > end - seconds).map((point) => point[name]).filter(isNumber);
  }
}

function measure(look, first, previous) {
  const { time, metrics } = look;
  const rate = (name) => ratio(change(name, metrics, first.metrics), time - first.time);
  const hits = change(METRICS.expertHits, metrics, first.metrics);
  const misses = change(METRICS.expertMisses, metrics, first.metrics);
  const memory = metrics.by(METRICS.memory, "use");
  const uses = Object.values(memory);
  return {
    time,
    tokens: rate(METRICS.tokensGenerated),
    promptTokens: rate(METRICS.tokensPrompt),
    firstToken: timeToFirst(metrics, previous?.metrics),
    running: metrics.sum(METRICS.requestsRunning),
    queued: metrics.sum(METRICS.requestsQueued),
    hitRate: ratio(hits, isNumber(hits) && isNumber(misses) ? hits + misses : null),
    bytesRead: rate(METRICS.expertBytesRead),
    stalled: rate(METRICS.expertStalls),
    memory,
    memoryTotal: uses.length ? uses.reduce((sum, value) => sum + value, 0) : null,
  };
}

/** The median of the requests whose first token came since the look before; null if none did. */
function timeToFirst(metrics, before) {
  const now = metrics.histogram(METRICS.timeToFirstToken);
  if (!now || !before) return null;
  const earlier = before.histogram(METRICS.timeToFirstToken);
  const counted = now.count - (earlier?.count ?? 0);
  if (counted <= 0) return null;
  // Of one request the mean is its exact time, while the buckets know only its range.
  return counted === 1 ? now.sum - (earlier?.sum ?? 0) : quantile(0.5, now, earlier);
}

function change(name, later, earlier) {
  const [now, before] = [later.sum(name), earlier.sum(name)];
  return now === null ? null : now - (before ?? 0);
}

function restarted(before, now) {
  const [start, later] = [before.sum(METRICS.processStart), now.sum(METRICS.processStart)];
  if (start !== null && later !== null && start !== later) return true;
  return [METRICS.tokensGenerated, METRICS.expertHits, METRICS.expertBytesRead]
    .some((name) => (now.sum(name) ?? 0) < (before.sum(name) ?? 0));
}

const ratio = (part, whole) => (isNumber(part) && whole > 0 ? part / whole : null);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
