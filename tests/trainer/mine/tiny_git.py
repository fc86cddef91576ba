"""Git and a tiny project, for repositories made in the test."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "PATH": os.environ["PATH"],
}


def git(folder: Path, *arguments: str, day: int = 1) -> str:
    """Run git, with a clock that is set."""
    date = f"2024-01-{day:02d}T00:00:00+0000"
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**_ENVIRONMENT, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def commit(folder: Path, files: Mapping[str, str | bytes], day: int = 1, message: str = "work") -> None:
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "-m", message, "--allow-empty", day=day)


def digests(folder: Path) -> dict[str, str]:
    """All there is below a folder, .git included: links by their target, files by content, mode and time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = f"{content} {about.st_mode} {about.st_mtime_ns}"
        else:
            found[str(path)] = "folder"
    return found


MODULE = '''"""Sums."""


def total(values):
    """The sum of the values; 0 for none."""
    result = 0
    for value in values:
        result += value
    return result


class Counter:
    """Counts."""

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, step: int = 1) -> int:
        """Add a step; the new count."""
        if step < 0:
            raise ValueError("negative")
        self.count = self.count + step
        return self.count


def unused(value):
    return value
'''
TESTS = """import pytest

from project.sums import Counter, total


def test_total():
    assert total([1, 2, 3]) == 6
    assert total([]) == 0


def test_add():
    counter = Counter(2)
    assert counter.add() == 3
    assert counter.add(4) == 7


def test_negative():
    with pytest.raises(ValueError, match="negative"):
        Counter().add(-1)
"""
PROJECT = {"project/__init__.py": "", "project/sums.py": MODULE, "tests/test_sums.py": TESTS}
