"""`moeflux serve` of the demo, once for each chat template."""

import copy
import http.client
import json
import os
import pathlib
import subprocess
import tempfile
import time

from expected import SPECIAL


def folders(demo, templates, scratch):
    """A folder for each template: the demo's files and the template."""
    for index, (_, template) in enumerate(templates):
        folder = scratch / f"t{index}"
        folder.mkdir()
        for file in demo.iterdir():
            if file.name not in ("chat_template.jinja", "tokenizer_config.json"):
                os.symlink(file, folder / file.name)
        (folder / "chat_template.jinja").write_text(template, newline="")
        (folder / "tokenizer_config.json").write_text(json.dumps(SPECIAL))
        yield folder


class Server:
    """The server of all folders; it has one of them in memory at a time."""

    def __init__(self, command, demo, templates, port):
        self.port = port
        self.scratch = tempfile.TemporaryDirectory()
        scratch = pathlib.Path(self.scratch.name)
        models = [f"{folder.name}={folder}" for folder in folders(demo.resolve(), templates, scratch)]
        self.log = open(scratch / "log", "w+")
        self.process = subprocess.Popen(
            [command, "serve", *models, "--listen", f"127.0.0.1:{port}", "--device", "cpu", "--max-loaded", "1", "--threads", "1"],
            stdout=subprocess.DEVNULL, stderr=self.log)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for _ in range(1200):
            if self.process.poll() is not None:
                self.log.seek(0)
                raise RuntimeError(self.log.read()[-2000:])
            try:
                self.request("GET", "/health")
                return
            except OSError:
                self.connection.close()
                time.sleep(0.1)
        raise RuntimeError("the server does not answer")

    def request(self, method, path, body=None):
        body = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        self.connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode()

    def rendered(self, index, chat):
        """(Text, None), or (None, error)."""
        body = {"model": f"t{index}", **copy.deepcopy(chat)}
        for message in body["messages"]:
            for call in message.get("tool_calls", []):
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        status, text = self.request("POST", "/apply-template", body)
        if status == 200:
            return json.loads(text)["prompt"], None
        try:
            return None, f"{status}: {json.loads(text)['error']['message']}"
        except (ValueError, KeyError, TypeError):
            return None, f"{status}: {text[:300]}"

    def capabilities(self, index):
        """What the server says of a model that has been loaded."""
        return json.loads(self.request("GET", f"/v1/models/t{index}")[1]).get("capabilities") or []

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.scratch.cleanup()
