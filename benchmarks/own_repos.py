"""`dreamprm train REPO` on real packages: their source distributions, which carry their tests, successive releases
committed one on another. What is there of a package is not fetched again, and its training goes on after a kill.

The reports are kept beside the figures, in `own-repos/`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RELEASES = {
    "inflection": ("0.3.1", "0.4.0", "0.5.1"),
    "cachetools": ("5.3.3", "5.5.0"),
    "toolz": ("0.11.2", "0.12.1", "1.0.0"),
}
OPTIONS = ("-n", "6", "--rollouts", "4")
BUDGET = 400  # rollouts of each
REPORTS = Path(__file__).parent / "results" / "own-repos"
_METHODS = ("prm", "shipped", "random", "logprob")


def measure(data: Path = Path(".dreamprm/own-repos")) -> dict[str, Any]:
    """Figures of each package, and of one PRM for all of them; data: where packages and trainings are kept."""
    repos = {name: repository(name, releases, data / "packages") for name, releases in RELEASES.items()}
    alone = {name: trained(name, [repo], data, 80) for name, repo in repos.items()}
    spent = _gathered(list(repos), data)
    return {**alone, "together": trained("together", list(repos.values()), data, 80, spent)}


def trained(
    name: str, repos: Sequence[Path], data: Path, functions: int, budget: int = BUDGET, *more: str
) -> dict[str, Any]:
    """Figures of a PRM for some repositories, of each of which so many functions are mined; its report is kept.

    budget: in rollouts; more: options."""
    out = data / name
    command = [sys.executable, "-m", "dreamprm_cli", "train", *map(str, repos), "--out", str(out), *OPTIONS]
    asked = ["--functions", str(functions), "--budget", f"{budget}-rollouts", *more, "--json"]
    done = subprocess.run([*command, *asked], stdout=subprocess.PIPE, check=True)
    REPORTS.mkdir(parents=True, exist_ok=True)
    page = (out / "report.md").read_text(encoding="utf-8").replace(str(data), "DATA")
    (REPORTS / f"{name}.md").write_text(page, encoding="utf-8")
    return figures_of(json.loads(done.stdout))


def _gathered(names: Sequence[str], data: Path) -> int:
    """Lay the labels that there are of each where those of all belong; the rollouts spent on them."""
    for name in names:
        shutil.copytree(data / name / name, data / "together" / name, dirs_exist_ok=True)
    spent = [json.loads((data / name / "spent.json").read_text(encoding="utf-8")) for name in names]
    whole = {key: sum(one[key] for one in spent) for key in spent[0]}
    (data / "together" / "spent.json").write_text(json.dumps(whole), encoding="utf-8")
    return int(whole["rollouts"])


def repository(name: str, releases: tuple[str, ...], folder: Path) -> Path:
    """A git repository with a commit for each release. Raises CalledProcessError where one cannot be had."""
    repo = folder / name
    if (repo / ".git" / "whole").exists():
        return repo
    shutil.rmtree(repo, ignore_errors=True)
    repo.mkdir(parents=True)
    _git(repo, "init", "-q", "-b", "main")
    for number, release in enumerate(releases, 1):
        archive = _sdist(name, release, folder / "sdists")
        for path in repo.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with tarfile.open(archive) as files:
            top = files.getnames()[0].split("/")[0]
            files.extractall(folder / "sdists", filter="data")
        for path in (folder / "sdists" / top).iterdir():
            path.rename(repo / path.name)
        (folder / "sdists" / top).rmdir()
        _git(repo, "add", "-A", "-f")
        _git(repo, "commit", "-q", "-m", f"{name} {release}", date=f"2024-01-{number:02d}T00:00:00+0000")
    (repo / ".git" / "whole").touch()
    return repo


def _sdist(name: str, release: str, folder: Path) -> Path:
    """The source distribution, fetched where it is not there."""
    pattern = f"{name}-{release}.tar.gz", f"{name.replace('-', '_')}-{release}.tar.gz"
    for _ in range(2):
        for file in pattern:
            if (folder / file).exists():
                return folder / file
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(folder),
             f"{name}=={release}"],
            check=True,
        )  # fmt: skip
    raise RuntimeError(f"pip left no {pattern[0]} in {folder}")


def _git(repo: Path, *arguments: str, date: str = "2024-01-01T00:00:00+0000") -> None:
    who = {f"GIT_{role}_{key}": "releases" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    subprocess.run(["git", "-C", str(repo), *arguments], env={**os.environ, **who, **dates}, check=True)


def figures_of(report: dict[str, Any]) -> dict[str, Any]:
    """What the figures keep of a report."""
    kept = ("policy", "labels", "spent", "difference", "attempts_difference", "by_repository", "better", "why")
    return {
        "repositories": {name: _mined(one) for name, one in report["repositories"].items()},
        **{key: report[key] for key in kept},
        "adopted": bool(report["adopted_in"]),
        "held_out": {pool: _methods(report[pool]) for pool in ("attempts", "all") if report[pool]},
    }


def _mined(one: dict[str, Any]) -> dict[str, Any]:
    counts = ("commit", "functions", "covered", "drawn", "tests", "tasks", "with_killing_test", "negatives", "splits")
    share = one["with_killing_test"] / one["drawn"]
    return {
        **{key: one[key] for key in counts},
        "left_out": len(one["left_out"]),
        "share_with_a_killing_test": round(share, 3),
    }


def _methods(result: dict[str, Any]) -> dict[str, Any]:
    """Of a pool: what there is of it, and each method's AUC within functions and best-of-n."""
    methods = [name for name in _METHODS if name in result["best_of_n"]]
    return {
        **{key: result[key] for key in ("problems", "mixed_problems", "candidates", "pass@1", "oracle")},
        "methods": {
            name: {
                "auc_within": result["auc_within"][name],
                "best_of": {
                    n: {"solved_rate": row["solved_rate"], "ci95": row["ci95"]}
                    for n, row in result["best_of_n"][name].items()
                },
            }
            for name in methods
        },
    }
