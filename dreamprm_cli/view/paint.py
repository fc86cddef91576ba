"""A block of lines at the end of a terminal's text, kept current: only lines that changed are written again.

A frame goes out in one write between the marks of a synchronized update (terminals that do not know them ignore them),
nothing is erased before it is overwritten, and an unchanged frame writes nothing: no flicker, and little to send over
a slow line. After a resize the terminal has wrapped or clipped what stood there; the block is then drawn anew.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style

_BEGIN, _END = "\x1b[?2026h\x1b[?25l", "\x1b[?2026l"
_SHOW_CURSOR = "\x1b[?25h"
_CLEAR_RIGHT, _CLEAR_LINE = "\x1b[K", "\x1b[2K"


@dataclass(frozen=True, slots=True)
class Row:
    """A line as the terminal gets it (escape codes in it), and the cells it takes."""

    text: str
    cells: int


class Painter:
    """Draws on `out`, which must be a terminal. Safe to call from several threads."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._lock = threading.RLock()
        self._rows: list[Row] = []
        self._size = (0, 0)

    def paint(self, rows: Sequence[Row], size: tuple[int, int], *, anew: bool = False) -> None:
        """Show `rows` (each at most `size[0]` cells, fewer than `size[1]` of them) in place of those shown before."""
        with self._lock:
            if anew or size != self._size or not self._rows:
                text = self._wipe(size) + "\r\n".join(row.text for row in rows)
            elif list(rows) == self._rows:
                return
            else:
                text = self._changes(rows, size[0])
            self._rows, self._size = list(rows), size
            self._write(text)

    def above(self, text: str, size: tuple[int, int]) -> None:
        """Write whole lines of text above the block, where they stay."""
        with self._lock:
            block = "\r\n".join(row.text for row in self._rows)
            body = text.rstrip("\n").replace("\n", "\r\n")
            self._write(f"{self._wipe(size)}{body}\r\n{block}")
            self._size = size

    def erase(self, size: tuple[int, int]) -> None:
        """Remove the block; the cursor stands where it began."""
        with self._lock:
            self._write(self._wipe(size))
            self._rows = []

    def close(self) -> None:
        """Leave the block on the screen, if there is one, the cursor visible on the line below it."""
        with self._lock:
            self._out.write(("\r\n" if self._rows else "") + _SHOW_CURSOR)
            self._out.flush()
            self._rows = []

    def _wipe(self, size: tuple[int, int]) -> str:
        """Clear the block from its end to its beginning, given how a terminal of this width has wrapped its rows.

        The cursor rests at the start of the last row, wrapped or not (terminals differ in where a resize moves a
        cursor at the end). Line by line: clearing all below from the top left corner makes some terminals save the
        screen to their history.
        """
        width, height = size
        wraps = [max(1, -(-row.cells // max(1, width))) for row in self._rows] or [1]
        lines = min(sum(wraps), height)
        return _down(wraps[-1] - 1) + "\r" + _CLEAR_LINE + ("\x1b[A" + _CLEAR_LINE) * (lines - 1)

    def _changes(self, rows: Sequence[Row], width: int) -> str:
        old = self._rows
        parts = [_up(len(old) - 1)]
        for number in range(max(len(rows), len(old))):
            if number:
                parts.append("\r\n")
            if number >= len(rows):
                parts.append(_CLEAR_RIGHT)
            elif number >= len(old) or rows[number] != old[number]:
                row = rows[number]
                # Clearing to the right of a full line would take its last character on some terminals.
                parts.append(row.text + (_CLEAR_RIGHT if row.cells < width else ""))
        parts.append(_up(len(old) - len(rows)))
        return "".join(parts)

    def _write(self, text: str) -> None:
        self._out.write(f"{_BEGIN}{text}\r{_END}")
        self._out.flush()


def _up(lines: int) -> str:
    return f"\r\x1b[{lines}A" if lines > 0 else "\r"


def _down(lines: int) -> str:
    return f"\x1b[{lines}B" if lines > 0 else ""


def encode(lines: Sequence[Sequence[Segment]], colors: ColorSystem | None, *, no_color: bool) -> list[Row]:
    """Rows of rendered lines. `no_color` keeps bold and the like."""
    rows = []
    for line in lines:
        segments = Segment.remove_color(line) if no_color else line
        text = "".join(
            s.style.render(s.text, color_system=colors) if isinstance(s.style, Style) else s.text
            for s in segments if not s.control
        )  # fmt: skip
        rows.append(Row(text, Segment.get_line_length(list(line))))
    return rows


class AboveStream(io.TextIOBase):
    """Stands in for `sys.stderr` while a block is shown: whole lines written here go above the block."""

    def __init__(self, painter: Painter, console: Console, original: IO[str]) -> None:
        self._painter = painter
        self._console = console
        self._original = original
        self._partial = ""
        self._lock = threading.Lock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(getattr(self._original, "encoding", "utf-8"))

    def isatty(self) -> bool:
        return self._original.isatty()

    def fileno(self) -> int:
        return self._original.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            whole, newline, self._partial = (self._partial + text).rpartition("\n")
        if newline:
            # A progress bar redraws its line after a carriage return: the last state is the one to keep.
            lines = [line.rstrip("\r").rpartition("\r")[2] for line in whole.split("\n")]
            self._painter.above("\n".join(lines), self._console.size)
        return len(text)

    def release(self) -> None:
        """Write out what came without a newline."""
        if self._partial:
            self.write("\n")
