"""The ten inputs that did most harm, each against a fresh server: seconds, peak memory, status."""

import json
import threading
import time

from clients import exchange
from server import Server


def chain(n, link):
    defs = {f"a{i}": link({"$ref": f"#/$defs/a{i + 1}"}) for i in range(n)}
    return {"$ref": "#/$defs/a0", "$defs": {**defs, f"a{n}": {"type": "string"}}}


def chat(**more):
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, **more}


def formatted(schema, **more):
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, **more)


def tool(schema):
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


def doubling():
    both = lambda i: {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2}  # noqa: E731
    return {"type": "object", "properties": {"x": {"$ref": "#/$defs/a0"}},
            "$defs": {**{f"a{i}": both(i) for i in range(20)}, "a20": {"type": "string"}}}


def optional(n):
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(n)}}


CASES = [
    ("chain of 500 objects", lambda: formatted(chain(500, lambda n: {"type": "object", "properties": {"x": n}}))),
    ("chain of 2,000 $refs", lambda: formatted(chain(2000, lambda n: n))),
    ("chain of 500 anyOf", lambda: formatted(chain(500, lambda n: {"anyOf": [n, {"type": "null"}]}))),
    ("14 MB of \"a \" to /tokenize", lambda: ("/tokenize", {"text": "a " * 7_000_000})),
    ("15 MB of \"a\" as a chat", lambda: chat(messages=[{"role": "user", "content": "a" * 15_000_000}])),
    ("15 MB of spaces to /tokenize", lambda: ("/tokenize", {"text": " " * 15_000_000})),
    ("5,000 optional properties", lambda: formatted(optional(5000))),
    ("1,500 optional properties, n 16", lambda: formatted(optional(1500), n=16)),
    ("20 anyOf of two $refs in a tool", lambda: chat(tools=[tool(doubling())], tool_choice="required")),
    ("8 million numbers as a prompt", lambda: ("/v1/completions", {"prompt": [1] * 5_000_000, "max_tokens": 1})),
]


def ask(port, path, body, answers):
    try:
        answers.append(exchange(port, "POST", path, body, timeout=300)[0])
    except OSError:
        answers.append(0)


def run(args, folder):
    print("| input | seconds | peak memory, MiB | status |\n|---|---|---|---|")
    failures = 0
    for name, make in CASES:
        path, body = make()
        written = json.dumps(body, separators=(",", ":")).encode()
        server = Server(args.program, args.memory << 20, folder, args.more)
        server.reset_peak()
        answers, peak, start = [], 0, time.monotonic()
        asking = threading.Thread(target=ask, args=(server.port, path, written, answers))
        asking.start()
        while asking.is_alive():
            asking.join(0.02)
            peak = max(peak, server.memory()[1])
        took, status = time.monotonic() - start, answers[0]
        time.sleep(0.5)  # a death is known a little later
        said = status if server.is_alive() else f"dead ({server.process.wait()})"
        failures += not server.is_alive() or status >= 500
        server.end()
        print(f"| {name} | {took:.2f} | {peak / 2**20:.0f} | {said} |", flush=True)
    return 1 if failures else 0
