"""Gradings while containers, zygotes and the daemon are killed at random moments: no verdict lost, none wrong."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.daemon import PrivateDaemon
from dreamprm_cli.types import Problem, Tests
from dreamprm_sandbox import Sandbox, docker

_CALLS = [{"input": [a, b], "output": a + b} for a, b in ((1, 2), (30, 4), (5, -6))]
_CASES = [{"stdin": f"{a} {b}\n", "stdout": f"{a + b}\n"} for a, b in ((1, 2), (30, 4), (5, -6))]
FUNCTION = Problem("add", "", entry_point="add", time_limit_s=1.0, tests=Tests("plain", payload={"tests": _CALLS}))
PROGRAM = Problem("add-stdin", "", time_limit_s=1.0, tests=Tests("plain", payload={"tests": _CASES}))

_WORKS = "\nfor _ in range(10**6): pass\n"  # some hundredths of a second: long enough to be hit
# (problem, program, the verdict it must get whatever happens to the machine)
TABLE: Sequence[tuple[Problem, str, str]] = (
    (FUNCTION, "def add(a, b): return a + b", "PASS"),
    (FUNCTION, f"{_WORKS}def add(a, b): return a + b", "PASS"),
    (FUNCTION, "import time\ndef add(a, b):\n    time.sleep(0.1)\n    return a + b", "PASS"),
    (FUNCTION, "def add(a, b): return a - b", "WA"),
    (FUNCTION, f"{_WORKS}def add(a, b): return a - b", "WA"),
    (FUNCTION, "def add(a, b): return a + c", "RE"),
    (FUNCTION, "import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGKILL)", "RE"),
    (FUNCTION, "def add(a, b) return", "CE"),
    (FUNCTION, "def add(a, b): return len(bytearray(1 << 40))", "MLE"),
    (PROGRAM, "print(sum(map(int, input().split())))", "PASS"),
    (PROGRAM, f"{_WORKS}print(sum(map(int, input().split())))", "PASS"),
    (PROGRAM, f"{_WORKS}print(3)", "WA"),
    (PROGRAM, "print(input() + 1)", "RE"),
)
_LOOPS = (FUNCTION, "def add(a, b):\n    while True: pass", "TLE")  # rarer: it takes its whole second
_PAUSE_S = 0.08  # at most, after the first verdict since the last kill
_KINDS, _WEIGHTS = ("container", "zygote", "daemon"), (0.45, 0.45, 0.1)


def jobs(number: int, seed: int, quick: bool = False) -> list[tuple[Problem, str, str]]:
    """(problem, program, due verdict), no program twice. `quick`: none that works or waits."""
    chance = random.Random(seed)
    rows = [row for row in TABLE if not quick or (_WORKS not in row[1] and "sleep" not in row[1])]
    drawn = [_LOOPS if i % 50 == 49 and not quick else chance.choice(rows) for i in range(number)]
    return [(problem, f"{code}\n# {i}", due) for i, (problem, code, due) in enumerate(drawn)]


def measure(gradings: int = 500, seed: int = 0, kinds: Sequence[str] = _KINDS) -> dict[str, Any]:
    """What was killed, and every verdict that is not the one due. Raises SandboxUnavailable where there can be no
    daemon of one's own."""
    asked = jobs(gradings, seed)
    with PrivateDaemon() as daemon:
        with daemon.chosen():
            box = Sandbox(workers=2)
        with box, _Killer(daemon, seed, kinds) as killer:
            got: list[str] = []
            for verdict in box.grade((problem, code) for problem, code, _ in asked):
                got.append(verdict.status)
                killer.progress.set()
        client = daemon.connect()
        left = len(docker.containers(client))
        client.close()
    wrong = [
        {"program": code, "due": due, "got": status}
        for (_, code, due), status in zip(asked, got, strict=False)
        if status != due
    ]
    return {
        "gradings": gradings,
        "verdicts": len(got),
        "wrong": wrong,
        "killed": dict(killer.killed),
        "containers_left": left,
        "seed": seed,
        "ok": len(got) == gradings and not wrong and left == 0,
    }


class _Killer:
    """Ends something at random moments, in a thread of its own."""

    def __init__(self, daemon: PrivateDaemon, seed: int, kinds: Sequence[str]) -> None:
        self._daemon = daemon
        self._chance = random.Random(seed)
        self._weights = {kind: weight for kind, weight in zip(_KINDS, _WEIGHTS, strict=True) if kind in kinds}
        self._client = daemon.connect()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._error: BaseException | None = None
        self.killed: Counter[str] = Counter()
        self.progress = threading.Event()  # a machine that is killed faster than it starts proves nothing

    def __enter__(self) -> _Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.progress.set()
        self._thread.join()
        self._client.close()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        ways: dict[str, Callable[[], bool]] = {
            "container": self._container, "zygote": self._zygote, "daemon": self._restart,
        }  # fmt: skip
        try:
            while not self._stop.wait(self._chance.uniform(0.0, _PAUSE_S)):
                (kind,) = self._chance.choices(list(self._weights), list(self._weights.values()))
                self.killed[kind] += ways[kind]()
                self.progress.clear()
                self.progress.wait()
        except BaseException as error:  # told when the block is left
            self._error = error

    def _one(self) -> str | None:
        found = docker.containers(self._client)
        return str(self._chance.choice(found)["Id"]) if found else None

    def _container(self) -> bool:
        from docker.errors import DockerException

        container = self._one()
        with contextlib.suppress(DockerException):  # it went by itself
            if container is not None:
                self._client.api.kill(container)
                return True
        return False

    def _zygote(self) -> bool:
        from docker.errors import DockerException

        container = self._one()
        with contextlib.suppress(DockerException, OSError):
            pid = self._client.api.inspect_container(container)["State"]["Pid"] if container else 0
            if pid > 1 and b"python3" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def _restart(self) -> bool:
        self._daemon.kill()
        self._stop.wait(self._chance.uniform(0.0, 1.0))
        self._daemon.start()
        return True
