// What the page says besides the conversation: short notices on screen, and words for screen readers alone.

import { byId, h } from "./dom.js";

const SHOWN = 6000;

/** Shows a notice, with a button if `action` (`{label, run}`) is given. Screen readers read it. */
export function notify(text, action = null) {
  const close = () => notice.remove();
  const button = action && h("button", { type: "button", class: "plain", onclick: () => { close(); action.run(); } }, action.label);
  const notice = h("div", { class: "toast" }, h("span", {}, text), button);
  byId("toasts").append(notice);
  // A button must stay within reach of whoever is on the way to it.
  const expire = () => (notice.matches(":hover, :focus-within") ? setTimeout(expire, SHOWN) : close());
  setTimeout(expire, SHOWN);
}

/** Says something to screen readers: events, never the tokens of an answer. */
export function announce(text) {
  byId("announcer").textContent = text;
}
