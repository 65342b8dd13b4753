"""Responses, with OpenAI's client."""

import json
import time

import openai
import pytest
from pydantic import BaseModel

import demo_tools


class Person(BaseModel):
    name: str
    age: int


def test_a_question_is_answered(chat, model):
    response = chat.responses.create(model=model, input="What is 17 + 25?", temperature=0)
    assert response.output_text == "17 + 25 = 42."
    assert response.status == "completed"
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_a_stream_says_the_same(chat, model):
    request = dict(model=model, input="What is 63 - 28?", temperature=0, reasoning={"effort": "low"})
    whole = chat.responses.create(**request)
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    assert whole.output[0].content[0].text == "This is a sum."
    with chat.responses.stream(**request) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == whole.output_text == "63 - 28 = 35."
    assert [event.sequence_number for event in events] == sorted({event.sequence_number for event in events})
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    for name in ["created", "in_progress", "output_item.added", "content_part.added", "reasoning_text.delta",
                 "reasoning_text.done", "output_text.done", "content_part.done", "output_item.done", "completed"]:
        assert f"response.{name}" in {event.type for event in events}


@pytest.mark.parametrize(("question", "name", "arguments", "expected"), demo_tools.ROUNDS)
@pytest.mark.parametrize("stored", [False, True])
def test_a_tool_is_called_and_its_result_told(chat, model, question, name, arguments, expected, stored):
    request = dict(model=model, tools=demo_tools.RESPONSES, temperature=0)
    asked = [{"role": "user", "content": question}]
    with chat.responses.stream(input=asked, **request) as stream:
        first = stream.get_final_response()
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", name, arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": demo_tools.result(name, arguments)}
    if stored:
        second = chat.responses.create(input=[result], previous_response_id=first.id, **request)
    else:
        second = chat.responses.create(input=[*asked, call.model_dump(), result], store=False, **request)
    assert second.output_text == expected


def test_a_response_is_kept_until_it_is_deleted(chat, model):
    response = chat.responses.create(model=model, input="What is the capital of Norway?", temperature=0)
    assert chat.responses.retrieve(response.id).output_text == response.output_text == "The capital of Norway is Oslo."
    chat.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        chat.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        chat.responses.create(model=model, input="And of Japan?", previous_response_id=response.id)


def test_an_answer_is_an_object(chat, model):
    question = "Write JSON for a person named Mia who is 34 years old."
    response = chat.responses.parse(model=model, input=question, text_format=Person, temperature=0)
    assert response.output_parsed == Person(name="Mia", age=34)


def test_what_is_too_long_is_incomplete(chat, model):
    response = chat.responses.create(model=model, input="Tell me a story.", max_output_tokens=5)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.output[-1].status == "incomplete"


def test_errors_name_the_field(chat, model):
    for request, param in [
        (dict(background=True, store=False), "background"),
        (dict(tools=[{"type": "function"}]), "tools[0]"),
        (dict(max_output_tokens=0), "max_output_tokens"),
        (dict(input=[{"type": "function_call_output", "call_id": "nobody", "output": ""}]), "input[0]"),
        (dict(input=[{"type": "item_reference", "id": "msg_1"}]), "input[0]"),
    ]:
        with pytest.raises(openai.BadRequestError) as error:
            chat.responses.create(**{"model": model, "input": "Hello", **request})
        assert error.value.param == param


def test_a_tool_of_the_apis_maker_is_left_out_and_named(chat, model):
    request = dict(model=model, input="What is 17 + 25?", temperature=0, tools=[{"type": "web_search"}])
    answer = chat.responses.with_raw_response.create(**request)
    assert answer.parse().output_text == "17 + 25 = 42."
    assert "web_search" in answer.headers["x-moeflux-ignored"]


def test_a_response_is_made_in_the_background(chat, model):
    question = "What is the capital of Norway?"
    response = chat.responses.create(model=model, input=question, temperature=0, background=True)
    assert (response.status, response.background, response.output) == ("queued", True, [])
    while response.status in ("queued", "in_progress"):
        time.sleep(0.05)
        response = chat.responses.retrieve(response.id)
    assert (response.status, response.output_text) == ("completed", "The capital of Norway is Oslo.")
