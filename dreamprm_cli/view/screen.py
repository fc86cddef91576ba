"""Screen: what a function draws, kept current at the end of a terminal's text by a thread of its own.

The clock on it goes on while a model computes. The cursor and `sys.stderr` are restored however the block is left;
what others write to `sys.stderr` meanwhile appears above.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import IO

from rich.console import COLOR_SYSTEMS, Console, RenderableType

from dreamprm_cli.view.paint import AboveStream, Painter, encode

FRAMES_PER_S = 10

Draw = Callable[[int, int], RenderableType]  # width and greatest height in cells -> what is to be seen now


class Screen:
    """`console` must be able to animate; `draw` is called from a thread and must see one consistent state."""

    def __init__(self, console: Console, draw: Draw) -> None:
        self._console = console
        self._draw = draw
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)
        self._painter = Painter(console.file)
        self._stderr: IO[str] | None = None

    def open(self) -> None:
        """Begin to draw."""
        if self._console.file is sys.stderr:
            self._stderr = sys.stderr
            sys.stderr = AboveStream(self._painter, self._console, self._console.file)
        self._thread.start()

    def close(self, *, erase: bool) -> None:
        """Draw a last time, or take away what is drawn."""
        try:
            self._stop.set()
            self._thread.join()
            if erase:
                self._painter.erase(self._size())
            else:
                self._frame(anew=True)
        finally:
            if isinstance(sys.stderr, AboveStream) and self._stderr is not None:
                above, sys.stderr = sys.stderr, self._stderr
                above.release()
            self._painter.close()

    def _run(self) -> None:
        cost = 0.0
        while not self._stop.wait(max(1 / FRAMES_PER_S, 10 * cost)):  # a tenth of one core at most, however many rows
            begin = time.thread_time()
            self._frame()
            cost = time.thread_time() - begin

    def _size(self) -> tuple[int, int]:
        return self._console.size.width, self._console.size.height

    def _frame(self, *, anew: bool = False) -> None:
        width, height = self._size()
        console = self._console
        options = console.options.update(width=width, height=None)
        lines = console.render_lines(self._draw(width, max(1, height - 1)), options, pad=False)
        colors = COLOR_SYSTEMS[console.color_system] if console.color_system else None
        self._painter.paint(encode(lines, colors, no_color=console.no_color), (width, height), anew=anew)


def can_animate(console: Console) -> bool:
    """A real terminal that understands cursor movement; FORCE_COLOR alone does not make a pipe one."""
    isatty = getattr(console.file, "isatty", None)
    return bool(isatty and isatty()) and console.is_interactive and not (
        console.is_dumb_terminal or console.legacy_windows or console.is_jupyter
    )  # fmt: skip
