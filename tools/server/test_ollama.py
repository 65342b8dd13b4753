"""Ollama's API, with its own client."""

import ollama
import pytest
from pydantic import BaseModel

import demo_tools
from serving import KEY

GREEDY = {"temperature": 0}
MIA = "Write JSON for a person named Mia who is 34 years old."
TOOLS = [{"type": "function", "function": tool["function"]} for tool in demo_tools.CHAT]


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def client(server):
    return ollama.Client(server, headers={"Authorization": f"Bearer {KEY}"})


def ask(question):
    return [{"role": "user", "content": question}]


def test_a_question_is_answered_and_counted(client, model):
    answer = client.chat(model, ask("What is 17 + 25?"), options=GREEDY)
    assert (answer.message.content, answer.done, answer.done_reason) == ("17 + 25 = 42.", True, "stop")
    assert answer.eval_count > 5 and answer.prompt_eval_count > 5 and answer.total_duration > 0


def test_a_stream_says_the_same(client, model):
    pieces = list(client.chat(model, ask("What is 17 + 25?"), options=GREEDY, stream=True))
    assert "".join(piece.message.content for piece in pieces) == "17 + 25 = 42."
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].eval_count > 5


def test_a_prompt_is_continued(client, model):
    whole = client.generate(model, "What is 17 + 25?", options=GREEDY)
    assert whole.response == "17 + 25 = 42."
    assert client.generate(model, "The capital of", raw=True, options={**GREEDY, "num_predict": 5}).response
    pieces = client.generate(model, "What is 17 + 25?", options=GREEDY, stream=True)
    assert "".join(piece.response for piece in pieces) == whole.response


def test_thoughts_are_apart(client, model):
    message = client.chat(model, ask("What is 63 - 28?"), options=GREEDY, think=True).message
    assert (message.thinking, message.content) == ("This is a sum.", "63 - 28 = 35.")


@pytest.mark.parametrize(("question", "name", "arguments", "expected"), demo_tools.ROUNDS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_told(client, model, question, name, arguments, expected, stream):
    messages = ask(question)
    if stream:
        pieces = client.chat(model, messages, tools=TOOLS, options=GREEDY, stream=True)
        calls = [call for piece in pieces for call in piece.message.tool_calls or []]
        said = ollama.Message(role="assistant", content="", tool_calls=calls)
    else:
        said = client.chat(model, messages, tools=TOOLS, options=GREEDY).message
        calls = said.tool_calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [(name, arguments)]
    messages += [said, {"role": "tool", "tool_name": name, "content": demo_tools.result(name, arguments)}]
    assert client.chat(model, messages, tools=TOOLS, options=GREEDY).message.content == expected


def test_a_tool_is_a_function(client, model):
    def get_weather(city: str) -> str:
        """Get the weather of a city

        Args:
            city: The city
        """
        return demo_tools.result("get_weather", {"city": city})

    (call,) = client.chat(model, ask(demo_tools.ROUNDS[0][0]), tools=[get_weather], options=GREEDY).message.tool_calls
    assert call.function.arguments == {"city": "Oslo"}


def test_an_answer_is_an_object(client, model):
    for format in [Person.model_json_schema(), "json"]:
        answer = client.chat(model, ask(MIA), format=format, options=GREEDY)
        assert Person.model_validate_json(answer.message.content) == Person(name="Mia", age=34)


def test_models_are_listed_and_shown(client, model):
    (listed,) = client.list().models
    assert listed.model.removesuffix(":latest") == model and listed.size > 0
    shown = client.show(model)
    assert {"completion", "tools"} <= set(shown.capabilities)
    assert shown.modelinfo
    # Reports the models in memory.
    assert [running.model.removesuffix(":latest") for running in client.ps().models] == [model]


def test_embeddings(client, model):
    vectors = client.embed(model, ["one", "two"]).embeddings
    assert len(vectors) == 2 and len(vectors[0]) == len(vectors[1]) > 8


def test_errors_are_the_clients_own(client, server, model):
    with pytest.raises(ollama.ResponseError) as error:
        client.chat("nobody", ask("Hello"))
    assert error.value.status_code == 404 and "nobody" in error.value.error
    with pytest.raises(ollama.ResponseError) as error:
        client.chat(model, [{"role": "user", "content": "Hello", "images": [b"\x89PNG"]}])
    assert error.value.status_code == 400
    with pytest.raises(ollama.ResponseError) as error:
        list(client.chat("nobody", ask("Hello"), stream=True))
    assert error.value.status_code == 404
    with pytest.raises(ollama.ResponseError) as error:
        ollama.Client(server, headers={"Authorization": "Bearer wrong"}).list()
    assert error.value.status_code == 401
