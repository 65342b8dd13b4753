// Inline markdown into a tree of nodes: strings, and objects with a `type`. No DOM here, so no way to inject anything.
//
// Nodes: `{type: "code" | "math", text}`, `{type: "strong" | "em" | "del", children}`, `{type: "link", href, children}`,
// `{type: "break"}`. Emphasis follows the delimiter algorithm of CommonMark 0.31. Differences, each since models write so:
// an image is a link to it (nothing is fetched from elsewhere), raw HTML is text (but `<br>`), `\(x\)`, `\[x\]` and `$$x$$`
// keep formulas verbatim.

const MAX_NESTING = 32;
const MAX_DESTINATION = 2000;
const MAX_PARENTHESES = 32;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", "#39": "'" };
const SPECIAL = /[\\`*_~[\]!<&\nh$]/g;

/** Parses the text of one block. */
export function parseInline(text) {
  return new Parser(text).parse();
}

/** The address if a page may link to it (http, https, mailto), else null. */
export function safeAddress(address) {
  try {
    const url = new URL(address);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

class Parser {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.items = [];
    this.brackets = [];
    // Lengths of runs of backticks that nothing closes: each is looked for once, or many of them cost quadratic time.
    this.unclosed = new Set();
  }

  parse() {
    const { text } = this;
    while (this.at < text.length) {
      SPECIAL.lastIndex = this.at;
      const next = SPECIAL.exec(text)?.index ?? text.length;
      this.literal(text.slice(this.at, next));
      this.at = next;
      if (next < text.length && !this.special(text[next])) {
        this.literal(text[next]);
        this.at += 1;
      }
    }
    return finish(resolveEmphasis(this.items));
  }

  literal(text) {
    if (text) this.items.push(text);
  }

  /** Reads what begins at a special character; false if it is just that character. */
  special(char) {
    switch (char) {
      case "\\": return this.backslash();
      case "`": return this.codeSpan();
      case "$": return this.formula("$$", "$$");
      case "*": case "_": case "~": return this.delimiter(char);
      case "!": return this.text[this.at + 1] === "[" && this.openBracket(2);
      case "[": return this.openBracket(1);
      case "]": return this.closeBracket();
      case "<": return this.angle();
      case "&": return this.entity();
      case "h": return this.bareAddress();
      case "\n": return this.lineBreak();
      default: return false;
    }
  }

  push(node, length) {
    this.items.push(node);
    this.at += length;
    return true;
  }

  backslash() {
    const next = this.text[this.at + 1];
    if (next === "(") return this.formula("\\(", "\\)");
    if (next === "[") return this.formula("\\[", "\\]");
    if (next === "\n") return this.push({ type: "break" }, 2);
    return next !== undefined && /[!-/:-@[-`{-~]/.test(next) && !"()[]".includes(next) && this.push(next, 2);
  }

  formula(open, close) {
    if (!this.text.startsWith(open, this.at)) return false;
    if (this.unclosed.has(close)) return false;
    const end = this.text.indexOf(close, this.at + open.length);
    if (end < 0) this.unclosed.add(close);
    if (end <= this.at + open.length) return false;
    const text = this.text.slice(this.at + open.length, end).trim();
    return this.push({ type: "math", text }, end + close.length - this.at);
  }

  codeSpan() {
    const run = runLength(this.text, this.at);
    const ticks = "`".repeat(run);
    if (!this.unclosed.has(run)) {
      for (let end = this.text.indexOf(ticks, this.at + run); end >= 0;) {
        const length = runLength(this.text, end);
        if (length === run) {
          const text = this.text.slice(this.at + run, end).replaceAll("\n", " ");
          const padded = text.startsWith(" ") && text.endsWith(" ") && text.trim() !== "";
          return this.push({ type: "code", text: padded ? text.slice(1, -1) : text }, end + run - this.at);
        }
        end = this.text.indexOf(ticks, end + length);
      }
      this.unclosed.add(run);
    }
    return this.push(ticks, run);
  }

  delimiter(char) {
    const count = runLength(this.text, this.at);
    if (char === "~" && count !== 2) return this.push(char.repeat(count), count);
    const before = this.text[this.at - 1] ?? " ";
    const after = this.text[this.at + count] ?? " ";
    const left = !isSpace(after) && (!isPunctuation(after) || isSpace(before) || isPunctuation(before));
    const right = !isSpace(before) && (!isPunctuation(before) || isSpace(after) || isPunctuation(after));
    const inWord = char === "_";
    const canOpen = left && (!inWord || !right || isPunctuation(before));
    const canClose = right && (!inWord || !left || isPunctuation(after));
    return this.push({ type: "delimiter", char, count, length: count, canOpen, canClose }, count);
  }

  openBracket(length) {
    this.brackets.push(this.items.length);
    return this.push(this.text.slice(this.at, this.at + length), length);
  }

  closeBracket() {
    const open = this.brackets.pop();
    if (open === undefined || this.text[this.at + 1] !== "(") return false;
    const target = readDestination(this.text, this.at + 2);
    if (!target) return false;
    const children = finish(resolveEmphasis(this.items.splice(open).slice(1))).flatMap(withoutLinks);
    const href = safeAddress(target.address);
    const shown = children.length ? children : [target.address];
    this.items.push(...(href ? [{ type: "link", href, children: shown }] : shown));
    this.at = target.end;
    return true;
  }

  angle() {
    const match = /^<([a-z]+:[^\s<>]{1,2000}|br ?\/?)>/i.exec(this.text.slice(this.at, this.at + MAX_DESTINATION));
    if (!match) return false;
    if (/^br/i.test(match[1]) && !match[1].includes(":")) return this.push({ type: "break" }, match[0].length);
    const href = safeAddress(match[1]);
    return href !== null && this.push({ type: "link", href, children: [match[1]] }, match[0].length);
  }

  entity() {
    const match = /^&(#39|[a-z]{2,4});/.exec(this.text.slice(this.at, this.at + 6));
    const char = match && ENTITIES[match[1]];
    return Boolean(char) && this.push(char, match[0].length);
  }

  bareAddress() {
    if (/[\p{L}\p{N}]/u.test(this.text[this.at - 1] ?? " ")) return false;
    const match = /^https?:\/\/[^\s<>"`*|\\]+/.exec(this.text.slice(this.at, this.at + MAX_DESTINATION));
    if (!match) return false;
    const address = withoutTail(match[0]);
    const href = safeAddress(address);
    return href !== null && this.push({ type: "link", href, children: [address] }, address.length);
  }

  lineBreak() {
    const last = this.items.at(-1);
    const hard = typeof last === "string" && last.endsWith("  ");
    if (typeof last === "string") this.items[this.items.length - 1] = last.trimEnd();
    this.push(hard ? { type: "break" } : "\n", 1);
    while (this.text[this.at] === " ") this.at += 1;
    return true;
  }
}

/** Pairs delimiters into `em`, `strong` and `del`. */
function resolveEmphasis(items) {
  const bottom = new Map();
  for (let close = 0; close < items.length; close += 1) {
    const closer = items[close];
    if (closer.type !== "delimiter" || !closer.canClose || closer.count === 0) continue;
    const key = `${closer.char}${closer.canOpen}${closer.length % 3}`;
    const open = findOpener(items, close, bottom.get(key) ?? 0);
    if (open < 0) {
      // Nothing before here can open for such a closer, so later ones need not look there again.
      bottom.set(key, close);
      continue;
    }
    const opener = items[open];
    const used = closer.char === "~" || (opener.count >= 2 && closer.count >= 2) ? 2 : 1;
    const children = finish(items.slice(open + 1, close));
    const nesting = 1 + Math.max(0, ...children.map((child) => child.nesting ?? 0));
    const type = closer.char === "~" ? "del" : used === 2 ? "strong" : "em";
    opener.count -= used;
    closer.count -= used;
    const inner = nesting > MAX_NESTING ? children : [{ type, children, nesting }];
    items.splice(open + 1, close - open - 1, ...inner);
    for (const [k, index] of bottom) if (index > open) bottom.set(k, open + 1);
    // The closer stands behind what was put in; it is looked at again while it has marks left.
    close = open + inner.length + (closer.count > 0 ? 0 : 1);
  }
  return items;
}

function findOpener(items, close, bottom) {
  const closer = items[close];
  for (let at = close - 1; at >= bottom; at -= 1) {
    const opener = items[at];
    if (opener.type !== "delimiter" || opener.char !== closer.char || !opener.canOpen || opener.count === 0) continue;
    const either = opener.canClose || closer.canOpen;
    const thirds = (opener.length + closer.length) % 3 === 0 && (opener.length % 3 !== 0 || closer.length % 3 !== 0);
    if (!either || !thirds) return at;
  }
  return -1;
}

/** Delimiters that found no partner become text, and neighbouring texts one. */
function finish(items) {
  const nodes = [];
  for (const item of items) {
    const node = item.type === "delimiter" ? item.char.repeat(item.count) : item;
    if (node === "") continue;
    if (typeof node === "string" && typeof nodes.at(-1) === "string") nodes[nodes.length - 1] += node;
    else nodes.push(node);
  }
  return nodes;
}

function withoutLinks(node) {
  if (node.type === "link") return node.children;
  return node.children ? [{ ...node, children: node.children.flatMap(withoutLinks) }] : [node];
}

/** `address "title")` from `at` on, with balanced parentheses in the address. */
function readDestination(text, at) {
  const rest = text.slice(at, at + MAX_DESTINATION);
  const angled = /^\s*<([^<>\n]*)>/.exec(rest);
  let length = angled?.[0].length ?? /^\s*/.exec(rest)[0].length;
  let address = angled?.[1] ?? "";
  if (!angled) {
    let depth = 0;
    for (; length < rest.length && !/\s/.test(rest[length]); length += 1) {
      if (rest[length] === "(" && ++depth > MAX_PARENTHESES) return null;
      if (rest[length] === ")" && depth-- === 0) break;
    }
    address = rest.slice(0, length).trimStart();
  }
  const end = /^(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(rest.slice(length));
  return end && { address, end: at + length + end[0].length };
}

/** A bare address without the punctuation of the sentence around it. */
function withoutTail(address) {
  let end = address.length;
  for (; end > 0; end -= 1) {
    const last = address[end - 1];
    const opened = last === ")" && address.slice(0, end).split("(").length >= address.slice(0, end).split(")").length;
    if (!".,;:!?'_)]".includes(last) || opened) break;
  }
  return address.slice(0, end);
}

function runLength(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

const isSpace = (char) => /\s/.test(char);
const isPunctuation = (char) => /[\p{P}\p{S}]/u.test(char);
