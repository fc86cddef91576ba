"""A repository's tests, run in hardened containers of its own image: which there are, which pass, what they exercise.

A `Workshop` keeps one container warm: the files go over once, every run after that is a fork. Trust is weak: tests
and code share a process, which can do what it likes to the report about itself, and to nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dreamprm_cli.errors import ProblemError, SandboxUnavailable
from dreamprm_sandbox import forked
from dreamprm_sandbox.bundle import bundle
from dreamprm_sandbox.docker import Engine
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.slot import Fault, Job, Run, Slot, Tampered

LIMITS = Limits(
    time_limit_s=1800.0,
    total_time_limit_s=1e6,
    memory_mb=2048,
    pids=256,
    output_bytes=64 << 20,
    error_bytes=64 << 20,
    tmpfs_mb=512,
    tmpfs_files=60_000,
)
_CODE = bundle(forked, main="forked.main")
_ATTEMPTS = 3
_SETUP_S = 600.0


@dataclass(frozen=True, slots=True)
class Checkout:
    """What a container is given. roots: folders to import from; tests: the files that hold tests; options: pytest's."""

    files: Mapping[str, bytes]
    roots: Sequence[str]
    tests: Sequence[str]
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """One run. outcomes: test id -> passed, failed, skipped, xfailed. ended: done, over (the limit), hung (silent for
    too long) or died (ended from within), at the test `at`. cover: path -> for each range of lines (tests, how many
    there are, lines they ran)."""

    ids: tuple[str, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    outcomes: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    ended: str = "done"
    at: str = ""
    code: int = 0
    said: str = ""
    cover: Mapping[str, Sequence[tuple[Sequence[str], int, Sequence[int]]]] = field(default_factory=dict)


class Workshop:
    """One warm container with a repository in it. Thread-safe; runs take turns. Use it as a context manager."""

    def __init__(self, engine: Engine, checkout: Checkout) -> None:
        self._engine, self._checkout = engine, checkout
        self._turn = threading.Lock()
        self._slot: Slot | None = None
        self._run: Run | None = None
        self.collected = Report()

    def run(self, limit_s: float, **question: Any) -> Report:
        """What `forked.run` is asked. A run that takes the container down says `died`. Raises SandboxUnavailable when
        the machine keeps failing, ProblemError when the files cannot be set up."""
        with self._turn:
            fault = ""
            for _ in range(_ATTEMPTS):
                try:
                    run = self._open()
                    run.send([(("run", {"limit_s": limit_s, **question}), {})])
                    reply = run.reply()
                    if reply is not None and reply.tag == "V" and isinstance(reply.value, dict):
                        return Report(**reply.value)
                    self._close()
                    if reply is None:
                        return Report(ended="died")
                    fault = f"{reply.tag} {reply.value}"
                except (Fault, Tampered) as error:
                    fault = str(error)
                    self._close()
            raise SandboxUnavailable(
                f"the sandbox failed {_ATTEMPTS} times in a row: {fault}", "look at the engine's log"
            )

    def _open(self) -> Run:
        if self._run is not None:
            return self._run
        if self._slot is None:
            self._slot = self._engine.start()
        limits = self._engine.limits
        self._run = run = self._slot.start(Job("calls", _CODE, "", "main"), limits)
        reply = run.reply()
        if reply is None or reply.tag != "L":
            raise Fault(f"a container cannot run our code: {reply}")
        one = self._checkout
        asked = {
            "files": dict(one.files), "roots": list(one.roots), "tests": list(one.tests),
            "options": list(one.options), "limit_s": _SETUP_S,
        }  # fmt: skip
        run.send([(("setup", asked), {})])
        reply = run.reply()
        if reply is None or reply.tag != "V" or not isinstance(reply.value, dict):
            why = "they met a limit" if reply is None else str(reply.value)
            self._close()
            raise ProblemError(f"the repository's files cannot be set up in the sandbox: {why}")
        found = {key: value for key, value in reply.value.items() if key not in ("pytest", "python")}
        self.collected = Report(**found)
        return run

    def collect(self) -> Report:
        """The tests there are, and what keeps others from being collected."""
        with self._turn:
            self._open()
            return self.collected

    def _close(self) -> None:
        if self._slot is not None:
            self._engine.discard(self._slot)
        self._slot = self._run = None

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
