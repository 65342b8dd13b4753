"""A server with the demo model."""

import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-test-of-the-server"


@contextmanager
def served(folder, *flags):
    """The address of a server that runs meanwhile, and asks for a key."""
    keys = folder / "keys"
    keys.write_text(KEY + "\n")
    command = [os.environ["MOEFLUX"], "serve", ROOT / "models/demo", "--listen", "127.0.0.1:0", "--api-keys-file", keys]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen([*command, *flags], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not (found := re.search(r"serving .* at (http://\S+)/", (folder / "log").read_text())):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start:\n{(folder / 'log').read_text()}")
                time.sleep(0.1)
            yield found[1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.wait()
