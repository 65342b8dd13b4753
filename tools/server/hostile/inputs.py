"""Requests that are made to cost much: deep, wide, slow to compute and huge, for every field of every route.

A generator takes a random source and gives (method, path, body); a body is bytes. Sizes are drawn evenly on a logarithmic
scale, so that small and huge ones are tried alike.
"""

import json

WORDS = ["a ", "a", " ", "\n", "The fox said: 42! ", "\u00e9\u0301", "\U0001f98a", "<|im_start|>", "0", "{\"", "\\u0000"]


def size(random, most):
    return int(most ** random.random())


def text(random, most=15_000_000):
    word = random.choice(WORDS)
    return word * max(1, size(random, most) // len(word.encode()))


def nested(random, depth=None):
    """JSON text, nested deeper than a parser that recurses can follow."""
    depth = depth or size(random, 1_000_000)
    return random.choice([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")]), depth


def deep(random):
    (before, after), depth = nested(random)
    return before * depth + "1" + after * depth


LINKS = [
    lambda n: {"type": "object", "properties": {"x": n}},
    lambda n: {"type": "object", "properties": {"x": n}, "required": ["x"]},
    lambda n: {"type": "array", "items": n},
    lambda n: {"type": "array", "prefixItems": [n, n]},
    lambda n: {"anyOf": [n, {"type": "null"}]},
    lambda n: {"oneOf": [n, n]},
    lambda n: {"allOf": [n]},
    lambda n: {"allOf": [n, n]},
    lambda n: {"anyOf": [n, n], "type": "object"},
    lambda n: {"type": "object", "additionalProperties": n},
    lambda n: {"type": "object", "patternProperties": {"^a": n}},
    lambda n: n,
]


def chain(random, most=20_000):
    n = size(random, most)
    links = random.sample(LINKS, random.choice([1, 1, 1, 3]))
    last = random.choice([{"type": "string"}, {"$ref": "#/$defs/a0"}, {"$ref": "#"}, {"$ref": "#/$defs/none"}, True])
    defs = {f"a{i}": links[i % len(links)]({"$ref": f"#/$defs/a{i + 1}"}) for i in range(n)}
    return {"$ref": "#/$defs/a0", "$defs": {**defs, f"a{n}": last}}


PATTERNS = [
    "(a+)+$", "a{1,100000}", "(.{1,1000}){1,1000}", "((((a?){20}){20}){20}){20}", "(a|aa)+b", "[^a]*a[^a]{500}",
    "(?:" * 500 + "a" + ")" * 500, "(", "|".join(f"w{i}" for i in range(20_000)), "\\p{L}{1,3000}", "(a*)*(a*)*b",
]


def pattern(random):
    return random.choice(PATTERNS)


def schema(random):
    n = size(random, 20_000)
    kind = random.randrange(14)
    if kind <= 4:
        return chain(random)
    if kind == 5:
        return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(n)}}
    if kind == 6:
        names = [f"p{i}" for i in range(n)]
        return {"type": "object", "properties": dict.fromkeys(names, {"type": "number"}), "required": names}
    if kind == 7:
        return {random.choice(["anyOf", "oneOf"]): [{"type": "object", "properties": {f"p{i}": {"const": i}}} for i in range(n)]}
    if kind == 8:
        return {"enum": [f"value {i}" * random.randint(1, 9) for i in range(n)]}
    if kind == 9:
        return {"type": "string", "pattern": pattern(random)}
    if kind == 10:
        return {"type": "string", "minLength": n, "maxLength": n * size(random, 10**6)}
    if kind == 11:
        return {"type": "array", "minItems": n, "maxItems": n * 2, "items": {"type": "array", "minItems": n}}
    if kind == 12:
        return {"allOf": [{"anyOf": [{"properties": {f"a{i}": {"type": "string"}}}, {"required": [f"b{i}"]}]} for i in range(min(n, 60))]}
    return {"type": random.choice(["integer", "number"]), "multipleOf": random.choice([1e-300, 7, 10**18]),
            "minimum": -(10**random.randint(0, 300)), "maximum": 10**random.randint(0, 300)}


def tools(random, wrap):
    n = size(random, 2_000)
    parameters = schema(random) if random.random() < 0.7 else {"type": "object", "properties": {}}
    few = [wrap(f"f{i}", text(random, 1000), parameters if i < 2 else {"type": "object"}) for i in range(n)]
    return few


def openai_tool(name, description, parameters):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def flat_tool(name, description, parameters):
    return {"type": "function", "name": name, "description": description, "parameters": parameters}


def anthropic_tool(name, description, parameters):
    return {"name": name, "description": description, "input_schema": parameters}


def messages(random):
    kind = random.randrange(5)
    if kind == 0:
        return [{"role": "user", "content": text(random)}]
    if kind == 1:
        n = size(random, 300_000)
        return [{"role": ["user", "assistant"][i % 2], "content": "x"} for i in range(n)]
    if kind == 2:
        n = size(random, 100_000)
        return [{"role": "user", "content": [{"type": "text", "text": "x"} for _ in range(n)]}]
    if kind == 3:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": deep_arguments(random)}}
        return [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call] * size(random, 1000)}]
    return [{"role": random.choice(["user", "tool", "system", "x" * size(random, 10**6)]), "content": "hi"}]


def deep_arguments(random):
    depth = size(random, 100)
    return '{"a":' * depth + "1" + "}" * depth


def controls(random):
    n = size(random, 200_000)
    few = {
        "stop": [str(i) for i in range(n)],
        "logit_bias": {str(i): 1 for i in range(n)},
        "max_tokens": random.choice([1, 5, 10**9, 2**63]),
        "n": random.choice([1, 16, 10**6]),
        "temperature": random.choice([0, 1, 1e308]),
        "seed": random.choice([0, 2**63 - 1]),
        "top_logprobs": random.choice([0, 20, 10**9]),
        "stream": random.choice([True, False]),
        "user": text(random, 10**6),
    }
    return dict(random.sample(sorted(few.items()), random.randint(0, 2)))


def chat(random):
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    kind = random.randrange(6)
    if kind <= 1:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema(random)}}
    elif kind == 2:
        body |= {"tools": tools(random, openai_tool), "tool_choice": random.choice(["required", "auto"])}
    elif kind == 3:
        body["messages"] = messages(random)
    elif kind == 4:
        body |= controls(random)
    else:
        body["chat_template_kwargs"] = {f"k{i}": [] for i in range(size(random, 100_000))}
    return "POST", "/v1/chat/completions", body


def completions(random):
    n = size(random, 10**6)
    prompt = random.choice([
        lambda: text(random), lambda: [1] * n, lambda: ["a"] * min(n, 50_000), lambda: [[1]] * min(n, 50_000), lambda: [10**9],
    ])()
    body = {"prompt": prompt, "max_tokens": 2, "echo": random.choice([True, False])}
    if random.random() < 0.3:
        body = {"prompt": "x", "max_tokens": 2, **controls(random)}
    if random.random() < 0.2:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema(random)}}
    return "POST", "/v1/completions", body


def responses(random):
    body = {"input": "hi", "max_output_tokens": 3}
    kind = random.randrange(3)
    if kind == 0:
        body["text"] = {"format": {"type": "json_schema", "name": "x", "schema": schema(random)}}
    elif kind == 1:
        body["input"] = random.choice([text(random), [{"role": "user", "content": "x"}] * size(random, 200_000)])
    else:
        body |= {"tools": tools(random, flat_tool), "tool_choice": "required"}
    return "POST", "/v1/responses", body


def anthropic(random):
    path = random.choice(["/v1/messages", "/v1/messages", "/v1/messages/count_tokens"])
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
    body |= {"max_tokens": 3} if path == "/v1/messages" else {}
    kind = random.randrange(3)
    if kind == 0:
        body |= {"tools": tools(random, anthropic_tool), "tool_choice": {"type": "any"}}
    elif kind == 1:
        body["system"] = text(random)
    else:
        body["messages"] = [{"role": "user", "content": [{"type": "text", "text": "x"}] * size(random, 200_000)}]
    return "POST", path, body


def plain(random):
    n = size(random, 2 * 10**6)
    return random.choice([
        lambda: ("POST", "/tokenize", {"text": text(random)}),
        lambda: ("POST", "/detokenize", {"tokens": [n % 2000] * n}),
        lambda: ("POST", "/apply-template", {"messages": messages(random)}),
        lambda: ("POST", "/apply-template", {"messages": [{"role": "user", "content": "x"}], "tools": tools(random, openai_tool)}),
        lambda: ("POST", "/v1/embeddings", {"input": random.choice([text(random), ["a"] * min(n, 300), [1] * n])}),
        lambda: ("PUT", "/v1/sequences/" + "x" * size(random, 10_000), {"prompt": text(random)}),
        lambda: ("POST", "/v1/sequences/x/restore", {}),
        lambda: ("GET", "/v1/models/" + "x" * size(random, 60_000), None),
        lambda: ("DELETE", "/v1/responses/" + "%2e" * size(random, 10_000), None),
    ])()


ROUTES = [chat, chat, chat, completions, responses, anthropic, plain]
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize", "/v1/embeddings"]


def raw(random):
    """Bodies that no library would write."""
    body = random.choice([
        lambda: deep(random),
        lambda: '{"messages":' + deep(random) + "}",
        lambda: '{"messages":[{"role":"user","content":"hi"}],"response_format":' + deep(random) + "}",
        lambda: "[" + "1," * size(random, 7 * 10**6) + "1]",
        lambda: '{"a":' * size(random, 3 * 10**6),
        lambda: '{"' + '","'.join(str(i) for i in range(size(random, 10**6))) + '"}',
        lambda: "9" * size(random, 10**7),
        lambda: '"' + "\\u00" * size(random, 3 * 10**6),
    ])()
    return "POST", random.choice(PATHS), body.encode()


def draw(random):
    """A request: its method, path, body and how it was made."""
    route = random.choice([*ROUTES, raw])
    method, path, body = route(random)
    if body is None:
        return method, path, b"", route.__name__
    if isinstance(body, bytes):
        return method, path, body, route.__name__
    written = json.dumps(body).encode()
    if random.random() < 0.03:
        # Cut or changed somewhere.
        place = random.randrange(len(written))
        written = written[:place] + bytes([random.randrange(256)]) + written[place + random.randrange(2):]
    return method, path, written, route.__name__
