// What people do first, against the stub or, with MOEFLUX_URL, a real server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { SERVER, ask, ended, keep, lastAnswer, withPage } from "./browser.mjs";

// The stub tells it without an end.
const STORY = SERVER ? "Tell me a very long story." : "Tell me a very long story. !forever";

test("a story streams, stops and is told again; the theme changes; the status moves", async () => {
  await withPage({ colorScheme: "light" }, async (page, { url }) => {
    // A small model's stories are soon told; past their ends they last as long as the stub's.
    if (SERVER) {
      await page.context().route("**/v1/chat/completions", (route) => {
        const request = { ...route.request().postDataJSON(), ignore_eos: true, max_tokens: 20000 };
        return route.continue({ postData: JSON.stringify(request) });
      });
    }
    await page.waitForSelector("#model:not([disabled])");
    await ask(page, STORY);
    await page.waitForFunction(() => document.querySelector(".assistant > .markdown")?.innerText.length > 5);
    const early = (await lastAnswer(page)).length;
    await page.waitForFunction((length) => document.querySelector(".assistant > .markdown").innerText.length > length, early);
    await keep(page, "streaming");
    await page.keyboard.press("Escape");
    await ended(page);
    assert.match(await page.locator(".assistant").last().innerText(), /Stopped\./);
    const stopped = await lastAnswer(page);
    await page.waitForTimeout(300);
    assert.equal(await lastAnswer(page), stopped, "nothing comes after the stop");

    await page.getByRole("button", { name: "Answer again" }).click();
    await page.waitForSelector(".assistant[aria-busy=true]");
    await page.waitForFunction(() => document.querySelector(".assistant > .markdown").innerText.length > 5);
    assert.equal(await page.locator(".message").count(), 2, "the answer was replaced");
    await page.getByRole("button", { name: "Stop" }).click();
    await ended(page);
    assert.match(await page.locator(".meta").last().innerText(), /first after/);

    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.getByRole("button", { name: "Theme: auto" }).click();
    await page.getByRole("button", { name: "Theme: light" }).click();
    await page.getByRole("button", { name: "Theme: dark" }).waitFor();
    assert.notEqual(await ground(), light);
    await page.reload();
    assert.notEqual(await ground(), light, "the theme is kept");
    await page.waitForSelector(".assistant");
    assert.equal(await page.locator(".message").count(), 2, "the conversation is kept");
    await keep(page, "dark");

    await page.getByRole("link", { name: "Status" }).click();
    await page.waitForURL(`${url}status`);
    await page.getByText("Ready", { exact: true }).waitFor();
    const total = () => page.locator("#totals tr", { hasText: "Tokens generated" }).locator("td").innerText();
    await page.waitForSelector("#totals tr");
    const before = Number((await total()).replaceAll(",", ""));
    assert.ok(before > 0);
    const other = await page.context().newPage();
    await other.goto(url);
    await other.waitForSelector("#model:not([disabled])");
    await ask(other, STORY);
    await page.waitForFunction((n) => {
      const row = [...document.querySelectorAll("#totals tr")].find((tr) => tr.innerText.includes("Tokens generated"));
      return Number(row.querySelector("td").innerText.replaceAll(",", "")) > n;
    }, before);
    await page.waitForSelector(".plot path.line");
    await other.close();
    await keep(page, "status");
  });
});
