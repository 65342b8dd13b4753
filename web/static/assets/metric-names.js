// The names of the server's metrics; README.md says what each means.

export const METRICS = Object.freeze({
  tokensGenerated: "moeflux_tokens_generated_total",
  tokensPrompt: "moeflux_tokens_prompt_total",
  tokensCached: "moeflux_tokens_cached_total",
  requests: "moeflux_requests_total",
  requestsRunning: "moeflux_requests_running",
  requestsQueued: "moeflux_requests_queued",
  timeToFirstToken: "moeflux_time_to_first_token_seconds",
  timePerToken: "moeflux_time_per_token_seconds",
  expertHits: "moeflux_expert_hits_total",
  expertMisses: "moeflux_expert_misses_total",
  expertBytesRead: "moeflux_expert_bytes_read_total",
  expertStalls: "moeflux_expert_stall_seconds_total",
  memory: "moeflux_memory_bytes",
  buildInfo: "moeflux_build_info",
  modelLoaded: "moeflux_model_loaded",
  processStart: "process_start_time_seconds",
});
