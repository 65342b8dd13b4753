import assert from "node:assert/strict";
import { test } from "node:test";
import { EventStreamParser, events } from "../static/assets/sse.js";

const STREAM = ': keep-alive\n\ndata: {"a":1}\r\n\r\nevent: ping\r\ndata:x\r\ndata:  y\r\rid: 7\nretry: 5\n\ndata\n\ndata: ü😀\n\ndata: lost';
const EVENTS = [
  { event: "message", data: '{"a":1}' },
  { event: "ping", data: "x\n y" },
  { event: "message", data: "" },
  { event: "message", data: "ü😀" },
];

test("events, whatever the pieces", () => {
  for (let size = 1; size <= STREAM.length; size += 1) {
    const parser = new EventStreamParser();
    const found = [];
    for (let at = 0; at < STREAM.length; at += size) found.push(...parser.push(STREAM.slice(at, at + size)));
    assert.deepEqual(found, EVENTS, `pieces of ${size}`);
  }
});

test("characters that are cut by the network", async () => {
  const bytes = new TextEncoder().encode(STREAM);
  const body = new ReadableStream({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  const found = [];
  for await (const event of events(body)) found.push(event);
  assert.deepEqual(found, EVENTS);
});

test("leaving early closes the connection", async () => {
  let cancelled = false;
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: 1\n\n")),
    cancel: () => { cancelled = true; },
  });
  for await (const { data } of events(body)) {
    assert.equal(data, "1");
    break;
  }
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(cancelled);
});
