// Copying, also where the browser gives no clipboard (a page over plain http from another machine).

import { h } from "./dom.js";
import { announce } from "./notices.js";

/** Copies and tells whether it succeeded. */
export async function copyText(text) {
  const copied = await write(text);
  announce(copied ? "Copied." : "Copying failed.");
  return copied;
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const field = h("textarea", { class: "visually-hidden", "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    focused?.focus();
    return copied;
  }
}
