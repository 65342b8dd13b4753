// The share of experts that were in memory since an answer began. The server counts for all of a model's answers
// together, so beside other users it is theirs too.

import { METRICS } from "./metric-names.js";
import { fetchMetrics } from "./server.js";

// An answer's end waits for the last look.
const TIMEOUT = 1000;

export class HitMeter {
  #first = null;
  #busy = false;

  constructor(model, report) {
    this.model = model;
    this.report = report;
  }

  /** Looks once; without metrics, or without a use of experts since, it reports nothing. */
  async tick() {
    if (this.#busy) return;
    this.#busy = true;
    try {
      const metrics = await fetchMetrics(AbortSignal.timeout(TIMEOUT));
      const labels = this.model && metrics.all(METRICS.expertHits, { model: this.model }).length ? { model: this.model } : {};
      const now = { hits: metrics.sum(METRICS.expertHits, labels), misses: metrics.sum(METRICS.expertMisses, labels) };
      this.#first ??= now;
      const hits = now.hits - this.#first.hits;
      const uses = hits + now.misses - this.#first.misses;
      if (uses > 0) this.report(hits / uses);
    } catch {
      // An answer does not fail for want of a number beside it.
    } finally {
      this.#busy = false;
    }
  }
}
