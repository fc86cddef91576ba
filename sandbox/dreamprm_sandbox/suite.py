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
    """One run of a program. `output_file` names a file that it has to write, with `content` in it; with one, `stdout`
    None means that what is printed does not matter."""

    stdin: str
    stdout: str | None
    output_file: str = ""
    content: str = ""


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


@dataclass(frozen=True, slots=True)
class Judged:
    """A pytest suite, run where no candidate ever is: the tests get stand-ins for the program. With `shared` the
    program is imported into their process instead: weak."""

    files: Mapping[str, bytes]  # the tests and what lies beside them, by path
    modules: tuple[str, ...]  # imports that mean the program
    wanted: tuple[str, ...] = ()  # what a star import of them gives
    ids: tuple[str, ...] = ()  # the tests; unknown until they have been collected
    prelude: str = ""
    fail_fast: bool = True
    shared: bool = False
    reference: str = ""  # a program known to pass: where it cannot be tested from outside, `shared` it is
    only: tuple[str, ...] = ()  # of the collected tests, those of these classes alone


Suite = Calls | Streams | Script | Judged
