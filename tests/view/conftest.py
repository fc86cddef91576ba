"""Lets the tests of this folder import `view_kit`, and draws each test's colours for its own consoles."""

import sys
from pathlib import Path
from typing import Any

import pytest
from rich.style import Style

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _colours_of_this_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """A style keeps the escape codes of the first console that drew it; styles outlive a test, its consoles do not."""
    render = Style.render

    def anew(self: Style, *arguments: Any, **options: Any) -> str:
        self._ansi = None
        return render(self, *arguments, **options)

    monkeypatch.setattr(Style, "render", anew)
