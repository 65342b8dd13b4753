#!/usr/bin/env python3
"""Prints which modules of each crate import which, and fails where an import goes upward.

    tools/imports.py                 the graph of every crate
    tools/imports.py moeflux         of some crates
    tools/imports.py --lines ...     with the lines that carry each import
    tools/imports.py --consumers     also that moeflux-server has no parser of its own and that moeflux-cli
                                     depends on moeflux, moeflux-server and moeflux-hub only

A module here is a folder or a file directly under a crate's `src`. An import is any path that begins with `crate::`,
or with as many `super::` as lead to the crate's root; test modules (`#[cfg(test)]`), comments and texts are left out.
Items that `lib.rs` re-exports count as those of the module that they come from.

Modules are printed in layers, from top to bottom: one imports only from layers below its own. The exit status is 1 if a
crate in ORDER has an import that goes up, or a module that ORDER does not know. The modules of the other crates are mostly
single files beside each other, where circles are ordinary; their layers are found by setting the imports aside that close
circles, which are listed, and do not fail.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# From top to bottom. Modules in one line may not import each other.
ORDER = {
    "moeflux": [
        "chat",
        "engine convert devices",
        "error",
        "summary",
        "backend",
        "placement",
        "experts",
        "model",
        "sequence",
        "graph",
        "sampling",
        "text",
        "background cancel options",
    ],
}

# What the command and the server are made of.
CONSUMERS = {
    "moeflux-cli": {"moeflux", "moeflux-server", "moeflux-hub"},
}
# Files that would mean that the server reads a model's text by itself.
PARSER = re.compile(r"(^|/)(parser|tagged|harmony|read)(\.rs$|/)|(^|/)output/(detect|thoughts|tools)")


def source(text):
    """The text without comments, string literals and test modules; lines stay where they are."""
    out, i, n = [], 0, len(text)
    while i < n:
        rest = text[i:]
        if rest.startswith("//"):
            i = (text.find("\n", i) + n + 1) % (n + 1) if "\n" in rest else n
            continue
        if rest.startswith("/*"):
            end = text.find("*/", i + 2)
            end = n if end < 0 else end + 2
            out.append("\n" * text.count("\n", i, end))
            i = end
            continue
        raw = re.match(r'b?r(#*)"', rest) if text[i] in "br" and not (i and (text[i - 1].isalnum() or text[i - 1] == "_")) else None
        if raw:
            end = text.find('"' + raw[1], i + raw.end())
            end = n if end < 0 else end + 1 + len(raw[1])
            out.append('""' + "\n" * text.count("\n", i, end))
            i = end
            continue
        if text[i] == '"':
            end = i + 1
            while end < n and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            out.append('""' + "\n" * text.count("\n", i, end))
            i = end + 1
            continue
        char = re.match(r"'(\\[^']+|[^'\\])'", rest)
        if text[i] == "'" and char:
            out.append("' '")
            i += char.end()
            continue
        out.append(text[i])
        i += 1
    return without_tests("".join(out))


def without_tests(text):
    """The text without items under `#[cfg(test)]`."""
    pattern = re.compile(r"#\[cfg\(test\)\]")
    start = 0
    while match := pattern.search(text, start):
        depth, end = 0, match.end()
        while end < len(text):
            if text[end] == "{":
                depth += 1
            elif text[end] == "}":
                depth -= 1
                if depth == 0:
                    break
            elif text[end] == ";" and depth == 0:
                break
            end += 1
        lines = text.count("\n", match.start(), end)
        text = text[: match.start()] + "\n" * lines + text[end + 1 :]
        start = match.start()
    return text


def heads(text, at):
    """The first names of the path or of the braces at an offset."""
    while at < len(text) and text[at].isspace():
        at += 1
    if at < len(text) and text[at] == "{":
        depth, fresh = 0, True
        while at < len(text):
            char = text[at]
            if char == "{":
                depth += 1
            elif char == "}":
                depth -= 1
                if depth == 0:
                    return
            elif char == "," and depth == 1:
                fresh = True
            elif fresh and depth == 1 and (name := re.compile(r"[A-Za-z_]\w*").match(text, at)):
                yield name[0]
                fresh, at = False, name.end() - 1
            at += 1
    elif name := re.compile(r"[A-Za-z_]\w*|\*").match(text, at):
        yield name[0]


class Crate:
    def __init__(self, folder):
        self.name, self.src = folder.name, folder / "src"
        self.modules = {
            path.stem
            for path in self.src.iterdir()
            if (path.is_dir() and any(path.rglob("*.rs"))) or path.suffix == ".rs"
        } - {"lib", "main", "bin"}
        # (from, to) -> [(file, line)]
        self.imports = defaultdict(list)
        self.exports = {}
        for root in ("lib.rs", "main.rs"):
            if (self.src / root).exists():
                self.read_exports(source((self.src / root).read_text()))
        for path in sorted(self.src.rglob("*.rs")):
            parts = path.relative_to(self.src).with_suffix("").parts
            if parts[0] in self.modules:
                self.read(path, parts)

    def read_exports(self, text):
        for match in re.finditer(r"\buse\s+(?:self::|crate::)?(\w+)::([^;]*);", text):
            if match[1] in self.modules:
                for name in re.findall(r"\w+", match[2]):
                    self.exports.setdefault(name, match[1])

    def read(self, path, parts):
        own = parts[0]
        depth = len(parts) - (parts[-1] == "mod")
        text = source(path.read_text())
        for match in re.finditer(r"(?<![\w$:])(?:crate|super(?:\s*::\s*super)*)\s*::", text):
            supers = match[0].count("super")
            if supers and supers != depth:
                continue
            if text[: match.start()].rstrip().endswith("(in"):
                continue
            for name in heads(text, match.end()):
                to = name if name in self.modules else self.exports.get(name)
                if to and to != own:
                    line = text.count("\n", 0, match.start()) + 1
                    self.imports[own, to].append((path, line))

    def layers(self):
        """Modules by layer from bottom to top, and the imports that go upward."""
        if order := ORDER.get(self.name):
            return self.fixed(order)
        below = {module: {to for own, to in self.imports if own == module} for module in self.modules}
        layers, left, upward = [], set(self.modules), []
        while left:
            layer = sorted(module for module in left if not below[module] & left)
            if not layer:
                # Of those in circles, the one with the fewest lines that hold it up is laid next.
                circle = [module for module in left if self.reaches(module, module, left)]
                weight = lambda m: sum(len(self.imports[m, to]) for to in below[m] & left)
                layer = [min(sorted(circle), key=weight)]
                upward += [(layer[0], to) for to in sorted(below[layer[0]] & left)]
            layers.append(layer)
            left -= set(layer)
        return layers, upward, []

    def reaches(self, start, goal, among):
        seen, stack = set(), [start]
        while stack:
            module = stack.pop()
            for own, to in list(self.imports):
                if own == module and to in among and to not in seen:
                    if to == goal:
                        return True
                    seen.add(to)
                    stack.append(to)
        return False

    def fixed(self, order):
        layers = [line.split() for line in reversed(order)]
        height = {module: i for i, layer in enumerate(layers) for module in layer}
        known = self.modules & set(height)
        upward = [(own, to) for own, to in sorted(self.imports) if own in known and to in known and height[to] >= height[own]]
        strangers = sorted(self.modules - set(height))
        return layers, upward, strangers


def report(crate, with_lines):
    layers, upward, strangers = crate.layers()
    print(f"{crate.name}: {len(crate.modules)} modules, {len(crate.imports)} imports between them, {len(upward)} {'upward' if crate.name in ORDER else 'in circles'}")
    for layer in reversed(layers):
        for module in layer:
            below = sorted(to for own, to in crate.imports if own == module)
            print(f"  {module:<16} {'→ ' + ' '.join(below) if below else ''}".rstrip())
    def place(own, to):
        for path, line in crate.imports[own, to]:
            print(f"      {path.relative_to(ROOT)}:{line}")
    if with_lines:
        for own, to in sorted(crate.imports):
            print(f"    {own} → {to}")
            place(own, to)
    for own, to in upward:
        print(f"  {'UPWARD' if crate.name in ORDER else 'circle'} {own} → {to}")
        place(own, to)
    for module in strangers:
        print(f"  UNKNOWN {module}: ORDER in tools/imports.py has no place for it")
    return crate.name not in ORDER or not (upward or strangers)


def consumers():
    """Whether the server parses nothing, and the command depends on what it should."""
    good = True
    server = ROOT / "crates/moeflux-server/src"
    for path in sorted(server.rglob("*.rs")):
        name = str(path.relative_to(server))
        if PARSER.search(name):
            print(f"  PARSER crates/moeflux-server/src/{name}: what a model's text means is for moeflux::chat")
            good = False
    for crate, allowed in CONSUMERS.items():
        manifest = (ROOT / "crates" / crate / "Cargo.toml").read_text()
        table = re.search(r"^\[dependencies\]$(.*?)(?=^\[|\Z)", manifest, re.M | re.S)
        found = set(re.findall(r"^(moeflux[\w-]*)", table[1] if table else "", re.M))
        for name in sorted(found - allowed):
            print(f"  DEPENDENCY {crate} → {name}: expected only {', '.join(sorted(allowed))}")
            good = False
    return good


def main(arguments):
    flags = {argument for argument in arguments if argument.startswith("--")}
    if unknown := flags - {"--lines", "--consumers"}:
        sys.exit(f"unknown: {' '.join(sorted(unknown))}; expected --lines or --consumers, and names of crates")
    names = [argument for argument in arguments if not argument.startswith("--")]
    folders = [ROOT / "crates" / name for name in names] or sorted((ROOT / "crates").iterdir())
    good = True
    for folder in folders:
        if not (folder / "src").is_dir():
            sys.exit(f"{folder}: there is no such crate")
        good &= report(Crate(folder), "--lines" in flags)
    if "--consumers" in flags:
        good &= consumers()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
