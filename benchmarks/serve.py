"""The scoring server: as much scored as in one process, by 16 clients at once; how long they wait; and what 10,000
malformed or oversized requests do to it.

Both sides make the same calls of a Scorer: a problem is started, then its programs are scored one after the other. In
one process all problems take turns; against the server each client has a problem of its own.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from benchmarks.timing import pair
from dreamprm_cli.prm import Scorer
from dreamprm_cli.prm.open import open_packed
from dreamprm_cli.prm.remote import RemoteScorer
from dreamprm_cli.types import Problem, Step

PRM = "small"
CLIENTS, PROGRAMS, FUNCTIONS = 16, 3, 3
PROBLEM_WORDS, FUNCTION_LINES = 150, 4
HOSTILE = 10_000


def _problem(client: int, reading: int) -> Problem:
    """One that no earlier reading had: the server still knows theirs."""
    draw = random.Random(1000 * reading + client)
    return Problem(id=f"p{client}", statement=" ".join(f"word{draw.randrange(100)}" for _ in range(PROBLEM_WORDS)))


def _program(client: int, program: int) -> list[Step]:
    steps = []
    for number in range(FUNCTIONS):
        lines = [f"def part_{number}(values):", f'    """Part {number} of program {program}."""', "    total = 0"]
        lines += [f"    total += values[{line}] * {client * 31 + program + 2}" for line in range(FUNCTION_LINES)]
        source = "\n".join([*lines, "    return total"]) + "\n\n\n"
        steps.append(Step(f"part_{number}", "function", source, 1, source.count("\n")))
    return steps


def _client(scorer: Scorer, client: int, reading: int) -> tuple[list[float], list[float]]:
    """One client's calls: (seconds of each, rewards)."""
    seconds, rewards = [], []
    begin = time.perf_counter()
    session = scorer.start(_problem(client, reading))
    seconds.append(time.perf_counter() - begin)
    for program in range(PROGRAMS):
        begin = time.perf_counter()
        rewards += session.append([(program, step) for step in _program(client, program)])
        seconds.append(time.perf_counter() - begin)
        session.drop(program)
    return seconds, rewards


class Served:
    """`dreamprm serve` in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dreamprm_cli", "serve", "--prm", PRM, "--port", "0"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.url, self.port = found[0], int(found[1])
                return
        raise RuntimeError(f"the server did not start: {said}")

    def memory_mb(self) -> float:
        with open(f"/proc/{self._process.pid}/status", encoding="utf-8") as status:
            kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        return kilobytes / 1024

    def running(self) -> bool:
        return self._process.poll() is None

    def metric(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"dreamprm_{name} ")))

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(timeout=60)


@contextmanager
def _served() -> Iterator[Served]:
    server = Served()
    try:
        yield server
    finally:
        if server.running():
            server.stop()


def _hostile(draw: random.Random) -> bytes:
    """A request that is malformed, cut off, oversized, or well-formed and wrong."""
    wrong = [
        b"{", b"\xff\xfe", b"[" * draw.randrange(1, 50_000), b"9" * 5000, b"null", b"[]", b"{}", b'"\\ud800"',
        b'{"problem": 1, "code": "x"}', b'{"problem": "p", "programs": [[1]]}',
        b'{"problem": "p", "programs": [[]], "known": [99]}', b'{"problem": "p", "code": "x", "language": []}',
        json.dumps({"problem": "p", "programs": [[]] * 300}).encode(),
        json.dumps({"problem": "p", "programs": [[{"source": "x"}] * 5000]}).encode(),
        draw.randbytes(draw.randrange(200)),
    ]  # fmt: skip
    body = draw.choice(wrong)
    path = draw.choice(["/score"] * 8 + ["/", "/health", "/%00", "/" + "x" * draw.randrange(70_000)])
    length: object = draw.choice([len(body)] * 6 + [len(body) + 5, -1, "x", 10**12, 2 << 20])
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    whole = head + body + (b" " * (2 << 20) if length == 2 << 20 else b"")
    kind = draw.randrange(10)
    if kind == 0:
        return whole[: draw.randrange(len(whole))]
    return draw.randbytes(draw.randrange(300)) if kind == 1 else whole


def _send(port: int, data: bytes) -> str:
    """The status that came back, or "none"."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        said = b""
        with suppress(OSError):  # it may close before it has read everything
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while piece := connection.recv(65536):
                said += piece
    found = re.match(rb"HTTP/1\.1 (\d+)", said)
    return found[1].decode() if found else "none"


def _attack(server: Served, count: int) -> dict[str, Any]:
    """Send the hostile requests, eight at a time, with an honest one after every thousand.

    Memory is read after each thousand; the first of them, which meets every path for the first time, is the warm-up.
    """
    statuses: Counter[str] = Counter()
    memory = []
    scorer = RemoteScorer(server.url)
    honest = 0
    with ThreadPoolExecutor(8) as pool:
        for first in range(0, count, 1000):
            numbers = range(first, min(count, first + 1000))
            statuses.update(pool.map(lambda n: _send(server.port, _hostile(random.Random(1000 + n))), numbers))
            session = scorer.start(Problem(id="honest", statement="Print 1."))
            honest += len(session.append([(0, _program(0, 0)[0])]))
            memory.append(server.memory_mb())
    return {
        "requests": count,
        "statuses": dict(sorted(statuses.items())),
        "honest_answered": f"{honest} of {len(memory)}",
        "running_after": server.running(),
        "memory_mb": [round(mb, 1) for mb in memory],
        "memory_growth_mb": round(memory[-1] - memory[0], 1),
    }


def measure(repeats: int = 5, clients: int = CLIENTS, hostile: int = HOSTILE) -> dict[str, Any]:
    """Throughput, `ratio` above 1 where the server is quicker; waiting times at `clients` at once; the attack."""
    here = open_packed(PRM)
    waits: list[float] = []
    rewards: dict[str, list[list[float]]] = {}
    readings = {"here": 0, "there": 0}
    with _served() as server, ThreadPoolExecutor(clients) as pool:

        def in_process() -> float:
            reading = readings["here"] = readings["here"] + 1
            begin = time.perf_counter()
            rewards["here"] = [_client(here, client, reading)[1] for client in range(clients)]
            return time.perf_counter() - begin

        def served() -> float:
            reading = readings["there"] = readings["there"] + 1
            scorers = [RemoteScorer(server.url) for _ in range(clients)]  # a connection each
            begin = time.perf_counter()
            answers = list(pool.map(_client, scorers, range(clients), [reading] * clients))
            took = time.perf_counter() - begin
            waits.extend(wait for seconds, _ in answers for wait in seconds)
            rewards["there"] = [row for _, row in answers]
            return took

        _client(here, 0, 0)
        _client(RemoteScorer(server.url), 0, 0)  # warm up
        throughput = pair(in_process, served, repeats)
        waits.sort()
        flat = {side: [reward for row in rows for reward in row] for side, rows in rewards.items()}
        batches = server.metric("batched_requests_total") / server.metric("batches_total")
        attack = _attack(server, hostile)
        exit_code = server.stop()
    return {
        "prm": PRM,
        "dtype": str(here.backbone.dtype).removeprefix("torch."),
        "device": here.device,
        "clients": clients,
        "programs_each": PROGRAMS,
        "functions_each": FUNCTIONS,
        "in_process_against_server": {**throughput, "repeats": repeats},
        "throughput_of_in_process": round(throughput["ratio"], 3),
        "requests_per_batch": round(batches, 2),
        "latency_s": {
            "requests": len(waits),
            "p50": round(waits[len(waits) // 2], 3),
            "p99": round(waits[min(len(waits) - 1, int(len(waits) * 0.99))], 3),
            "worst": round(waits[-1], 3),
        },
        "greatest_difference": max(abs(a - b) for a, b in zip(flat["here"], flat["there"], strict=True)),
        "hostile": attack,
        "exit_code": exit_code,
    }
