"""Times to the first token at 16 and at 64 streams, and at 64 beside 16 endless ones that nobody reads."""

import json
import re
import threading
import time

from clients import connect, head

# The first piece of an answer names its role and has no text.
TEXT = re.compile(rb'"(reasoning_)?content":"[^"]')


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


def stream(port, index, firsts, gaps):
    body = {"messages": [{"role": "user", "content": f"Tell me a story about fox {index}."}], "max_tokens": 120,
            "stream": True, "ignore_eos": True, "seed": index, "temperature": 0.8}
    written = json.dumps(body).encode()
    start = last = time.monotonic()
    got = 0
    with connect(port, f"127.0.2.{2 + index % 64}", 600) as client:
        client.sendall(head("POST", "/v1/chat/completions", len(written)) + written)
        for line in client.makefile("rb"):
            if TEXT.search(line):
                now = time.monotonic()
                (gaps if got else firsts).append(now - last if got else now - start)
                last, got = now, got + 1


def unread(port, count):
    body = {"messages": [{"role": "user", "content": "Tell me a long story."}], "max_tokens": 30_000, "stream": True,
            "ignore_eos": True, "logprobs": True, "top_logprobs": 20}
    written = json.dumps(body).encode()
    held = []
    for index in range(count):
        client = connect(port, f"127.0.3.{2 + index}", 60, receive=4096)
        client.sendall(head("POST", "/v1/chat/completions", len(written)) + written)
        held.append(client)
    return held


def measure(port, count):
    firsts, gaps = [], []
    threads = [threading.Thread(target=stream, args=(port, index, firsts, gaps)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return firsts, gaps


def row(name, firsts, gaps):
    print(f"| {name} | {percentile(firsts, 0.5):.2f} | {percentile(firsts, 0.99):.2f} | {percentile(gaps, 0.99):.2f} | "
          f"{max(gaps, default=0):.2f} | {len(firsts)} |", flush=True)


def run(server):
    print("| streams | TTFT p50, s | TTFT p99, s | gap p99, s | longest gap, s | answered |\n|---|---|---|---|---|---|")
    measure(server.port, 1)
    few = measure(server.port, 16)
    row("16", *few)
    many = measure(server.port, 64)
    row("64", *many)
    held = unread(server.port, 16)
    time.sleep(2)
    row("64 beside 16 endless, unread", *measure(server.port, 64))
    for client in held:
        client.close()
    times = percentile(many[0], 0.99) / percentile(few[0], 0.99)
    print(f"the 99th percentile at 64 streams is {times:.1f} times that at 16")
    server.end()
    return 0 if times <= 5 else 1
