"""Splitting: throughput on the standard library, and the cost of a program that streams in tiny pieces. One core."""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timing import summary
from dreamprm_cli.steps import StreamSplitter, adherence, split

PIECE = 4  # characters: about a token


def measure(repeats: int = 5) -> dict[str, Any]:
    """CPU seconds, best of `repeats`; the 200-line program is the head of `textwrap`."""
    root = Path(sysconfig.get_paths()["stdlib"])
    sources = [path.read_text(encoding="utf-8") for path in sorted(root.glob("*.py"))]
    lines = (root / "textwrap.py").read_text(encoding="utf-8").splitlines(keepends=True)
    program = "".join(lines[:200])
    characters = sum(map(len, sources))
    whole = _seconds(lambda: [split(source) for source in sources], repeats)
    return {
        "stdlib_files": len(sources),
        "stdlib_characters": characters,
        "stdlib_s": whole,
        "megabytes_per_s": characters / 1e6 / whole["best"],
        "program_lines": len(lines[:200]),
        "program_streamed_s": _seconds(lambda: _stream(program), repeats),
        "program_split_s": _seconds(lambda: split(program), repeats),
        "program_adherence_s": _seconds(lambda: adherence(program), repeats),
    }


def _stream(program: str) -> None:
    splitter = StreamSplitter()
    for at in range(0, len(program), PIECE):
        splitter.feed(program[at : at + PIECE])
    splitter.finish()


def _seconds(work: Callable[[], object], repeats: int) -> dict[str, float]:
    work()  # the first call loads the grammar
    readings = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        readings.append(time.process_time() - begin)
    return summary(readings)
