import assert from "node:assert/strict";
import { test } from "node:test";
import { METRICS } from "../static/assets/metric-names.js";
import { parseMetrics, quantile } from "../static/assets/prometheus.js";
import { History } from "../static/assets/series.js";
import { StubMetrics } from "./stub-metrics.mjs";

const TEXT = `# HELP a_total Things.
# TYPE a_total counter
a_total{model="x",path="C:\\\\d\\"q\\" },\\n"} 3 1700000000
a_total{model="y",} 4.5e1
 b +Inf
c{} NaN
no value
d{broken} 1
e 1 # {trace_id="x"} 0.5
t_bucket{le="0.1"} 2
t_bucket{le="+Inf"} 4
t_bucket{le="1"} 3
t_sum 5
t_count 4
`;

test("the text format", () => {
  const metrics = parseMetrics(TEXT);
  assert.deepEqual(metrics.all("a_total")[0], { labels: { model: "x", path: 'C:\\d"q" },\n' }, value: 3 });
  assert.equal(metrics.sum("a_total"), 48);
  assert.equal(metrics.sum("a_total", { model: "y" }), 45);
  assert.deepEqual(metrics.by("a_total", "model"), { x: 3, y: 45 });
  assert.equal(metrics.sum("b"), Infinity);
  assert.ok(Number.isNaN(metrics.sum("c")));
  assert.equal(metrics.sum("no"), null);
  assert.equal(metrics.sum("d"), null);
  assert.equal(metrics.sum("e"), 1);
  assert.deepEqual(metrics.histogram("t"), { sum: 5, count: 4, buckets: [[0.1, 2], [1, 3], [Infinity, 4]] });
  assert.equal(metrics.histogram("u"), null);
});

test("quantiles", () => {
  const histogram = parseMetrics(TEXT).histogram("t");
  assert.equal(quantile(0.25, histogram, null), 0.05);
  assert.equal(quantile(0.75, histogram, null), 1);
  assert.equal(quantile(0.99, histogram, null), 1);
  assert.equal(quantile(0.5, histogram, histogram), null);
  assert.equal(quantile(0.5, histogram, { buckets: [[0.1, 2], [1, 2], [Infinity, 3]] }), 0.1 + 0.9 * 0.5);
});

const at = (tokens, hits, misses, more = "") => parseMetrics(
  `${METRICS.tokensGenerated} ${tokens}\n${METRICS.expertHits} ${hits}\n${METRICS.expertMisses} ${misses}\n${more}`);

test("rates over a few looks, gaps and restarts", () => {
  const history = new History();
  history.add(0, at(100, 0, 0));
  assert.equal(history.points[0].tokens, null);
  history.add(1, at(110, 90, 10));
  assert.equal(history.points[1].tokens, 10);
  assert.equal(history.points[1].hitRate, 0.9);
  for (const second of [2, 3, 4, 5]) history.add(second, at(110, 90, 10));
  assert.equal(history.points[5].tokens, 0);
  assert.equal(history.points[5].hitRate, null);
  history.miss(6);
  assert.equal(history.points[6].tokens, undefined);
  history.add(7, at(500, 90, 10));
  assert.equal(history.points[7].tokens, null);
  history.add(8, at(3, 1, 0));
  assert.equal(history.points[8].tokens, null, "a restart is no negative rate");
  history.add(9, at(7, 1, 0));
  assert.equal(history.points[9].tokens, 4);
  assert.equal(history.highest("tokens"), 10);
  assert.ok(history.mean("tokens", 1) === 4);
});

test("only ten minutes are kept", () => {
  const history = new History();
  for (let time = 0; time <= 1000; time += 1) history.add(time, at(time, 0, 0));
  assert.equal(history.points.length, 601);
});

test("time to first token is of the requests since the last look", () => {
  const first = (count, sum) => `${METRICS.timeToFirstToken}_bucket{le="+Inf"} ${count}\n${METRICS.timeToFirstToken}_sum ${sum}\n${METRICS.timeToFirstToken}_count ${count}`;
  const history = new History();
  history.add(0, at(0, 0, 0, first(5, 100)));
  history.add(1, at(0, 0, 0, first(6, 100.25)));
  history.add(2, at(0, 0, 0, first(6, 100.25)));
  assert.deepEqual(history.points.map(({ firstToken }) => firstToken), [null, 0.25, null]);
});

test("the stub has the metrics of the list", () => {
  const stub = new StubMetrics();
  stub.token();
  stub.response(200);
  const text = stub.text();
  const metrics = parseMetrics(text);
  for (const name of Object.values(METRICS)) {
    assert.ok(metrics.sum(name) !== null || metrics.histogram(name), `${name} is missing`);
  }
});
