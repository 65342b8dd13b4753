// The chat page: which conversation is shown, and what each control does to it.

import { Composer } from "./composer.js";
import { ConversationList } from "./conversation-list.js";
import { cut, exportText, importText, newConversation, titleOf } from "./conversation.js";
import { byId, h } from "./dom.js";
import { drawer } from "./drawer.js";
import { generate, isRunning, stop } from "./generation.js";
import { fillIcons } from "./icons.js";
import { askForKey } from "./key-dialog.js";
import { announce, notify } from "./notices.js";
import { listModels } from "./server.js";
import { SettingsPanel } from "./settings.js";
import * as store from "./store.js";
import { themeSwitch } from "./theme.js";
import { Thread } from "./thread.js";

const SAVE_INTERVAL = 2000;

fillIcons();
themeSwitch(byId("theme"));
const sidebar = drawer(byId("sidebar"), byId("open-sidebar"), byId("close-sidebar"), true);
drawer(byId("settings"), byId("open-settings"), byId("close-settings"), false);

const preferences = store.loadPreferences();
let conversations = store.loadConversations();
let current = conversations.find(({ id }) => id === preferences.last) ?? newConversation(preferences.settings);
let models = [];

const thread = new Thread({ edit: (index, text) => resend(index, text), retry: (index) => resend(index) });
const list = new ConversationList({ open, rename, remove, isRunning });
const composer = new Composer({ send, stop: () => stop(current), enterSends: () => preferences.enterSends });
const panel = new SettingsPanel(preferences, settingsChanged);

byId("new").addEventListener("click", () => select(newConversation(preferences.settings)));
byId("model").addEventListener("change", ({ target }) => {
  current.settings.model = target.value;
  settingsChanged();
});
byId("export").addEventListener("click", exportAll);
byId("import").addEventListener("click", () => byId("import-file").click());
byId("import-file").addEventListener("change", importFile);
document.addEventListener("keydown", ({ key }) => { if (key === "Escape" && !byId("key-dialog").open) stop(current); });
addEventListener("pagehide", () => conversations.filter(isRunning).forEach(save));
store.onForeignChange(foreignChange);

select(current);
loadModels();

function select(conversation) {
  display(conversation);
  thread.toEnd();
  sidebar.close();
  byId("prompt").focus();
}

function display(conversation) {
  current = conversation;
  // What is kept of an answer that a closed page was waiting for.
  for (const message of current.messages) if (message.finish === null && !isRunning(current)) message.finish = "stopped";
  thread.show(current);
  panel.show(current.settings);
  showModels();
  refresh();
}

function refresh() {
  list.show(conversations, current.id);
  composer.setRunning(isRunning(current));
  document.title = current.messages.length ? `${titleOf(current)} – moeflux` : "moeflux";
}

function open(id) {
  select(conversations.find((conversation) => conversation.id === id));
}

function send(text) {
  if (isRunning(current)) return false;
  current.messages.push({ role: "user", content: text });
  answer(current);
  return true;
}

/** Asks again from the user's message at `index`, or the one before it; with other words if `text` is given. */
function resend(index, text) {
  if (isRunning(current)) {
    notify("Stop the answer first.");
    return;
  }
  const at = current.messages[index].role === "user" ? index : index - 1;
  const conversation = current;
  const removed = cut(conversation, at);
  const lost = removed.length > 2 || (text !== undefined && removed.length > 1);
  conversation.messages.push({ role: "user", content: text ?? removed[0].content });
  answer(conversation);
  if (lost) notify("What followed that message was replaced.", { label: "Undo", run: () => undo(conversation, at, removed) });
}

function undo(conversation, at, removed) {
  stop(conversation);
  // The answer that was stopped still ends by itself; it ends outside of the conversation.
  cut(conversation, at);
  conversation.messages.push(...removed);
  save(conversation);
  if (conversation === current) select(conversation);
}

async function answer(conversation) {
  if (!conversations.includes(conversation)) conversations.unshift(conversation);
  conversation.updated = Date.now();
  conversations.sort((a, b) => b.updated - a.updated);
  let drawn = false;
  let saved = Date.now();
  const changed = () => {
    if (Date.now() - saved > SAVE_INTERVAL) {
      saved = Date.now();
      save(conversation);
    }
    if (drawn || conversation !== current) return;
    drawn = true;
    requestAnimationFrame(() => {
      drawn = false;
      if (conversation === current) thread.updateLast();
    });
  };
  const finished = generate(conversation, changed);
  if (conversation === current) {
    thread.show(current);
    thread.toEnd();
  }
  save(conversation);
  preferences.last = conversation.id;
  savePreferences();
  refresh();
  announce("The answer begins.");
  const result = await finished;
  save(conversation);
  refresh();
  if (conversation === current) thread.updateLast();
  announce(result.error ? `Error: ${result.error.message}` : result.finish === "stopped" ? "Stopped." : "The answer is complete.");
  if (result.error?.status === 401 && await askForKey(result.error.message)) {
    await loadModels();
    if (conversation === current && conversation.messages.at(-1) === result) resend(conversation.messages.length - 1);
  }
}

function rename(id, title) {
  const conversation = conversations.find((other) => other.id === id);
  conversation.title = title;
  save(conversation);
  refresh();
}

function remove(id) {
  const conversation = conversations.find((other) => other.id === id);
  stop(conversation);
  conversations = conversations.filter((other) => other !== conversation);
  store.deleteConversation(id);
  if (conversation === current) select(newConversation(preferences.settings));
  else refresh();
  notify(`“${titleOf(conversation)}” was deleted.`, {
    label: "Undo",
    run: () => {
      conversations = [...conversations, conversation].sort((a, b) => b.updated - a.updated);
      save(conversation);
      refresh();
    },
  });
}

function settingsChanged() {
  const { seed: _, ...settings } = current.settings;
  // A seed is for one conversation: with it, every new one would give the same answers.
  preferences.settings = { ...settings, seed: null };
  savePreferences();
  composer.showHelp();
  if (conversations.includes(current)) save(current);
}

function save(conversation) {
  // A deleted conversation may still have an answer that ends.
  if (conversations.includes(conversation)) attempt(() => store.saveConversation(conversation));
}

function savePreferences() {
  attempt(() => store.savePreferences(preferences));
}

function attempt(action) {
  try {
    action();
  } catch (error) {
    notify(error.message);
  }
}

function foreignChange(id, conversation) {
  const known = conversations.find((other) => other.id === id);
  if (known && isRunning(known)) return;
  conversations = conversations.filter((other) => other.id !== id);
  if (conversation) conversations = [conversation, ...conversations].sort((a, b) => b.updated - a.updated);
  if (current.id !== id) refresh();
  else display(conversation ?? newConversation(preferences.settings));
}

function exportAll() {
  const name = `moeflux-${new Date().toISOString().slice(0, 10)}.json`;
  const url = URL.createObjectURL(new Blob([exportText(conversations)], { type: "application/json" }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

async function importFile({ target }) {
  const [file] = target.files;
  target.value = "";
  if (!file) return;
  try {
    const imported = importText(await file.text());
    conversations = [...imported, ...conversations].sort((a, b) => b.updated - a.updated);
    imported.forEach(save);
    refresh();
    notify(`Imported ${imported.length} ${imported.length === 1 ? "conversation" : "conversations"}.`);
  } catch (error) {
    notify(error.message);
  }
}

async function loadModels() {
  try {
    models = await listModels();
    showModels();
  } catch (error) {
    if (error.status === 401) {
      if (await askForKey(error.message)) await loadModels();
    } else notify(`No list of models: ${error.message}`, { label: "Try again", run: loadModels });
  }
}

/** The conversation keeps its model if the server still has it, and takes the first one if not. */
function showModels() {
  const select = byId("model");
  select.replaceChildren(...models.map((name) => h("option", { value: name }, name)));
  select.disabled = models.length === 0;
  if (models.length === 0) select.append(h("option", {}, "No model"));
  else if (!models.includes(current.settings.model)) [current.settings.model] = models;
  if (models.length) select.value = current.settings.model;
}
