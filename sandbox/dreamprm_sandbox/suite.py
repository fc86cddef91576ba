"""What is to be run for a problem, as frozen values: the tests of any file format come down to these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One input of a function. `expected` is UNKNOWN until the reference solution has told it."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    expected: Any = None


UNKNOWN = object()

# (what the candidate returned, as plain values; the call) -> right?
Compare = Callable[[Any, Call], bool]


@dataclass(frozen=True, slots=True)
class Calls:
    """A function or method, called in one process with one input after the other; the host compares."""

    entry_point: str
    tests: tuple[Call, ...]
    compare: Compare
    prelude: str = ""
    reference: str = ""  # code that tells the expected results, run in the sandbox as well
    accepts_opaque: bool = False  # whether `compare` wants to see values that are not plain


@dataclass(frozen=True, slots=True)
class Case:
    stdin: str
    stdout: str


@dataclass(frozen=True, slots=True)
class Streams:
    """A program, run in a process of its own for every case."""

    cases: tuple[Case, ...]
    compare: Callable[[str, str], bool]  # (printed, expected) -> right?
    prelude: str = ""
    harness: str = ""  # code that defines `grade(source)`, run in the candidate's place


@dataclass(frozen=True, slots=True)
class Script:
    """Test code that has to share the process with the candidate: weak."""

    code: str
    count: int
    entry_point: str | None = None
    call_check: bool = False
    prelude: str = ""


Suite = Calls | Streams | Script
