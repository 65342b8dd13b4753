"""The tools that the demo model was taught to call, and what they answer."""

import json

CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "The city"}}, "required": ["city"]}
NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
SCHEMAS = {
    "get_weather": ("Get the weather of a city", CITY),
    "get_time": ("Get the local time of a city", CITY),
    "add": ("Add two numbers", NUMBERS),
}

# Of chat completions, of responses, and of messages.
CHAT = [
    {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}
    for name, (text, schema) in SCHEMAS.items()
]
RESPONSES = [
    {"type": "function", "name": name, "description": text, "parameters": schema}
    for name, (text, schema) in SCHEMAS.items()
]
MESSAGES = [{"name": name, "description": text, "input_schema": schema} for name, (text, schema) in SCHEMAS.items()]

# A question, the call that answers it, and what the model says when it has the result.
ROUNDS = [
    ("What is the weather in Oslo?", "get_weather", {"city": "Oslo"}, "The weather in Oslo is sunny and it is 21 degrees."),
    ("What time is it in Tokyo?", "get_time", {"city": "Tokyo"}, "It is 14:05 in Tokyo."),
    ("What is 4711 + 289?", "add", {"a": 4711, "b": 289}, "4711 + 289 = 5000."),
]


def result(name, arguments):
    """What a tool answers, as text."""
    if name == "get_weather":
        return json.dumps({"weather": "sunny", "temperature": 21})
    if name == "get_time":
        return json.dumps({"time": "14:05"})
    return json.dumps({"result": arguments["a"] + arguments["b"]})
