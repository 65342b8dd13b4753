"""Doubles of published models, written by the tools that people use, against moeflux: log-probabilities of a text of about
300 tokens. Prints the table of docs/reference/formats.md.

    pip install torch transformers accelerate safetensors tokenizers "mlx[cpu]" mlx-lm gguf compressed-tensors autoawq \
        auto-round nvidia-modelopt bitsandbytes
    cargo build --release
    python tools/reference/formats/compare.py --moeflux target/release/moeflux --llama-cpp LLAMA_CPP --ggml libggml-base.so \
        [--only Qwen3-8B/hub ...]

LLAMA_CPP is a checkout of llama.cpp, as the source package of llama-cpp-python has it in `vendor/`; any build of it has the
library. Exact numbers are compared:
those of transformers in float32 from the same weights. Weights that are quantised are dequantised by the package that
defines the format.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

import torch
import transformers
from tokenizers import Tokenizer

import doubles
import packers
import writers

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# Doubles that every quantiser is tried with: dense, with experts, with latent attention, and hybrid.
QUANTISED = ["Qwen3-8B", "Qwen3-Coder-30B-A3B", "DeepSeek-V3", "Qwen3.5-35B-A3B"]
# Types that the gguf package quantises, and those that only GGML does.
GGUF_TYPES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4", "TQ1_0", "TQ2_0"]
GGML_TYPES = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL",
              "IQ4_XS"]
TOKENS = 300
LIMIT = 1e-4


def text_and_ids():
    """The first tokens of the held-out text."""
    tokenizer = Tokenizer.from_file(str(doubles.DATA / "qwen3_moe" / "hf" / "tokenizer.json"))
    text = (doubles.DATA / "heldout.txt").read_text()
    end = tokenizer.encode(text, add_special_tokens=False).offsets[TOKENS][0]
    return text[:end], tokenizer.encode(text[:end], add_special_tokens=False).ids


TEXT, IDS = text_and_ids()


def logprobs_of(folder, config):
    """Log-probabilities that transformers computes in float32, `[tokens, vocab_size]`."""
    model, info = doubles.model_class(config).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"], info
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([IDS])).logits[0]
    return torch.log_softmax(logits, -1)


class Moeflux:
    """The command."""

    def __init__(self, command, scratch):
        self.command, self.text = command, scratch / "text"
        self.text.write_text(TEXT)

    def logprobs(self, path):
        """Of each token of the text behind the first: its log-probability. Raises what the command says."""
        done = subprocess.run(
            [self.command, "run", str(path), "--raw", "--file", str(self.text), "--max-tokens", "1", "--json", "--device",
             "cpu", "--prompt-logprobs", "1", "--precision", "exact", "--threads", "1"], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        answer = json.loads(done.stdout)["answers"][0]
        tokens = answer["prompt_logprobs"]
        found = [token["token"] for token in tokens]
        expected = IDS[len(IDS) - len(found):]
        assert found == expected and len(IDS) - len(found) <= 1, f"tokens differ: {found[:8]}, expected {expected[:8]}"
        return torch.tensor([token["logprob"] or 0.0 for token in tokens][-(len(IDS) - 1):])


class Row:
    """A line of the table."""

    def __init__(self, model, writer):
        self.model, self.writer = model, writer
        self.delta = self.error = None

    def compare(self, moeflux, path, expected):
        try:
            found = moeflux.logprobs(path)
        except (RuntimeError, AssertionError) as error:
            self.error = str(error)
            return
        own = expected[:-1].gather(1, torch.tensor(IDS[1:])[:, None])[:, 0]
        self.delta = (found - own).abs().max().item()

    def __str__(self):
        what = f"{self.delta:.1e}" if self.error is None else self.error.splitlines()[0]
        return f"{self.model}, {self.writer}: {what}"


def rows_of(name, arguments, scratch, moeflux):
    """Every writer of a double, as it is compared."""
    wanted = lambda writer: not arguments.only or any(f"{name}/{writer}".startswith(only) for only in arguments.only)
    made = {}

    def base():
        if not made:
            config, model = doubles.make(name)
            folder = writers.hub(scratch / "hub", model, config)
            v5 = writers.transformers_5(scratch / "v5", model)
            # Read again, since what is computed from the config would have been rounded with the weights.
            made.update(config=config, hub=folder, v5=v5, expected=logprobs_of(v5, config))
        return made

    def attempt(writer, make):
        if not wanted(writer):
            return
        row = Row(name, writer)
        try:
            path, expected = make(base())
            row.compare(moeflux, path, expected)
        except Exception as error:
            row.error = f"not made: {type(error).__name__}: {error}"
            if arguments.verbose:
                traceback.print_exc()
        print(row, file=sys.stderr, flush=True)
        if arguments.results:
            with arguments.results.open("a") as file:
                file.write(json.dumps([row.model, row.writer, row.delta, row.error]) + "\n")
        yield row

    yield from attempt("hub", lambda base: (base["hub"], base["expected"]))
    yield from attempt("transformers 5", lambda base: (base["v5"], base["expected"]))
    for packer in packers.PACKERS if name in QUANTISED else packers.PACKERS[:1]:
        def packed(base, packer=packer):
            # Of gpt-oss only the experts' own format is in use.
            tensors, values, block = packer.checkpoint(writers.tensors_of(base["hub"]))
            folder = writers.save(scratch / "packed", base["config"] | {"quantization_config": block}, tensors)
            wide = writers.save(scratch / "wide", base["config"], values)
            return folder, logprobs_of(wide, base["config"])
        if name != "gpt-oss-20b":
            yield from attempt(packer.name, packed)
    mlx = [("mlx-lm", {}), ("mlx-lm 4 bits", dict(q_bits=4, q_group_size=64)),
           ("mlx-lm 8 bits", dict(q_bits=8, q_group_size=32)),
           ("mlx-lm mxfp4", dict(q_mode="mxfp4", q_bits=4, q_group_size=32))]
    for title, how in mlx if name in QUANTISED else mlx[:2]:
        def converted(base, how=how):
            folder = writers.mlx(base["hub"], scratch / "mlx", **how)
            return folder, writers.mlx_logprobs(folder, IDS)
        yield from attempt(title, converted)
    if arguments.llama_cpp:
        file = scratch / "bf16.gguf"

        def converted(base):
            return writers.gguf(base["hub"], file, arguments.llama_cpp), base["expected"]
        yield from attempt("llama.cpp BF16", converted)
        for kind in () if name not in QUANTISED else (*GGUF_TYPES, *(GGML_TYPES if arguments.ggml else ())):
            def quantised(base, kind=kind):
                if not file.exists():
                    converted(base)
                ggml = writers.Ggml(arguments.ggml) if kind in GGML_TYPES else None
                values = writers.gguf_quantised(file, scratch / "quantised.gguf", kind, ggml)
                wide = writers.gguf_of_values(file, scratch / "wide.gguf", values)
                return scratch / "quantised.gguf", Wide(moeflux.logprobs(wide))
            yield from attempt(f"GGUF {kind}", quantised)


class Wide:
    """What moeflux computes of dequantised values, in the place of a reference's log-probabilities."""

    def __init__(self, own):
        self.own = own

    def __getitem__(self, _):
        return self

    def gather(self, *_):
        return self.own[:, None]


def tables(rows):
    """The tables of docs/reference/formats.md: what each model is written by, and each quantisation of some of them. `rows` are
    models, writers, differences and errors, the latest of each pair counting."""
    found = {(model, writer): "–" if delta is None else f"{delta:.1e}" for model, writer, delta, _ in rows}
    everywhere = ["hub", "transformers 5", "mlx-lm", "mlx-lm 4 bits", "llama.cpp BF16", "FP8 in blocks"]
    writers = list(dict.fromkeys(writer for _, writer in found))

    def table(head, lines, columns, cell):
        print(f"| {head} | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
        for line in lines:
            print(f"| {line} | " + " | ".join(cell(line, column) for column in columns) + " |")
        print()
    names = [name for name in [*doubles.DOUBLES, *doubles.TYPED] if any(name == model for model, _ in found)]
    table("model", names, everywhere, lambda model, writer: found.get((model, writer), ""))
    table("format", [writer for writer in writers if writer not in everywhere], QUANTISED,
          lambda writer, model: found.get((model, writer), ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moeflux", required=True, type=pathlib.Path)
    parser.add_argument("--llama-cpp", type=pathlib.Path)
    parser.add_argument("--ggml", type=pathlib.Path, help="libggml-base.so, for types that the gguf package does not quantise")
    parser.add_argument("--only", nargs="*", help="MODEL or MODEL/WRITER, by how they begin")
    parser.add_argument("--results", type=pathlib.Path, help="a file that results are added to; the tables are of all of it")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for what is made")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    arguments.moeflux = arguments.moeflux.resolve()
    names = [*doubles.DOUBLES, *doubles.TYPED]
    if arguments.only:
        names = [name for name in names if any(only.split("/")[0] == name for only in arguments.only)]
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            scratch = pathlib.Path(folder)
            rows += rows_of(name, arguments, scratch, Moeflux(arguments.moeflux, scratch))
            if arguments.keep:
                shutil.copytree(scratch, arguments.keep / name, dirs_exist_ok=True)
    results = [[row.model, row.writer, row.delta, row.error] for row in rows]
    if arguments.results:
        results = [json.loads(line) for line in arguments.results.read_text().splitlines()]
    tables(results)
    compared = [delta for _, _, delta, error in results if error is None]
    rows = results
    print(f"{len(compared)} compared, largest difference {max(compared, default=0):.1e}; {len(rows) - len(compared)} not")
    return any(delta > LIMIT for delta in compared)


if __name__ == "__main__":
    sys.exit(main())
