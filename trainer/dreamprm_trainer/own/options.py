"""What a user asks of `dreamprm train REPO`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.budget import Budget


@dataclass(frozen=True, slots=True)
class Options:
    """repos: to learn from; out: where everything is kept; budget: of labelling; engine: of `open_engine`, base_url: a
    server that has the policy; n: programs of a task at most; rollouts: of a prefix at most, 0 for none; by: how
    functions are held out; functions: mined of each repository at most, None for all; prm: the shipped one, to start
    from and to beat; adopt: let the new PRM become the repositories' default if it does."""

    repos: tuple[Path, ...]
    out: Path
    policy: str
    budget: Budget
    engine: str = "batched"
    base_url: str | None = None
    n: int = 8
    rollouts: int = 8
    max_tokens: int = 400
    by: Literal["file", "time"] = "file"
    functions: int | None = None
    workers: int = 1
    seed: int = 0
    prm: str = "default"
    adopt: bool = True

    def named(self) -> dict[str, Path]:
        """A name for each repository, which is that of its folder. Raises ConfigError for two of one name."""
        found: dict[str, Path] = {}
        for repo in self.repos:
            name = name_of(repo)
            if name in found:
                raise ConfigError(f"two repositories are called {name}", "train on one of them, or rename a folder")
            found[name] = repo
        return found


def name_of(repo: Path) -> str:
    """The folder's name, as the name of a folder of ours."""
    return re.sub(r"[^\w.-]", "_", repo.resolve().name) or "repository"
