// Metrics for the stub: a server that has some work of its own, and whatever its clients ask for.

const BOUNDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const EXPERTS_PER_TOKEN = 240;
const EXPERT_BYTES = 1_769_472;

export class StubMetrics {
  tokens = 0;
  promptTokens = 0;
  cachedTokens = 0;
  requests = { 200: 0 };
  running = 0;
  queued = 0;
  hits = 0;
  misses = 0;
  #first = new Histogram("moeflux_time_to_first_token_seconds");
  #each = new Histogram("moeflux_time_per_token_seconds");
  #started = Date.now() / 1000;
  #warm = 0;

  /** Counts a generated token; experts get warmer with each. */
  token(seconds = 0.03) {
    this.tokens += 1;
    this.#each.observe(seconds);
    this.#warm += 1;
    const misses = Math.round(EXPERTS_PER_TOKEN * (0.06 + 0.5 * Math.exp(-this.#warm / 120)));
    this.misses += misses;
    this.hits += EXPERTS_PER_TOKEN - misses;
  }

  firstToken(seconds) {
    this.#first.observe(seconds);
  }

  response(status) {
    this.requests[status] = (this.requests[status] ?? 0) + 1;
  }

  text() {
    const gib = 2 ** 30;
    const memory = { experts: Math.min(6, 1 + this.#warm / 100) * gib, weights: 1.4 * gib, sequences: 0.2 * gib + this.tokens * 40960, transient: 0.35 * gib };
    return [
      '# TYPE moeflux_build_info gauge', 'moeflux_build_info{version="0.1.0-stub"} 1',
      `process_start_time_seconds ${this.#started}`,
      'moeflux_model_loaded{model="demo"} 1',
      "# TYPE moeflux_tokens_generated_total counter", `moeflux_tokens_generated_total{model="demo"} ${this.tokens}`,
      `moeflux_tokens_prompt_total{model="demo"} ${this.promptTokens}`,
      `moeflux_tokens_cached_total{model="demo"} ${this.cachedTokens}`,
      ...Object.entries(this.requests).map(([status, n]) => `moeflux_requests_total{route="/v1/chat/completions",status="${status}"} ${n}`),
      `moeflux_requests_running ${this.running}`, `moeflux_requests_queued ${this.queued}`,
      `moeflux_expert_hits_total{model="demo"} ${this.hits}`, `moeflux_expert_misses_total{model="demo"} ${this.misses}`,
      `moeflux_expert_bytes_read_total{model="demo"} ${this.misses * EXPERT_BYTES}`,
      `moeflux_expert_stall_seconds_total{model="demo"} ${this.misses * 0.0002}`,
      ...Object.entries(memory).map(([use, bytes]) => `moeflux_memory_bytes{use="${use}"} ${Math.round(bytes)}`),
      ...this.#first.lines(), ...this.#each.lines(),
    ].join("\n") + "\n";
  }
}

class Histogram {
  #sum = 0;
  #count = 0;
  #buckets = BOUNDS.map(() => 0);

  constructor(name) {
    this.name = name;
  }

  observe(value) {
    this.#sum += value;
    this.#count += 1;
    BOUNDS.forEach((bound, index) => { if (value <= bound) this.#buckets[index] += 1; });
  }

  lines() {
    const { name } = this;
    const buckets = BOUNDS.map((bound, index) => `${name}_bucket{le="${bound}"} ${this.#buckets[index]}`);
    return [`# TYPE ${name} histogram`, ...buckets, `${name}_bucket{le="+Inf"} ${this.#count}`, `${name}_sum ${this.#sum}`, `${name}_count ${this.#count}`];
  }
}
