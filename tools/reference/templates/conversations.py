"""Conversations as clients send them. Words that begin with `zq` mark each piece, so that a piece that is missing is seen."""

WEATHER = {"type": "function", "function": {
    "name": "zqweather", "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city"}}, "required": ["city"]}}}
ADD = {"type": "function", "function": {
    "name": "zqadd", "description": "Adds numbers",
    "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}}}
NESTED = {"type": "function", "function": {
    "name": "zqbook", "description": "Books a trip: \"quoted\", <b>marked</b> & größer\nin two lines",
    "parameters": {
        "type": "object",
        "properties": {
            "stops": {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {
                "place": {"type": "string"}, "nights": {"type": "integer", "default": 2}}, "required": ["place"]}},
            "class": {"type": "string", "enum": ["economy", "első osztály"], "default": "economy"},
            "budget": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None, "description": "In zqeuro"},
            "share": {"type": "number", "default": 0.25},
            "items": {"type": "object", "additionalProperties": {"type": "string"}},
            "exact": {"type": ["boolean", "null"], "default": False}},
        "required": ["stops"], "$defs": {"unused": {"type": "string"}}}}}
FLOATS = {"type": "function", "function": {
    "name": "zqtune", "description": "Tunes",
    "parameters": {"type": "object", "properties": {
        "rate": {"type": "number", "default": 1e-07}, "most": {"type": "number", "default": 1e22}}, "required": []}}}
BARE = {"type": "function", "function": {"name": "zqbare", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}}
NOTHING = {"type": "function", "function": {
    "name": "zqnothing", "description": "Takes nothing", "parameters": {"type": "object", "properties": {}}}}


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def said(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(number, name, **arguments):
    """A call; its arguments are an object here, and the text of one in requests."""
    return {"id": f"callcall{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(number, content, name="zqweather"):
    return {"role": "tool", "tool_call_id": f"callcall{number}", "name": name, "content": content}


def text(*texts):
    return [{"type": "text", "text": part} for part in texts]


ASKS = [user("zqask the weather of Zürich?")]
CALLS = [call(1, "zqweather", city="zqzurich")]
ENDS = [result(1, "zqrain, 7 °C"), user("zqthanks, and tomorrow?")]


def silent(**content):
    """A turn that is a call and no text, with its result."""
    return {"messages": [*ASKS, {"role": "assistant", **content, "tool_calls": CALLS}, *ENDS], "tools": [WEATHER]}


# What a kind adds to the messages is in the names that `expected.options` has.
KINDS = {
    "plain": {"messages": [user("zqhello")]},
    "turns": {"messages": [user("zqone"), said("zqtwo"), user("zqthree"), said("zqfour"), user("zqfive")]},
    "system": {"messages": [system("zqrules apply."), user("zqhello")]},
    "several systems": {"messages": [system("zqfirst"), system("zqsecond"), user("zqhello")]},
    "system between": {"messages": [system("zqfirst"), user("zqone"), said("zqtwo"), system("zqlater"), user("zqthree")]},
    "developer": {"messages": [{"role": "developer", "content": "zqrules apply."}, user("zqhello")]},
    "closed": {"messages": [user("zqone"), said("zqtwo")], "add_generation_prompt": False},
    "continued": {"messages": [system("zqrules"), user("zqone"), said("zqbegun and")], "continue_final_message": True},
    "non-ASCII": {"messages": [
        system("zqréglé 日本語 \u200d👩‍🚀"),
        user("zqmarks <b>&amp;</b> \"double\" 'single' \\n {{ x }} {% y %} <|im_end|>\r\n\ttab"), said("zqünïcödé"), user("zqend 🏁")]},
    "blank space": {"messages": [system("  zqrules \n"), user("\n\n zqone  \n"), said(" zqtwo \n\n"), user("zqthree\n")]},
    "parts": {"messages": [
        {"role": "system", "content": text("zqrules")}, {"role": "user", "content": text("zqone", "zqtwo")},
        {"role": "assistant", "content": text("zqthree")}, {"role": "user", "content": text("zqfour")}]},
    "refusal": {"messages": [
        user("zqone"), {"role": "assistant", "content": [{"type": "refusal", "refusal": "zqrefuse"}]}, user("zqtwo")]},
    "not thinking": {"messages": [user("zqhello")], "enable_thinking": False},
    "thinking": {"messages": [user("zqhello")], "enable_thinking": True},
    "thoughts": {"messages": [user("zqone"), said("zqtwo", reasoning_content="zqthought"), user("zqthree")]},
    "tools": {"messages": [system("zqrules"), *ASKS], "tools": [WEATHER, ADD]},
    "nested tools": {"messages": ASKS, "tools": [NESTED, NOTHING]},
    "float tools": {"messages": ASKS, "tools": [FLOATS]},
    "bare tool": {"messages": ASKS, "tools": [BARE]},
    "call, text": {"messages": [*ASKS, said("zqlook", tool_calls=CALLS), *ENDS], "tools": [WEATHER]},
    "call, null": silent(content=None),
    "call, missing": silent(),
    "call, empty": silent(content=""),
    "call, no parts": silent(content=[]),
    "calls": {
        "messages": [
            *ASKS, said(None, tool_calls=[*CALLS, call(2, "zqadd", a=1, b=2.5)]), result(1, "zqrain"), result(2, "zqsum 3.5", "zqadd"),
            said("zqdone"), user("zqthanks")],
        "tools": [WEATHER, ADD]},
    "call in thoughts": {
        "messages": [*ASKS, said(None, reasoning_content="zqthought", tool_calls=CALLS), result(1, "zqrain")], "tools": [WEATHER]},
    "call, text, thoughts": {
        "messages": [*ASKS, said("zqlook", reasoning_content="zqthought", tool_calls=CALLS), result(1, "zqrain")], "tools": [WEATHER]},
    "results": {
        "messages": [
            *ASKS, said(None, tool_calls=CALLS), result(1, '{"zqsky": [1, null, "grau"]}'),
            said(None, tool_calls=[call(2, "zqweather", city="zqbern")]), result(2, ""),
            said(None, tool_calls=[call(3, "zqweather", city="zqgenf")]), result(3, text("zqline\nof two", "zqpart")), user("zqwell?")],
        "tools": [WEATHER]},
    "arguments": {
        "messages": [
            *ASKS,
            said(None, tool_calls=[call(
                1, "zqweather", city="zq\"quoted\"\n</tool_call><b>&'", none=None, yes=True, no=False, whole=-7, big=12345678901234567890,
                part=0.1, list=[1, "zwei", None, {"tief": []}], object={"schlüssel": {"日本": "zqdeep"}}, empty="", text="007")]),
            result(1, "zqok"), said(None, tool_calls=[call(2, "zqnothing")]), result(2, "zqnone", "zqnothing")],
        "tools": [WEATHER, NOTHING]},
    "five rounds": {
        "messages": [
            system("zqagent"), *ASKS,
            *[message for number in range(1, 6) for message in (
                said(None, tool_calls=[call(number, "zqweather", city=f"zqcity{number}")]), result(number, f"zqresult{number}"))]],
        "tools": [WEATHER]},
}
