import assert from "node:assert/strict";
import { test } from "node:test";
import { addChunk, endAnswer, newAnswer, thinkingSeconds, tokensPerSecond } from "../static/assets/answer.js";
import { cut, exportText, importText, newConversation, titleOf, toRequest } from "../static/assets/conversation.js";

const delta = (content) => ({ choices: [{ index: 0, delta: content, finish_reason: null }] });

function conversation() {
  const made = newConversation();
  made.messages.push({ role: "user", content: "Hello\nthere" }, { ...newAnswer("demo", 0), content: "Hi", reasoning: "hm" }, { role: "user", content: "More" });
  return made;
}

test("a request has what was chosen and nothing else", () => {
  const made = conversation();
  Object.assign(made.settings, { model: "demo", system: "Be brief.", temperature: 0, thinking: false });
  assert.deepEqual(toRequest(made), {
    model: "demo", temperature: 0, enable_thinking: false,
    messages: [
      { role: "system", content: "Be brief." }, { role: "user", content: "Hello\nthere" },
      { role: "assistant", content: "Hi", reasoning_content: "hm" }, { role: "user", content: "More" },
    ],
  });
});

test("an answer that failed at once is not sent", () => {
  const made = conversation();
  made.messages[1] = { ...newAnswer("demo", 0), error: { message: "no" } };
  assert.equal(toRequest(made).messages.length, 2);
});

test("cutting gives back what was cut", () => {
  const made = conversation();
  assert.equal(cut(made, 1).length, 2);
  assert.equal(made.messages.length, 1);
});

test("titles", () => {
  assert.equal(titleOf(conversation()), "Hello");
  assert.equal(titleOf({ ...conversation(), title: "Mine" }), "Mine");
  assert.equal(titleOf(newConversation()), "New conversation");
});

test("export and import", () => {
  const made = conversation();
  made.title = "Mine";
  made.settings.seed = 7;
  const [read] = importText(exportText([made]));
  assert.notEqual(read.id, made.id);
  assert.deepEqual([read.title, read.settings, read.created], ["Mine", made.settings, made.created]);
  assert.deepEqual(toRequest(read), toRequest(made));
});

test("imports that are none say why", () => {
  const file = (conversations) => JSON.stringify({ format: "moeflux.conversations.1", conversations });
  assert.throws(() => importText("{"), /no JSON/);
  assert.throws(() => importText("[]"), /format should be/);
  assert.throws(() => importText(file([{}])), /Conversation 1 has no messages/);
  assert.throws(() => importText(file([null])), /Conversation 1 has no messages/);
  assert.throws(() => importText(file([{ messages: [{ role: "root", content: "" }] }])), /message 1: the role/);
  assert.throws(() => importText(file([{ messages: [{ role: "user", content: [] }] }])), /message 1: the content/);
  const [read] = importText(file([{ title: 5, settings: { temperature: "hot", top_p: 0.5 }, messages: [{ role: "assistant", content: "", toolCalls: [null] }] }]));
  assert.deepEqual([read.title, read.settings.temperature, read.settings.top_p], ["", null, 0.5]);
  assert.deepEqual(read.messages[0].toolCalls, [{ id: "", name: "", arguments: "" }]);
});

test("an answer from its chunks", () => {
  const answer = newAnswer("m", 0);
  addChunk(answer, delta({ role: "assistant", content: "" }), 100);
  assert.equal(answer.stats.first, null, "the role is no token");
  addChunk(answer, delta({ reasoning_content: "think" }), 1000);
  assert.equal(thinkingSeconds(answer, 3500), 2.5);
  addChunk(answer, delta({ content: "a" }), 4000);
  addChunk(answer, delta({ content: "b" }), 5000);
  assert.equal(thinkingSeconds(answer, 9000), 3);
  assert.equal(tokensPerSecond(answer, 5000), 0.5);
  addChunk(answer, { choices: [{ delta: {}, finish_reason: "length" }] }, 6000);
  addChunk(answer, { choices: [], usage: { completion_tokens: 11, prompt_tokens: 9, prompt_tokens_details: { cached_tokens: 4 } } }, 6000);
  endAnswer(answer, 6000);
  assert.deepEqual([answer.reasoning, answer.content, answer.finish], ["think", "ab", "length"]);
  assert.deepEqual([answer.stats.promptTokens, answer.stats.cachedTokens], [9, 4]);
  assert.equal(tokensPerSecond(answer, 99999), 2);
});

test("tool calls in pieces, in parallel", () => {
  const answer = newAnswer("m", 0);
  const call = (index, given, id) => delta({ tool_calls: [{ index, id, function: given }] });
  addChunk(answer, call(0, { name: "add", arguments: "" }, "c1"), 1);
  addChunk(answer, call(1, { name: "get_time", arguments: "{}" }, "c2"), 2);
  addChunk(answer, call(0, { arguments: '{"a":1}' }), 3);
  addChunk(answer, call(1e9, { arguments: "x" }), 3);
  assert.deepEqual(answer.toolCalls.slice(0, 2), [
    { id: "c1", name: "add", arguments: '{"a":1}' }, { id: "c2", name: "get_time", arguments: "{}" }]);
  assert.ok(answer.toolCalls.length <= 128);
});
