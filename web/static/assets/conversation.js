// A conversation as data: plain objects that go into storage and files as they are.
//
// Messages: `{role: "user", content}` and `{role: "assistant", content, reasoning, toolCalls, …}` (see answer.js).

const FORMAT = "moeflux.conversations.1";
const TITLE_LENGTH = 48;

/** What can be asked of a model besides the messages; `null` leaves it to the server. */
export const DEFAULT_SETTINGS = Object.freeze({
  model: null, system: "", thinking: null, temperature: null, top_p: null, top_k: null, min_p: null, max_tokens: null, seed: null,
});

export function newConversation(settings = DEFAULT_SETTINGS, now = Date.now()) {
  return { id: crypto.randomUUID?.() ?? randomId(), title: "", created: now, updated: now, settings: { ...settings }, messages: [] };
}

/** `crypto.randomUUID` exists only over https and on this machine; a server on the local network is neither. */
function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The name that people gave, or how the conversation began. */
export function titleOf({ title, messages }) {
  const text = title || messages.find(({ role }) => role === "user")?.content.trim().split("\n")[0] || "New conversation";
  return text.length > TITLE_LENGTH ? `${text.slice(0, TITLE_LENGTH - 1).trimEnd()}…` : text;
}

/** Drops the message at `index` and all that follow; returns them, for who wants them back. */
export function cut(conversation, index) {
  return conversation.messages.splice(index);
}

/** The body of a chat completion that asks for the next message. */
export function toRequest({ settings, messages }) {
  const { model, system, thinking, ...sampling } = settings;
  const body = { model, messages: messages.filter(hasContent).map(toMessage) };
  if (system.trim()) body.messages.unshift({ role: "system", content: system });
  if (thinking !== null) body.enable_thinking = thinking;
  for (const [name, value] of Object.entries(sampling)) if (value !== null) body[name] = value;
  return body;
}

/** An answer that failed before its first word says nothing to the model. */
function hasContent({ role, content, reasoning, toolCalls }) {
  return role === "user" || Boolean(content || reasoning || toolCalls?.length);
}

function toMessage({ role, content, reasoning, toolCalls }) {
  if (role === "user") return { role, content };
  const message = { role, content };
  if (reasoning) message.reasoning_content = reasoning;
  if (toolCalls?.length) {
    message.tool_calls = toolCalls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
  }
  return message;
}

/** Conversations as the text of a file. */
export function exportText(conversations) {
  return `${JSON.stringify({ format: FORMAT, conversations }, null, 2)}\n`;
}

/** Conversations from such a text, each under a new name of its own; throws an error that says what is wrong. */
export function importText(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("The file is no JSON.");
  }
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) {
    throw new Error(`The file is no export of conversations: its format should be "${FORMAT}".`);
  }
  return file.conversations.map(checked);
}

function checked(given, index) {
  const where = `Conversation ${index + 1}`;
  if (!Array.isArray(given?.messages)) throw new Error(`${where} has no messages.`);
  const conversation = newConversation(checkedSettings(given.settings));
  conversation.title = asText(given.title);
  conversation.created = asTime(given.created, conversation.created);
  conversation.updated = asTime(given.updated, conversation.updated);
  conversation.messages = given.messages.map((message, at) => {
    if (message?.role !== "user" && message?.role !== "assistant") {
      throw new Error(`${where}, message ${at + 1}: the role should be "user" or "assistant".`);
    }
    if (typeof message.content !== "string") throw new Error(`${where}, message ${at + 1}: the content should be text.`);
    return message.role === "user" ? { role: "user", content: message.content } : checkedAnswer(message);
  });
  return conversation;
}

function checkedAnswer({ content, reasoning, toolCalls, model, finish }) {
  const calls = Array.isArray(toolCalls) ? toolCalls : [];
  return {
    role: "assistant",
    content,
    reasoning: asText(reasoning),
    toolCalls: calls.map((call) => ({ id: asText(call?.id), name: asText(call?.name), arguments: asText(call?.arguments) })),
    model: asText(model) || null,
    finish: asText(finish) || "stop",
  };
}

function checkedSettings(given) {
  const settings = { ...DEFAULT_SETTINGS };
  for (const name of Object.keys(settings)) {
    const value = given?.[name];
    const kind = name === "system" || name === "model" ? "string" : name === "thinking" ? "boolean" : "number";
    if (typeof value === kind) settings[name] = value;
  }
  return settings;
}

const asText = (value) => (typeof value === "string" ? value : "");
const asTime = (value, otherwise) => (Number.isFinite(value) ? value : otherwise);
