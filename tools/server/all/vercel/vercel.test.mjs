// Vercel's AI SDK over each of its providers that speak one of the server's APIs, at $MOEFLUX_URL with the key $MOEFLUX_KEY.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateText, isStepCount, Output, streamText, tool } from "ai";
import { createOllama } from "ollama-ai-provider-v2";
import { z } from "zod";

const server = process.env.MOEFLUX_URL;
const apiKey = process.env.MOEFLUX_KEY;
const openai = createOpenAI({ baseURL: `${server}/v1`, apiKey });
const compatible = createOpenAICompatible({
  name: "moeflux",
  baseURL: `${server}/v1`,
  apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const ollama = createOllama({ baseURL: `${server}/api`, headers: { Authorization: `Bearer ${apiKey}` } });
const anthropic = createAnthropic({ baseURL: `${server}/v1`, apiKey });
const PROVIDERS = {
  "openai responses": (name) => openai.responses(name),
  "openai chat": (name) => openai.chat(name),
  "openai-compatible": (name) => compatible(name),
  anthropic: (name) => anthropic(name),
  ollama: (name) => ollama(name),
};
// What a provider must be told. Of a name that it does not know, Anthropic's takes it that objects are calls of a tool `json`, of which
// the demo knows nothing; Ollama's puts the temperature where Ollama's API does not have it.
const OPTIONS = {
  anthropic: { anthropic: { structuredOutputMode: "outputFormat" } },
  ollama: { ollama: { options: { temperature: 0 } } },
};

const Person = z.object({ name: z.string(), age: z.number().int() });
const MIA = "Write JSON for a person named Mia who is 34 years old.";
// A question, the call that answers it, and what the model says when it has the result.
const ROUNDS = [
  ["What is the weather in Oslo?", "get_weather", { city: "Oslo" }, "The weather in Oslo is sunny and it is 21 degrees."],
  ["What is 4711 + 289?", "add", { a: 4711, b: 289 }, "4711 + 289 = 5000."],
];
const tools = {
  get_weather: tool({
    description: "Get the weather of a city",
    inputSchema: z.object({ city: z.string().describe("The city") }),
    execute: () => ({ weather: "sunny", temperature: 21 }),
  }),
  add: tool({
    description: "Add two numbers",
    inputSchema: z.object({ a: z.number().int(), b: z.number().int() }),
    execute: ({ a, b }) => ({ result: a + b }),
  }),
};

for (const [provider, of] of Object.entries(PROVIDERS)) {
  const request = { model: of("demo"), temperature: 0, maxOutputTokens: 200, maxRetries: 0, providerOptions: OPTIONS[provider] };

  test(`${provider}: a question is answered and counted`, async () => {
    const { text, usage, finishReason } = await generateText({ ...request, prompt: "What is 17 + 25?" });
    assert.equal(text, "17 + 25 = 42.");
    assert.equal(finishReason, "stop");
    assert.ok(usage.inputTokens > 5 && usage.outputTokens > 5, JSON.stringify(usage));
  });

  test(`${provider}: a stream says the same`, async () => {
    const errors = [];
    const result = streamText({ ...request, prompt: "What is 17 + 25?", onError: ({ error }) => errors.push(error) });
    const pieces = [];
    for await (const piece of result.textStream) pieces.push(piece);
    assert.deepEqual(errors, []);
    assert.equal(pieces.join(""), "17 + 25 = 42.");
    assert.ok(pieces.length > 2);
    assert.ok((await result.usage).outputTokens > 5);
  });

  for (const [question, name, input, expected] of ROUNDS) {
    for (const streams of [false, true]) {
      test(`${provider}: ${name} is called and its result told${streams ? " in a stream" : ""}`, async () => {
        const asked = { ...request, prompt: question, tools, stopWhen: isStepCount(3) };
        const result = streams ? streamText(asked) : await generateText(asked);
        if (streams) await result.consumeStream();
        const [first] = await result.steps;
        assert.deepEqual(first.toolCalls.map((call) => [call.toolName, call.input]), [[name, input]]);
        assert.equal(first.finishReason, "tool-calls");
        assert.equal(await result.text, expected);
      });
    }
  }

  test(`${provider}: a conversation with calls is played back`, async () => {
    const question = { role: "user", content: ROUNDS[0][0] };
    const first = await generateText({ ...request, messages: [question], tools, stopWhen: isStepCount(3) });
    const messages = [question, ...first.response.messages, { role: "user", content: "What is 17 + 25?" }];
    assert.match((await generateText({ ...request, messages })).text, /\S/);
  });

  test(`${provider}: an answer is an object`, async () => {
    const output = Output.object({ schema: Person });
    assert.deepEqual((await generateText({ ...request, prompt: MIA, output })).output, { name: "Mia", age: 34 });
    const result = streamText({ ...request, prompt: MIA, output });
    let last;
    for await (last of result.partialOutputStream);
    assert.deepEqual(last, { name: "Mia", age: 34 });
  });

  test(`${provider}: an answer is an object beside tools`, async () => {
    const output = Output.object({ schema: Person });
    const result = await generateText({ ...request, prompt: MIA, output, tools, stopWhen: isStepCount(3) });
    assert.ok(Person.safeParse(result.output).success);
  });

  test(`${provider}: a call is required`, async (context) => {
    if (provider === "ollama") return context.skip("Ollama's API cannot require a call");
    const result = await generateText({ ...request, prompt: "Hello!", tools, toolChoice: "required" });
    assert.equal(result.toolCalls.length >= 1, true);
    const named = { type: "tool", toolName: "add" };
    const [call] = (await generateText({ ...request, prompt: "Hello!", tools, toolChoice: named })).toolCalls;
    assert.equal(call.toolName, "add");
  });

  test(`${provider}: errors are understood`, async () => {
    const nobody = generateText({ ...request, model: of("nobody"), prompt: "Hello" });
    // Ollama's provider expects errors as OpenAI has them, so that its message says nothing.
    const told = (error) => (provider === "ollama" ? error.responseBody : error.message);
    await assert.rejects(nobody, (error) => APICallError.isInstance(error) && error.statusCode === 404 && /nobody/.test(told(error)));
    // Ollama's provider fails to write a picture in this form.
    if (provider === "ollama") return;
    const picture = { type: "file", data: Buffer.from("iVBORw0KGgo=", "base64"), mediaType: "image/png" };
    const seen = generateText({ ...request, messages: [{ role: "user", content: [picture] }] });
    await assert.rejects(seen, (error) => APICallError.isInstance(error) && error.statusCode === 400);
  });
}

// With thoughts, the first two leave out the temperature, so that what is said is drawn.
const THOUGHTFUL = {
  "openai responses": { openai: { reasoningEffort: "low", reasoningSummary: "auto", forceReasoning: true } },
  anthropic: { anthropic: { thinking: { type: "enabled", budgetTokens: 100 } } },
  "openai-compatible": { moeflux: { reasoningEffort: "low" } },
  ollama: { ollama: { think: true, options: { temperature: 0 } } },
};
for (const [provider, providerOptions] of Object.entries(THOUGHTFUL)) {
  test(`${provider}: thoughts are apart`, async () => {
    const request = { model: PROVIDERS[provider]("demo"), prompt: "What is 63 - 28?", maxOutputTokens: 200, maxRetries: 0 };
    if (!["openai responses", "anthropic"].includes(provider)) request.temperature = 0;
    const { text, reasoningText } = await generateText({ ...request, providerOptions });
    if (request.temperature === 0) assert.deepEqual([reasoningText, text], ["This is a sum.", "63 - 28 = 35."]);
    assert.match(reasoningText, /\S/);
    assert.ok(!text.includes("think>"));
  });
}

for (const [provider, model] of [
  ["openai", openai.embedding("demo")],
  ["openai-compatible", compatible.embeddingModel("demo")],
  ["ollama", ollama.embedding("demo")],
]) {
  test(`${provider}: embeddings`, async () => {
    const { embeddings } = await embedMany({ model, values: ["one", "two"], maxRetries: 0 });
    assert.equal(embeddings.length, 2);
    assert.ok(embeddings[0].length > 8);
  });
}
