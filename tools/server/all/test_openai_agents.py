"""openai-agents: agents over chat completions and over responses."""

import asyncio
import json

import openai
import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from agents.items import ToolCallItem
from pydantic import BaseModel

import demo_tools
from serving import KEY

set_tracing_disabled(True)
GREEDY = ModelSettings(temperature=0, include_usage=True)


class Person(BaseModel):
    name: str
    age: int


@function_tool
def get_weather(city: str) -> str:
    """Get the weather of a city

    Args:
        city: The city
    """
    return demo_tools.result("get_weather", {"city": city})


@function_tool
def add(a: int, b: int) -> str:
    """Add two numbers"""
    return demo_tools.result("add", {"a": a, "b": b})


@pytest.fixture(params=[OpenAIChatCompletionsModel, OpenAIResponsesModel], ids=["chat", "responses"])
def agent(request, server, model):
    def made(**options):
        client = openai.AsyncOpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0)
        settings = options.pop("model_settings", GREEDY)
        return Agent(name="demo", model=request.param(model, client), model_settings=settings, **options)

    return made


def run(agent, question, **options):
    return asyncio.run(Runner.run(agent, question, **options))


async def streamed(agent, question):
    result = Runner.run_streamed(agent, question)
    events = [event async for event in result.stream_events()]
    return result, events


def test_a_question_is_answered_and_counted(agent):
    result = run(agent(), "What is 17 + 25?")
    assert result.final_output == "17 + 25 = 42."
    usage = result.context_wrapper.usage
    assert usage.requests == 1 and usage.output_tokens > 5
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_a_stream_says_the_same(agent):
    result, events = asyncio.run(streamed(agent(), "What is 17 + 25?"))
    raw = [event.data for event in events if event.type == "raw_response_event"]
    deltas = [data.delta for data in raw if data.type == "response.output_text.delta"]
    assert "".join(deltas) == result.final_output == "17 + 25 = 42."
    assert result.context_wrapper.usage.output_tokens > 5


@pytest.mark.parametrize(("tool", "round"), [(get_weather, 0), (add, 2)], ids=["text", "numbers"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_told(agent, tool, round, stream):
    question, name, arguments, expected = demo_tools.ROUNDS[round]
    if stream:
        result, _ = asyncio.run(streamed(agent(tools=[tool]), question))
    else:
        result = run(agent(tools=[tool]), question)
    calls = [item.raw_item for item in result.new_items if isinstance(item, ToolCallItem)]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [(name, arguments)]
    assert result.final_output == expected


def test_an_answer_is_an_object(agent):
    result = run(agent(output_type=Person), "Write JSON for a person named Mia who is 34 years old.")
    assert result.final_output == Person(name="Mia", age=34)


def test_an_answer_is_an_object_beside_tools(agent):
    made = agent(output_type=Person, tools=[get_weather])
    result = run(made, "Write JSON for a person named Mia who is 34 years old.")
    assert isinstance(result.final_output, Person)


def test_a_tool_is_called_because_it_must_be(agent):
    settings = ModelSettings(temperature=0, tool_choice="required", parallel_tool_calls=False)
    result = run(agent(tools=[get_weather], model_settings=settings, tool_use_behavior="stop_on_first_tool"), "Hello!")
    assert json.loads(result.final_output)["weather"] == "sunny"


def test_a_session_is_played_back(agent):
    session = SQLiteSession("test")
    run(agent(tools=[get_weather]), demo_tools.ROUNDS[0][0], session=session)
    result = run(agent(), "What is 17 + 25?", session=session)
    assert result.final_output == "17 + 25 = 42."


def test_an_agent_hands_over_to_another(agent):
    other = agent()
    settings = ModelSettings(temperature=0, tool_choice="required")
    result = run(agent(handoffs=[other], model_settings=settings), "What is 17 + 25?")
    assert result.last_agent is other
    assert "42" in result.final_output or result.final_output


def test_a_refused_request_says_why(agent):
    settings = ModelSettings(temperature=-1)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        run(agent(model_settings=settings), "Hello")
