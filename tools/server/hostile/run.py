#!/usr/bin/env python3
"""Attacks a server of the demo in a group with little memory, while a canary asks short questions.

    tools/server/hostile/run.py                    45 seconds of attacks
    tools/server/hostile/run.py --seconds 180      three minutes, as `.ci/run hostile`
    tools/server/hostile/run.py --seconds 1800     by hand
    tools/server/hostile/run.py --worst            the worst inputs alone, one after the other: seconds, memory, status
    tools/server/hostile/run.py --streams          64 streams beside 16 that nobody reads: times to the first token

Fails if the server dies, an answer has a status of 5xx other than a 503 that says when to come again, the canary's 99th
percentile is over a second (--canary), or the process keeps more memory than /metrics explains and a tenth.
Needs Python 3 and nothing else; run it from the repository's root with `target/release/moeflux` built.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from clients import Attacker, Canary, Crowd, Holder, exchange  # noqa: E402
from server import Server  # noqa: E402
import streams  # noqa: E402
import worst  # noqa: E402


HI = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
FIRST = [
    ("/v1/chat/completions", {"messages": HI, "max_tokens": 20, "logprobs": True, "top_logprobs": 20, "response_format": {
        "type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}),
    ("/v1/messages", {"model": "demo", "max_tokens": 20, "messages": HI, "tool_choice": {"type": "any"},
                      "tools": [{"name": "f", "input_schema": SCHEMA}]}),
    ("/v1/responses", {"input": "hi", "max_output_tokens": 5}),
    ("/v1/embeddings", {"input": "hi " * 500}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a " * 3000}], "max_tokens": 20, "n": 8}),
]


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def is_failure(status, answer):
    if status < 500:
        return False
    return status != 503 or b"retry-after:" not in answer.lower()


def explained(metrics):
    uses = ["experts", "sequences", "prefixes", "transient", "program"]
    return sum(metrics.get(f'moeflux_memory_bytes{{use="{use}"}}', 0) for use in uses)


def attack(server, args):
    """What has failed, as lines."""
    failures, table = [], Counter()
    calm = Canary(server.port)
    calm.start()
    # What is made once, with the first request of a kind, is there before memory is looked at.
    for path, body in FIRST:
        exchange(server.port, "POST", path, json.dumps(body).encode())
    time.sleep(max(5, args.seconds / 10))
    calm.stop.set()
    calm.join()
    time.sleep(3)
    metrics = server.metrics()
    before = max(0, metrics.get("moeflux_memory_own_bytes", 0) - explained(metrics))

    attackers = Crowd([Attacker(server.port, args.seed, index) for index in range(args.attackers)])
    holders = Crowd([Holder(server.port, args.seed, index) for index in range(args.holders)])
    canary = Canary(server.port)
    for clients in (attackers, holders, canary):
        clients.start()
    end, peak = time.monotonic() + args.seconds, 0
    while time.monotonic() < end and server.is_alive():
        time.sleep(0.1)
        peak = max(peak, server.memory()[0])
    if peak > args.memory << 20:
        failures.append(f"the process had {peak / 2**20:.0f} MiB")
    canary.stop.set()
    canary.join(60)
    holders.stop.set()
    seen, held = [one for tried in attackers.end() for one in tried], sum(holders.end())
    if not server.is_alive():
        failures.append(f"the server died: {server.process.returncode}")
        return failures, ""

    for took, status, kind, path, length, body, answer in seen:
        table[kind, status] += 1
        if is_failure(status, answer):
            failures.append(f"{status} after {took:.1f} s: {kind} {path[:60]} of {length} bytes: {body[:120]!r}: {answer[-200:]!r}")
    bad = [status for _, status in canary.seen if status != 200]
    shed = sum(status == 503 for status in bad)
    if len(bad) > shed:
        failures.append(f"{len(bad) - shed} of {len(canary.seen)} canaries got no answer: {Counter(bad)}")
    if shed > len(canary.seen) / 100:
        failures.append(f"{shed} of {len(canary.seen)} canaries were refused")
    times = [took for took, _ in canary.seen]
    if percentile(times, 0.99) > args.canary:
        failures.append(f"the canary's 99th percentile is {percentile(times, 0.99):.2f} s, more than {args.canary} s")

    time.sleep(args.rest)
    metrics = server.metrics()
    own, known = metrics.get("moeflux_memory_own_bytes", 0), explained(metrics)
    if own > (known + before) * 1.1:
        failures.append(f"{own / 2**20:.0f} MiB are held, and /metrics explains {known / 2**20:.0f} MiB, "
                        f"of what was there before the attack all but {before / 2**20:.0f} MiB")

    print(f"{'made by':<14}{'tried':>8}  answers by status")
    for kind in sorted({kind for kind, _ in table}):
        by_status = {status: count for (of, status), count in sorted(table.items()) if of == kind}
        print(f"{kind:<14}{sum(by_status.values()):>8}  " + ", ".join(f"{status}: {count}" for status, count in by_status.items()))
    print(f"{'connections':<14}{held:>8}  silent, stalled, unread or left")
    calm_times = [took for took, _ in calm.seen]
    print(f"canary: {len(times)} questions, p50 {percentile(times, 0.5):.2f} s, p99 {percentile(times, 0.99):.2f} s, "
          f"longest {max(times, default=0):.2f} s (at rest p50 {percentile(calm_times, 0.5):.2f} s), refused {shed}")
    print(f"memory: at most {peak / 2**20:.0f} MiB, after {args.rest} s of rest {own / 2**20:.0f} MiB, "
          f"explained {known / 2**20:.0f} MiB; limit {args.memory} MiB by {server.group.kind}")
    tried = len(seen) + held
    return failures, f"tried {tried}, failures {len(failures)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--program", default="target/release/moeflux")
    parser.add_argument("--memory", type=int, default=2048, help="MiB of the group")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--attackers", type=int, default=6)
    parser.add_argument("--holders", type=int, default=2)
    parser.add_argument("--canary", type=float, default=1.0, help="seconds that its 99th percentile may take")
    parser.add_argument("--rest", type=float, default=10, help="seconds before memory is looked at")
    parser.add_argument("--worst", action="store_true")
    parser.add_argument("--streams", action="store_true")
    parser.add_argument("more", nargs="*", help="flags for the server, after --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moeflux-hostile-") as folder:
        if args.worst:
            return worst.run(args, folder)
        server = Server(args.program, args.memory << 20, folder, args.more)
        try:
            if args.streams:
                return streams.run(server)
            failures, summary = attack(server, args)
        finally:
            code = server.end()
        if code != 0 and not failures:
            failures.append(f"the server ended with {code}")
        for failure in failures[:40]:
            print(f"FAILURE {failure}")
        if failures:
            print(open(server.log.name).read()[-3000:], file=sys.stderr)
        print(summary or f"failures {len(failures)}")
        return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
