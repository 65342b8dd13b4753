"""pydantic-ai's agents, over chat completions and over responses."""

import asyncio

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, PromptedOutput, ToolCallPart, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

import demo_tools
from serving import KEY

MIA = "Write JSON for a person named Mia who is 34 years old."


class Person(BaseModel):
    name: str
    age: int


def get_weather(city: str) -> str:
    """Get the weather of a city

    Args:
        city: The city
    """
    return demo_tools.result("get_weather", {"city": city})


def add(a: int, b: int) -> str:
    """Add two numbers"""
    return demo_tools.result("add", {"a": a, "b": b})


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel], ids=["chat", "responses"])
def agent(request, server, model):
    def made(name=model, **options):
        client = AsyncOpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0)
        settings = {"temperature": 0, **options.pop("settings", {})}
        return Agent(request.param(name, provider=OpenAIProvider(openai_client=client)), model_settings=settings, **options)

    return made


def run(agent, question, **options):
    return asyncio.run(agent.run(question, **options))


async def streamed(agent, question):
    async with agent.run_stream(question) as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    return "".join(pieces), result.all_messages(), result.usage


def calls(messages):
    return [part for message in messages for part in message.parts if isinstance(part, ToolCallPart)]


def test_a_question_is_answered_and_counted(agent):
    result = run(agent(), "What is 17 + 25?")
    assert result.output == "17 + 25 = 42."
    usage = result.usage
    assert usage.requests == 1 and usage.output_tokens > 5 and usage.input_tokens > 5


def test_a_stream_says_the_same(agent):
    text, _, usage = asyncio.run(streamed(agent(), "What is 17 + 25?"))
    assert text == "17 + 25 = 42."
    assert usage.output_tokens > 5


@pytest.mark.parametrize(("tool", "round"), [(get_weather, 0), (add, 2)], ids=["text", "numbers"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_told(agent, tool, round, stream):
    question, name, arguments, expected = demo_tools.ROUNDS[round]
    made = agent(tools=[tool])
    if stream:
        output, messages, _ = asyncio.run(streamed(made, question))
    else:
        result = run(made, question)
        output, messages = result.output, result.all_messages()
    assert [(call.tool_name, call.args_as_dict()) for call in calls(messages)] == [(name, arguments)]
    assert output == expected


@pytest.mark.parametrize("output", [NativeOutput, ToolOutput, PromptedOutput])
def test_an_answer_is_an_object(agent, output):
    if output is PromptedOutput:
        pytest.skip("the demo does not follow a schema that is only in its prompt")
    assert isinstance(run(agent(output_type=output(Person)), MIA).output, Person)


def test_an_answer_is_an_object_beside_tools(agent):
    assert isinstance(run(agent(output_type=NativeOutput(Person), tools=[get_weather]), MIA).output, Person)


def test_a_conversation_is_played_back(agent):
    first = run(agent(tools=[get_weather]), demo_tools.ROUNDS[0][0])
    second = run(agent(), "What is 17 + 25?", message_history=first.all_messages())
    assert second.output == "17 + 25 = 42."


def test_a_refused_request_says_why(agent):
    with pytest.raises(ModelHTTPError) as error:
        run(agent(settings={"temperature": -1}), "Hello")
    assert error.value.status_code == 400 and "temperature" in str(error.value)
    with pytest.raises(ModelHTTPError) as error:
        run(agent("nobody"), "Hello")
    assert error.value.status_code == 404
