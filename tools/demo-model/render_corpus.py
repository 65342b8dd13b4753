"""Joins a corpus (one JSON document a line, from make_corpus.py) into one text, as train_demo.py renders it.

    python render_corpus.py corpus.jsonl > corpus.txt
"""
import argparse, json, os, sys

from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))


def render(doc, template):
    if "text" in doc: return doc["text"] + "<|endoftext|>"
    return template.render(messages=doc["messages"], tools=doc.get("tools")) + "<|endoftext|>"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("corpus")
    o = p.parse_args()
    template = ImmutableSandboxedEnvironment().from_string(open(os.path.join(HERE, "chat_template.jinja")).read())
    with open(o.corpus) as f:
        for line in f:
            sys.stdout.write(render(json.loads(line), template))


if __name__ == "__main__":
    main()
