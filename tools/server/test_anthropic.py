"""Messages, with Anthropic's client."""

import anthropic
import pytest
from pydantic import BaseModel

import demo_tools


# The server knows it, the client no more.
GREEDY = {"temperature": 0}


class Person(BaseModel):
    name: str
    age: int


def ask(question):
    return [{"role": "user", "content": question}]


def test_a_question_is_answered(claude, model):
    message = claude.messages.create(model=model, max_tokens=100, messages=ask("What is 17 + 25?"), extra_body=GREEDY)
    assert [block.text for block in message.content] == ["17 + 25 = 42."]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    request = dict(model=model, messages=ask("What is 17 + 25?"))
    count = claude.messages.count_tokens(**request).input_tokens
    assert count == message.usage.input_tokens + message.usage.cache_read_input_tokens


def test_thoughts_are_blocks(claude, model):
    request = dict(model=model, max_tokens=200, messages=ask("What is 63 - 28?"), extra_body=GREEDY)
    request["thinking"] = {"type": "enabled", "budget_tokens": 100}
    whole = claude.messages.create(**request)
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert whole.content[0].thinking == "This is a sum."
    assert whole.content[1].text == "63 - 28 = 35."
    # What was thought can be sent back.
    after = [*request["messages"], {"role": "assistant", "content": [block.model_dump() for block in whole.content]}]
    claude.messages.create(**{**request, "messages": after + ask("What is 17 + 25?")})


def test_a_stream_has_the_apis_events(claude, model):
    request = dict(model=model, max_tokens=200, messages=ask("What is 63 - 28?"), extra_body=GREEDY)
    request["thinking"] = {"type": "adaptive"}
    with claude.messages.stream(**request) as stream:
        list(stream)
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[1].text == "63 - 28 = 35."
    assert final.usage.output_tokens > 5
    kinds = [event.type for event in claude.messages.create(**request, stream=True)]
    kinds = [kind for i, kind in enumerate(kinds) if kind != "ping" and (i == 0 or kinds[i - 1] != kind)]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert kinds == ["message_start", *block, *block, "message_delta", "message_stop"]


@pytest.mark.parametrize(("question", "name", "arguments", "expected"), demo_tools.ROUNDS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_told(claude, model, question, name, arguments, expected, stream):
    request = dict(model=model, max_tokens=200, tools=demo_tools.MESSAGES, extra_body=GREEDY)
    if stream:
        with claude.messages.stream(messages=ask(question), **request) as events:
            message = events.get_final_message()
    else:
        message = claude.messages.create(messages=ask(question), **request)
    assert message.stop_reason == "tool_use"
    (call,) = message.content
    assert (call.type, call.name, call.input) == ("tool_use", name, arguments)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": demo_tools.result(name, arguments)}
    used = {"type": "tool_use", "id": call.id, "name": name, "input": call.input}
    after = [*ask(question), {"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}]
    assert claude.messages.create(messages=after, **request).content[0].text == expected


def test_a_call_can_be_had_or_not(claude, model):
    request = dict(model=model, max_tokens=200, messages=ask("Hello!"), tools=demo_tools.MESSAGES, extra_body=GREEDY)
    for choice in [{"type": "any"}, {"type": "tool", "name": "add"}]:
        message = claude.messages.create(**request, tool_choice={**choice, "disable_parallel_tool_use": True})
        (call,) = message.content
        assert call.name == choice.get("name", call.name)
        assert set(call.input) == set(demo_tools.SCHEMAS[call.name][1]["required"])
    weather = {**request, "messages": ask(demo_tools.ROUNDS[0][0])}
    message = claude.messages.create(**weather, tool_choice={"type": "none"})
    assert message.stop_reason != "tool_use"


def test_an_answer_is_an_object(claude, model):
    question = ask("Write JSON for a person named Mia who is 34 years old.")
    format = {"type": "json_schema", "schema": Person.model_json_schema()}
    message = claude.messages.create(
        model=model, max_tokens=100, messages=question, extra_body=GREEDY, output_config={"format": format}
    )
    assert Person.model_validate_json(message.content[0].text) == Person(name="Mia", age=34)


def test_an_answer_ends_where_it_shall(claude, model):
    request = dict(model=model, messages=ask("What is 17 + 25?"), extra_body=GREEDY)
    message = claude.messages.create(**request, max_tokens=100, stop_sequences=["= "])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "= ")
    assert message.content[0].text == "17 + 25 "
    assert claude.messages.create(**request, max_tokens=2).stop_reason == "max_tokens"


def test_errors_are_the_clients_own(claude, server, model):
    hello = dict(model=model, max_tokens=10, messages=ask("Hello"))
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=server, api_key="wrong", max_retries=0).messages.create(**hello)
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(**{**hello, "model": "nobody"})
    for wrong in [
        dict(max_tokens=0),
        dict(messages=[]),
        dict(messages=[{"role": "assistant", "content": "Hello"}]),
        dict(messages=[{"role": "user", "content": [{"type": "image", "source": {}}]}]),
        dict(messages=[{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "nobody"}]}]),
        dict(tools=[{"name": "no schema"}]),
        dict(thinking={"type": "enabled", "budget_tokens": 10}),
        dict(tool_choice={"type": "any"}),
    ]:
        with pytest.raises(anthropic.BadRequestError) as error:
            claude.messages.create(**{**hello, **wrong})
        assert error.value.body["type"] == "error"
        assert error.value.body["error"]["type"] == "invalid_request_error"
