"""LangGraph: an agent with tools and a memory, and a graph of its own."""

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

import demo_tools
from test_langchain import KINDS, add, get_weather


@pytest.fixture(params=KINDS)
def graph(request, server, model):
    """A model that may call tools until it answers."""
    bound = KINDS[request.param](server, model).bind_tools([get_weather, add])
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [bound.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([get_weather, add]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition, {"tools": "tools", END: END})
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=InMemorySaver())


def ask(graph, question):
    return graph.invoke({"messages": [("user", question)]}, {"configurable": {"thread_id": "1"}})["messages"]


@pytest.mark.parametrize("round", [0, 2], ids=["text", "numbers"])
def test_a_tool_is_called_and_its_result_told(graph, round):
    question, name, arguments, expected = demo_tools.ROUNDS[round]
    user, call, result, answer = ask(graph, question)
    assert [(call["name"], call["args"]) for call in call.tool_calls] == [(name, arguments)]
    assert answer.text == expected


def test_a_second_question_follows_the_first(graph):
    ask(graph, demo_tools.ROUNDS[0][0])
    messages = ask(graph, demo_tools.ROUNDS[2][0])
    assert len(messages) == 8
    assert messages[3].text == demo_tools.ROUNDS[0][3]
    assert messages[-1].text


def test_tokens_stream_through_the_graph(graph):
    request = {"messages": [("user", demo_tools.ROUNDS[0][0])]}
    pieces = graph.stream(request, {"configurable": {"thread_id": "1"}}, stream_mode="messages")
    texts = [piece.text for piece, where in pieces if where["langgraph_node"] == "model"]
    assert "".join(texts) == demo_tools.ROUNDS[0][3]
    assert len(texts) > 2
