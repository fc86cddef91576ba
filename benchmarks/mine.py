"""Mining a repository of 10,000 functions, its tests not run: seconds, peak memory, and the same tasks each time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.timing import summary

PACKAGE = "sympy"  # torch brings it along, with its tests
FUNCTIONS = 10_000
_ENVIRONMENT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "PATH": os.environ["PATH"]}


def measure(repeats: int = 3) -> dict[str, Any]:
    """Each reading is a process of its own; peak memory is that process's."""
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch) / "repository"
        functions = _made(repository)
        readings = [_mined(repository, Path(scratch) / f"out{number}") for number in range(repeats)]
    return {
        "package": f"{PACKAGE} {metadata.version(PACKAGE)}",
        "functions": functions,
        "tasks": readings[0]["tasks"],
        "seconds": summary([round(one["seconds"], 1) for one in readings]),
        "processor_s": summary([round(one["processor_s"], 1) for one in readings]),
        "peak_mb": max(one["peak_mb"] for one in readings),
        "same_tasks": len({one["sha256"] for one in readings}) == 1,
        "readings": repeats,
    }


def _made(folder: Path) -> int:
    """A repository with one commit: the files of an installed package with its tests, in the order of their paths,
    until its sources hold at least FUNCTIONS functions; how many they hold."""
    from dreamprm_trainer.mine.functions import Unreadable, module
    from dreamprm_trainer.mine.layout import is_source

    place = Path(sysconfig.get_path("purelib"))
    count = 0
    for path in sorted((place / PACKAGE).rglob("*.py")):
        name = path.relative_to(place).as_posix()
        data = path.read_bytes()
        if is_source(name):
            if count >= FUNCTIONS:
                continue
            with suppress(Unreadable):
                count += len(module(name, data).functions)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    if count < FUNCTIONS:
        raise SystemExit(f"{PACKAGE} holds {count} functions, not {FUNCTIONS}")
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
        "processor_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": round(usage.ru_maxrss / 1024),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
