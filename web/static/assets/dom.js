// Making elements. Text goes in as text nodes: nothing in this page parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Attributes: functions become listeners (`onclick`), `true` an empty attribute, `false`, `null` and
 * `undefined` nothing. Children: nodes, strings; empty ones are left out.
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** The element with this id, which the page's HTML has. */
export function byId(id) {
  return document.getElementById(id);
}
