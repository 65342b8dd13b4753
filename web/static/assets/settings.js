// The panel of settings: of the current conversation, and of this browser.

import { byId, h } from "./dom.js";

const NUMBERS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, help: "0 always takes the likeliest token." },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.01, help: "Likeliest tokens up to this probability together." },
  { name: "top_k", label: "Top k", min: 0, step: 1, help: "So many of the likeliest tokens; 0 for all." },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01, help: "Tokens at least so likely, beside the likeliest." },
  { name: "max_tokens", label: "Most tokens", min: 1, step: 1, help: "Length of an answer, thoughts included." },
  { name: "seed", label: "Seed", min: 0, step: 1, help: "The same seed gives the same answer again." },
];

/** `changed()` is called after each change; `preferences.enterSends` is one of them. */
export class SettingsPanel {
  constructor(preferences, changed) {
    this.changed = changed;
    this.system = h("textarea", { id: "setting-system", rows: 4, placeholder: "None" });
    this.system.addEventListener("input", () => this.set("system", this.system.value));
    this.thinking = h("select", { id: "setting-thinking" },
      h("option", { value: "" }, "As the model likes"), h("option", { value: "on" }, "On"), h("option", { value: "off" }, "Off"));
    this.thinking.addEventListener("change", () => this.set("thinking", { on: true, off: false }[this.thinking.value] ?? null));
    this.numbers = NUMBERS.map((option) => this.number(option));
    const enter = h("select", { id: "setting-enter" }, h("option", { value: "enter" }, "Enter"), h("option", { value: "command" }, "Ctrl or ⌘ + Enter"));
    enter.value = preferences.enterSends ? "enter" : "command";
    enter.addEventListener("change", () => {
      preferences.enterSends = enter.value === "enter";
      changed();
    });
    byId("settings-form").append(
      h("p", { class: "hint" }, "For this conversation and new ones. What is empty, the model decides."),
      field("setting-system", "System prompt", this.system),
      field("setting-thinking", "Thinking", this.thinking),
      h("div", { class: "grid" }, ...this.numbers.map(({ element }) => element)),
      h("button", { type: "button", class: "wide", onclick: () => this.reset() }, "Reset sampling"),
      h("hr"),
      field("setting-enter", "A prompt is sent by", enter));
    byId("settings-form").addEventListener("submit", (event) => event.preventDefault());
  }

  number({ name, label, help, ...limits }) {
    const id = `setting-${name}`;
    const error = h("p", { id: `${id}-error`, class: "field-error", hidden: true });
    const input = h("input", { id, type: "number", ...limits, placeholder: "default", "aria-describedby": `${id}-help ${id}-error` });
    input.addEventListener("input", () => {
      const valid = input.checkValidity() || input.validity.stepMismatch && limits.step !== 1;
      error.hidden = valid;
      error.textContent = valid ? "" : `${input.validationMessage} It is not used.`;
      input.setAttribute("aria-invalid", String(!valid));
      this.set(name, valid && input.value !== "" ? input.valueAsNumber : null);
    });
    const element = field(id, label, input, h("p", { id: `${id}-help`, class: "hint" }, help), error);
    return { name, input, error, element };
  }

  /** Shows the settings of a conversation and changes them from now on. */
  show(settings) {
    this.settings = settings;
    this.system.value = settings.system;
    this.thinking.value = settings.thinking === null ? "" : settings.thinking ? "on" : "off";
    for (const { name, input, error } of this.numbers) {
      input.value = settings[name] ?? "";
      input.removeAttribute("aria-invalid");
      error.hidden = true;
    }
  }

  set(name, value) {
    this.settings[name] = value;
    this.changed();
  }

  reset() {
    for (const { name } of this.numbers) this.settings[name] = null;
    this.show(this.settings);
    this.changed();
  }
}

function field(id, label, ...parts) {
  return h("div", { class: "setting" }, h("label", { for: id }, label), ...parts);
}
