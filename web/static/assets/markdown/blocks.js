// Blocks of markdown: lines into a tree. No DOM here.
//
// Blocks, each with `line`, where it begins: `{type: "heading", level, text}`, `{type: "paragraph", text}`,
// `{type: "code", language, text}`, `{type: "quote", blocks}`, `{type: "list", ordered, start, tight, items}` with items
// `{blocks, checked}`, `{type: "table", align, head, rows}`, `{type: "rule"}`.
//
// GitHub's flavour, with three differences that suit text which arrives word by word: indentation alone makes no code
// block, lists nest from two columns on, and `---` under a paragraph is a rule (a paragraph that was shown does not turn
// into a heading).

const MAX_DEPTH = 16;
const FENCE = /^(\s*)(`{3,}|~{3,})([^`]*)$/;
const MARKER = /^(\s*)([-*+]|\d{1,9}[.)])(?:(\s+)(\S.*)|\s*)$/;
const RULE = /^\s*(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const HEADING = /^ {0,3}(#{1,6})(?=\s|$)/;
const QUOTE = /^ {0,3}> ?/;

/** Parses lines (without their line ends). */
export function parseBlocks(lines, depth = 0) {
  const blocks = [];
  for (let at = 0; at < lines.length;) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const [block, next] = readBlock(lines, at, depth);
    blocks.push({ ...block, line: at });
    at = next;
  }
  return blocks;
}

function readBlock(lines, at, depth) {
  const nested = depth < MAX_DEPTH;
  return readFence(lines, at)
    ?? readHeading(lines, at)
    ?? (RULE.test(lines[at]) ? [{ type: "rule" }, at + 1] : null)
    ?? (nested ? readQuote(lines, at, depth) ?? readList(lines, at, depth) : null)
    ?? readTable(lines, at)
    ?? readParagraph(lines, at, depth);
}

function readFence(lines, at) {
  const open = FENCE.exec(lines[at]);
  if (!open) return null;
  const [, indent, ticks, info] = open;
  let end = at + 1;
  while (end < lines.length && !closes(lines[end], ticks)) end += 1;
  const text = lines.slice(at + 1, end).map((line) => dedent(line, indent.length)).join("\n");
  return [{ type: "code", language: info.trim().split(/\s/)[0], text }, end + 1];
}

function closes(line, ticks) {
  const trimmed = line.trim();
  return trimmed.length >= ticks.length && trimmed === ticks[0].repeat(trimmed.length);
}

function readHeading(lines, at) {
  const marks = HEADING.exec(lines[at]);
  if (!marks) return null;
  let text = lines[at].slice(marks[0].length).trim();
  let end = text.length;
  while (text[end - 1] === "#") end -= 1;
  if (end === 0 || text[end - 1] === " ") text = text.slice(0, end).trim();
  return [{ type: "heading", level: marks[1].length, text }, at + 1];
}

function readQuote(lines, at, depth) {
  if (!QUOTE.test(lines[at])) return null;
  const inner = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    if (QUOTE.test(lines[end])) inner.push(lines[end].replace(QUOTE, ""));
    else if (continuesLazily(lines, end) && !isBlank(inner.at(-1))) inner.push(lines[end]);
    else break;
  }
  return [{ type: "quote", blocks: parseBlocks(inner, depth + 1) }, end];
}

function readList(lines, at, depth) {
  const first = readMarker(lines[at]);
  if (!first) return null;
  const items = [];
  let loose = false;
  let end = at;
  while (end < lines.length) {
    const marker = readMarker(lines[end]);
    if (!marker || marker.kind !== first.kind || marker.indent >= first.indent + 2) break;
    const item = readItem(lines, end, marker, depth);
    items.push(item);
    const next = skipBlank(lines, item.end);
    const follows = next < lines.length && readMarker(lines[next])?.kind === first.kind;
    loose ||= item.loose || (follows && next > item.end);
    end = follows ? next : item.end;
  }
  const start = Number.parseInt(first.mark, 10);
  const ordered = !Number.isNaN(start);
  const content = items.map(({ blocks, checked }) => ({ blocks, checked }));
  return [{ type: "list", ordered, start: ordered ? start : 1, tight: !loose, items: content }, end];
}

function readItem(lines, at, marker, depth) {
  const task = /^\[([ xX])\] (.*)$/.exec(marker.text);
  const inner = [task ? task[2] : marker.text];
  let end = at + 1;
  // Behind an open line only: blank lines at the end belong to what follows the list.
  let last = end;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    if (isBlank(line)) inner.push("");
    else if (indentOf(line) >= marker.indent + 2) inner.push(dedent(line, marker.content));
    else if (!isBlank(inner.at(-1)) && continuesLazily(lines, end)) inner.push(line);
    else break;
    if (!isBlank(line)) last = end + 1;
  }
  const blocks = parseBlocks(inner.slice(0, last - at), depth + 1);
  const loose = blocks.filter((block) => block.type === "paragraph").length > 1;
  return { blocks, checked: task ? task[1] !== " " : null, loose, end: last };
}

function readMarker(line) {
  const match = MARKER.exec(line);
  if (!match || RULE.test(line)) return null;
  const [, indent, mark, space = " ", text = ""] = match;
  // More than four columns behind a mark are the text's own indentation.
  const gap = space.length > 4 ? 1 : space.length;
  return { indent: indent.length, mark, kind: mark.at(-1), content: indent.length + mark.length + gap, text };
}

function readTable(lines, at) {
  if (!startsTable(lines, at)) return null;
  const head = cells(lines[at]);
  const align = cells(lines[at + 1]).map((cell) => {
    if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "right";
    return cell.startsWith(":") ? "left" : null;
  });
  const rows = [];
  let end = at + 2;
  for (; end < lines.length && !isBlank(lines[end]) && !interrupts(lines[end]); end += 1) {
    const row = cells(lines[end]);
    rows.push(head.map((_, column) => row[column] ?? ""));
  }
  return [{ type: "table", align, head, rows }, end];
}

function startsTable(lines, at) {
  if (at + 1 >= lines.length || !lines[at].includes("|") || !lines[at + 1].includes("-")) return false;
  const delimiters = cells(lines[at + 1]);
  return delimiters.every((cell) => /^:?-+:?$/.test(cell)) && delimiters.length === cells(lines[at]).length;
}

function cells(line) {
  let row = line.trim();
  if (row.startsWith("|")) row = row.slice(1);
  if (row.endsWith("|") && !row.endsWith("\\|")) row = row.slice(0, -1);
  return row.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function readParagraph(lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && !isBlank(lines[end]) && (depth >= MAX_DEPTH || !interrupts(lines[end]))
    && !startsTable(lines, end)) end += 1;
  const text = lines.slice(at, end).map((line) => line.trimStart()).join("\n").trimEnd();
  return [{ type: "paragraph", text }, end];
}

/** Whether a line ends the paragraph before it. A list does only if it has text, and numbers only from 1. */
function interrupts(line) {
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  const marker = readMarker(line);
  return marker !== null && marker.text !== "" && (!/\d/.test(marker.mark) || Number.parseInt(marker.mark, 10) === 1);
}

function continuesLazily(lines, at) {
  return !isBlank(lines[at]) && !interrupts(lines[at]) && !readMarker(lines[at]) && !startsTable(lines, at);
}

function skipBlank(lines, at) {
  let next = at;
  while (next < lines.length && isBlank(lines[next])) next += 1;
  return next;
}

const isBlank = (line) => line.trim() === "";
const indentOf = (line) => line.length - line.trimStart().length;
const dedent = (line, columns) => line.slice(Math.min(columns, indentOf(line)));
