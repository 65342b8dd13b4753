// Light, dark, or as the system has it.

import { icon } from "./icons.js";

const THEMES = { auto: "half", light: "sun", dark: "moon" };
const KEY = "moeflux.theme";

/** Makes `button` go through the themes. */
export function themeSwitch(button) {
  const show = () => {
    const theme = current();
    button.replaceChildren(icon(THEMES[theme]));
    button.setAttribute("aria-label", `Theme: ${theme}`);
    button.title = `Theme: ${theme}`;
  };
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    apply(names[(names.indexOf(current()) + 1) % names.length]);
    show();
  });
  addEventListener("storage", ({ key }) => {
    if (key !== KEY) return;
    apply(current());
    show();
  });
  show();
}

function current() {
  const theme = localStorage.getItem(KEY);
  return theme in THEMES ? theme : "auto";
}

function apply(theme) {
  localStorage.setItem(KEY, theme);
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
