"""Statements in, steps out: what all languages share. A language says of every line what it is, no more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dreamprm_cli.types import Step, StepKind

UNNAMED = "?"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one finished statement is.

    kind:  "constant" goes with the imports or the code before it, and is "imports" where there are none.
    owner: the class whose header or member this is (any number but 0); pieces of one class may merge.
    bare:  a class header with nothing of its own yet; it goes with the first member.
    """

    kind: StepKind | Literal["constant"]
    name: str
    owner: int = 0
    bare: bool = False


def _merged(group: Piece, piece: Piece) -> Piece | None:
    """The two as one step, or None when they are two steps."""
    if group.bare and piece.owner == group.owner:
        return piece
    if group.kind == "class" and piece.kind == "class" and group.owner == piece.owner:
        return group
    if group.kind in ("imports", "code") and piece.kind in (group.kind, "constant"):
        return group
    return None


def _cut(quiet: Sequence[int | None], column: int) -> int:
    """How many of the quiet lines before a statement at `column` stay with the statement before them.

    `quiet` holds the column of a comment, None for a blank line. Comments indented deeper than the new statement
    close the old one, as does a remark directly below it that a blank line sets off from the new one; blank lines
    stay behind; the rest opens the new statement.
    """
    kept = max((i + 1 for i, c in enumerate(quiet) if c is not None and c > column), default=0)
    remark = kept
    while remark < len(quiet) and quiet[remark] is not None:
        remark += 1
    if remark < len(quiet):
        kept = remark
    while kept < len(quiet) and quiet[kept] is None:
        kept += 1
    return kept


class Outline(ABC):
    """Takes the lines of a program one by one and gives back the steps that are certain by then.

    A subclass implements `read`, which calls exactly one of `blank`, `comment`, `more` and `start` for its line, and
    `describe`. Nothing looks ahead of the line just read, so the steps so far never depend on what follows.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []  # of the steps not yet given out
        self._number = 1  # line number of _lines[0]
        self._group: Piece | None = None  # the open step: _lines[:_start]
        self._start: int | None = None  # first line of the open statement; None before the first
        self._quiet: list[int | None] = []  # the blank and comment lines since the last line of code
        self._ready: list[Step] = []

    @abstractmethod
    def read(self, line: str) -> None:
        """Take one line, its end included."""

    @abstractmethod
    def describe(self, source: str) -> Piece:
        """What the statement that ends now is; called once for every statement, in order."""

    def feed(self, line: str) -> list[Step]:
        self._lines.append(line)
        self.read(line)
        return self._given()

    def finish(self) -> list[Step]:
        if self._lines:
            if self._start is None:
                self._group = Piece("imports", "imports")
            else:
                self._close(len(self._lines))
            if self._group is not None:
                self._emit(len(self._lines))
        return self._given()

    @property
    def started(self) -> bool:
        """True once there is a statement that lines can belong to."""
        return self._start is not None

    def blank(self) -> None:
        """The line is empty."""
        self._quiet.append(None)

    def comment(self, column: int) -> None:
        """The line holds nothing but a comment."""
        self._quiet.append(column)

    def more(self) -> None:
        """The line belongs to the open statement, and so do the quiet lines before it."""
        if self._start is None:
            self._start = 0
        self._quiet.clear()

    def start(self, column: int, back: int = 0) -> None:
        """A statement of the module or of a class begins on this line (or `back` lines before it)."""
        if self._start is None:
            self._start = 0
        else:
            self._close(len(self._lines) - 1 - back - len(self._quiet) + _cut(self._quiet, column))
        self._quiet.clear()

    def settle(self) -> None:
        """The open statement turns out to be a step of its own: what stands before it is finished."""
        if self._group is not None and not self._group.bare:
            self._emit(self._start or 0)
            self._start = 0

    def statement(self) -> list[str]:
        """The lines of the open statement so far."""
        return self._lines[self._start or 0 :]

    def _close(self, end: int) -> None:
        start = self._start or 0
        piece = self.describe("".join(self._lines[start:end]))
        both = _merged(self._group, piece) if self._group is not None else None
        if self._group is not None and both is None:
            self._emit(start)
            end -= start
        both = both or piece
        self._group = replace(both, kind="imports", name="imports") if both.kind == "constant" else both
        if self._group.kind in ("function", "method"):
            self._emit(end)
            end = 0
        self._start = end

    def _emit(self, end: int) -> None:
        group, lines = self._group, self._lines[:end]
        self._group = None
        if group is None or not lines:
            return
        last = self._number + len(lines) - 1
        kind: StepKind = "imports" if group.kind == "constant" else group.kind
        self._ready.append(Step(group.name, kind, "".join(lines), self._number, last))
        self._number = last + 1
        del self._lines[:end]

    def _given(self) -> list[Step]:
        ready, self._ready = self._ready, []
        return ready
