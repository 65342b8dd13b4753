#!/usr/bin/env python3
"""Runs the tests of all client libraries, each in its environment, and prints what became of them as a table."""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
SERVER = HERE.parent
ROOT = SERVER.parents[1]
sys.path.insert(0, str(SERVER))

from serving import KEY, served  # noqa: E402

# A library as its registry calls it, the environment that has it, and its tests.
LIBRARIES = [
    ("openai", "agents", ["test_openai.py", "test_responses.py"]),
    ("anthropic", "agents", ["test_anthropic.py"]),
    ("openai-agents", "agents", ["all/test_openai_agents.py"]),
    ("langchain-openai", "agents", ["all/test_langchain.py"]),
    ("langgraph", "agents", ["all/test_langgraph.py"]),
    ("pydantic-ai-slim", "agents", ["test_pydantic_ai.py"]),
    ("litellm", "agents", ["all/test_litellm.py"]),
    ("ollama", "agents", ["test_ollama.py"]),
    ("llama-benchy", "agents", ["all/test_llama_benchy.py"]),
    ("llm-comply", "agents", ["all/test_llm_comply.py"]),
    ("instructor", "instructor", ["all/test_instructor.py"]),
    ("llama-index-llms-openai-like", "llama-index", ["all/test_llama_index.py"]),
    ("ai", "vercel", ["all/vercel/vercel.test.mjs"]),
]


@dataclass
class Row:
    """What became of a library's tests."""

    library: str
    version: str = ""
    passed: int = 0
    failed: int = 0
    # Why tests failed, were expected to fail, or were not run.
    why: list[str] = field(default_factory=list)


def main(wanted):
    unknown = set(wanted) - {library for library, _, _ in LIBRARIES}
    if unknown:
        sys.exit(f"not known: {', '.join(sorted(unknown))}")
    command = os.environ.setdefault("MOEFLUX", str(ROOT / "target/release/moeflux"))
    if not shutil.which(command):
        sys.exit(f"{command} is not there: cargo build --release, or $MOEFLUX")
    rows, environments = [], {}
    for library, name, tests in LIBRARIES:
        if wanted and library not in wanted:
            continue
        if name not in environments:
            environments[name] = environment(name)
        venv, lacks = environments[name]
        if lacks:
            rows.append(Row(library, why=[f"not tried: {lacks}"]))
            continue
        print(f"\n{library}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            (node if name == "vercel" else pytest)(venv, [SERVER / test for test in tests], report)
            rows.append(read(Row(library, version(venv, library)), report))
    print_table(rows)
    return any(row.failed or not row.passed for row in rows)


def environment(name):
    """The folder of an environment, which is made unless it is there, and why it could not be made."""
    venv, wanted = ROOT / "target/server-all" / name, HERE / "requirements" / f"{name}.txt"
    installed = venv / "requirements.txt"
    try:
        if not (installed.exists() and filecmp.cmp(wanted, installed, shallow=False)):
            run(sys.executable, "-m", "venv", venv)
            run(venv / "bin/pip", "install", "--quiet", "--requirement", wanted)
            shutil.copy(wanted, installed)
        if name == "vercel":
            packages(venv)
    except subprocess.CalledProcessError as error:
        return venv, (error.stderr.strip() or str(error)).splitlines()[-1]
    return venv, None


def packages(venv):
    """Installs the packages of npm, beside a copy of the tests, since they are looked for above the file that uses them."""
    folder = HERE / "vercel"
    for file in folder.iterdir():
        shutil.copy(file, venv)
    installed = venv / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime:
        run(venv / "bin/npm", "ci", "--no-audit", "--no-fund", cwd=venv)


def run(*command, cwd=None):
    path = f"{Path(command[0]).parent}:{os.environ['PATH']}"
    subprocess.run(command, cwd=cwd, env={**os.environ, "PATH": path}, stderr=subprocess.PIPE, text=True, check=True)


def pytest(venv, tests, report):
    options = ["-p", "no:cacheprovider", "-q", "--tb=short", f"--junitxml={report}"]
    subprocess.run([venv / "bin/python", "-m", "pytest", *options, *tests])


def node(venv, tests, report):
    reporters = ["--test-reporter=spec", "--test-reporter-destination=stdout"]
    reporters += ["--test-reporter=junit", f"--test-reporter-destination={report}"]
    with served(report.parent) as address:
        env = {**os.environ, "MOEFLUX_URL": address, "MOEFLUX_KEY": KEY}
        copies = [venv / test.name for test in tests]
        subprocess.run([venv / "bin/node", "--test", *reporters, *copies], cwd=venv, env=env)


def version(venv, library):
    if (venv / "package.json").exists():
        command = [venv / "bin/node", "-p", f"require('{venv}/node_modules/{library}/package.json').version"]
    else:
        command = [venv / "bin/python", "-c", f"import importlib.metadata as m; print(m.version('{library}'))"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def read(row, report):
    """Counts the tests of a report in JUnit's form."""
    if not report.exists():
        row.failed += 1
        row.why.append("the tests did not run")
        return row
    for case in ElementTree.parse(report).iter("testcase"):
        skipped, failure = case.find("skipped"), case.find("failure")
        failure = case.find("error") if failure is None else failure
        if skipped is not None:
            kind = "known" if skipped.get("type") in ("pytest.xfail", "todo") else "left out"
            why = f"{kind}: {skipped.get('message')}"
        elif failure is not None:
            row.failed += 1
            message = " ".join((failure.get("message") or "").split())
            why = f"{case.get('name')}: {message[:160]}"
        else:
            row.passed += 1
            continue
        row.why.append(why)
    return row


def print_table(rows):
    print("\n| library | version | passed | failed | why |\n|---|---|---|---|---|")
    for row in rows:
        # A reason that several tests have is told once, with their number.
        reasons = {why: row.why.count(why) for why in row.why}
        why = "; ".join(f"{count} × {why}" if count > 1 else why for why, count in reasons.items())
        print(f"| {row.library} | {row.version} | {row.passed} | {row.failed} | {why.replace('|', '/')} |")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
