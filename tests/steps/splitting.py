"""What must hold for any text in any language, as checks that tests share."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dreamprm_cli.steps import StreamSplitter, split
from dreamprm_cli.types import Step


def lines(text: str) -> list[str]:
    """Lines with their ends, as Python's parser counts them."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)


def in_chunks(text: str, sizes: Sequence[int], language: str) -> list[list[Step]]:
    """What every chunk gave (sizes are used in turns), and what the end gave."""
    splitter = StreamSplitter(language)
    given, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        given.append(splitter.feed(text[at : at + size]))
        at, turn = at + size, turn + 1
    given.append(splitter.finish())
    return given


def check(text: str, sizes: Sequence[int], cuts: Sequence[int], language: str = "python") -> list[Step]:
    """All guarantees at once; the steps."""
    steps = split(text, language)
    assert "".join(step.source for step in steps) == text
    line = 1
    for step in steps:
        assert step.first_line == line
        line += len(lines(step.source))
        assert step.last_line == line - 1 >= step.first_line
        assert step.name
    assert [step for given in in_chunks(text, sizes, language) for step in given] == steps
    for cut in cuts:
        cut %= len(text) + 1
        certain = StreamSplitter(language).feed(text[:cut])
        assert certain == steps[: len(certain)]
        assert "".join(step.source for step in split(text[:cut], language)) == text[:cut]
    return steps


def outline(text: str, language: str = "python") -> list[tuple[str, str, str]]:
    """Kind, name and source of every step, after checking the guarantees at every cut of a small text."""
    steps = check(text, [1, 2, 7], range(len(text) + 1) if len(text) < 300 else range(0, len(text), 17), language)
    return [(step.kind, step.name, step.source) for step in steps]
