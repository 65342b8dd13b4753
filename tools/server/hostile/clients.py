"""Clients: the canary, which is everybody else, and those that attack.

Attackers have addresses of their own, and processes of their own at the lowest priority: a real one computes on another
machine, so that what it makes costs the server's processors as little as possible, and the canary's clock nothing.
"""

import json
import multiprocessing
import os
import random
import socket
import threading
import time

import inputs

CANARY = json.dumps({"messages": [{"role": "user", "content": "What is 17 + 25?"}], "max_tokens": 3}).encode()


def connect(port, source="127.0.0.1", timeout=60, receive=None):
    client = socket.socket()
    client.settimeout(timeout)
    if receive:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    client.bind((source, 0))
    client.connect(("127.0.0.1", port))
    return client


def head(method, path, length):
    return (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {length}\r\n\r\n").encode()


def exchange(port, method, path, body, source="127.0.0.1", timeout=60):
    """Status and the answer's beginning; 0 where the connection ended without one."""
    answer = b""
    with connect(port, source, timeout) as client:
        try:
            client.sendall(head(method, path, len(body)) + body)
        except (BrokenPipeError, ConnectionResetError):
            # It may have answered before all was sent.
            pass
        try:
            while part := client.recv(65536):
                answer = (answer + part)[:4096]
        except ConnectionResetError:
            pass
    parts = answer.split(b" ", 2)
    return (int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0), answer


class Canary(threading.Thread):
    """Asks a short question every 200 ms; keeps how long each answer took and its status."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.stop, self.seen = port, threading.Event(), []

    def run(self):
        while not self.stop.is_set():
            start = time.monotonic()
            try:
                status, _ = exchange(self.port, "POST", "/v1/chat/completions", CANARY)
            except OSError:
                status = 0
            took = time.monotonic() - start
            self.seen.append((took, status))
            self.stop.wait(max(0, 0.2 - took))


class Crowd:
    """Attackers and holders, each in a process."""

    def __init__(self, clients):
        self.stop = multiprocessing.Event()
        self.members = []
        for client in clients:
            receiver, sender = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=self.attack, args=(client, sender), daemon=True)
            self.members.append((process, receiver))

    def attack(self, client, sender):
        os.nice(19)
        client.run(self.stop)
        sender.send(client.tried)

    def start(self):
        for process, _ in self.members:
            process.start()

    def end(self, patience=150):
        """What each has tried, as far as it says so in time."""
        self.stop.set()
        end, tried = time.monotonic() + patience, []
        for process, receiver in self.members:
            if receiver.poll(max(0, end - time.monotonic())):
                tried.append(receiver.recv())
            process.kill()
            process.join()
        return tried


class Attacker:
    """Sends what `inputs` draws, one after the other."""

    def __init__(self, port, seed, index):
        self.port, self.random = port, random.Random(seed * 1000 + index)
        self.source, self.tried = f"127.0.0.{2 + index}", []

    def run(self, stop):
        while not stop.is_set():
            method, path, body, kind = inputs.draw(self.random)
            start = time.monotonic()
            try:
                status, answer = exchange(self.port, method, path, body, self.source, timeout=120)
            except OSError as error:
                status, answer = 0, str(error).encode()
            self.tried.append((time.monotonic() - start, status, kind, path, len(body), body[:300], answer))


class Holder:
    """Holds connections: silent ones, bodies that stall or drip, answers that nobody reads, clients that go."""

    def __init__(self, port, seed, index):
        self.port, self.random = port, random.Random(seed * 1000 + 500 + index)
        self.source, self.tried = f"127.0.1.{2 + index}", 0

    def open(self):
        kind = self.random.randrange(5)
        client = connect(self.port, self.source, 10, receive=4096)
        if kind == 1:
            client.sendall(head("POST", "/v1/chat/completions", 1 << 20) + b'{"messages":')
        elif kind == 2:
            client.sendall(head("POST", "/tokenize", 15 << 20) + b'{"text":"' + b"a" * (1 << 20))
        elif kind >= 3:
            body = {"messages": [{"role": "user", "content": "Tell me a long story."}], "max_tokens": 30_000,
                    "stream": True, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}
            written = json.dumps(body).encode()
            client.sendall(head("POST", "/v1/chat/completions", len(written)) + written)
        return client

    def run(self, stop):
        held = []
        while not stop.is_set():
            try:
                held.append(self.open())
                self.tried += 1
            except OSError:
                pass
            if len(held) > 60 or self.random.random() < 0.02:
                self.random.shuffle(held)
                for client in held[:30]:
                    client.close()
                del held[:30]
            stop.wait(0.05)
        for client in held:
            client.close()
