"""What transformers makes of a conversation, as it is and in the other forms that a template may want."""

import copy
import functools
import itertools
import json

from transformers.utils.chat_template_utils import render_jinja_template

SPECIAL = {"bos_token": "<zbos>", "eos_token": "<zeos>", "pad_token": "<zpad>", "unk_token": "<zunk>"}


class Absent:
    """No field at all."""


# The first of each is what transformers takes as it is: it drops null, and documents arguments as objects.
EMPTY = {"no content": Absent, "null": None, "empty text": "", "no parts": []}


def is_silent(message):
    """Whether a message calls and says nothing."""
    return bool(message.get("tool_calls")) and not message.get("content")


def with_empty(form):
    def change(chat):
        for message in filter(is_silent, chat["messages"]):
            message.pop("content", None)
            if EMPTY[form] is not Absent:
                message["content"] = copy.copy(EMPTY[form])
    return change


def arguments_as_text(chat):
    for message in chat["messages"]:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)


def parts_joined(chat):
    for message in chat["messages"]:
        if isinstance(message.get("content"), list) and message["content"]:
            message["content"] = "\n".join(part.get("text", part.get("refusal")) for part in message["content"])


def texts_as_parts(chat):
    for message in chat["messages"]:
        if isinstance(message.get("content"), str):
            message["content"] = [{"type": "text", "text": message["content"]}]


def refusals_as_text(chat):
    for message in chat["messages"]:
        if isinstance(message.get("content"), list):
            message["content"] = [{"type": "text", "text": part.get("text", part.get("refusal"))} for part in message["content"]]


def developer_as_system(chat):
    for message in chat["messages"]:
        message["role"] = "system" if message["role"] == "developer" else message["role"]


def as_text(content):
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def systems_joined(chat):
    """Those in front become one."""
    messages = chat["messages"]
    front = list(itertools.takewhile(lambda message: message["role"] == "system", messages))
    chat["messages"] = [{"role": "system", "content": "\n\n".join(message["content"] for message in front)}, *messages[len(front):]]


def all_systems_folded(chat):
    """All become the beginning of the user's next turn."""
    systems_folded(chat, True)


def systems_folded(chat, all_of_them=False):
    """Later ones become the beginning of the user's next turn."""
    kept, pending = [], ""
    for index, message in enumerate(chat["messages"]):
        is_later = any(before["role"] != "system" for before in chat["messages"][:index])
        if message["role"] == "system" and (is_later or all_of_them):
            pending += as_text(message["content"]) + "\n\n"
        elif message["role"] == "user" and pending:
            kept.append({**message, "content": pending + as_text(message["content"])})
            pending = ""
        else:
            kept.append(message)
    chat["messages"] = kept


def calls_in_turn(chat):
    """Each call becomes a message, followed by its result."""
    messages, arranged = chat["messages"], []
    for message in messages:
        if len(message.get("tool_calls", [])) < 2:
            arranged += [message] if message["role"] != "tool" or message not in arranged else []
            continue
        for call in message["tool_calls"]:
            arranged.append({**message, "tool_calls": [call]})
            arranged += [result for result in messages if result.get("tool_call_id") == call["id"]]
    chat["messages"] = arranged


def text_in_thoughts(chat):
    for message in chat["messages"]:
        if message.get("tool_calls") and message.get("content") and message.get("reasoning_content"):
            message["reasoning_content"] += "\n\n" + message.pop("content")


def text_before_calls(chat):
    """Text and calls become two messages."""
    arranged = []
    for message in chat["messages"]:
        if message.get("tool_calls") and message.get("content"):
            arranged.append({name: value for name, value in message.items() if name != "tool_calls"})
            message = {name: value for name, value in message.items() if name not in ("content", "reasoning_content")}
        arranged.append(message)
    chat["messages"] = arranged


def described(chat):
    for tool in chat["tools"]:
        tool["function"].setdefault("description", "")


@functools.cache
def takes_texts(template):
    """Whether contents may be texts."""
    text, _ = rendered(template, {"messages": [{"role": "user", "content": "zqtext"}]})
    return text is not None and "zqtext" in text


def options(template, chat):
    """The forms that this conversation can have: for each property the ways to write it, the first being as it is."""
    messages, as_it_is = chat["messages"], ("", lambda chat: None)
    silent = [message for message in messages if is_silent(message)]
    roles = [message["role"] for message in messages]
    lists = [part for message in messages if isinstance(message.get("content"), list) for part in message["content"]]
    found = []
    # Forms of content come last: they need what the others leave.
    if roles.count("system") > 1 and roles[1] == "system":
        found.append([as_it_is, ("systems joined", systems_joined)])
    if "system" in roles[1:] and roles[1] != "system":
        found.append([as_it_is, ("systems folded", systems_folded)])
    if "system" in roles or "developer" in roles:
        found.append([
            as_it_is, ("all systems folded", lambda chat: (developer_as_system(chat), all_systems_folded(chat)))])
    if "developer" in roles:
        found.append([as_it_is, ("developer as system", developer_as_system)])
    if any(len(message.get("tool_calls", [])) > 1 for message in messages):
        found.append([as_it_is, ("calls in turn", calls_in_turn)])
    if any(message.get("tool_calls") and message.get("content") and message.get("reasoning_content") for message in messages):
        found.append([as_it_is, ("text in thoughts", text_in_thoughts)])
    if any(message.get("tool_calls") and message.get("content") for message in messages):
        found.append([as_it_is, ("text before calls", text_before_calls)])
    if silent or any(option[1][0] in ("text in thoughts", "text before calls") for option in found):
        given = next((message.get("content") for message in silent), None)
        first = "no content" if given is None else "no parts" if given == [] else "empty text"
        names = [first, *(name for name in EMPTY if name != first)]
        found.append([("" if name == first else name, with_empty(name)) for name in names])
    if any(message.get("tool_calls") for message in messages):
        found.append([as_it_is, ("arguments as text", arguments_as_text)])
    if any("refusal" in part for part in lists):
        found.append([
            as_it_is, ("refusal as text", refusals_as_text), ("parts joined", parts_joined),
            ("texts as parts", lambda chat: (refusals_as_text(chat), texts_as_parts(chat)))])
    elif lists:
        found.append([as_it_is, ("parts joined", parts_joined), ("texts as parts", texts_as_parts)])
    elif not takes_texts(template):
        found.append([as_it_is, ("texts as parts", texts_as_parts)])
    if any("description" not in tool["function"] for tool in chat.get("tools", [])):
        found.append([as_it_is, ("description of nothing", described)])
    return found


def may_lose(chat):
    """Whether there are templates that leave out some of it, or write a word for nothing, as it is."""
    messages = chat["messages"]
    roles = [message["role"] for message in messages]
    calls = [message for message in messages if message.get("tool_calls")]
    return any(is_silent(message) or len(message["tool_calls"]) > 1 or message.get("content") for message in calls) \
        or "system" in roles or "developer" in roles


def forms(template, chat):
    """(Name, conversation) of all forms, those nearest to the given one first; the first is as it is."""
    combinations = list(itertools.product(*options(template, chat)))
    combinations.sort(key=lambda combination: sum(name != "" for name, _ in combination))
    for combination in combinations:
        changed = copy.deepcopy(chat)
        for _, change in combination:
            change(changed)
        yield " + ".join(name for name, _ in combination if name), changed


def rendered(template, chat):
    """(Text, None), or (None, error)."""
    flags = {"enable_thinking": chat["enable_thinking"], "thinking": chat["enable_thinking"]} if "enable_thinking" in chat else {}
    try:
        texts, _ = render_jinja_template(
            conversations=[copy.deepcopy(chat["messages"])], tools=chat.get("tools"), chat_template=template,
            add_generation_prompt=chat.get("add_generation_prompt", "continue_final_message" not in chat),
            continue_final_message=chat.get("continue_final_message", False), **SPECIAL, **flags)
        return texts[0], None
    except Exception as error:  # whatever a template does
        return None, f"{type(error).__name__}: {error}"


def continuations(template, chat):
    """The prompt of an answer, with its beginning after it: what a server can continue."""
    before = {**chat, "messages": chat["messages"][:-1], "enable_thinking": False}
    del before["continue_final_message"]
    for name, form in forms(template, before):
        prompt, _ = rendered(template, form)
        if prompt is None:
            continue
        begun = chat["messages"][-1]["content"]
        name = f"{name} + begun answer" if name else "begun answer"
        yield name, prompt + begun
        yield name, prompt.rstrip() + "\n</think>\n\n" + begun
        yield name, prompt + "<|channel|>final<|message|>" + begun
