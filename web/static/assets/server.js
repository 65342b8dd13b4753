// The server's API: the only file that makes requests. Addresses are relative, so the page also works under a path.

import { events } from "./sse.js";
import { parseMetrics } from "./prometheus.js";

const KEY = "moeflux.key";

/** What went wrong with a request, in the API's own words where it gave any. */
export class ServerError extends Error {
  /** `kind`: the API's type or code, or "network" or "incomplete"; `status` is 0 without a response. */
  constructor(message, { status = 0, kind = "network", retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}

/** The API key; kept for this tab only, and gone with it. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)),
};

/** Names of the models, in the server's order. */
export async function listModels() {
  const body = await (await request("v1/models")).json();
  return (body.data ?? []).map((model) => model.id);
}

export async function fetchMetrics(signal) {
  return parseMetrics(await (await request("metrics", { signal })).text());
}

/** Whether the server takes requests; a server that says no does so with a status that is none of success. */
export async function isReady() {
  try {
    await request("health");
    return true;
  } catch (error) {
    if (error.status === 401) throw error;
    return false;
  }
}

/** The chunks of a streamed chat completion. Ends early only with an error. */
export async function* streamChat(body, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  let finished = false;
  try {
    for await (const { data } of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = parseJson(data);
      if (chunk.error) throw errorFrom(chunk, response.status, null);
      finished ||= (chunk.choices ?? []).some((choice) => choice.finish_reason);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof ServerError || signal.aborted) throw error;
    if (!finished) throw new ServerError("The connection was lost before the answer was complete.");
  }
  if (!finished) throw new ServerError("The answer ended before it was complete.", { kind: "incomplete" });
}

async function request(path, options = {}) {
  const key = apiKey.get();
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ServerError("The server cannot be reached.");
  }
  if (response.ok) return response;
  const text = await response.text().catch(() => "");
  throw errorFrom(parseJson(text, {}), response.status, response.headers.get("retry-after"));
}

function errorFrom(body, status, retryAfter) {
  const error = body?.error ?? {};
  const message = typeof error === "string" ? error : error.message;
  const wait = Number.parseInt(retryAfter ?? "", 10);
  return new ServerError(message || `The server answered with status ${status}.`, {
    status,
    kind: error.code || error.type || `status ${status}`,
    retryAfter: Number.isNaN(wait) ? null : wait,
  });
}

function parseJson(text, otherwise) {
  try {
    return JSON.parse(text);
  } catch {
    if (otherwise !== undefined) return otherwise;
    throw new ServerError("The server sent something that is no JSON.", { kind: "invalid_response" });
  }
}
