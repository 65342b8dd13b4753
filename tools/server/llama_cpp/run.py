#!/usr/bin/env python3
"""Runs the tests that llama.cpp has for its own server against `moeflux serve`: tools/server/llama_cpp/run.py [ARGUMENT OF PYTEST…]

The tests come from PyPI, where the source package of llama-cpp-python has llama.cpp. Two things are changed in what is run. `llama-server`
is the program beside this file. Assertions about the words, token counts, times and build of llama.cpp and its models are left out, since
another model answers. `known.toml` says of every test that fails, and of every file that is not run, why.
"""

import ast
import os
import subprocess
import sys
import tarfile
import tomllib
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
WORK = ROOT / "target/server-all/llama-cpp"
PACKAGE = "llama-cpp-python==0.3.36"
# Folders of the package that are needed, below vendor/llama.cpp.
WANTED = ("tools/server/tests/", "models/templates/")
# Names in assertions that only llama.cpp with its own models can meet.
THEIRS = ["timings", "n_predicted", "n_prompt", "re_content", "match_regex", "fingerprint", "__verbose", "n_tokens"]
# The demo answers in fewer words than the tests allow, and a stream's first piece has an empty text, as OpenAI's has, not null.
THEIRS += ["'length'", "== finish_reason", "content is None", "content'] is None", "Expected non empty content"]


def main(arguments):
    os.environ.setdefault("MOEFLUX", str(ROOT / "target/release/moeflux"))
    os.environ["LLAMA_SERVER_BIN_PATH"] = str(HERE / "llama-server")
    python = environment()
    tests = unpack(python)
    known = tomllib.loads((HERE / "known.toml").read_text())
    files = [file for file in sorted(tests.glob("unit/test_*.py")) if file.name not in known["files"]]
    report = WORK / "report.xml"
    options = ["-p", "no:cacheprovider", "-q", "--tb=short", "-o", "junit_family=xunit1", f"--junitxml={report}"]
    # Those that are slow are about what models of several gigabytes answer.
    subprocess.run([python, "-m", "pytest", *options, *(arguments or ["-m", "not slow", *files])], cwd=tests)
    return tell(report, known, whole=not arguments)


def environment():
    """The Python that has what the tests import."""
    wanted, installed = (HERE / "requirements.txt").read_text(), WORK / "requirements.txt"
    python = WORK / "bin/python"
    if not installed.exists() or installed.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", WORK], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", HERE / "requirements.txt"], check=True)
        installed.write_text(wanted)
    return python


def unpack(python):
    """The folder of the tests, changed as this program says."""
    name, version = PACKAGE.split("==")
    archive = WORK / f"{name.replace('-', '_')}-{version}.tar.gz"
    if not archive.exists():
        command = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name, "--dest", WORK, PACKAGE]
        subprocess.run(command, check=True)
    top = f"{name.replace('-', '_')}-{version}/vendor/llama.cpp/"
    with tarfile.open(archive) as package:
        wanted = [member for member in package if member.name.startswith(tuple(top + folder for folder in WANTED))]
        package.extractall(WORK, wanted, filter="data")
    tests = WORK / top / "tools/server/tests"
    for file in [tests / "utils.py", *tests.glob("unit/test_*.py")]:
        file.write_text(ast.unparse(Theirs().visit(ast.parse(file.read_text()))))
    return tests


class Theirs(ast.NodeTransformer):
    """Leaves out assertions that another server and model can't meet, and the download of models."""

    def visit_Assert(self, node):
        text = ast.unparse(node)
        return ast.Pass() if any(name in text for name in THEIRS) else node

    def visit_Call(self, node):
        # Names of headers have no case, which a dictionary forgets.
        return node.args[0] if ast.unparse(node) == "dict(response.headers)" else self.generic_visit(node)

    def visit_FunctionDef(self, node):
        if node.name == "load_all":
            node.body = [ast.Pass()]
        return self.generic_visit(node)


def tell(report, known, whole):
    """Prints what became of the tests; whether one failed that is not known to."""
    passed, failures, reasons, used = 0, [], Counter(), set()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{Path(case.get('file')).stem}::{case.get('name')}"
        if case.find("skipped") is not None:
            reasons[f"skipped by the suite: {case.find('skipped').get('message')}"] += 1
        elif case.find("failure") is None and case.find("error") is None:
            passed += 1
        elif pattern := next((pattern for pattern in known["tests"] if fnmatch(name, pattern)), None):
            used.add(pattern)
            reasons[known["tests"][pattern]] += 1
        else:
            failures.append(name)
    print(f"\n{passed} passed\n\n| tests | not passed because |\n|---|---|")
    for why, count in reasons.most_common():
        print(f"| {count} | {why} |")
    if whole:
        for file, why in known["files"].items():
            print(f"| all of `{file}` | {why} |")
        for pattern in known["tests"].keys() - used:
            print(f"known to fail, but passed or not there: {pattern}")
    for name in failures:
        print(f"FAILED, and not known to: {name}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
