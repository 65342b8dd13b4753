// A panel at the side: beside the page where there is room, over it where there is none.

const NARROW = matchMedia("(max-width: 60rem)");

/**
 * Opens and closes `panel`. On a narrow screen it lies over the page, takes the focus and leaves at Escape; `wideOpen`
 * says whether it is there from the start on a wide one.
 */
export function drawer(panel, opener, closer, wideOpen) {
  const set = (open, moveFocus) => {
    panel.classList.toggle("open", open);
    panel.inert = !open;
    opener.setAttribute("aria-expanded", String(open));
    if (!moveFocus) return;
    // Not the first field: on a phone that would bring up the keyboard.
    (open ? closer : opener).focus();
  };
  const isOpen = () => panel.classList.contains("open");
  opener.addEventListener("click", () => set(!isOpen(), true));
  closer.addEventListener("click", () => set(false, true));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !isOpen() || !(NARROW.matches || panel.contains(event.target))) return;
    event.stopImmediatePropagation();
    set(false, true);
  }, true);
  document.addEventListener("pointerdown", ({ target }) => {
    if (NARROW.matches && isOpen() && !panel.contains(target) && !opener.contains(target)) set(false, false);
  });
  NARROW.addEventListener("change", () => set(wideOpen && !NARROW.matches, false));
  set(wideOpen && !NARROW.matches, false);
  return { close: () => { if (NARROW.matches) set(false, false); } };
}
