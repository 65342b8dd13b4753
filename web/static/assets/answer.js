// One answer while it comes: chunks of a stream into a message.

/**
 * An empty answer. `finish` is why it ended: null while it goes on, the API's reason, "stopped" (by the user) or "error".
 * `stats`: `started`, `first`, `thinkingEnded`, `ended` in ms; `deltas`, as many as came; `tokens`, `promptTokens` and
 * `cachedTokens`, once the server has told; `hitRate`, the share of experts that were in memory.
 */
export function newAnswer(model, now) {
  return {
    role: "assistant", content: "", reasoning: "", toolCalls: [], model, finish: null, error: null,
    stats: {
      started: now, first: null, thinkingEnded: null, ended: null,
      deltas: 0, tokens: null, promptTokens: null, cachedTokens: null, hitRate: null,
    },
  };
}

/** Adds a chunk of the stream to the answer. */
export function addChunk(answer, chunk, now) {
  const { stats } = answer;
  if (chunk.model) answer.model = chunk.model;
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  // Some servers call it `reasoning`.
  const reasoning = delta.reasoning_content ?? delta.reasoning ?? "";
  const content = delta.content ?? "";
  if (reasoning || content || delta.tool_calls?.length) {
    stats.first ??= now;
    stats.deltas += 1;
  }
  if ((content || delta.tool_calls?.length) && answer.reasoning) stats.thinkingEnded ??= now;
  answer.reasoning += reasoning;
  answer.content += content;
  for (const call of delta.tool_calls ?? []) addToolCall(answer.toolCalls, call);
  if (choice?.finish_reason) answer.finish = choice.finish_reason;
  if (chunk.usage) addUsage(stats, chunk.usage);
}

function addToolCall(calls, { index = 0, id, function: called }) {
  while (calls.length <= index && calls.length < 128) calls.push({ id: "", name: "", arguments: "" });
  const call = calls[index];
  if (!call) return;
  call.id ||= id ?? "";
  call.name += called?.name ?? "";
  call.arguments += called?.arguments ?? "";
}

function addUsage(stats, usage) {
  stats.tokens = usage.completion_tokens ?? stats.tokens;
  stats.promptTokens = usage.prompt_tokens ?? stats.promptTokens;
  stats.cachedTokens = usage.prompt_tokens_details?.cached_tokens ?? stats.cachedTokens;
}

/** Ends the answer: `reason` is given if it is not the model's own. */
export function endAnswer(answer, now, reason = null, error = null) {
  answer.finish = reason ?? answer.finish ?? "stop";
  answer.error = error;
  answer.stats.ended = now;
  if (answer.reasoning) answer.stats.thinkingEnded ??= now;
}

/**
 * Tokens per second after the first one, or null before there are two. While the answer comes, a delta counts as a token:
 * servers send one each, but for characters that take several; the end brings the server's own count.
 */
export function tokensPerSecond({ stats }, now) {
  const tokens = stats.tokens ?? stats.deltas;
  const elapsed = (stats.ended ?? now) - stats.first;
  return stats.first === null || tokens < 2 || elapsed < 50 ? null : ((tokens - 1) * 1000) / elapsed;
}

/** Seconds of thinking so far, or null for an answer without. */
export function thinkingSeconds({ reasoning, stats }, now) {
  return reasoning && stats?.first ? ((stats.thinkingEnded ?? now) - stats.first) / 1000 : null;
}
