// The chat page in all its states; needs a server that fails on demand, so the stub.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { SERVER, ask, ended, keep, lastAnswer, withPage } from "./browser.mjs";

const options = { skip: SERVER ? "needs the stub" : false };
const fast = { stub: { delay: 1 } };

test("markdown is shown and injects nothing", options, () => withPage(fast, async (page) => {
  await ask(page, "!markdown");
  await ended(page);
  assert.equal(await page.locator(".assistant table tbody tr").count(), 3);
  assert.equal(await page.locator(".assistant script, .assistant a[href^=javascript]").count(), 0);
  assert.match(await lastAnswer(page), /<script>alert\(1\)<\/script>/);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "Copy", exact: true }).last().click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^moeflux run/);
  await keep(page, "markdown");
}));

test("thoughts are folded, with their time", options, () => withPage({ stub: { delay: 30 } }, async (page) => {
  await ask(page, "!think");
  await page.getByText(/^Thinking… \d+ s$/).waitFor();
  assert.equal(await page.locator(".thought").isVisible(), false);
  await ended(page);
  await page.getByText(/^Thought for /).click();
  // It is drawn when it is unfolded, which the browser tells a moment later.
  await page.locator(".thought").getByText(/multiply step by step/).waitFor();
  await page.click("#open-settings");
  await page.getByLabel("Thinking", { exact: true }).selectOption("off");
  await ask(page, "!think again");
  await ended(page);
  assert.equal(await page.locator(".thinking:visible").count(), 1);
}));

test("errors say what the API says, and can be tried again", options, () => withPage(fast, async (page, { stub }) => {
  for (const [prompt, message] of [
    ["!error", /context has room for 4096 tokens.*400 context_length_exceeded/s],
    ["!limit", /Too many requests wait already\. The server asks to wait 5\.0 s/],
    ["!midway", /A read of layer 12, expert 77 failed/],
    ["!disconnect", /connection was lost|ended before it was complete/],
  ]) {
    await ask(page, prompt);
    await ended(page);
    assert.match(await page.locator(".problem").last().innerText(), message);
  }
  await keep(page, "errors");
  const sent = stub.requests.length;
  await page.getByRole("button", { name: "Try again" }).last().click();
  await ended(page);
  assert.equal(stub.requests.length, sent + 1);
  assert.deepEqual(stub.requests.at(-1).messages, stub.requests[sent - 1].messages);
}));

test("an edited message replaces what followed, until that is undone", options, () => withPage(fast, async (page, { stub }) => {
  await ask(page, "one !think");
  await ended(page);
  await ask(page, "two !think");
  await ended(page);
  await page.locator(".user").first().hover();
  await page.getByRole("button", { name: "Edit and send again" }).first().click();
  await page.getByLabel("Edit message").fill("three !think");
  await page.keyboard.press("Control+Enter");
  await ended(page);
  assert.deepEqual(stub.requests.at(-1).messages.map(({ content }) => content), ["three !think"]);
  await page.getByRole("button", { name: "Undo" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".message").length === 4);
}));

test("settings are sent, wrong ones are not", options, () => withPage(fast, async (page, { stub }) => {
  await page.click("#open-settings");
  await page.getByLabel("Temperature").fill("0.35");
  await page.getByLabel("Top p").fill("7");
  await page.getByLabel("Most tokens").fill("5");
  await page.getByLabel("System prompt").fill("Be brief.");
  await page.getByLabel("A prompt is sent by").selectOption("command");
  await page.selectOption("#model", "qwen3.5-397b");
  await page.getByText("It is not used.").waitFor();
  await page.fill("#prompt", "a");
  await page.press("#prompt", "Enter");
  await page.press("#prompt", "Control+Enter");
  await ended(page);
  const { model, temperature, top_p, max_tokens, messages, stream_options } = stub.requests[0];
  assert.deepEqual({ model, temperature, top_p, max_tokens }, { model: "qwen3.5-397b", temperature: 0.35, top_p: undefined, max_tokens: 5 });
  assert.deepEqual(messages, [{ role: "system", content: "Be brief." }, { role: "user", content: "a\n" }]);
  assert.deepEqual(stream_options, { include_usage: true });
  assert.match(await page.locator(".problem").innerText(), /limit of tokens/);
}));

test("a key is asked for and stays in the tab", options, () => withPage({ stub: { delay: 1, key: "secret" } }, async (page) => {
  await page.getByLabel("Key", { exact: true }).fill("secret");
  await page.getByRole("button", { name: "Use key" }).click();
  await page.waitForSelector("#model:not([disabled])");
  await ask(page, "!think");
  await ended(page);
  assert.equal(await page.locator(".problem:visible").count(), 0);
  assert.ok(!await page.evaluate(() => JSON.stringify(localStorage).includes("secret")));
}));

test("conversations: new, rename, delete, export, import", options, () => withPage(fast, async (page) => {
  await ask(page, "first !think");
  await ended(page);
  await page.getByRole("button", { name: "New chat" }).click();
  await ask(page, "second !think");
  await ended(page);
  const names = () => page.locator("#conversations .open").allInnerTexts();
  assert.deepEqual(await names(), ["second !think", "first !think"]);
  await page.locator("#conversations li").last().hover();
  await page.getByRole("button", { name: "Rename first" }).click();
  await page.keyboard.type("Sums");
  await page.keyboard.press("Enter");
  assert.deepEqual(await names(), ["second !think", "Sums"]);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Export" }).click()]);
  const file = await readFile(await download.path());
  await page.locator("#conversations li").last().hover();
  await page.getByRole("button", { name: "Delete Sums" }).click();
  assert.deepEqual(await names(), ["second !think"]);
  await page.setInputFiles("#import-file", { name: "x.json", mimeType: "application/json", buffer: file });
  await page.getByText("Imported 2 conversations.").waitFor();
  assert.equal((await names()).length, 3);
  await page.reload();
  await page.waitForSelector("#conversations li");
  assert.equal((await names()).length, 3);
}));

test("prompts come back with arrow up; text files go into the prompt", options, () => withPage(fast, async (page) => {
  await ask(page, "one !think");
  await ended(page);
  await ask(page, "two !think");
  await ended(page);
  const prompt = page.locator("#prompt");
  for (const [key, text] of [["ArrowUp", "two !think"], ["ArrowUp", "one !think"], ["ArrowDown", "two !think"], ["ArrowDown", ""]]) {
    await prompt.press(key);
    assert.equal(await prompt.inputValue(), text);
  }
  await page.setInputFiles("#attach-files", [
    { name: "a.txt", mimeType: "text/plain", buffer: Buffer.from("```\nx") },
    { name: "b.bin", mimeType: "application/octet-stream", buffer: Buffer.from([0, 255, 254]) },
  ]);
  await page.getByText("b.bin is no text file").waitFor();
  assert.equal(await prompt.inputValue(), "a.txt:\n````\n```\nx\n````\n");
  const dataTransfer = await page.evaluateHandle(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File(["dropped\n"], "c.txt"));
    return transfer;
  });
  await page.dispatchEvent("body", "drop", { dataTransfer });
  await page.waitForFunction(() => document.querySelector("#prompt").value.endsWith("c.txt:\n```\ndropped\n```\n"));
}));

test("a slow start says so, and can be stopped", options, () => withPage(fast, async (page) => {
  await ask(page, "!slow");
  await page.getByText(/^Reading the prompt… \d s$/).waitFor();
  assert.equal(await page.locator("#announcer").textContent(), "The answer begins.");
  await page.keyboard.press("Escape");
  await ended(page);
  assert.equal(await page.locator("#announcer").textContent(), "Stopped.");
}));

test("scrolling up is left alone", options, () => withPage({ stub: { delay: 5 } }, async (page) => {
  await ask(page, "!forever");
  const scroll = page.locator("#scroll");
  await page.waitForFunction(() => document.querySelector("#scroll").scrollTop > 400);
  await scroll.hover();
  await page.mouse.wheel(0, -300);
  await page.waitForSelector("#latest:not([hidden])");
  await page.waitForTimeout(200);
  const top = await scroll.evaluate((element) => element.scrollTop);
  await page.waitForTimeout(500);
  assert.equal(await scroll.evaluate((element) => element.scrollTop), top);
  await page.click("#latest");
  await page.waitForFunction(() => {
    const { scrollTop, scrollHeight, clientHeight } = document.querySelector("#scroll");
    return scrollHeight - scrollTop - clientHeight < 5;
  });
  await page.click("#stop");
}));

test("a phone has no sideways scrolling, and drawers that close", options, () => withPage({ ...fast, viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }, async (page) => {
  await ask(page, "!markdown");
  await ended(page);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  await page.click("#open-sidebar");
  await page.getByRole("button", { name: "New chat" }).waitFor();
  await keep(page, "phone");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#sidebar").isVisible(), false);
  assert.equal(await page.evaluate(() => document.activeElement.id), "open-sidebar");
}));

test("a dark page is light on paper", options, () => withPage({ ...fast, colorScheme: "dark" }, async (page) => {
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.getByRole("button", { name: "Theme: auto" }).click();
  await page.getByRole("button", { name: "Theme: light" }).click();
  assert.equal(await ground(), "rgb(22, 24, 23)");
  await page.emulateMedia({ media: "print" });
  assert.equal(await ground(), "rgb(251, 250, 248)");
}));
