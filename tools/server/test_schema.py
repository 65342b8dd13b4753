"""What /openapi.json says, against what the server does with any request."""

import subprocess
import sys
from pathlib import Path

from serving import KEY, served

# That a schema lets more through than the server takes is in the nature of templates and grammars, so a request that is
# refused though the schema allows it is no failure.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth"


def test_any_request_gets_what_is_described(tmp_path):
    with served(tmp_path, "--max-tokens", "8") as address:
        command = [Path(sys.executable).parent / "schemathesis", "run", f"{address}/openapi.json", "--no-color"]
        options = ["--header", f"Authorization: Bearer {KEY}", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing"]
        amount = ["--max-examples", "15", "--max-time", "60", "--request-timeout", "60", "--seed", "1"]
        run = subprocess.run([*command, *options, *amount], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
