// A small plot over the last ten minutes, as SVG. What it shows is in the page's table too.

import { h, svg } from "./dom.js";

const LEFT = 58;
const BOTTOM = 20;
const TOP = 6;
const HEIGHT = 160;
// Without a point for so many seconds, a line is broken.
const GAP = 5;

/**
 * `options`: `title`, `format(value)`, `series` (`[{name, value(point)}]`, or a function of the points that gives them),
 * `kind` ("line", "dots" or "stack"), `least` (the top of the axis is at least this), `most` (never more), `unit` (what its
 * top is rounded to: "whole" or "bytes").
 */
export class Plot {
  constructor(options) {
    this.options = options;
    this.width = 400;
    this.value = h("span", { class: "value" });
    this.legend = h("ul", { class: "legend" });
    this.marks = svg("g");
    this.cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    this.drawing = svg("svg", { role: "img", "aria-label": `${options.title}, plot; the values are in the table below.` }, this.marks, this.cursor);
    this.element = h("figure", { class: "plot" },
      h("figcaption", {}, h("span", {}, options.title), this.value), this.drawing, this.legend);
    this.pointer = null;
    this.drawing.addEventListener("pointermove", ({ offsetX }) => this.point(offsetX));
    this.drawing.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(([{ contentRect }]) => {
      this.width = Math.max(160, contentRect.width);
      this.drawing.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
      this.draw();
    }).observe(this.drawing);
  }

  /** Shows these points; `span` seconds up to `now`. */
  update(points, now, span) {
    Object.assign(this, { points, now, span });
    this.draw();
  }

  point(x) {
    this.pointer = x;
    this.draw();
  }

  draw() {
    if (!this.points) return;
    const { options, points } = this;
    const series = typeof options.series === "function" ? options.series(points) : options.series;
    const shown = options.kind === "stack" ? stacked(series) : series;
    const top = this.top(shown);
    const x = (time) => LEFT + ((time - this.now + this.span) / this.span) * (this.width - LEFT - 4);
    const y = (value) => HEIGHT - BOTTOM - (Math.min(value, top) / top) * (HEIGHT - BOTTOM - TOP);
    // What is higher in a stack is drawn first, so that the lower parts lie over it.
    const lines = shown.map((line, index) => this.line(line, index, x, y));
    this.marks.replaceChildren(...this.axes(top, x, y), ...(options.kind === "stack" ? lines.reverse() : lines).flat());
    this.describe(series, x);
  }

  top(series) {
    const { least = 0, most = Infinity } = this.options;
    let high = least;
    for (const point of this.points) for (const { value } of series) high = Math.max(high, value(point) ?? 0);
    return Math.min(most, nice(high || 1, this.options.unit));
  }

  axes(top, x, y) {
    const rows = [0, top / 2, top].flatMap((value) => [
      svg("line", { class: "gridline", x1: LEFT, x2: this.width - 4, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, this.options.format(value)),
    ]);
    const ages = [this.span, this.span / 2, 0].map((age, index) => svg("text", {
      x: x(this.now - age), y: HEIGHT - 4, "text-anchor": ["start", "middle", "end"][index],
    }, age === 0 ? "now" : age < 60 ? `−${age} s` : `−${age / 60} min`));
    return [...rows, ...ages];
  }

  line({ value }, index, x, y) {
    const runs = this.runs(value).map((run) => run.map(([time, v]) => [x(time).toFixed(1), y(v).toFixed(1)]));
    const path = (run) => `M${run.map((xy) => xy.join(" ")).join("L")}`;
    const area = (run) => `${path(run)}V${y(0)}H${run[0][0]}Z`;
    if (this.options.kind === "dots") {
      return runs.flat().map(([cx, cy]) => svg("circle", { class: "dot", cx, cy, r: 2.5 }));
    }
    if (this.options.kind === "stack") return runs.map((run) => svg("path", { class: `stack series-${index}`, d: area(run) }));
    return runs.flatMap((run) => [
      index === 0 ? svg("path", { class: "area", d: area(run) }) : null,
      svg("path", { class: `line series-${index}`, d: path(run) }),
    ]).filter(Boolean);
  }

  /** Stretches of points without a gap. */
  runs(value) {
    const runs = [];
    let last = -Infinity;
    for (const point of this.points) {
      const v = value(point);
      if (v === null || v === undefined) {
        last = -Infinity;
        continue;
      }
      if (point.time - last > GAP) runs.push([]);
      runs.at(-1).push([point.time, v]);
      last = point.time;
    }
    return runs;
  }

  /** The numbers beside the plot: of the latest point, or of the one under the pointer. */
  describe(series, x) {
    const { format, kind, total } = this.options;
    const chosen = this.pointer === null ? null : nearest(this.points, (point) => Math.abs(x(point.time) - this.pointer));
    this.cursor.setAttribute("visibility", chosen ? "visible" : "hidden");
    if (chosen) for (const side of ["x1", "x2"]) this.cursor.setAttribute(side, x(chosen.time));
    const latest = kind === "dots" ? this.points.findLast((point) => series[0].value(point) !== null) : this.points.at(-1);
    const point = chosen ?? latest ?? {};
    this.value.textContent = format((total ?? series[0].value)(point) ?? null);
    const names = series.map(({ name, value }, index) => h("li", {}, swatch(kind, index), `${name} ${format(value(point) ?? null)}`));
    const age = chosen ? [h("li", {}, `${Math.round(this.now - chosen.time)} s ago`)] : [];
    this.legend.replaceChildren(...(series.length > 1 ? names : []), ...age);
  }
}

/** Each series on top of those before it. */
function stacked(series) {
  return series.map((_, index) => ({
    value: (point) => {
      const values = series.slice(0, index + 1).map(({ value }) => value(point));
      return values.every((v) => v === undefined || v === null) ? null : values.reduce((sum, v) => sum + (v ?? 0), 0);
    },
  }));
}

/** The next round number; of whole things, one with a whole half. */
function nice(value, unit) {
  if (unit === "bytes") return 2 ** Math.ceil(Math.log2(value));
  const power = 10 ** Math.floor(Math.log10(value));
  const steps = unit === "whole" ? [2, 4, 10] : [1, 2, 5, 10];
  return steps.find((step) => step * power >= value * 0.999) * power;
}

function nearest(points, distance) {
  return points.reduce((best, point) => (best === null || distance(point) < distance(best) ? point : best), null);
}

function swatch(kind, index) {
  const mark = kind === "stack"
    ? svg("rect", { class: `stack series-${index}`, width: 16, height: 11, rx: 3 })
    : svg("line", { class: `line series-${index}`, x1: 0, x2: 16, y1: 6, y2: 6 });
  return svg("svg", { viewBox: "0 0 16 11", "aria-hidden": "true" }, mark);
}
