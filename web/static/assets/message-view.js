// One message of the thread.

import { thinkingSeconds, tokensPerSecond } from "./answer.js";
import { copyText } from "./clipboard.js";
import { h } from "./dom.js";
import { count, decimal, percent, seconds } from "./format.js";
import { icon } from "./icons.js";
import { MarkdownView } from "./markdown/render.js";

const FINISH = {
  stopped: "Stopped.",
  length: "The answer ended at the limit of tokens.",
  content_filter: "The answer was cut off by a filter.",
};

/** A message of the user. `actions`: `edit(text)`, `retry()`. */
export function userView(message, actions) {
  const text = h("div", { class: "bubble", dir: "auto" }, message.content);
  const buttons = h("div", { class: "actions" },
    button("copy", "Copy message", () => copyText(message.content)),
    button("edit", "Edit and send again", () => editor(element, message.content, actions.edit)),
    button("retry", "Send again", actions.retry));
  const element = h("article", { class: "message user", "aria-label": "You" }, text, buttons);
  return element;
}

function editor(element, content, done) {
  const before = [...element.childNodes];
  const field = h("textarea", { "aria-label": "Edit message", rows: Math.min(12, content.split("\n").length + 1) });
  field.value = content;
  const cancel = () => {
    element.replaceChildren(...before);
    element.querySelector("[aria-label^=Edit]").focus();
  };
  const send = () => field.value.trim() && done(field.value);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
  });
  element.replaceChildren(h("div", { class: "editor" }, field,
    h("p", { class: "hint" }, "What follows this message is replaced."),
    h("div", { class: "dialog-actions" },
      h("button", { type: "button", class: "plain", onclick: cancel }, "Cancel"),
      h("button", { type: "button", class: "primary", onclick: send }, "Send"))));
  field.focus();
}

/** An answer, which may still grow: `update` shows its present state. */
export class AnswerView {
  /** `actions`: `retry()`, asks again. */
  constructor(answer, actions) {
    this.answer = answer;
    this.summary = h("summary", {});
    this.thought = h("div", { class: "markdown thought" });
    this.thinking = h("details", { class: "thinking", hidden: true }, this.summary, this.thought);
    this.content = h("div", { class: "markdown" });
    this.calls = h("div", { class: "calls" });
    this.problem = h("div", { class: "problem", hidden: true });
    this.meta = h("p", { class: "meta" });
    this.actions = h("div", { class: "actions", hidden: true },
      button("copy", "Copy answer", () => copyText(answer.content)),
      button("retry", "Answer again", actions.retry));
    this.foot = h("div", { class: "foot" }, this.actions, this.meta);
    this.element = h("article", { class: "message assistant", "aria-label": "Answer" },
      this.thinking, this.content, this.calls, this.problem, this.foot);
    this.thoughtView = new MarkdownView(this.thought, copyText);
    this.contentView = new MarkdownView(this.content, copyText);
    this.thinking.addEventListener("toggle", () => this.showThought());
    this.retry = actions.retry;
    this.update();
  }

  update(now = Date.now()) {
    const { answer, element } = this;
    const running = answer.finish === null;
    element.setAttribute("aria-busy", String(running));
    element.classList.toggle("waiting", running && !answer.reasoning && !answer.content && !answer.toolCalls.length);
    this.showThinking(now);
    this.contentView.update(answer.content);
    this.showCalls();
    this.showProblem();
    this.actions.hidden = running;
    this.meta.textContent = describe(answer, now);
  }

  showThinking(now) {
    const { answer } = this;
    this.thinking.hidden = !answer.reasoning;
    if (!answer.reasoning) return;
    const active = answer.finish === null && answer.stats.thinkingEnded === null;
    const spent = thinkingSeconds(answer, now);
    const time = spent === null ? "" : active ? ` ${Math.floor(spent)} s` : ` for ${seconds(spent)}`;
    this.thinking.classList.toggle("active", active);
    this.summary.textContent = active ? `Thinking…${time}` : `Thought${time}`;
    this.showThought();
  }

  /** Folded, it costs nothing. */
  showThought() {
    if (this.thinking.open) this.thoughtView.update(this.answer.reasoning);
  }

  /** Calls grow in place: whoever has opened one keeps it open. */
  showCalls() {
    this.answer.toolCalls.forEach((call, index) => {
      const element = this.calls.children[index] ?? this.calls.appendChild(toolCall());
      const [name, given] = element.querySelectorAll("code");
      name.textContent = call.name || "a tool";
      given.textContent = pretty(call.arguments);
    });
  }

  showProblem() {
    const { error, finish } = this.answer;
    const note = error ? error.message : FINISH[finish];
    this.problem.hidden = !note;
    if (!note || this.shownNote === note) return;
    this.shownNote = note;
    this.problem.classList.toggle("error", Boolean(error));
    const wait = error?.retryAfter ? ` The server asks to wait ${seconds(error.retryAfter)}.` : "";
    const kind = error && error.kind !== "network" && h("code", {}, error.status ? `${error.status} ${error.kind}` : error.kind);
    this.problem.replaceChildren(
      h("p", {}, `${note}${wait}`, kind && " ", kind || null),
      ...(error ? [h("button", { type: "button", onclick: this.retry }, icon("retry"), "Try again")] : []));
  }
}

function describe(answer, now) {
  const { stats } = answer;
  if (!stats) return answer.model ?? "";
  if (stats.first === null && answer.finish === null) {
    const waited = Math.floor((now - stats.started) / 1000);
    return waited < 2 ? "" : `Reading the prompt… ${waited} s`;
  }
  const rate = tokensPerSecond(answer, now);
  const cached = stats.cachedTokens ? `, ${count(stats.cachedTokens)} cached` : "";
  return [
    rate !== null && `${decimal(rate)} tokens/s`,
    stats.tokens !== null && `${count(stats.tokens)} tokens`,
    stats.first !== null && `first after ${seconds((stats.first - stats.started) / 1000)}`,
    stats.promptTokens !== null && `prompt ${count(stats.promptTokens)}${cached}`,
    stats.first !== null && stats.hitRate !== null && `expert hits ${percent(stats.hitRate)}`,
  ].filter(Boolean).join(" · ");
}

function toolCall() {
  return h("details", { class: "call" }, h("summary", {}, "Calls ", h("code")), h("pre", { tabindex: "0" }, h("code")));
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function button(name, label, action) {
  return h("button", { type: "button", class: "plain small", "aria-label": label, title: label, onclick: action }, icon(name));
}
