// Asks for the API key when the server wants one.

import { byId } from "./dom.js";
import { apiKey } from "./server.js";

let asking = null;

/** Resolves to whether a key was given. However many requests ask, there is one dialog. */
export function askForKey(message) {
  asking ??= show(message).finally(() => { asking = null; });
  return asking;
}

function show(message) {
  const dialog = byId("key-dialog");
  const field = byId("key");
  if (message) byId("key-message").textContent = `${message} The key is kept until this tab is closed.`;
  field.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    byId("key-cancel").onclick = () => dialog.close();
    dialog.querySelector("form").onsubmit = () => apiKey.set(field.value.trim());
    dialog.onclose = () => {
      resolve(field.value.trim() !== "" && apiKey.get() === field.value.trim());
      field.value = "";
    };
  });
}
