"""Model downloads as a progress bar on a terminal, and as a line now and then in a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from dreamprm_cli.models import Progress as News
from dreamprm_cli.models import Report
from dreamprm_cli.view.text import label

_LINE_EVERY_S = 5.0


@contextmanager
def download_bar(console: Console, *, quiet: bool = False) -> Iterator[Report]:
    """A callback for `models.ensure` and its kin. Nothing is drawn until there is news; the bar goes when done."""
    if quiet:
        yield lambda _: None
    elif console.is_terminal:
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            console=console, transient=True,
        )  # fmt: skip
        with bar:
            yield _Bar(bar).report
    else:
        yield _Lines(console).report


def _caption(news: News) -> str:
    return f"{news.model}: {news.phase}"


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def report(self, news: News) -> None:
        if news.message:
            self._bar.console.print(label(news.message), markup=False, highlight=False)
            return
        caption = _caption(news)
        if caption not in self._tasks:
            self._tasks[caption] = self._bar.add_task(caption, total=news.total)
        self._bar.update(self._tasks[caption], completed=news.done, total=news.total)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._caption = ""
        self._next = 0.0

    def report(self, news: News) -> None:
        if news.message:
            self._print(label(news.message))
            return
        caption, now = _caption(news), time.monotonic()
        if caption != self._caption or now >= self._next:
            self._caption, self._next = caption, now + _LINE_EVERY_S
            share = f" {news.done / news.total:4.0%} of {news.total / 1e6:.0f} MB" if news.total else ""
            self._print(f"{caption}{share}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
