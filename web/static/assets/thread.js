// The messages of one conversation, and where it is scrolled to.

import { byId, h } from "./dom.js";
import { AnswerView, userView } from "./message-view.js";

const NEAR = 48;

/** `actions`: `edit(index, text)`, `retry(index)`, where index is the message that is replaced or asked again. */
export class Thread {
  constructor(actions) {
    this.container = byId("thread");
    this.scroller = byId("scroll");
    this.latest = byId("latest");
    this.actions = actions;
    // What was shown once is not made again when a message is added, or when people come back to a conversation.
    this.known = new WeakMap();
    this.follow = true;
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    // Before the browser scrolls: else the next token would pull back whoever has just begun to scroll up.
    this.scroller.addEventListener("wheel", ({ deltaY }) => { if (deltaY < 0) this.setFollow(false); }, { passive: true });
    this.latest.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.keepEnd()).observe(this.scroller);
    new ResizeObserver(() => this.keepEnd()).observe(this.container);
  }

  /** Shows a conversation from its beginning. */
  show({ messages }) {
    this.views = messages.map((message, index) => this.view(message, index));
    for (const view of this.views) view.update?.();
    const empty = h("div", { class: "empty" }, h("h2", {}, "What is on your mind?"),
      h("p", {}, "Everything stays between this browser and your server."));
    this.container.replaceChildren(...(messages.length ? this.views.map(({ element }) => element) : [empty]));
  }

  view(message, index) {
    if (!this.known.has(message)) this.known.set(message, this.newView(message, index));
    return this.known.get(message);
  }

  newView(message, index) {
    const retry = () => this.actions.retry(index);
    if (message.role === "assistant") return new AnswerView(message, { retry });
    return { element: userView(message, { retry, edit: (text) => this.actions.edit(index, text) }) };
  }

  /** Shows what was added to the last answer. */
  updateLast() {
    this.views.at(-1)?.update?.();
  }

  toEnd() {
    this.setFollow(true);
    this.keepEnd();
  }

  keepEnd() {
    if (this.follow) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const goesUp = scrollTop < this.lastTop;
    this.lastTop = scrollTop;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    if (atEnd && !goesUp) this.setFollow(true);
    else if (!atEnd && goesUp) this.setFollow(false);
  }

  setFollow(follow) {
    this.follow = follow;
    this.latest.hidden = follow || this.scroller.scrollHeight <= this.scroller.clientHeight;
  }
}
