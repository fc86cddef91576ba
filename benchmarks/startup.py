"""Start-up: `dreamprm --help` against a minimal Typer program, `--version` against bare Python. Whole processes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.timing import command, pair

MINIMAL = """
import typer

app = typer.Typer()


@app.command()
def hello(name: str) -> None:
    \"\"\"Say hello.\"\"\"
    print(name)


app()
"""


def measure(repeats: int = 15) -> dict[str, Any]:
    """Ratios of best wall times; `first` is ours."""
    dreamprm = str(Path(sys.executable).parent / "dreamprm")
    with tempfile.TemporaryDirectory() as folder:
        minimal = Path(folder) / "minimal.py"
        minimal.write_text(MINIMAL, encoding="utf-8")
        for warm_up in ([dreamprm, "--help"], [sys.executable, str(minimal), "--help"]):
            command(warm_up)
        return {
            "help_against_minimal_typer": pair(
                lambda: command([dreamprm, "--help"]),
                lambda: command([sys.executable, str(minimal), "--help"]),
                repeats,
            ),
            "version_against_bare_python": pair(
                lambda: command([dreamprm, "--version"]),
                lambda: command([sys.executable, "-c", "pass"]),
                repeats,
            ),
        }
