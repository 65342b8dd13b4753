"""litellm, which asks the server through each provider that people set for servers of their own."""

import json

import litellm
import pytest
from pydantic import BaseModel

import demo_tools
from serving import KEY

litellm.suppress_debug_info = True
litellm.num_retries = 0


class Person(BaseModel):
    name: str
    age: int


PROVIDERS = ["openai", "hosted_vllm", "lm_studio", "anthropic", "ollama_chat"]


@pytest.fixture(params=PROVIDERS)
def ask(request, server, model):
    """Asks through a provider."""
    provider = request.param
    base = server if provider in ("anthropic", "ollama_chat") else f"{server}/v1"

    def ask(messages, **options):
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        options = {"temperature": 0, "max_tokens": 200, **options}
        name = options.pop("name", model)
        return litellm.completion(f"{provider}/{name}", messages=messages, api_base=base, api_key=KEY, **options)

    ask.provider = provider
    return ask


def test_a_question_is_answered_and_counted(ask):
    answer = ask("What is 17 + 25?")
    assert answer.choices[0].message.content == "17 + 25 = 42."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 5


def test_a_stream_says_the_same(ask):
    pieces = list(ask("What is 17 + 25?", stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == "17 + 25 = 42."
    whole = litellm.stream_chunk_builder(pieces)
    assert whole.choices[0].message.content == text and whole.usage.completion_tokens > 5


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("round", [0, 2], ids=["text", "numbers"])
def test_a_tool_is_called_and_its_result_told(ask, round, stream):
    question, name, arguments, expected = demo_tools.ROUNDS[round]
    messages = [{"role": "user", "content": question}]
    answer = ask(messages, tools=demo_tools.CHAT, stream=stream)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer))
    message = answer.choices[0].message
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (name, arguments)
    result = {"role": "tool", "tool_call_id": call.id, "name": name, "content": demo_tools.result(name, arguments)}
    answer = ask([*messages, message.model_dump(exclude_none=True), result], tools=demo_tools.CHAT)
    assert answer.choices[0].message.content == expected


def test_an_answer_is_an_object(ask):
    answer = ask("Write JSON for a person named Mia who is 34 years old.", response_format=Person)
    found = Person.model_validate_json(answer.choices[0].message.content)
    # To Anthropic's API litellm sends a tool in place of the schema, and the demo knows nothing of what to write into it.
    assert ask.provider == "anthropic" or found == Person(name="Mia", age=34)


def test_errors_are_the_clients_own(ask):
    with pytest.raises(litellm.NotFoundError, match="nobody"):
        ask("Hello", name="nobody")
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        ask("Hello", temperature=-1)


def test_responses_texts_and_embeddings(server, model):
    address = dict(api_base=f"{server}/v1", api_key=KEY)
    response = litellm.responses(input="What is 17 + 25?", model=f"openai/{model}", temperature=0, **address)
    assert response.output[-1].content[0].text == "17 + 25 = 42."
    text = litellm.text_completion(model=f"text-completion-openai/{model}", prompt="The capital of", max_tokens=5, **address)
    assert text.choices[0].text
    vectors = litellm.embedding(model=f"openai/{model}", input=["one", "two"], **address).data
    assert len(vectors) == 2


def test_thoughts_are_apart(server, model):
    question = [{"role": "user", "content": "What is 63 - 28?"}]
    address = dict(api_base=f"{server}/v1", api_key=KEY, temperature=0)
    message = litellm.completion(f"hosted_vllm/{model}", messages=question, reasoning_effort="low", **address).choices[0].message
    assert (message.reasoning_content, message.content) == ("This is a sum.", "63 - 28 = 35.")
