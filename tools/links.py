#!/usr/bin/env python3
"""Checks the links of the documentation.

- Every relative link in a Markdown file leads to a file or folder, and its anchor to a heading of that file.
- Every page under docs/ is in docs/SUMMARY.md, and links to nothing outside docs/, since mdBook publishes that folder alone.
- Every path docs/… that a file of the repository mentions exists.

Usage: tools/links.py [FOLDER]     FOLDER is the repository's root, by default the one that this file is in.
Prints each fault as FILE:LINE: what is wrong, and exits with 1 if there is any.
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?([^()\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$")
SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*:")
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$")
MENTION = re.compile(r"(?<![\w/.-])docs/[\w/.-]*\.(?:md|svg|png|toml)")
TEXT = {".md", ".rs", ".py", ".sh", ".toml", ".mjs", ".js", ".service", ".yml", ".wgsl", ""}
"""Suffixes of files whose mentions of docs/… are checked."""


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    files = tracked(root)
    pages = {path: Page(path) for path in files if path.suffix == ".md"}
    faults = []
    for page in pages.values():
        faults += link_faults(root, page, pages)
    faults += summary_faults(root, pages)
    faults += mention_faults(root, files)
    for fault in sorted(faults):
        print(fault)
    links = sum(len(page.links) for page in pages.values())
    print(f"{links} links in {len(pages)} pages, {len(faults)} faults")
    return 1 if faults else 0


def tracked(root):
    """Files that git tracks or would track."""
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
    return [path for path in (root / name for name in names if name) if path.is_file()]


class Page:
    """A Markdown file: its links as (line, target), and the anchors of its headings."""

    def __init__(self, path):
        self.path = path
        self.links = []
        self.anchors = set()
        slugs = {}
        for number, line in prose(path.read_text(encoding="utf-8")):
            if heading := HEADING.match(line):
                slug = slug_of(heading[1])
                count = slugs.get(slug, 0)
                slugs[slug] = count + 1
                self.anchors.add(f"{slug}-{count}" if count else slug)
            without_code = CODE.sub(lambda code: "x" * len(code[0]), line)
            targets = [link[1] for link in LINK.finditer(without_code)]
            if definition := DEFINITION.match(without_code):
                targets.append(definition[1])
            self.links += [(number, target) for target in targets]


def prose(text):
    """Lines outside fenced code, with their numbers."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        marker = re.match(r"^\s*(```+|~~~+)", line)
        if fence:
            fence = None if marker and marker[1].startswith(fence) else fence
        elif marker:
            fence = marker[1]
        else:
            yield number, line


def slug_of(heading):
    """The anchor that GitHub and mdBook give a heading."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def link_faults(root, page, pages):
    docs = root / "docs"
    for number, target in page.links:
        if SCHEME.match(target):
            continue
        where = f"{page.path.relative_to(root)}:{number}"
        name, _, anchor = unquote(target).partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        if not path.exists():
            yield f"{where}: {target}: no such file"
        elif docs in page.path.parents and path != docs and docs not in path.parents:
            yield f"{where}: {target}: leads out of docs/, which is all that the book has; name the path as code"
        elif anchor and path in pages and anchor not in pages[path].anchors:
            yield f"{where}: {target}: {path.relative_to(root)} has no such heading"


def summary_faults(root, pages):
    docs = root / "docs"
    summary = docs / "SUMMARY.md"
    listed = [(docs / target).resolve() for _, target in pages[summary].links] if summary in pages else []
    for path in pages:
        if docs in path.parents and path != summary and path not in listed:
            yield f"{path.relative_to(root)}:1: not in docs/SUMMARY.md"
    for path in sorted(set(path for path in listed if listed.count(path) > 1)):
        yield f"docs/SUMMARY.md:1: {path.relative_to(root)} is listed twice"


def mention_faults(root, files):
    for path in files:
        if path.suffix not in TEXT or path.stat().st_size > 1 << 20 or path == Path(__file__).resolve():
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            for mention in MENTION.findall(line):
                if not (root / mention).exists():
                    yield f"{path.relative_to(root)}:{number}: mentions {mention}, which does not exist"


if __name__ == "__main__":
    sys.exit(main())
