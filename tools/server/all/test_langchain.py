"""LangChain's chat models and LangGraph's agents, over each of the APIs."""

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

import demo_tools
from serving import KEY


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return demo_tools.result("get_weather", {"city": city})


@tool
def add(a: int, b: int) -> str:
    """Add two numbers"""
    return demo_tools.result("add", {"a": a, "b": b})


MIA = "Write JSON for a person named Mia who is 34 years old."


def chat(server, model, **options):
    return ChatOpenAI(model=model, base_url=f"{server}/v1", api_key=KEY, temperature=0, max_retries=0, **options)


def anthropic(server, model):
    from langchain_anthropic import ChatAnthropic

    # The client no longer has a field for it.
    return ChatAnthropic(
        model=model, base_url=server, api_key=KEY, max_retries=0, max_tokens=200, model_kwargs={"extra_body": {"temperature": 0}}
    )


def ollama(server, model):
    from langchain_ollama import ChatOllama

    headers = {"Authorization": f"Bearer {KEY}"}
    return ChatOllama(model=model, base_url=server, temperature=0, client_kwargs={"headers": headers})


KINDS = {
    "chat": chat,
    "responses": lambda server, model: chat(server, model, use_responses_api=True, output_version="responses/v1"),
    "anthropic": anthropic,
    "ollama": ollama,
}


@pytest.fixture(params=KINDS)
def llm(request, server, model):
    return KINDS[request.param](server, model)


def test_a_question_is_answered_and_counted(llm):
    answer = llm.invoke([SystemMessage("Be brief."), HumanMessage("What is 17 + 25?")])
    assert "42" in answer.text
    usage = answer.usage_metadata
    assert usage["output_tokens"] > 5
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_a_stream_says_the_same(llm):
    whole = None
    for chunk in llm.stream("What is 17 + 25?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.text == "17 + 25 = 42."


def test_batches(llm):
    answers = llm.batch(["What is 17 + 25?", "What is the capital of Norway?"])
    assert [answer.text for answer in answers] == ["17 + 25 = 42.", "The capital of Norway is Oslo."]


@pytest.mark.parametrize(("function", "round"), [(get_weather, 0), (add, 2)], ids=["text", "numbers"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_told(llm, function, round, stream):
    question, name, arguments, expected = demo_tools.ROUNDS[round]
    bound = llm.bind_tools([function])
    asked = HumanMessage(question)
    if stream:
        message = None
        for chunk in bound.stream([asked]):
            message = chunk if message is None else message + chunk
        message = AIMessage(content=message.content, tool_calls=message.tool_calls)
    else:
        message = bound.invoke([asked])
    (call,) = message.tool_calls
    assert (call["name"], call["args"]) == (name, arguments)
    result = ToolMessage(function.invoke(call["args"]), tool_call_id=call["id"])
    assert bound.invoke([asked, message, result]).text == expected


def test_an_answer_is_an_object(llm):
    assert llm.with_structured_output(Person, method="json_schema").invoke(MIA) == Person(name="Mia", age=34)


def test_an_object_is_a_call(llm, request):
    if "ollama" in request.node.name:
        pytest.skip("Ollama's API cannot require a call")
    found = llm.with_structured_output(Person, method="function_calling").invoke(MIA)
    assert isinstance(found, Person)


def test_an_answer_is_an_object_beside_tools(server, model):
    bound = chat(server, model).with_structured_output(Person, method="json_schema", strict=True, tools=[get_weather], include_raw=True)
    assert bound.invoke(MIA)["parsed"] == Person(name="Mia", age=34)


def test_reasoning_is_told(server, model):
    reasoning = {"effort": "low", "summary": "auto"}
    answer = chat(server, model, reasoning=reasoning, output_version="responses/v1").invoke("What is 63 - 28?")
    assert answer.text == "63 - 28 = 35."
    assert [block["type"] for block in answer.content_blocks] == ["reasoning", "text"]
    assert answer.usage_metadata["output_token_details"]["reasoning"] > 0


def test_logprobs(server, model):
    answer = chat(server, model, logprobs=True, top_logprobs=2).invoke("What is 17 + 25?")
    tokens = answer.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens).startswith(answer.text)


def test_completions_and_embeddings(server, model):
    address = dict(base_url=f"{server}/v1", api_key=KEY, max_retries=0)
    assert OpenAI(model=model, temperature=0, max_tokens=8, **address).invoke("The capital of")
    # Its own tokenizer is OpenAI's: without the check, texts are sent as they are.
    embeddings = OpenAIEmbeddings(model=model, check_embedding_ctx_length=False, **address)
    vectors = embeddings.embed_documents(["one", "two"])
    assert len(vectors) == 2 and len(vectors[0]) == len(vectors[1]) > 8


def test_a_refused_request_says_why(server, model):
    with pytest.raises(openai.BadRequestError, match="top_logprobs"):
        chat(server, model, logprobs=True, top_logprobs=1000).invoke("Hello")
    with pytest.raises(openai.NotFoundError):
        chat(server, "nobody").invoke("Hello")
