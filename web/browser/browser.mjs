// A headless Chromium, and the page that is tested: the stub's, or that of the server at MOEFLUX_URL.

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { startStub } from "../test/stub-server.mjs";

const ARTIFACTS = fileURLToPath(new URL("../artifacts/", import.meta.url));
const ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

/** Address of a real server, or null for the stub. */
export const SERVER = process.env.MOEFLUX_URL?.replace(/\/*$/, "/") ?? null;

/**
 * Runs `check(page, context)` on a fresh profile; `stub` are its options. Fails also if the page threw an error, broke its
 * policy or asked for anything from elsewhere.
 */
export async function withPage({ stub: stubOptions, ...options }, check) {
  const stub = SERVER ? null : await startStub(stubOptions);
  const url = SERVER ?? stub.url;
  const profile = mkdtempSync(join(tmpdir(), "moeflux-browser-"));
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const context = await chromium.launchPersistentContext(profile, { executablePath, args: ARGS, viewport: { width: 1200, height: 850 }, ...options });
  try {
    const [page] = context.pages();
    const wrong = [];
    page.on("pageerror", (error) => wrong.push(`threw ${error.message}`));
    // The browser itself reports responses such as 401 as errors; those are the tests' own.
    page.on("console", (message) => {
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) wrong.push(message.text());
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith("blob:")) wrong.push(`asked for ${request.url()}`);
    });
    await page.goto(url);
    await check(page, { url, stub });
    if (wrong.length) throw new Error(`The page: ${wrong.join("; ")}`);
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
    await stub?.close();
  }
}

/** Keeps a picture of the page. */
export async function keep(page, name) {
  mkdirSync(ARTIFACTS, { recursive: true });
  await page.screenshot({ path: join(ARTIFACTS, `${name}.png`) });
}

/** Writes a prompt and sends it. */
export async function ask(page, prompt) {
  await page.fill("#prompt", prompt);
  await page.press("#prompt", "Enter");
}

/** Waits until the answer under way has ended. */
export async function ended(page) {
  await page.waitForSelector(".assistant:last-child[aria-busy=false]");
  await page.waitForSelector("#send:not([hidden])");
}

/** Text of the last answer. */
export function lastAnswer(page) {
  return page.locator(".assistant > .markdown").last().innerText();
}
