"""Tiny repositories, made in the test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tiny_git

from tiny_git import commit, git

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(files, name="project") -> a repository with one commit; without files, none."""

    def made(files: Mapping[str, str | bytes] | None = None, name: str = "project") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
        if files is not None:
            commit(folder, files)
        return folder

    return made
