"""LiveView: a run on the user's screen while it happens, and its report at the end.

On a terminal the grid is drawn ten times a second by a thread of its own, so that the clock goes on while a model
computes; elsewhere every noteworthy event is a line. `python -m dreamprm_cli.view.live` plays a scripted demo.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Self

from rich.console import COLOR_SYSTEMS, Console
from rich.text import Text

from dreamprm_cli.events import Event
from dreamprm_cli.view.grid import render
from dreamprm_cli.view.paint import AboveStream, Painter, encode
from dreamprm_cli.view.plain import news
from dreamprm_cli.view.report import render_report
from dreamprm_cli.view.state import ViewState, fold

FRAMES_PER_S = 10


class LiveView:
    """A context manager; `update` takes the run's events one by one.

    console: where to draw (standard error, so that standard output stays the result).
    quiet:   fold the events and draw nothing.
    report:  when the run is over, replace the grid by the report.
    speed:   of the events' time against the wall clock (replay).
    animate: draw the moving grid; by default where the console is a terminal that can.

    The cursor and `sys.stderr` are restored however the block is left. What others write to `sys.stderr` meanwhile
    appears above the grid.
    """

    def __init__(
        self,
        console: Console,
        *,
        quiet: bool = False,
        report: bool = True,
        speed: float = 1.0,
        animate: bool | None = None,
    ) -> None:
        self.console = console
        self.state = ViewState.initial()
        self._report = report and not quiet
        self._plain = not quiet and not (can_animate(console) if animate is None else animate)
        self._animate = not quiet and not self._plain
        self._speed = speed
        self._since = time.monotonic()  # when the newest event came
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._painter: Painter | None = None
        self._stderr: IO[str] | None = None

    def recall(self, events: Iterable[Event]) -> None:
        """Take in what happened in an earlier process, without telling it again."""
        for event in events:
            self.state = fold(self.state, event)
        self._since = time.monotonic()

    def update(self, event: Event) -> None:
        """Take in the next event."""
        self.state = fold(self.state, event)
        self._since = time.monotonic()
        if self._plain:
            line = news(self.state, event, colors=self.console.color_system, ascii=self.console.options.ascii_only)
            if line is not None:
                text = Text.assemble(*((s.text, s.style or "") for s in line))
                self.console.print(text, soft_wrap=True, highlight=False)

    def __enter__(self) -> Self:
        if self._animate:
            out = self.console.file
            self._painter = Painter(out)
            if out is sys.stderr:
                self._stderr = sys.stderr
                sys.stderr = AboveStream(self._painter, self.console, out)
            self._thread = threading.Thread(target=self._run, name="view", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        over = self._report and self.state.over and kind is None
        try:
            self._stop.set()
            if self._thread is not None:
                self._thread.join()
            if self._painter is not None:
                if over:
                    self._painter.erase(self._size())
                else:
                    self._frame(anew=True)
        finally:
            if isinstance(sys.stderr, AboveStream) and self._stderr is not None:
                above, sys.stderr = sys.stderr, self._stderr
                above.release()
            if self._painter is not None:
                self._painter.close()
        if over:
            self.console.print(render_report(self.state, self.console.width), highlight=False)

    def _run(self) -> None:
        cost = 0.0
        while not self._stop.wait(max(1 / FRAMES_PER_S, 10 * cost)):  # a tenth of one core at most, however many rows
            begin = time.thread_time()
            self._frame()
            cost = time.thread_time() - begin

    def _size(self) -> tuple[int, int]:
        return self.console.size.width, self.console.size.height

    def _frame(self, *, anew: bool = False) -> None:
        """Draw the state as it is now; one consistent value, whatever `update` does meanwhile."""
        assert self._painter is not None
        state, since = self.state, self._since
        elapsed = state.elapsed if state.over else state.elapsed + (time.monotonic() - since) * self._speed
        width, height = self._size()
        grid = render(state, width, max(1, height - 1), elapsed=elapsed)
        options = self.console.options.update(width=width, height=None)
        lines = self.console.render_lines(grid, options, pad=False)
        colors = COLOR_SYSTEMS[self.console.color_system] if self.console.color_system else None
        self._painter.paint(encode(lines, colors, no_color=self.console.no_color), (width, height), anew=anew)


def can_animate(console: Console) -> bool:
    """A real terminal that understands cursor movement; FORCE_COLOR alone does not make a pipe one."""
    isatty = getattr(console.file, "isatty", None)
    return bool(isatty and isatty()) and console.is_interactive and not (
        console.is_dumb_terminal or console.legacy_windows or console.is_jupyter
    )  # fmt: skip


def main() -> None:
    """Play the scripted demo: `python -m dreamprm_cli.view.live [N [SPEED]]`."""
    from dreamprm_cli.view.demo import events
    from dreamprm_cli.view.replay import paced

    n = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    speed = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    with LiveView(Console(stderr=True), speed=speed) as view:
        for event in paced(events(n), speed):
            view.update(event)


if __name__ == "__main__":
    main()
