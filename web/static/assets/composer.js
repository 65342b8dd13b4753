// Where prompts are written: keys, earlier prompts, dropped files.

import { byId } from "./dom.js";
import { notify } from "./notices.js";
import { loadPrompts, rememberPrompt } from "./store.js";

const MAX_FILE = 1024 * 1024;

/** `options`: `send(text)`, `stop()`, `enterSends()`. */
export class Composer {
  constructor(options) {
    this.field = byId("prompt");
    this.options = options;
    this.recalled = null;
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    byId("stop").addEventListener("click", options.stop);
    this.field.addEventListener("keydown", (event) => this.key(event));
    this.field.addEventListener("input", () => {
      this.recalled = null;
      this.fit();
    });
    byId("attach").addEventListener("click", () => byId("attach-files").click());
    byId("attach-files").addEventListener("change", ({ target }) => {
      this.addFiles([...target.files]);
      target.value = "";
    });
    this.acceptDrops();
    this.showHelp();
  }

  /** Shows the button that stops instead of the one that sends. */
  setRunning(running) {
    const focused = document.activeElement === byId("stop") || document.activeElement === byId("send");
    byId("send").hidden = running;
    byId("stop").hidden = !running;
    if (focused) byId(running ? "stop" : "send").focus();
  }

  showHelp() {
    byId("prompt-help").textContent = this.options.enterSends()
      ? "Enter sends, Shift+Enter starts a line, Esc stops the answer"
      : "Ctrl+Enter sends, Esc stops the answer";
  }

  submit() {
    const text = this.field.value;
    if (!text.trim() || !this.options.send(text)) return;
    try {
      rememberPrompt(text);
    } catch (error) {
      notify(error.message);
    }
    this.set("");
  }

  set(text) {
    this.field.value = text;
    this.recalled = null;
    this.fit();
  }

  key(event) {
    // While an input method composes a word, Enter and arrows are its own.
    if (event.isComposing) return;
    if (event.key === "Enter") {
      const command = event.ctrlKey || event.metaKey;
      if (command || (this.options.enterSends() && !event.shiftKey)) {
        event.preventDefault();
        this.submit();
      }
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") this.recall(event);
  }

  /** Arrow up in an empty field, or in a prompt that it has brought back. */
  recall(event) {
    if (this.recalled === null && this.field.value !== "") return;
    const prompts = loadPrompts();
    const at = (this.recalled ?? prompts.length) + (event.key === "ArrowUp" ? -1 : 1);
    if (at < 0 || at > prompts.length || (this.recalled === null && event.key === "ArrowDown")) return;
    event.preventDefault();
    this.field.value = prompts[at] ?? "";
    this.recalled = at < prompts.length ? at : null;
    this.fit();
  }

  /** As high as its text; the style sheet limits it. */
  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
  }

  acceptDrops() {
    const hasFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
    const mark = (on) => document.body.classList.toggle("dropping", on);
    addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      mark(true);
    });
    addEventListener("dragleave", (event) => { if (!event.relatedTarget) mark(false); });
    addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      mark(false);
      this.addFiles([...event.dataTransfer.files]);
    });
  }

  async addFiles(files) {
    for (const file of files) {
      const text = await readText(file);
      if (text === null) notify(`${file.name} is no text file of up to 1 MiB.`);
      else this.insert(fenced(file.name, text));
    }
    this.field.focus();
  }

  insert(text) {
    const { value } = this.field;
    this.set(value + (value && !value.endsWith("\n") ? "\n\n" : "") + text);
  }
}

async function readText(file) {
  if (file.size > MAX_FILE) return null;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}

/** A file as a code block, with a fence that its text does not have. */
function fenced(name, text) {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${name}:\n${fence}\n${text.endsWith("\n") ? text : `${text}\n`}${fence}\n`;
}
