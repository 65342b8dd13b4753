// The status page: looks at the server once a second and shows the last ten minutes.

import { byId, h } from "./dom.js";
import { bytes, count, decimal, percent, seconds } from "./format.js";
import { fillIcons } from "./icons.js";
import { askForKey } from "./key-dialog.js";
import { METRICS } from "./metric-names.js";
import { Plot } from "./plot.js";
import { quantile } from "./prometheus.js";
import { History, WINDOW } from "./series.js";
import { fetchMetrics, isReady } from "./server.js";
import { themeSwitch } from "./theme.js";

const INTERVAL = 1000;
const TIMEOUT = 5000;
// In seconds: a page that was just opened has little to show, and shows that large.
const SPANS = [60, 120, 300, WINDOW];
const rate = (value) => (value === null ? decimal(null) : `${bytes(value)}/s`);

/** What is measured: plots show some, the table all. */
const MEASURES = [
  ["tokens", "Generated tokens/s", decimal],
  ["promptTokens", "Prompt tokens/s", decimal],
  ["firstToken", "Time to first token", seconds],
  ["running", "Requests running", count],
  ["queued", "Requests waiting", count],
  ["hitRate", "Expert hit rate", percent],
  ["bytesRead", "Experts read", rate],
  ["stalled", "Waiting for experts", percent],
  ["memoryTotal", "Memory", bytes],
];

const of = (name) => (point) => point[name] ?? null;
const PLOTS = [
  { title: "Tokens per second", format: decimal, series: [{ name: "generated", value: of("tokens") }] },
  { title: "Time to first token", format: seconds, kind: "dots", series: [{ name: "median", value: of("firstToken") }] },
  { title: "Requests", format: count, unit: "whole", least: 2, total: of("running"), series: [{ name: "running", value: of("running") }, { name: "waiting", value: of("queued") }] },
  { title: "Expert hit rate", format: percent, least: 1, most: 1, series: [{ name: "hits", value: of("hitRate") }] },
  { title: "Experts read", format: rate, unit: "bytes", series: [{ name: "read", value: of("bytesRead") }] },
  { title: "Memory by use", format: bytes, unit: "bytes", kind: "stack", total: of("memoryTotal"), series: memorySeries },
];

fillIcons();
themeSwitch(byId("theme"));
const history = new History();
const plots = PLOTS.map((options) => new Plot(options));
byId("plots").append(...plots.map(({ element }) => element));
let paused = false;
let shownState = "";
byId("pause").addEventListener("click", ({ target }) => {
  paused = !paused;
  target.setAttribute("aria-pressed", String(paused));
  target.textContent = paused ? "Resume" : "Pause";
  if (!paused) draw();
});
look();

/** Looks, shows, and comes again: one look after the other, however slow the server is. */
async function look() {
  const begun = Date.now();
  try {
    const [metrics, ready] = await Promise.all([fetchMetrics(AbortSignal.timeout(TIMEOUT)), isReady()]);
    history.add(Date.now() / 1000, metrics);
    showState(ready ? "good" : "bad", ready ? "Ready" : "Running, but not ready for requests");
    if (!paused) showTotals(metrics);
  } catch (error) {
    history.miss(Date.now() / 1000);
    showState("bad", error.status ? error.message : "The server cannot be reached");
    if (error.status === 401) await askForKey(error.message);
  }
  if (!paused) draw();
  setTimeout(look, Math.max(0, begun + INTERVAL - Date.now()));
}

function draw() {
  const now = history.points.at(-1)?.time ?? Date.now() / 1000;
  const age = now - (history.points[0]?.time ?? now);
  const span = SPANS.find((seconds) => age <= seconds) ?? WINDOW;
  for (const plot of plots) plot.update(history.points, now, span);
  const latest = history.points.at(-1) ?? {};
  byId("numbers").replaceChildren(...MEASURES.map(([name, label, format]) => row(label,
    format(latest[name] ?? null), format(history.mean(name, 60)), format(history.mean(name, WINDOW)), format(history.highest(name)))));
}

/** Said once: a screen reader would read it each second. */
function showState(state, text) {
  if (text === shownState) return;
  shownState = text;
  byId("state").dataset.state = state;
  byId("state").textContent = text;
}

function showTotals(metrics) {
  const started = metrics.sum(METRICS.processStart);
  const versions = metrics.all(METRICS.buildInfo).map(({ labels }) => `moeflux ${labels.version ?? ""}`);
  const models = metrics.all(METRICS.modelLoaded).filter(({ value }) => value > 0).map(({ labels }) => labels.model);
  byId("facts").textContent = [
    ...versions,
    started !== null && `up ${seconds(Math.max(0, Date.now() / 1000 - started))}`,
    models.length > 0 && `loaded: ${models.join(", ")}`,
  ].filter(Boolean).join(" · ");
  const first = metrics.histogram(METRICS.timeToFirstToken);
  const each = metrics.histogram(METRICS.timePerToken);
  const of = (histogram, q) => seconds(histogram && quantile(q, histogram, null));
  byId("totals").replaceChildren(
    row("Requests", count(metrics.sum(METRICS.requests))),
    row("Tokens generated", count(metrics.sum(METRICS.tokensGenerated))),
    row("Tokens of prompts", count(metrics.sum(METRICS.tokensPrompt))),
    row("Of those, from the cache", count(metrics.sum(METRICS.tokensCached))),
    row("Time to first token, median / 99 %", `${of(first, 0.5)} / ${of(first, 0.99)}`),
    row("Time per token, median / 99 %", `${of(each, 0.5)} / ${of(each, 0.99)}`),
    row("Experts found in memory", count(metrics.sum(METRICS.expertHits))),
    row("Experts read", count(metrics.sum(METRICS.expertMisses))),
    row("Bytes read", bytes(metrics.sum(METRICS.expertBytesRead))),
  );
}

function memorySeries(points) {
  const uses = Object.keys(points.findLast((point) => point.memory)?.memory ?? {});
  return uses.map((use) => ({ name: use, value: (point) => point.memory?.[use] ?? null }));
}

function row(label, ...values) {
  return h("tr", {}, h("th", { scope: "row" }, label), ...values.map((value) => h("td", {}, value)));
}
