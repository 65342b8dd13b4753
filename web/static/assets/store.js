// What this browser keeps: conversations, preferences, prompts. One entry a conversation, so that a save is small.

import { DEFAULT_SETTINGS } from "./conversation.js";

const PREFIX = "moeflux.conversation.";
const PREFERENCES = "moeflux.preferences";
const PROMPTS = "moeflux.prompts";
const MAX_PROMPTS = 100;
const DEFAULT_PREFERENCES = { enterSends: true, last: null, settings: DEFAULT_SETTINGS };

/** All conversations, the latest first. */
export function loadConversations() {
  return Object.keys(localStorage)
    .filter((key) => key.startsWith(PREFIX))
    .map((key) => read(key, null))
    .filter((conversation) => Array.isArray(conversation?.messages))
    .sort((a, b) => b.updated - a.updated);
}

export function loadConversation(id) {
  return read(PREFIX + id, null);
}

/** Saves; throws if the browser's space is used up. */
export function saveConversation(conversation) {
  write(PREFIX + conversation.id, conversation);
}

export function deleteConversation(id) {
  localStorage.removeItem(PREFIX + id);
}

export function loadPreferences() {
  const saved = read(PREFERENCES, {});
  return { ...DEFAULT_PREFERENCES, ...saved, settings: { ...DEFAULT_SETTINGS, ...saved.settings } };
}

export function savePreferences(preferences) {
  write(PREFERENCES, preferences);
}

export function loadPrompts() {
  return read(PROMPTS, []);
}

/** Adds to the prompts that arrow up brings back. */
export function rememberPrompt(prompt) {
  const prompts = loadPrompts().filter((other) => other !== prompt);
  write(PROMPTS, [...prompts, prompt].slice(-MAX_PROMPTS));
}

/** Tells when another tab changed or deleted (`null`) a conversation. */
export function onForeignChange(changed) {
  addEventListener("storage", ({ key, newValue }) => {
    if (key?.startsWith(PREFIX)) changed(key.slice(PREFIX.length), newValue === null ? null : loadConversation(key.slice(PREFIX.length)));
  });
}

function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    throw new Error("This browser's space for conversations is used up: export and delete some.");
  }
}
