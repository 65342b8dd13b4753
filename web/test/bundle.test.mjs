// The bundle as the server takes it: whole, small, and nothing that its policy forbids.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../static/", import.meta.url));
const PAGES = ["index.html", "status.html"];
const MAX_BYTES = 200 * 1024;
const files = readdirSync(ROOT, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(ROOT.length));
const text = (file) => readFileSync(join(ROOT, file), "utf8");

test("every file is reached from a page, and every reference leads to a file", () => {
  const reached = new Set(PAGES);
  for (const file of reached) {
    const references = file.endsWith(".html")
      ? [...text(file).matchAll(/(?:src|href)="(assets\/[^"]+)"/g)].map(([, path]) => path)
      : [...text(file).matchAll(/^(?:import|export) [^"]*"(\.[^"]+)";/gm)].map(([, path]) => join(dirname(file), path));
    for (const reference of references) {
      assert.ok(files.includes(reference), `${file} asks for ${reference}`);
      reached.add(reference);
    }
  }
  assert.deepEqual([...reached].sort(), [...files].sort());
});

test("the bundle is small", () => {
  const bytes = files.reduce((sum, file) => sum + readFileSync(join(ROOT, file)).length, 0);
  assert.ok(bytes < MAX_BYTES, `${bytes} bytes`);
});

test("nothing that the policy forbids", () => {
  for (const file of files) {
    assert.doesNotMatch(text(file), /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function/, file);
    const withoutNamespaces = text(file).replaceAll("http://www.w3.org/2000/svg", "");
    assert.doesNotMatch(withoutNamespaces, /(?:src|href)="(?:https?:)?\/\/|url\(|@import|fetch\("http/, file);
  }
  for (const page of PAGES) {
    assert.doesNotMatch(text(page), /<script(?![^>]* src=)|<style| style=| on\w+=/, page);
  }
});

test("every element that a module asks for by its id is in its page", () => {
  const ids = new Set(PAGES.flatMap((page) => [...text(page).matchAll(/ id="([^"]+)"/g)].map(([, id]) => id)));
  for (const file of files) {
    for (const [, id] of text(file).matchAll(/byId\("([^"]+)"\)/g)) assert.ok(ids.has(id), `${file}: ${id}`);
  }
});
