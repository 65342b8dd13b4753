"""llama-benchy measures the server, with a text of ours in place of the book that it would download."""

import json
import os
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from serving import KEY, ROOT


def test_it_measures(server, model, tmp_path):
    serve = partial(SimpleHTTPRequestHandler, directory=str(ROOT / "tests/data"))
    books = ThreadingHTTPServer(("127.0.0.1", 0), serve)
    Thread(target=books.serve_forever, daemon=True).start()
    command = [
        Path(sys.executable).parent / "llama-benchy", "--base-url", f"{server}/v1", "--api-key", KEY, "--model", model,
        "--book-url", f"http://127.0.0.1:{books.server_port}/heldout.txt", "--tokenizer", ROOT / "models/demo",
        "--pp", "64", "--tg", "16", "--depth", "0", "32", "--runs", "1", "--concurrency", "2", "--enable-prefix-caching",
        "--skip-coherence", "--exit-on-first-fail", "--format", "json", "--save-result", tmp_path / "result.json",
    ]
    # It keeps books in the home folder.
    run = subprocess.run(command, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True)
    books.shutdown()
    assert run.returncode == 0, run.stdout + run.stderr
    measured = json.loads((tmp_path / "result.json").read_text())["benchmarks"]
    assert measured, run.stdout
    for row in measured:
        assert row["tg_throughput"]["mean"] > 0, row
