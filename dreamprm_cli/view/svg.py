"""The final screen of a recorded run as an SVG that needs nothing from elsewhere: for READMEs and papers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from dreamprm_cli.events import Event
from dreamprm_cli.view.report import render_report
from dreamprm_cli.view.state import fold_all
from dreamprm_cli.view.text import label

_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def export_svg(events: Iterable[Event], path: Path | str, width: int = 100) -> None:
    """Write the report of `events` to `path`, `width` cells wide. The same events give the same file."""
    state = fold_all(events)
    console = Console(
        width=width, height=1000, file=io.StringIO(), record=True,
        force_terminal=True, color_system="truecolor", no_color=False, legacy_windows=False,
    )  # fmt: skip
    console.print(render_report(state, width), highlight=False)
    svg = console.export_svg(title=f"dreamprm solve: {label(state.title)}", unique_id="dreamprm")
    svg = re.sub(r"@font-face \{[^}]*\}\s*", "", svg).replace("Fira Code, monospace", _FONTS)
    Path(path).write_text(svg, encoding="utf-8")
