"""LiveView: a run on the user's screen while it happens, and its report at the end.

On a terminal the grid is drawn ten times a second by a thread of its own, so that the clock goes on while a model
computes; elsewhere every noteworthy event is a line. `python -m dreamprm_cli.view.live` plays a scripted demo.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.text import Text

from dreamprm_cli.events import Event
from dreamprm_cli.view.grid import render
from dreamprm_cli.view.plain import news
from dreamprm_cli.view.report import render_report
from dreamprm_cli.view.screen import Screen, can_animate
from dreamprm_cli.view.state import ViewState, fold


class LiveView:
    """A context manager; `update` takes the run's events one by one.

    console: where to draw (standard error, so that standard output stays the result).
    quiet:   fold the events and draw nothing.
    report:  when the run is over, replace the grid by the report.
    speed:   of the events' time against the wall clock (replay).
    animate: draw the moving grid; by default where the console is a terminal that can.

    The cursor and `sys.stderr` are restored however the block is left; see `screen.py`.
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
        self._screen = None if quiet or self._plain else Screen(console, self._draw)
        self._speed = speed
        self._since = time.monotonic()  # when the newest event came

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
        if self._screen is not None:
            self._screen.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        over = self._report and self.state.over and kind is None
        if self._screen is not None:
            self._screen.close(erase=over)
        if over:
            self.console.print(render_report(self.state, self.console.width), highlight=False)

    def _draw(self, width: int, height: int) -> RenderableType:
        """The state as it is now; one consistent value, whatever `update` does meanwhile."""
        state, since = self.state, self._since
        elapsed = state.elapsed if state.over else state.elapsed + (time.monotonic() - since) * self._speed
        return render(state, width, height, elapsed=elapsed)


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
