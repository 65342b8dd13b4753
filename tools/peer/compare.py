#!/usr/bin/env python3
"""Runs llama.cpp and moeflux in turn on models of one shape and prints medians and ratios.

    compare.py cpu    --llama-bench PATH --gguf FILE --model MODEL [--runs 5]
    compare.py stream --llama-bench PATH --gguf FILE --model MODEL --gib 8 [--runs 3]

`cpu`: all weights in memory; prompt of 512 tokens, 64 tokens decoded after it. `stream`: the same under a memory limit,
each run with cold file caches; page cache counts against the limit, so that mapped files are evicted as on a machine of
that size. Needs a memory control group of its own (version 1 or 2), so root. README.md says how llama.cpp is built.

The two programs take turns in every run, so that a slow minute of the machine hits both. The peer's best setting counts:
`--read-ahead KiB ...` (of the disk's block device) is tried for it in turn, and the best median is compared.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["cpu", "stream"])
    parser.add_argument("--llama-bench", required=True, help="the peer's program")
    parser.add_argument("--gguf", required=True, help="the model that it runs")
    parser.add_argument("--moeflux", default="target/release/moeflux", help="our program")
    parser.add_argument("--model", required=True, help="the model of the same shape that ours runs")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--gib", type=float, default=8, help="stream: limit on memory, page cache included")
    parser.add_argument("--read-ahead", type=int, nargs="*", default=[], help="stream: KiB of read-ahead to try for the peer")
    parser.add_argument("--peer-tokens", type=int, help="tokens that the peer decodes, if fewer (it can be very slow)")
    args = parser.parse_args()

    group = Group(args.gib) if args.mode == "stream" else None
    settings = args.read_ahead or [None]
    peers = {setting: [] for setting in settings}
    ours = []
    for run in range(args.runs):
        for setting in settings:
            with read_ahead(args.gguf, setting):
                peers[setting].append(peer(args, group))
                report(run, f"llama.cpp{'' if setting is None else f', read-ahead {setting} KiB'}", peers[setting][-1])
        ours.append(own(args, group))
        report(run, "moeflux", ours[-1])

    print(f"\nmedians of {args.runs}, {args.threads} threads" + (f", limit {args.gib} GiB" if group else ""))
    print("| | llama.cpp | moeflux | ratio |\n|---|---|---|---|")
    for what in ("prefill", "decode"):
        best = max(statistics.median(result[what] for result in results) for results in peers.values())
        mine = statistics.median(result[what] for result in ours)
        print(f"| {what}, tokens/s | {best:.2f} | {mine:.2f} | {mine / best:.2f} |")
    for what in list(ours[0])[2:]:
        print(f"| {what} | | {statistics.median(result[what] for result in ours):.3g} | |")


def peer(args, group):
    """Prefill from an empty cache, decode after the prompt: two runs, so that each is timed alone."""
    command = [args.llama_bench, "-m", args.gguf, "-t", str(args.threads), "-r", "1", "-o", "json"]
    if args.mode == "stream":
        # Repacked weights would be a copy that has to stay in memory: the kernel kills it.
        command += ["--no-warmup", "--load-mode", "mmap", "--repack", "0"]
    prefill = json.loads(execute([*command, "-p", str(args.prompt), "-n", "0"], group, [args.gguf]))
    tokens = args.peer_tokens or args.tokens
    decode = json.loads(execute([*command, "-p", "0", "-n", str(tokens), "-d", str(args.prompt)], group, [args.gguf]))
    return {"prefill": prefill[-1]["avg_ts"], "decode": decode[-1]["avg_ts"]}


def own(args, group):
    command = [args.moeflux, "bench", "stream" if group else "speed", args.model, "--threads", str(args.threads)]
    command += ["--prompt", str(args.prompt), "--json"]
    if not group:
        output = json.loads(execute([*command, "--decode", str(args.tokens), "--repeat", "1"]))
        return {what: output[what]["tokens_per_second"] for what in ("prefill", "decode")}
    command += ["--tokens", str(args.tokens), "--memory", f"{args.gib}GiB"]
    [output] = json.loads(execute(command, group, [args.model]))["runs"]
    result = {what: output[what]["tokens_per_second"] for what in ("prefill", "decode")}
    result |= {f"{what} of limit": output[what]["share_of_limit"] for what in ("prefill", "decode")}
    result["decode hits"] = output["decode"]["experts"]["hit_rate"]
    return result | {"peak RSS, GiB": output["peak_resident_bytes"] / 2**30, "group's peak, GiB": group.peak() / 2**30}


def report(run, who, result):
    print(f"run {run + 1}: {who}: " + ", ".join(f"{key} {value:.4g}" for key, value in result.items()), flush=True)


def execute(command, group=None, files=()):
    """A command's output, under the limit and with cold caches if there is a limit."""
    enter = None
    if group:
        group.clear()
        forget(files)
        enter = group.enter
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=enter)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def forget(paths):
    """Drops files, or all files of folders, from the page cache."""
    os.sync()
    for path in map(Path, paths):
        for file in [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]:
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Group:
    """A memory control group with a limit."""

    def __init__(self, gib):
        v1 = Path("/sys/fs/cgroup/memory")
        self.v1 = (v1 / "memory.limit_in_bytes").exists()
        self.path = (v1 if self.v1 else Path("/sys/fs/cgroup")) / "moeflux-compare"
        self.path.mkdir(exist_ok=True)
        limit = "memory.limit_in_bytes" if self.v1 else "memory.max"
        (self.path / limit).write_text(str(int(gib * 2**30)))

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def clear(self):
        """Pages that earlier runs left in the group go, and its peak starts anew."""
        reclaim = self.path / ("memory.force_empty" if self.v1 else "memory.reclaim")
        for _ in range(3):
            try:
                reclaim.write_text("0" if self.v1 else str(2**40))
            except OSError:
                time.sleep(0.1)
        if self.v1:
            (self.path / "memory.max_usage_in_bytes").write_text("0")

    def peak(self):
        name = "memory.max_usage_in_bytes" if self.v1 else "memory.peak"
        return int((self.path / name).read_text())


class read_ahead:
    """Sets the read-ahead of the block device that has a file, for a while."""

    def __init__(self, file, kib):
        device = os.stat(file).st_dev
        block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
        queue = block / "queue"
        self.setting = (queue if queue.exists() else block.parent / "queue") / "read_ahead_kb"
        self.kib = kib

    def __enter__(self):
        if self.kib is not None:
            self.before = self.setting.read_text()
            self.setting.write_text(str(self.kib))

    def __exit__(self, *_):
        if self.kib is not None:
            self.setting.write_text(self.before)


if __name__ == "__main__":
    main()
