"""What commands say: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from dreamprm_cli.errors import DreamPRMError

_UNBROKEN = 500  # columns of a table that nobody reads on a terminal: its lines are for grep


def stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def stdout() -> Console:
    """For tables and painted programs. In a pipe lines are not broken, unless COLUMNS says how wide they may be."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _UNBROKEN)


def print_text(text: str) -> None:
    """A program or other text on standard output, out at once; in UTF-8, as its file is, whatever the locale."""
    sys.stdout.flush()
    if "utf" in (sys.stdout.encoding or "utf").lower():
        sys.stdout.write(text)
    else:
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.flush()


def print_json(value: dict[str, Any]) -> None:
    """One line of JSON."""
    print_text(json.dumps(value, ensure_ascii=False) + "\n")


def print_error(error: DreamPRMError) -> None:
    """The message, and below it the hint."""
    from dreamprm_cli.view.text import clean

    console = stderr()
    console.print("error: ", style="bold red", end="", highlight=False)
    console.print(clean(error.message), markup=False, highlight=False, soft_wrap=True)
    if error.hint:
        console.print(f" hint: {clean(error.hint)}", style="dim", markup=False, highlight=False, soft_wrap=True)


def settle_output() -> None:
    """Write out what standard output holds, or forget it: what cannot be written would fail once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
