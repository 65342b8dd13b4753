// A stand-in for the server: serves the page as the server should, and answers as a model might.
//
//     node test/stub-server.mjs --port 8080 [--key KEY] [--load]
//
// Words in the last prompt ask for trouble: `!error`, `!limit`, `!slow`, `!disconnect`, `!midway`, `!think`, `!tool`,
// `!markdown`, `!forever`.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { MARKDOWN, STORY, THOUGHTS } from "./stub-answers.mjs";
import { StubMetrics } from "./stub-metrics.mjs";

const STATIC = fileURLToPath(new URL("../static/", import.meta.url));
const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml" };
/** The policy of README.md. */
export const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
  + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/** Starts a stub; `delay` is the time between tokens in ms. Returns `{url, requests, close}`. */
export async function startStub({ port = 0, key = null, delay = 20, load = false } = {}) {
  const metrics = new StubMetrics();
  const requests = [];
  const server = createServer((request, response) => {
    handle(request, response, { metrics, requests, key, delay }).catch((error) => response.destroy(error));
  });
  const clock = load ? setInterval(() => work(metrics), 1000) : null;
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    requests,
    close: () => {
      clearInterval(clock);
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

async function handle(request, response, stub) {
  const { pathname } = new URL(request.url, "http://stub");
  const isApi = pathname.startsWith("/v1/") || ["/metrics", "/health"].includes(pathname);
  if (!isApi) return sendFile(response, pathname);
  if (stub.key && request.headers.authorization !== `Bearer ${stub.key}`) {
    return sendError(response, 401, "The API key is missing or wrong.", "invalid_api_key");
  }
  if (pathname === "/metrics") return send(response, 200, "text/plain; version=0.0.4", stub.metrics.text());
  if (pathname === "/health") return sendJson(response, 200, { status: "ready" });
  if (pathname === "/v1/models") return sendJson(response, 200, { object: "list", data: ["demo", "qwen3.5-397b"].map((id) => ({ id, object: "model" })) });
  if (pathname === "/v1/chat/completions") return chat(request, response, stub);
  return sendError(response, 404, `No route ${pathname}.`, "not_found");
}

async function sendFile(response, pathname) {
  const name = { "/": "index.html", "/status": "status.html" }[pathname] ?? pathname.slice(1);
  const path = normalize(join(STATIC, name));
  const body = path.startsWith(STATIC) ? await readFile(path).catch(() => null) : null;
  if (!body) return sendError(response, 404, `No page ${pathname}.`, "not_found");
  send(response, 200, `${TYPES[extname(path)]}; charset=utf-8`, body, {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
  });
}

async function chat(request, response, stub) {
  const { metrics, requests } = stub;
  let text = "";
  for await (const piece of request) text += piece;
  const body = JSON.parse(text);
  requests.push(body);
  const prompt = body.messages.at(-1).content;
  const begun = Date.now();
  const asks = (word) => prompt.includes(`!${word}`);
  if (asks("error")) return sendError(response, 400, "The context has room for 4096 tokens, and the prompt has 5120.", "context_length_exceeded");
  if (asks("limit")) return sendError(response, 429, "Too many requests wait already.", "queue_full", { "retry-after": "5" });
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.flushHeaders();
  let gone = false;
  response.on("close", () => { gone = true; });
  metrics.running += 1;
  let tokens = 0;
  const write = (data) => response.write(`data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`);
  const chunk = (delta, finish_reason = null, more = {}) => write({ id: "chatcmpl-1", object: "chat.completion.chunk", model: body.model, choices: [{ index: 0, delta, finish_reason }], ...more });
  const stream = async (text, field) => {
    for (const piece of text.match(/\s*\S+|\s+$/g) ?? []) {
      if (gone || tokens >= (body.max_tokens ?? Infinity)) return;
      await pause(stub.delay);
      if (tokens === 0) metrics.firstToken((Date.now() - begun) / 1000);
      tokens += 1;
      metrics.token();
      chunk({ [field]: piece });
    }
  };
  try {
    response.write(": keep-alive\n\n");
    chunk({ role: "assistant", content: "" });
    await pause(asks("slow") ? 3000 : 100);
    if (asks("think") && body.enable_thinking !== false) await stream(THOUGHTS, "reasoning_content");
    if (asks("tool")) {
      chunk({ tool_calls: [{ index: 0, id: "call_1", type: "function", function: { name: "get_weather", arguments: "" } }] });
      for (const piece of ['{"city"', ': "Oslo"', "}"]) chunk({ tool_calls: [{ index: 0, function: { arguments: piece } }] });
      chunk({}, "tool_calls");
    } else {
      const answer = asks("think") ? "8 × 7 = **56**." : asks("markdown") ? MARKDOWN : STORY;
      await stream(asks("disconnect") || asks("midway") ? answer.slice(0, 300) : answer, "content");
      while (asks("forever") && !gone) await stream(answer, "content");
      if (asks("disconnect")) return void response.destroy();
      if (asks("midway")) return void (write({ error: { message: "A read of layer 12, expert 77 failed.", type: "server_error" } }), response.end());
      chunk({}, tokens >= (body.max_tokens ?? Infinity) ? "length" : "stop");
    }
    const promptTokens = Math.ceil(text.length / 4);
    metrics.promptTokens += promptTokens;
    metrics.cachedTokens += Math.floor(promptTokens / 2);
    write({ id: "chatcmpl-1", model: body.model, choices: [], usage: { prompt_tokens: promptTokens, completion_tokens: tokens, prompt_tokens_details: { cached_tokens: Math.floor(promptTokens / 2) } } });
    write("[DONE]");
    response.end();
  } finally {
    metrics.running -= 1;
    metrics.response(200);
  }
}

/** A second of other people's work. */
function work(metrics) {
  const wave = Math.sin(Date.now() / 9000);
  for (let token = 0; token < 24 + 8 * wave + Math.random() * 6; token += 1) metrics.token();
  metrics.promptTokens += Math.random() < 0.3 ? 400 : 0;
  metrics.running = 2 + Math.round(wave + Math.random());
  metrics.queued = Math.max(0, Math.round(2 * wave));
  if (Math.random() < 0.4) metrics.firstToken(0.2 + Math.random() * 0.8);
}

function send(response, status, type, body, headers = {}) {
  response.writeHead(status, { "content-type": type, "cache-control": "no-cache", ...headers });
  response.end(body);
}

function sendJson(response, status, body, headers) {
  send(response, status, "application/json", JSON.stringify(body), headers);
}

function sendError(response, status, message, code, headers) {
  sendJson(response, status, { error: { message, type: "invalid_request_error", code, param: null } }, headers);
}

// Only on request: test runners load every file of this folder.
const option = (name) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : null);
if (option("--port")) {
  const stub = await startStub({ port: Number(option("--port")), key: option("--key"), load: process.argv.includes("--load") });
  console.log(stub.url);
}
