// Server-sent events, as the HTML standard defines them, from pieces of a body.

/** Collects text and gives the events that it completes. */
export class EventStreamParser {
  #rest = "";
  #data = [];
  #event = "";

  /** Takes the next piece; returns events `{event, data}`. */
  push(text) {
    const events = [];
    this.#rest += text;
    // A carriage return at the end may be half of a line end.
    const held = this.#rest.endsWith("\r") ? this.#rest.length - 1 : this.#rest.length;
    const lines = this.#rest.slice(0, held).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() + this.#rest.slice(held);
    for (const line of lines) {
      const event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  #line(line) {
    if (line === "") {
      const event = this.#data.length ? { event: this.#event || "message", data: this.#data.join("\n") } : null;
      this.#data = [];
      this.#event = "";
      return event;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    return null;
  }
}

/** The events of a response's body; ends with it. */
export async function* events(body) {
  const parser = new EventStreamParser();
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    // Whoever stops reading early closes the connection with it.
    reader.cancel().catch(() => {});
  }
}
