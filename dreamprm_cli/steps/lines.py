"""Lines as steps: every logical line of a function's body, to be measured against functions as steps.

The PRM reads a step at its end, so comments, blank lines, the signature and the docstring open the line that follows
them. Imports, and a class without methods, stay one step each, as in `split`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dreamprm_cli.steps.python_scan import PythonScan
from dreamprm_cli.steps.stream import split
from dreamprm_cli.types import Step

_AFTER_LINE = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
_SIGNATURE = re.compile(r"(?:async\s+)?def\b")
_DOCSTRING = re.compile(r"[rRbBuU]{0,2}['\"]")


def line_steps(code: str) -> list[Step]:
    """The steps of a Python program, a logical line each, named and of the kind of the function that it is in.

    Their sources join to `code`, whatever it is, and each is a part of one step of `split`.
    """
    return [line for step in split(code) for line in _cut(step)]


def _cut(step: Step) -> list[Step]:
    if step.kind not in ("function", "method", "code"):
        return [step]
    lines = [line for line in _AFTER_LINE.split(step.source) if line]
    logical = _ends(lines) if step.kind == "code" else _of_body(_ends(lines))
    ends = [*(end for end, _ in logical[:-1]), len(lines)]  # what closes the function stays with its last line
    starts = [0, *ends[:-1]]
    return [
        Step(step.name, step.kind, "".join(lines[a:b]), step.first_line + a, step.first_line + b - 1)
        for a, b in zip(starts, ends, strict=True)
    ]


def _ends(lines: Sequence[str]) -> list[tuple[int, str]]:
    """For each logical line: how many lines there are up to its end, and the text of its first."""
    scan = PythonScan()
    found: list[tuple[int, str]] = []
    text = ""
    for number, line in enumerate(lines, 1):
        if not scan.inside:
            text = line.strip()
        scan.line(line.rstrip("\r\n"))
        if not scan.inside and text and not text.startswith("#"):
            found.append((number, text))
    return found


def _of_body(ends: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Without all up to the signature, and without the docstring."""
    head = next((number for number, (_, text) in enumerate(ends, 1) if _SIGNATURE.match(text)), 0)
    if 0 < head < len(ends) and _DOCSTRING.match(ends[head][1]):
        head += 1
    return ends[head:]
