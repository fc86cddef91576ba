"""Mining a repository of 10,000 functions, its tests not run: seconds, peak memory, and the same tasks twice."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FUNCTIONS = 10_000
_ENVIRONMENT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "PATH": os.environ["PATH"]}


def measure(repeats: int = 2) -> dict[str, Any]:
    """Each reading is a process of its own; peak memory is that process's."""
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch) / "repository"
        functions = _made(repository)
        readings = [_mined(repository, Path(scratch) / f"out{number}") for number in range(repeats)]
    return {
        "functions": functions,
        "tasks": readings[0]["tasks"],
        "seconds": round(statistics.median(one["seconds"] for one in readings), 1),
        "peak_mb": max(one["peak_mb"] for one in readings),
        "same_tasks": len({one["sha256"] for one in readings}) == 1,
        "readings": repeats,
    }


def _sources() -> Iterator[Path]:
    """Modules of the packages that this Python has, in the order of their paths."""
    place = Path(sysconfig.get_path("purelib"))
    yield from sorted(path for path in place.rglob("*.py") if path.is_file() and not path.is_symlink())


def _made(folder: Path) -> int:
    """A repository with one commit that holds at least FUNCTIONS functions; how many."""
    from dreamprm_trainer.mine.functions import Unreadable, module
    from dreamprm_trainer.mine.layout import is_source

    place = Path(sysconfig.get_path("purelib"))
    count = 0
    for path in _sources():
        name = path.relative_to(place).as_posix()
        if count >= FUNCTIONS:
            break
        if not is_source(name):
            continue
        data = path.read_bytes()
        try:
            count += len(module(name, data).functions)
        except Unreadable:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    if count < FUNCTIONS:
        raise SystemExit(f"the installed packages hold {count} functions, not {FUNCTIONS}")
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "-A", "-f"], [*author, "commit", "-q", "-m", "sources"]):
        subprocess.run(["git", "-C", str(folder), *arguments], env=_ENVIRONMENT, check=True)
    return count


def _mined(repository: Path, out: Path) -> dict[str, Any]:
    """One run of `dreamprm train mine --no-tests`."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "dreamprm_cli", "train", "mine", str(repository), "--no-tests", "--out", str(out)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode != 0:
        raise SystemExit(f"mining ended with exit code {running.returncode}")
    data = (out / "tasks.jsonl").read_bytes()
    return {
        "tasks": data.count(b"\n"),
        "seconds": time.perf_counter() - begin,
        "peak_mb": round(usage.ru_maxrss / 1024),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
