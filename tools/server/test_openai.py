"""Chat completions, completions and embeddings, with OpenAI's client."""

import json

import openai
import pytest
from pydantic import BaseModel

import demo_tools
from serving import KEY

SUM = [{"role": "user", "content": "What is 17 + 25?"}]


class Person(BaseModel):
    name: str
    age: int


def test_a_question_is_answered(chat, model):
    answer = chat.chat.completions.create(model=model, messages=SUM, temperature=0)
    assert answer.choices[0].message.content == "17 + 25 = 42."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    again = chat.chat.completions.create(model=model, messages=SUM, temperature=0)
    assert again.usage.prompt_tokens_details.cached_tokens > 0


def test_a_stream_says_the_same(chat, model):
    request = dict(model=model, messages=[{"role": "user", "content": "Tell me a story."}], seed=7, max_tokens=120)
    whole = chat.chat.completions.create(**request).choices[0].message.content
    pieces, usage = [], None
    for chunk in chat.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    assert "".join(pieces) == whole
    assert len(pieces) > 10
    assert usage.completion_tokens > 10


def test_thoughts_are_apart(chat, model):
    question = [{"role": "user", "content": "What is 63 - 28?"}]
    request = dict(model=model, messages=question, temperature=0, extra_body={"enable_thinking": True})
    message = chat.chat.completions.create(**request).choices[0].message
    assert (message.reasoning_content, message.content) == ("This is a sum.", "63 - 28 = 35.")
    thoughts = ""
    for chunk in chat.chat.completions.create(**request, stream=True):
        thoughts += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
    assert thoughts == "This is a sum."


@pytest.mark.parametrize(("question", "name", "arguments", "expected"), demo_tools.ROUNDS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_told(chat, model, question, name, arguments, expected, stream):
    messages = [{"role": "user", "content": question}]
    request = dict(model=model, tools=demo_tools.CHAT, temperature=0)
    if stream:
        with chat.chat.completions.stream(messages=messages, **request) as events:
            choice = events.get_final_completion().choices[0]
    else:
        choice = chat.chat.completions.create(messages=messages, **request).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (name, arguments)
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": name, "arguments": call.function.arguments}},
        ]},
        {"role": "tool", "tool_call_id": call.id, "content": demo_tools.result(name, arguments)},
    ]
    answer = chat.chat.completions.create(messages=messages, **request)
    assert answer.choices[0].message.content == expected


def test_a_call_can_be_had_or_not(chat, model):
    hello = [{"role": "user", "content": "Hello!"}]
    request = dict(model=model, messages=hello, tools=demo_tools.CHAT, temperature=0, max_tokens=200)
    named = {"type": "function", "function": {"name": "add"}}
    for choice, names in [("required", set(demo_tools.SCHEMAS)), (named, {"add"})]:
        found = chat.chat.completions.create(**request, tool_choice=choice, parallel_tool_calls=False).choices[0]
        (call,) = found.message.tool_calls
        assert call.function.name in names
        arguments = json.loads(call.function.arguments)
        assert set(arguments) == set(demo_tools.SCHEMAS[call.function.name][1]["required"])
    assert all(isinstance(number, int) for number in arguments.values())
    question = [{"role": "user", "content": demo_tools.ROUNDS[0][0]}]
    none = chat.chat.completions.create(**{**request, "messages": question}, tool_choice="none").choices[0]
    assert none.message.tool_calls is None


def test_an_answer_is_an_object(chat, model):
    question = [{"role": "user", "content": "Write JSON for a person named Mia who is 34 years old."}]
    answer = chat.chat.completions.parse(model=model, messages=question, response_format=Person, temperature=0)
    assert answer.choices[0].message.parsed == Person(name="Mia", age=34)
    answer = chat.chat.completions.create(
        model=model, messages=question, response_format={"type": "json_object"}, temperature=0
    )
    assert json.loads(answer.choices[0].message.content) == {"name": "Mia", "age": 34}


def test_samples_and_logprobs(chat, model):
    answer = chat.chat.completions.create(
        model=model, messages=SUM, n=3, seed=1, logprobs=True, top_logprobs=2, max_tokens=8
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        tokens = choice.logprobs.content
        assert "".join(token.token for token in tokens).startswith(choice.message.content)
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)


def test_completions(chat, model):
    answer = chat.completions.create(model=model, prompt=["Once upon a time", "The capital of"], max_tokens=5, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1]
    echo = chat.completions.create(model=model, prompt="Once upon a time", echo=True, logprobs=1, max_tokens=0)
    choice = echo.choices[0]
    assert choice.text == "Once upon a time"
    assert choice.logprobs.token_logprobs[0] is None
    assert all(logprob <= 0 for logprob in choice.logprobs.token_logprobs[1:])
    tokens = [chunk.choices[0].text for chunk in chat.completions.create(
        model=model, prompt="Once upon a time", max_tokens=5, temperature=0, stream=True
    )]
    assert "".join(tokens) == answer.choices[0].text


def test_embeddings(chat, model):
    found = chat.embeddings.create(model=model, input=["a cat", "a cat", "many dogs"]).data
    assert found[0].embedding == found[1].embedding != found[2].embedding
    plain = chat.embeddings.create(model=model, input="a cat", encoding_format="float").data[0].embedding
    assert plain == pytest.approx(found[0].embedding)


def test_errors_are_the_clients_own(chat, server, model):
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server}/v1", api_key="wrong", max_retries=0).models.list()
    with pytest.raises(openai.NotFoundError) as error:
        chat.chat.completions.create(model="nobody", messages=SUM)
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as error:
        chat.chat.completions.create(model=model, messages=[])
    assert error.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as error:
        chat.chat.completions.create(model=model, messages=SUM, n=10**9)
    assert error.value.param == "n"
    with pytest.raises(openai.BadRequestError) as error:
        chat.chat.completions.create(model=model, messages=[{"role": "user", "content": "word " * 40_000}])
    assert error.value.code == "context_length_exceeded"
    assert KEY not in str(error.value)
