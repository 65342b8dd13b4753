// The list of conversations in the sidebar.

import { titleOf } from "./conversation.js";
import { byId, h } from "./dom.js";
import { icon } from "./icons.js";

/** `actions`: `open(id)`, `rename(id, title)`, `remove(id)`, `isRunning(conversation)`. */
export class ConversationList {
  constructor(actions) {
    this.list = byId("conversations");
    this.actions = actions;
  }

  show(conversations, current) {
    // A list that is drawn anew under the keyboard would lose its place.
    const focused = this.list.contains(document.activeElement) && document.activeElement;
    if (focused?.tagName === "INPUT") return;
    const [id, kind] = [focused?.closest?.("li")?.dataset.id, focused?.dataset?.kind];
    this.list.replaceChildren(...conversations.map((conversation) => this.entry(conversation, current)));
    if (id) this.list.querySelector(`[data-id="${CSS.escape(id)}"] [data-kind="${kind}"]`)?.focus();
  }

  entry(conversation, current) {
    const title = titleOf(conversation);
    const open = h("button", {
      type: "button", class: "open", "data-kind": "open", "aria-current": conversation.id === current ? "true" : null,
      onclick: () => this.actions.open(conversation.id),
    }, h("span", {}, title), this.actions.isRunning(conversation) ? h("span", { class: "dot", role: "img", "aria-label": "answering" }) : null);
    const act = (name, label, action) => h("button", {
      type: "button", class: "plain small", "data-kind": name, "aria-label": `${label} ${title}`, title: label, onclick: action,
    }, icon(name));
    const entry = h("li", { "data-id": conversation.id }, open,
      act("edit", "Rename", () => this.rename(entry, conversation, title)),
      act("trash", "Delete", () => this.actions.remove(conversation.id)));
    return entry;
  }

  rename(entry, conversation, title) {
    const before = [...entry.childNodes];
    const input = h("input", { type: "text", "aria-label": "Name of the conversation", maxlength: 200 });
    input.value = title;
    const done = (save) => {
      // Putting the entry back takes the focus from the field, which would come here again.
      input.onblur = null;
      entry.replaceChildren(...before);
      entry.querySelector("[data-kind=edit]").focus();
      if (save && input.value.trim() !== title) this.actions.rename(conversation.id, input.value.trim());
    };
    input.onblur = () => done(true);
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.stopPropagation();
      done(event.key === "Enter");
    });
    entry.replaceChildren(input);
    input.select();
  }
}
