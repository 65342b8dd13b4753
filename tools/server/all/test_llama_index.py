"""LlamaIndex, by its class for servers with OpenAI's API."""

import asyncio

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from openai import BadRequestError, NotFoundError
from pydantic import BaseModel

import demo_tools
from serving import KEY


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return demo_tools.result("get_weather", {"city": city})


@pytest.fixture
def llm(server, model):
    return made(server, model)


def made(server, model, **options):
    address = dict(api_base=f"{server}/v1", api_key=KEY, max_retries=0)
    kind = dict(is_chat_model=True, is_function_calling_model=True, context_window=4096)
    return OpenAILike(model=model, temperature=0, **address, **{**kind, **options})


def test_a_question_is_answered_and_counted(llm):
    answer = llm.chat([ChatMessage("What is 17 + 25?")])
    assert answer.message.content == "17 + 25 = 42."
    assert answer.additional_kwargs["completion_tokens"] > 5
    assert llm.complete("What is 17 + 25?").text == "17 + 25 = 42."


def test_a_stream_says_the_same(llm):
    pieces = list(llm.stream_chat([ChatMessage("What is 17 + 25?")]))
    assert "".join(piece.delta or "" for piece in pieces) == "17 + 25 = 42."


def test_a_tool_is_called_and_its_result_told(llm):
    question, name, arguments, expected = demo_tools.ROUNDS[0]
    tool = FunctionTool.from_defaults(get_weather, name=name, description="Get the weather of a city")
    asked = ChatMessage(question)
    answer = llm.chat_with_tools([tool], chat_history=[asked])
    (call,) = llm.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == (name, arguments)
    result = ChatMessage(role="tool", content=get_weather(**arguments), additional_kwargs={"tool_call_id": call.tool_id})
    assert llm.chat_with_tools([tool], chat_history=[asked, answer.message, result]).message.content == expected


def test_an_agent_calls_a_tool(llm):
    question, _, _, expected = demo_tools.ROUNDS[0]

    async def run():
        tool = FunctionTool.from_defaults(get_weather, description="Get the weather of a city")
        return str(await FunctionAgent(tools=[tool], llm=llm).run(question))

    assert asyncio.run(run()) == expected


def test_an_answer_is_an_object(server, model):
    question = "Write JSON for a person named Mia who is 34 years old."
    for options in [dict(should_use_structured_outputs=True), {}]:
        found = made(server, model, **options).as_structured_llm(Person).complete(question).raw
        assert isinstance(found, Person)


def test_a_text_is_continued(server, model):
    assert made(server, model, is_chat_model=False, max_tokens=5).complete("The capital of").text


def test_a_refused_request_says_why(server, model):
    with pytest.raises(NotFoundError, match="nobody"):
        made(server, "nobody").complete("Hello")
    with pytest.raises(BadRequestError, match="top_logprobs"):
        made(server, model, additional_kwargs={"logprobs": True, "top_logprobs": 1000}).complete("Hello")
