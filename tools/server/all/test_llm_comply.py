"""llm-comply: what the server answers, against the schemas of OpenAI's chats, of Open Responses and of Anthropic."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from serving import KEY

NO_PICTURES = "the demo sees no pictures, and refuses them"
NO_MODEL = "a server of one model takes requests that name none"
OTHER_NAMES = "skipped by the suite: only for models of the API's maker, by their names"
# Tests, and why those fail that do.
OPENAI = {
    "chat-basic-response": None,
    "chat-system-prompt": None,
    "chat-multi-turn": None,
    "chat-tool-calling": None,
    "chat-streaming-response": None,
    "chat-streaming-usage": None,
    "chat-image-input": NO_PICTURES,
    "chat-reasoning-summary": OTHER_NAMES,
    "chat-error-handling": NO_MODEL,
}
RESPONSES = {
    "basic-response": None,
    "system-prompt": None,
    "multi-turn": None,
    "tool-calling": None,
    "streaming-response": None,
    "streaming-usage": None,
    "assistant-phase": None,
    "response-output-phase-schema": None,
    "compact-response": None,
    "image-input": NO_PICTURES,
    "reasoning-summary": OTHER_NAMES,
    "compact-missing-model": NO_MODEL,
    "error-handling": NO_MODEL,
}
ANTHROPIC = {
    "anth-basic-response": None,
    "anth-system-prompt": None,
    "anth-multi-turn": None,
    "anth-tool-calling": None,
    "anth-streaming-response": None,
    "anth-streaming-usage": None,
    "anth-error-handling": None,
    "anth-image-input": NO_PICTURES,
    "anth-thinking-display": OTHER_NAMES,
}
FORMATS = {
    "openai-chat": (OPENAI, []),
    "open-responses": (RESPONSES, []),
    "anthropic": (ANTHROPIC, ["--auth-header", "x-api-key", "--no-bearer", "-H", "anthropic-version:2023-06-01"]),
}


@cache
def results(server, model, format):
    """What became of every test of a format."""
    command = [Path(sys.executable).parent / "llm-comply", "-u", f"{server}/v1", "-k", KEY, "-m", model, "--json"]
    run = subprocess.run([*command, "--format", format, *FORMATS[format][1]], capture_output=True, text=True)
    return {test["id"]: test for test in json.loads(run.stdout)["results"]}


@pytest.mark.parametrize(
    ("format", "test"),
    [
        pytest.param(format, test, marks=[pytest.mark.xfail(reason=why, strict=True)] if why else [])
        for format, (tests, _) in FORMATS.items()
        for test, why in tests.items()
    ],
)
def test_an_answer_is_what_the_schema_says(server, model, format, test):
    found = results(server, model, format)[test]
    assert found["status"] == "passed", found.get("errors")


@pytest.mark.parametrize("format", FORMATS)
def test_no_test_is_forgotten(server, model, format):
    assert set(results(server, model, format)) == set(FORMATS[format][0])
