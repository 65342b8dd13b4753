// Markdown as elements, growing with its text.

import { h } from "../dom.js";
import { parseBlocks } from "./blocks.js";
import { parseInline } from "./inline.js";

/** Shows a text that is written while it is read: only blocks that may still change are made anew. */
export class MarkdownView {
  /** `copy(text)` is called by the button of a code block and tells whether it succeeded. */
  constructor(container, copy) {
    this.container = container;
    this.copy = copy;
    this.clear();
  }

  clear() {
    this.container.replaceChildren();
    this.text = "";
    this.settled = 0;
    this.open = [];
  }

  /** Shows `text`; cheap if it begins with what was shown before. */
  update(text) {
    if (text === this.text) return;
    if (!text.startsWith(this.text)) this.clear();
    this.text = text;
    const raw = text.slice(this.settled).split("\n");
    const blocks = parseBlocks(raw.map(normalize));
    const shown = blocks.map((block, index) => this.show(block, raw, blocks[index + 1], this.open[index]));
    for (const { node } of this.open.slice(shown.length)) node.remove();
    const settled = countSettled(blocks, raw.length - 1);
    if (settled > 0) {
      for (const line of raw.slice(0, blocks[settled].line)) this.settled += line.length + 1;
    }
    this.open = shown.slice(settled);
  }

  show(block, raw, next, old) {
    const source = raw.slice(block.line, next?.line).join("\n");
    if (old?.source === source) return old;
    // A code block grows in place: whoever selects text in it, or has the focus on its button, keeps that.
    if (old && block.type === "code" && old.block.type === "code" && old.block.language === block.language) {
      const code = old.node.querySelector("code").firstChild;
      if (block.text.startsWith(code.data)) code.appendData(block.text.slice(code.data.length));
      else code.data = block.text;
      return { block, source, node: old.node };
    }
    const node = renderBlock(block, this.copy);
    if (old) old.node.replaceWith(node);
    else this.container.append(node);
    return { block, source, node };
  }
}

/**
 * How many blocks no further text can change: those before a block of which two lines are whole (the first line of a
 * table looks like a paragraph, the first characters of a list item too).
 */
function countSettled(blocks, wholeLines) {
  const open = blocks.findLastIndex((block) => block.line + 1 < wholeLines);
  return Math.max(0, open);
}

function normalize(line) {
  const text = line.endsWith("\r") ? line.slice(0, -1) : line;
  return text.replace(/^[ \t]+/, (indent) => indent.replaceAll("\t", "    "));
}

function renderBlock(block, copy) {
  switch (block.type) {
    case "heading": return h(`h${Math.min(6, block.level + 1)}`, {}, ...renderInline(block.text));
    case "code": return renderCode(block, copy);
    case "quote": return h("blockquote", {}, ...block.blocks.map((inner) => renderBlock(inner, copy)));
    case "list": return renderList(block, copy);
    case "table": return renderTable(block);
    case "rule": return h("hr");
    default: return h("p", { dir: "auto" }, ...renderInline(block.text));
  }
}

function renderCode({ language, text }, copy) {
  const code = h("code");
  code.append(document.createTextNode(text));
  const button = h("button", { type: "button", class: "copy", onclick: () => copyCode() }, "Copy");
  async function copyCode() {
    button.textContent = await copy(code.textContent) ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }
  const label = h("span", { class: "language" }, language || "text");
  // A region that scrolls has to be reachable by keyboard.
  const scroll = h("pre", { tabindex: "0", role: "region", "aria-label": `Code, ${language || "text"}` }, code);
  return h("div", { class: "code" }, h("div", { class: "code-head" }, label, button), scroll);
}

function renderList({ ordered, start, tight, items }, copy) {
  const list = items.map(({ blocks, checked }) => {
    const content = blocks.flatMap((block) => tight && block.type === "paragraph"
      ? renderInline(block.text)
      : [renderBlock(block, copy)]);
    if (checked === null) return h("li", { dir: "auto" }, ...content);
    const box = h("input", { type: "checkbox", disabled: true, checked, "aria-label": checked ? "done" : "to do" });
    return h("li", { dir: "auto", class: "task" }, box, " ", ...content);
  });
  return ordered ? h("ol", { start: start === 1 ? null : start }, ...list) : h("ul", {}, ...list);
}

function renderTable({ align, head, rows }) {
  const cell = (tag, attributes) => (text, column) => {
    const side = align[column] ? `align-${align[column]}` : null;
    return h(tag, { ...attributes, class: side }, ...renderInline(text));
  };
  const table = h("table", {},
    h("thead", {}, h("tr", {}, ...head.map(cell("th", { scope: "col" })))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map(cell("td", {}))))));
  return h("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, table);
}

function renderInline(text) {
  return parseInline(text).map(renderNode);
}

function renderNode(node) {
  if (typeof node === "string") return node;
  switch (node.type) {
    case "code": return h("code", {}, node.text);
    case "math": return h("code", { class: "math" }, node.text);
    case "break": return h("br");
    case "link": {
      const attributes = { href: node.href, rel: "noopener noreferrer", target: "_blank" };
      return h("a", attributes, ...node.children.map(renderNode));
    }
    default: return h(node.type, {}, ...node.children.map(renderNode));
  }
}
